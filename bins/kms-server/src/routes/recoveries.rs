//! Recoveries: asked for, confirmed by a code, cancelled, completed.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, get, post};
use kms_core::account::Account;
use kms_core::audit::{Action, Caller};
use kms_core::ports::{AccountStore, RecoveryStore, StoreError};
use kms_core::recovery::{Recovery, RecoveryStage};
use kms_store::RateLimit;
use kms_types::wire::{self, CompleteRecovery, ConfirmCode, RecoveryState, RequestRecovery};
use kms_types::{AccountRef, ErrorCode, Problem, RecoveryId, Timestamp};

use crate::auth::{Bot, Reader};
use crate::body::{Json, Segment};
use crate::clock;
use crate::error::ApiError;
use crate::routes::accounts::{find, masked_email};
use crate::state::{State, detached};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Asks for a recovery of a forgotten password. No password is taken yet: time has to pass first,
/// in which the owner can cancel. A repeat with the same id answers with the recovery as it stands.
#[utoipa::path(
    tag = "recoveries",
    params(("account" = AccountRef, Path)),
    request_body = RequestRecovery,
    responses(
        (status = 201, body = wire::Recovery),
        (status = 404, body = Problem),
        (status = 409, description = "One is open, or the id is another account's", body = Problem),
        (status = 429, description = "Too many recoveries of this account", body = Problem),
        (status = 503, description = "Recoveries are paused", body = Problem),
    )
)]
#[post("/accounts/{account}/recoveries")]
pub(crate) async fn request(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(RequestRecovery { id }): Json<RequestRecovery>,
) -> Result<HttpResponse, ApiError> {
    let account = find(&state, account).await?;
    let (action, now) = (Action::RequestRecovery(id), clock::now());
    // What is answered by what there is, is not counted; and what is not counted makes none.
    if readable(state.database.recovery(id).await)? == Some(None) {
        let open = readable(state.database.open_recovery(account.id).await)?.flatten();
        if open.is_some_and(|open| open.is_open(now)) {
            return Err(kms_core::CustodyError::RecoveryOpen.into());
        }
        let gate = Gate { state: &state, account: &account, id, caller: &caller, action };
        gate.refuse_paused().await?;
        let own = state.limits.recoveries.limit();
        let all = state.limits.all_recoveries.limit();
        let own_key = format!("recovery:{}", account.id);
        gate.take(&[(&own_key, own, RATE_LIMITED), ("recoveries:requested", all, BREAKER)]).await?;
    }
    let custody = Arc::clone(&state.custody);
    let asked = detached(async move {
        Ok(custody.request_recovery(account.id.into(), id, &caller, now).await?)
    });
    let shown = show(&state, asked.await?, now).await?;
    Ok(HttpResponse::build(StatusCode::CREATED).json(shown))
}

/// The recovery of the account that has not ended.
#[utoipa::path(
    tag = "recoveries",
    params(("account" = AccountRef, Path)),
    responses((status = 200, body = wire::Recovery), (status = 404, body = Problem))
)]
#[get("/accounts/{account}/recovery")]
pub(crate) async fn read(
    _reader: Reader,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
) -> Result<HttpResponse, ApiError> {
    let account = find(&state, account).await?;
    let now = clock::now();
    let open = state.database.open_recovery(account.id).await?;
    let open = open.filter(|recovery| recovery.is_open(now)).ok_or_else(none)?;
    Ok(HttpResponse::Ok().json(show(&state, open, now).await?))
}

