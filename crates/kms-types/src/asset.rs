//! Assets: the native coin of a chain, or an ERC-20 token that the operator configured.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{EthAddress, Units};

/// The symbol of an asset, as the operator displays it: perhaps digits, then a letter or a currency
/// sign, then these, digits, `.`, `-` or `_`, at most 16 characters. Compared without regard to
/// case.
///
/// Letters are those of scripts that are written from left to right without marks, so that a symbol
/// cannot change how the amount beside it reads. A token is identified by its contract and
/// decimals, never by its symbol.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Symbol(String);

/// Why a text is not a token's symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// Empty, too long, or with other characters.
    #[error(
        "a symbol has 1 to 16 letters, currency signs, digits, points, - or _; a letter, or digits \
         and a letter, come first, as in USD\u{20ae}0 or 1INCH"
    )]
    Format,
    /// A reserved word.
    #[error("\"native\" and \"all\" are reserved and cannot be token symbols")]
    Reserved,
}

/// The letters and currency signs beyond ASCII: Latin, Greek, Cyrillic, kana, Han and Hangul.
const LETTERS: [(char, char); 14] = [
    ('\u{a2}', '\u{a5}'),
    ('\u{c0}', '\u{d6}'),
    ('\u{d8}', '\u{f6}'),
    ('\u{f8}', '\u{24f}'),
    ('\u{391}', '\u{3a1}'),
    ('\u{3a3}', '\u{3a9}'),
    ('\u{3b1}', '\u{3c9}'),
    ('\u{400}', '\u{45f}'),
    ('\u{e3f}', '\u{e3f}'),
    ('\u{20a0}', '\u{20c0}'),
    ('\u{3041}', '\u{3096}'),
    ('\u{30a1}', '\u{30fa}'),
    ('\u{4e00}', '\u{9fff}'),
    ('\u{ac00}', '\u{d7a3}'),
];

impl Symbol {
    const MAX_CHARACTERS: usize = 16;

    /// The symbol of Ethereum's coin.
    #[must_use]
    pub fn ether() -> Self {
        Self("ETH".to_owned())
    }

    /// Returns whether a symbol may contain a character.
    #[must_use]
    pub fn may_contain(character: char) -> bool {
        is_letter(character) || character.is_ascii_digit() || ".-_".contains(character)
    }

    /// Returns whether a word is this symbol, in any case.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        folded(&self.0).eq(folded(word))
    }

    /// Returns the symbol as the operator wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Symbol {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Symbol {}

impl FromStr for Symbol {
    type Err = SymbolError;

