//! The fee ladder: the prices at which the transactions of one transfer are signed. The
//! replacements are signed in advance, because the key is no longer available when the first price
//! proves too low.

use std::fmt;
use std::str::FromStr;

use kms_types::{U256, Wei};

/// The prices of a transaction, in wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fees {
    /// Of a chain with a base fee (EIP-1559).
    Dynamic {
        /// `maxFeePerGas`: what the base fee and the tip may cost together.
        ceiling: u128,
        /// `maxPriorityFeePerGas`.
        tip: u128,
    },
    /// Of a chain without one.
    Legacy {
        /// `gasPrice`, which is paid in full.
        price: u128,
    },
}

/// Prices that rise from step to step, by enough that every node accepts a step as a replacement of
/// the one before. Never empty.
///
/// Its text, as it is stored, is the usual price and the steps: `1010 2010:10 4012:12`. If the
/// cancellation was signed again, its prices follow: `1010 2010:10 4012:12 /9000:27`. On a chain
/// that takes a fee in addition to gas, what is reserved for it comes last: `1010 2010:10 +900`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    usual: u128,
    first: Fees,
    replacements: Vec<Fees>,
    cancellation: Option<Fees>,
    data_fee: Wei,
}

/// How many times the data fee at the time of the quote is reserved for it: it follows the base fee
/// of another chain, which the prices that are signed do not limit.
const DATA_FEE_RESERVE: u64 = 3;

/// The text is not a ladder, or its prices do not rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected prices that rise")]
pub struct ParseLadderError;

impl Fees {
    /// The highest price: `maxFeePerGas` or `gasPrice`.
    #[must_use]
    pub fn ceiling(self) -> u128 {
        match self {
            Self::Dynamic { ceiling, .. } => ceiling,
            Self::Legacy { price } => price,
        }
    }

    /// What the maker of the block gets at most: `maxPriorityFeePerGas` or `gasPrice`.
    #[must_use]
    pub fn tip(self) -> u128 {
        match self {
            Self::Dynamic { tip, .. } => tip,
            Self::Legacy { price } => price,
        }
    }

    /// The maximum fee for this gas limit.
    #[must_use]
    pub fn max_fee(self, gas_limit: u64) -> Wei {
        fee(self.ceiling(), gas_limit)
    }

    /// The lowest prices at which every node accepts a replacement: an eighth more, rounded up, and
    /// at least 1. The strictest nodes require 12.5 %, and all of them require it of both prices.
    #[must_use]
    pub fn bumped(self) -> Self {
        let bumped = |price: u128| price.saturating_add(price.div_ceil(8).max(1));
        match self {
            Self::Dynamic { ceiling, tip } => {
                Self::Dynamic { ceiling: bumped(ceiling), tip: bumped(tip) }
            }
            Self::Legacy { price } => Self::Legacy { price: bumped(price) },
        }
    }

    /// Whether every node accepts it as a replacement of a transaction at `other`.
    #[must_use]
    pub fn replaces(self, other: Self) -> bool {
        let least = other.bumped();
        self.ceiling() >= least.ceiling() && self.tip() >= least.tip()
    }

    /// Raises each price to that of `least`.
    #[must_use]
    pub(crate) fn at_least(self, least: Self) -> Self {
        match self {
            Self::Dynamic { ceiling, tip } => {
                Self::Dynamic { ceiling: ceiling.max(least.ceiling()), tip: tip.max(least.tip()) }
            }
            Self::Legacy { price } => Self::Legacy { price: price.max(least.ceiling()) },
        }
    }

    /// Lowers the ceiling, and the tip where it is higher.
    #[must_use]
    pub(crate) fn at_most(self, limit: u128) -> Self {
        match self {
            Self::Dynamic { ceiling, tip } => {
                Self::Dynamic { ceiling: ceiling.min(limit), tip: tip.min(limit) }
            }
            Self::Legacy { price } => Self::Legacy { price: price.min(limit) },
        }
    }
}

/// Returns what is reserved for a data fee that is currently this high.
#[must_use]
pub(crate) fn reserved(data_fee: Wei) -> Wei {
    Wei(data_fee.0.saturating_mul(U256::from(DATA_FEE_RESERVE)))
}

