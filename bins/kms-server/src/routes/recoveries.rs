//! Recoveries of forgotten passwords: request, confirm, cancel, complete.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, get, post};
use kms_core::CustodyError;
use kms_core::account::Account;
use kms_core::audit::{Action, Caller};
use kms_core::ports::{AccountStore, RecoveryStore, StoreError};
use kms_core::recovery::{Recovery, RecoveryStage};
use kms_store::{Pausable, RateLimit};
use kms_types::wire::{self, CompleteRecovery, ConfirmCode, RecoveryState, RequestRecovery};
use kms_types::{AccountRef, ErrorCode, RecoveryId, Timestamp};

use crate::auth::{Bot, Chat, Reader};
use crate::body::{Json, Segment};
use crate::clock::{self, Clocks};
use crate::error::{ApiError, Defect};
use crate::routes::accounts::{find, masked_trusted_email};
use crate::state::{State, detached};

crate::openapi::resource!(request, read, confirm, cancel, complete);

const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// Requests a recovery of a forgotten password. The new password is set later: the owner has time
/// to cancel first. A repeat with the same id returns the recovery as it is.
#[utoipa::path(
    operation_id = "request_recovery",
    tag = "recoveries",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path)),
    request_body = RequestRecovery,
    responses(
        (
            status = 201,
            description = "The recovery",
            body = wire::Recovery,
            links(
                ("code" = (
                    operation_id = "confirm_recovery",
                    parameters(
                        ("account" = "$response.body#/account"),
                        ("id" = "$response.body#/id")
                    )
                )),
                ("cancel" = (
                    operation_id = "cancel_recovery",
                    parameters(
                        ("account" = "$response.body#/account"),
                        ("id" = "$response.body#/id")
                    )
                )),
                ("complete" = (
                    operation_id = "complete_recovery",
                    parameters(
                        ("account" = "$response.body#/account"),
                        ("id" = "$response.body#/id")
                    )
                )),
            )
        ),
        (
            status = 403,
            description = "The account is frozen, or the token's scope does not allow this"
        ),
        (status = 404, description = "No such account"),
        (status = 409, description = "Another recovery is open, or the id was used before"),
        (status = 429, description = "Too many recoveries of this account"),
        (
            status = 503,
            description = "Recoveries are paused, or a dependency is unavailable; see `code`"
        ),
    )
)]
#[post("/accounts/{account}/recoveries")]
pub(crate) async fn request(
    Bot(caller): Bot,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
    Json(body): Json<RequestRecovery>,
) -> Result<HttpResponse, ApiError> {
    request_by(caller, &state, account, body).await
}

/// As [`request`], for either door.
pub(crate) async fn request_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    RequestRecovery { id }: RequestRecovery,
) -> Result<HttpResponse, ApiError> {
    let account = find(state, account).await?;
    refuse_token(&account, &caller)?;
    // The later of both clocks, so that a slow one does not shorten the wait.
    let (action, now) = (Action::RequestRecovery(id), clocks(state).await?.later);
    // Only a request that creates a recovery counts against the limits.
    if readable(state.database.recovery(id).await)? == Some(None) {
        let open = readable(state.database.open_recovery(account.id).await)?.flatten();
        if open.is_some_and(|open| open.is_open(now)) {
            return Err(CustodyError::RecoveryOpen.into());
        }
        let gate = Gate { state, account: &account, id, caller: &caller, action };
        gate.refuse_paused().await?;
        let own = state.limits.recoveries.limit();
        let all = state.limits.all_recoveries.limit();
        let own_key = format!("recovery:{}", account.id);
        let mut limits =
            vec![(&*own_key, own, RATE_LIMITED), ("recoveries:requested", all, BREAKER)];
        if state.custody.trusted_email(&account, now).is_none() {
            let daily =
                state.limits.recoveries_without_email(state.database.accounts_count().await?);
            gate.warn_at_half(daily).await?;
            limits.push(("recoveries:without_email", daily, BREAKER));
        }
        gate.take(&limits).await?;
        count("requested");
    }
    let custody = Arc::clone(&state.custody);
    let asked = detached(async move {
        Ok(custody.request_recovery(account.id.into(), id, &caller, now).await?)
    });
    let shown = show(state, asked.await?, now).await?;
    Ok(HttpResponse::build(StatusCode::CREATED).json(shown))
}

