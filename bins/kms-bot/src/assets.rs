//! Amounts and the assets that they are of, as users type them.

#[cfg(test)]
use kms_types::Token;
use kms_types::wire::Network;
use kms_types::{AmountError, Asset, QuoteAmount, Symbol, TypedAmount};

use crate::input::InputError;

/// The longest word of a user that an answer repeats, in characters.
const LONGEST_WORD: usize = 20;

/// The word before the name of a network.
pub(crate) const ON: &str = "on";

/// What assets and networks are called that may not be configured, or not by this name. A user who
/// is called so is paid by a username with its `@`.
const CALLED_ELSEWHERE: [&str; 32] = [
    "arb",
    "arbitrum",
    "avalanche",
    "avax",
    "base",
    "bitcoin",
    "bnb",
    "bsc",
    "btc",
    "dai",
    "eth",
    "ether",
    "ethereum",
    "gnosis",
    "linea",
    "mainnet",
    "matic",
    "op",
    "optimism",
    "pol",
    "polygon",
    "scroll",
    "sol",
    "solana",
    "ton",
    "tron",
    "trx",
    "usd",
    "usdc",
    "usdt",
    "wbtc",
    "weth",
];

/// The networks that a text can be about, and the symbols of their assets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assets<'a> {
    /// None while they are not known: then only `ETH` is a symbol.
    networks: &'a [Network],
}

impl<'a> Assets<'a> {
    /// What is on any of these networks, of which the first is the primary one.
    pub(crate) fn of(networks: &'a [Network]) -> Self {
        Self { networks }
    }

    /// What is on this network alone.
    pub(crate) fn on(network: &'a Network) -> Self {
        Self::of(std::slice::from_ref(network))
    }

