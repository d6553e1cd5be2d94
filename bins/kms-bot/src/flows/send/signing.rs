//! A user's own transfer: from the password to the outcome of its signature, in the message that
//! asked for the password.

use kms_client::ClientError;
use kms_types::wire::Transfer;
use kms_types::{ErrorCode, PasswordHash, Purpose, TransferId};
use teloxide_core::types::MessageId;

use super::button::SendButton;
use super::screen;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Answer, Context, HandlerError, HandlerResult};
use crate::page::{OnPage, Place};
use crate::problems::problem;
use crate::texts::{Html, html};

/// The message that asks for the password.
pub(super) struct Shown<'a> {
    pub(super) transfer: &'a Transfer,
    pub(super) message: MessageId,
    /// What is signed.
    pub(super) text: &'a Html,
    /// What has not changed after a refusal that is temporary.
    pub(super) unchanged: Html,
}

/// Deletes a password that the sender types although a quote is confirmed on the page.
pub(super) fn expect_on_page(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
    place: &Place,
) {
    if let Place::Page(_) = place {
        let (purpose, resume) = (Purpose::Confirm(id), SendButton::Check(id).to_string());
        context.expect(user.id, OnPage { purpose, resume, message: Some(message) });
    }
}

/// Shows that the transfer is being sent, signs it with the password, and shows the outcome: after
/// a refusal with the buttons that `keyboard` chooses. The step continues after a wrong password.
pub(super) async fn sign(
    context: &Context,
    answer: Answer<'_>,
    shown: Shown<'_>,
    request: impl AsyncFnOnce(PasswordHash) -> Result<Transfer, ClientError>,
    keyboard: impl FnOnce(Refusal) -> Keyboard,
) -> HandlerResult {
    let (user, Shown { transfer, message, text, unchanged }) = (answer.user.id, shown);
    let sending = html!("send-sending", quote = text);
    context.works_in(user, message, SendButton::Check(transfer.id).to_string());
    // The password is deleted from the chat: it is used whatever happens to the screen.
    if let Err(error) = context.telegram.edit(user, message, &sending, Keyboard::none()).await {
        tracing::warn!(%error, event = "screen_not_updated", "payment screen not updated");
    }
    let password_hash = answer.password().hash(user).await;
    let error = match request(password_hash).await {
        Ok(transfer) => {
            context.end_step(user);
            return screen::show(context, user, message, &transfer).await;
        }
        Err(error) => error,
    };
    let refusal = refusal(&error);
    if refusal != Refusal::WrongPassword {
        context.end_step(user);
    }
    let network = context.network.of_chain(transfer.chain_id).await.ok();
    let reason = problem(&error, network.as_ref());
    let refused = match refusal {
        Refusal::WrongPassword => html!("send-wrong-password", quote = text),
        Refusal::OutcomeUnknown => html!("send-unknown-outcome", quote = text),
        Refusal::Temporary => {
            html!("send-refused-for-now", quote = text, reason = reason, unchanged = unchanged)
        }
        Refusal::Permanent => html!("send-refused", quote = text, reason = reason),
    };
    let keyboard = keyboard(refusal);
    let shown = context.telegram.edit_or_send(user, message, &refused, keyboard).await;
    match refusal {
        Refusal::OutcomeUnknown => Err(HandlerError::Unfinished),
        Refusal::WrongPassword | Refusal::Temporary | Refusal::Permanent => {
            shown.map(drop).map_err(Into::into)
        }
    }
}

/// Fetches a transfer if this user sends it.
pub(super) async fn own_transfer(
    context: &Context,
    user: &User,
    id: TransferId,
) -> Result<Option<Transfer>, ClientError> {
    let Some(transfer) = context.kms.transfer(id).await? else { return Ok(None) };
    let account = context.kms.account(user.id.into()).await?;
    let own = account.is_some_and(|account| transfer.from.account == Some(account.id));
    Ok(own.then_some(transfer))
}

/// What a refused signature means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another password may be right.
    WrongPassword,
    /// The same quote can be confirmed later.
    Temporary,
    /// This quote will not be sent.
    Permanent,
    /// The transfer may have been sent.
    OutcomeUnknown,
}

fn refusal(error: &ClientError) -> Refusal {
    let ClientError::Problem(problem) = error else { return Refusal::OutcomeUnknown };
    match problem.code {
        ErrorCode::WrongPassword => Refusal::WrongPassword,
        ErrorCode::PasswordLocked
        | ErrorCode::RateLimited
        | ErrorCode::Busy
        | ErrorCode::TooManyInFlight
        | ErrorCode::PaymentsPaused
        | ErrorCode::ChainUnavailable
        | ErrorCode::ChainContradicted
        | ErrorCode::PricesUnconfirmed => Refusal::Temporary,
        ErrorCode::MalformedRequest
        | ErrorCode::InvalidField
        | ErrorCode::BodyTooLarge
        | ErrorCode::RequestTimeout
        | ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::NoSuchRoute
        | ErrorCode::MethodNotAllowed
        | ErrorCode::NoSuchAccount
        | ErrorCode::NoSuchTransfer
        | ErrorCode::NoSuchRecovery
        | ErrorCode::UnknownToken
        | ErrorCode::UnknownChain
        | ErrorCode::UnknownName
        | ErrorCode::NameUnproved
        | ErrorCode::AccountExists
        | ErrorCode::AccountFrozen
        | ErrorCode::PageRequired
        | ErrorCode::InvalidLaunch
        | ErrorCode::LaunchUsed
        | ErrorCode::WrongCode
        | ErrorCode::CodeExpired
        | ErrorCode::RecoveryOpen
        | ErrorCode::RecoveryNotReady
        | ErrorCode::RecoveriesPaused
        | ErrorCode::OnHold
        | ErrorCode::NoMail
        | ErrorCode::IdReused
        | ErrorCode::SelfTransfer
        | ErrorCode::InsufficientFunds
        | ErrorCode::LimitReached
        | ErrorCode::QuoteExpired
        | ErrorCode::QuoteMismatch
        | ErrorCode::WrongState
        | ErrorCode::PaymentRefused
        | ErrorCode::FeeTooHigh
        | ErrorCode::WouldRevert
        | ErrorCode::TokenRefuses
        | ErrorCode::TokenMismatch
        | ErrorCode::StoreUnavailable
        | ErrorCode::Conflict
        | ErrorCode::Internal
        | ErrorCode::Unknown => by_status(problem.status),
    }
}

/// A failure of the server may have come after the transfer was signed.
fn by_status(status: u16) -> Refusal {
    if status >= 500 { Refusal::OutcomeUnknown } else { Refusal::Permanent }
}
