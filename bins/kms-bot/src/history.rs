//! `/history`.

use teloxide_core::types::MessageId;

use crate::app::{App, Done, Failure};
use crate::buttons::{Keyboard, Press};
use crate::incoming::Person;
use crate::texts;

const PAGE: u32 = 5;

/// The newest page, or the one after a place.
pub(crate) async fn show(app: &App, who: &Person, before: Option<&str>) -> Done {
    if let Some((text, keyboard)) = page(app, who, before).await? {
        app.telegram.say(who.id, &text, keyboard).await?;
    }
    Ok(())
}

/// Another page in the same message.
pub(crate) async fn turn(
    app: &App,
    who: &Person,
    message: MessageId,
    before: Option<&str>,
) -> Done {
    if let Some((text, keyboard)) = page(app, who, before).await? {
        app.telegram.edit(who.id, message, &text, keyboard).await?;
    }
    Ok(())
}

async fn page(
    app: &App,
    who: &Person,
    before: Option<&str>,
) -> Result<Option<(String, Keyboard)>, Failure> {
    let Some(account) = app.account(who).await? else { return Ok(None) };
    let page = app.kms.transfers(who.id.into(), before, PAGE).await?;
    let text = texts::history(&account, &page.transfers, &app.network().await?);
    let newest = || (texts::NEWEST, Press::History { before: None });
    let keyboard = match (before, page.next) {
        (None, None) => Keyboard::none(),
        (Some(_), None) => Keyboard::row([newest()]),
        (None, next) => Keyboard::row([(texts::OLDER, Press::History { before: next })]),
        (Some(_), next) => {
            Keyboard::row([newest(), (texts::OLDER, Press::History { before: next })])
        }
    };
    Ok(Some((text, keyboard)))
}
