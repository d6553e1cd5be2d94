//! Errors of the API: their codes, statuses, texts, and what is logged. This is the only file that
//! maps an error to an HTTP status.
//!
//! Every match over an error is exhaustive: an error without a status does not compile.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use kms_chain::spending;
use kms_chain::transfer::Missing;
use kms_chain::{ChainError, ConfirmError, QuoteError};
use kms_core::audit::{Audited, Phase};
use kms_core::launch::LaunchError;
use kms_core::ports::StoreError;
use kms_core::recovery::RecoveryError;
use kms_core::{CustodyError, PoolError, SealError};
use kms_process::ErrorChain;
use kms_types::{ErrorCode, LimitReached, Problem};

use crate::clock;
use crate::request_id::request_id;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request is refused. `field` names the field at fault.
    #[error("{detail}")]
    Refused { code: ErrorCode, detail: String, field: Option<String> },
    /// The request may succeed if it is repeated after some time.
    #[error("{detail}")]
    NotNow { code: ErrorCode, detail: &'static str, after: Duration },
    /// The spending limit does not allow the payment.
    #[error(
        "the payment exceeds what the account may spend in 24 hours; `limit` says how much is left"
    )]
    OverLimit(Box<LimitReached>),
    /// The balance is too low.
    #[error(
        "the balance does not cover amount and network fee; `missing` or `missing_token` says how \
            much is missing"
    )]
    Insufficient { missing: Missing },
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Defect(#[from] Defect),
}

/// A defect of this program. It is logged and answered with 500.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Defect {
    /// The task of a request panicked, or the runtime is shutting down.
    #[error("the task of a request ended without a result")]
    TaskEnded(#[source] tokio::task::JoinError),
    /// A handler runs in an application without [`State`](crate::state::State).
    #[error("the application has no state")]
    NoState,
    /// The database refused by a rate limit that was not passed to it.
    #[error("rate limit {0} was exceeded, which was not requested")]
    UnknownLimit(usize),
}

impl ApiError {
    pub(crate) fn refused(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Refused { code, detail: detail.into(), field: None }
    }

    /// 429: a rate limit is exceeded.
    pub(crate) fn rate_limited(detail: &'static str, after: Duration) -> Self {
        Self::NotNow { code: ErrorCode::RateLimited, detail, after }
    }

    /// 400: the value of a field is invalid.
    pub(crate) fn field(field: &str, detail: impl std::fmt::Display) -> Self {
        let (code, detail) = (ErrorCode::InvalidField, detail.to_string());
        Self::Refused { code, detail, field: Some(field.to_owned()) }
    }

    fn over_limit(spending::OverLimit { token, reached }: spending::OverLimit) -> Self {
        let spending::LimitReached { limit, left, possible_at, is_held } = reached;
        if is_held {
            return Self::NotNow {
                code: ErrorCode::OnHold,
                detail: "after a recovery, only addresses that were paid before it can be paid",
                after: possible_at.map_or(Duration::ZERO, |at| at.since(clock::now())),
            };
        }
        Self::OverLimit(Box::new(LimitReached { token, limit, left, possible_at }))
    }

    pub(crate) fn no_account() -> Self {
        Self::refused(ErrorCode::NoSuchAccount, "there is no such account; create it first")
    }

    pub(crate) fn no_transfer() -> Self {
        Self::refused(ErrorCode::NoSuchTransfer, "there is no such transfer; quote it first")
    }

