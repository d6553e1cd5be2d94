//! The network of a payment whose sender named none: the one that has the money.

use async_trait::async_trait;
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
/// that does not see the others, so that no other network is used for it unasked. Nor is one where
/// a token is called as a coin is elsewhere.
pub(super) async fn pay(
    context: &Context,
    user: &User,
    to: TypedRecipient,
    amount: QuoteAmount,
    money: Money,
) -> HandlerResult {
    if let Some(network) = &money.on {
        return match money.asset_on(network) {
            Ok(asset) => quote::quote(context, user, to, amount, asset, network).await,
            Err(error) => refuse(context, user, &error).await,
        };
    }
    let networks = context.network.all().await?;
    let (assets, primary) = (Assets::of(&networks), networks.first());
    let symbol = money.symbol.as_deref().or(primary.map(|primary| primary.symbol.as_str()));
    // A token of the same symbol is of another issuer: it is never meant without its symbol.
    let is_meant = |asset: &Asset| money.symbol.is_some() || *asset == Asset::Native;
    let places = symbol.into_iter().flat_map(|symbol| assets.with(symbol));
    let places: Vec<_> = places.filter(|(_, asset)| is_meant(asset)).collect();
    let (first, asset) = match places.as_slice() {
        [] => return refuse(context, user, &assets.unknown(symbol.unwrap_or_default())).await,
        [(only, asset)] => {
            return quote::quote(context, user, to, amount, asset.clone(), only).await;
        }
        [(first, asset), ..] => (*first, asset.clone()),
    };
    // If none is known, the quote reports what is wrong.
    let balances = context.kms.balances(user.id.into()).await.ok();
    let known = |network: &Network| balances.as_ref().and_then(|it| it.on(network.chain_id));
    let sources: Vec<_> = places
        .iter()
        .filter_map(|(network, asset)| {
            Some(Source { network, asset, available: enough(known(network)?, asset, &amount)? })
        })
        .collect();
    let has_first = sources.iter().any(|source| source.network.chain_id == first.chain_id);
    if let Some(balances) = &balances
        && !has_first
    {
        unavailable(context, user, balances, &places).await?;
    }
    let is_primary = |it: &Network| primary.is_some_and(|first| first.chain_id == it.chain_id);
    let is_address = matches!(to, TypedRecipient::Named(Recipient::Address(_)));
    let coins = places.iter().filter(|(_, asset)| *asset == Asset::Native).count();
    let is_ambiguous = is_address || (1..places.len()).contains(&coins);
    match sources.as_slice() {
        [] => quote::quote(context, user, to, amount, asset, first).await,
        [only] if is_primary(only.network) || !is_ambiguous => {
            quote::quote(context, user, to, amount, only.asset.clone(), only.network).await
        }
        _ => {
            let places = places.iter().map(|(network, _)| (*network).clone()).collect();
            let symbol = symbol.unwrap_or_default().to_owned();
            ask(context, user, AskNetwork { to, amount, symbol, places }, &sources).await
        }
    }
}

/// A network where the wallet has enough of an asset.
struct Source<'a> {
    network: &'a Network,
    asset: &'a Asset,
    available: Units,
}

impl Source<'_> {
    fn available(&self) -> String {
        let token = match self.asset {
            Asset::Native => None,
            Asset::Token(symbol) => {
                self.network.tokens.iter().find(|token| token.symbol == *symbol)
            }
        };
        format::amount(self.available, token, self.network)
    }
}

/// What the wallet can spend of an asset on a network, if that is enough for an amount.
fn enough(balance: &Balance, asset: &Asset, amount: &QuoteAmount) -> Option<Units> {
    let Balance { wei, pending, tokens, .. } = balance;
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

/// Says on which of the networks it is not known what the wallet has.
async fn unavailable(
    context: &Context,
    user: &User,
    balances: &Balances,
    places: &[(&Network, Asset)],
) -> HandlerResult {
    let unknown = places.iter().filter(|(network, _)| balances.on(network.chain_id).is_none());
    let names: Vec<_> = unknown.map(|(network, _)| &network.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    context.send(user.id, html!("send-unavailable", networks = Html::list(names))).await
}

async fn ask(
    context: &Context,
    user: &User,
    step: AskNetwork,
    sources: &[Source<'_>],
) -> HandlerResult {
    let text = match sources {
        [only] => {
            let (short, network) = (&only.network.short_name, &only.network.name);
            let amount = only.available();
            html!("send-ask-other-network", amount = amount, network = network, short = short)
        }
        sources => {
            let shown = sources
                .iter()
                .map(|source| format!("{} ({})", source.network.short_name, source.available()));
            html!("send-ask-network", networks = Html::list(shown))
        }
    };
    context.expect(user.id, step);
    context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
    Ok(())
}

/// Waits for the network.
struct AskNetwork {
    to: TypedRecipient,
    amount: QuoteAmount,
    symbol: String,
    /// The networks that have the asset. On one without enough, the quote reports what is missing.
    places: Vec<Network>,
}

impl AskNetwork {
    /// Finds the network that an answer names: `base`, or `on base`.
    fn find(&self, text: &str) -> Result<&Network, InputError> {
        let text = text.trim();
        let name = match text.split_once(char::is_whitespace) {
            Some((on, name)) if on.eq_ignore_ascii_case(ON) => name.trim(),
            Some(_) | None => text,
        };
        Assets::of(&self.places).expect_network(name)
    }
}

#[async_trait]
impl Step for AskNetwork {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Public
    }

    fn wanted(&self) -> Html {
        let names = self.places.iter().map(|network| &network.short_name);
        html!("send-network-wanted", networks = Html::list(names))
    }

    fn resume(&self) -> String {
        let money = Money { symbol: Some(self.symbol.clone()), on: None };
        command(Some(&self.to), Some(self.amount.clone()), &money)
    }

    fn is_answer(&self, text: &str) -> bool {
        self.find(text).is_ok()
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let Answer { user, words, .. } = answer;
        let network = match self.find(words) {
            Ok(network) => network.clone(),
            Err(error) => return refuse(context, user, &error).await,
        };
        let money = Money { symbol: Some(self.symbol.clone()), on: Some(network) };
        pay(context, user, self.to.clone(), self.amount.clone(), money).await
    }
}
