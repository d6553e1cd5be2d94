//! The confirmation of a quote by the password, and the other buttons of a transfer's message.

use async_trait::async_trait;
use kms_client::ClientError;
use kms_types::wire::{ConfirmTransfer, Transfer, TransferState, Warning};
use kms_types::{Amount, Asset, Purpose, QuoteAmount, Recipient, TransferId, TypedRecipient, Wei};
use teloxide_core::types::MessageId;

use super::button::SendButton;
use super::quote::{self, Holder, holder, quote_in};
use super::signing::{Refusal, Shown, expect_on_page, own_transfer, sign};
use super::terms::{ClientRef, Fingerprint, Terms};
use super::{screen, speed_up};
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Answer, Context, HandlerError, HandlerResult, Secrecy, Step};
use crate::flow::PressResult;
use crate::page::{OnPage, Place};
use crate::texts::{Html, html, text};

/// Asks for the password that confirms a quote. `reassigned_confirmed`: the sender knows that the
/// username was reassigned recently.
pub(super) async fn ask_password(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
    fingerprint: Fingerprint,
    reassigned_confirmed: bool,
) -> PressResult {
    // A second press of the button leaves the screen as it is.
    if !context.waits_for(user.id, |step: &ConfirmPassword| step.message == message) {
        context.abandon_step(user).await?;
    }
    let Some(transfer) = own_transfer(context, user, id).await? else {
        return Ok(Some(text!("expired-button-notice")));
    };
    let place = Place::of(context, user.id).await?;
    expect_on_page(context, user, message, id, &place);
    if transfer.state != TransferState::Quoted || matches!(place, Place::Page(_)) {
        screen::show(context, user.id, message, &transfer).await?;
        return Ok(None);
    }
    let terms = Terms::of(&transfer);
    if terms.fingerprint() != fingerprint {
        return withdraw(context, user, message, id, &html!("send-changed")).await;
    }
    let display_name = match recipient(context, &transfer).await? {
        Holder::Verified { display_name } => display_name,
        Holder::Unverified => return Ok(Some(text!("send-name-unverified-notice"))),
        Holder::Reassigned | Holder::Unknown => {
            let text = html!("send-name-reassigned", username = screen::party(&transfer.to));
            return withdraw(context, user, message, id, &text).await;
        }
    };
    let network = context.network.of_chain(transfer.chain_id).await?;
    let quote = screen::quote(&transfer, &network, display_name.as_deref());
    let cancel = SendButton::Cancel(id).labelled();
    if transfer.warnings.contains(&Warning::NameReassigned) && !reassigned_confirmed {
        let confirm = SendButton::ConfirmReassigned { transfer: id, fingerprint }.labelled();
        let text = html!("send-ask-reassigned", quote = &quote);
        context.telegram.edit(user.id, message, &text, Keyboard::row([confirm, cancel])).await?;
        return Ok(None);
    }
    let text = html!("send-ask-password", quote = &quote);
    // First, so that the bot waits for the password even if the response to the edit is lost.
    context.expect(user.id, ConfirmPassword { transfer, terms, quote, message });
    context.telegram.edit(user.id, message, &text, Keyboard::row([cancel])).await?;
    Ok(None)
}

/// Verifies once more who is paid: a username may have another holder since the quote.
async fn recipient(context: &Context, transfer: &Transfer) -> Result<Holder, ClientError> {
    if let Some(name) = &transfer.to.username {
        return holder(context, name).await;
    }
    let person = ClientRef::of(transfer).and_then(|client_ref| client_ref.person);
    let display_name = match person {
        Some(person) => quote::display_name(context, person).await,
        None => None,
    };
    Ok(Holder::Verified { display_name })
}

/// Cancels a quote that must not be confirmed, and says why in its message.
async fn withdraw(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
    why: &Html,
) -> PressResult {
    context.kms.cancel(id).await?;
    context.telegram.edit(user.id, message, why, Keyboard::none()).await?;
    Ok(None)
}

/// Waits for the password that confirms a transfer.
struct ConfirmPassword {
    transfer: Transfer,
    /// What the sender saw.
    terms: Terms,
    /// The text of the confirm screen.
    quote: Html,
    /// The message with the confirm screen.
    message: MessageId,
}

