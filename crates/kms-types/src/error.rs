//! The error body of the API: problem details (RFC 9457) with a machine-readable code.

use serde::{Deserialize, Serialize};

use crate::{Timestamp, Token, TokenAmount, Units, Wei};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What went wrong, for a program. A client must treat a code it does not know like any
        /// other failure of the same HTTP status: new ones may appear.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
            /// A code that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// The code as it stands in the body.
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
    /// One field, named in `field`, has a value that can not be used.
    InvalidField = "invalid_field",
    /// The body is larger than the server reads.
    BodyTooLarge = "body_too_large",
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout",
    /// The bearer token is missing, unknown, expired or revoked.
    Unauthorized = "unauthorized",
    /// The token does not allow this.
    Forbidden = "forbidden",
    /// There is no such route or method.
    NoSuchRoute = "no_such_route",
    /// There is no such account.
    NoSuchAccount = "no_such_account",
    /// There is no such transfer.
    NoSuchTransfer = "no_such_transfer",
    /// The account has no such recovery, or none that is open.
    NoSuchRecovery = "no_such_recovery",
    /// There is no such token here.
    UnknownToken = "unknown_token",
    /// Nobody here has this username.
    UnknownName = "unknown_name",
    /// The Telegram user already has a wallet, under another password.
    AccountExists = "account_exists",
    /// The account was frozen by the operator.
    AccountFrozen = "account_frozen",
    /// The password is wrong.
    WrongPassword = "wrong_password",
    /// Too many wrong passwords; see `retry_after`.
    PasswordLocked = "password_locked",
    /// The code is wrong.
    WrongCode = "wrong_code",
    /// The code is too old, was tried too often, or was never sent; ask for a new one.
    CodeExpired = "code_expired",
    /// The account has a recovery under way already.
    RecoveryOpen = "recovery_open",
    /// The recovery still has to wait; see `retry_after`.
    RecoveryNotReady = "recovery_not_ready",
    /// The operator has paused recoveries, or too many were asked for; see `retry_after`.
    RecoveriesPaused = "recoveries_paused",
    /// Not so soon after a recovery; see `retry_after`.
    OnHold = "on_hold",
    /// The server sends no e-mail.
    NoMail = "no_mail",
    /// A limit was reached; see `retry_after`.
    RateLimited = "rate_limited",
    /// The server has as much work as it takes; see `retry_after`.
    Busy = "busy",
    /// The id was used before, for something else.
    IdReused = "id_reused",
    /// The sender is the recipient.
    SelfTransfer = "self_transfer",
    /// The balance does not cover amount and fee; see `missing` and `missing_token`.
    InsufficientFunds = "insufficient_funds",
    /// It is more than the account may spend now; see `limit`.
    LimitReached = "limit_reached",
    /// The quote is too old to be confirmed; ask for a new one.
    QuoteExpired = "quote_expired",
    /// What was confirmed is not what the quote says.
    QuoteMismatch = "quote_mismatch",
    /// The transfer is past the state in which this can be done.
    WrongState = "wrong_state",
    /// The recipient's or the token's contract refuses the payment, or the chain says it would
    /// fail.
    WouldRevert = "would_revert",
    /// No endpoint of the chain answers.
    ChainUnavailable = "chain_unavailable",
    /// A database or a key of the server's can not be used now.
    StoreUnavailable = "store_unavailable",
    /// Another change of the same thing came first; read it again.
    Conflict = "conflict",
    /// The server failed; its log has the cause under the request id.
    Internal = "internal_error",
}

/// The body of every answer that is not a success: `application/problem+json` of RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:kms:error:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status' own phrase.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do next, for a person.
    pub detail: String,
    /// What happened, for a program.
    pub code: ErrorCode,
    /// The field of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Seconds after which a repeat makes sense; also in the `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// How much of the native coin is missing, in wei.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Wei>,
    /// How much of a token is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_token: Option<TokenAmount>,
    /// What may be spent, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitReached>,
    /// The id under which the server's log knows this request.
    #[serde(default)]
    pub request_id: String,
}

/// A payment is more than an account may spend now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitReached {
    /// Of which token; nothing for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// What may be spent in 24 hours, in the asset's smallest unit.
    pub limit: Units,
    /// What is left of it now.
    pub left: Units,
    /// When this payment will be possible; nothing, if it is more than the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possible_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_and_unknown_ones_do_not_break() {
        for code in [ErrorCode::Internal, ErrorCode::WrongPassword, ErrorCode::Unknown] {
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