fn fee(price: u128, gas_limit: u64) -> Wei {
    Wei(U256::from(price).saturating_mul(U256::from(gas_limit)))
}

impl fmt::Display for Fees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dynamic { ceiling, tip } => write!(f, "{ceiling}:{tip}"),
            Self::Legacy { price } => write!(f, "{price}"),
        }
    }
}

impl FromStr for Fees {
    type Err = ParseLadderError;

    fn from_str(text: &str) -> Result<Self, ParseLadderError> {
        let number = |digits: &str| digits.parse::<u128>().map_err(|_cause| ParseLadderError);
        match text.split_once(':') {
            Some((ceiling, tip)) => {
                Ok(Self::Dynamic { ceiling: number(ceiling)?, tip: number(tip)? })
            }
            None => Ok(Self::Legacy { price: number(text)? }),
        }
    }
}

impl Ladder {
    /// Makes a ladder. `usual` is the price that is expected to be paid. `None` if a step does not
    /// replace the one before.
    #[must_use]
    pub fn new(usual: u128, first: Fees, replacements: Vec<Fees>) -> Option<Self> {
        let mut before = first;
        for step in &replacements {
            if !step.replaces(before) {
                return None;
            }
            before = *step;
        }
        let data_fee = Wei::default();
        Some(Self { usual, first, replacements, cancellation: None, data_fee })
    }

    /// The same steps, and these prices of a cancellation that was signed again.
    #[must_use]
    pub fn with_cancellation(self, cancellation: Fees) -> Self {
        Self { cancellation: Some(cancellation), ..self }
    }

    /// The lowest prices.
    #[must_use]
    pub fn first(&self) -> Fees {
        self.first
    }

    /// The highest prices, which the sender must be able to pay.
    #[must_use]
    pub fn top(&self) -> Fees {
        self.replacements.last().copied().unwrap_or(self.first)
    }

    /// The prices of the replacements, lowest first.
    pub fn replacements(&self) -> impl Iterator<Item = Fees> {
        self.replacements.iter().copied()
    }

    /// The prices of the cancellation, which replaces the top step.
    #[must_use]
    pub fn cancellation(&self) -> Fees {
        self.cancellation.unwrap_or_else(|| self.top().bumped())
    }

    /// The same steps, on a chain that takes up to this fee in addition to gas.
    #[must_use]
    pub fn with_data_fee(self, data_fee: Wei) -> Self {
        Self { data_fee, ..self }
    }

    /// What is reserved of the native coin for fees in addition to gas, as the L1 data fee of a
    /// rollup.
    #[must_use]
    pub fn data_fee(&self) -> Wei {
        self.data_fee
    }

    /// The fee that is expected to be paid for this gas limit.
    #[must_use]
    pub fn usual_fee(&self, gas_limit: u64) -> Wei {
        let data_fee = self.data_fee.0 / U256::from(DATA_FEE_RESERVE);
        let gas_fee = fee(self.usual.min(self.top().ceiling()), gas_limit);
        Wei(gas_fee.0.saturating_add(data_fee))
    }

    /// The maximum fee of the payment for this gas limit.
    #[must_use]
    pub fn max_fee(&self, gas_limit: u64) -> Wei {
        self.with_data(self.top(), gas_limit)
    }

    /// The maximum fee of the cancellation for this gas limit.
    #[must_use]
    pub fn cancellation_fee(&self, gas_limit: u64) -> Wei {
        self.with_data(self.cancellation(), gas_limit)
    }

    fn with_data(&self, fees: Fees, gas_limit: u64) -> Wei {
        Wei(fees.max_fee(gas_limit).0.saturating_add(self.data_fee.0))
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.usual, self.first)?;
        self.replacements.iter().try_for_each(|fees| write!(f, " {fees}"))?;
        self.cancellation.iter().try_for_each(|fees| write!(f, " /{fees}"))?;
        match self.data_fee {
            Wei(U256::ZERO) => Ok(()),
            data_fee => write!(f, " +{data_fee}"),
        }
    }
}