/// Returns the account's open recovery.
#[utoipa::path(
    operation_id = "read_recovery",
    tag = "recoveries",
    security(("token" = ["read"])),
    params(("account" = AccountRef, Path)),
    responses(
        (
            status = 200,
            description = "The recovery",
            body = wire::Recovery,
            links(
                ("code" = (
                    operation_id = "confirm_recovery",
                    parameters(
                        ("account" = "$response.body#/account"),
                        ("id" = "$response.body#/id")
                    )
                )),
                ("cancel" = (
                    operation_id = "cancel_recovery",
                    parameters(
                        ("account" = "$response.body#/account"),
                        ("id" = "$response.body#/id")
                    )
                )),
                ("complete" = (
                    operation_id = "complete_recovery",
                    parameters(
                        ("account" = "$response.body#/account"),
                        ("id" = "$response.body#/id")
                    )
                )),
            )
        ),
        (status = 204, description = "The account has no open recovery"),
        (status = 404, description = "No such account"),
    )
)]
#[get("/accounts/{account}/recovery")]
pub(crate) async fn read(
    _reader: Reader,
    state: Data<State>,
    Segment(account): Segment<AccountRef>,
) -> Result<HttpResponse, ApiError> {
    let account = find(&state, account).await?;
    read_of(&state, &account).await
}

/// The open recovery of an account.
pub(crate) async fn read_of(state: &State, account: &Account) -> Result<HttpResponse, ApiError> {
    let now = clock::now();
    let open = state.database.open_recovery(account.id).await?;
    match open.filter(|recovery| recovery.is_open(now)) {
        Some(open) => Ok(HttpResponse::Ok().json(show(state, open, now).await?)),
        None => Ok(HttpResponse::NoContent().finish()),
    }
}

/// Confirms the code that was sent by e-mail, which shortens the wait.
#[utoipa::path(
    operation_id = "confirm_recovery",
    tag = "recoveries",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path), ("id" = RecoveryId, Path)),
    request_body = ConfirmCode,
    responses(
        (status = 200, description = "The recovery", body = wire::Recovery),
        (
            status = 403,
            description = "The code is wrong, or the token's scope does not allow this"
        ),
        (status = 404, description = "No such account or recovery"),
        (status = 409, description = "No code can be confirmed, or the recovery has ended"),
    )
)]
#[post("/accounts/{account}/recoveries/{id}/code")]
pub(crate) async fn confirm(
    Bot(caller): Bot,
    state: Data<State>,
    Segment((account, id)): Segment<(AccountRef, RecoveryId)>,
    Json(body): Json<ConfirmCode>,
) -> Result<HttpResponse, ApiError> {
    confirm_by(caller, &state, account, id, body).await
}

/// As [`confirm`], for either door.
pub(crate) async fn confirm_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    id: RecoveryId,
    ConfirmCode { code }: ConfirmCode,
) -> Result<HttpResponse, ApiError> {
    // The shorter wait begins here.
    let (custody, now) = (Arc::clone(&state.custody), clocks(state).await?.later);
    let confirmed =
        detached(
            async move { Ok(custody.confirm_recovery(account, id, &code, &caller, now).await?) },
        );
    let confirmed = confirmed.await?;
    count("code_confirmed");
    Ok(HttpResponse::Ok().json(show(state, confirmed, now).await?))
}

/// Cancels the recovery. Requires no password.
#[utoipa::path(
    operation_id = "cancel_recovery",
    tag = "recoveries",
    security(("token" = ["chat"])),
    params(("account" = AccountRef, Path), ("id" = RecoveryId, Path)),
    responses(
        (status = 200, description = "The recovery", body = wire::Recovery),
        (status = 404, description = "No such account or recovery"),
        (status = 409, description = "The recovery has ended in another way"),
    )
)]
#[post("/accounts/{account}/recoveries/{id}/cancel")]
pub(crate) async fn cancel(
    Chat { caller, .. }: Chat,
    state: Data<State>,
    Segment((account, id)): Segment<(AccountRef, RecoveryId)>,
) -> Result<HttpResponse, ApiError> {
    cancel_by(caller, &state, account, id).await
}

/// As [`cancel`], for either door.
async fn cancel_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    id: RecoveryId,
) -> Result<HttpResponse, ApiError> {
    let (custody, now) = (Arc::clone(&state.custody), clock::now());
    let cancelled =
        detached(async move { Ok(custody.cancel_recovery(account, id, &caller, now).await?) });
    let cancelled = cancelled.await?;
    count("cancelled");
    Ok(HttpResponse::Ok().json(show(state, cancelled, now).await?))
}

