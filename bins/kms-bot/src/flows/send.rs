//! `/send`: from recipient and amount, by the confirm screen and the password, to the end of the
//! payment. One message shows all of it.
//!
//! What is confirmed is what was shown: the button carries a fingerprint of it, and the
//! confirmation repeats it to the server. The server decides whose transfer it is.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::{Asset, QuoteAmount, Recipient, TelegramId, TypedAmount, TypedRecipient};
use teloxide_core::types::MessageId;

use self::arguments::SendArguments;
use self::button::SendButton;
use super::cancel;
use crate::assets::Assets;
use crate::chat::incoming::{Content, User};
use crate::chat::keyboard::CallbackButton;
use crate::context::{Answer, Context, HandlerError, HandlerResult, Secrecy, Step};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult,
};
use crate::input::InputError;
use crate::texts::{Html, Text, html, text};

mod arguments;
mod button;
mod confirm;
mod quote;
pub(crate) mod screen;
mod signing;
pub(crate) mod speed_up;
pub(crate) mod terms;

pub(crate) struct SendFlow;

impl Flow for SendFlow {
    fn word(&self) -> &'static str {
        button::WORD
    }

    fn description(&self) -> Text {
        text!("send-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        let arguments = SendArguments::parse(arguments.words, arguments.assets)?;
        Ok(Action::new(move |context, user| begin(context, user, arguments).boxed()))
    }

    fn pays_author(&self) -> bool {
        true
    }

    fn is_meant(&self, text: &str) -> bool {
        TypedRecipient::is_marked(text) || arguments::are_meant(text.split_whitespace())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        Ok(Box::new(data.parse::<SendButton>()?))
    }
}

#[async_trait]
impl Button for SendButton {
    fn data(&self) -> String {
        self.to_string()
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        context.take_payment_to(user.id, self.transfer(), message).await?;
        match *self {
            Self::Confirm { transfer, fingerprint } => {
                confirm::ask_password(context, user, message, transfer, fingerprint, false).await
            }
            Self::ConfirmReassigned { transfer, fingerprint } => {
                confirm::ask_password(context, user, message, transfer, fingerprint, true).await
            }
            Self::Cancel(transfer) => confirm::cancel(context, user, message, transfer).await,
            Self::Renew(transfer) => confirm::renew(context, user, message, transfer).await,
            Self::SpeedUp(transfer) => {
                speed_up::ask_password(context, user, message, transfer).await
            }
            Self::Check(transfer) => confirm::check(context, user, message, transfer).await,
        }
    }
}

/// The button that runs `/send`.
pub(crate) fn open_button() -> CallbackButton {
    (text!("send-button"), button::WORD.to_owned())
}

/// Quotes the payment, or asks for what is missing.
async fn begin(context: &Context, user: &User, arguments: SendArguments) -> HandlerResult {
    if context.account(user).await?.is_none() {
        return Ok(());
    }
    let SendArguments { to, amount, asset } = arguments;
    let asset = asset.unwrap_or_default();
    match (to, amount) {
        (Some(to), Some(amount)) => quote::quote(context, user, to, amount, asset).await,
        (Some(to), None) => ask_amount(context, user, to, asset).await,
        (None, amount) => {
            context.expect(user.id, AskRecipient { amount, asset });
            let text = html!("send-ask-recipient");
            context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
            Ok(())
        }
    }
}

/// The command that asks for what is missing of a payment.
fn command(to: Option<&TypedRecipient>, amount: Option<QuoteAmount>, asset: &Asset) -> String {
    let to = to.map(|to| match to {
        TypedRecipient::Named(recipient) => recipient.to_string(),
        TypedRecipient::User(id) => format!("tg://user?id={id}"),
    });
    let symbol = match asset {
        Asset::Native => None,
        Asset::Token(symbol) => Some(symbol.to_string()),
    };
    let words = [Some(format!("/{}", button::WORD)), to, amount.map(String::from), symbol];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Waits for the recipient.
struct AskRecipient {
    amount: Option<QuoteAmount>,
    asset: Asset,
}

#[async_trait]
impl Step for AskRecipient {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Public
    }

    fn wanted(&self) -> Html {
        html!("send-ask-recipient")
    }

    fn resume(&self) -> String {
        command(None, self.amount.clone(), &self.asset)
    }

    fn is_answer(&self, text: &str) -> bool {
        SendFlow.is_meant(text)
    }

    /// A shared contact, or a forwarded address, names the recipient too.
    async fn receive(
        &self,
        context: &Context,
        user: &User,
        content: &Content,
    ) -> Result<bool, HandlerError> {
        match content {
            Content::Contact { user: Some(id), .. } => {
                self.pay(context, user, TypedRecipient::User(*id)).await?;
            }
            Content::Contact { user: None, .. } => {
                let text = html!("send-contact-unknown");
                context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
            }
            Content::Forward { text, author } => {
                match self.read_forward(context, text, *author).await {
                    Ok(to) => self.pay(context, user, to).await?,
                    Err(error) => refuse(context, user, &error).await?,
                }
            }
            Content::Edit(_)
            | Content::Picture
            | Content::Video
            | Content::File
            | Content::Voice
            | Content::Sticker
            | Content::Place
            | Content::Poll
            | Content::Notice
            | Content::Other => return Ok(false),
        }
        Ok(true)
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let Answer { user, words, .. } = answer;
        let network = context.network.get().await?;
        if let Some((to, amount, asset)) = with_amount(words, Assets::of(Some(&network))) {
            let asset = asset.unwrap_or_else(|| self.asset.clone());
            return quote::quote(context, user, to, amount, asset).await;
        }
        match self.read(context, words).await {
            Ok(to) => self.pay(context, user, to).await,
            Err(error) => refuse(context, user, &error).await,
        }
    }
}

