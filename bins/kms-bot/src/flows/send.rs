//! `/send`: from recipient and amount, by the confirm screen and the password, to the end of the
//! payment. One message shows all of it.
//!
//! What is confirmed is what was shown: the button carries a fingerprint of it, and the
//! confirmation repeats it to the server. The server decides whose transfer it is.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::wire::Network;
use kms_types::{Asset, QuoteAmount, Recipient, TelegramId, TypedAmount, TypedRecipient};
use teloxide_core::types::MessageId;

use self::arguments::SendArguments;
use self::button::SendButton;
use super::cancel;
use crate::assets::{Assets, asset_on};
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
    proceed(context, user, arguments).await
}

async fn proceed(context: &Context, user: &User, arguments: SendArguments) -> HandlerResult {
    let SendArguments { to, amount, money } = arguments;
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

/// What is sent, as far as the sender named it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Money {
    /// The symbol; without one, the coin of the network.
    symbol: Option<String>,
    on: Option<Network>,
}

impl Money {
    /// The asset on a network.
    fn asset_on(&self, network: &Network) -> Result<Asset, InputError> {
        let Some(symbol) = &self.symbol else { return Ok(Asset::Native) };
        asset_on(network, symbol).ok_or_else(|| Assets::on(network).unknown(symbol))
    }

    /// The same on another network that is named, or that an address is marked for, if it can be
    /// there.
    fn also_on(self, other: Option<Network>) -> Result<Self, InputError> {
        let on = match (self.on, other) {
            (Some(one), Some(other)) if one.chain_id != other.chain_id => {
                let (one, other) = (one.name, other.name);
                return Err(InputError::TwoNetworks { one, other });
            }
            (on, other) => on.or(other),
        };
        let money = Self { on, ..self };
        if let Some(network) = &money.on {
            money.asset_on(network)?;
        }
        Ok(money)
    }

    /// The same with what the sender has named since.
    fn and(self, since: Self) -> Result<Self, InputError> {
        let Self { symbol, on } = since;
        Self { symbol: symbol.or(self.symbol), on: self.on }.also_on(on)
    }
}

/// The command that asks for what is missing of a payment.
fn command(to: Option<&TypedRecipient>, amount: Option<QuoteAmount>, money: &Money) -> String {
    let Money { symbol, on } = money;
    let to = to.map(|to| match to {
        TypedRecipient::Named(recipient) => recipient.to_string(),
        TypedRecipient::User(id) => format!("tg://user?id={id}"),
    });
    let on = on.as_ref().map(|network| format!("on {}", network.short_name));
    let (word, amount) = (Some(format!("/{}", button::WORD)), amount.map(String::from));
    let words = [word, to, amount, symbol.clone(), on];
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
                let payment = self.to(TypedRecipient::User(*id), self.money.clone());
                proceed(context, user, payment).await?;
            }
            Content::Contact { user: None, .. } => {
                let text = html!("send-contact-unknown");
                context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
            }
            Content::Forward { text, author } => {
                let networks = context.network.all().await?;
                match self.read_forward(text, *author, Assets::of(&networks)) {
                    Ok(payment) => proceed(context, user, payment).await?,
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
        let networks = context.network.all().await?;
        match self.read(words, Assets::of(&networks)) {
            Ok(payment) => proceed(context, user, payment).await,
            Err(error) => refuse(context, user, &error).await,
        }
    }
}

impl AskRecipient {
    fn to(&self, to: TypedRecipient, money: Money) -> SendArguments {
        SendArguments { to: Some(to), amount: self.amount.clone(), money }
    }

