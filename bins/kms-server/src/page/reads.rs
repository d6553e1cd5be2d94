//! What an owner sees on the page, all of it from the database.

use std::collections::HashSet;

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_chain::ports::TransferStore;
use kms_chain::transfer::Transfer;
use kms_core::launch::Launch;
use kms_core::ports::AccountStore;
use kms_store::{AuditRow, Page};
use kms_types::wire::{
    self, Balances, HistoryPage, KeyUse, KeyUses, Replacement, SpendingLimits, TransferView,
};
use kms_types::{AccountRef, TransferId};
use ring::digest::{SHA256, digest};

use super::launched::{Any, Launched, Pay, SpeedUp};
use crate::error::ApiError;
use crate::routes::{accounts, limits, recoveries, transfers};
use crate::state::State;

crate::openapi::resource!(
    read_account,
    read_networks,
    read_balance,
    read_history,
    read_uses,
    read_recovery,
    read_limits,
    read_transfer,
    read_fee,
);

/// How much of the history is shown.
const SHOWN: u32 = 20;

/// How many records of the audit are read.
const RECORDS: u32 = 500;

/// Returns the account of the user who opened the page.
#[utoipa::path(
    operation_id = "page_account",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The account", body = wire::Account),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[get("/account")]
async fn read_account(
    launched: Launched<Any>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, launched.account()).await?;
    Ok(HttpResponse::Ok().json(accounts::show(&state, account)?))
}

/// Returns the chains and their tokens.
#[utoipa::path(
    operation_id = "page_networks",
    tag = "page",
    security(("launch" = [])),
    responses((status = 200, description = "The chains", body = wire::Networks))
)]
#[get("/networks")]
async fn read_networks(_launched: Launched<Any>, state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(state.chains.networks())
}

/// Returns the balances, by chain.
#[utoipa::path(
    operation_id = "page_balance",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The balances", body = Balances),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[get("/balance")]
async fn read_balance(
    launched: Launched<Any>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, launched.account()).await?;
    Ok(HttpResponse::Ok().json(accounts::balances_of(&state, &account).await?))
}

/// Returns what was paid and received lately.
#[utoipa::path(
    operation_id = "page_history",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The newest entries", body = HistoryPage),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[get("/history")]
async fn read_history(
    launched: Launched<Any>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, launched.account()).await?;
    let page = transfers::page_of(&state, account.id, Page::Newest, SHOWN).await?;
    Ok(HttpResponse::Ok().json(page))
}

/// Returns the audit's records of the account and of its key.
#[utoipa::path(
    operation_id = "page_uses",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The last records", body = KeyUses),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[get("/uses")]
async fn read_uses(launched: Launched<Any>, state: Data<State>) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, launched.account()).await?;
    let rows = state.database.newest_audit_of(account.id, account.telegram_id, RECORDS).await?;
    let request = |row: &AuditRow| (row.request_id.clone(), row.action.clone());
    let ended: HashSet<_> = rows.iter().filter(|row| row.phase != "intent").map(request).collect();
    // An INTENT is shown while it has no outcome.
    let shown =
        rows.into_iter().filter(|row| row.phase != "intent" || !ended.contains(&request(row)));
    let uses = shown.map(|row| KeyUse {
        at: row.at,
        action: row.action,
        outcome: row.outcome,
        on_page: row.actor.starts_with("launch "),
    });
    let uses = uses.collect();
    Ok(HttpResponse::Ok().json(KeyUses { uses }))
}

/// Returns the open recovery.
#[utoipa::path(
    operation_id = "page_recovery",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The recovery", body = wire::Recovery),
        (status = 204, description = "There is none"),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[get("/recovery")]
async fn read_recovery(
    launched: Launched<Any>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, launched.account()).await?;
    recoveries::read_of(&state, &account).await
}

/// Returns the spending limits.
#[utoipa::path(
    operation_id = "page_limits",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The limits", body = SpendingLimits),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[get("/limits")]
async fn read_limits(
    launched: Launched<Any>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, launched.account()).await?;
    Ok(HttpResponse::Ok().json(limits::show(&state, &account).await?))
}

/// Returns the transfer that the page was opened for.
#[utoipa::path(
    operation_id = "page_transfer",
    tag = "page",
    security(("launch" = ["c"]), ("launch" = ["s"])),
    responses(
        (status = 200, description = "The transfer", body = TransferView),
        (status = 404, description = "The user has no such transfer"),
    )
)]
#[get("/transfer")]
async fn read_transfer(
    launched: Launched<Pay>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let transfer = own_transfer(&state, &launched.launch, launched.object).await?;
    Ok(HttpResponse::Ok().json(view_of(transfer)))
}

/// Returns the network fee of a replacement of the transfer that the page was opened for.
#[utoipa::path(
    operation_id = "page_replacement_fee",
    tag = "page",
    security(("launch" = ["s"])),
    responses(
        (status = 200, description = "The fee", body = Replacement),
        (status = 404, description = "The user has no such transfer"),
        (status = 409, description = "It is not pending"),
        (status = 422, description = "The network asks for more than the operator allows"),
    )
)]
#[get("/transfer/replacement")]
async fn read_fee(
    launched: Launched<SpeedUp>,
    state: Data<State>,
) -> Result<HttpResponse, ApiError> {
    let transfer = own_transfer(&state, &launched.launch, launched.object).await?;
    let chain = state.chains.of_transfer(transfer.chain_id);
    let fee = chain.transfers.replacement_fee(transfer.id).await?;
    Ok(HttpResponse::Ok().json(Replacement { usual_fee: fee.usual, max_fee: fee.max }))
}

/// Returns the transfer, if the user who opened the page sends it.
pub(super) async fn own_transfer(
    state: &State,
    launch: &Launch,
    id: TransferId,
) -> Result<Transfer, ApiError> {
    let owner = state.database.account(AccountRef::Telegram(launch.user)).await?;
    let found = state.database.transfer(id).await?;
    let own =
        found.filter(|transfer| owner.is_some_and(|owner| transfer.from.account == Some(owner.id)));
    own.ok_or_else(ApiError::no_transfer)
}

/// What is shown of a transfer, with its hash.
pub(super) fn view_of(transfer: Transfer) -> TransferView {
    let transfer = transfers::show(transfer);
    let shown = serde_json::to_vec(&transfer).unwrap_or_default();
    let view = hex::encode(digest(&SHA256, &shown));
    TransferView { transfer, view }
}
