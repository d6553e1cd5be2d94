//! The fee ladder: the prices at which the transactions of one transfer are signed. The
//! replacements are signed in advance, because the key is no longer available when the first price
//! proves too low.

use std::iter::successors;

use kms_types::{U256, Wei};

/// The number of transactions in a new ladder.
const STEPS: usize = 4;

/// Prices of an EIP-1559 transaction, in wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// `maxFeePerGas`.
    pub max_fee_per_gas: u128,
    /// `maxPriorityFeePerGas`.
    pub max_priority_fee_per_gas: u128,
}

/// Prices that rise from step to step, by enough that every node accepts a step as a replacement of
/// the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    first: Fees,
    top: Fees,
}

impl Fees {
    /// The highest fee for this gas limit.
    #[must_use]
    pub fn max_fee(&self, gas_limit: u64) -> Wei {
        Wei(U256::from(self.max_fee_per_gas).saturating_mul(U256::from(gas_limit)))
    }

    fn bumped(self) -> Self {
        Self {
            max_fee_per_gas: bumped(self.max_fee_per_gas),
            max_priority_fee_per_gas: bumped(self.max_priority_fee_per_gas),
        }
    }

    fn is_within(self, other: Self) -> bool {
        self.max_fee_per_gas <= other.max_fee_per_gas
            && self.max_priority_fee_per_gas <= other.max_priority_fee_per_gas
    }
}

/// Adds an eighth, rounded up, and at least 1. The strictest nodes require 12.5 % more for a
/// replacement, and all of them require an increase of both prices.
fn bumped(price: u128) -> u128 {
    price.saturating_add(price.div_ceil(8).max(1))
}

impl Ladder {
    /// Makes a full ladder from its lowest prices.
    #[must_use]
    pub fn rising_from(first: Fees) -> Self {
        let top = (1..STEPS).fold(first, |fees, _| fees.bumped());
        Self { first, top }
    }

    /// Makes a ladder from its stored limits; `None` if its top is below its first step.
    #[must_use]
    pub fn between(first: Fees, top: Fees) -> Option<Self> {
        first.is_within(top).then_some(Self { first, top })
    }

    /// The lowest prices.
    #[must_use]
    pub fn first(&self) -> Fees {
        self.first
    }

    /// The highest prices, which the sender must be able to pay.
    #[must_use]
    pub fn top(&self) -> Fees {
        self.top
    }

    /// The prices of the replacements, lowest first.
    pub fn replacements(&self) -> impl Iterator<Item = Fees> + use<> {
        let top = self.top;
        let next = move |fees: &Fees| {
            Some(fees.bumped()).filter(|bumped| bumped != fees && bumped.is_within(top))
        };
        successors(Some(self.first), next).take(STEPS).skip(1)
    }

    /// The prices of a step, counted from 0; `None` above the top.
    #[must_use]
    pub fn step(&self, step: u32) -> Option<Fees> {
        match usize::try_from(step) {
            Ok(0) => Some(self.first),
            Ok(step) => self.replacements().nth(step - 1),
            Err(_too_large) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fees(max_fee_per_gas: u128, max_priority_fee_per_gas: u128) -> Fees {
        Fees { max_fee_per_gas, max_priority_fee_per_gas }
    }

    #[test]
    fn four_steps_rise_to_the_top() {
        let ladder = Ladder::rising_from(fees(1_000_000_000, 8));
        let steps: Vec<_> = (0..4).map_while(|step| ladder.step(step)).collect();
        assert_eq!(
            steps,
            [
                fees(1_000_000_000, 8),
                fees(1_125_000_000, 9),
                fees(1_265_625_000, 11),
                fees(1_423_828_125, 13),
            ]
        );
        assert_eq!((ladder.first(), ladder.top()), (steps[0], steps[3]));
        assert_eq!(ladder.step(4), None);
    }

    #[test]
    fn every_step_adds_an_eighth_to_odd_and_tiny_prices_too() {
        for price in (0..1_000).chain([u128::from(u64::MAX) - 1, 7_777_777_777]) {
            let more = bumped(price) - price;
            assert!(more >= 1 && more * 8 >= price && (more - 1) * 8 <= price, "{price}");
        }
        // At the highest price there is no replacement instead of a repeated one.
        let ladder = Ladder::rising_from(fees(u128::MAX, u128::MAX));
        assert_eq!(ladder.replacements().count(), 0);
    }

    #[test]
    fn a_stored_ladder_has_the_same_steps() {
        let ladder = Ladder::rising_from(fees(1_001, 3));
        assert_eq!(Ladder::between(ladder.first(), ladder.top()), Some(ladder));
        assert_eq!(Ladder::between(ladder.top(), ladder.first()), None);
        let one = Ladder::between(fees(1_001, 3), fees(1_001, 3)).unwrap();
        assert_eq!((one.replacements().count(), one.top()), (0, one.first()));
    }
}
