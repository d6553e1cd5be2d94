//! Freezing an account, and lifting that.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpResponse, post};
use kms_core::audit::Caller;
use kms_store::RateLimit;
use kms_types::AccountRef;
use kms_types::wire::{self, Unfreeze};

use crate::auth::{Bot, Chat};
use crate::body::{Json, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::rate_limits::admit;
use crate::routes::accounts::show;
use crate::state::{State, detached};

crate::openapi::resource!(freeze, unfreeze);

/// Each sends e-mails, and one more when a freeze cancels it.
const UNFREEZES_A_DAY: u32 = 5;

/// Freezes the account at once: nothing is signed or exported, no contact or password is changed,
/// and an open recovery is cancelled. Requires no password. A request to unfreeze it is cancelled.
/// A repeat changes nothing.
#[utoipa::path(
    operation_id = "freeze_account",
    tag = "accounts",
    security(("token" = ["chat"])),
    params(("account" = AccountRef, Path)),
    responses(
        (
            status = 200,
            description = "The frozen account",
            body = wire::Account,
            links(("unfreeze" = (
                operation_id = "unfreeze_account",
                parameters(("account" = "$response.body#/id"))
            )))
        ),
        (status = 404, description = "No such account"),
    )
)]
#[post("/accounts/{account}/freeze")]
pub(crate) async fn freeze(
    Chat { caller, .. }: Chat,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
) -> Result<HttpResponse, ApiError> {
    let custody = Arc::clone(&state.custody);
    let frozen =
        detached(async move { Ok(custody.freeze_by_owner(account, &caller, clock::now()).await?) });
    Ok(HttpResponse::Ok().json(show(&state, frozen.await?)?))
}

/// Requests with the password that the owner's freeze is lifted. The account stays frozen until
/// `unfreezes_at`, and another freeze cancels the request. A repeat does not move the time. A
/// freeze by an operator is not lifted.
#[utoipa::path(
    operation_id = "unfreeze_account",
    tag = "accounts",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path)),
    request_body = Unfreeze,
    responses(
        (status = 200, description = "The account, which is still frozen", body = wire::Account),
        (
            status = 403,
            description = "The password is wrong, an operator froze the account, or the token's \
                scope does not allow this"
        ),
        (status = 404, description = "No such account"),
        (status = 409, description = "It is not frozen, or a concurrent change came first"),
        (status = 429, description = "Too many requests of this account, or wrong passwords"),
    )
)]
#[post("/accounts/{account}/unfreeze")]
pub(crate) async fn unfreeze(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<Unfreeze>,
) -> Result<HttpResponse, ApiError> {
    unfreeze_by(caller, &state, account, body).await
}

/// As [`unfreeze`], for either door.
pub(crate) async fn unfreeze_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    Unfreeze { password_hash }: Unfreeze,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    // The later of both clocks, so that a slow one does not shorten the wait.
    let now = clock::now().max(state.database.now().await?);
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let admit = move |id| async move {
        let detail =
            "too many requests to unfreeze this account; repeat after `retry_after` seconds";
        admit(&database, &format!("unfreeze:{id}"), RateLimit::a_day(UNFREEZES_A_DAY), detail).await
    };
    let asked = detached(async move {
        custody.request_unfreeze(account, password_hash, &caller, now, admit).await
    });
    Ok(HttpResponse::Ok().json(show(state, asked.await?)?))
}
