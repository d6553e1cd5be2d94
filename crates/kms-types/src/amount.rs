//! Amounts: the decimal numbers that people type, and the exact integers of chains.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

/// A positive decimal number, exact and not yet bound to an asset.
///
/// Grammar: digits, and at most one point with digits on both sides. No sign, exponent, comma,
/// underscore or space, because each of them is ambiguous.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Amount {
    whole: String,
    fraction: String,
}

/// Why a text is not an amount, or not one of this asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Empty.
    #[error("an amount must not be empty; write for example 0.5")]
    Empty,
    /// A comma, which is a decimal or a thousands separator.
    #[error("write the amount with a point and without commas, for example 0.5")]
    Comma,
    /// A plus or minus sign.
    #[error("write the amount without a sign, for example 0.5")]
    Sign,
    /// Scientific notation.
    #[error("write the amount in full, without an exponent, for example 0.0001")]
    Exponent,
    /// Underscores or spaces between digits.
    #[error("write the amount's digits together, for example 1000")]
    Separator,
    /// A sign of a currency.
    #[error("write the amount in the coin or in a token, without the sign of a currency")]
    Currency,
    /// A hexadecimal number or an address.
    #[error("write the amount in decimal digits, for example 0.5")]
    Hexadecimal,
    /// Some other character, or a point without digits on both sides.
    #[error("an amount has digits and at most one point between them, for example 0.5")]
    Format,
    /// Zero.
    #[error("the amount must be more than zero")]
    Zero,
    /// More decimals than the asset has.
    #[error("the amount has too many decimals: this asset has {decimals}")]
    TooPrecise {
        /// How many decimals the asset has.
        decimals: u8,
    },
    /// Does not fit into 256 bits.
    #[error("the amount does not fit into 256 bits")]
    TooLarge,
}

impl Amount {
    const MAX_LEN: usize = 160;

    /// One coin, or one whole token.
    #[must_use]
    pub fn one() -> Self {
        Self { whole: "1".to_owned(), fraction: String::new() }
    }

    /// Returns the amount in the smallest unit of an asset with this many decimals, without
    /// rounding.
    ///
    /// # Errors
    /// When it has more decimals than the asset, or does not fit into 256 bits.
    pub fn to_units(&self, decimals: u8) -> Result<U256, AmountError> {
        let missing = usize::from(decimals)
            .checked_sub(self.fraction.len())
            .ok_or(AmountError::TooPrecise { decimals })?;
        let digits = format!("{}{}{}", self.whole, self.fraction, "0".repeat(missing));
        U256::from_str_radix(&digits, 10).map_err(|_overflow| AmountError::TooLarge)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        if text.is_empty() {
            return Err(AmountError::Empty);
        }
        if let Some(found) = text.chars().find_map(explain) {
            return Err(found);
        }
        if text.len() > Self::MAX_LEN {
            return Err(AmountError::TooLarge);
        }
        let (whole, fraction) = match text.split_once('.') {
            None => (text, ""),
            Some((whole, fraction)) if !whole.is_empty() && !fraction.is_empty() => {
                (whole, fraction)
            }
            Some(_) => return Err(AmountError::Format),
        };
        if fraction.contains('.') {
            return Err(AmountError::Format);
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty() && fraction.is_empty() {
            return Err(AmountError::Zero);
        }
        let whole = if whole.is_empty() { "0" } else { whole };
        Ok(Self { whole: whole.to_owned(), fraction: fraction.to_owned() })
    }
}

/// Returns why a character is not allowed in an amount, if it is not.
fn explain(character: char) -> Option<AmountError> {
    match character {
        '0'..='9' | '.' => None,
        ',' => Some(AmountError::Comma),
        '+' | '-' => Some(AmountError::Sign),
        'e' | 'E' => Some(AmountError::Exponent),
        '_' | ' ' => Some(AmountError::Separator),
        _ => Some(AmountError::Format),
    }
}

impl TryFrom<String> for Amount {
    type Error = AmountError;

    fn try_from(text: String) -> Result<Self, AmountError> {
        text.parse()
    }
}

impl From<Amount> for String {
    fn from(amount: Amount) -> String {
        amount.to_string()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fraction.is_empty() {
            f.write_str(&self.whole)
        } else {
            write!(f, "{}.{}", self.whole, self.fraction)
        }
    }
}

/// Defines a count of an asset's smallest unit. In JSON it is a decimal string, because JSON
/// numbers lose digits.
macro_rules! smallest_unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub U256);

        impl $name {
            /// Returns the sum, or `None` beyond 256 bits.
            #[must_use]
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }

            /// Returns the difference, or `None` below zero.
            #[must_use]
            pub fn checked_sub(self, other: Self) -> Option<Self> {
                self.0.checked_sub(other.0).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = AmountError;

            /// Parses decimal digits of the smallest unit, without leading zeros.
            fn from_str(text: &str) -> Result<Self, AmountError> {
                whole_number(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = AmountError;

            fn try_from(text: String) -> Result<Self, AmountError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(units: $name) -> String {
                units.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

smallest_unit! {
    /// An amount of a chain's native coin in its smallest unit, 10^-18 of the coin. Zero is valid.
    Wei
}

smallest_unit! {
    /// An amount of a coin or a token in its smallest unit; the field beside it names the asset.
    /// Zero is valid.
    Units
}

impl Wei {
    /// Decimals of the native coin of every EVM chain.
    pub const DECIMALS: u8 = 18;

    /// Formats the amount in whole coins, exact, without trailing zeros: `0.5`.
    #[must_use]
    pub fn to_coins(self) -> String {
        Units::from(self).to_decimal(Self::DECIMALS)
    }
}

impl Units {
    /// Formats the amount in whole coins of an asset with this many decimals, exact, without
    /// trailing zeros: `0.5`.
    #[must_use]
    pub fn to_decimal(self, decimals: u8) -> String {
        let decimals = usize::from(decimals);
        let digits = format!("{:0>width$}", self.0.to_string(), width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
    }
}

impl From<Wei> for Units {
    fn from(wei: Wei) -> Self {
        Self(wei.0)
    }
}

impl TryFrom<&Amount> for Wei {
    type Error = AmountError;

    fn try_from(amount: &Amount) -> Result<Self, AmountError> {
        amount.to_units(Self::DECIMALS).map(Self)
    }
}

fn whole_number(text: &str) -> Result<U256, AmountError> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit())
        && !text.is_empty()
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(AmountError::Format);
    }
    U256::from_str_radix(text, 10).map_err(|_overflow| AmountError::TooLarge)
}

/// The amount of a quote: coins, or `all`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum QuoteAmount {
    /// This much.
    Exactly(Amount),
    /// The whole balance; of the native coin, less the maximum network fee.
    All,
}

impl TryFrom<String> for QuoteAmount {
    type Error = AmountError;

    fn try_from(text: String) -> Result<Self, AmountError> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Exactly) }
    }
}

