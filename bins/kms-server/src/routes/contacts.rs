//! Contacts: the mobile number and the e-mail address of an account's owner.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpResponse, post, put};
use kms_core::audit::Caller;
use kms_types::wire::{ChangeEmail, ChangeMobile, ConfirmCode};
use kms_types::{AccountRef, ErrorCode};

use crate::auth::{Bot, Chat};
use crate::body::{Json, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::rate_limits::admit;
use crate::state::{State, detached};

crate::openapi::resource!(change_mobile, change_email, confirm_email);

/// Stores the mobile number that Telegram showed for the account's own user, or deletes it.
#[utoipa::path(
    operation_id = "change_mobile",
    tag = "contacts",
    security(("token" = ["chat"])),
    params(("account" = AccountRef, Path)),
    request_body = ChangeMobile,
    responses(
        (status = 204, description = "The number is stored or deleted"),
        (
            status = 403,
            description = "Not allowed so soon after a recovery, or the token's scope does not \
                allow this"
        ),
        (status = 404, description = "No such account"),
    )
)]
#[put("/accounts/{account}/mobile")]
pub(crate) async fn change_mobile(
    Chat { caller, .. }: Chat,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(ChangeMobile { mobile }): Json<ChangeMobile>,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    let custody = Arc::clone(&state.custody);
    detached(async move {
        Ok(custody.change_mobile(account, mobile.as_ref(), &caller, clock::now()).await?)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Sends a code to an e-mail address, which becomes the account's once the code is confirmed; or
/// deletes the account's address.
#[utoipa::path(
    operation_id = "change_email",
    tag = "contacts",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path)),
    request_body = ChangeEmail,
    responses(
        (status = 204, description = "The code will be sent, or the address is deleted"),
        (
            status = 403,
            description = "The password is wrong, or it is too soon after a recovery, or the \
                token's scope does not allow this"
        ),
        (status = 404, description = "No such account"),
        (
            status = 409,
            description = "The server sends no e-mail, or a concurrent change came first"
        ),
        (status = 429, description = "Too many codes, wrong passwords or concurrent requests"),
    )
)]
#[put("/accounts/{account}/email")]
pub(crate) async fn change_email(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<ChangeEmail>,
) -> Result<HttpResponse, ApiError> {
    change_email_by(caller, &state, account, body).await
}

/// As [`change_email`], for either door.
pub(crate) async fn change_email_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    body: ChangeEmail,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    let ChangeEmail { email, password_hash } = body;
    if email.is_some() && !state.sends_mail {
        let detail = "this server sends no e-mail, so it cannot confirm an address; ask its \
            operator to configure `mail`";
        return Err(ApiError::refused(ErrorCode::NoMail, detail));
    }
    let own = state.limits.email_codes.limit();
    let to_address = state.limits.codes_to_an_address.limit();
    let address = email.as_ref().map(|email| email.as_str().to_lowercase());
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let admit = move |id| async move {
        let detail = "too many codes for this account; repeat after `retry_after` seconds";
        admit(&database, &format!("email:{id}"), own, detail).await?;
        // Many accounts must not flood one mailbox.
        let detail = "too many codes to this address; repeat after `retry_after` seconds";
        let key = format!("email-to:{}", address.unwrap_or_default());
        admit(&database, &key, to_address, detail).await
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
    operation_id = "confirm_email",
    tag = "contacts",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path)),
    request_body = ConfirmCode,
    responses(
        (status = 204, description = "The address is the account's"),
        (
            status = 403,
            description = "The code is wrong, or it is too soon after a recovery, or the token's \
                scope does not allow this"
        ),
        (status = 404, description = "No such account"),
        (status = 409, description = "No code can be confirmed; request a new one"),
    )
)]
#[post("/accounts/{account}/email/code")]
pub(crate) async fn confirm_email(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<ConfirmCode>,
) -> Result<HttpResponse, ApiError> {
    confirm_email_by(caller, &state, account, body).await
}

/// As [`confirm_email`], for either door.
pub(crate) async fn confirm_email_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    ConfirmCode { code }: ConfirmCode,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    let custody = Arc::clone(&state.custody);
    detached(
        async move { Ok(custody.confirm_email(account, &code, &caller, clock::now()).await?) },
    )
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
