//! Where owners type their passwords, and leaving the vault page.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpResponse, delete, get};
use kms_core::audit::Caller;
use kms_store::RateLimit;
use kms_types::AccountRef;
use kms_types::wire::{self, LeavePage, Passwords};

use crate::auth::Chat;
use crate::body::Segment;
use crate::clock;
use crate::error::ApiError;
use crate::rate_limits::admit;
use crate::routes::accounts::show;
use crate::state::{State, detached};

crate::openapi::resource!(keep, passwords);

/// Each sends e-mails, and one more when it is cancelled.
const LEAVES_A_DAY: u32 = 5;

/// Returns where owners type their passwords: whether this token may pass them on, and the link of
/// the vault page.
#[utoipa::path(
    operation_id = "read_passwords",
    tag = "accounts",
    security(("token" = ["chat"])),
    responses(
        (status = 200, description = "Where owners type their passwords", body = Passwords),
    )
)]
#[get("/passwords")]
pub(crate) async fn passwords(chat: Chat, state: Data<State>) -> HttpResponse {
    let by_token = chat.passes_passwords();
    HttpResponse::Ok().json(Passwords { by_token, page: state.app.clone() })
}

/// Cancels the request of the owner that bearer tokens may act for the account again. Requires no
/// password. A repeat changes nothing.
#[utoipa::path(
    operation_id = "keep_page_only",
    tag = "accounts",
    security(("token" = ["chat"])),
    params(("account" = AccountRef, Path)),
    responses(
        (status = 200, description = "The account", body = wire::Account),
        (status = 404, description = "No such account"),
    )
)]
#[delete("/accounts/{account}/leave-page")]
pub(crate) async fn keep(
    Chat { caller, .. }: Chat,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
) -> Result<HttpResponse, ApiError> {
    keep_by(caller, &state, account).await
}

/// As [`keep`], for either door.
pub(crate) async fn keep_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
) -> Result<HttpResponse, ApiError> {
    let custody = Arc::clone(&state.custody);
    let kept =
        detached(async move { Ok(custody.keep_page_only(account, &caller, clock::now()).await?) });
    Ok(HttpResponse::Ok().json(show(state, kept.await?)?))
}

/// Requests that the account is no longer page-only.
pub(crate) async fn leave_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    LeavePage { password_hash }: LeavePage,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    // The later of both clocks, so that a slow one does not shorten the wait.
    let now = clock::now().max(state.database.now().await?);
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let admit = move |id| async move {
        let detail = "too many requests to leave the page; repeat after `retry_after` seconds";
        let limit = RateLimit::a_day(LEAVES_A_DAY);
        admit(&database, &format!("leave-page:{id}"), limit, detail).await
    };
    let asked = detached(async move {
        custody.request_page_leave(account, password_hash, &caller, now, admit).await
    });
    Ok(HttpResponse::Ok().json(show(state, asked.await?)?))
}
