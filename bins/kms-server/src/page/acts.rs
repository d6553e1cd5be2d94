//! What an owner does on the page. Each is the act of `/v1` of the same name, for the user who
//! opened the page.

use actix_web::web::Data;
use actix_web::{HttpResponse, delete, post, put};
use kms_chain::transfer::{Transfer, TransferState};
use kms_types::ErrorCode;
use kms_types::wire::{
    self, ChangeEmail, ChangePassword, CompleteRecovery, ConfirmCode, ConfirmShown,
    ConfirmTransfer, CreateAccount, ExportKey, ExportedKey, LeavePage, NewWallet, ReplaceTransfer,
    RequestRecovery, SetLimitByPassword, SpendingLimits, Unfreeze,
};

use super::launched::{
    Act, Any, AskRecovery, Confirm, Create, Export, Launched, Lift, Mail, Password, Recover,
    SpeedUp,
};
use super::reads::{own_transfer, view_of};
use crate::body::Json;
use crate::error::ApiError;
use crate::routes::{
    accounts, contacts, export, freezes, limits, page_only, recoveries, transfers,
};
use crate::state::State;

crate::openapi::resource!(
    create,
    confirm,
    speed_up,
    change_password,
    request_recovery,
    recovery_code,
    new_password,
    stop_recovery,
    change_email,
    email_code,
    export_key,
    set_limit,
    unfreeze,
    leave_page,
    keep_page,
);

/// Creates the wallet of the user who opened the page. Its username is the one that Telegram
/// signed.
#[utoipa::path(
    operation_id = "page_create_wallet",
    tag = "page",
    security(("launch" = ["n"])),
    request_body = NewWallet,
    responses(
        (status = 201, description = "The wallet was created", body = wire::Account),
        (status = 200, description = "The wallet with this password", body = wire::Account),
        (status = 409, description = "The user has a wallet with another password"),
        (status = 429, description = "Too many new wallets or wrong passwords"),
    )
)]
#[post("/wallet")]
async fn create(
    launched: Launched<Create>,
    state: Data<State>,
    Json(NewWallet { password_hash }): Json<NewWallet>,
) -> Result<HttpResponse, ApiError> {
    let body = CreateAccount {
        telegram_id: launched.launch.user,
        password_hash,
        usernames: launched.launch.username.clone().into_iter().collect(),
        seen_at: Some(launched.launch.signed_at),
        mobile: None,
        email: None,
    };
    accounts::create_by(launched.caller(), &state, body).await
}

/// Signs and broadcasts the transfer that the page was opened for, if it is what was shown. A
/// repeat returns the transfer as it is.
#[utoipa::path(
    operation_id = "page_confirm",
    tag = "page",
    security(("launch" = ["c"])),
    request_body = ConfirmShown,
    responses(
        (status = 200, description = "The transfer", body = wire::Transfer),
        (status = 404, description = "The user has no such transfer"),
        (status = 409, description = "It is not what was shown, or has expired"),
        (status = 422, description = "The balance does not cover it"),
        (status = 429, description = "Wrong passwords, or a spending limit"),
    )
)]
#[post("/transfer/confirm")]
async fn confirm(
    launched: Launched<Confirm>,
    state: Data<State>,
    Json(ConfirmShown { password_hash, view }): Json<ConfirmShown>,
) -> Result<HttpResponse, ApiError> {
    let transfer = own_transfer(&state, &launched.launch, launched.object).await?;
    // One that is signed is returned as it is: its answer was lost.
    if transfer.state == TransferState::Quoted && view_of(transfer.clone()).view != view {
        let detail = "the transfer is not what was shown; show it again";
        return Err(ApiError::refused(ErrorCode::QuoteMismatch, detail));
    }
    let body = repeated(&transfer, password_hash);
    transfers::confirm_by(launched.caller(), &state, transfer.id, body).await
}

fn repeated(transfer: &Transfer, password_hash: kms_types::PasswordHash) -> ConfirmTransfer {
    ConfirmTransfer {
        password_hash,
        chain_id: transfer.chain_id,
        to_address: transfer.to.address,
        token: transfer.token.clone(),
        value: transfer.value,
        max_fee: transfer.max_fee(),
    }
}

