//! Transfers: quote, confirm, cancel, read, list.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpResponse, get, post};
use kms_chain::ports::TransferStore;
use kms_chain::transfer::{Asked, Party, Transfer};
use kms_chain::{Checked, ConfirmError, QuoteRequest, Shown};
use kms_core::OpenWallet;
use kms_core::account::Account;
use kms_core::audit::{Action, Caller, Details, Purpose};
use kms_store::{HistoryCursor, HistoryEntry, Page};
use kms_types::wire::{self, ConfirmTransfer, HistoryPage, QuoteTransfer, ReplaceTransfer};
use kms_types::{AccountId, AccountRef, ErrorCode, PasswordHash, Recipient, Timestamp, TransferId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::{Bot, Chat, OwnersReader};
use crate::body::{Json, Parameters, Segment};
use crate::chains::ServedChain;
use crate::clock;
use crate::error::ApiError;
use crate::routes::accounts;
use crate::state::{State, detached};

mod show;

pub(crate) use show::{show, show_deposit};

crate::openapi::resource!(quote, confirm, cancel, replacement_fee, replace, read, list);

/// Prices a transfer. Nothing is signed. A repeat with the same id and fields returns the same
/// transfer.
#[utoipa::path(
    operation_id = "quote_transfer",
    tag = "transfers",
    security(("token" = ["chat"])),
    request_body = QuoteTransfer,
    responses(
        (
            status = 200,
            description = "The quote",
            body = wire::Transfer,
            links(
                ("transfer" = (
                    operation_id = "read_transfer",
                    parameters(("id" = "$response.body#/id"))
                )),
                ("confirm" = (
                    operation_id = "confirm_transfer",
                    parameters(("id" = "$response.body#/id"))
                )),
                ("cancel" = (
                    operation_id = "cancel_transfer",
                    parameters(("id" = "$response.body#/id"))
                )),
            )
        ),
        (status = 404, description = "No such account or username"),
        (
            status = 409,
            description = "The id was used for another transfer, or the username was reassigned \
                lately and is not proved"
        ),
        (status = 403, description = "The operator does not allow this payment"),
        (status = 422, description = "The payment is not possible; see `code`"),
        (status = 429, description = "Too many quotes, or a spending limit; see `code`"),
        (status = 503, description = "The operator paused payments, or the chain is unavailable"),
    )
)]
#[post("/transfers")]
pub(crate) async fn quote(
    _chat: Chat,
    state: Data<State>,
    Json(body): Json<QuoteTransfer>,
) -> Result<HttpResponse, ApiError> {
    let now = clock::now();
    let sender = accounts::find(&state, body.from).await?;
    let asked =
        Asked { to: body.to.to_string(), amount: body.amount.clone().into(), asset: body.asset };
    let client_ref = body.client_ref.as_deref();
    let chain = state.chains.named(body.chain_id)?;
    let known = chain.transfers.quoted(body.id, sender.id, &asked, client_ref).await?;
    if let Some(known) = known {
        return Ok(HttpResponse::Ok().json(show(known)));
    }
    admit_quote(&state, sender.id).await?;
    let (to, name_reassigned) = recipient(&state, body.to, now).await?;
    if to.account == Some(sender.id) {
        return Err(ApiError::refused(
            ErrorCode::SelfTransfer,
            "sender and recipient are the same wallet; choose another recipient",
        ));
    }
    chain.brakes.admit(&to)?;
    let request = QuoteRequest {
        id: body.id,
        from: party(&sender),
        recovered_at: sender.recovered_at,
        to,
        asked,
        amount: body.amount,
        client_ref: body.client_ref,
        name_reassigned,
    };
    let transfer = chain.transfers.quote(request, now).await?;
    Ok(HttpResponse::Ok().json(show(transfer)))
}

async fn admit_quote(state: &State, sender: AccountId) -> Result<(), ApiError> {
    let (quotes, a_day) = (format!("quote:{sender}"), format!("quotes_a_day:{sender}"));
    let limits = [
        (quotes.as_str(), state.limits.quotes.limit()),
        (a_day.as_str(), state.limits.quotes_a_day.limit()),
    ];
    let detail = "too many quotes of this account; repeat after `retry_after` seconds";
    let taken = state.database.take_in_turn(&limits).await?;
    taken.map_err(|refused| ApiError::rate_limited(detail, refused.wait))
}