    #[deny(clippy::wildcard_enum_match_arm)]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Refused { code, .. } | Self::NotNow { code, .. } => *code,
            Self::Insufficient { .. } => ErrorCode::InsufficientFunds,
            Self::OverLimit(_) => ErrorCode::LimitReached,
            Self::Custody(error) => match error {
                CustodyError::NoAccount => ErrorCode::NoSuchAccount,
                CustodyError::AccountExists => ErrorCode::AccountExists,
                CustodyError::WrongPassword => ErrorCode::WrongPassword,
                CustodyError::Locked { .. } => ErrorCode::PasswordLocked,
                CustodyError::Frozen => ErrorCode::AccountFrozen,
                CustodyError::NotFrozen
                | CustodyError::NotPageOnly
                | CustodyError::NotDamaged
                | CustodyError::TelegramIdTaken => ErrorCode::WrongState,
                CustodyError::PageRequired => ErrorCode::PageRequired,
                CustodyError::RecoveryReused => ErrorCode::IdReused,
                CustodyError::NoRecovery => ErrorCode::NoSuchRecovery,
                CustodyError::RecoveryOpen => ErrorCode::RecoveryOpen,
                CustodyError::Recovery(RecoveryError::NotReady { .. }) => {
                    ErrorCode::RecoveryNotReady
                }
                CustodyError::Recovery(RecoveryError::NoCode) => ErrorCode::CodeExpired,
                CustodyError::Recovery(RecoveryError::Ended) => ErrorCode::WrongState,
                CustodyError::WrongCode => ErrorCode::WrongCode,
                CustodyError::OnHold { .. } => ErrorCode::OnHold,
                CustodyError::Conflict => ErrorCode::Conflict,
                CustodyError::Pool(PoolError::Busy) => ErrorCode::Busy,
                CustodyError::Store(
                    StoreError::Unavailable { .. } | StoreError::NoRowKey { .. },
                )
                | CustodyError::MasterKey(_)
                | CustodyError::NoPepper(_)
                | CustodyError::NoCodesKey(_) => ErrorCode::StoreUnavailable,
                CustodyError::Store(
                    StoreError::Corrupt { .. }
                    | StoreError::Tampered { .. }
                    | StoreError::RetiredRowKey { .. },
                )
                | CustodyError::Pool(PoolError::Stopped)
                | CustodyError::Integrity(_)
                | CustodyError::RolledBack => ErrorCode::Internal,
            },
            // A missing version of a key is available again once it is configured.
            Self::Store(StoreError::Unavailable { .. } | StoreError::NoRowKey { .. })
            | Self::Seal(SealError::NoKey(_)) => ErrorCode::StoreUnavailable,
            Self::Chain(error) => chain_code(error),
            Self::Store(
                StoreError::Corrupt { .. }
                | StoreError::Tampered { .. }
                | StoreError::RetiredRowKey { .. },
            )
            | Self::Seal(SealError::Format | SealError::Mismatch | SealError::Retired(_))
            | Self::Defect(_) => ErrorCode::Internal,
        }
    }

    /// What happened and what to do next, for a developer. Internal causes are logged, not
    /// returned.
    fn detail(&self) -> String {
        match self.code() {
            ErrorCode::Internal => {
                "internal error; the server log has the cause under \
                `request_id`"
            }
            ErrorCode::StoreUnavailable => {
                "a dependency is unavailable and the outcome may be unknown; fetch the resource \
                    before you repeat the request"
            }
            ErrorCode::ChainUnavailable => {
                "the chain is unavailable and nothing was signed; repeat the request later"
            }
            ErrorCode::ChainContradicted => {
                "the chain does not have an earlier payment of this wallet that was final, and \
                    nothing was signed; repeat the request later"
            }
            ErrorCode::PricesUnconfirmed => {
                "no two endpoints of the chain agree on what a transaction costs, and nothing was \
                    signed; repeat the request later"
            }
            ErrorCode::PasswordLocked => {
                "too many wrong passwords; repeat after `retry_after` \
                seconds"
            }
            _ => return self.to_string(),
        }
        .to_owned()
    }

    fn retry_after(&self) -> Option<u64> {
        let wait = match self {
            Self::NotNow { after, .. } => *after,
            Self::OverLimit(reached) => reached.possible_at?.since(clock::now()),
            Self::Custody(
                CustodyError::Locked { until }
                | CustodyError::OnHold { until }
                | CustodyError::Recovery(RecoveryError::NotReady { until }),
            ) => until.since(clock::now()),
            _ => match self.code() {
                ErrorCode::Busy
                | ErrorCode::StoreUnavailable
                | ErrorCode::ChainUnavailable
                | ErrorCode::PricesUnconfirmed => Duration::from_secs(1),
                ErrorCode::ChainContradicted => Duration::from_secs(60),
                _ => return None,
            },
        };
        Some(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1))
    }
}