/// Signs the pending transfer that the page was opened for again, at a higher price.
#[utoipa::path(
    operation_id = "page_speed_up",
    tag = "page",
    security(("launch" = ["s"])),
    request_body = ReplaceTransfer,
    responses(
        (status = 200, description = "The transfer", body = wire::Transfer),
        (status = 404, description = "The user has no such transfer"),
        (status = 409, description = "It is not pending, or the fee is above what was shown"),
        (status = 422, description = "The balance does not cover it"),
        (status = 429, description = "Wrong passwords, or a spending limit"),
    )
)]
#[post("/transfer/replace")]
async fn speed_up(
    launched: Launched<SpeedUp>,
    state: Data<State>,
    Json(body): Json<ReplaceTransfer>,
) -> Result<HttpResponse, ApiError> {
    let transfer = own_transfer(&state, &launched.launch, launched.object).await?;
    transfers::replace_by(launched.caller(), &state, transfer.id, body).await
}

/// Replaces the password.
#[utoipa::path(
    operation_id = "page_change_password",
    tag = "page",
    security(("launch" = ["p"])),
    request_body = ChangePassword,
    responses(
        (status = 204, description = "The new password is in force, the old one is not"),
        (status = 409, description = "A concurrent change came first"),
        (status = 429, description = "Too many changes or wrong passwords"),
    )
)]
#[put("/password")]
async fn change_password(
    launched: Launched<Password>,
    state: Data<State>,
    Json(body): Json<ChangePassword>,
) -> Result<HttpResponse, ApiError> {
    accounts::change_password_by(launched.caller(), &state, launched.account(), body).await
}

/// Requests a recovery.
#[utoipa::path(
    operation_id = "page_request_recovery",
    tag = "page",
    security(("launch" = ["f"])),
    request_body = RequestRecovery,
    responses(
        (status = 201, description = "The recovery", body = wire::Recovery),
        (status = 404, description = "The user has no wallet"),
        (status = 409, description = "Another recovery is open"),
        (status = 429, description = "Too many recoveries"),
    )
)]
#[post("/recovery")]
async fn request_recovery(
    launched: Launched<AskRecovery>,
    state: Data<State>,
    Json(body): Json<RequestRecovery>,
) -> Result<HttpResponse, ApiError> {
    recoveries::request_by(launched.caller(), &state, launched.account(), body).await
}

/// Confirms the code of the recovery that the page was opened for.
#[utoipa::path(
    operation_id = "page_confirm_recovery",
    tag = "page",
    security(("launch" = ["r"])),
    request_body = ConfirmCode,
    responses(
        (status = 200, description = "The recovery", body = wire::Recovery),
        (status = 404, description = "The user has no such recovery"),
        (status = 409, description = "No code can be confirmed"),
    )
)]
#[post("/recovery/code")]
async fn recovery_code(
    launched: Launched<Recover>,
    state: Data<State>,
    Json(body): Json<ConfirmCode>,
) -> Result<HttpResponse, ApiError> {
    let (account, id) = (launched.account(), launched.object);
    recoveries::confirm_by(launched.caller(), &state, account, id, body).await
}

/// Sets the new password of the recovery that the page was opened for.
#[utoipa::path(
    operation_id = "page_complete_recovery",
    tag = "page",
    security(("launch" = ["r"])),
    request_body = CompleteRecovery,
    responses(
        (status = 200, description = "The new password is in force", body = wire::Recovery),
        (status = 404, description = "The user has no such recovery"),
        (status = 409, description = "The wait is not over, or it has ended"),
        (status = 429, description = "Too many recoveries"),
    )
)]
#[post("/recovery/complete")]
async fn new_password(
    launched: Launched<Recover>,
    state: Data<State>,
    Json(body): Json<CompleteRecovery>,
) -> Result<HttpResponse, ApiError> {
    let (account, id) = (launched.account(), launched.object);
    recoveries::complete_by(launched.caller(), &state, account, id, body).await
}

/// Sends a code to a new e-mail address, or deletes the address.
#[utoipa::path(
    operation_id = "page_change_email",
    tag = "page",
    security(("launch" = ["e"])),
    request_body = ChangeEmail,
    responses(
        (status = 204, description = "The code will be sent, or the address is deleted"),
        (status = 409, description = "The server sends no e-mail"),
        (status = 429, description = "Too many codes or wrong passwords"),
    )
)]
#[put("/email")]
async fn change_email(
    launched: Launched<Mail>,
    state: Data<State>,
    Json(body): Json<ChangeEmail>,
) -> Result<HttpResponse, ApiError> {
    contacts::change_email_by(launched.caller(), &state, launched.account(), body).await
}

/// Confirms the code that was sent to the new address.
#[utoipa::path(
    operation_id = "page_confirm_email",
    tag = "page",
    security(("launch" = ["e"])),
    request_body = ConfirmCode,
    responses(
        (status = 204, description = "The address is the account's"),
        (status = 404, description = "The user has no wallet"),
        (status = 409, description = "No code can be confirmed"),
    )
)]
#[post("/email/code")]
async fn email_code(
    launched: Launched<Mail>,
    state: Data<State>,
    Json(body): Json<ConfirmCode>,
) -> Result<HttpResponse, ApiError> {
    contacts::confirm_email_by(launched.caller(), &state, launched.account(), body).await
}

