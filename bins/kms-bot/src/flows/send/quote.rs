//! Quotes a payment, and verifies who holds the recipient's username.

use kms_client::ClientError;
use kms_types::wire::{Account, Network, QuoteTransfer};
use kms_types::{Asset, QuoteAmount, Recipient, TelegramId, TransferId, TypedRecipient, Username};
use teloxide_core::types::MessageId;

use super::screen;
use super::signing::expect_on_page;
use super::terms::ClientRef;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::chat::telegram::Profile;
use crate::context::{Context, HandlerResult};
use crate::format;
use crate::page::Place;
use crate::problems::problem;
use crate::texts::{Html, html};

/// Quotes a payment in a new message.
pub(super) async fn quote(
    context: &Context,
    user: &User,
    to: TypedRecipient,
    amount: QuoteAmount,
    asset: Asset,
    network: &Network,
) -> HandlerResult {
    context.end_step(user.id);
    let text = html!("send-looking-up");
    let message = context.working(user.id, &text, String::new()).await?;
    quote_in(context, user, message, to, amount, asset, network.chain_id).await
}

/// Quotes a payment in a message that exists. The transfer refers to the message.
pub(super) async fn quote_in(
    context: &Context,
    user: &User,
    message: MessageId,
    to: TypedRecipient,
    amount: QuoteAmount,
    asset: Asset,
    chain_id: u64,
) -> HandlerResult {
    let all = amount == QuoteAmount::All;
    let quoted = async {
        let Payee { to, person, display_name } = match payee(context, to).await? {
            Ok(payee) => payee,
            Err(refusal) => return Ok((refusal, Keyboard::none())),
        };
        let body = QuoteTransfer {
            chain_id: Some(chain_id),
            id: TransferId::random(),
            from: user.id.into(),
            to,
            amount,
            asset,
            client_ref: Some(ClientRef { message, all, person }.to_string()),
        };
        let transfer = context.kms.quote(&body).await?;
        let network = context.network.of_chain(transfer.chain_id).await?;
        let text = screen::quote(&transfer, &network, display_name.as_deref());
        let place = Place::of(context, user.id).await?;
        expect_on_page(context, user, message, transfer.id, &place);
        Ok((text, screen::quote_keyboard(&transfer, &place)))
    };
    let (text, keyboard) = match quoted.await {
        Ok(shown) => shown,
        Err(error) => {
            context.network.correct(&error).await;
            let network = context.network.of_chain(chain_id).await.ok();
            (problem(&error, network.as_ref()), Keyboard::none())
        }
    };
    Ok(context.telegram.edit(user.id, message, &text, keyboard).await?)
}

/// Who is paid.
struct Payee {
    to: Recipient,
    /// The person, if the sender named a person rather than a username or an address.
    person: Option<TelegramId>,
    display_name: Option<String>,
}

/// Finds out who is paid, or why the payment has no recipient.
async fn payee(context: &Context, to: TypedRecipient) -> Result<Result<Payee, Html>, ClientError> {
    let to = match to {
        TypedRecipient::User(id) => {
            let account = context.kms.account(id.into()).await?;
            let display_name = display_name(context, id).await;
            return Ok(match account {
                Some(Account { address, .. }) => {
                    Ok(Payee { to: Recipient::Address(address), person: Some(id), display_name })
                }
                None => Err(html!("send-unknown-person", person = named(display_name.as_deref()))),
            });
        }
        TypedRecipient::Named(to) => to,
    };
    let Recipient::Username(name) = &to else {
        return Ok(Ok(Payee { to, person: None, display_name: None }));
    };
    Ok(match holder(context, name).await? {
        Holder::Verified { display_name } => Ok(Payee { to, person: None, display_name }),
        Holder::Unknown => Err(html!("send-unknown-name", username = name)),
        Holder::Reassigned => Err(html!("send-name-reassigned", username = name)),
        Holder::Unverified => Err(html!("send-name-unverified-notice")),
    })
}

/// A person without a username, by the name that they have at Telegram.
pub(super) async fn person(context: &Context, id: TelegramId) -> Html {
    named(display_name(context, id).await.as_deref())
}

fn named(display_name: Option<&str>) -> Html {
    match display_name {
        Some(name) => html!("send-person", name = format::name(name)),
        None => html!("send-person-unknown"),
    }
}

/// A person's first name at Telegram, if the person ever wrote to the bot.
pub(super) async fn display_name(context: &Context, id: TelegramId) -> Option<String> {
    context.telegram.profile(id).await.ok().and_then(|profile| profile.first_name)
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
        Ok(Profile { first_name, usernames }) if usernames.contains(name) => {
            Ok(Holder::Verified { display_name: first_name })
        }
        Ok(Profile { usernames, .. }) => {
            context.usernames.correct(record.telegram_id, usernames).await;
            Ok(Holder::Reassigned)
        }
        Err(error) => {
            tracing::warn!(%error, event = "username_check_failed", "username holder not verified");
            Ok(Holder::Unverified)
        }
    }
}
