//! Authentication by bearer token (RFC 6750). A handler states the scope that it requires by the
//! type of its argument: [`Bot`] or [`Reader`].

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use kms_core::audit::{Action, AuditRecord, Caller, Phase};
use kms_core::ports::{AuditLog, StoreError};
use kms_core::{AlarmContext, PlainToken, integrity_alarm};
use kms_store::Scope;
use kms_types::ErrorCode;

use crate::clock;
use crate::error::{ApiError, Defect};
use crate::state::State;
use crate::telemetry;

/// A caller whose token has the scope `bot`: it may change accounts and send transfers.
pub(crate) struct Bot(pub(crate) Caller);

/// A caller whose token has a scope that may read, and who is within the read limits.
#[derive(Debug)]
pub(crate) struct Reader;

async fn authorize(request: HttpRequest, allowed: &[Scope]) -> Result<Caller, ApiError> {
    let unauthorized = || {
        let detail = "send a valid API token as `Authorization: Bearer <token>`; `kms-server \
            token new` makes one";
        ApiError::refused(ErrorCode::Unauthorized, detail)
    };
    let state: &Data<State> = request.app_data().ok_or(Defect::NoState)?;
    let header = request.headers().get(AUTHORIZATION).ok_or_else(unauthorized)?;
    let text = header.to_str().map_err(|_secret| unauthorized())?;
    let token = text.strip_prefix("Bearer ").ok_or_else(unauthorized)?;
    let token: PlainToken = token.parse().map_err(|_secret| unauthorized())?;
    let found = match state.tokens.find(token.hash(), &state.database).await {
        Err(error @ (StoreError::Tampered { .. } | StoreError::RetiredRowKey { .. })) => {
            alarm(state).await;
            return Err(error.into());
        }
        found => found?,
    };
    let token = found.filter(|token| token.is_valid(clock::now())).ok_or_else(unauthorized)?;
    if !token.scopes.iter().any(|scope| allowed.contains(scope)) {
        let detail =
            "the token's scope does not allow this request; use a token with the required scope";
        return Err(ApiError::refused(ErrorCode::Forbidden, detail));
    }
    Ok(Caller { actor: token.name, request_id: telemetry::request_id() })
}

/// Records that a token's row failed its integrity check. The store keeps at most one such record a
/// minute, because the attacker who changed the row can repeat the request.
async fn alarm(state: &State) {
    let caller = Caller { actor: "unknown".to_owned(), request_id: telemetry::request_id() };
    let (action, phase) = (Action::Authenticate, Phase::Alarm("tampered"));
    let at = clock::now();
    let record = AuditRecord { at, caller, action, phase, account: None, telegram_id: None };
    let context =
        AlarmContext { request_id: Some(&record.caller.request_id), ..AlarmContext::default() };
    integrity_alarm("an API token failed its integrity check", context);
    if let Err(error) = state.database.append_refusal(record).await {
        tracing::warn!(
            %error,
            event = "audit_append_failed",
            "authentication alarm could not be audited"
        );
    }
}

impl FromRequest for Bot {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { authorize(request, &[Scope::Bot]).await.map(Self) })
    }
}

impl FromRequest for Reader {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let allowed = [Scope::Bot, Scope::Read, Scope::Admin];
        Box::pin(async move {
            let caller = authorize(request.clone(), &allowed).await?;
            let state: &Data<State> = request.app_data().ok_or(Defect::NoState)?;
            state.reads.take(&caller.actor, request.match_info().get("account"))?;
            Ok(Self)
        })
    }
}
