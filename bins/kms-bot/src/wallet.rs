//! `/start`, `/balance`, `/receive`.

use kms_types::wire::{Account, CreateAccount};
use teloxide_core::types::MessageId;

use crate::app::{App, Done, Failure};
use crate::buttons::{Keyboard, Press};
use crate::command::Name;
use crate::incoming::{Person, Said};
use crate::password::Password;
use crate::steps::Step;
use crate::{qr, texts};

/// Begins the onboarding.
pub(crate) async fn ask_new_password(app: &App, who: &Person) -> Done {
    app.steps.set(who.id, Step::NewPassword);
    app.telegram.say(who.id, &texts::welcome(), Keyboard::none()).await?;
    Ok(())
}

/// Makes the wallet.
pub(crate) async fn create(app: &App, said: &Said, password: Password) -> Done {
    let who = &said.who;
    let username = who.username.as_ref().map(ToString::to_string).unwrap_or_default();
    if let Err(weak) = password.check(&[&who.first_name, username.trim_start_matches('@')]) {
        app.telegram.say(who.id, texts::weak(weak), Keyboard::none()).await?;
        return Ok(());
    }
    let message = app.telegram.say(who.id, texts::MAKING, Keyboard::none()).await?;
    let body = CreateAccount {
        telegram_id: who.id,
        password_hash: password.hash(who.id).await,
        username: who.username.clone(),
        seen_at: Some(said.at),
        mobile: None,
        email: None,
    };
    let made = async { Ok((app.kms.create_account(&body).await?, app.network().await?)) };
    let (text, keyboard) = match made.await {
        Ok((account, network)) => {
            app.steps.end(who.id);
            (texts::wallet(&account, &network, true), keyboard())
        }
        Err(error) => (texts::failure(&error, None), Keyboard::none()),
    };
    Ok(app.telegram.edit(who.id, message, &text, keyboard).await?)
}

/// The wallet of somebody who has one.
pub(crate) async fn show(app: &App, who: &Person, account: &Account) -> Done {
    let text = texts::wallet(account, &app.network().await?, false);
    app.telegram.say(who.id, &text, keyboard()).await?;
    Ok(())
}

fn keyboard() -> Keyboard {
    Keyboard::row([
        (texts::RECEIVE, Press::Command(Name::Receive)),
        (texts::BALANCE, Press::Command(Name::Balance)),
    ])
    .and_row([(texts::HOW_RECOVERY, Press::HowRecovery)])
}

/// `/balance`.
pub(crate) async fn balance(app: &App, who: &Person) -> Done {
    let text = balance_text(app, who).await?;
    app.telegram.say(who.id, &text, balance_keyboard()).await?;
    Ok(())
}

/// The same in the message that is there.
pub(crate) async fn refresh(app: &App, who: &Person, message: MessageId) -> Done {
    let text = balance_text(app, who).await?;
    Ok(app.telegram.edit(who.id, message, &text, balance_keyboard()).await?)
}

async fn balance_text(app: &App, who: &Person) -> Result<String, Failure> {
    let balance = app.kms.balance(who.id.into()).await?;
    Ok(texts::balance(&balance, &app.network().await?))
}

fn balance_keyboard() -> Keyboard {
    Keyboard::row([
        (texts::REFRESH, Press::Refresh),
        (texts::SEND, Press::Command(Name::Send)),
        (texts::RECEIVE, Press::Command(Name::Receive)),
    ])
}

/// `/receive`.
pub(crate) async fn receive(app: &App, who: &Person) -> Done {
    let Some(account) = app.account(who).await? else { return Ok(()) };
    let address = account.address.to_string();
    let text = texts::receive(account.address, &app.network().await?);
    let keyboard = Keyboard::none().and_copy(texts::COPY, &address);
    match qr::png(&address) {
        Some(png) => app.telegram.picture(who.id, png, &text, keyboard).await?,
        None => drop(app.telegram.say(who.id, &text, keyboard).await?),
    }
    Ok(())
}
