//! `/history`.

use kms_client::Turn;
use teloxide_core::types::MessageId;

use crate::app::{App, Done, Failure};
use crate::buttons::{Keyboard, Place, Press};
use crate::incoming::Person;
use crate::texts;

const PAGE: u32 = 5;

/// The newest page.
pub(crate) async fn show(app: &App, who: &Person) -> Done {
    if let Some((text, keyboard)) = page(app, who, &Place::Newest).await? {
        app.telegram.say(who.id, &text, keyboard).await?;
    }
    Ok(())
}

/// Another page in the same message.
pub(crate) async fn turn(app: &App, who: &Person, message: MessageId, to: &Place) -> Done {
    if let Some((text, keyboard)) = page(app, who, to).await? {
        app.telegram.edit(who.id, message, &text, keyboard).await?;
    }
    Ok(())
}

async fn page(
    app: &App,
    who: &Person,
    place: &Place,
) -> Result<Option<(String, Keyboard)>, Failure> {
    let Some(account) = app.account(who).await? else { return Ok(None) };
    let turn = match place {
        Place::Newest => Turn::Newest,
        Place::Older(place) => Turn::Older(place),
        Place::Newer(place) => Turn::Newer(place),
    };
    let mut page = app.kms.transfers(who.id.into(), turn, PAGE).await?;
    // The first page is a full one, whatever came since.
    if matches!(turn, Turn::Newer(_)) && page.prev.is_none() {
        page = app.kms.transfers(who.id.into(), Turn::Newest, PAGE).await?;
    }
    let text = texts::history(&account, &page.entries, &app.network().await?);
    let newer = |place| (texts::NEWER, Press::History(Place::Newer(place)));
    let older = |place| (texts::OLDER, Press::History(Place::Older(place)));
    let keyboard = match (page.prev, page.next) {
        (None, None) => Keyboard::none(),
        (Some(prev), None) => Keyboard::row([newer(prev)]),
        (None, Some(next)) => Keyboard::row([older(next)]),
        (Some(prev), Some(next)) => Keyboard::row([newer(prev), older(next)]),
    };
    Ok(Some((text, keyboard)))
}
