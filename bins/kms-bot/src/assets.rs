//! Amounts and the assets that they are of, as users type them.

use kms_types::wire::Network;
use kms_types::{AmountError, Asset, QuoteAmount, Token, TypedAmount};

use crate::input::InputError;

/// The longest word of a user that an answer repeats, in characters.
const LONGEST_WORD: usize = 20;

/// The word before the name of a network.
pub(crate) const ON: &str = "on";

/// The assets of a network, and the networks that a payment can name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assets<'a> {
    coin: &'a str,
    tokens: &'a [Token],
    /// The network's chain id, if it is known.
    pub(crate) chain_id: Option<u64>,
    networks: &'a [Network],
}

impl<'a> Assets<'a> {
    /// The assets of the first of these networks. If none is known yet, only `ETH` is accepted.
    pub(crate) fn of(networks: &'a [Network]) -> Self {
        match networks.first() {
            Some(first) => Self { networks, ..Self::on(first) },
            None => Self { coin: "ETH", tokens: &[], chain_id: None, networks },
        }
    }

    /// The assets of this network alone.
    pub(crate) fn on(network: &'a Network) -> Self {
        Self {
            coin: &network.symbol,
            tokens: &network.tokens,
            chain_id: Some(network.chain_id),
            networks: &[],
        }
    }

    #[cfg(test)]
    pub(crate) fn new(coin: &'a str, tokens: &'a [Token]) -> Self {
        Self { coin, tokens, chain_id: None, networks: &[] }
    }

    /// The networks of which a payment has to name one, unless it is on the first: none if there is
    /// only one.
    pub(crate) fn networks(self) -> &'a [Network] {
        if self.networks.len() > 1 { self.networks } else { &[] }
    }

    /// Whether a word is the symbol of an asset, or the name, of any of several networks.
    pub(crate) fn is_symbol_or_network(self, word: &str) -> bool {
        let has = |network| Assets::on(network).find(word).is_some();
        self.networks().iter().any(has) || self.expect_network(word).is_ok()
    }

    /// Finds the network with this short name or name, or lists those that there are.
    pub(crate) fn expect_network(self, word: &str) -> Result<&'a Network, InputError> {
        let typed = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
        let is_named = |network: &&Network| {
            [&network.short_name, &network.name].iter().any(|it| it.eq_ignore_ascii_case(typed))
        };
        self.networks.iter().find(is_named).ok_or_else(|| self.unknown_network(word))
    }

    /// The error about a word that is no network.
    pub(crate) fn unknown_network(self, word: &str) -> InputError {
        let known = self.networks.iter().map(|network| network.short_name.clone()).collect();
        InputError::UnknownNetwork { word: shorten(word), known }
    }

    /// Takes `on` and the name of a network out of the words, once, if there are several networks.
    pub(crate) fn take_network<'w>(
        self,
        words: impl Iterator<Item = &'w str>,
    ) -> Result<(Vec<&'w str>, Option<&'a Network>), InputError> {
        let (mut words, mut rest, mut on) = (words.peekable(), Vec::new(), None);
        while let Some(word) = words.next() {
            let is_on = word.eq_ignore_ascii_case(ON)
                && on.is_none()
                && !self.networks().is_empty()
                && self.find(word).is_none();
            match words.next_if(|_name| is_on) {
                Some(name) => on = Some(self.expect_network(name)?),
                None => rest.push(word),
            }
        }
        Ok((rest, on))
    }

    /// Finds the asset with a symbol, in any case.
    pub(crate) fn find(self, word: &str) -> Option<Asset> {
        if word.eq_ignore_ascii_case(self.coin) {
            return Some(Asset::Native);
        }
        let mut symbols = self.tokens.iter().map(|token| &token.symbol);
        let symbol = symbols.find(|symbol| symbol.is(word))?;
        Some(Asset::Token(symbol.clone()))
    }

    /// Finds the asset with a symbol, or lists the assets that there are.
    pub(crate) fn expect(self, word: &str) -> Result<Asset, InputError> {
        self.find(word).ok_or_else(|| self.unknown(word))
    }

    /// The error about a word that is no asset.
    pub(crate) fn unknown(self, word: &str) -> InputError {
        let (word, known) = self.describe_unknown(word);
        InputError::UnknownAsset { word, known }
    }

    /// A word that is unknown, shortened, and the symbols of the assets that there are.
    pub(crate) fn describe_unknown(self, word: &str) -> (String, Vec<String>) {
        (shorten(word), self.known())
    }

    fn known(self) -> Vec<String> {
        self.symbols().map(str::to_owned).collect()
    }

    /// Parses a word that begins like an amount, perhaps with a symbol directly behind it.
    ///
    /// Beside a token whose symbol begins with a digit, `51inch` may be 51 of one token or 5 of
    /// another, so it is refused.
    pub(crate) fn parse_word(self, word: &str) -> Result<(QuoteAmount, Option<Asset>), InputError> {
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
    pub(crate) fn parse_amount(
        self,
        text: &str,
    ) -> Result<(QuoteAmount, Option<Asset>), InputError> {
        let mut words = text.split_whitespace();
        let (amount, joined) = self.parse_word(words.next().unwrap_or_default())?;
        let Some(word) = words.next() else { return Ok((amount, joined)) };
        let asset = match (joined, self.find(word)) {
            (None, Some(asset)) => asset,
            (None, None) if TypedAmount::is_meant(word) => {
                return Err(AmountError::Separator.into());
            }
            (Some(_), _) | (None, None) => return Err(self.unknown(word)),
        };
        match words.next() {
            Some(word) => Err(self.unknown(word)),
            None => Ok((amount, Some(asset))),
        }
    }

    /// The symbols of all assets.
    fn symbols(self) -> impl Iterator<Item = &'a str> {
        [self.coin].into_iter().chain(self.tokens.iter().map(|token| token.symbol.as_str()))
    }
}

