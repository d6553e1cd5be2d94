//! Assets: a chain's native coin, or an ERC-20 token that the operator configured.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{EthAddress, Units};

/// The symbol of a token: perhaps digits, then a letter, then letters, digits, `.`, `-` or `_`, at
/// most 16 characters. Compared without regard to case.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Symbol(String);

/// Why a text is not a token's symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// Empty, too long, or with other characters.
    #[error(
        "a symbol has 1 to 16 letters, digits, points, - or _; a letter, or digits and a letter, \
         come first, as in USDC or 1INCH"
    )]
    Format,
    /// A reserved word.
    #[error("\"native\" and \"all\" are reserved and cannot be token symbols")]
    Reserved,
}

impl Symbol {
    const MAX_LEN: usize = 16;

    /// Returns the symbol as the operator wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Symbol {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Symbol {}

impl FromStr for Symbol {
    type Err = SymbolError;

    fn from_str(text: &str) -> Result<Self, SymbolError> {
        let rest = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let name = text.trim_start_matches(|c: char| c.is_ascii_digit());
        if text.len() > Self::MAX_LEN
            || !name.starts_with(|c: char| c.is_ascii_alphabetic())
            || !name.chars().all(rest)
        {
            return Err(SymbolError::Format);
        }
        if ["native", "all"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Err(SymbolError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Symbol {
    type Error = SymbolError;

    fn try_from(text: String) -> Result<Self, SymbolError> {
        text.parse()
    }
}

impl From<Symbol> for String {
    fn from(symbol: Symbol) -> String {
        symbol.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An asset: `native`, or a token's symbol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Asset {
    /// The chain's own coin.
    #[default]
    Native,
    /// A token by its symbol.
    Token(Symbol),
}

impl Asset {
    /// Returns whether it is the chain's own coin.
    #[must_use]
    pub fn is_native(&self) -> bool {
        matches!(self, Self::Native)
    }
}

impl FromStr for Asset {
    type Err = SymbolError;

    fn from_str(text: &str) -> Result<Self, SymbolError> {
        if text == "native" { Ok(Self::Native) } else { text.parse().map(Self::Token) }
    }
}

impl TryFrom<String> for Asset {
    type Error = SymbolError;

    fn try_from(text: String) -> Result<Self, SymbolError> {
        text.parse()
    }
}

impl From<Asset> for String {
    fn from(asset: Asset) -> String {
        asset.to_string()
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Token(symbol) => symbol.fmt(f),
        }
    }
}

/// An ERC-20 token as it is configured. A transfer keeps a copy, so that a later change of the
/// configuration does not change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Its symbol.
    pub symbol: Symbol,
    /// The address of its contract.
    pub address: EthAddress,
    /// How many decimals one token has.
    #[cfg_attr(feature = "openapi", schema(maximum = 255))]
    pub decimals: u8,
}

impl Token {
    /// Formats an amount in whole tokens, without the symbol.
    #[must_use]
    pub fn to_decimal(&self, units: Units) -> String {
        units.to_decimal(self.decimals)
    }
}

/// An amount of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenAmount {
    /// The token.
    pub token: Token,
    /// The amount, in the token's smallest unit.
    pub units: Units,
}

impl fmt::Display for TokenAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.token.to_decimal(self.units), self.token.symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_compared_without_case() {
        for good in ["USDC", "usdc", "USDC.e", "a", "stETH", "X-1_2", "1INCH", "0xBTC"] {
            assert_eq!(good.parse::<Symbol>().unwrap().as_str(), good);
        }
        let long = "A".repeat(17);
        for bad in ["", "1", "1.5", "1.A", "US DC", "USD\u{20ae}", "<b>", &long, "@usdc", "a\0"] {
            assert_eq!(bad.parse::<Symbol>(), Err(SymbolError::Format), "{bad:?}");
        }
        for bad in ["all", "ALL", "Native"] {
            assert_eq!(bad.parse::<Symbol>(), Err(SymbolError::Reserved), "{bad:?}");
        }
        assert_eq!("USDC".parse::<Symbol>(), "usdc".parse::<Symbol>());
    }

    #[test]
    fn an_asset_is_the_coin_or_a_token() {
        assert_eq!("native".parse::<Asset>(), Ok(Asset::Native));
        let token = "USDC".parse::<Asset>().unwrap();
        assert_eq!(serde_json::to_string(&token).unwrap(), "\"USDC\"");
        assert!("".parse::<Asset>().is_err());
    }
}