    fn from_str(text: &str) -> Result<Self, SymbolError> {
        let name = text.trim_start_matches(|c: char| c.is_ascii_digit());
        if text.chars().count() > Self::MAX_CHARACTERS
            || !name.starts_with(is_letter)
            || !name.chars().all(Self::may_contain)
        {
            return Err(SymbolError::Format);
        }
        if ["native", "all"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Err(SymbolError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether a character is a letter or a currency sign of a symbol.
fn is_letter(character: char) -> bool {
    let is_in = |(first, last): &(char, char)| (*first..=*last).contains(&character);
    character.is_ascii_alphabetic() || LETTERS.iter().any(is_in)
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
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

/// An asset as amounts of it are counted: the native coin of a chain, or the token with this
/// contract on it. The same contract address on another chain is another asset. Its text is the
/// chain id, a slash, and `native` or the contract in lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetId {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The token's contract; `None` is the native coin.
    pub contract: Option<EthAddress>,
}

/// The text is not that of an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a chain id, a slash, and native or a contract in lower-case hex")]
pub struct AssetIdError;

impl AssetId {
    /// The native coin of a chain.
    #[must_use]
    pub fn native(chain_id: u64) -> Self {
        Self { chain_id, contract: None }
    }

    /// A token of a chain; without one, the native coin.
    #[must_use]
    pub fn of(chain_id: u64, token: Option<&Token>) -> Self {
        Self { chain_id, contract: token.map(|token| token.address) }
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.contract {
            None => write!(f, "{}/native", self.chain_id),
            Some(contract) => write!(f, "{}/{}", self.chain_id, contract.to_lower_hex()),
        }
    }
}

impl FromStr for AssetId {
    type Err = AssetIdError;

    fn from_str(text: &str) -> Result<Self, AssetIdError> {
        let (chain_id, asset) = text.split_once('/').ok_or(AssetIdError)?;
        let chain_id = chain_id.parse().map_err(|_error| AssetIdError)?;
        let contract = match asset {
            "native" => None,
            contract => Some(contract.parse().map_err(|_error| AssetIdError)?),
        };
        let parsed = Self { chain_id, contract };
        // Each asset has one text, which rows are found by.
        if parsed.to_string() == text { Ok(parsed) } else { Err(AssetIdError) }
    }
}

/// An ERC-20 token as it is configured. A transfer keeps a copy, so that a later change of the
/// configuration does not change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// The symbol that the operator chose for it.
    pub symbol: Symbol,
    /// The address of its contract.
    pub address: EthAddress,
    /// How many decimals one token has.
    #[cfg_attr(feature = "openapi", schema(maximum = 255))]
    pub decimals: u8,
}

impl Token {
    /// Returns whether it is the same token, under whatever symbol.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.address, self.decimals) == (other.address, other.decimals)
    }

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
        for good in [
            "USDC",
            "usdc",
            "USDC.e",
            "a",
            "stETH",
            "X-1_2",
            "1INCH",
            "0xBTC",
            "USD\u{20ae}0",
            "\u{20ac}",
            "\u{39e}",
            "\u{5186}",
        ] {
            assert_eq!(good.parse::<Symbol>().unwrap().as_str(), good);
        }
        let long = "A".repeat(17);
        let not_seen = ["a\0", "US\u{200b}DC", "\u{202e}CDSU", "e\u{301}", "\u{5d0}", "\u{665}"];
        let bad = ["", "1", "1.5", "1.A", "US DC", "<b>", &long, "@usdc", "$", "0\u{d7}A"];
        for bad in bad.into_iter().chain(not_seen) {
            assert_eq!(bad.parse::<Symbol>(), Err(SymbolError::Format), "{bad:?}");
        }
        for bad in ["all", "ALL", "Native"] {
            assert_eq!(bad.parse::<Symbol>(), Err(SymbolError::Reserved), "{bad:?}");
        }
        assert_eq!("USDC".parse::<Symbol>(), "usdc".parse::<Symbol>());
        assert_eq!("\u{39e}USD".parse::<Symbol>(), "\u{3be}usd".parse::<Symbol>());
        assert_eq!("\u{20ae}".repeat(16).parse::<Symbol>().unwrap().as_str().len(), 48);
    }

    #[test]
    fn an_asset_of_a_chain_has_one_text() {
        let contract = EthAddress::from([0xab; 20]);
        for (asset, text) in [
            (AssetId::native(1), "1/native".to_owned()),
            (AssetId::native(u64::MAX), format!("{}/native", u64::MAX)),
            (
                AssetId { chain_id: 8_453, contract: Some(contract) },
                format!("8453/0x{}", "ab".repeat(20)),
            ),
        ] {
            assert_eq!(asset.to_string(), text);
            assert_eq!(text.parse(), Ok(asset));
        }
        let upper = format!("1/0x{}", "AB".repeat(20));
        for bad in
            ["", "1", "1/", "/native", "01/native", "+1/native", "1/Native", "1/0xab", &upper]
        {
            assert_eq!(bad.parse::<AssetId>(), Err(AssetIdError), "{bad}");
        }
    }

    #[test]
    fn an_asset_is_the_coin_or_a_token() {
        assert_eq!("native".parse::<Asset>(), Ok(Asset::Native));
        let token = "USDC".parse::<Asset>().unwrap();
        assert_eq!(serde_json::to_string(&token).unwrap(), "\"USDC\"");
        assert!("".parse::<Asset>().is_err());
    }
}
