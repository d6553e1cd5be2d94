//! How much an account may spend in a day.

use actix_web::web::Data;
use actix_web::{HttpResponse, get, put};
use kms_core::account::Account;
use kms_types::wire::{LaterLimit, LimitAmount, SetLimit, SpendingLimit, SpendingLimits};
use kms_types::{AccountRef, Asset, ErrorCode, Problem, Token, Units, Wei};

use crate::auth::{Bot, Reader};
use crate::body::{Json, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::routes::accounts;
use crate::state::State;

/// What may be spent of each asset in 24 hours, and what was.
#[utoipa::path(
    tag = "accounts",
    params(("account" = AccountRef, Path)),
    responses((status = 200, body = SpendingLimits), (status = 404, body = Problem))
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

/// What the owner wants to spend at most. Less is in force at once, more after 24 hours; never more
/// than the operator allows.
#[utoipa::path(
    tag = "accounts",
    params(("account" = AccountRef, Path)),
    request_body = SetLimit,
    responses(
        (status = 200, body = SpendingLimits),
        (status = 400, description = "A field can not be used", body = Problem),
        (status = 404, body = Problem),
        (status = 429, description = "Too many higher limits in a day", body = Problem),
    )
)]
#[put("/accounts/{account}/limits")]
pub(crate) async fn set(
    _bot: Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<SetLimit>,
) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, account).await?;
    let token = token(&state, &body.asset)?;
    let decimals = token.map_or(Wei::DECIMALS, |token| token.decimals);
    let wanted = match body.amount {
        LimitAmount::NoLimit => None,
        LimitAmount::AtMost(amount) => {
            let units = amount.to_units(decimals);
            Some(Units(units.map_err(|error| ApiError::field("amount", error))?))
        }
    };
    let asset = token.map(|token| token.address);
    let hold = state.transfers.spending().hold;
    let set =
        state.database.set_spending_limit(account.id, asset, wanted, hold, clock::now()).await?;
    set.map_err(|after| {
        let detail = "too many higher limits were asked for; a lower one is always taken";
        ApiError::TooMany { code: ErrorCode::RateLimited, detail, after }
    })?;
    Ok(HttpResponse::Ok().json(show(&state, &account).await?))
}

fn token<'a>(state: &'a State, asset: &Asset) -> Result<Option<&'a Token>, ApiError> {
    let Asset::Token(symbol) = asset else { return Ok(None) };
    let found = state.transfers.tokens().iter().find(|token| token.symbol == *symbol);
    found.map(Some).ok_or_else(|| {
        let detail = format!("{symbol} is not known here");
        ApiError::Refused { code: ErrorCode::UnknownToken, detail, field: Some("asset".to_owned()) }
    })
}

async fn show(state: &State, account: &Account) -> Result<SpendingLimits, ApiError> {
    let (rules, now) = (state.transfers.spending(), clock::now());
    let mut limits = Vec::new();
    for token in std::iter::once(None).chain(state.transfers.tokens().iter().map(Some)) {
        let (asset, caps) = (token.map(|token| token.address), rules.caps(token));
        let found = state.database.spending(account.id, asset, caps, now).await?;
        let later = found.own.later.filter(|(_, from)| *from > now);
        limits.push(SpendingLimit {
            token: token.cloned(),
            limit: found.limit,
            spent: found.spent,
            own: found.own.at(now),
            later: later.map(|(units, from)| LaterLimit { units, from }),
        });
    }
    Ok(SpendingLimits { limits })
}
