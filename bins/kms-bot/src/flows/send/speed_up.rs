//! `Speed up`: signs a payment that waits again, at higher prices and with the password.

use async_trait::async_trait;
use kms_types::wire::{ReplaceTransfer, Transfer, TransferState};
use kms_types::{ReplacementId, TelegramId, TransferId, Wei};
use teloxide_core::types::MessageId;

use super::button::SendButton;
use super::screen;
use super::signing::{Shown, own_transfer, sign};
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Answer, Context, HandlerError, HandlerResult, Secrecy, Step};
use crate::flow::PressResult;
use crate::format::at_most;
use crate::page::Place;
use crate::problems::problem;
use crate::texts::{Html, html, text};

/// Shows the network fee of now, and asks for the password.
pub(super) async fn ask_password(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
) -> PressResult {
    context.abandon_step(user).await?;
    let Some(transfer) = own_transfer(context, user, id).await? else {
        return Ok(Some(text!("expired-button-notice")));
    };
    let is_pending = matches!(transfer.state, TransferState::Signed | TransferState::Broadcast);
    if !is_pending || matches!(Place::of(context, user.id).await?, Place::Page(_)) {
        screen::show(context, user.id, message, &transfer).await?;
        return Ok(None);
    }
    let network = context.network.of_chain(transfer.chain_id).await?;
    let back = Keyboard::row([SendButton::Check(id).labelled()]);
    let fee = match context.kms.replacement(id).await {
        Ok(fee) => fee,
        Err(error) => {
            let reason = problem(&error, Some(&network));
            context.telegram.edit(user.id, message, &reason, back).await?;
            return Ok(None);
        }
    };
    let (usual, max) = (at_most(fee.usual_fee, &network), at_most(fee.max_fee, &network));
    let what = screen::what(context, &transfer).await?;
    let offer = match transfer.cancel_requested_at {
        None => html!("send-speed-up", what = what, usual = usual, fee = max),
        Some(_) => html!("send-speed-up-cancellation", what = what, usual = usual, fee = max),
    };
    let ask = html!("send-ask-password", quote = &offer);
    let replacement = ReplacementId::random();
    let max_fee = fee.max_fee;
    // First, so that the bot waits for the password even if the response to the edit is lost.
    context.expect(user.id, ReplacePassword { transfer, replacement, max_fee, offer, message });
    context.telegram.edit(user.id, message, &ask, back).await?;
    Ok(None)
}

/// Ends the step that waits for the password of this transfer's replacement.
pub(crate) fn end(context: &Context, user: TelegramId, id: TransferId) {
    context.end_step_if(user, |step: &ReplacePassword| step.transfer.id == id);
}

/// Waits for the password that signs a transfer again.
struct ReplacePassword {
    transfer: Transfer,
    /// The same for every try, so that a repeat signs nothing more.
    replacement: ReplacementId,
    /// What the sender saw.
    max_fee: Wei,
    /// The text that was shown.
    offer: Html,
    /// The message with the transfer.
    message: MessageId,
}

#[async_trait]
impl Step for ReplacePassword {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("wanted-password")
    }

    /// Shows the payment as it is, with the button that asks for the password.
    fn resume(&self) -> String {
        SendButton::Check(self.transfer.id).to_string()
    }

    fn message(&self) -> Option<MessageId> {
        Some(self.message)
    }

    /// The server signs again and broadcasts.
    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let Self { transfer, replacement, max_fee, offer, message } = self;
        let unchanged = html!("send-waits-as-before");
        let shown = Shown { transfer, message: *message, text: offer, unchanged };
        let replace = async |password_hash| {
            let (id, max_fee) = (*replacement, *max_fee);
            let body = ReplaceTransfer { id, password_hash, max_fee };
            context.kms.replace(transfer.id, &body).await
        };
        // Whatever the refusal, the payment waits as before.
        let back = |_refusal| Keyboard::row([SendButton::Check(transfer.id).labelled()]);
        sign(context, answer, shown, replace, back).await
    }

    /// Shows the payment as it is now: it may have been mined since.
    async fn abandon(&self, context: &Context, user: &User) -> HandlerResult {
        let now = context.kms.transfer(self.transfer.id).await?;
        screen::show(context, user.id, self.message, now.as_ref().unwrap_or(&self.transfer)).await
    }

    async fn cancel(&self, context: &Context, user: &User) -> Result<bool, HandlerError> {
        self.abandon(context, user).await?;
        Ok(false)
    }
}
