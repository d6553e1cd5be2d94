//! `Speed up`: signs a payment that waits again, at higher prices and with the password.

use async_trait::async_trait;
use kms_client::ClientError;
use kms_types::wire::{ReplaceTransfer, Transfer, TransferState};
use kms_types::{ReplacementId, TransferId, Wei};
use teloxide_core::types::MessageId;

use super::button::SendButton;
use super::confirm::{Refusal, own_transfer, refusal};
use super::screen;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Answer, Context, HandlerResult, Secrecy, Step};
use crate::flow::PressResult;
use crate::format::{amount, at_most};
use crate::problems::problem;
use crate::texts::{Html, html, text};

/// Shows the network fee of now, and asks for the password.
pub(super) async fn ask_password(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
) -> PressResult {
    context.abandon_step(user).await;
    let Some(transfer) = own_transfer(context, user, id).await? else {
        return Ok(Some(text!("expired-button-notice")));
    };
    if !matches!(transfer.state, TransferState::Signed | TransferState::Broadcast) {
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
    let what = html!(
        "transfer-what",
        amount = amount(transfer.value, transfer.token.as_ref(), &network),
        recipient = screen::party(&transfer.to)
    );
    let offer = match transfer.cancel_requested_at {
        None => html!("send-speed-up", what = what, usual = usual, fee = max),
        Some(_) => html!("send-speed-up-cancellation", what = what, usual = usual, fee = max),
    };
    let ask = html!("send-ask-password", quote = &offer);
    context.telegram.edit(user.id, message, &ask, back).await?;
    let replacement = ReplacementId::random();
    let max_fee = fee.max_fee;
    context.expect(user.id, ReplacePassword { transfer, replacement, max_fee, offer, message });
    Ok(None)
}

/// Ends the step that waits for the password of this transfer's replacement.
pub(super) fn end(context: &Context, user: &User, id: TransferId) {
    context.end_step_if(user.id, |step: &ReplacePassword| step.transfer.id == id);
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
        let (user, id) = (answer.user, self.transfer.id);
        let sending = html!("send-sending", quote = &self.offer);
        context.works_in(user.id, self.message, SendButton::Check(id).to_string());
        if let Err(error) =
            context.telegram.edit(user.id, self.message, &sending, Keyboard::none()).await
        {
            tracing::warn!(%error, event = "screen_not_updated", "payment screen not updated");
        }
        let password_hash = answer.password().hash(user.id).await;
        let body = ReplaceTransfer { id: self.replacement, password_hash, max_fee: self.max_fee };
        let text = match context.kms.replace(id, &body).await {
            Ok(transfer) => {
                context.end_step(user.id);
                return screen::show(context, user.id, self.message, &transfer).await;
            }
            Err(error) => {
                if refusal(&error) != Refusal::WrongPassword {
                    context.end_step(user.id);
                }
                self.refused(context, &error)
            }
        };
        let back = Keyboard::row([SendButton::Check(id).labelled()]);
        Ok(context.telegram.edit_or_send(user.id, self.message, &text, back).await?)
    }

    async fn abandon(&self, context: &Context, user: &User) -> HandlerResult {
        screen::show(context, user.id, self.message, &self.transfer).await
    }

    async fn cancel(&self, context: &Context, user: &User) -> HandlerResult {
        self.abandon(context, user).await
    }
}

impl ReplacePassword {
    /// The screen after a refusal: the payment waits as before.
    fn refused(&self, context: &Context, error: &ClientError) -> Html {
        let offer = &self.offer;
        match refusal(error) {
            Refusal::WrongPassword => html!("send-wrong-password", quote = offer),
            Refusal::OutcomeUnknown => html!("send-unknown-outcome", quote = offer),
            Refusal::Temporary | Refusal::Permanent => {
                let reason = problem(error, context.network.cached().as_ref());
                html!("send-refused", quote = offer, reason = reason)
            }
        }
    }
}