/// Signs and broadcasts the transfer if it is what the sender was shown. A repeat returns the
/// transfer as it is.
#[utoipa::path(
    operation_id = "confirm_transfer",
    tag = "transfers",
    security(("token" = ["bot"])),
    params(("id" = TransferId, Path)),
    request_body = ConfirmTransfer,
    responses(
        (status = 200, description = "The transfer", body = wire::Transfer),
        (
            status = 403,
            description = "The password is wrong, the account is frozen, the operator does not \
                allow this payment, or the token's scope does not"
        ),
        (status = 404, description = "No such transfer"),
        (
            status = 409,
            description = "The quote has expired, was cancelled, or is not what was shown"
        ),
        (
            status = 422,
            description = "The balance does not cover amount and network fee, or too many payments \
                of the wallet are in flight; see `code`"
        ),
        (
            status = 429,
            description = "Too many wrong passwords or concurrent requests, or a spending limit; \
                see `code`"
        ),
        (
            status = 503,
            description = "The operator paused payments, or a dependency is unavailable; see \
                `code`"
        ),
    )
)]
#[post("/transfers/{id}/confirm")]
pub(crate) async fn confirm(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
    Json(body): Json<ConfirmTransfer>,
) -> Result<HttpResponse, ApiError> {
    confirm_by(caller, &state, id, body).await
}

/// As [`confirm`], for either door.
pub(crate) async fn confirm_by(
    caller: Caller,
    state: &State,
    id: TransferId,
    body: ConfirmTransfer,
) -> Result<HttpResponse, ApiError> {
    // First of all: a quote that has not expired would expire by a clock that is ahead.
    state.check_clock()?;
    let ConfirmTransfer { password_hash, chain_id, to_address, token, value, max_fee } = body;
    let shown = Shown { chain_id, to_address, token, value, max_fee };
    let chain = Arc::clone(state.chains.of_transfer(chain_id));
    let checked = match chain.transfers.check(id, shown).await {
        Err(ConfirmError::RolledBack { sender: Some(sender) }) => {
            let (sender, action, now) = (sender.into(), Action::Send(id), clock::now());
            return Err(state.custody.alarm_of_rollback(action, sender, &caller, now).await.into());
        }
        checked => checked?,
    };
    let transfer = match checked {
        Checked::Done(transfer) => *transfer,
        Checked::Ready(ready) => {
            check_recipient(state, ready.transfer(), clock::now()).await?;
            chain.brakes.check(ready.transfer()).await?;
            let (sender, details) = (ready.transfer().from.account, payment(ready.transfer()));
            let purpose = Purpose { action: Action::Send(id), details };
            let signing = Arc::clone(&chain);
            let sign = |wallet| async move {
                // The pause and the clock again: both may have changed during the KDF.
                signing.brakes.admit(&ready.transfer().to)?;
                Ok(signing.transfers.sign_and_send(ready, wallet, clock::now()).await?)
            };
            let signed = open_and(state, sender, password_hash, purpose, caller, sign).await?;
            chain.brakes.record_signed(&signed);
            signed
        }
    };
    Ok(HttpResponse::Ok().json(show(transfer)))
}

/// Cancels a quote. For a signed transfer that is not mined, its cancellation is broadcast, and
/// whichever is mined decides. A transfer that is mined or has ended is returned as it is.
#[utoipa::path(
    operation_id = "cancel_transfer",
    tag = "transfers",
    security(("token" = ["chat"])),
    params(("id" = TransferId, Path)),
    responses(
        (status = 200, description = "The transfer", body = wire::Transfer),
        (status = 404, description = "No such transfer"),
    )
)]
#[post("/transfers/{id}/cancel")]
pub(crate) async fn cancel(
    _chat: Chat,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
) -> Result<HttpResponse, ApiError> {
    let transfer = state.database.cancel(id, clock::now()).await?;
    Ok(HttpResponse::Ok().json(show(transfer.ok_or_else(ApiError::no_transfer)?)))
}

/// Returns the network fee of a replacement of a pending transfer, at the prices of now.
#[utoipa::path(
    operation_id = "read_replacement_fee",
    tag = "transfers",
    security(("token" = ["chat"])),
    params(("id" = TransferId, Path)),
    responses(
        (status = 200, description = "The fee", body = wire::Replacement),
        (status = 404, description = "No such transfer"),
        (status = 409, description = "The transfer is not pending"),
        (status = 422, description = "The network asks for more than the operator allows"),
    )
)]
#[get("/transfers/{id}/replacement")]
pub(crate) async fn replacement_fee(
    _chat: Chat,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
) -> Result<HttpResponse, ApiError> {
    let fee = chain_of(&state, id).await?.transfers.replacement_fee(id).await?;
    let fee = wire::Replacement { usual_fee: fee.usual, max_fee: fee.max };
    Ok(HttpResponse::Ok().json(fee))
}

