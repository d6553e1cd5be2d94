//! Amounts and the assets that they are of, as users type them.

use kms_types::wire::Network;
use kms_types::{AmountError, Asset, QuoteAmount, Token, TypedAmount};

use crate::input::InputError;

/// The longest word of a user that an answer repeats, in characters.
const LONGEST_WORD: usize = 20;

/// The assets of a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assets<'a> {
    coin: &'a str,
    tokens: &'a [Token],
    /// The network's chain id, if it is known.
    pub(crate) chain_id: Option<u64>,
}

impl<'a> Assets<'a> {
    /// The assets of a network. If it is not known yet, only `ETH` is accepted.
    pub(crate) fn of(network: Option<&'a Network>) -> Self {
        match network {
            Some(network) => Self {
                coin: &network.symbol,
                tokens: &network.tokens,
                chain_id: Some(network.chain_id),
            },
            None => Self { coin: "ETH", tokens: &[], chain_id: None },
        }
    }

    #[cfg(test)]
    pub(crate) fn new(coin: &'a str, tokens: &'a [Token]) -> Self {
        Self { coin, tokens, chain_id: None }
    }

    /// Finds the asset with a symbol, in any case.
    pub(crate) fn find(self, word: &str) -> Option<Asset> {
        if word.eq_ignore_ascii_case(self.coin) {
            return Some(Asset::Native);
        }
        let mut symbols = self.tokens.iter().map(|token| &token.symbol);
        let symbol = symbols.find(|symbol| symbol.as_str().eq_ignore_ascii_case(word))?;
        Some(Asset::Token(symbol.clone()))
    }

    /// Finds the asset with a symbol, or lists the assets that there are.
    pub(crate) fn expect(self, word: &str) -> Result<Asset, InputError> {
        self.find(word).ok_or_else(|| self.unknown(word))
    }

    /// The error about a word that is no asset.
    pub(crate) fn unknown(self, word: &str) -> InputError {
        let symbols = self.tokens.iter().map(|token| token.symbol.as_str());
        let known: Vec<_> = [self.coin].into_iter().chain(symbols).collect();
        let word = word.chars().take(LONGEST_WORD).collect();
        InputError::UnknownAsset { word, known: known.join(", ") }
    }

    /// Parses an amount with an optional symbol: `5`, `5 USDC`, `5usdc`, `all USDC`.
    pub(crate) fn parse_amount(
        self,
        text: &str,
    ) -> Result<(QuoteAmount, Option<Asset>), InputError> {
        let mut words = text.split_whitespace();
        let TypedAmount { amount, symbol } = words.next().unwrap_or_default().parse()?;
        let next = words.next();
        if next.is_some_and(TypedAmount::is_meant) {
            return Err(AmountError::Separator.into());
        }
        let symbol = match (symbol.as_deref(), next) {
            (Some(_), Some(word)) => return Err(self.unknown(word)),
            (Some(symbol), None) => Some(symbol),
            (None, next) => next,
        };
        let asset = symbol.map(|symbol| self.expect(symbol)).transpose()?;
        match words.next() {
            Some(word) => Err(self.unknown(word)),
            None => Ok((amount, asset)),
        }
    }
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
            assert_eq!((word.to_uppercase().as_str(), known.as_str()), ("USDC", "ETH"), "{text}");
        }
    }
}
