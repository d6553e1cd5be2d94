//! `/send`: from recipient and amount, by the confirm screen and the password, to the end of the
//! payment. One message shows all of it.
//!
//! What is confirmed is what was shown: the button carries a fingerprint of it, and the
//! confirmation repeats it to the server. The server decides whose transfer it is.

use async_trait::async_trait;
use futures::FutureExt;
use kms_client::ClientError;
use kms_types::wire::Network;
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
mod choose;
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
    let SendArguments { to, amount, asset, on } = arguments;
    let money = Money { asset: asset.unwrap_or_default(), on };
    match (to, amount) {
        (Some(to), Some(amount)) => choose::pay(context, user, to, amount, money).await,
        (Some(to), None) => ask_amount(context, user, to, money).await,
        (None, amount) => {
            context.expect(user.id, AskRecipient { amount, money });
            let text = html!("send-ask-recipient");
            context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
            Ok(())
        }
    }
}

/// What is sent.
#[derive(Clone, Debug)]
struct Money {
    asset: Asset,
    /// The network that the sender named.
    on: Option<Network>,
}

impl Money {
    /// The network that it is on: the primary one, unless another one is named.
    async fn network(&self, context: &Context) -> Result<Network, ClientError> {
        match &self.on {
            Some(network) => Ok(network.clone()),
            None => context.network.get().await,
        }
    }

    /// The networks whose assets the sender can name next: the named one, or all of them.
    async fn networks(&self, context: &Context) -> Result<Vec<Network>, ClientError> {
        match &self.on {
            Some(network) => Ok(vec![network.clone()]),
            None => context.network.all().await,
        }
    }

    /// The same, unless the sender has named another asset or network since.
    fn or(&self, asset: Option<Asset>, on: Option<Network>) -> Self {
        let asset = asset.unwrap_or_else(|| self.asset.clone());
        Self { asset, on: on.or_else(|| self.on.clone()) }
    }
}

/// The command that asks for what is missing of a payment.
fn command(to: Option<&TypedRecipient>, amount: Option<QuoteAmount>, money: &Money) -> String {
    let Money { asset, on } = money;
    let to = to.map(|to| match to {
        TypedRecipient::Named(recipient) => recipient.to_string(),
        TypedRecipient::User(id) => format!("tg://user?id={id}"),
    });
    let symbol = match asset {
        Asset::Native => None,
        Asset::Token(symbol) => Some(symbol.to_string()),
    };
    let on = on.as_ref().map(|network| format!("on {}", network.short_name));
    let words = [Some(format!("/{}", button::WORD)), to, amount.map(String::from), symbol, on];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Waits for the recipient.
struct AskRecipient {
    amount: Option<QuoteAmount>,
    money: Money,
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
        command(None, self.amount.clone(), &self.money)
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
        let networks = self.money.networks(context).await?;
        if let Some((to, amount, money)) = self.with_amount(words, Assets::of(&networks)) {
            return choose::pay(context, user, to, amount, money).await;
        }
        match self.read(context, words).await {
            Ok(to) => self.pay(context, user, to).await,
            Err(error) => refuse(context, user, &error).await,
        }
    }
}

impl AskRecipient {
    /// Reads an answer of several words that names both a recipient and an amount.
    fn with_amount(
        &self,
        words: &str,
        assets: Assets<'_>,
    ) -> Option<(TypedRecipient, QuoteAmount, Money)> {
        let words = words.split_whitespace();
        words.clone().find(|word| TypedRecipient::is_marked(word))?;
        let SendArguments { to, amount, asset, on } = SendArguments::parse(words, assets).ok()?;
        // Coins that were asked for before are not exchanged for those of another network.
        let is_other_coin = |named: &Network| assets.find(&named.symbol) != Some(Asset::Native);
        let is_native = asset.is_none() && self.money.asset == Asset::Native;
        if is_native && on.as_ref().is_some_and(is_other_coin) {
            return None;
        }
        Some((to?, amount?, self.money.or(asset, on)))
    }

    /// Reads a recipient. A bare word is refused: it may be anything.
    async fn read(&self, context: &Context, text: &str) -> Result<TypedRecipient, InputError> {
        if !TypedRecipient::is_meant(text) {
            return Err(InputError::UnmarkedRecipient);
        }
        let chain_id = self.money.network(context).await.ok().map(|network| network.chain_id);
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
            None => ask_amount(context, user, to, self.money.clone()).await,
            Some(amount) => choose::pay(context, user, to, amount, self.money.clone()).await,
        }
    }
}

async fn ask_amount(
    context: &Context,
    user: &User,
    to: TypedRecipient,
    money: Money,
) -> HandlerResult {
    let network = money.network(context).await?;
    let symbol = match &money.asset {
        Asset::Native => network.symbol.as_str(),
        Asset::Token(symbol) => symbol.as_str(),
    };
    let examples = match (&money.asset, network.tokens.first()) {
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
    context.expect(user.id, AskAmount { to, money });
    context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
    Ok(())
}

/// Waits for the amount.
struct AskAmount {
    to: TypedRecipient,
    /// What is sent if the answer does not name another asset.
    money: Money,
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
        command(Some(&self.to), None, &self.money)
    }

    fn is_answer(&self, text: &str) -> bool {
        TypedAmount::is_meant(text.trim())
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let Answer { user, words, .. } = answer;
        let network = self.money.network(context).await?;
        let mut parsed = Assets::on(&network).parse_amount(words);
        if parsed.is_err() {
            // It may name a token that is new.
            let recent = context.network.all_recent().await?;
            let known = recent.iter().find(|recent| recent.chain_id == network.chain_id);
            parsed = Assets::on(known.unwrap_or(&network)).parse_amount(words);
        }
        match parsed {
            Err(error) => refuse(context, user, &error).await,
            Ok((amount, asset)) => {
                let money = self.money.or(asset, None);
                choose::pay(context, user, self.to.clone(), amount, money).await
            }
        }
    }
}

async fn refuse(context: &Context, user: &User, error: &InputError) -> HandlerResult {
    context.telegram.send(user.id, &error.message(), cancel::keyboard(context, user.id)).await?;
    Ok(())
}
