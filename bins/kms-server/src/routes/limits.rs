//! Spending limits: how much an account may spend in 24 hours.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpResponse, get, put};
use kms_core::account::Account;
use kms_core::audit::{Action, Caller, Details, Purpose};
use kms_store::{Database, LimitRefused, Raises};
use kms_types::wire::{
    LaterLimit, LimitAmount, SetLimit, SetLimitByPassword, SpendingLimit, SpendingLimits,
};
use kms_types::{AccountId, AccountRef, Asset, AssetId, ErrorCode, Timestamp, Token, Units, Wei};

use crate::auth::{Chat, Reader};
use crate::body::{Json, Segment};
use crate::chains::ServedChain;
use crate::clock;
use crate::error::ApiError;
use crate::routes::accounts;
use crate::state::{State, detached};

crate::openapi::resource!(read, set);

/// Returns the spending limits: what may be spent of each asset in 24 hours, and what was spent.
#[utoipa::path(
    operation_id = "read_limits",
    tag = "accounts",
    security(("token" = ["read"])),
    params(("account" = AccountRef, Path)),
    responses(
        (status = 200, description = "The limits", body = SpendingLimits),
        (status = 404, description = "No such account"),
    )
)]
#[get("/accounts/{account}/limits")]
pub(crate) async fn read(
    _reader: Reader,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, account).await?;
    Ok(HttpResponse::Ok().json(show(&state, &account).await?))
}

/// Sets the owner's own limit. A lower one is in force at once, a higher one after 24 hours, and
/// neither exceeds what the operator allows.
#[utoipa::path(
    operation_id = "set_limit",
    tag = "accounts",
    security(("token" = ["chat"])),
    params(("account" = AccountRef, Path)),
    request_body = SetLimit,
    responses(
        (status = 200, description = "The limits", body = SpendingLimits),
        (status = 404, description = "No such account"),
        (
            status = 403,
            description = "The token's scope allows lower limits alone, or the account is page-only"
        ),
        (status = 422, description = "The server has no such token"),
        (
            status = 429,
            description = "Too many increases in a day; a lower limit is always accepted"
        ),
    )
)]
#[put("/accounts/{account}/limits")]
pub(crate) async fn set(
    chat: Chat,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<SetLimit>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, account).await?;
    let wanted = Wanted::of(&state, (body.chain_id, &body.asset), body.amount)?;
    let (hold, now) = (state.chains.spending.hold, clock::now());
    wanted.write(&state.database, account.id, (hold, chat.raises()), now).await?;
    state.custody.record_done(wanted.purpose(account.id), &account, &chat.caller, now).await;
    Ok(HttpResponse::Ok().json(show(&state, &account).await?))
}

/// As [`set`], on the page: with the password, any limit.
pub(crate) async fn set_by_password(
    caller: Caller,
    state: &State,
    account: &Account,
    body: SetLimitByPassword,
) -> Result<HttpResponse, ApiError> {
    let SetLimitByPassword { asset, chain_id, amount, password_hash } = body;
    let wanted = Wanted::of(state, (chain_id, &asset), amount)?;
    let (hold, now, id) = (state.chains.spending.hold, clock::now(), account.id);
    let (custody, database) = (Arc::clone(&state.custody), state.database.clone());
    detached(async move {
        let purpose = wanted.purpose(id);
        let write = wanted.write(&database, id, (hold, Raises::Always), now);
        custody.with_password(id.into(), password_hash, purpose, &caller, now, write).await
    })
    .await?;
    Ok(HttpResponse::Ok().json(show(state, account).await?))
}

/// What an owner wants a limit to be.
struct Wanted {
    asset: AssetId,
    units: Option<Units>,
}

impl Wanted {
    fn of(
        state: &State,
        (chain_id, asset): (Option<u64>, &Asset),
        amount: LimitAmount,
    ) -> Result<Self, ApiError> {
        state.check_clock()?;
        let chain = state.chains.named(chain_id)?;
        let token = token(chain, asset)?;
        let decimals = token.map_or(Wei::DECIMALS, |token| token.decimals);
        let units = match amount {
            LimitAmount::NoLimit => None,
            LimitAmount::AtMost(amount) => {
                let units = amount.to_units(decimals);
                Some(Units(units.map_err(|error| ApiError::field("amount", error))?))
            }
        };
        Ok(Self { asset: AssetId::of(chain.network.chain_id, token), units })
    }

    fn purpose(&self, account: AccountId) -> Purpose {
        let limit = self.units.map_or_else(|| "none".to_owned(), |units| units.0.to_string());
        let details = Details::default().with("asset", self.asset).with("limit", limit);
        Purpose { action: Action::ChangeLimit(account, self.asset), details }
    }

    async fn write(
        &self,
        database: &Database,
        account: AccountId,
        may_raise: (Duration, Raises),
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let (asset, units) = (self.asset, self.units);
        match database.set_spending_limit(account, asset, units, may_raise, now).await? {
            Ok(()) => Ok(()),
            Err(LimitRefused::TooMany(after)) => {
                let detail = "too many increases in a day; a lower limit is always accepted";
                Err(ApiError::rate_limited(detail, after))
            }
            Err(LimitRefused::Raise) => {
                let detail =
                    "a higher limit is requested on the vault page; a lower one is accepted";
                Err(ApiError::refused(ErrorCode::PageRequired, detail))
            }
        }
    }
}

fn token<'a>(chain: &'a ServedChain, asset: &Asset) -> Result<Option<&'a Token>, ApiError> {
    let Asset::Token(symbol) = asset else { return Ok(None) };
    let found = chain.network.tokens.iter().find(|token| token.symbol == *symbol);
    found.map(Some).ok_or_else(|| {
        let detail = format!("this chain has no token {symbol}; GET /v1/networks lists its tokens");
        ApiError::Refused { code: ErrorCode::UnknownToken, detail, field: Some("asset".to_owned()) }
    })
}

pub(crate) async fn show(state: &State, account: &Account) -> Result<SpendingLimits, ApiError> {
    let now = clock::now();
    let networks = state.chains.iter().map(|chain| &chain.network);
    let assets: Vec<_> = networks
        .flat_map(|network| {
            let tokens = std::iter::once(None).chain(network.tokens.iter().map(Some));
            tokens.map(|token| (network.chain_id, token))
        })
        .collect();
    let caps = assets.iter().map(|(chain_id, token)| {
        let asset = AssetId::of(*chain_id, *token);
        (asset, state.chains.spending.caps(asset))
    });
    let found = state.database.spendings(account.id, caps.collect(), now).await?;
    let limits = assets.into_iter().zip(found).map(|((chain_id, token), found)| {
        let later = found.own.later.filter(|(_, from)| *from > now);
        SpendingLimit {
            chain_id,
            token: token.cloned(),
            limit: found.limit,
            spent: found.spent,
            own: found.own.at(now),
            later: later.map(|(units, from)| LaterLimit { units, from }),
        }
    });
    Ok(SpendingLimits { limits: limits.collect() })
}
