//! `/limit`: how much may be spent in a day.

use kms_types::Asset;
use kms_types::wire::{LimitAmount, SetLimit};

use crate::app::{App, Done};
use crate::buttons::Keyboard;
use crate::incoming::Person;
use crate::texts;

/// What is in force.
pub(crate) async fn show(app: &App, who: &Person) -> Done {
    if app.account(who).await?.is_none() {
        return Ok(());
    }
    let limits = app.kms.limits(who.id.into()).await?;
    let text = texts::limits(&limits, &app.network().await?);
    app.telegram.say(who.id, &text, Keyboard::none()).await?;
    Ok(())
}

/// Asks for another one. A lower one is in force at once, a higher one after a day.
pub(crate) async fn set(app: &App, who: &Person, amount: LimitAmount, asset: Asset) -> Done {
    if app.account(who).await?.is_none() {
        return Ok(());
    }
    let limits = app.kms.set_limit(who.id.into(), &SetLimit { asset, amount }).await?;
    let text = texts::limits(&limits, &app.network().await?);
    app.telegram.say(who.id, &text, Keyboard::none()).await?;
    Ok(())
}
