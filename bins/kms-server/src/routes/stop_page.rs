//! The page of the link in an e-mail, whose button cancels a recovery. A GET changes nothing,
//! because e-mail scanners follow links.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
};
use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpResponse, get, post};
use kms_core::audit::Caller;
use kms_core::recovery::{Recovery, RecoveryStage};
use kms_core::{CustodyError, RowMac};
use kms_types::{RecoveryId, Timestamp};

use crate::clock;
use crate::state::{State, detached};
use crate::telemetry;

/// Adds the page. It is for people, and not part of the API's document.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config.service(show).service(stop);
}

/// Loads nothing, runs no script, and cannot be framed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// The content of the page.
struct Page {
    status: StatusCode,
    title: &'static str,
    text: String,
    /// Whether the recovery can still be cancelled.
    button: bool,
}

/// Shows the state of the recovery.
#[get("/recoveries/{id}/cancel/{key}")]
pub(crate) async fn show(state: Data<State>, path: Path<(String, String)>) -> HttpResponse {
    let Some((id, mac)) = parse(&path) else { return Page::unknown().into_response() };
    let found = state.custody.recovery_by_link(id, &mac).await;
    Page::of(found, clock::now()).into_response()
}

/// Cancels the recovery.
#[post("/recoveries/{id}/cancel/{key}")]
pub(crate) async fn stop(state: Data<State>, path: Path<(String, String)>) -> HttpResponse {
    let Some((id, mac)) = parse(&path) else { return Page::unknown().into_response() };
    let caller =
        Caller { actor: "link in an e-mail".to_owned(), request_id: telemetry::request_id() };
    let (custody, now) = (Arc::clone(&state.custody), clock::now());
    let page = detached(async move {
        let stopped = custody.cancel_recovery_by_link(id, &mac, &caller, now).await;
        Ok(match stopped {
            // It had ended before.
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
                tracing::error!(%error, event = "cancel_link_failed", "cancellation link failed");
                return Self::later();
            }
        };
        let (title, text, button) = match recovery.stage(now) {
            RecoveryStage::Waiting | RecoveryStage::Ready => (
                "Cancel the password reset?",
                "Someone requested a new password for your wallet. If it was not you, cancel the \
                 request: your password stays the same.",
                true,
            ),
            RecoveryStage::Cancelled => (
                "Cancelled",
                "The password reset is cancelled, and your password has not changed. If someone \
                 else requested it, terminate the other sessions in Telegram's settings and turn on \
                 two-step verification.",
                false,
            ),
            RecoveryStage::Expired => {
                ("Expired", "This request has expired. Your password has not changed.", false)
            }
            RecoveryStage::Completed => (
                "Too late",
                "The new password is already set. If it was not you, ask the operator of the bot \
                 to freeze your wallet immediately.",
                false,
            ),
        };
        Self { status: StatusCode::OK, title, text: text.to_owned(), button }
    }

    fn unknown() -> Self {
        let text = "This link is not valid. Copy the whole link from the e-mail and try again.";
        Self {
            status: StatusCode::NOT_FOUND,
            title: "Unknown link",
            text: text.to_owned(),
            button: false,
        }
    }

    fn later() -> Self {
        let text = "Nothing has changed. Please try again in a minute, or send /recover to the bot \
            and cancel there.";
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "Something went wrong",
            text: text.to_owned(),
            button: false,
        }
    }

    fn into_response(self) -> HttpResponse {
        let button = match self.button {
            // A form without an action posts to the page's own URL.
            true => "<form method=\"post\"><button>Cancel the request</button></form>",
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
            // The URL is a secret.
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
