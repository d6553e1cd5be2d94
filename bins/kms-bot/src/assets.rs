//! Amounts and the assets that follow them, as users type them.

use kms_types::wire::Network;
use kms_types::{Asset, QuoteAmount, Token};

use crate::input::InputError;

/// The assets that can follow an amount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assets<'a> {
    coin: &'a str,
    tokens: &'a [Token],
}

impl<'a> Assets<'a> {
    /// The assets of a network. If it is not known yet, only `ETH` is accepted.
    pub(crate) fn of(network: Option<&'a Network>) -> Self {
        match network {
            Some(network) => Self { coin: &network.symbol, tokens: &network.tokens },
            None => Self { coin: "ETH", tokens: &[] },
        }
    }

    #[cfg(test)]
    pub(crate) fn new(coin: &'a str, tokens: &'a [Token]) -> Self {
        Self { coin, tokens }
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

    /// Parses an amount with an optional symbol: `5`, `5 USDC`, `all USDC`.
    pub(crate) fn parse_amount(
        self,
        text: &str,
    ) -> Result<(QuoteAmount, Option<Asset>), InputError> {
        let mut words = text.split_whitespace();
        let amount = parse_amount(words.next().unwrap_or_default())?;
        let asset = match words.next() {
            Some(word) => Some(self.find(word).ok_or(InputError::Asset)?),
            None => None,
        };
        if words.next().is_some() { Err(InputError::Asset) } else { Ok((amount, asset)) }
    }
}

/// Parses an amount: a number as in `kms-types`, or `all` in any case.
pub(crate) fn parse_amount(word: &str) -> Result<QuoteAmount, InputError> {
    if word.eq_ignore_ascii_case("all") {
        Ok(QuoteAmount::All)
    } else {
        Ok(QuoteAmount::try_from(word.to_owned())?)
    }
}

/// Reports whether a word is meant as an amount: usernames begin with a letter or `@`, addresses
/// with `0x`.
pub(crate) fn is_amount(word: &str) -> bool {
    if word.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x")) {
        return false;
    }
    word.eq_ignore_ascii_case("all")
        || word.starts_with(|c: char| c.is_ascii_digit() || ".,+-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_may_follow_an_amount() {
        let assets = Assets::new("ETH", &[]);
        assert_eq!(assets.parse_amount(" 5  eth ").unwrap().1, Some(Asset::Native));
        assert_eq!(assets.parse_amount("5").unwrap().1, None);
        for text in ["5 USDC", "5 ETH 5"] {
            assert_eq!(assets.parse_amount(text), Err(InputError::Asset), "{text}");
        }
    }
}
