//! Who calls: a bearer token with a scope. A handler says what it needs by its argument's type.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use kms_core::audit::{Action, AuditRecord, Caller, Phase};
use kms_core::ports::{AuditLog, StoreError};
use kms_core::{AlarmContext, HashedToken, PlainToken, integrity_alarm};
use kms_store::{ApiToken, Database, Scope};
use kms_types::ErrorCode;

use crate::clock;
use crate::error::ApiError;
use crate::state::State;
use crate::telemetry;

/// How long a revoked token may go on working.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// A caller who may do what the bot does.
pub(crate) struct Bot(pub(crate) Caller);

/// A caller who may read, and has not read too much.
#[derive(Debug)]
pub(crate) struct Reader;

/// Tokens that were looked up within the last seconds, by their hashes.
#[derive(Debug, Default)]
pub(crate) struct TokenCache(Mutex<HashMap<HashedToken, (Instant, ApiToken)>>);

impl TokenCache {
    async fn find(
        &self,
        hash: HashedToken,
        database: &Database,
    ) -> Result<Option<ApiToken>, StoreError> {
        let found = self.lock().get(&hash).cloned();
        if let Some((since, token)) = found
            && since.elapsed() < FRESH_FOR
        {
            return Ok(Some(token));
        }
        let token = database.api_token_by_hash(hash).await?;
        let mut cache = self.lock();
        cache.retain(|_, (since, _)| since.elapsed() < FRESH_FOR);
        // Unknown tokens are not remembered: somebody who tries many fills nothing.
        if let Some(token) = &token {
            cache.insert(hash, (Instant::now(), token.clone()));
        }
        Ok(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<HashedToken, (Instant, ApiToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn authorize(request: HttpRequest, allowed: &[Scope]) -> Result<Caller, ApiError> {
    let unauthorized = || {
        let detail = "give a valid bearer token in the Authorization header";
        ApiError::refused(ErrorCode::Unauthorized, detail)
    };
    let state: &Data<State> = request.app_data().ok_or(ApiError::Stopped)?;
    let header = request.headers().get(AUTHORIZATION).ok_or_else(unauthorized)?;
    let text = header.to_str().map_err(|_secret| unauthorized())?;
    let token = text.strip_prefix("Bearer ").ok_or_else(unauthorized)?;
    let token: PlainToken = token.parse().map_err(|_secret| unauthorized())?;
    let found = match state.tokens.find(token.hash(), &state.database).await {
        Err(error @ StoreError::Tampered { .. }) => {
            alarm(state).await;
            return Err(error.into());
        }
        found => found?,
    };
    let token = found.filter(|token| token.is_valid(clock::now())).ok_or_else(unauthorized)?;
    if !token.scopes.iter().any(|scope| allowed.contains(scope)) {
        let detail = "the token's scopes do not allow this";
        return Err(ApiError::refused(ErrorCode::Forbidden, detail));
    }
    Ok(Caller { actor: token.name, request_id: telemetry::request_id() })
}

/// Somebody changed a token's row. Once a minute: whoever did can go on asking.
async fn alarm(state: &State) {
    let caller = Caller { actor: "unknown".to_owned(), request_id: telemetry::request_id() };
    let (action, phase) = (Action::Authenticate, Phase::Alarm("tampered"));
    let at = clock::now();
    let record = AuditRecord { at, caller, action, phase, account: None, telegram_id: None };
    let context =
        AlarmContext { request_id: Some(&record.caller.request_id), ..AlarmContext::default() };
    integrity_alarm("an API token failed its integrity check", context);
    if let Err(error) = state.database.append_refusal(record).await {
        tracing::warn!(%error, "a refusal was not audited");
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
            let state: &Data<State> = request.app_data().ok_or(ApiError::Stopped)?;
            state.reads.take(&caller.actor, request.match_info().get("account"))?;
            Ok(Self)
        })
    }
}
