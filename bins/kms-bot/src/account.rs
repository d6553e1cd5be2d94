//! `/password`.

use kms_client::ClientError;
use kms_types::wire::ChangePassword;

use crate::app::{App, Done};
use crate::buttons::{Keyboard, Press};
use crate::incoming::Person;
use crate::password::Password;
use crate::steps::Step;
use crate::texts;

/// Asks for the old and the new password at once: neither is kept between two messages.
pub(crate) async fn ask_change(app: &App, who: &Person) -> Done {
    if app.account(who).await?.is_some() {
        app.steps.set(who.id, Step::ChangePassword);
        app.telegram.say(who.id, &texts::ask_change(), leave()).await?;
    }
    Ok(())
}

/// Changes the password. Until it is done the person may try again.
pub(crate) async fn change(app: &App, who: &Person, both: Password) -> Done {
    let (old, new) = match both.old_and_new() {
        None => return say(app, who, texts::TWO_LINES).await,
        Some((old, new)) if old.is(&new) => return say(app, who, texts::SAME_PASSWORD).await,
        Some(both) => both,
    };
    if let Err(weak) = new.check(&[&who.first_name]) {
        return say(app, who, texts::weak(weak)).await;
    }
    let message = app.telegram.say(who.id, texts::CHANGING, Keyboard::none()).await?;
    let body = ChangePassword {
        old_password_hash: old.hash(who.id).await,
        new_password_hash: new.hash(who.id).await,
    };
    let text = match app.kms.change_password(who.id.into(), &body).await {
        Ok(()) => {
            app.steps.end(who.id);
            texts::CHANGED.to_owned()
        }
        Err(ClientError::Problem(problem)) if problem.status < 500 => {
            texts::failure(&ClientError::Problem(problem), None)
        }
        Err(_) => texts::CHANGE_UNKNOWN.to_owned(),
    };
    Ok(app.telegram.edit_or_say(who.id, message, &text, Keyboard::none()).await?)
}

async fn say(app: &App, who: &Person, text: &str) -> Done {
    app.telegram.say(who.id, text, Keyboard::none()).await?;
    Ok(())
}

fn leave() -> Keyboard {
    Keyboard::row([(texts::CANCEL, Press::Leave)])
}