/// Signs a pending transfer again, above the prices at which it was broadcast, and broadcasts it.
/// Only one of its transactions can be mined. Where the cancellation was requested, it is the
/// cancellation that is replaced. A repeat with the same id signs nothing more.
#[utoipa::path(
    operation_id = "replace_transfer",
    tag = "transfers",
    security(("token" = ["bot"])),
    params(("id" = TransferId, Path)),
    request_body = ReplaceTransfer,
    responses(
        (status = 200, description = "The transfer", body = wire::Transfer),
        (
            status = 403,
            description = "The password is wrong, the account is frozen, or the token's scope \
                does not allow this"
        ),
        (status = 404, description = "No such transfer"),
        (
            status = 409,
            description = "The transfer is not pending, the id was used, or the fee is above what \
                was shown"
        ),
        (status = 422, description = "The balance does not cover amount and network fee"),
        (
            status = 429,
            description = "Too many wrong passwords or concurrent requests, or a spending limit; \
                see `code`"
        ),
        (
            status = 503,
            description = "The operator paused payments, or a dependency is unavailable; see \
                `code`"
        ),
    )
)]
#[post("/transfers/{id}/replace")]
pub(crate) async fn replace(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
    Json(body): Json<ReplaceTransfer>,
) -> Result<HttpResponse, ApiError> {
    replace_by(caller, &state, id, body).await
}

/// As [`replace`], for either door.
pub(crate) async fn replace_by(
    caller: Caller,
    state: &State,
    id: TransferId,
    body: ReplaceTransfer,
) -> Result<HttpResponse, ApiError> {
    let ReplaceTransfer { id: replacement, password_hash, max_fee } = body;
    let chain = chain_of(state, id).await?;
    let transfer = match chain.transfers.check_replacement(id, replacement, max_fee).await? {
        Checked::Done(transfer) => *transfer,
        Checked::Ready(ready) => {
            let is_payment = ready.transfer().cancel_requested_at.is_none();
            if is_payment {
                chain.brakes.check(ready.transfer()).await?;
            }
            let (sender, details) = (ready.transfer().from.account, payment(ready.transfer()));
            let purpose = Purpose { action: Action::Replace(id), details };
            let sign = move |wallet| async move {
                if is_payment {
                    chain.brakes.admit(&ready.transfer().to)?;
                }
                Ok(chain.transfers.sign_replacement(ready, wallet, clock::now()).await?)
            };
            open_and(state, sender, password_hash, purpose, caller, sign).await?
        }
    };
    Ok(HttpResponse::Ok().json(show(transfer)))
}

/// What the audit states about a payment before its key is opened.
fn payment(transfer: &Transfer) -> Details {
    let asset = transfer.token.as_ref().map(|token| token.address.to_string());
    Details::default()
        .with("asset", asset.as_deref().unwrap_or("native"))
        .with("chain", transfer.chain_id)
        .with("to", transfer.to.address)
        .with("value", transfer.value.0)
}

/// The chain of a transfer, as [`Chains::of_transfer`](crate::chains::Chains::of_transfer).
async fn chain_of(state: &State, id: TransferId) -> Result<Arc<ServedChain>, ApiError> {
    let transfer = state.database.transfer(id).await?.ok_or_else(ApiError::no_transfer)?;
    Ok(Arc::clone(state.chains.of_transfer(transfer.chain_id)))
}

/// Opens the sender's wallet and signs with it. Once begun, it completes without the client.
async fn open_and<F>(
    state: &State,
    sender: Option<AccountId>,
    password: PasswordHash,
    purpose: Purpose,
    caller: Caller,
    sign: impl FnOnce(OpenWallet) -> F + Send + 'static,
) -> Result<Transfer, ApiError>
where
    F: Future<Output = Result<Transfer, ApiError>> + Send,
{
    state.check_clock()?;
    let sender = sender.ok_or_else(ApiError::no_transfer)?.into();
    let custody = Arc::clone(&state.custody);
    detached(async move {
        custody.with_wallet(sender, password, purpose, &caller, clock::now(), sign).await
    })
    .await
}

