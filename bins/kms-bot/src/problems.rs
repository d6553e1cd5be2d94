//! The texts for requests to the server that failed.

use std::time::Duration;

use kms_client::ClientError;
use kms_types::wire::Network;
use kms_types::{ErrorCode, LimitReached, Problem};

use crate::format::{amount, coins, duration, time};
use crate::texts::{Html, html, text};

/// Explains a failed request. Nothing was changed, unless the server is unreachable.
pub(crate) fn problem(error: &ClientError, network: Option<&Network>) -> Html {
    let problem = match error {
        ClientError::Problem(problem) => problem,
        ClientError::Unreachable(_) | ClientError::BadAnswer { .. } | ClientError::Setup(_) => {
            return html!("problem-unreachable");
        }
    };
    let wait = || duration(Duration::from_secs(problem.retry_after.unwrap_or(60)));
    match problem.code {
        ErrorCode::NoSuchAccount => html!("no-wallet"),
        ErrorCode::WrongPassword => html!("problem-wrong-password"),
        ErrorCode::PasswordLocked => html!("problem-password-locked", wait = wait()),
        ErrorCode::RateLimited => html!("problem-rate-limited", wait = wait()),
        ErrorCode::WrongCode => html!("problem-wrong-code"),
        ErrorCode::CodeExpired => html!("problem-code-expired"),
        ErrorCode::NoSuchRecovery => html!("problem-no-recovery"),
        ErrorCode::RecoveryNotReady => html!("problem-recovery-not-ready", wait = wait()),
        ErrorCode::RecoveriesPaused => html!("problem-recoveries-paused"),
        ErrorCode::OnHold => html!("problem-on-hold", wait = wait()),
        ErrorCode::NoMail => html!("problem-no-mail"),
        ErrorCode::Busy => html!("problem-busy"),
        ErrorCode::AccountFrozen => html!("problem-frozen"),
        ErrorCode::PageRequired => html!("problem-page-required"),
        ErrorCode::AccountExists => html!("problem-account-exists"),
        ErrorCode::ChainUnavailable => match network {
            Some(Network { name, .. }) => html!("problem-chain-unavailable", network = name),
            None => html!("problem-chain-unavailable", network = text!("problem-network")),
        },
        ErrorCode::ChainContradicted => html!("problem-chain-contradicted"),
        ErrorCode::PricesUnconfirmed => html!("problem-prices-unconfirmed"),
        ErrorCode::SelfTransfer => html!("problem-self-transfer"),
        ErrorCode::InsufficientFunds => insufficient(problem, network),
        ErrorCode::LimitReached => over_limit(problem.limit.as_ref(), network),
        ErrorCode::TooManyInFlight => html!("problem-too-many-in-flight"),
        ErrorCode::PaymentsPaused => match network {
            Some(Network { name, .. }) => html!("problem-payments-paused-on", network = name),
            None => html!("problem-payments-paused"),
        },
        ErrorCode::PaymentRefused => html!("problem-payment-refused"),
        ErrorCode::FeeTooHigh => html!("problem-fee-too-high"),
        ErrorCode::WouldRevert => html!("problem-would-revert"),
        ErrorCode::TokenRefuses => html!("problem-token-refuses"),
        ErrorCode::TokenMismatch => html!("problem-token-mismatch"),
        ErrorCode::QuoteExpired => html!("problem-quote-expired"),
        ErrorCode::QuoteMismatch => html!("send-changed"),
        ErrorCode::NameUnproved => html!("problem-name-unproved"),
        ErrorCode::UnknownToken => html!("problem-unknown-token"),
        ErrorCode::UnknownChain => html!("problem-unknown-chain"),
        ErrorCode::RecoveryOpen => html!("recover-over"),
        ErrorCode::Conflict => html!("problem-conflict"),
        ErrorCode::WrongState => html!("problem-wrong-state"),
        ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::StoreUnavailable
        | ErrorCode::Internal => html!("problem-internal"),
        // Only these depend on what the user wrote; the server's sentence says what is wrong.
        ErrorCode::InvalidField
        | ErrorCode::MalformedRequest
        | ErrorCode::BodyTooLarge
        | ErrorCode::RequestTimeout
        | ErrorCode::NoSuchRoute
        | ErrorCode::MethodNotAllowed
        | ErrorCode::NoSuchTransfer
        | ErrorCode::UnknownName
        | ErrorCode::InvalidLaunch
        | ErrorCode::LaunchUsed
        | ErrorCode::IdReused
        | ErrorCode::Unknown => other(problem),
    }
}

/// Whether a request named a chain that the server does not have.
pub(crate) fn is_unknown_chain(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::UnknownChain)
}

fn other(problem: &Problem) -> Html {
    if problem.status >= 500 {
        return html!("problem-internal");
    }
    html!("problem-other", detail = capitalized(problem.detail.trim_end_matches('.')))
}

fn insufficient(problem: &Problem, network: Option<&Network>) -> Html {
    let Some(network) = network else { return html!("problem-insufficient") };
    let name = &network.name;
    match (&problem.missing_token, problem.missing) {
        (Some(missing), _) => {
            html!("problem-insufficient-token", amount = missing, network = name)
        }
        (None, Some(missing)) => {
            let amount = coins(missing, network);
            html!("problem-insufficient-coin", amount = amount, network = name)
        }
        (None, None) => html!("problem-insufficient"),
    }
}

fn over_limit(reached: Option<&LimitReached>, network: Option<&Network>) -> Html {
    let (Some(reached), Some(network)) = (reached, network) else { return html!("problem-limit") };
    let when = match reached.possible_at {
        Some(at) => html!("problem-limit-possible-at", time = time(at)),
        None => html!("problem-limit-never"),
    };
    let limit = amount(reached.limit, reached.token.as_ref(), network);
    let left = amount(reached.left, reached.token.as_ref(), network);
    let on = &network.name;
    match reached.token {
        None => html!("problem-limit-coin", limit = limit, network = on, left = left, when = when),
        Some(_) => {
            html!("problem-limit-token", limit = limit, network = on, left = left, when = when)
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), characters.as_str())
}