/// Cancels the open recovery of an account, if there is one.
pub(crate) async fn cancel_open(
    caller: Caller,
    state: &State,
    account: &Account,
) -> Result<HttpResponse, ApiError> {
    let open = state.database.open_recovery(account.id).await?;
    match open.filter(|recovery| recovery.is_open(clock::now())) {
        Some(open) => cancel_by(caller, state, AccountRef::Id(account.id), open.id).await,
        None => Ok(HttpResponse::NoContent().finish()),
    }
}

/// Sets the new password with the KMS key. A repeat with the same password returns the same.
#[utoipa::path(
    operation_id = "complete_recovery",
    tag = "recoveries",
    security(("token" = ["bot"])),
    params(("account" = AccountRef, Path), ("id" = RecoveryId, Path)),
    request_body = CompleteRecovery,
    responses(
        (status = 200, description = "The new password is in force", body = wire::Recovery),
        (
            status = 403,
            description = "The account is frozen, or the token's scope does not allow this"
        ),
        (status = 404, description = "No such account or recovery"),
        (status = 409, description = "The wait is not over, or the recovery has ended"),
        (status = 429, description = "Too many concurrent requests"),
        (
            status = 503,
            description = "Recoveries are paused, or a dependency is unavailable; see `code`"
        ),
    )
)]
#[post("/accounts/{account}/recoveries/{id}/complete")]
pub(crate) async fn complete(
    Bot(caller): Bot,
    state: Data<State>,
    Segment((account, id)): Segment<(AccountRef, RecoveryId)>,
    Json(body): Json<CompleteRecovery>,
) -> Result<HttpResponse, ApiError> {
    complete_by(caller, &state, account, id, body).await
}

/// As [`complete`], for either door.
pub(crate) async fn complete_by(
    caller: Caller,
    state: &State,
    account: AccountRef,
    id: RecoveryId,
    CompleteRecovery { new_password_hash: new }: CompleteRecovery,
) -> Result<HttpResponse, ApiError> {
    let account = find(state, account).await?;
    refuse_token(&account, &caller)?;
    let action = Action::Recover(id);
    let known = readable(state.database.recovery(id).await)?.flatten();
    let known = known.filter(|known| known.account == account.id);
    // The earlier of both clocks, so that a fast local clock does not shorten the wait.
    let now = clocks(state).await?.earlier;
    // Only a completion that can succeed counts: not a repeat, nor one that still has to wait.
    if known.is_some_and(|known| known.stage(now) == RecoveryStage::Ready) {
        let gate = Gate { state, account: &account, id, caller: &caller, action };
        gate.refuse_paused().await?;
        let limit = state.limits.all_recoveries.limit();
        gate.take(&[("recoveries:completed", limit, BREAKER)]).await?;
    }
    let custody = Arc::clone(&state.custody);
    let done = detached(async move {
        Ok(custody.complete_recovery(account.id.into(), id, new, &caller, now).await?)
    });
    let done = done.await?;
    count("completed");
    Ok(HttpResponse::Ok().json(show(state, done, now).await?))
}

/// Counts a step of a recovery that succeeded.
fn count(step: &'static str) {
    metrics::counter!("kms_recoveries_total", "step" => step).increment(1);
}

/// Refuses a bearer token for a page-only account, as custody does, before it uses up a limit of
/// the owner or of the whole system.
fn refuse_token(account: &Account, caller: &Caller) -> Result<(), ApiError> {
    if !caller.is_at_page() && account.page_only_since.is_some() {
        return Err(CustodyError::PageRequired.into());
    }
    Ok(())
}

/// Compares the clocks. While they differ too much, no recovery begins or is completed: the wait
/// would be shorter or longer than the one its owner was notified of.
async fn clocks(state: &State) -> Result<Clocks, ApiError> {
    let clocks = clock::compare(&state.database).await?;
    state.readiness.record_skew(clocks.skew);
    if clocks.skew <= clock::MAX_SKEW {
        return Ok(clocks);
    }
    let detail = "the clocks of this server and its database differ; the operator has to set them";
    let (code, after) = (ErrorCode::RecoveriesPaused, MINUTE);
    Err(ApiError::NotNow { code, detail, after })
}

