//! `/limit`: how much the wallet may spend in 24 hours.

use futures::FutureExt;
use kms_types::wire::{LaterLimit, LimitAmount, Network, SetLimit, SpendingLimit, SpendingLimits};
use kms_types::{
    AmountError, Asset, ErrorCode, EventKind, Purpose, QuoteAmount, SecurityEvent, Token,
    TypedAmount, Units, Wei,
};

use super::freeze;
use crate::assets::Assets;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Context, HandlerError, HandlerResult};
use crate::flow::{Action, Arguments, ArgumentsError, Flow};
use crate::format::{amount, at_most, symbol, time};
use crate::input::InputError;
use crate::page::{OnPage, PageLink};
use crate::texts::{Html, Text, html, text};

const WORD: &str = "limit";

pub(crate) struct LimitFlow;

impl Flow for LimitFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("limit-description")
    }

    /// `/limit`, `/limit 5`, `/limit 5 USDC`, `/limit none`, `/limit none USDC`, each with `on` and
    /// a network, if there are several.
    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        Ok(match parse(arguments)? {
            None => Action::new(|context, user| show(context, user).boxed()),
            Some(limit) => Action::new(move |context, user| set(context, user, limit).boxed()),
        })
    }
}

fn parse(arguments: Arguments<'_>) -> Result<Option<SetLimit>, InputError> {
    let (words, on) = arguments.assets.take_network(arguments.words)?;
    let (assets, mut words) = (on.map_or(arguments.assets, Assets::on), words.into_iter());
    let Some(word) = words.next() else { return Ok(None) };
    let (amount, joined) = match LimitAmount::try_from(word.to_lowercase()) {
        Ok(LimitAmount::NoLimit) => (LimitAmount::NoLimit, None),
        Err(_) if !TypedAmount::is_meant(word) => return Err(InputError::LimitWords),
        Ok(LimitAmount::AtMost(_)) | Err(_) => match word.parse()? {
            TypedAmount { amount: QuoteAmount::Exactly(amount), symbol } => {
                (LimitAmount::AtMost(amount), symbol)
            }
            TypedAmount { amount: QuoteAmount::All, .. } => return Err(InputError::LimitWords),
        },
    };
    let mut words = words.peekable();
    let is_split = |word: &&str| TypedAmount::is_meant(word) && assets.find(word).is_none();
    if words.peek().is_some_and(is_split) {
        return Err(AmountError::Separator.into());
    }
    let symbol = joined.as_deref().or_else(|| words.next());
    let (asset, chain_id) = match symbol {
        Some(symbol) => asset(symbol, assets)?,
        None => (Asset::Native, on.map(|network| network.chain_id)),
    };
    match words.next() {
        Some(_) => Err(InputError::LimitWords),
        None => Ok(Some(SetLimit { asset, chain_id, amount })),
    }
}

/// The asset with a symbol, and its chain: the primary one, unless only another one has it.
fn asset(word: &str, assets: Assets<'_>) -> Result<(Asset, Option<u64>), InputError> {
    let symbol = assets.expect(word)?;
    let primary = assets.networks().first().map(|primary| primary.chain_id);
    let found: Vec<_> = assets.with(symbol).collect();
    match found.as_slice() {
        // Until the networks are known.
        [] => Ok((Asset::Native, None)),
        [(network, asset), others @ ..] => {
            if others.is_empty() || Some(network.chain_id) == primary {
                return Ok((asset.clone(), Some(network.chain_id)));
            }
            let networks = found.iter().map(|(network, _)| network.short_name.clone()).collect();
            Err(InputError::NetworkNeeded { symbol: symbol.to_owned(), networks })
        }
    }
}

async fn show(context: &Context, user: &User) -> HandlerResult {
    if context.account(user).await?.is_none() {
        return Ok(());
    }
    let limits = context.kms.limits(user.id.into()).await?;
    let parts = message(context, &limits).await?;
    context.send_paragraphs(user.id, parts, Keyboard::none()).await
}