/// Returns a transfer.
#[utoipa::path(
    operation_id = "read_transfer",
    tag = "transfers",
    security(("token" = ["chat"])),
    params(("id" = TransferId, Path)),
    responses(
        (status = 200, description = "The transfer", body = wire::Transfer),
        (status = 404, description = "No such transfer"),
    )
)]
#[get("/transfers/{id}")]
pub(crate) async fn read(
    _reader: OwnersReader,
    state: Data<State>,
    Segment(id): Segment<TransferId>,
) -> Result<HttpResponse, ApiError> {
    let transfer = state.database.transfer(id).await?;
    Ok(HttpResponse::Ok().json(show(transfer.ok_or_else(ApiError::no_transfer)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    cursor: Option<String>,
    #[serde(default)]
    direction: Direction,
    limit: Option<u32>,
}

/// On which side of the cursor the entries are.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Direction {
    #[default]
    Older,
    Newer,
}

/// Returns what the account paid and received, external deposits included, newest first.
#[utoipa::path(
    operation_id = "list_transfers",
    tag = "transfers",
    security(("token" = ["chat"])),
    params(
        ("account" = AccountRef, Path),
        (
            "cursor" = Option<String>,
            Query,
            pattern = "^[0-9]{1,15}[.][0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            description = "`next` or `prev` of a page; without it, the newest entries"
        ),
        (
            "direction" = inline(Option<Direction>),
            Query,
            description = "`older` (default) for a page's `next`, `newer` for its `prev`"
        ),
        (
            "limit" = Option<u32>,
            Query,
            minimum = 1,
            maximum = 100,
            description = "Entries in the page; 20 by default"
        ),
    ),
    responses(
        (status = 200, description = "The page", body = HistoryPage),
        (status = 404, description = "No such account"),
    )
)]
#[get("/accounts/{account}/transfers")]
pub(crate) async fn list(
    _reader: OwnersReader,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<HttpResponse, ApiError> {
    let limit = parameters.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::field("limit", "expected a number from 1 to 100"));
    }
    let cursor = parameters.cursor.map(|cursor| cursor.parse()).transpose();
    let cursor: Option<HistoryCursor> = cursor.map_err(|error| ApiError::field("cursor", error))?;
    let page = match (cursor, parameters.direction) {
        (None, _) => Page::Newest,
        (Some(cursor), Direction::Older) => Page::Before(cursor),
        (Some(cursor), Direction::Newer) => Page::After(cursor),
    };
    let account = accounts::find(&state, account).await?;
    Ok(HttpResponse::Ok().json(page_of(&state, account.id, page, limit).await?))
}

/// A page of the history of an account.
pub(crate) async fn page_of(
    state: &State,
    account: AccountId,
    page: Page,
    limit: u32,
) -> Result<HistoryPage, ApiError> {
    // One more than the page holds, to find out whether there are more.
    let found = state.database.history(account, page.clone(), limit + 1).await?;
    Ok(history_page(found, &page, limit))
}

fn history_page(mut found: Vec<HistoryEntry>, page: &Page, limit: u32) -> HistoryPage {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    // The additional entry is the farthest from the position.
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

/// Resolves the recipient, and whether the username was reassigned lately.
async fn recipient(
    state: &State,
    to: Recipient,
    now: Timestamp,
) -> Result<(Party, bool), ApiError> {
    match to {
        Recipient::Username(name) => {
            let found = state.database.resolve(&name, now).await?;
            let found = found.ok_or_else(|| {
                let detail =
                    "no user with this name has a wallet here; they create one by starting the bot"
                        .to_owned();
                let (code, field) = (ErrorCode::UnknownName, Some("to".to_owned()));
                ApiError::Refused { code, detail, field }
            })?;
            if found.payable_from.is_some() {
                let detail = "this name belonged to another user until lately, and its holder has \
                    not opened the page since; pay it by its address, or after a day"
                    .to_owned();
                let (code, field) = (ErrorCode::NameUnproved, Some("to".to_owned()));
                return Err(ApiError::Refused { code, detail, field });
            }
            let to = Party { username: Some(found.username), ..party(&found.account) };
            Ok((to, found.reassigned_at.is_some()))
        }
        Recipient::Address(address) => {
            let known = state.database.account_by_address(address).await?;
            let external = Party { account: None, username: None, address, since: None };
            // Without the username: the sender did not pay by it.
            let party = |account| Party { username: None, ..party(&account) };
            Ok((known.map_or(external, party), false))
        }
    }
}

/// Refuses when the recipient is no longer the one that was quoted: the username was reassigned, or
/// a row was changed.
async fn check_recipient(
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