fn shorten(word: &str) -> String {
    word.chars().take(LONGEST_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_may_follow_an_amount() {
        let assets = Assets::new("ETH", &[]);
        for text in ["5 eth", " 5  ETH ", "5eth"] {
            assert_eq!(assets.parse_amount(text).unwrap().1, Some(Asset::Native), "{text}");
        }
        assert_eq!(assets.parse_amount(".5").unwrap().1, None);
        assert_eq!(assets.parse_amount("1 000"), Err(AmountError::Separator.into()));
        for text in ["5 USDC", "5usdc", "5 ETH USDC", "5eth usdc"] {
            let Err(InputError::UnknownAsset { word, known }) = assets.parse_amount(text) else {
                panic!("{text}")
            };
            assert_eq!((word.to_uppercase(), known), ("USDC".into(), vec!["ETH".into()]), "{text}");
        }
    }

    #[test]
    fn a_symbol_that_begins_with_a_digit_stands_apart() {
        let token = |symbol: &str| Token {
            symbol: symbol.parse().unwrap(),
            address: [1; 20].into(),
            decimals: 18,
        };
        let tokens = [token("1INCH"), token("INCH")];
        for assets in [Assets::new("ETH", &tokens[..1]), Assets::new("ETH", &tokens)] {
            for text in ["5 1INCH", "5 1inch", "all 1Inch"] {
                let asset = Some("1INCH".parse().unwrap());
                assert_eq!(assets.parse_amount(text).unwrap().1, asset, "{text}");
            }
            for text in ["51inch", "1INCH", "0.51INCH,"] {
                let refused = assets.parse_amount(text);
                let symbol = "1INCH".to_owned();
                let word = text.to_owned();
                assert_eq!(refused, Err(InputError::JoinedAmount { word, symbol }), "{text}");
            }
            assert_eq!(assets.parse_amount("5 1"), Err(AmountError::Separator.into()));
        }
        let (amount, asset) = Assets::new("ETH", &tokens).parse_amount("5 inch").unwrap();
        assert_eq!((amount, asset), ("5".to_owned().try_into().unwrap(), "INCH".parse().ok()));
    }
}
