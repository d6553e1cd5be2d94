//! Handing a wallet's key to its owner.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;
use actix_web::{HttpResponse, post};
use kms_types::wire::{ExportKey, ExportedKey};
use kms_types::{AccountRef, ErrorCode, Problem};

use crate::auth::Bot;
use crate::body::{Json, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::state::{State, detached};

/// The wallet's key as a file for other wallets, under a new passphrase. The wallet goes on.
#[utoipa::path(
    tag = "accounts",
    params(("account" = AccountRef, Path)),
    request_body = ExportKey,
    responses(
        (status = 200, body = ExportedKey),
        (status = 403, description = "The password is wrong, or a recovery was lately", body = Problem),
        (status = 429, description = "Too many exports or wrong passwords", body = Problem),
    )
)]
#[post("/accounts/{account}/export")]
pub(crate) async fn export(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<ExportKey>,
) -> Result<HttpResponse, ApiError> {
    let limit = state.limits.exports.limit();
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let admit = move |id| async move {
        let taken = database.take(&format!("export:{id}"), limit).await?;
        taken.map_err(|after| {
            let detail = "too many exports of this key; wait before the next";
            ApiError::TooMany { code: ErrorCode::RateLimited, detail, after }
        })
    };
    let exported = detached(async move {
        custody.export(account, body.password_hash, &caller, clock::now(), admit).await
    })
    .await?;
    let kms_core::ExportedKey { address, keystore, passphrase } = exported;
    let answer = ExportedKey { address, keystore, passphrase };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(answer))
}
