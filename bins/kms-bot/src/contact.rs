//! `/contact`: the e-mail address.

use kms_types::Email;
use kms_types::ErrorCode;
use kms_types::wire::{ChangeEmail, ConfirmCode};
use teloxide_core::types::MessageId;

use crate::app::{App, Done};
use crate::buttons::{Keyboard, Press};
use crate::incoming::Person;
use crate::password::Password;
use crate::steps::Step;
use crate::texts;

/// The address there is, and buttons that change it.
pub(crate) async fn show(app: &App, who: &Person) -> Done {
    let Some(account) = app.account(who).await? else { return Ok(()) };
    let keyboard = Keyboard::row([(texts::EMAIL, Press::Email)]);
    let keyboard = match account.email_verified_at {
        Some(_) => keyboard.and_row([(texts::NO_EMAIL, Press::NoEmail)]),
        None => keyboard,
    };
    app.telegram.say(who.id, &texts::contact(&account), keyboard).await?;
    Ok(())
}

pub(crate) async fn ask_address(app: &App, who: &Person, message: MessageId) -> Done {
    app.leave_step(who).await;
    app.steps.set(who.id, Step::EmailAddress);
    Ok(app.telegram.edit(who.id, message, texts::ASK_EMAIL, leave()).await?)
}

pub(crate) async fn answer_address(app: &App, who: &Person, text: &str) -> Done {
    match text.trim().parse() {
        Ok(email) => ask_password(app, who, None, Some(email)).await,
        Err(_personal) => {
            app.telegram.say(who.id, texts::EMAIL_FORM, leave()).await?;
            Ok(())
        }
    }
}

/// An address helps to recover the wallet, so it takes the password.
pub(crate) async fn ask_password(
    app: &App,
    who: &Person,
    message: Option<MessageId>,
    email: Option<Email>,
) -> Done {
    app.leave_step(who).await;
    let text = texts::ask_email_password(email.as_ref());
    app.steps.set(who.id, Step::EmailPassword { email });
    match message {
        Some(message) => app.telegram.edit(who.id, message, &text, leave()).await?,
        None => drop(app.telegram.say(who.id, &text, leave()).await?),
    }
    Ok(())
}

/// Asks the server to send a code, or to forget the address.
pub(crate) async fn change(
    app: &App,
    who: &Person,
    email: Option<Email>,
    password: Password,
) -> Done {
    let message = app.telegram.say(who.id, texts::EMAIL_ASKING, Keyboard::none()).await?;
    let password_hash = password.hash(who.id).await;
    let body = ChangeEmail { email, password_hash };
    let text = match app.kms.change_email(who.id.into(), &body).await {
        Ok(()) => {
            app.steps.end(who.id);
            match &body.email {
                Some(email) => {
                    app.steps.set(who.id, Step::EmailCode);
                    texts::ask_email_code(email)
                }
                None => texts::EMAIL_GONE.to_owned(),
            }
        }
        Err(error) => {
            if error.code() != Some(ErrorCode::WrongPassword) {
                app.steps.end(who.id);
            }
            texts::failure(&error, None)
        }
    };
    Ok(app.telegram.edit(who.id, message, &text, Keyboard::none()).await?)
}

/// Gives the server the code from the mail.
pub(crate) async fn confirm(app: &App, who: &Person, text: &str) -> Done {
    let Ok(code) = text.parse() else {
        app.telegram.say(who.id, texts::CODE_FORM, Keyboard::none()).await?;
        return Ok(());
    };
    let text = match app.kms.confirm_email(who.id.into(), &ConfirmCode { code }).await {
        Ok(()) => {
            app.steps.end(who.id);
            texts::CODE_RIGHT.to_owned()
        }
        Err(error) => {
            if error.code() == Some(ErrorCode::CodeExpired) {
                app.steps.end(who.id);
            }
            texts::failure(&error, None)
        }
    };
    app.telegram.say(who.id, &text, Keyboard::none()).await?;
    Ok(())
}

fn leave() -> Keyboard {
    Keyboard::row([(texts::CANCEL, Press::Leave)])
}
