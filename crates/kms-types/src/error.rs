//! The error body of the API: problem details (RFC 9457) with a machine-readable code.

use serde::{Deserialize, Serialize};

use crate::{Timestamp, Token, TokenAmount, Units, Wei};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What went wrong, for a program. A client treats a code that it does not know like any
        /// other failure with the same HTTP status.

        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
            /// A code that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code that a server of this version returns.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the code as it is in the body.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}

error_codes! {
    /// The body is not JSON, not UTF-8, or does not have the request's shape.
    MalformedRequest = "malformed_request",
    /// The value of a field is invalid; `field` names it.
    InvalidField = "invalid_field",
    /// The body is larger than the server accepts.
    BodyTooLarge = "body_too_large",
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout",
    /// The bearer token is missing, unknown, expired or revoked.
    Unauthorized = "unauthorized",
    /// The token's scope does not allow this.
    Forbidden = "forbidden",
    /// The account is used on the vault page alone: no bearer token may do this for it.
    PageRequired = "page_required",
    /// Telegram did not sign this opening of the page, or it is too old; open the page again.
    InvalidLaunch = "invalid_launch",
    /// The page was opened by this link before; open it again from the chat.
    LaunchUsed = "launch_used",
    /// The path does not have this method; see the `Allow` header.
    MethodNotAllowed = "method_not_allowed",
    /// There is no such path.
    NoSuchRoute = "no_such_route",
    /// There is no such account.
    NoSuchAccount = "no_such_account",
    /// There is no such transfer.
    NoSuchTransfer = "no_such_transfer",
    /// The account has no such recovery, or no open one.
    NoSuchRecovery = "no_such_recovery",
    /// The server has no such ERC-20 token.
    UnknownToken = "unknown_token",
    /// The server has no such chain; `GET /v1/networks` lists its chains.
    UnknownChain = "unknown_chain",
    /// No user with this username has a wallet.
    UnknownName = "unknown_name",
    /// The username was reassigned less than a day ago, and only a bearer token says to whom.
    NameUnproved = "name_unproved",
    /// The Telegram user has a wallet already, with another password.
    AccountExists = "account_exists",
    /// The account is frozen.
    AccountFrozen = "account_frozen",
    /// The password is wrong.
    WrongPassword = "wrong_password",
    /// Too many wrong passwords; see `retry_after`.
    PasswordLocked = "password_locked",
    /// The code is wrong.
    WrongCode = "wrong_code",
    /// The code has expired, was tried too often, or was never sent; request a new one.
    CodeExpired = "code_expired",
    /// The account has an open recovery already.
    RecoveryOpen = "recovery_open",
    /// The recovery's wait is not over; see `retry_after`.
    RecoveryNotReady = "recovery_not_ready",
    /// The operator paused recoveries, or too many were requested; see `retry_after`.
    RecoveriesPaused = "recoveries_paused",
    /// Not allowed so soon after a recovery; see `retry_after`.
    OnHold = "on_hold",
    /// The server sends no e-mail.
    NoMail = "no_mail",
    /// A rate limit is exceeded; see `retry_after`.
    RateLimited = "rate_limited",
    /// The server is at capacity; see `retry_after`.
    Busy = "busy",
    /// The id was used before, for a different request.
    IdReused = "id_reused",
    /// The sender is the recipient.
    SelfTransfer = "self_transfer",
    /// The balance does not cover amount and network fee; see `missing` and `missing_token`.
    InsufficientFunds = "insufficient_funds",
    /// Too many payments of the wallet are in flight; repeat this when one of them is mined.
    TooManyInFlight = "too_many_in_flight",
    /// The payment exceeds the spending limit; see `limit`.
    LimitReached = "limit_reached",
    /// The quote has expired; request a new one.
    QuoteExpired = "quote_expired",
    /// The confirmation differs from the quote.
    QuoteMismatch = "quote_mismatch",
    /// The current state does not allow this.
    WrongState = "wrong_state",
    /// The operator paused payments, or more of the asset was sent in an hour than the operator
    /// allows; see `retry_after`. Nothing was signed.
    PaymentsPaused = "payments_paused",
    /// The operator does not allow this payment.
    PaymentRefused = "payment_refused",
    /// The network asks for a higher fee than the operator allows.
    FeeTooHigh = "fee_too_high",
    /// The recipient's contract would revert the payment.
    WouldRevert = "would_revert",
    /// The token refuses the payment: it may be paused, or block the sender or the recipient.
    TokenRefuses = "token_refuses",
    /// The token's contract does not match the configuration.
    TokenMismatch = "token_mismatch",
    /// No endpoint of the chain is available.
    ChainUnavailable = "chain_unavailable",
    /// The chain does not have an earlier payment of the wallet that was final. Nothing was signed.
    ChainContradicted = "chain_contradicted",
    /// No two endpoints of the chain agree on what a transaction costs. Nothing was signed.
    PricesUnconfirmed = "prices_unconfirmed",
    /// A database or a key of the server is unavailable; the outcome may be unknown.
    StoreUnavailable = "store_unavailable",
    /// A concurrent change came first; fetch the resource again.
    Conflict = "conflict",
    /// The server failed; its log has the cause under `request_id`.
    Internal = "internal_error",
}

/// The body of every error: problem details, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:kms:error:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The reason phrase of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do next, for a developer.
    pub detail: String,
    /// What happened, for a program.
    pub code: ErrorCode,
    /// The field of the request that is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Seconds to wait before a repeat; also in the `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The missing amount of the native coin, in wei.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Wei>,
    /// The missing amount of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_token: Option<TokenAmount>,
    /// The spending limit that was exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitReached>,
    /// The id of this request in the server's log.
    #[serde(default)]
    pub request_id: String,
}

/// A spending limit that a payment exceeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitReached {
    /// The token; absent for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The limit in 24 hours, in the asset's smallest unit.
    pub limit: Units,
    /// What is left of it now, in the same unit.
    pub left: Units,
    /// When the payment will be possible; absent if it exceeds the whole limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possible_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_unknown_ones_parse_as_unknown() {
        for code in ErrorCode::ALL.iter().copied().chain([ErrorCode::Unknown]) {
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), code);
        }
        let newer: ErrorCode = serde_json::from_str("\"from_the_future\"").unwrap();
        assert_eq!(newer, ErrorCode::Unknown);
    }

    #[test]
    fn a_problem_of_a_newer_server_is_still_read() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"urn:kms:error:x","title":"Conflict","status":409,"detail":"d","code":"x",
                "something_new":{"a":1}}"#,
        )
        .unwrap();
        assert_eq!((problem.status, problem.code), (409, ErrorCode::Unknown));
    }
}