impl FromStr for Ladder {
    type Err = ParseLadderError;

    fn from_str(text: &str) -> Result<Self, ParseLadderError> {
        let (text, data_fee) = match text.split_once(" +") {
            Some((text, fee)) => {
                let fee: Wei = fee.parse().map_err(|_cause| ParseLadderError)?;
                (text, Some(fee).filter(|fee| !fee.0.is_zero()).ok_or(ParseLadderError)?)
            }
            None => (text, Wei::default()),
        };
        let (text, cancellation) = match text.split_once(" /") {
            Some((steps, cancellation)) => (steps, Some(cancellation.parse()?)),
            None => (text, None),
        };
        let mut words = text.split(' ');
        let usual = words.next().and_then(|word| word.parse().ok()).ok_or(ParseLadderError)?;
        let first = words.next().ok_or(ParseLadderError)?.parse()?;
        let replacements = words.map(str::parse).collect::<Result<_, _>>()?;
        let ladder = Self::new(usual, first, replacements).ok_or(ParseLadderError)?;
        Ok(Self { cancellation, data_fee, ..ladder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fees(ceiling: u128, tip: u128) -> Fees {
        Fees::Dynamic { ceiling, tip }
    }

    #[test]
    fn every_step_replaces_the_one_before_it() {
        let ladder = |steps: &[Fees]| Ladder::new(1, fees(1_000, 8), steps.to_vec());
        assert!(ladder(&[fees(1_125, 9), fees(4_000, 11)]).is_some());
        // Of both prices, and rounded up.
        assert!(ladder(&[fees(1_124, 9)]).is_none() && ladder(&[fees(1_125, 8)]).is_none());
        assert!(ladder(&[fees(1_125, 9), fees(1_265, 11)]).is_none());
        // A price of nothing rises too.
        assert_eq!(fees(0, 0).bumped(), fees(1, 1));
        assert_eq!(fees(u128::MAX, 0).bumped().ceiling(), u128::MAX);
    }

    #[test]
    fn the_cancellation_replaces_the_top_step() {
        let ladder = Ladder::new(1_000, fees(2_000, 10), vec![fees(4_000, 12)]).unwrap();
        assert_eq!((ladder.top(), ladder.cancellation()), (fees(4_000, 12), fees(4_500, 14)));
        assert_eq!(ladder.top().max_fee(21_000), Wei(U256::from(84_000_000)));
        assert_eq!(ladder.usual_fee(21_000), Wei(U256::from(21_000_000)));
    }

    #[test]
    fn a_data_fee_is_part_of_every_fee() {
        let ladder = Ladder::new(1_000, fees(2_000, 10), Vec::new()).unwrap();
        let with_data = ladder.clone().with_data_fee(reserved(Wei(U256::from(7))));
        assert_eq!(with_data.data_fee(), Wei(U256::from(21)));
        let difference = |fee: fn(&Ladder) -> Wei| fee(&with_data).0 - fee(&ladder).0;
        assert_eq!(difference(|it| it.usual_fee(21_000)), U256::from(7));
        assert_eq!(difference(|it| it.max_fee(21_000)), U256::from(21));
        assert_eq!(difference(|it| it.cancellation_fee(21_000)), U256::from(21));
    }

    #[test]
    fn the_stored_text_is_read_back() {
        for text in ["5 5 +9", "5 5:5 6:6 /9:8 +10"] {
            assert_eq!(text.parse::<Ladder>().unwrap().to_string(), text);
        }
        for text in ["1010 2010:10 4012:12", "5 5", "5 5 6", "5 5:5", "5 5 /9", "5 5:5 6:6 /9:8"] {
            assert_eq!(text.parse::<Ladder>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "5",
            "5 ",
            "5 5:",
            "5 5:5 5:5",
            "x 5",
            "5 -5",
            "5 5  6",
            "5 5 /",
            "5 /9",
            "5 5 +",
            "5 5 +0",
        ] {
            assert_eq!(bad.parse::<Ladder>(), Err(ParseLadderError), "{bad}");
        }
    }
}