/// Confirms the code that was sent by e-mail: the wait is short from now on.
#[utoipa::path(
    tag = "recoveries",
    params(("account" = AccountRef, Path), ("id" = RecoveryId, Path)),
    request_body = ConfirmCode,
    responses(
        (status = 200, body = wire::Recovery),
        (status = 403, description = "The code is wrong", body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "No code can be confirmed any more", body = Problem),
    )
)]
#[post("/accounts/{account}/recoveries/{id}/code")]
pub(crate) async fn confirm(
    Bot(caller): Bot,
    state: Data<State>,
    Segment((account, id)): Segment<(AccountRef, RecoveryId)>,
    Json(ConfirmCode { code }): Json<ConfirmCode>,
) -> Result<HttpResponse, ApiError> {
    let (custody, now) = (Arc::clone(&state.custody), clock::now());
    let confirmed =
        detached(
            async move { Ok(custody.confirm_recovery(account, id, &code, &caller, now).await?) },
        );
    Ok(HttpResponse::Ok().json(show(&state, confirmed.await?, now).await?))
}

/// Cancels the recovery. Needs no password.
#[utoipa::path(
    tag = "recoveries",
    params(("account" = AccountRef, Path), ("id" = RecoveryId, Path)),
    responses(
        (status = 200, body = wire::Recovery),
        (status = 404, body = Problem),
        (status = 409, description = "It has ended otherwise", body = Problem),
    )
)]
#[post("/accounts/{account}/recoveries/{id}/cancel")]
pub(crate) async fn cancel(
    Bot(caller): Bot,
    state: Data<State>,
    Segment((account, id)): Segment<(AccountRef, RecoveryId)>,
) -> Result<HttpResponse, ApiError> {
    let (custody, now) = (Arc::clone(&state.custody), clock::now());
    let cancelled =
        detached(async move { Ok(custody.cancel_recovery(account, id, &caller, now).await?) });
    Ok(HttpResponse::Ok().json(show(&state, cancelled.await?, now).await?))
}

/// Sets the new password, by the KMS's own key. A repeat with the same password answers the same.
#[utoipa::path(
    tag = "recoveries",
    params(("account" = AccountRef, Path), ("id" = RecoveryId, Path)),
    request_body = CompleteRecovery,
    responses(
        (status = 200, description = "The new password works", body = wire::Recovery),
        (status = 404, body = Problem),
        (status = 409, description = "It still waits, or has ended", body = Problem),
        (status = 503, description = "Recoveries are paused", body = Problem),
    )
)]
#[post("/accounts/{account}/recoveries/{id}/complete")]
pub(crate) async fn complete(
    Bot(caller): Bot,
    state: Data<State>,
    Segment((account, id)): Segment<(AccountRef, RecoveryId)>,
    Json(CompleteRecovery { new_password_hash: new }): Json<CompleteRecovery>,
) -> Result<HttpResponse, ApiError> {
    let account = find(&state, account).await?;
    let action = Action::Recover(id);
    let known = readable(state.database.recovery(id).await)?.flatten();
    let known = known.filter(|known| known.account == account.id);
    // By the database's clock too: one that runs ahead shortens no wait.
    let now = clock::now().min(state.database.now().await?);
    // A repeat of what was done is none of those that are counted; nor is one that still waits.
    if known.is_some_and(|known| known.stage(now) == RecoveryStage::Ready) {
        let gate = Gate { state: &state, account: &account, id, caller: &caller, action };
        gate.refuse_paused().await?;
        let limit = state.limits.all_recoveries.limit();
        gate.take(&[("recoveries:completed", limit, BREAKER)]).await?;
    }
    let custody = Arc::clone(&state.custody);
    let done = detached(async move {
        Ok(custody.complete_recovery(account.id.into(), id, new, &caller, now).await?)
    });
    Ok(HttpResponse::Ok().json(show(&state, done.await?, now).await?))
}

