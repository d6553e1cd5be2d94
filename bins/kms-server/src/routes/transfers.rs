//! Transfers: quote, confirm, cancel, read.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpResponse, get, post};
use kms_chain::follower::ExternalDeposit;
use kms_chain::transfer::{Asked, Party, Transfer, TransferFailure, TransferState, Warning};
use kms_chain::{Checked, ConfirmError, QuoteRequest, Shown};
use kms_core::account::Account;
use kms_core::audit::Action;
use kms_store::{HistoryCursor, HistoryEntry, Page};
use kms_types::wire::{self, ConfirmTransfer, HistoryPage, QuoteTransfer};
use kms_types::{AccountRef, ErrorCode, Problem, Recipient, Timestamp, TransferId};
use serde::Deserialize;

use crate::auth::{Bot, Reader};
use crate::body::{Json, Parameters, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::routes::accounts;
use crate::state::{State, detached};

/// What would it cost to send this? Nothing moves. A repeat with the same id and fields answers
/// with the same transfer.
#[utoipa::path(
    tag = "transfers",
    request_body = QuoteTransfer,
    responses(
        (status = 200, body = wire::Transfer),
        (status = 400, description = "A field can not be used", body = Problem),
        (status = 404, description = "No such account or name", body = Problem),
        (status = 409, description = "The id was used for something else", body = Problem),
        (status = 422, description = "It can not be paid", body = Problem),
        (status = 429, description = "Too many quotes, or a spending limit", body = Problem),
        (status = 503, description = "The chain does not answer", body = Problem),
    )
)]
#[post("/transfers")]
pub(crate) async fn quote(
    _bot: Bot,
    state: Data<State>,
    Json(body): Json<QuoteTransfer>,
) -> Result<HttpResponse, ApiError> {
    let now = clock::now();
    let sender = accounts::find(&state, body.from).await?;
    let asked =
        Asked { to: body.to.to_string(), amount: body.amount.clone().into(), asset: body.asset };
    let client_ref = body.client_ref.as_deref();
    let known = state.transfers.quoted(body.id, sender.id, &asked, client_ref, now).await?;
    if let Some(known) = known {
        return Ok(HttpResponse::Ok().json(show(known)));
    }
    let (key, limit) = (format!("quote:{}", sender.id), state.limits.quotes.limit());
    if let Err(after) = state.database.take(&key, limit).await? {
        let (code, detail) =
            (ErrorCode::RateLimited, "too many quotes of this account; wait a moment");
        return Err(ApiError::TooMany { code, detail, after });
    }
    let (to, name_reassigned) = recipient(&state, body.to, now).await?;
    if to.account == Some(sender.id) {
        return Err(ApiError::refused(ErrorCode::SelfTransfer, "that is your own wallet"));
    }
    let request = QuoteRequest {
        id: body.id,
        from: party(&sender),
        to,
        asked,
        amount: body.amount,
        client_ref: body.client_ref,
        name_reassigned,
    };
    let transfer = state.transfers.quote(request, now).await?;
    Ok(HttpResponse::Ok().json(show(transfer)))
}

/// Signs and sends the transfer, if it is what the sender saw. A repeat answers how it stands.
#[utoipa::path(
    tag = "transfers",
    params(("id" = TransferId, Path)),
    request_body = ConfirmTransfer,
    responses(
        (status = 200, body = wire::Transfer),
        (status = 403, description = "The password is wrong", body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "Expired, cancelled, or not what was shown", body = Problem),
        (status = 422, description = "The balance does not cover it", body = Problem),
        (status = 429, description = "Too many wrong passwords, or too much work", body = Problem),
        (status = 503, description = "The chain does not answer; nothing is signed", body = Problem),
    )
)]
#[post("/transfers/{id}/confirm")]
pub(crate) async fn confirm(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
    Json(body): Json<ConfirmTransfer>,
) -> Result<HttpResponse, ApiError> {
    let now = clock::now();
    let ConfirmTransfer { password_hash, to_address, token, value, max_fee } = body;
    let shown = Shown { to_address, token, value, max_fee };
    let ready = match state.transfers.check(id, shown, now).await? {
        Checked::Done(transfer) => return Ok(HttpResponse::Ok().json(show(*transfer))),
        Checked::Ready(ready) => *ready,
    };
    still_whom_it_was(&state, ready.transfer(), now).await?;
    let sender = ready.transfer().from.account.ok_or_else(ApiError::no_transfer)?;
    let (custody, transfers) = (Arc::clone(&state.custody), Arc::clone(&state.transfers));
    let transfer = detached(async move {
        let send = Action::Send(id);
        custody
            .with_wallet(sender.into(), password_hash, send, &caller, now, |wallet| async move {
                // The password took its time: a quote that ran out meanwhile is not signed.
                let sent = transfers.sign_and_send(ready, wallet, clock::now()).await;
                sent.map_err(ApiError::from)
            })
            .await
    })
    .await?;
    Ok(HttpResponse::Ok().json(show(transfer)))
}