/// Reads an answer of several words that names both a recipient and an amount.
fn with_amount(
    words: &str,
    assets: Assets<'_>,
) -> Option<(TypedRecipient, QuoteAmount, Option<Asset>)> {
    let words = words.split_whitespace();
    words.clone().find(|word| TypedRecipient::is_marked(word))?;
    let SendArguments { to, amount, asset } = SendArguments::parse(words, assets).ok()?;
    Some((to?, amount?, asset))
}

impl AskRecipient {
    /// Reads a recipient. A bare word is refused: it may be anything.
    async fn read(&self, context: &Context, text: &str) -> Result<TypedRecipient, InputError> {
        if !TypedRecipient::is_meant(text) {
            return Err(InputError::UnmarkedRecipient);
        }
        let chain_id = context.network.get().await.ok().map(|network| network.chain_id);
        Ok(TypedRecipient::parse(text, chain_id)?)
    }

    /// Reads a forwarded message: the one recipient that its text names, or, if it names none, its
    /// author.
    async fn read_forward(
        &self,
        context: &Context,
        text: &str,
        author: Option<TelegramId>,
    ) -> Result<TypedRecipient, InputError> {
        let mut named = text.split_whitespace().filter(|word| TypedRecipient::is_meant(word));
        match (named.next(), named.next(), author) {
            (None, _, Some(author)) => Ok(TypedRecipient::User(author)),
            (Some(one), None, _) => self.read(context, one).await,
            (None, _, None) | (Some(_), Some(_), _) => self.read(context, text).await,
        }
    }

    async fn pay(&self, context: &Context, user: &User, to: TypedRecipient) -> HandlerResult {
        match self.amount.clone() {
            None => ask_amount(context, user, to, self.asset.clone()).await,
            Some(amount) => quote::quote(context, user, to, amount, self.asset.clone()).await,
        }
    }
}

async fn ask_amount(
    context: &Context,
    user: &User,
    to: TypedRecipient,
    asset: Asset,
) -> HandlerResult {
    let network = context.network.get().await?;
    let symbol = match &asset {
        Asset::Native => network.symbol.as_str(),
        Asset::Token(symbol) => symbol.as_str(),
    };
    let examples = match (&asset, network.tokens.first()) {
        (Asset::Native, Some(token)) => {
            html!("send-amount-examples-token", symbol = &token.symbol)
        }
        (Asset::Native, None) | (Asset::Token(_), _) => html!("send-amount-examples"),
    };
    let recipient = match &to {
        TypedRecipient::Named(recipient @ Recipient::Username(_)) => {
            html!("transfer-username", username = recipient)
        }
        TypedRecipient::Named(recipient @ Recipient::Address(_)) => {
            html!("transfer-address", address = recipient)
        }
        TypedRecipient::User(id) => quote::person(context, *id).await,
    };
    let text =
        html!("send-ask-amount", symbol = symbol, recipient = recipient, examples = examples);
    context.expect(user.id, AskAmount { to, asset });
    context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
    Ok(())
}

/// Waits for the amount.
struct AskAmount {
    to: TypedRecipient,
    /// The asset if the answer does not name one.
    asset: Asset,
}

#[async_trait]
impl Step for AskAmount {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Public
    }

    fn wanted(&self) -> Html {
        html!("input-amount-empty")
    }

    fn resume(&self) -> String {
        command(Some(&self.to), None, &self.asset)
    }

    fn is_answer(&self, text: &str) -> bool {
        TypedAmount::is_meant(text.trim())
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let Answer { user, words, .. } = answer;
        let mut parsed = Assets::of(Some(&context.network.get().await?)).parse_amount(words);
        if parsed.is_err() {
            // It may name a token that is new.
            let network = context.network.get_recent().await?;
            parsed = Assets::of(Some(&network)).parse_amount(words);
        }
        match parsed {
            Err(error) => refuse(context, user, &error).await,
            Ok((amount, asset)) => {
                let asset = asset.unwrap_or_else(|| self.asset.clone());
                quote::quote(context, user, self.to.clone(), amount, asset).await
            }
        }
    }
}

async fn refuse(context: &Context, user: &User, error: &InputError) -> HandlerResult {
    context.telegram.send(user.id, &error.message(), cancel::keyboard(context, user.id)).await?;
    Ok(())
}