    pub(crate) fn networks(self) -> &'a [Network] {
        self.networks
    }

    /// Whether there are several networks, so that a text has to name one of them.
    fn are_on_several(self) -> bool {
        self.networks.len() > 1
    }

    pub(crate) fn chain_ids(self) -> Vec<u64> {
        self.networks.iter().map(|network| network.chain_id).collect()
    }

    /// Refuses a username without its `@` that may be meant as something else: as an asset, or as a
    /// network.
    pub(crate) fn expect_username(self, name: &str) -> Result<(), InputError> {
        if self.networks.is_empty() {
            return Err(InputError::UnknownNetworks);
        }
        let is_named = |network: &&Network| {
            let mut words = network.name.split(|c: char| !c.is_ascii_alphanumeric());
            network.short_name.eq_ignore_ascii_case(name)
                || words.any(|word| word.eq_ignore_ascii_case(name))
        };
        let is_asset = self.find(name).is_some();
        let named = self.networks.iter().find(is_named).filter(|_| self.are_on_several());
        if let Some(network) = named.filter(|_| !is_asset) {
            let (word, network) = (shorten(name), network.short_name.clone());
            return Err(InputError::NetworkAsRecipient { word, network });
        }
        let is_called = CALLED_ELSEWHERE.iter().any(|word| word.eq_ignore_ascii_case(name));
        if is_asset || is_called {
            let (word, known) = self.describe_unknown(name);
            return Err(InputError::UnknownWord { word, known });
        }
        Ok(())
    }

    /// Finds the network with this short name or name, or lists those that there are.
    pub(crate) fn expect_network(self, name: &str) -> Result<&'a Network, InputError> {
        let bare = |name: &'a str| name.trim_end_matches(|c: char| c.is_ascii_punctuation());
        let typed = name.trim_end_matches(|c: char| c.is_ascii_punctuation());
        let is_named = |network: &&'a Network| {
            let names = [network.short_name.as_str(), network.name.as_str()];
            names.iter().any(|name| bare(name).eq_ignore_ascii_case(typed))
        };
        self.networks.iter().find(is_named).ok_or_else(|| self.unknown_network(name))
    }

    /// The error about a word that is no network.
    pub(crate) fn unknown_network(self, word: &str) -> InputError {
        let known = self.networks.iter().map(|network| network.short_name.clone()).collect();
        InputError::UnknownNetwork { word: shorten(word), known }
    }

    /// Takes `on` and the name of a network out of the words, once, if there are several networks.
    /// A name may have several words.
    pub(crate) fn take_network<'w>(
        self,
        words: impl Iterator<Item = &'w str>,
    ) -> Result<(Vec<&'w str>, Option<&'a Network>), InputError> {
        let mut words: Vec<_> = words.collect();
        let is_on = |word: &&str| word.eq_ignore_ascii_case(ON) && self.find(word).is_none();
        let on = words.iter().position(is_on).filter(|_| self.are_on_several());
        let Some((on, first)) = on.and_then(|on| Some((on, *words.get(on + 1)?))) else {
            return Ok((words, None));
        };
        let behind: Vec<_> = words.drain(on..).skip(1).collect();
        let named = (1..=behind.len()).rev().find_map(|count| {
            let name: Vec<_> = behind.iter().copied().take(count).collect();
            Some((self.expect_network(&name.join(" ")).ok()?, count))
        });
        let (network, count) = named.ok_or_else(|| self.unknown_network(first))?;
        words.extend(behind.into_iter().skip(count));
        Ok((words, Some(network)))
    }

    /// Finds the symbol that a word is, in any case, as the operator writes it.
    pub(crate) fn find(self, word: &str) -> Option<&'a str> {
        let is = |network: &'a Network| symbol_on(network, word);
        match self.networks {
            [] => Some("ETH").filter(|coin| word.eq_ignore_ascii_case(coin)),
            networks => networks.iter().find_map(is),
        }
    }

    /// Finds a symbol, or lists those that there are.
    pub(crate) fn expect(self, word: &str) -> Result<&'a str, InputError> {
        self.find(word).ok_or_else(|| self.unknown(word))
    }

    /// The networks that have an asset with a symbol, and the asset.
    pub(crate) fn with(self, symbol: &str) -> impl Iterator<Item = (&'a Network, Asset)> {
        let networks = self.networks.iter();
        networks.filter_map(move |network| Some((network, asset_on(network, symbol)?)))
    }

    /// The error about a word that is no asset.
    pub(crate) fn unknown(self, word: &str) -> InputError {
        let (word, known) = self.describe_unknown(word);
        InputError::UnknownAsset { word, known }
    }

    /// A word that is unknown, shortened, and the symbols of the assets that there are.
    pub(crate) fn describe_unknown(self, word: &str) -> (String, Vec<String>) {
        let mut known: Vec<String> = Vec::new();
        for symbol in self.symbols() {
            if !known.iter().any(|known| known == symbol) {
                known.push(symbol.to_owned());
            }
        }
        (shorten(word), known)
    }

    /// Parses a word that begins like an amount, perhaps with a symbol directly behind it.
    ///
    /// Beside a token whose symbol begins with a digit, `51inch` may be 51 of one token or 5 of
    /// another, so it is refused.
    pub(crate) fn parse_word(
        self,
        word: &str,
    ) -> Result<(QuoteAmount, Option<&'a str>), InputError> {
        let typed = word.trim_end_matches(|c: char| c.is_ascii_punctuation()).to_lowercase();
        let ends_with = |symbol: &&str| {
            let symbol = symbol.to_lowercase();
            symbol.starts_with(|c: char| c.is_ascii_digit()) && typed.ends_with(&symbol)
        };
        if let Some(symbol) = self.symbols().find(ends_with) {
            let (word, symbol) = (shorten(word), symbol.to_owned());
            return Err(InputError::JoinedAmount { word, symbol });
        }
        let TypedAmount { amount, symbol } = word.parse()?;
        Ok((amount, symbol.map(|symbol| self.expect(&symbol)).transpose()?))
    }

    /// Parses an amount with an optional symbol: `5`, `5 USDC`, `5usdc`, `all USDC`.
    pub(crate) fn parse_amount<'w>(
        self,
        mut words: impl Iterator<Item = &'w str>,
    ) -> Result<(QuoteAmount, Option<&'a str>), InputError> {
        let (amount, joined) = self.parse_word(words.next().unwrap_or_default())?;
        let Some(word) = words.next() else { return Ok((amount, joined)) };
        let symbol = match (joined, self.find(word)) {
            (None, Some(symbol)) => symbol,
            (None, None) if TypedAmount::is_meant(word) => {
                return Err(AmountError::Separator.into());
            }
            (Some(_), _) | (None, None) => return Err(self.unknown(word)),
        };
        match words.next() {
            Some(word) => Err(self.unknown(word)),
            None => Ok((amount, Some(symbol))),
        }
    }

    /// The symbols of all assets.
    fn symbols(self) -> impl Iterator<Item = &'a str> {
        let unknown = Some("ETH").filter(|_| self.networks.is_empty());
        unknown.into_iter().chain(self.networks.iter().flat_map(symbols_of))
    }
}

