//! The ways to reach an account's owner outside Telegram.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpResponse, post, put};
use kms_types::wire::{ChangeEmail, ChangeMobile, ConfirmCode};
use kms_types::{AccountRef, ErrorCode, Problem};

use crate::auth::Bot;
use crate::body::{Json, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::state::{State, detached};

/// Notes the mobile number that Telegram showed of the account's own user, or forgets it.
#[utoipa::path(
    tag = "contacts",
    params(("account" = AccountRef, Path)),
    request_body = ChangeMobile,
    responses(
        (status = 204),
        (status = 403, description = "Not so soon after a recovery", body = Problem),
        (status = 404, body = Problem),
    )
)]
#[put("/accounts/{account}/mobile")]
pub(crate) async fn change_mobile(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(ChangeMobile { mobile }): Json<ChangeMobile>,
) -> Result<HttpResponse, ApiError> {
    let custody = Arc::clone(&state.custody);
    detached(async move {
        Ok(custody.change_mobile(account, mobile.as_ref(), &caller, clock::now()).await?)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Sends a code to an e-mail address, which is the account's once the code is confirmed; or
/// forgets the address there is.
#[utoipa::path(
    tag = "contacts",
    params(("account" = AccountRef, Path)),
    request_body = ChangeEmail,
    responses(
        (status = 204),
        (status = 403, description = "Wrong password, or soon after a recovery", body = Problem),
        (status = 409, description = "The server sends no mail", body = Problem),
        (status = 429, description = "Too many codes", body = Problem),
    )
)]
#[put("/accounts/{account}/email")]
pub(crate) async fn change_email(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(ChangeEmail { email, password_hash }): Json<ChangeEmail>,
) -> Result<HttpResponse, ApiError> {
    if email.is_some() && !state.sends_mail {
        let detail = "this server sends no e-mail, so no address can be confirmed";
        return Err(ApiError::refused(ErrorCode::NoMail, detail));
    }
    let limit = state.limits.email_codes.limit();
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let admit = move |id| async move {
        let taken = database.take(&format!("email:{id}"), limit).await?;
        taken.map_err(|after| {
            let detail = "too many codes for e-mail addresses";
            ApiError::TooMany { code: ErrorCode::RateLimited, detail, after }
        })
    };
    detached(async move {
        let now = clock::now();
        custody.change_email(account, email.as_ref(), password_hash, &caller, now, admit).await
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Confirms the code that was sent to the new address.
#[utoipa::path(
    tag = "contacts",
    params(("account" = AccountRef, Path)),
    request_body = ConfirmCode,
    responses(
        (status = 204),
        (status = 403, description = "The code is wrong", body = Problem),
        (status = 409, description = "No code can be confirmed any more", body = Problem),
    )
)]
#[post("/accounts/{account}/email/code")]
pub(crate) async fn confirm_email(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(ConfirmCode { code }): Json<ConfirmCode>,
) -> Result<HttpResponse, ApiError> {
    let custody = Arc::clone(&state.custody);
    detached(
        async move { Ok(custody.confirm_email(account, &code, &caller, clock::now()).await?) },
    )
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
