//! The page of the link in an e-mail, whose button cancels a recovery.

use std::sync::Arc;

use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpResponse, get, post};
use kms_core::recovery::{Recovery, RecoveryStage};
use kms_core::{CustodyError, RowMac};
use kms_types::{RecoveryId, Timestamp};

use super::freeze_page;
use super::link_page::{LinkButton, LinkPage, caller};
use crate::clock;
use crate::state::{State, detached};

/// Adds the page. It is for people, and not part of the API's document.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config.service(show).service(stop);
}

/// Shows the state of the recovery.
#[get("/recoveries/{id}/cancel/{key}")]
pub(crate) async fn show(state: Data<State>, path: Path<(String, String)>) -> HttpResponse {
    let Some((id, mac)) = parse(&path) else { return LinkPage::unknown().into_response() };
    let found = state.custody.recovery_by_link(id, &mac).await;
    page(&state, found, clock::now()).into_response()
}

/// Cancels the recovery.
#[post("/recoveries/{id}/cancel/{key}")]
pub(crate) async fn stop(state: Data<State>, path: Path<(String, String)>) -> HttpResponse {
    let Some((id, mac)) = parse(&path) else { return LinkPage::unknown().into_response() };
    let (custody, caller, now) = (Arc::clone(&state.custody), caller(), clock::now());
    let stopped = detached(async move {
        let stopped = custody.cancel_recovery_by_link(id, &mac, &caller, now).await;
        Ok(match stopped {
            // It had ended before.
            Err(CustodyError::Recovery(_)) => custody.recovery_by_link(id, &mac).await,
            other => other,
        })
    });
    match stopped.await {
        Ok(stopped) => page(&state, stopped, now).into_response(),
        Err(_stopped) => LinkPage::failed(FAILED).into_response(),
    }
}

const FAILED: &str = "Nothing has changed. Please try again in a minute, or send /recover to the \
    bot and cancel there.";

fn parse((id, mac): &(String, String)) -> Option<(RecoveryId, RowMac)> {
    Some((id.parse().ok()?, mac.parse().ok()?))
}

fn page(state: &State, found: Result<Recovery, CustodyError>, now: Timestamp) -> LinkPage {
    let recovery = match found {
        Ok(recovery) => recovery,
        Err(CustodyError::NoRecovery) => return LinkPage::unknown(),
        Err(error) => {
            tracing::error!(%error, event = "cancel_link_failed", "cancellation link failed");
            return LinkPage::failed(FAILED);
        }
    };
    if recovery.moves_to.is_some() {
        return move_page(state, &recovery, now);
    }
    match recovery.stage(now) {
        RecoveryStage::Waiting | RecoveryStage::Ready => LinkPage::new(
            "Cancel the password reset?",
            "Someone requested a new password for your wallet. If it was not you, cancel the \
             request: your password stays the same.",
            Some(LinkButton { label: "Cancel the request", path: String::new() }),
        ),
        RecoveryStage::Cancelled => LinkPage::new(
            "Cancelled",
            "The password reset is cancelled, and your password has not changed. If someone else \
             requested it, terminate the other sessions in Telegram's settings and turn on \
             two-step verification.",
            None,
        ),
        RecoveryStage::Expired => LinkPage::new(
            "Expired",
            "This request has expired. Your password has not changed.",
            None,
        ),
        RecoveryStage::Completed => LinkPage::new(
            "Too late to cancel",
            "The new password is already set. If it was not you, freeze your wallet now: nothing \
             can be sent from it until the freeze is lifted.",
            freeze_page::button_after(state, &recovery, now),
        ),
    }
}

/// The page about a move to another Telegram account.
fn move_page(state: &State, recovery: &Recovery, now: Timestamp) -> LinkPage {
    match recovery.stage(now) {
        RecoveryStage::Waiting | RecoveryStage::Ready => LinkPage::new(
            "Cancel the move of your wallet?",
            "The operators of this service were asked to move your wallet to another Telegram \
             account. If it was not you, cancel the move: your wallet stays where it is.",
            Some(LinkButton { label: "Cancel the move", path: String::new() }),
        ),
        RecoveryStage::Cancelled => LinkPage::new(
            "Cancelled",
            "The move is cancelled, and your wallet stays where it is. If someone else asked for \
             it, write to the operator of this service.",
            None,
        ),
        RecoveryStage::Expired => {
            LinkPage::new("Expired", "The move has expired. Your wallet stays where it is.", None)
        }
        RecoveryStage::Completed => LinkPage::new(
            "Too late to cancel",
            "Your wallet is already moved. If it was not you, freeze it now: nothing can be sent \
             from it until the freeze is lifted.",
            freeze_page::button_after(state, recovery, now),
        ),
    }
}