impl From<QuoteAmount> for String {
    fn from(amount: QuoteAmount) -> String {
        match amount {
            QuoteAmount::Exactly(amount) => amount.to_string(),
            QuoteAmount::All => "all".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wei(text: &str) -> Result<String, AmountError> {
        text.parse::<Amount>().and_then(|amount| Wei::try_from(&amount)).map(|wei| wei.to_string())
    }

    #[test]
    fn reads_amounts_exactly() {
        assert_eq!(wei("0.5").unwrap(), "500000000000000000");
        assert_eq!(wei("1").unwrap(), "1000000000000000000");
        assert_eq!(wei("001.10").unwrap(), "1100000000000000000");
        assert_eq!(wei("0.000000000000000001").unwrap(), "1");
        assert_eq!("12.340".parse::<Amount>().unwrap().to_string(), "12.34");
        assert_eq!("7".parse::<Amount>().unwrap().to_units(0).unwrap(), U256::from(7));
    }

    #[test]
    fn tokens_have_their_own_decimals() {
        let shown = |units: u64, decimals| Units(U256::from(units)).to_decimal(decimals);
        assert_eq!(shown(5_000_000, 6), "5");
        assert_eq!(shown(1, 6), "0.000001");
        assert_eq!(shown(7, 0), "7");
        assert_eq!(shown(0, 0), "0");
        let units = |text: &str, decimals| text.parse::<Amount>().unwrap().to_units(decimals);
        assert_eq!(units("0.000001", 6).unwrap(), U256::from(1));
        assert_eq!(units("0.0000001", 6), Err(AmountError::TooPrecise { decimals: 6 }));
        assert_eq!(units("0.5", 0), Err(AmountError::TooPrecise { decimals: 0 }));
    }

    #[test]
    fn refuses_other_forms() {
        use AmountError::{Comma, Empty, Exponent, Format, Separator, Sign, TooLarge, Zero};
        let huge = "9".repeat(78);
        let long = "1".repeat(161);
        for (bad, why) in [
            ("", Empty),
            ("-1", Sign),
            ("+1", Sign),
            ("1e18", Exponent),
            ("1E3", Exponent),
            ("1,5", Comma),
            ("1,000.5", Comma),
            ("1_000", Separator),
            ("1 000", Separator),
            (" 1", Separator),
            ("0x10", Format),
            (".5", Format),
            ("5.", Format),
            (".", Format),
            ("1.2.3", Format),
            ("\u{0661}", Format),
            ("NaN", Format),
            ("1\n", Format),
            ("1\0", Format),
            ("0", Zero),
            ("0.000", Zero),
            ("0.0000000000000000001", AmountError::TooPrecise { decimals: 18 }),
            (huge.as_str(), TooLarge),
            (long.as_str(), TooLarge),
        ] {
            assert_eq!(wei(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn wei_on_the_wire_is_a_canonical_decimal_string() {
        assert_eq!(serde_json::to_string(&Wei(U256::from(10))).unwrap(), "\"10\"");
        for bad in ["\"\"", "\"01\"", "\"-1\"", "\"1.0\"", "10", "\"0x1\"", "null"] {
            assert!(serde_json::from_str::<Wei>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn coins_round_trip(limbs: [u64; 4]) {
            let wei = Wei(U256::from_limbs(limbs));
            prop_assert_eq!(wei.to_string().parse::<Wei>(), Ok(wei));
            if wei.0 > U256::ZERO {
                let amount = wei.to_coins().parse::<Amount>().unwrap();
                prop_assert_eq!(Wei::try_from(&amount), Ok(wei));
            }
        }

        #[test]
        fn units_round_trip(limbs: [u64; 4], decimals: u8) {
            let units = Units(U256::from_limbs(limbs));
            if units.0 > U256::ZERO {
                let text = units.to_decimal(decimals);
                // An amount may be longer than a token's decimals are worth.
                if let Ok(amount) = text.parse::<Amount>() {
                    prop_assert_eq!(amount.to_units(decimals), Ok(units.0));
                } else {
                    prop_assert!(text.len() > Amount::MAX_LEN);
                }
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,200}", decimals: u8) {
            if let Ok(amount) = text.parse::<Amount>() {
                let _ = amount.to_units(decimals);
                prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
            }
        }
    }
}
