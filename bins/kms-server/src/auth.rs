//! Authentication by bearer token (RFC 6750). A handler states the scope that it requires by the
//! type of its argument: [`Bot`], [`Chat`] or [`Reader`].

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use kms_core::audit::{Action, AuditRecord, Caller, Phase};
use kms_core::ports::{AuditLog, StoreError};
use kms_core::{AlarmContext, PlainToken, integrity_alarm};
use kms_store::{Raises, Scope};
use kms_types::ErrorCode;

use crate::clock;
use crate::error::{ApiError, Defect};
use crate::request_id::request_id;
use crate::state::State;

/// A caller whose token has the scope `bot`: it may pass on passwords that were typed in the chat,
/// for accounts that are not page-only.
pub(crate) struct Bot(pub(crate) Caller);

/// A caller whose token has the scope `chat` or `bot`, for what needs no password.
pub(crate) struct Chat {
    pub(crate) caller: Caller,
    raises: Raises,
}

impl Chat {
    /// Whether the token may pass on passwords that were typed in the chat.
    pub(crate) fn passes_passwords(&self) -> bool {
        self.raises == Raises::UnlessPageOnly
    }

    /// Which limits may be raised.
    pub(crate) fn raises(&self) -> Raises {
        self.raises
    }
}

/// A caller whose token has a scope that may read, and who is within the read limits.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Whether the token acts for the owners of accounts, and not for an operator's programs.
    pub(crate) acts_for_owners: bool,
}

/// As [`Reader`], for what concerns an owner alone, such as the history of an account.
#[derive(Debug)]
pub(crate) struct OwnersReader;

async fn authorize(
    request: HttpRequest,
    allowed: &[Scope],
) -> Result<(Caller, Vec<Scope>), ApiError> {
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
            record(state, "unknown", Phase::Alarm("tampered")).await;
            return Err(error.into());
        }
        found => found?,
    };
    let Some(token) = found else {
        record(state, "unknown", Phase::Outcome("unauthorized")).await;
        return Err(unauthorized());
    };
    if !token.is_valid(clock::now()) {
        record(state, &token.name, Phase::Outcome("unauthorized")).await;
        return Err(unauthorized());
    }
    if !token.scopes.iter().any(|scope| allowed.contains(scope)) {
        record(state, &token.name, Phase::Outcome("forbidden")).await;
        let detail =
            "the token's scope does not allow this request; use a token with the required scope";
        return Err(ApiError::refused(ErrorCode::Forbidden, detail));
    }
    let caller = Caller::new(token.name, request_id());
    Ok((caller, token.scopes))
}

/// Records a token that was refused, or whose row failed its integrity check. The store keeps at
/// most one such record a minute for each token, because its holder can repeat the request.
async fn record(state: &State, token: &str, phase: Phase) {
    let caller = Caller::new(token, request_id());
    let context = AlarmContext { request_id: Some(&caller.request_id), ..AlarmContext::default() };
    if let Phase::Alarm(_) = phase {
        integrity_alarm("an API token failed its integrity check", context);
    }
    let record = AuditRecord {
        at: clock::now(),
        action: Action::Authenticate,
        phase,
        account: None,
        telegram_id: None,
        details: caller.details(),
        caller: caller.clone(),
    };
    if let Err(error) = state.database.append_refusal(record).await {
        tracing::warn!(
            %error,
            event = "audit_append_failed",
            "refused authentication could not be audited"
        );
    }
}

impl FromRequest for Bot {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let (caller, _scopes) = authorize(request, &[Scope::Bot]).await?;
            Ok(Self(caller))
        })
    }
}

impl FromRequest for Chat {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let (caller, scopes) = authorize(request, &[Scope::Bot, Scope::Chat]).await?;
            let is_bot = scopes.contains(&Scope::Bot);
            let raises = if is_bot { Raises::UnlessPageOnly } else { Raises::Never };
            Ok(Self { caller, raises })
        })
    }
}

impl FromRequest for Reader {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let allowed = [Scope::Bot, Scope::Chat, Scope::Read, Scope::Admin];
            let scopes = authorize_read(request, &allowed).await?;
            let acts_for_owners = scopes.iter().any(|scope| OF_OWNERS.contains(scope));
            Ok(Self { acts_for_owners })
        })
    }
}

impl FromRequest for OwnersReader {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            authorize_read(request, &OF_OWNERS).await?;
            Ok(Self)
        })
    }
}

/// The scopes of a bot, which acts for the owners of accounts.
const OF_OWNERS: [Scope; 2] = [Scope::Bot, Scope::Chat];

/// Authorizes a read that is within the read limits. Returns the token's scopes.
async fn authorize_read(request: HttpRequest, allowed: &[Scope]) -> Result<Vec<Scope>, ApiError> {
    let (caller, scopes) = authorize(request.clone(), allowed).await?;
    let state: &Data<State> = request.app_data().ok_or(Defect::NoState)?;
    state.reads.take(&caller.actor, request.match_info().get("account"))?;
    Ok(scopes)
}