/// Converts a recovery to its wire form.
pub(crate) async fn show(
    state: &State,
    recovery: Recovery,
    now: Timestamp,
) -> Result<wire::Recovery, ApiError> {
    let code_until = recovery.code_until(now);
    let code_sent_to = match code_until {
        Some(_until) => match state.database.account(recovery.account.into()).await {
            Ok(Some(account)) => {
                masked_trusted_email(state, &account, recovery.requested_at).unwrap_or_default()
            }
            Err(error @ StoreError::Unavailable { .. }) => return Err(error.into()),
            // The rest of the recovery is returned without the address.
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
        moves_to: recovery.moves_to,
        requested_at: recovery.requested_at,
        code_sent_to,
        code_until,
        ready_at: recovery.ready_at,
        expires_at: recovery.expires_at,
    })
}

/// Returns what was read, or `None` for a row that failed its integrity check: custody reads it
/// again and raises the alarm.
fn readable<T>(found: Result<T, StoreError>) -> Result<Option<T>, ApiError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ StoreError::Unavailable { .. }) => Err(error.into()),
        Err(_changed) => Ok(None),
    }
}

/// How a limit refuses.
#[derive(Clone, Copy)]
struct Refusal {
    code: ErrorCode,
    detail: &'static str,
    outcome: &'static str,
}

const RATE_LIMITED: Refusal = Refusal {
    code: ErrorCode::RateLimited,
    detail: "too many recoveries of this account; repeat after `retry_after` seconds",
    outcome: "rate_limited",
};

/// More recoveries at once than forgotten passwords explain: an attack is possible.
const BREAKER: Refusal = Refusal {
    code: ErrorCode::RecoveriesPaused,
    detail: "too many recoveries on the whole system; repeat after `retry_after` seconds",
    outcome: "recovery_breaker",
};

/// Checks that apply before a step of a recovery, and are audited when they refuse.
struct Gate<'a> {
    state: &'a State,
    account: &'a Account,
    id: RecoveryId,
    caller: &'a Caller,
    action: Action,
}

impl Gate<'_> {
    async fn refuse_paused(&self) -> Result<(), ApiError> {
        let keys = &*self.state.key_database;
        let paused = self.state.database.paused(Pausable::Recoveries, keys);
        if paused.await?.is_none() {
            return Ok(());
        }
        self.record("recoveries_paused").await;
        let (code, detail) =
            (ErrorCode::RecoveriesPaused, "the operator has paused recoveries; repeat later");
        Err(ApiError::NotNow { code, detail, after: HOUR })
    }

    /// Raises an alarm when half of a limit is used up, before it refuses anyone.
    async fn warn_at_half(&self, limit: RateLimit) -> Result<(), ApiError> {
        let half = RateLimit { burst: limit.burst.div_ceil(2), period: limit.period * 2 };
        let taken = self.state.database.take_once(self.id, &[("recoveries:half", half)]).await?;
        if taken.is_err() {
            tracing::error!(
                event = "many_recoveries",
                "more recoveries without an e-mail address than half of their daily limit"
            );
        }
        Ok(())
    }

    /// Takes one from every bucket, or from none: a user who is refused by the limit of the whole
    /// system keeps their own. Repeats with one recovery's id take one in total.
    async fn take(&self, limits: &[(&str, RateLimit, Refusal)]) -> Result<(), ApiError> {
        let keys: Vec<_> = limits.iter().map(|(key, limit, _)| (*key, *limit)).collect();
        let Err(refused) = self.state.database.take_once(self.id, &keys).await? else {
            return Ok(());
        };
        let after = refused.wait;
        let (_, _, refusal) =
            limits.get(refused.index).ok_or(Defect::UnknownLimit(refused.index))?;
        let Refusal { code, detail, outcome } = *refusal;
        if code == ErrorCode::RecoveriesPaused {
            tracing::error!(
                event = "recovery_breaker",
                "recovery limit of the whole system exceeded; `kms-server recoveries pause` stops \
                    all"
            );
            metrics::counter!("kms_recovery_breaker_total").increment(1);
        }
        self.record(outcome).await;
        Err(ApiError::NotNow { code, detail, after })
    }

    async fn record(&self, outcome: &'static str) {
        let (custody, whose) = (&self.state.custody, self.account.id.into());
        custody.record_refusal(self.action, whose, outcome, self.caller, clock::now()).await;
    }
}