/// The symbols of a network's assets.
fn symbols_of(network: &Network) -> impl Iterator<Item = &str> {
    let tokens = network.tokens.iter().map(|token| token.symbol.as_str());
    [network.symbol.as_str()].into_iter().chain(tokens)
}

/// The symbol that a word is on a network.
fn symbol_on<'a>(network: &'a Network, word: &str) -> Option<&'a str> {
    if word.eq_ignore_ascii_case(&network.symbol) {
        return Some(&network.symbol);
    }
    let mut symbols = network.tokens.iter().map(|token| &token.symbol);
    symbols.find(|symbol| symbol.is(word)).map(Symbol::as_str)
}

/// The asset with a symbol on a network.
pub(crate) fn asset_on(network: &Network, word: &str) -> Option<Asset> {
    if word.eq_ignore_ascii_case(&network.symbol) {
        return Some(Asset::Native);
    }
    let mut symbols = network.tokens.iter().map(|token| &token.symbol);
    symbols.find(|symbol| symbol.is(word)).map(|symbol| Asset::Token(symbol.clone()))
}

fn shorten(word: &str) -> String {
    word.chars().take(LONGEST_WORD).collect()
}

/// A network for tests, with the tokens of these symbols.
#[cfg(test)]
pub(crate) fn network(chain_id: u64, name: &str, symbol: &str, tokens: &[&str]) -> Network {
    let token = |symbol: &&str| Token {
        symbol: symbol.parse().unwrap(),
        address: [1; 20].into(),
        decimals: 6,
    };
    Network {
        short_name: name.to_lowercase(),
        name: name.to_owned(),
        chain_id,
        symbol: symbol.to_owned(),
        tokens: tokens.iter().map(token).collect(),
        explorer: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_may_follow_an_amount() {
        let network = network(1, "Test", "ETH", &[]);
        let parse = |text: &'static str| Assets::on(&network).parse_amount(text.split_whitespace());
        for text in ["5 eth", " 5  ETH ", "5eth"] {
            assert_eq!(parse(text).unwrap().1, Some("ETH"), "{text}");
        }
        assert_eq!(parse(".5").unwrap().1, None);
        assert_eq!(parse("1 000"), Err(AmountError::Separator.into()));
        for text in ["5 USDC", "5usdc", "5 ETH USDC", "5eth usdc"] {
            let Err(InputError::UnknownAsset { word, known }) = parse(text) else {
                panic!("{text}")
            };
            assert_eq!((word.to_uppercase(), known), ("USDC".into(), vec!["ETH".into()]), "{text}");
        }
    }

    #[test]
    fn a_symbol_that_begins_with_a_digit_stands_apart() {
        let networks = [&["1INCH"][..], &["1INCH", "INCH"]];
        for network in networks.map(|tokens| network(1, "Test", "ETH", tokens)) {
            let parse =
                |text: &'static str| Assets::on(&network).parse_amount(text.split_whitespace());
            for text in ["5 1INCH", "5 1inch", "all 1Inch"] {
                assert_eq!(parse(text).unwrap().1, Some("1INCH"), "{text}");
            }
            for text in ["51inch", "1INCH", "0.51INCH,"] {
                let (word, symbol) = (text.to_owned(), "1INCH".to_owned());
                assert_eq!(parse(text), Err(InputError::JoinedAmount { word, symbol }), "{text}");
            }
            assert_eq!(parse("5 1"), Err(AmountError::Separator.into()));
        }
        let network = network(1, "Test", "ETH", &["1INCH", "INCH"]);
        let parsed = Assets::on(&network).parse_amount(["5", "inch"].into_iter());
        assert_eq!(parsed, Ok(("5".to_owned().try_into().unwrap(), Some("INCH"))));
    }
}