/// Gives up a quote. What is signed already goes on.
#[utoipa::path(
    tag = "transfers",
    params(("id" = TransferId, Path)),
    responses((status = 200, body = wire::Transfer), (status = 404, body = Problem))
)]
#[post("/transfers/{id}/cancel")]
pub(crate) async fn cancel(
    _bot: Bot,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
) -> Result<HttpResponse, ApiError> {
    let transfer = state.transfers.cancel(id, clock::now()).await?;
    Ok(HttpResponse::Ok().json(show(transfer.ok_or_else(ApiError::no_transfer)?)))
}

/// A transfer as it stands.
#[utoipa::path(
    tag = "transfers",
    params(("id" = TransferId, Path)),
    responses((status = 200, body = wire::Transfer), (status = 404, body = Problem))
)]
#[get("/transfers/{id}")]
pub(crate) async fn read(
    _reader: Reader,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
) -> Result<HttpResponse, ApiError> {
    let transfer = state.transfers.transfer(id, clock::now()).await?;
    Ok(HttpResponse::Ok().json(show(transfer.ok_or_else(ApiError::no_transfer)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    before: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

/// What the account paid and received, from outside too, newest first.
#[utoipa::path(
    tag = "transfers",
    params(
        ("account" = AccountRef, Path),
        ("before" = Option<String>, Query, description = "`next` of a page: what is older"),
        ("after" = Option<String>, Query, description = "`prev` of a page: what is newer"),
        ("limit" = Option<u32>, Query, description = "1 to 100, 20 by default"),
    ),
    responses((status = 200, body = HistoryPage), (status = 404, body = Problem))
)]
#[get("/accounts/{account}/transfers")]
pub(crate) async fn list(
    _reader: Reader,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<HttpResponse, ApiError> {
    let limit = parameters.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::field("limit", "expected 1 to 100"));
    }
    let page = match (parameters.before, parameters.after) {
        (None, None) => Page::Newest,
        (Some(before), None) => Page::Before(place("before", &before)?),
        (None, Some(after)) => Page::After(place("after", &after)?),
        _ => return Err(ApiError::field("after", "expected either before or after")),
    };
    let account = accounts::find(&state, account).await?;
    // One more than is shown tells whether there is more.
    let found = state.database.history(account.id, page.clone(), limit + 1).await?;
    Ok(HttpResponse::Ok().json(history_page(found, &page, limit)))
}

fn place(field: &str, text: &str) -> Result<HistoryCursor, ApiError> {
    text.parse().map_err(|error| ApiError::field(field, error))
}

fn history_page(mut found: Vec<HistoryEntry>, page: &Page, limit: u32) -> HistoryPage {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    // What was asked for in addition is the farthest from the place.
    let (older, newer) = match page {
        Page::Newest => (more, false),
        Page::Before(_) => (more, true),
        Page::After(_) => (true, more),
    };
    match page {
        Page::After(_) => drop(found.drain(..found.len().saturating_sub(limit))),
        Page::Newest | Page::Before(_) => found.truncate(limit),
    }
    let place = |entry: &HistoryEntry| entry.place().to_string();
    let next = found.last().filter(|_| older).map(place);
    let prev = found.first().filter(|_| newer).map(place);
    HistoryPage { entries: found.into_iter().map(show_entry).collect(), next, prev }
}

fn show_entry(entry: HistoryEntry) -> wire::HistoryEntry {
    match entry {
        HistoryEntry::Transfer(transfer) => {
            wire::HistoryEntry::Transfer { transfer: Box::new(show(*transfer)) }
        }
        HistoryEntry::Deposit { at, deposit, .. } => {
            wire::HistoryEntry::Deposit { at, deposit: show_deposit(deposit) }
        }
    }
}

fn party(account: &Account) -> Party {
    Party {
        account: Some(account.id),
        username: account.username.clone(),
        address: account.wallet.address,
        since: Some(account.created_at),
    }
}

/// Whom the words mean now, and whether the name came from somebody else lately.
async fn recipient(
    state: &State,
    to: Recipient,
    now: Timestamp,
) -> Result<(Party, bool), ApiError> {
    match to {
        Recipient::Username(name) => {
            let found = state.database.resolve(&name, now).await?;
            let found = found.ok_or_else(|| {
                let detail = "nobody with this name has a wallet here".to_owned();
                let (code, field) = (ErrorCode::UnknownName, Some("to".to_owned()));
                ApiError::Refused { code, detail, field }
            })?;
            let to = Party { username: Some(found.username), ..party(&found.account) };
            Ok((to, found.moved_at.is_some()))
        }
        Recipient::Address(address) => {
            let known = state.database.account_by_address(address).await?;
            let stranger = Party { account: None, username: None, address, since: None };
            // The name stays out: the sender did not ask for it.
            let party = |account| Party { username: None, ..party(&account) };
            Ok((known.map_or(stranger, party), false))
        }
    }
}

/// Between quote and confirmation a name may have moved, and a row may have been changed.
async fn still_whom_it_was(
    state: &State,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), ApiError> {
    let to = &transfer.to;
    let found = match (&to.username, to.account) {
        (Some(name), _) => state.database.resolve(name, now).await?.map(|found| found.account),
        (None, Some(_)) => state.database.account_by_address(to.address).await?,
        (None, None) => return Ok(()),
    };
    let same = found
        .is_some_and(|found| Some(found.id) == to.account && found.wallet.address == to.address);
    if same { Ok(()) } else { Err(ConfirmError::Mismatch.into()) }
}

/// A transfer as callers see it.
pub(crate) fn show(transfer: Transfer) -> wire::Transfer {
    let max_fee = transfer.max_fee();
    let party = |party: Party| wire::Party {
        account: party.account,
        username: party.username,
        address: party.address,
        since: party.since,
    };
    wire::Transfer {
        id: transfer.id,
        state: show_state(transfer.state),
        from: party(transfer.from),
        to: party(transfer.to),
        token: transfer.token,
        value: transfer.value,
        arrived: transfer.arrived,
        max_fee,
        fee: transfer.fee,
        chain_id: transfer.chain_id,
        tx_hash: transfer.tx_hash.map(hex::encode_prefixed),
        raised: transfer.replacements_sent,
        waits_since: transfer.stalled_since,
        block: transfer.block,
        failure: transfer.failure.map(show_failure),
        warnings: transfer.warnings.into_iter().map(show_warning).collect(),
        client_ref: transfer.client_ref,
        created_at: transfer.created_at,
        expires_at: transfer.expires_at,
    }
}

/// An external deposit as callers see it.
pub(crate) fn show_deposit(deposit: ExternalDeposit) -> wire::ExternalDeposit {
    wire::ExternalDeposit {
        chain_id: deposit.chain_id,
        tx_hash: hex::encode_prefixed(deposit.tx_hash),
        from: deposit.from,
        token: deposit.token,
        value: deposit.value,
        block: deposit.block,
    }
}

fn show_state(state: TransferState) -> wire::TransferState {
    match state {
        TransferState::Quoted => wire::TransferState::Quoted,
        TransferState::Signed => wire::TransferState::Signed,
        TransferState::Broadcast => wire::TransferState::Broadcast,
        TransferState::Mined => wire::TransferState::Mined,
        TransferState::Final => wire::TransferState::Final,
        TransferState::Failed => wire::TransferState::Failed,
        TransferState::Cancelled => wire::TransferState::Cancelled,
        TransferState::Expired => wire::TransferState::Expired,
    }
}

fn show_failure(failure: TransferFailure) -> wire::TransferFailure {
    match failure {
        TransferFailure::Reverted => wire::TransferFailure::Reverted,
        TransferFailure::NonceTaken => wire::TransferFailure::NonceTaken,
        TransferFailure::NothingMoved => wire::TransferFailure::NothingMoved,
    }
}

fn show_warning(warning: Warning) -> wire::Warning {
    match warning {
        Warning::FirstPayment => wire::Warning::FirstPayment,
        Warning::Contract => wire::Warning::Contract,
        Warning::MostOfBalance => wire::Warning::MostOfBalance,
        Warning::NameMoved => wire::Warning::NameMoved,
    }
}
