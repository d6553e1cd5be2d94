//! Accounts: create, read, password, usernames, balance.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, get, post, put};
use futures::future::join_all;
use kms_chain::ChainError;
use kms_chain::ports::TransferStore;
use kms_core::account::{Account, AccountState, SeenNames};
use kms_core::audit::Caller;
use kms_core::ports::AccountStore;
use kms_core::{CreateWallet, Created, SealError};
use kms_types::wire::{
    self, Balance, Balances, ChainBalance, ChangePassword, CreateAccount, SeenUsernames,
    TokenBalance,
};
use kms_types::{AccountRef, Email, Mobile, NameOrigin, Timestamp, Token, Units};
use tokio::time::timeout;

use crate::auth::{Bot, Chat, Reader};
use crate::body::{Json, Segment};
use crate::chains::ServedChain;
use crate::clock;
use crate::error::ApiError;
use crate::rate_limits::admit;
use crate::state::{State, detached};

/// How long the balances on one of several chains may take: those on the others wait for it.
const BALANCE_ON_A_CHAIN: Duration = Duration::from_secs(3);

crate::openapi::resource!(create, read, change_password, seen_usernames, balance);

/// Creates a wallet for a Telegram user. A repeat with the same password returns the same account.
#[utoipa::path(
    operation_id = "create_account",
    tag = "accounts",
    security(("token" = ["bot"])),
    request_body = CreateAccount,
    responses(
        (
            status = 201,
            description = "The wallet was created",
            body = wire::Account,
            links(
                ("account" = (
                    operation_id = "read_account",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("balance" = (
                    operation_id = "read_balance",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("limits" = (
                    operation_id = "read_limits",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("set_limit" = (
                    operation_id = "set_limit",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("history" = (
                    operation_id = "list_transfers",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("recover" = (
                    operation_id = "request_recovery",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("name" = (
                    operation_id = "resolve_name",
                    parameters(("username" = "$response.body#/username"))
                )),
            )
        ),
        (
            status = 200,
            description = "The user has this wallet already, with this password",
            body = wire::Account,
            links(
                ("account" = (
                    operation_id = "read_account",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("balance" = (
                    operation_id = "read_balance",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("limits" = (
                    operation_id = "read_limits",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("set_limit" = (
                    operation_id = "set_limit",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("history" = (
                    operation_id = "list_transfers",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("recover" = (
                    operation_id = "request_recovery",
                    parameters(("account" = "$response.body#/id"))
                )),
                ("name" = (
                    operation_id = "resolve_name",
                    parameters(("username" = "$response.body#/username"))
                )),
            )
        ),
        (
            status = 403,
            description = "The token's scope does not allow this, or the account is frozen"
        ),
        (
            status = 409,
            description = "The user has a wallet with another password, or a concurrent change \
                came first"
        ),
        (
            status = 429,
            description = "Too many new wallets, wrong passwords or concurrent requests; see `code`"
        ),
    )
)]
#[post("/accounts")]
pub(crate) async fn create(
    Bot(caller): Bot,
    state: Data<State>,
    Json(body): Json<CreateAccount>,
) -> Result<HttpResponse, ApiError> {
    create_by(caller, &state, body).await
}

/// As [`create`], for either door.
pub(crate) async fn create_by(
    caller: Caller,
    state: &State,
    body: CreateAccount,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    let CreateAccount { telegram_id, password_hash, usernames, seen_at, mobile, email } = body;
    let now = clock::now();
    // A time in the future would make every later observation look outdated.
    let origin = if caller.is_at_page() { NameOrigin::Launch } else { NameOrigin::Token };
    let names = seen_at.map(|seen_at| SeenNames {
        usernames,
        seen_at: seen_at.min(now),
        received_at: now,
        origin,
    });
    // Every launch is another actor.
    let whose = if caller.is_at_page() { "the page" } else { caller.actor.as_str() };
    let (key, limit) = (format!("onboarding:{whose}"), state.limits.onboardings.limit());
    let detail = "too many new wallets at once; repeat after `retry_after` seconds";
    let request = CreateWallet { telegram_id, password: password_hash, names, mobile, email };
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let created = detached(async move {
        let admit = || admit(&database, &key, limit, detail);
        let created = custody.create(request, &caller, now, admit).await?;
        // The first request may have ended before it recorded them.
        if let Created::Existing(account) = &created {
            for purpose in database.usernames_taken_over(account.telegram_id).await? {
                custody.record_done(purpose, account, &caller, now).await;
            }
        }
        Ok(created)
    })
    .await?;
    let (status, account) = match created {
        Created::New(account) => (StatusCode::CREATED, account),
        Created::Existing(account) => (StatusCode::OK, account),
    };
    Ok(HttpResponse::build(status).json(show(state, account)?))
}

/// Returns an account.
#[utoipa::path(
    operation_id = "read_account",
    tag = "accounts",
    security(("token" = ["read"])),
    params(("account" = AccountRef, Path)),
    responses(
        (
            status = 200,
            description = "The account; its contacts, masked, for the scopes of a bot alone",
            body = wire::Account
        ),
        (status = 404, description = "No such account"),
    )
)]
#[get("/accounts/{account}")]
pub(crate) async fn read(
    reader: Reader,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
) -> Result<HttpResponse, ApiError> {
    let account = find(&state, account).await?;
    let mut shown = show(&state, account)?;
    if !reader.acts_for_owners {
        (shown.mobile, shown.email) = (None, None);
    }
    Ok(HttpResponse::Ok().json(shown))
}

/// Replaces the password by a new one.
#[utoipa::path(
    operation_id = "change_password",
    tag = "accounts",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path)),
    request_body = ChangePassword,
    responses(
        (status = 204, description = "The new password is in force, the old one is not"),
        (
            status = 403,
            description = "The old password is wrong, the account is frozen, or the token's scope \
                does not allow this"
        ),
        (status = 404, description = "No such account"),
        (status = 409, description = "A concurrent change came first"),
        (
            status = 429,
            description = "Too many changes, wrong passwords or concurrent requests; see `code`"
        ),
    )
)]
#[put("/accounts/{account}/password")]
pub(crate) async fn change_password(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<ChangePassword>,
) -> Result<HttpResponse, ApiError> {
    change_password_by(caller, &state, account, body).await
}

/// As [`change_password`], for either door.
pub(crate) async fn change_password_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    body: ChangePassword,
) -> Result<HttpResponse, ApiError> {
    state.check_clock()?;
    let ChangePassword { old_password_hash: old, new_password_hash: new } = body;
    let limit = state.limits.password_changes.limit();
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    let admit = move |id| async move {
        let detail = "too many changes of this password; repeat after `retry_after` seconds";
        admit(&database, &format!("password:{id}"), limit, detail).await
    };
    detached(async move {
        custody.change_password(account, (old, new), &caller, clock::now(), admit).await
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Reports all usernames that an authenticated Telegram update showed for the account's user. The
/// user holds no other username afterwards.
#[utoipa::path(
    operation_id = "report_usernames",
    tag = "names",
    security(("token" = ["chat"])),
    params(("account" = AccountRef, Path)),
    request_body = SeenUsernames,
    responses(
        (status = 204, description = "The observation is stored"),
        (status = 404, description = "No such account"),
    )
)]
#[put("/accounts/{account}/usernames")]
pub(crate) async fn seen_usernames(
    Chat { caller, .. }: Chat,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<SeenUsernames>,
) -> Result<HttpResponse, ApiError> {
    let account = find(&state, account).await?;
    let SeenUsernames { usernames, seen_at } = body;
    let now = clock::now();
    let (seen_at, origin) = (seen_at.min(now), NameOrigin::Token);
    let names = SeenNames { usernames, seen_at, received_at: now, origin };
    observe_names(&state, &account, names, &caller).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Stores which usernames the account's user has, and records which claims began or ended.
pub(crate) async fn observe_names(
    state: &State,
    account: &Account,
    names: SeenNames,
    caller: &Caller,
) -> Result<(), ApiError> {
    let now = names.received_at;
    for purpose in state.database.seen_usernames(account.telegram_id, names).await? {
        state.custody.record_done(purpose, account, caller, now).await;
    }
    Ok(())
}

/// Returns the wallet's balance of the native coin and of every configured token, by chain.
#[utoipa::path(
    operation_id = "read_balance",
    tag = "accounts",
    security(("token" = ["read"])),
    params(("account" = AccountRef, Path)),
    responses(
        (status = 200, description = "The balances", body = Balances),
        (status = 404, description = "No such account"),
    )
)]
#[get("/accounts/{account}/balance")]
pub(crate) async fn balance(
    _reader: Reader,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
) -> Result<HttpResponse, ApiError> {
    let account = find(&state, account).await?;
    Ok(HttpResponse::Ok().json(balances_of(&state, &account).await?))
}

/// The balances of an account. A chain that does not answer in time hides no other one's.
pub(crate) async fn balances_of(state: &State, account: &Account) -> Result<Balances, ApiError> {
    let is_one_of_several = state.chains.iter().count() > 1;
    let found = state.chains.iter().map(async |chain| {
        let chain_id = chain.network.chain_id;
        let asked = balance_on(state, chain, account);
        let found = if !is_one_of_several {
            asked.await
        } else if state.readiness.is_chain_down(chain_id) {
            Err(ChainError::NoEndpoint.into())
        } else {
            let no_answer = |_elapsed| Err(ChainError::NoEndpoint.into());
            timeout(BALANCE_ON_A_CHAIN, asked).await.unwrap_or_else(no_answer)
        };
        (chain_id, found)
    });
    let found = join_all(found).await;
    let is_of_chain = |error: &ApiError| matches!(error, ApiError::Chain(_));
    let some_answered = found.iter().any(|(_, found)| found.is_ok());
    let chains = found.into_iter().map(|(chain_id, found)| match found {
        Ok(found) => Ok(ChainBalance { chain_id, balance: Some(found) }),
        Err(error) if some_answered && is_of_chain(&error) => {
            tracing::debug!(chain_id, %error, "balance not read");
            Ok(ChainBalance { chain_id, balance: None })
        }
        Err(error) => Err(error),
    });
    Ok(Balances { address: account.wallet.address, chains: chains.collect::<Result<_, _>>()? })
}

async fn balance_on(
    state: &State,
    chain: &ServedChain,
    account: &Account,
) -> Result<Balance, ApiError> {
    let address = account.wallet.address;
    let (chain, tokens) = (chain.transfers.chain(), chain.transfers.tokens());
    // The count first: what is mined by then is in the balances.
    let (mined, balances) = chain
        .first(|endpoint| async move {
            let mined = endpoint.mined_count(address).await?;
            Ok((mined, endpoint.balances(address, tokens).await?))
        })
        .await?;
    let kms_chain::Balances { block, wei, tokens: found } = balances;
    let pending = state.database.pending_spend(chain.chain_id(), address, mined).await?;
    // Its owner may wait for coin that shows in no transaction of a block.
    state.database.compare_balance_soon(chain.chain_id(), account.id, clock::now()).await?;
    let shown = |(token, units): (&Token, Option<Units>)| TokenBalance {
        token: token.clone(),
        units: units.filter(|_| tokens.is_readable(token)),
        pending: pending.of(token),
    };
    let tokens = tokens.iter().zip(found).map(shown).collect();
    Ok(Balance { wei, pending: pending.wei, tokens, block })
}

/// Returns the account, or 404.
pub(crate) async fn find(state: &State, account: AccountRef) -> Result<Account, ApiError> {
    state.database.account(account).await?.ok_or_else(ApiError::no_account)
}

/// Converts an account to its wire form, with the contacts masked.
pub(crate) fn show(state: &State, account: Account) -> Result<wire::Account, ApiError> {
    let mobile = open(state, &account, "mobile", account.mobile.as_deref())?;
    let mobile = mobile.and_then(|text| text.parse::<Mobile>().ok());
    let email = masked_email(state, &account)?;
    Ok(wire::Account {
        id: account.id,
        telegram_id: account.telegram_id,
        username: account.username,
        address: account.wallet.address,
        state: show_state(account.state),
        unfreezes_at: account.unfreezes_at,
        page_only: account.page_only_since.is_some(),
        leaves_page_at: account.page_only_until,
        created_at: account.created_at,
        created_by: account.created_by,
        mobile: mobile.map(|mobile| mobile.masked()),
        email,
        email_verified_at: account.email_verified_at,
        recovered_at: account.recovered_at,
    })
}

fn show_state(state: AccountState) -> wire::AccountState {
    match state {
        AccountState::Active => wire::AccountState::Active,
        AccountState::FrozenByOwner => wire::AccountState::FrozenByOwner,
        AccountState::Frozen => wire::AccountState::Frozen,
    }
}

/// Returns the account's e-mail address, masked.
fn masked_email(state: &State, account: &Account) -> Result<Option<String>, ApiError> {
    let email = open(state, account, "email", account.email.as_deref())?;
    Ok(email.and_then(|text| text.parse::<Email>().ok()).map(|email| email.masked()))
}

/// Returns the address that received a code at this time, masked.
pub(crate) fn masked_trusted_email(
    state: &State,
    account: &Account,
    at: Timestamp,
) -> Result<Option<String>, ApiError> {
    let email = open(state, account, "email", state.custody.trusted_email(account, at))?;
    Ok(email.and_then(|text| text.parse::<Email>().ok()).map(|email| email.masked()))
}

fn open(
    state: &State,
    account: &Account,
    kind: &str,
    sealed: Option<&[u8]>,
) -> Result<Option<String>, ApiError> {
    let opened = sealed.map(|sealed| state.sealer.open_contact(account.id, kind, sealed));
    let opened = opened.transpose();
    if matches!(opened, Err(SealError::Mismatch | SealError::Format)) {
        state.alarm_of_contact(account);
    }
    Ok(opened?)
}