/// Returns the key as an encrypted file.
#[utoipa::path(
    operation_id = "page_export_key",
    tag = "page",
    security(("launch" = ["x"])),
    request_body = ExportKey,
    responses(
        (status = 200, description = "The key, encrypted", body = ExportedKey),
        (status = 409, description = "A concurrent change came first"),
        (status = 429, description = "Too many exports or wrong passwords"),
        (status = 503, description = "The operator paused payments, and exports with them"),
    )
)]
#[post("/export")]
async fn export_key(
    launched: Launched<Export>,
    state: Data<State>,
    Json(body): Json<ExportKey>,
) -> Result<HttpResponse, ApiError> {
    export::export_by(launched.caller(), &state, launched.account(), body).await
}

/// Sets a spending limit with the password: a lower one at once, a higher one after a day.
#[utoipa::path(
    operation_id = "page_set_limit",
    tag = "page",
    security(("launch" = ["l"])),
    request_body = SetLimitByPassword,
    responses(
        (status = 200, description = "The limits", body = SpendingLimits),
        (status = 404, description = "The user has no wallet"),
        (status = 422, description = "The server has no such token"),
        (status = 429, description = "Too many increases in a day or wrong passwords"),
    )
)]
#[put("/limits")]
async fn set_limit(
    launched: Launched<Lift>,
    state: Data<State>,
    Json(body): Json<SetLimitByPassword>,
) -> Result<HttpResponse, ApiError> {
    let account = own_account(&state, &launched).await?;
    limits::set_by_password(launched.caller(), &state, &account, body).await
}

/// Requests with the password that the owner's freeze is lifted.
#[utoipa::path(
    operation_id = "page_unfreeze",
    tag = "page",
    security(("launch" = ["l"])),
    request_body = Unfreeze,
    responses(
        (status = 200, description = "The account, which is still frozen", body = wire::Account),
        (status = 409, description = "It is not frozen"),
        (status = 429, description = "Too many requests or wrong passwords"),
    )
)]
#[post("/unfreeze")]
async fn unfreeze(
    launched: Launched<Lift>,
    state: Data<State>,
    Json(body): Json<Unfreeze>,
) -> Result<HttpResponse, ApiError> {
    freezes::unfreeze_by(launched.caller(), &state, launched.account(), body).await
}

/// Requests with the password that bearer tokens may act for the account again. It stays page-only
/// until `leaves_page_at`. A repeat does not move the time.
#[utoipa::path(
    operation_id = "page_leave",
    tag = "page",
    security(("launch" = ["l"])),
    request_body = LeavePage,
    responses(
        (status = 200, description = "The account, which is still page-only", body = wire::Account),
        (status = 409, description = "It is not page-only"),
        (status = 429, description = "Too many requests or wrong passwords"),
    )
)]
#[post("/leave-page")]
async fn leave_page(
    launched: Launched<Lift>,
    state: Data<State>,
    Json(body): Json<LeavePage>,
) -> Result<HttpResponse, ApiError> {
    page_only::leave_by(launched.caller(), &state, launched.account(), body).await
}

/// Cancels the request to leave the page. A repeat changes nothing.
#[utoipa::path(
    operation_id = "page_keep",
    tag = "page",
    security(("launch" = ["l"])),
    responses(
        (status = 200, description = "The account", body = wire::Account),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[delete("/leave-page")]
async fn keep_page(launched: Launched<Lift>, state: Data<State>) -> Result<HttpResponse, ApiError> {
    page_only::keep_by(launched.caller(), &state, launched.account()).await
}

/// Cancels the open recovery. Requires no password. A repeat finds none, and changes nothing.
#[utoipa::path(
    operation_id = "page_stop_recovery",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The recovery", body = wire::Recovery),
        (status = 204, description = "There is none"),
        (status = 404, description = "The user has no wallet"),
        (status = 409, description = "The recovery has ended in another way"),
    )
)]
#[delete("/recovery")]
async fn stop_recovery(
    launched: Launched<Any>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = own_account(&state, &launched).await?;
    recoveries::cancel_open(launched.caller(), &state, &account).await
}

async fn own_account<P: Act>(
    state: &State,
    launched: &Launched<P>,
) -> Result<kms_core::account::Account, ApiError> {
    accounts::find(state, launched.account()).await
}