/// Sets a limit. A lower one applies at once, a higher one after 24 hours.
async fn set(context: &Context, user: &User, limit: SetLimit) -> HandlerResult {
    if context.account(user).await?.is_none() {
        return Ok(());
    }
    let primary = context.network.get().await?.chain_id;
    let limit = SetLimit { chain_id: limit.chain_id.or(Some(primary)), ..limit };
    let limits = match context.kms.set_limit(user.id.into(), &limit).await {
        Err(error) if error.code() == Some(ErrorCode::PageRequired) => {
            let step = OnPage { purpose: Purpose::Lift, resume: WORD.to_owned(), message: None };
            let link = PageLink::configured(context).await?;
            return link.ask(context, user, None, &html!("limit-on-page"), step).await;
        }
        limits => limits?,
    };
    let parts = message(context, &limits).await?;
    if limits.limits.iter().all(|limit| limit.later.is_none()) {
        return context.send_paragraphs(user.id, parts, Keyboard::none()).await;
    }
    context.send_paragraphs(user.id, parts, freeze::ask_keyboard()).await?;
    let event = EventKind::Security(SecurityEvent::LimitRaiseRequested);
    context.record_answered(user.id, event);
    Ok(())
}

async fn message(context: &Context, limits: &SpendingLimits) -> Result<Vec<Html>, HandlerError> {
    let mut parts = vec![html!("limit-title")];
    let networks = context.network.all().await?;
    let mut named = None;
    for limit in &limits.limits {
        let network = context.network.of_chain(limit.chain_id).await?;
        if networks.len() > 1 && named != Some(limit.chain_id) {
            named = Some(limit.chain_id);
            parts.push(html!("limit-network", network = &network.name));
        }
        parts.push(entry(limit, &network, networks.len() > 1));
    }
    parts.push(html!("limit-help"));
    // The first is the primary one.
    if let [primary, other, ..] = networks.as_slice() {
        let (primary, other) = (&primary.name, &other.short_name);
        parts.push(html!("limit-help-network", primary = primary, network = other));
    }
    Ok(parts)
}

fn entry(limit: &SpendingLimit, network: &Network, is_one_of_several: bool) -> Html {
    let SpendingLimit { token, limit, spent, own, later, .. } = limit;
    let token = token.as_ref();
    let now = match limit {
        None => limited(*limit, token, network),
        Some(_) => {
            let spent = match token {
                None => at_most(Wei(spent.0), network),
                Some(_) => amount(*spent, token, network),
            };
            html!("limit-spent", limit = limited(*limit, token, network), spent = spent)
        }
    };
    let later = match later {
        None => Html::default(),
        Some(LaterLimit { units, from }) => {
            let on = match is_one_of_several {
                true => format!(" on {}", network.short_name),
                false => String::new(),
            };
            let now = match own {
                Some(own) => amount(*own, token, network),
                None => format!("none {}", symbol(token, network)),
            };
            let command = format!("/{WORD} {now}{on}");
            let limit = limited(*units, token, network);
            html!("limit-later", time = time(*from), limit = limit, command = command)
        }
    };
    Html::lines([now, later])
}

fn limited(limit: Option<Units>, token: Option<&Token>, network: &Network) -> Html {
    match limit {
        Some(units) => html!("limit-amount", amount = amount(units, token, network)),
        None => html!("limit-none", symbol = symbol(token, network)),
    }
}

#[cfg(test)]
mod tests {
    use kms_types::{Timestamp, U256};

    use super::*;
    use crate::assets::network;

    fn parsed(words: &str) -> Result<Option<(LimitAmount, Asset)>, InputError> {
        let network = network(1, "Test", "ETH", &["USDC", "1INCH"]);
        let assets = Assets::on(&network);
        let arguments = Arguments { words: words.split_whitespace(), assets, flows: &[] };
        Ok(parse(arguments)?.map(|limit| (limit.amount, limit.asset)))
    }