#[async_trait]
impl Step for ConfirmPassword {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("wanted-password")
    }

    fn resume(&self) -> String {
        SendButton::Confirm { transfer: self.transfer.id, fingerprint: self.terms.fingerprint() }
            .to_string()
    }

    fn message(&self) -> Option<MessageId> {
        Some(self.message)
    }

    /// Confirms the transfer: the server signs and broadcasts it.
    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let Self { transfer, terms, quote, message } = self;
        let unchanged = html!("send-nothing-sent");
        let shown = Shown { transfer, message: *message, text: quote, unchanged };
        let Terms { chain_id, to_address, token, value, max_fee } = terms.clone();
        let confirm = async |password_hash| {
            let body =
                ConfirmTransfer { password_hash, chain_id, to_address, token, value, max_fee };
            context.kms.confirm(transfer.id, &body).await
        };
        sign(context, answer, shown, confirm, |refusal| self.keyboard(refusal)).await
    }

    async fn abandon(&self, context: &Context, user: &User) -> HandlerResult {
        self.restore_confirm_screen(context, user).await
    }

    async fn cancel(&self, context: &Context, user: &User) -> Result<bool, HandlerError> {
        cancel(context, user, self.message, self.transfer.id).await?;
        Ok(true)
    }
}

impl ConfirmPassword {
    /// The buttons after a refused confirmation.
    fn keyboard(&self, refusal: Refusal) -> Keyboard {
        let id = self.transfer.id;
        let cancel = SendButton::Cancel(id).labelled();
        match refusal {
            Refusal::WrongPassword => Keyboard::row([cancel]),
            Refusal::OutcomeUnknown => Keyboard::row([SendButton::Check(id).labelled()]),
            Refusal::Temporary => {
                Keyboard::row([(text!("send-again-button"), self.resume()), cancel])
            }
            Refusal::Permanent => Keyboard::row([SendButton::Renew(id).labelled(), cancel]),
        }
    }

    /// Shows the quote as it was before `Confirm` was pressed.
    async fn restore_confirm_screen(&self, context: &Context, user: &User) -> HandlerResult {
        let keyboard = screen::quote_keyboard(&self.transfer, &Place::Chat);
        Ok(context.telegram.edit(user.id, self.message, &self.quote, keyboard).await?)
    }
}

/// Cancels a quote, or a payment that waits: then the network decides whether the payment or its
/// cancellation comes first.
pub(super) async fn cancel(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
) -> PressResult {
    if own_transfer(context, user, id).await?.is_none() {
        return Ok(Some(text!("expired-button-notice")));
    }
    let transfer = context.kms.cancel(id).await?;
    screen::show(context, user.id, message, &transfer).await?;
    end_confirmation(context, user, id);
    Ok(None)
}

/// Quotes the same payment again, on the same chain and at the current fee. A transfer that was
/// sent is shown, never sent once more.
pub(super) async fn renew(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
) -> PressResult {
    let Some(mut old) = own_transfer(context, user, id).await? else {
        return Ok(Some(text!("expired-button-notice")));
    };
    end_confirmation(context, user, id);
    // Only a quote: a payment that was sent is not cancelled by asking for another one.
    if old.state == TransferState::Quoted {
        old = context.kms.cancel(id).await?;
    }
    if !matches!(old.state, TransferState::Cancelled | TransferState::Expired) {
        screen::show(context, user.id, message, &old).await?;
        return Ok(None);
    }
    let client_ref = ClientRef::of(&old);
    let all = client_ref.is_some_and(|client_ref| client_ref.all);
    let decimals = old.token.as_ref().map_or(Wei::DECIMALS, |token| token.decimals);
    let amount = match old.value.to_decimal(decimals).parse::<Amount>() {
        _ if all => QuoteAmount::All,
        Ok(amount) => QuoteAmount::Exactly(amount),
        Err(_) => return Ok(Some(text!("expired-button-notice"))),
    };
    let to = match (old.to.username, client_ref.and_then(|client_ref| client_ref.person)) {
        (Some(name), _) => TypedRecipient::Named(Recipient::Username(name)),
        (None, Some(person)) => TypedRecipient::User(person),
        (None, None) => TypedRecipient::Named(Recipient::Address(old.to.address)),
    };
    let asset = old.token.map_or(Asset::Native, |token| Asset::Token(token.symbol));
    quote_in(context, user, message, to, amount, asset, old.chain_id).await?;
    Ok(None)
}

/// Shows a transfer's current state.
pub(super) async fn check(
    context: &Context,
    user: &User,
    message: MessageId,
    id: TransferId,
) -> PressResult {
    let Some(transfer) = own_transfer(context, user, id).await? else {
        return Ok(Some(text!("expired-button-notice")));
    };
    screen::show(context, user.id, message, &transfer).await?;
    speed_up::end(context, user.id, id);
    Ok(Some(text!("up-to-date-notice")))
}

/// Ends the step that waits for this transfer's password.
fn end_confirmation(context: &Context, user: &User, id: TransferId) {
    context.end_step_if(user.id, |step: &ConfirmPassword| step.transfer.id == id);
    context.end_step_if(user.id, |step: &OnPage| step.purpose == Purpose::Confirm(id));
    speed_up::end(context, user.id, id);
}