    /// Reads a recipient, perhaps with the amount, the symbol and the network beside it. A bare
    /// word is refused: it may be anything.
    fn read(&self, text: &str, assets: Assets<'_>) -> Result<SendArguments, InputError> {
        let words = text.split_whitespace();
        if !words.clone().any(TypedRecipient::is_marked) {
            return self.read_recipient(text, assets);
        }
        match SendArguments::parse(words, assets) {
            Ok(SendArguments { to: Some(to), amount, money }) => {
                let money = self.money.clone().and(money)?;
                let amount = amount.or(self.amount.clone());
                return Ok(SendArguments { amount, ..self.to(to, money) });
            }
            Err(
                error @ (InputError::UnknownNetwork { .. }
                | InputError::TwoNetworks { .. }
                | InputError::UnknownAsset { .. }),
            ) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        self.read_recipient(text, assets)
    }

    fn read_recipient(&self, text: &str, assets: Assets<'_>) -> Result<SendArguments, InputError> {
        if !TypedRecipient::is_meant(text) {
            return Err(InputError::UnmarkedRecipient);
        }
        let (to, marked) = arguments::recipient(text, assets)?;
        Ok(self.to(to, self.money.clone().also_on(marked.cloned())?))
    }

    /// Reads a forwarded message: the one recipient that its text names, or, if it names none, its
    /// author.
    fn read_forward(
        &self,
        text: &str,
        author: Option<TelegramId>,
        assets: Assets<'_>,
    ) -> Result<SendArguments, InputError> {
        let mut named = text.split_whitespace().filter(|word| TypedRecipient::is_meant(word));
        match (named.next(), named.next(), author) {
            (None, _, Some(author)) => {
                Ok(self.to(TypedRecipient::User(author), self.money.clone()))
            }
            (Some(one), None, _) => self.read_recipient(one, assets),
            (None, _, None) | (Some(_), Some(_), _) => self.read_recipient(text, assets),
        }
    }
}

async fn ask_amount(
    context: &Context,
    user: &User,
    to: TypedRecipient,
    mut money: Money,
) -> HandlerResult {
    let networks = context.network.all().await?;
    let with_symbol = money.symbol.as_deref().and_then(|symbol| {
        let (network, _) = Assets::of(&networks).with(symbol).next()?;
        Some(network)
    });
    let Some(network) = money.on.as_ref().or(with_symbol).or(networks.first()) else {
        return refuse(context, user, &InputError::UnknownNetworks).await;
    };
    // The answer is of what the question names.
    let symbol = money.symbol.get_or_insert_with(|| network.symbol.clone());
    let examples = match network.tokens.first() {
        Some(token) if symbol.eq_ignore_ascii_case(&network.symbol) => {
            html!("send-amount-examples-token", symbol = &token.symbol)
        }
        Some(_) | None => html!("send-amount-examples"),
    };
    let symbol = match (&money.on, networks.len()) {
        (Some(on), 2..) => html!("amount-on", amount = symbol, network = &on.name),
        (Some(_) | None, _) => html!("amount", amount = symbol),
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
        let mut read = self.read(words, Assets::of(&context.network.all().await?));
        if read.is_err() {
            // It may name a token or a network that is new.
            read = self.read(words, Assets::of(&context.network.all_recent().await?));
        }
        match read {
            Err(error) => refuse(context, user, &error).await,
            Ok((amount, money)) => choose::pay(context, user, self.to.clone(), amount, money).await,
        }
    }
}

impl AskAmount {
    /// Reads an amount, perhaps with another symbol or a network beside it.
    fn read(&self, text: &str, assets: Assets<'_>) -> Result<(QuoteAmount, Money), InputError> {
        let (words, on) = assets.take_network(text.split_whitespace())?;
        let assets = on.or(self.money.on.as_ref()).map_or(assets, Assets::on);
        let (amount, symbol) = assets.parse_amount(words.into_iter())?;
        let since = Money { symbol: symbol.map(str::to_owned), on: on.cloned() };
        Ok((amount, self.money.clone().and(since)?))
    }
}

async fn refuse(context: &Context, user: &User, error: &InputError) -> HandlerResult {
    context.telegram.send(user.id, &error.message(), cancel::keyboard(context, user.id)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::network;

    #[test]
    fn an_answer_never_replaces_a_network_that_was_named() {
        let networks = [
            network(1, "Ethereum", "ETH", &["USDC"]),
            network(8_453, "Base", "ETH", &["USDC"]),
            network(137, "Polygon", "POL", &["USDC"]),
        ];
        let assets = Assets::of(&networks);
        let usdc = |on: &Network| Money { symbol: Some("USDC".to_owned()), on: Some(on.clone()) };
        let [ethereum, base, polygon] = &networks;
        let address = "0x1486F47822927e3F2321E0bE433247dDADAf8F8C";
        let recipient = |text: &str| {
            let read = AskRecipient { amount: None, money: usdc(polygon) }.read(text, assets)?;
            Ok(read.money.on)
        };
        for text in
            [format!("base:{address}"), format!("base:{address} 5"), "@bob on base".to_owned()]
        {
            let refused = recipient(&text);
            assert!(matches!(refused, Err(InputError::TwoNetworks { .. })), "{text}: {refused:?}");
        }
        assert_eq!(recipient("@bob on polygon"), Ok(Some(polygon.clone())));
        assert_eq!(recipient("@bob"), Ok(Some(polygon.clone())));

        let to = || TypedRecipient::Named("@bob".parse().unwrap());
        let amount = |text: &str| {
            let (_, money) = AskAmount { to: to(), money: usdc(base) }.read(text, assets)?;
            Ok(money.on)
        };
        let refused = amount("5 on ethereum");
        assert!(matches!(refused, Err(InputError::TwoNetworks { .. })), "{refused:?}");
        assert_eq!(amount("5 on base"), Ok(Some(base.clone())));
        let unnamed = AskAmount { to: to(), money: Money::default() };
        assert_eq!(unnamed.read("5 on ethereum", assets).unwrap().1.on, Some(ethereum.clone()));
    }
}
