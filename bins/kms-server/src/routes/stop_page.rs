//! The page behind the link in a mail. Looking at it changes nothing, since mail scanners follow
//! links; its button cancels the recovery.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
};
use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, get, post};
use kms_core::audit::Caller;
use kms_core::recovery::{Recovery, RecoveryStage};
use kms_core::{CustodyError, RowMac};
use kms_types::{RecoveryId, Timestamp};

use crate::clock;
use crate::state::{State, detached};
use crate::telemetry;

/// Nothing is loaded, nothing runs, nobody frames it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// What a visitor reads.
struct Page {
    status: StatusCode,
    title: &'static str,
    text: String,
    /// Whether there is still something to cancel.
    button: bool,
}

/// Shows what the link would do.
#[get("/recoveries/{id}/cancel/{key}")]
pub(crate) async fn show(state: Data<State>, path: Path<(String, String)>) -> HttpResponse {
    let Some((id, mac)) = parse(&path) else { return Page::unknown().into_response() };
    let found = state.custody.recovery_by_link(id, &mac).await;
    Page::of(found, clock::now()).into_response()
}

/// Cancels.
#[post("/recoveries/{id}/cancel/{key}")]
pub(crate) async fn stop(state: Data<State>, path: Path<(String, String)>) -> HttpResponse {
    let Some((id, mac)) = parse(&path) else { return Page::unknown().into_response() };
    let caller = Caller { actor: "link in a mail".to_owned(), request_id: telemetry::request_id() };
    let (custody, now) = (Arc::clone(&state.custody), clock::now());
    let page = detached(async move {
        let stopped = custody.cancel_recovery_by_link(id, &mac, &caller, now).await;
        Ok(match stopped {
            // It ended before, in whatever way.
            Err(CustodyError::Recovery(_)) => {
                Page::of(custody.recovery_by_link(id, &mac).await, now)
            }
            other => Page::of(other, now),
        })
    });
    page.await.unwrap_or_else(|_stopped| Page::later()).into_response()
}

fn parse((id, mac): &(String, String)) -> Option<(RecoveryId, RowMac)> {
    Some((id.parse().ok()?, mac.parse().ok()?))
}

impl Page {
    fn of(found: Result<Recovery, CustodyError>, now: Timestamp) -> Self {
        let recovery = match found {
            Ok(recovery) => recovery,
            Err(CustodyError::NoRecovery) => return Self::unknown(),
            Err(error) => {
                tracing::error!(%error, "a link in a mail could not be followed");
                return Self::later();
            }
        };
        let (title, text, button) = match recovery.stage(now) {
            RecoveryStage::Waiting | RecoveryStage::Ready => (
                "Stop the new password?",
                "A new password was asked for, because the old one was forgotten. If that was not \
                 you, stop it: the password stays what it is.",
                true,
            ),
            RecoveryStage::Cancelled => (
                "Stopped",
                "No new password will be set. The password is what it was before. If somebody else \
                 asked for it, end the other sessions of your Telegram account, and set a two-step \
                 password there.",
                false,
            ),
            RecoveryStage::Expired => {
                ("Over", "The time for this has passed. Nothing changed.", false)
            }
            RecoveryStage::Completed => (
                "Too late",
                "The new password was set already. If that was not you, ask whoever runs the bot \
                 at once to freeze the wallet.",
                false,
            ),
        };
        Self { status: StatusCode::OK, title, text: text.to_owned(), button }
    }

    fn unknown() -> Self {
        let text = "This link is not one of ours. Copy it from the mail again, as a whole.";
        Self {
            status: StatusCode::NOT_FOUND,
            title: "Unknown link",
            text: text.to_owned(),
            button: false,
        }
    }

    fn later() -> Self {
        let text = "Nothing was changed. Please try again in a minute; or write /recover to the \
            bot, and cancel it there.";
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "That did not work",
            text: text.to_owned(),
            button: false,
        }
    }

    fn into_response(self) -> HttpResponse {
        let button = match self.button {
            // To where the page is.
            true => "<form method=\"post\"><button>Stop it</button></form>",
            false => "",
        };
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n\
             <main><h1>{title}</h1><p>{text}</p>{button}</main>\n</html>\n",
            title = self.title,
            text = self.text,
        );
        HttpResponse::build(self.status)
            .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
            .insert_header((CONTENT_SECURITY_POLICY, POLICY))
            // The link itself is the key.
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(page)
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif }
body { margin: 0; display: grid; place-items: center; min-height: 100vh }
main { max-width: 30rem; padding: 1.5rem }
h1 { line-height: 1.2 }
button { font: inherit; padding: .6rem 1.2rem; border: 0; border-radius: .5rem;
  background: #b3261e; color: #fff; cursor: pointer }
";
