//! The network of a payment whose sender named none: the one that has the money.

use async_trait::async_trait;
use kms_client::ClientError;
use kms_types::wire::{Balance, Balances, Network};
use kms_types::{Asset, QuoteAmount, Recipient, TypedRecipient, Units, Wei};

use super::{Money, command, quote, refuse};
use crate::assets::{Assets, ON};
use crate::chat::incoming::User;
use crate::context::{Answer, Context, HandlerResult, Secrecy, Step};
use crate::flows::cancel;
use crate::format;
use crate::input::InputError;
use crate::texts::{Html, html};

/// Quotes a payment on the network that its sender named. If the sender named none, and not only
/// the primary network has the money, on the only one that has it, or on the one that the sender
/// chooses. A person has the same address on all networks; an address may be one of an exchange
/// that does not see the others, so that no other network is used for it unasked.
pub(super) async fn pay(
    context: &Context,
    user: &User,
    to: TypedRecipient,
    amount: QuoteAmount,
    money: Money,
) -> HandlerResult {
    if money.on.is_some() {
        return quote::quote(context, user, to, amount, money).await;
    }
    let sources = sources(context, user, &amount, &money.asset).await?;
    let primary = context.network.get().await?.chain_id;
    let is_address = matches!(to, TypedRecipient::Named(Recipient::Address(_)));
    match sources.as_slice() {
        [] => quote::quote(context, user, to, amount, money).await,
        [only] if only.network.chain_id == primary || !is_address => {
            quote::quote(context, user, to, amount, only.money()).await
        }
        _ => ask(context, user, AskNetwork { to, amount, money, sources }).await,
    }
}

/// An asset with the symbol that the sender wrote, on a network where the wallet has enough of it.
#[derive(Clone)]
struct Source {
    network: Network,
    asset: Asset,
    available: Units,
}

impl Source {
    fn money(&self) -> Money {
        Money { asset: self.asset.clone(), on: Some(self.network.clone()) }
    }
}

/// The networks on which the wallet has enough of an asset. None if only one network has it, or if
/// the balances cannot be read: then the quote says what is wrong.
async fn sources(
    context: &Context,
    user: &User,
    amount: &QuoteAmount,
    asset: &Asset,
) -> Result<Vec<Source>, ClientError> {
    let networks = context.network.all().await?;
    let Some(primary) = networks.first() else { return Ok(Vec::new()) };
    let symbol = match asset {
        Asset::Native => primary.symbol.as_str(),
        Asset::Token(symbol) => symbol.as_str(),
    };
    let with_symbol = networks.iter().filter_map(|network| {
        let asset = Assets::on(network).find(symbol)?;
        Some((network, asset))
    });
    let with_symbol: Vec<_> = with_symbol.collect();
    if with_symbol.len() < 2 {
        return Ok(Vec::new());
    }
    let Ok(balances) = context.kms.balances(user.id.into()).await else { return Ok(Vec::new()) };
    let found = with_symbol.into_iter().filter_map(|(network, asset)| {
        let available = enough(&balances, network, &asset, amount)?;
        Some(Source { network: network.clone(), asset, available })
    });
    Ok(found.collect())
}

/// What the wallet can spend of an asset on a network, if that is enough for an amount.
fn enough(
    balances: &Balances,
    network: &Network,
    asset: &Asset,
    amount: &QuoteAmount,
) -> Option<Units> {
    let Balance { wei, pending, tokens, .. } = balances.on(network.chain_id)?;
    let (available, decimals) = match asset {
        Asset::Native => (wei.0.saturating_sub(pending.0), Wei::DECIMALS),
        Asset::Token(symbol) => {
            let held = tokens.iter().find(|held| held.token.symbol == *symbol)?;
            (held.units?.0.saturating_sub(held.pending.0), held.token.decimals)
        }
    };
    let is_enough = match amount {
        QuoteAmount::All => !available.is_zero(),
        QuoteAmount::Exactly(amount) => amount.to_units(decimals).ok()? <= available,
    };
    is_enough.then_some(Units(available))
}

async fn ask(context: &Context, user: &User, step: AskNetwork) -> HandlerResult {
    let shown = step.sources.iter().map(|Source { network, asset, available }| {
        let token = match asset {
            Asset::Native => None,
            Asset::Token(symbol) => network.tokens.iter().find(|token| token.symbol == *symbol),
        };
        format!("{} ({})", network.short_name, format::amount(*available, token, network))
    });
    let text = html!("send-ask-network", networks = Html::list(shown));
    context.expect(user.id, step);
    context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
    Ok(())
}

/// Waits for the network.
struct AskNetwork {
    to: TypedRecipient,
    amount: QuoteAmount,
    /// Without a network.
    money: Money,
    sources: Vec<Source>,
}

impl AskNetwork {
    /// Finds the network that an answer names.
    fn find(&self, text: &str) -> Result<&Source, InputError> {
        let word = network_word(text);
        let networks: Vec<_> = self.sources.iter().map(|source| source.network.clone()).collect();
        let assets = Assets::of(&networks);
        let named = assets.expect_network(word)?;
        let found = self.sources.iter().find(|source| source.network.chain_id == named.chain_id);
        found.ok_or_else(|| assets.unknown_network(word))
    }

    /// The same asset on a network that has not enough of it: the quote there says what is missing.
    async fn elsewhere(&self, context: &Context, text: &str) -> Result<Option<Money>, ClientError> {
        let networks = context.network.all().await?;
        let Ok(named) = Assets::of(&networks).expect_network(network_word(text)) else {
            return Ok(None);
        };
        let symbol = match (&self.money.asset, networks.first()) {
            (Asset::Token(symbol), _) => symbol.as_str(),
            (Asset::Native, Some(primary)) => primary.symbol.as_str(),
            (Asset::Native, None) => return Ok(None),
        };
        let asset = Assets::on(named).find(symbol);
        Ok(asset.map(|asset| Money { asset, on: Some(named.clone()) }))
    }
}

/// The name of a network in an answer: `base`, or `on base`.
fn network_word(text: &str) -> &str {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((on, name)) if on.eq_ignore_ascii_case(ON) => name.trim(),
        Some(_) | None => text,
    }
}

#[async_trait]
impl Step for AskNetwork {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Public
    }

    fn wanted(&self) -> Html {
        html!("send-network-wanted")
    }

    fn resume(&self) -> String {
        command(Some(&self.to), Some(self.amount.clone()), &self.money)
    }

    fn is_answer(&self, text: &str) -> bool {
        self.find(text).is_ok()
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let Answer { user, words, .. } = answer;
        let money = match self.find(words) {
            Ok(source) => source.money(),
            Err(error) => match self.elsewhere(context, words).await? {
                Some(money) => money,
                None => return refuse(context, user, &error).await,
            },
        };
        quote::quote(context, user, self.to.clone(), self.amount.clone(), money).await
    }
}
