//! The page of the link in e-mails whose button freezes the wallet.

use std::sync::Arc;

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpResponse, get, post};
use kms_core::account::{Account, AccountState};
use kms_core::freeze::FreezeLink;
use kms_core::recovery::Recovery;
use kms_core::{CustodyError, RowMac};
use kms_types::Timestamp;

use super::link_page::{LinkButton, LinkPage, caller};
use crate::clock;
use crate::state::{State, detached};

/// Adds the page. It is for people, and not part of the API's document.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config.service(show).service(freeze);
}

type Parts = Path<(String, String, String)>;

/// Shows whether the wallet is frozen.
#[get("/accounts/{account}/freeze/{until}/{key}")]
pub(crate) async fn show(state: Data<State>, path: Parts) -> HttpResponse {
    let Some((link, mac)) = parse(&path) else { return LinkPage::unknown().into_response() };
    page(state.custody.account_of_freeze_link(link, &mac, clock::now()).await).into_response()
}

/// Freezes the wallet.
#[post("/accounts/{account}/freeze/{until}/{key}")]
pub(crate) async fn freeze(state: Data<State>, path: Parts) -> HttpResponse {
    let Some((link, mac)) = parse(&path) else { return LinkPage::unknown().into_response() };
    let (custody, caller, now) = (Arc::clone(&state.custody), caller(), clock::now());
    let frozen =
        detached(async move { Ok(custody.freeze_by_link(link, &mac, &caller, now).await) });
    match frozen.await {
        Ok(frozen) => page(frozen).into_response(),
        Err(_stopped) => LinkPage::failed(FAILED).into_response(),
    }
}

/// Returns the button that freezes the wallet after this recovery, which was completed, while such
/// a link is valid.
pub(super) fn button_after(
    state: &State,
    recovery: &Recovery,
    now: Timestamp,
) -> Option<LinkButton> {
    let link = state.custody.freeze_link(recovery.account, recovery.expires_at);
    let path = format!("{link}/{}", state.custody.freeze_link_mac(&link));
    (now < link.until).then_some(LinkButton { label: "Freeze my wallet", path })
}

const FAILED: &str = "The wallet may not be frozen. Please try again in a minute, or send /freeze \
    to the bot.";

fn parse((account, until, mac): &(String, String, String)) -> Option<(FreezeLink, RowMac)> {
    let (account, until) = (account.parse().ok()?, Timestamp(until.parse().ok()?));
    Some((FreezeLink { account, until }, mac.parse().ok()?))
}

fn page(found: Result<Account, CustodyError>) -> LinkPage {
    let account = match found {
        Ok(account) => account,
        Err(CustodyError::NoAccount) => return LinkPage::unknown(),
        Err(error) => {
            tracing::error!(%error, event = "freeze_link_failed", "freeze link failed");
            return LinkPage::failed(FAILED);
        }
    };
    let button = |label| Some(LinkButton { label, path: String::new() });
    match (account.state, account.unfreezes_at) {
        (AccountState::Active, _) => LinkPage::new(
            "Freeze your wallet?",
            "Nothing can be sent from it then, its key cannot be exported, and its password cannot \
             be changed or reset. It can still receive money. To unfreeze it later, send /freeze \
             to the bot: it requires the password and a waiting time.",
            button("Freeze my wallet"),
        ),
        (AccountState::FrozenByOwner, Some(_)) => LinkPage::new(
            "Keep your wallet frozen?",
            "Someone who knows the password requested to unfreeze your wallet. If it was not you, \
             keep it frozen, and contact the operator of the bot.",
            button("Keep it frozen"),
        ),
        (AccountState::FrozenByOwner, None) => LinkPage::new(
            "Frozen",
            "Nothing can be sent from your wallet. In Telegram, open Settings, then Devices, and \
             end every session that you do not recognize. To unfreeze the wallet later, send \
             /freeze to the bot.",
            None,
        ),
        (AccountState::Frozen, _) => LinkPage::new(
            "Frozen",
            "An operator froze your wallet, and nothing can be sent from it. Only an operator can \
             unfreeze it.",
            None,
        ),
    }
}