/// A recovery as a client sees it.
pub(crate) async fn show(
    state: &State,
    recovery: Recovery,
    now: Timestamp,
) -> Result<wire::Recovery, ApiError> {
    let code_until = recovery.code_until(now);
    let code_sent_to = match code_until {
        Some(_until) => match state.database.account(recovery.account.into()).await {
            Ok(Some(account)) => masked_email(state, &account).unwrap_or_default(),
            Err(error @ StoreError::Unavailable { .. }) => return Err(error.into()),
            // What else there is to tell is told.
            Ok(None) | Err(_) => None,
        },
        None => None,
    };
    Ok(wire::Recovery {
        id: recovery.id,
        account: recovery.account,
        state: match recovery.stage(now) {
            RecoveryStage::Waiting if code_until.is_some() => RecoveryState::CodeSent,
            RecoveryStage::Waiting => RecoveryState::Waiting,
            RecoveryStage::Ready => RecoveryState::Ready,
            RecoveryStage::Completed => RecoveryState::Completed,
            RecoveryStage::Cancelled => RecoveryState::Cancelled,
            RecoveryStage::Expired => RecoveryState::Expired,
        },
        requested_at: recovery.requested_at,
        code_sent_to,
        code_until,
        ready_at: recovery.ready_at,
        expires_at: recovery.expires_at,
    })
}

/// What was read; nothing of a row that was changed: custody reads it again, and raises the alarm.
fn readable<T>(found: Result<T, StoreError>) -> Result<Option<T>, ApiError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ StoreError::Unavailable { .. }) => Err(error.into()),
        Err(_changed) => Ok(None),
    }
}

fn none() -> ApiError {
    ApiError::refused(ErrorCode::NoSuchRecovery, "the account has no such recovery")
}

/// What a limit says when it refuses.
#[derive(Clone, Copy)]
struct Refusal {
    code: ErrorCode,
    detail: &'static str,
    outcome: &'static str,
}

const RATE_LIMITED: Refusal = Refusal {
    code: ErrorCode::RateLimited,
    detail: "too many recoveries of this account; wait before the next",
    outcome: "rate_limited",
};

/// More forgotten passwords at once than people forget: somebody may be at work.
const BREAKER: Refusal = Refusal {
    code: ErrorCode::RecoveriesPaused,
    detail: "too many recoveries at once in the whole system; wait before the next",
    outcome: "recovery_breaker",
};

/// What stands before a recovery's step.
struct Gate<'a> {
    state: &'a State,
    account: &'a Account,
    id: RecoveryId,
    caller: &'a Caller,
    action: Action,
}

impl Gate<'_> {
    async fn refuse_paused(&self) -> Result<(), ApiError> {
        if self.state.database.recoveries_paused().await?.is_none() {
            return Ok(());
        }
        self.note("recoveries_paused").await;
        let (code, detail) = (ErrorCode::RecoveriesPaused, "the operator has paused recoveries");
        Err(ApiError::TooMany { code, detail, after: HOUR })
    }

    /// Takes one from each allowance, or none from any: who is stopped by the whole system's loses
    /// nothing of their own. Repeats of one recovery, also of one that failed, take one between
    /// them.
    async fn take(&self, limits: &[(&str, RateLimit, Refusal)]) -> Result<(), ApiError> {
        let keys: Vec<_> = limits.iter().map(|(key, limit, _)| (*key, *limit)).collect();
        let Err(refused) = self.state.database.take_once(self.id, &keys).await? else {
            return Ok(());
        };
        let after = refused.wait;
        let (_, _, refusal) = limits.get(refused.index).ok_or(ApiError::Stopped)?;
        let Refusal { code, detail, outcome } = *refusal;
        if code == ErrorCode::RecoveriesPaused {
            tracing::error!(
                "alarm: too many recoveries in an hour; `kms-server recoveries pause` stops them all"
            );
            metrics::counter!("kms_recovery_breaker_total").increment(1);
        }
        self.note(outcome).await;
        Err(ApiError::TooMany { code, detail, after })
    }

    async fn note(&self, outcome: &'static str) {
        let (custody, whose) = (&self.state.custody, self.account.id.into());
        custody.record_refusal(self.action, whose, outcome, self.caller, clock::now()).await;
    }
}