    #[test]
    fn a_limit_is_an_amount_or_none_with_an_optional_asset() {
        let limit = |amount: &str, asset: &str| {
            let amount = LimitAmount::try_from(amount.to_owned()).unwrap();
            Ok(Some((amount, asset.parse().unwrap())))
        };
        assert_eq!(parsed(""), Ok(None));
        assert_eq!(parsed("0.5"), limit("0.5", "native"));
        assert_eq!(parsed("NONE usdc"), limit("none", "USDC"));
        assert_eq!(parsed("5usdc"), limit("5", "USDC"));
        assert_eq!(parsed("5 1INCH"), limit("5", "1INCH"));
        assert_eq!(parsed("none 1inch"), limit("none", "1INCH"));
        assert_eq!(parsed(".5ETH"), limit("0.5", "native"));
        assert_eq!(parsed("1 000"), Err(AmountError::Separator.into()));
        for words in ["5 USDC 5", "all", "5usdc ETH"] {
            assert_eq!(parsed(words), Err(InputError::LimitWords), "{words}");
        }
        for words in ["5 DAI", "5dai", "none DAI"] {
            let refused = parsed(words);
            assert!(matches!(refused, Err(InputError::UnknownAsset { .. })), "{words}");
        }
    }

    #[test]
    fn the_command_that_cancels_a_raise_is_read_as_the_limit_that_holds() {
        let networks = [
            network(1, "Ethereum", "ETH", &["USDC", "1INCH"]),
            network(137, "Polygon", "POL", &["USDC", "1INCH"]),
        ];
        let owns = [None, Some(Units(U256::from(1_234_567)))];
        for (network, own) in networks.iter().flat_map(|it| owns.map(|own| (it, own))) {
            let tokens = network.tokens.iter().cloned().map(Some);
            for token in [None].into_iter().chain(tokens) {
                let asset =
                    token.as_ref().map_or(Asset::Native, |it| Asset::Token(it.symbol.clone()));
                let (amount, decimals) =
                    (own, token.as_ref().map_or(Wei::DECIMALS, |it| it.decimals));
                let limit = SpendingLimit {
                    chain_id: network.chain_id,
                    token,
                    limit: own,
                    own,
                    spent: Units::default(),
                    later: Some(LaterLimit { units: None, from: Timestamp(0) }),
                };
                let shown = entry(&limit, network, true);
                let command = shown.as_str().split("<code>").nth(1).unwrap();
                let words = command.split("</code>").next().unwrap();
                let words = words.strip_prefix("/limit ").unwrap().split_whitespace();
                let assets = Assets::of(&networks);
                let read = parse(Arguments { words, assets, flows: &[] }).unwrap().unwrap();
                assert_eq!(
                    (read.asset, read.chain_id),
                    (asset, Some(network.chain_id)),
                    "{command}"
                );
                let read = match read.amount {
                    LimitAmount::NoLimit => None,
                    LimitAmount::AtMost(amount) => Some(Units(amount.to_units(decimals).unwrap())),
                };
                assert_eq!(read, amount, "{command}");
            }
        }
    }

    #[test]
    fn a_limit_is_of_the_network_that_has_the_asset() {
        let networks = [
            network(1, "Ethereum", "ETH", &["USDC"]),
            network(8_453, "Base", "ETH", &["USDC", "AERO"]),
            network(137, "Polygon", "POL", &["DAI"]),
            network(100, "Gnosis", "xDAI", &["DAI"]),
        ];
        let parsed = |words: &'static str| {
            let (words, assets) = (words.split_whitespace(), Assets::of(&networks));
            let limit = parse(Arguments { words, assets, flows: &[] })?;
            Ok(limit.and_then(|limit| limit.chain_id))
        };
        for (words, chain_id) in [
            // The primary one, which the request names.
            ("5", None),
            ("5 USDC", Some(1)),
            ("5 eth", Some(1)),
            ("5 USDC on base", Some(8_453)),
            ("5 on polygon", Some(137)),
            ("5 AERO", Some(8_453)),
            ("none pol", Some(137)),
        ] {
            assert_eq!(parsed(words), Ok(chain_id), "{words}");
        }
        let refused = parsed("5 DAI");
        assert!(matches!(refused, Err(InputError::NetworkNeeded { .. })), "{refused:?}");
        let refused = parsed("5 POL on base");
        assert!(matches!(refused, Err(InputError::UnknownAsset { .. })), "{refused:?}");
    }
}