impl Audited for ApiError {
    fn phase(&self) -> Phase {
        match self {
            Self::Custody(error) => error.phase(),
            Self::Store(StoreError::Tampered { .. }) => Phase::Alarm("tampered"),
            Self::Store(StoreError::RetiredRowKey { .. }) => Phase::Alarm("retired_key"),
            Self::Store(StoreError::Corrupt { .. }) => Phase::Alarm("corrupt"),
            other => Phase::Outcome(other.code().as_str()),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status(self.code())
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code) = (self.status_code(), self.code());
        let request_id = request_id();
        if status.is_server_error() {
            tracing::error!(
                event = "request_failed",
                request_id,
                code = code.as_str(),
                cause = %ErrorChain(self),
                "request failed"
            );
        }
        let problem = Problem {
            kind: format!("urn:kms:error:{}", code.as_str()),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            code,
            field: match self {
                Self::Refused { field, .. } => field.clone(),
                _ => None,
            },
            retry_after: self.retry_after(),
            missing: match self {
                Self::Insufficient { missing: Missing::Native(wei) } => Some(*wei),
                _ => None,
            },
            missing_token: match self {
                Self::Insufficient { missing: Missing::Token(amount) } => Some(amount.clone()),
                _ => None,
            },
            limit: match self {
                Self::OverLimit(reached) => Some(LimitReached::clone(reached)),
                _ => None,
            },
            request_id,
        };
        let mut response = HttpResponse::build(status);
        if let Some(seconds) = problem.retry_after {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        response.body(serde_json::to_string(&problem).unwrap_or_default())
    }
}

/// Returns the code of an error of the chain: that its endpoints contradict each other, or what was
/// final, is no outage.
#[deny(clippy::wildcard_enum_match_arm)]
fn chain_code(error: &ChainError) -> ErrorCode {
    match error {
        ChainError::Contradicted { .. } => ErrorCode::ChainContradicted,
        ChainError::UnconfirmedPrices => ErrorCode::PricesUnconfirmed,
        ChainError::NotAToken => ErrorCode::TokenMismatch,
        ChainError::Unavailable(_)
        | ChainError::RateLimited { .. }
        | ChainError::WrongChain { .. }
        | ChainError::Unsupported { .. }
        | ChainError::Stalled { .. }
        | ChainError::Refused { .. }
        | ChainError::Reverted { .. }
        | ChainError::FalseReceipts { .. }
        | ChainError::Unconfirmed { .. }
        // No request asks what is final.
        | ChainError::NoFinality
        | ChainError::NoReceipts
        | ChainError::NoBlock { .. }
        | ChainError::NoEndpoint
        | ChainError::InvalidUrl
        | ChainError::HttpClient => ErrorCode::ChainUnavailable,
    }
}

/// Returns the HTTP status of an error code.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::MalformedRequest | ErrorCode::InvalidField => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden
        | ErrorCode::PageRequired
        | ErrorCode::InvalidLaunch
        | ErrorCode::WrongPassword
        | ErrorCode::WrongCode
        | ErrorCode::OnHold
        | ErrorCode::PaymentRefused
        | ErrorCode::AccountFrozen => StatusCode::FORBIDDEN,
        ErrorCode::NoSuchRoute
        | ErrorCode::NoSuchAccount
        | ErrorCode::NoSuchTransfer
        | ErrorCode::NoSuchRecovery
        | ErrorCode::UnknownName => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::AccountExists
        | ErrorCode::IdReused
        | ErrorCode::LaunchUsed
        | ErrorCode::QuoteExpired
        | ErrorCode::QuoteMismatch
        | ErrorCode::WrongState
        | ErrorCode::CodeExpired
        | ErrorCode::RecoveryOpen
        | ErrorCode::RecoveryNotReady
        | ErrorCode::NoMail
        | ErrorCode::NameUnproved
        | ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::SelfTransfer
        | ErrorCode::InsufficientFunds
        | ErrorCode::TooManyInFlight
        | ErrorCode::FeeTooHigh
        | ErrorCode::WouldRevert
        | ErrorCode::TokenRefuses
        | ErrorCode::TokenMismatch
        | ErrorCode::UnknownToken
        | ErrorCode::UnknownChain => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::PasswordLocked
        | ErrorCode::RateLimited
        | ErrorCode::LimitReached
        | ErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::ChainUnavailable
        | ErrorCode::ChainContradicted
        | ErrorCode::PricesUnconfirmed
        | ErrorCode::StoreUnavailable
        | ErrorCode::RecoveriesPaused
        | ErrorCode::PaymentsPaused => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal | ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<QuoteError> for ApiError {
    #[deny(clippy::wildcard_enum_match_arm)]
    fn from(error: QuoteError) -> Self {
        let detail = error.to_string();
        match error {
            QuoteError::NoSender => Self::no_account(),
            QuoteError::IdReused => Self::refused(ErrorCode::IdReused, detail),
            QuoteError::SelfTransfer => Self::refused(ErrorCode::SelfTransfer, detail),
            QuoteError::ZeroAddress | QuoteError::TokenContract => Self::field("to", detail),
            QuoteError::UnknownToken(_) => {
                let (code, field) = (ErrorCode::UnknownToken, Some("asset".to_owned()));
                Self::Refused { code, detail, field }
            }
            QuoteError::WrongToken(_) => Self::refused(ErrorCode::TokenMismatch, detail),
            QuoteError::TokenRefuses(_) => Self::refused(ErrorCode::TokenRefuses, detail),
            QuoteError::Amount(_) => Self::field("amount", detail),
            QuoteError::Insufficient { missing } => Self::Insufficient { missing },
            QuoteError::TooManyInFlight(_) => Self::refused(ErrorCode::TooManyInFlight, detail),
            QuoteError::FeeTooHigh(_) => Self::refused(ErrorCode::FeeTooHigh, detail),
            QuoteError::OverLimit(over) => Self::over_limit(*over),
            QuoteError::OverOutflow => Self::refused(ErrorCode::PaymentRefused, detail),
            QuoteError::WouldRevert(_) => Self::refused(ErrorCode::WouldRevert, detail),
            QuoteError::Chain(error) => error.into(),
            QuoteError::Store(error) => error.into(),
        }
    }
}

impl From<LaunchError> for ApiError {
    fn from(error: LaunchError) -> Self {
        Self::refused(ErrorCode::InvalidLaunch, error.to_string())
    }
}

impl From<ConfirmError> for ApiError {
    #[deny(clippy::wildcard_enum_match_arm)]
    fn from(error: ConfirmError) -> Self {
        let detail = error.to_string();
        match error {
            ConfirmError::NoTransfer => Self::no_transfer(),
            ConfirmError::RolledBack { sender: _ } => CustodyError::RolledBack.into(),
            ConfirmError::Expired => Self::refused(ErrorCode::QuoteExpired, detail),
            ConfirmError::Cancelled => Self::refused(ErrorCode::WrongState, detail),
            ConfirmError::NotActive => Self::refused(ErrorCode::AccountFrozen, detail),
            ConfirmError::WalletChanged => Self::refused(ErrorCode::Conflict, detail),
            ConfirmError::Mismatch => Self::refused(ErrorCode::QuoteMismatch, detail),
            ConfirmError::NotPending => Self::refused(ErrorCode::WrongState, detail),
            ConfirmError::OtherChain => Self::refused(ErrorCode::ChainUnavailable, detail),
            ConfirmError::IdReused => Self::refused(ErrorCode::IdReused, detail),
            ConfirmError::TooManyInFlight(_) => Self::refused(ErrorCode::TooManyInFlight, detail),
            ConfirmError::FeeTooHigh(_) => Self::refused(ErrorCode::FeeTooHigh, detail),
            ConfirmError::Insufficient { missing } => Self::Insufficient { missing },
            ConfirmError::OverLimit(over) => Self::over_limit(*over),
            ConfirmError::OverOutflow { after } => Self::NotNow {
                code: ErrorCode::PaymentsPaused,
                detail: "more of this asset was sent in an hour than the operator allows; repeat \
                    after `retry_after` seconds",
                after,
            },
            ConfirmError::Chain(error) => error.into(),
            ConfirmError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_contradicts_itself_is_no_outage() {
        for (error, code) in [
            (ChainError::Contradicted { nonce: 3 }, ErrorCode::ChainContradicted),
            (ChainError::UnconfirmedPrices, ErrorCode::PricesUnconfirmed),
            (ChainError::NotAToken, ErrorCode::TokenMismatch),
            (ChainError::NoEndpoint, ErrorCode::ChainUnavailable),
        ] {
            let error = ApiError::from(ConfirmError::Chain(error));
            assert_eq!(error.code(), code);
            let may_repeat = code != ErrorCode::TokenMismatch;
            assert_eq!(error.retry_after().is_some(), may_repeat, "{code:?}");
            assert_eq!(error.status_code().is_server_error(), may_repeat, "{code:?}");
            let is_outage = error.detail().contains("unavailable");
            assert_eq!(is_outage, code == ErrorCode::ChainUnavailable, "{}", error.detail());
        }
    }
}
