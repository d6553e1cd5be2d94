//! Quotes a payment, and verifies who holds the recipient's username.

use kms_client::ClientError;
use kms_types::wire::{QuoteTransfer, SeenUsername};
use kms_types::{Asset, QuoteAmount, Recipient, TransferId, Username};
use teloxide_core::types::MessageId;

use super::screen;
use super::terms::ClientRef;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::clock;
use crate::context::{Context, HandlerResult};
use crate::problems::problem;
use crate::texts::html;

/// Quotes a payment in a new message.
pub(super) async fn quote(
    context: &Context,
    user: &User,
    to: Recipient,
    amount: QuoteAmount,
    asset: Asset,
) -> HandlerResult {
    context.end_step(user.id);
    let text = html!("send-looking-up");
    let message = context.telegram.send(user.id, &text, Keyboard::none()).await?;
    quote_in(context, user, message, to, amount, asset).await
}

/// Quotes a payment in a message that exists. The transfer refers to the message.
pub(super) async fn quote_in(
    context: &Context,
    user: &User,
    message: MessageId,
    to: Recipient,
    amount: QuoteAmount,
    asset: Asset,
) -> HandlerResult {
    let all = amount == QuoteAmount::All;
    let quoted = async {
        let display_name = match &to {
            Recipient::Address(_) => None,
            Recipient::Username(name) => match holder(context, name).await? {
                Holder::Unknown => {
                    return Ok((html!("send-unknown-name", username = name), Keyboard::none()));
                }
                Holder::Reassigned => {
                    return Ok((html!("send-name-reassigned", username = name), Keyboard::none()));
                }
                Holder::Unverified => {
                    return Ok((html!("send-name-unverified-notice"), Keyboard::none()));
                }
                Holder::Verified { display_name } => display_name,
            },
        };
        let body = QuoteTransfer {
            id: TransferId::random(),
            from: user.id.into(),
            to,
            amount,
            asset,
            client_ref: Some(ClientRef { message, all }.to_string()),
        };
        let transfer = context.kms.quote(&body).await?;
        let network = context.network.of_chain(transfer.chain_id).await?;
        let text = screen::quote(&transfer, &network, display_name.as_deref());
        Ok((text, screen::quote_keyboard(&transfer)))
    };
    let (text, keyboard) = match quoted.await {
        Ok(shown) => shown,
        Err(error) => (problem(&error, context.network.cached().as_ref()), Keyboard::none()),
    };
    Ok(context.telegram.edit(user.id, message, &text, keyboard).await?)
}

/// Who holds a username.
pub(super) enum Holder {
    /// No account of this service.
    Unknown,
    /// The account that registered it no longer has it at Telegram.
    Reassigned,
    /// Telegram could not be asked.
    Unverified,
    /// The account that registered it, with its first name at Telegram.
    Verified { display_name: Option<String> },
}

/// Looks the holder up at the server, and verifies with Telegram that they still have the username:
/// they may have changed it without writing to the bot since, and another user may have it now.
pub(super) async fn holder(context: &Context, name: &Username) -> Result<Holder, ClientError> {
    let Some(record) = context.kms.name(name).await? else { return Ok(Holder::Unknown) };
    match context.telegram.profile(record.telegram_id).await {
        Ok((_, username)) if username.as_ref() != Some(name) => {
            let seen = SeenUsername { username, seen_at: clock::now() };
            context.kms.seen_username(record.telegram_id.into(), &seen).await?;
            context.usernames.forget(record.telegram_id);
            Ok(Holder::Reassigned)
        }
        Ok((display_name, _)) => Ok(Holder::Verified { display_name }),
        Err(error) => {
            tracing::warn!(%error, event = "username_check_failed", "username holder not verified");
            Ok(Holder::Unverified)
        }
    }
}
