//! Export of a wallet's key to its owner.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;
use actix_web::{HttpResponse, post};
use kms_core::audit::Caller;
use kms_types::AccountRef;
use kms_types::wire::{ExportKey, ExportedKey};

use crate::auth::Bot;
use crate::body::{Json, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::rate_limits::admit;
use crate::state::{State, detached};

crate::openapi::resource!(export);

/// Returns the wallet's key as a Web3 Secret Storage file under a new passphrase. The wallet stays
/// in use.
#[utoipa::path(
    operation_id = "export_key",
    tag = "accounts",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path)),
    request_body = ExportKey,
    responses(
        (status = 200, description = "The key, encrypted", body = ExportedKey),
        (
            status = 403,
            description = "The password is wrong, the account is frozen, it is too soon after a \
                recovery, or the token's scope does not allow this"
        ),
        (status = 404, description = "No such account"),
        (status = 409, description = "A concurrent change came first"),
        (status = 429, description = "Too many exports, wrong passwords or concurrent requests"),
        (status = 503, description = "The operator paused payments, and exports with them"),
    )
)]
#[post("/accounts/{account}/export")]
pub(crate) async fn export(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<ExportKey>,
) -> Result<HttpResponse, ApiError> {
    export_by(caller, &state, account, body).await
}

/// As [`export`], for either door.
pub(crate) async fn export_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    body: ExportKey,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    state.chains.admit_export()?;
    let limit = state.limits.exports.limit();
    let detail = "too many exports of this key; repeat after `retry_after` seconds";
    if limit.burst == 0 {
        // Before the key is opened, where no export is allowed at all.
        return Err(ApiError::rate_limited(detail, limit.period));
    }
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let admit =
        move |id| async move { admit(&database, &format!("export:{id}"), limit, detail).await };
    let exported = detached(async move {
        custody.export(account, body.password_hash, &caller, clock::now(), admit).await
    })
    .await?;
    let kms_core::ExportedKey { address, keystore, passphrase } = exported;
    let answer = ExportedKey { address, keystore, passphrase };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(answer))
}
