//! Chooses the prices of a fee ladder: what the market asks, within what the operator allows.

use kms_types::{U256, Wei};

use crate::ladder::{Fees, Ladder};

/// The ceilings of the steps, as multiples of the base fee. A high ceiling costs only a higher
/// reservation: the network charges the base fee of the block.
const CEILINGS: [u128; 3] = [2, 4, 8];

/// A price that no sender notices, in wei per gas. Base fees below it need not be similar.
const NEGLIGIBLE: u128 = 1_000_000;

/// What the operator allows for the fees of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PricePolicy {
    /// The maximum fee of a transfer; `None` is unlimited.
    pub max_fee: Option<Wei>,
    /// The maximum fee of the second and later steps, in percent of an amount in the native coin.
    pub max_share: u8,
    /// The lowest tip, in wei per gas.
    pub min_tip: u128,
}

/// What transactions in the latest blocks paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Market {
    /// On a chain with a base fee.
    Dynamic {
        /// The base fee of the latest block, in wei per gas.
        base_fee: u128,
        /// Tips that rise: the first usually suffices, the last one nearly always.
        tips: [u128; 3],
    },
    /// On a chain without one.
    Legacy {
        /// The gas price.
        price: u128,
    },
}

/// Even the lowest fee that the network asks exceeds [`PricePolicy::max_fee`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network asks for a higher fee than the operator allows")]
pub struct FeeTooHigh;

impl Market {
    /// Returns what at least so many endpoints agree on. Each number is the middle one, so that one
    /// of three can neither raise nor lower it. Two endpoints have to report similar prices, and
    /// the lower one is used. Endpoints that omit the base fee count only if all of them do.
    pub(crate) fn agreed(reported: &[Self], least: usize) -> Option<Self> {
        let dynamic: Vec<(u128, [u128; 3])> = reported
            .iter()
            .filter_map(|market| match market {
                Self::Dynamic { base_fee, tips } => Some((*base_fee, *tips)),
                Self::Legacy { .. } => None,
            })
            .collect();
        if dynamic.is_empty() {
            let prices = reported.iter().map(|market| market.usual()).collect();
            return similar(prices, least).map(|price| Self::Legacy { price });
        }
        let base_fee = similar(dynamic.iter().map(|(base_fee, _)| *base_fee).collect(), least)?;
        let tip = |of: fn([u128; 3]) -> u128| middle(dynamic.iter().map(|it| of(it.1)).collect());
        let tips = [tip(|[tip, _, _]| tip)?, tip(|[_, tip, _]| tip)?, tip(|[_, _, tip]| tip)?];
        Some(Self::Dynamic { base_fee, tips })
    }

    /// The price that is expected to be paid.
    fn usual(self) -> u128 {
        match self {
            Self::Dynamic { base_fee, tips: [tip, ..] } => base_fee.saturating_add(tip),
            Self::Legacy { price } => price,
        }
    }

    /// Raises the tips to `least`.
    fn with_min_tip(self, least: u128) -> Self {
        match self {
            Self::Dynamic { base_fee, tips } => {
                Self::Dynamic { base_fee, tips: tips.map(|tip| tip.max(least)) }
            }
            Self::Legacy { price } => Self::Legacy { price: price.max(least) },
        }
    }

    /// The prices of the steps, before limits.
    fn steps(self) -> Vec<Fees> {
        match self {
            Self::Dynamic { base_fee, tips } => CEILINGS
                .into_iter()
                .zip(tips)
                .map(|(multiple, tip)| Fees::Dynamic {
                    ceiling: base_fee.saturating_mul(multiple).saturating_add(tip),
                    tip,
                })
                .collect(),
            // Such a price is paid in full, so these steps rise slowly.
            Self::Legacy { price } => {
                let raised = |price: u128| price.saturating_add(price.div_ceil(4));
                [price, raised(price), raised(raised(price))]
                    .map(|price| Fees::Legacy { price })
                    .to_vec()
            }
        }
    }
}

/// The middle one of at least so many prices. `None` if they are fewer, or if the ladder above the
/// lower one of two does not reach the higher one: then one of them is false.
fn similar(prices: Vec<u128>, least: usize) -> Option<u128> {
    let [.., highest] = CEILINGS;
    let reach = |low: u128| low.saturating_mul(highest).saturating_add(NEGLIGIBLE);
    let is_one_false = match *prices {
        [one, other] => one.max(other) > reach(one.min(other)),
        _ => false,
    };
    if prices.len() < least || is_one_false { None } else { middle(prices) }
}

/// The middle one of the values, the lower of the middle two.
pub(crate) fn middle(mut values: Vec<u128>) -> Option<u128> {
    values.sort_unstable();
    let index = values.len().checked_sub(1)? / 2;
    values.get(index).copied()
}

impl PricePolicy {
    /// Chooses the steps: as many as fit below the maximum fee and, from the second on, below
    /// `spare`. With `above`, the first step replaces a transaction at these prices.
    pub(crate) fn ladder(
        &self,
        market: Market,
        gas_limit: u64,
        spare: Wei,
        above: Option<Fees>,
    ) -> Result<Ladder, FeeTooHigh> {
        let market = market.with_min_tip(self.min_tip);
        let limit = per_gas(self.max_fee, gas_limit);
        let spare_limit = per_gas(Some(spare), gas_limit).min(limit);
        let mut steps = market.steps().into_iter();
        let first = steps.next().ok_or(FeeTooHigh)?;
        let first = above.map_or(first, |above| first.at_least(above.bumped()));
        let first = first.at_most(limit);
        let covers = first.ceiling() >= market.usual();
        if !covers || above.is_some_and(|above| !first.replaces(above)) {
            return Err(FeeTooHigh);
        }
        let mut replacements: Vec<Fees> = Vec::new();
        for step in steps {
            let before = replacements.last().copied().unwrap_or(first);
            let step = step.at_least(before.bumped()).at_most(spare_limit);
            if !step.replaces(before) {
                break;
            }
            replacements.push(step);
        }
        Ladder::new(market.usual(), first, replacements).ok_or(FeeTooHigh)
    }

    /// Chooses one price that is paid in full, so that a payment of the whole balance leaves
    /// nothing behind.
    pub(crate) fn one_price(&self, market: Market, gas_limit: u64) -> Result<Ladder, FeeTooHigh> {
        let market = market.with_min_tip(self.min_tip);
        let fees = match market {
            Market::Dynamic { base_fee, .. } => {
                // The base fee may rise by a half, as in three or four full blocks.
                let price = market.usual().saturating_add(base_fee.div_ceil(2));
                Fees::Dynamic { ceiling: price, tip: price }
            }
            Market::Legacy { price } => Fees::Legacy { price },
        };
        let fees = fees.at_most(per_gas(self.max_fee, gas_limit));
        if fees.ceiling() < market.usual() {
            return Err(FeeTooHigh);
        }
        Ladder::new(fees.ceiling(), fees, Vec::new()).ok_or(FeeTooHigh)
    }

    /// The same policy for the price of gas, beside the data fee of the chain.
    pub(crate) fn beside(&self, data_fee: Wei) -> Self {
        let left = |max: Wei| max.checked_sub(data_fee).unwrap_or_default();
        Self { max_fee: self.max_fee.map(left), ..*self }
    }

    /// The maximum fee of the second and later steps for this amount.
    pub(crate) fn share_of(&self, amount: Wei) -> Wei {
        let share = amount.0.checked_mul(U256::from(self.max_share));
        Wei(share.map_or(U256::MAX, |share| share / U256::from(100)))
    }
}

/// The maximum fee of a ladder whose cancellation costs at most `limit`: the cancellation is an
/// eighth above the top step, rounded up for each unit of gas.
pub(crate) fn below_cancellation(limit: Wei, gas_limit: u64) -> Wei {
    let (gas, nine) = (U256::from(gas_limit), U256::from(9));
    let price = limit.0.checked_div(gas).unwrap_or_default();
    let eighths = U256::from(8);
    Wei((price / nine * eighths + price % nine * eighths / nine) * gas)
}

/// The highest price at which the fee stays within the limit.
fn per_gas(limit: Option<Wei>, gas_limit: u64) -> u128 {
    let Some(limit) = limit else { return u128::MAX };
    let price = limit.0.checked_div(U256::from(gas_limit)).unwrap_or(U256::MAX);
    u128::try_from(price).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GWEI: u128 = 1_000_000_000;
    const MARKET: Market =
        Market::Dynamic { base_fee: 10 * GWEI, tips: [GWEI, 2 * GWEI, 3 * GWEI] };
    const RICH: Wei = Wei(U256::MAX);
    const NO_LIMIT: PricePolicy = PricePolicy { max_fee: None, max_share: 100, min_tip: 0 };

    fn fees(ceiling: u128, tip: u128) -> Fees {
        Fees::Dynamic { ceiling: ceiling * GWEI, tip: tip * GWEI }
    }

    fn wei(wei: u128) -> Wei {
        Wei(U256::from(wei))
    }

    fn steps(ladder: &Ladder) -> Vec<Fees> {
        std::iter::once(ladder.first()).chain(ladder.replacements()).collect()
    }

    #[test]
    fn ceilings_are_multiples_of_the_base_fee_apart_from_tips() {
        let ladder = NO_LIMIT.ladder(MARKET, 21_000, RICH, None).unwrap();
        assert_eq!(steps(&ladder), [fees(21, 1), fees(42, 2), fees(83, 3)]);
        assert_eq!(ladder.usual_fee(1), wei(11 * GWEI));
        // Tips that do not rise are raised by as much as nodes require.
        let flat = Market::Dynamic { base_fee: 10 * GWEI, tips: [8 * GWEI; 3] };
        let ladder = NO_LIMIT.ladder(flat, 21_000, RICH, None).unwrap();
        assert_eq!(steps(&ladder)[1].tip(), 9 * GWEI);
        let floor = PricePolicy { min_tip: 30 * GWEI, ..NO_LIMIT };
        let ladder = floor.ladder(MARKET, 21_000, RICH, None).unwrap();
        assert_eq!(ladder.first(), fees(50, 30));
    }

    #[test]
    fn steps_end_at_the_maximum_fee_and_at_the_share_of_the_amount() {
        let limited = PricePolicy { max_fee: Some(wei(60 * GWEI * 100)), ..NO_LIMIT };
        let ladder = limited.ladder(MARKET, 100, RICH, None).unwrap();
        assert_eq!(steps(&ladder), [fees(21, 1), fees(42, 2), fees(60, 3)]);
        // A tenth of the amount is the fee of 44 gwei a gas: less than an eighth above step two.
        let share = PricePolicy { max_share: 10, ..NO_LIMIT };
        let spare = share.share_of(wei(44 * GWEI * 100 * 10));
        let ladder = share.ladder(MARKET, 100, spare, None).unwrap();
        assert_eq!(steps(&ladder), [fees(21, 1), fees(42, 2)]);
        // The share never refuses the first step; the maximum fee does below what is usual.
        assert_eq!(steps(&share.ladder(MARKET, 100, wei(1), None).unwrap()), [fees(21, 1)]);
        let at = |price: u128| PricePolicy { max_fee: Some(wei(price * 100)), ..NO_LIMIT };
        let low = at(11 * GWEI).ladder(MARKET, 100, RICH, None).unwrap();
        assert_eq!(steps(&low), [fees(11, 1)]);
        assert_eq!(at(11 * GWEI - 1).ladder(MARKET, 100, RICH, None), Err(FeeTooHigh));
    }

    #[test]
    fn a_new_ladder_replaces_the_prices_below_it() {
        let ladder = NO_LIMIT.ladder(MARKET, 100, RICH, Some(fees(80, 8))).unwrap();
        assert_eq!(ladder.first(), fees(90, 9));
        assert!(ladder.replacements().next().unwrap().replaces(fees(90, 9)));
        let limited = PricePolicy { max_fee: Some(wei(85 * GWEI * 100)), ..NO_LIMIT };
        assert_eq!(limited.ladder(MARKET, 100, RICH, Some(fees(80, 8))), Err(FeeTooHigh));
    }

    #[test]
    fn one_price_is_paid_in_full() {
        let ladder = NO_LIMIT.one_price(MARKET, 21_000).unwrap();
        assert_eq!(steps(&ladder), [fees(16, 16)]);
        assert_eq!(ladder.usual_fee(21_000), ladder.top().max_fee(21_000));
    }

    #[test]
    fn a_chain_without_a_base_fee_has_legacy_prices() {
        let ladder = NO_LIMIT.ladder(Market::Legacy { price: 100 }, 21_000, RICH, None).unwrap();
        let legacy = |price| Fees::Legacy { price };
        assert_eq!(steps(&ladder), [legacy(100), legacy(125), legacy(157)]);
        let one = NO_LIMIT.one_price(Market::Legacy { price: 100 }, 21_000).unwrap();
        assert_eq!(steps(&one), [legacy(100)]);
    }

    #[test]
    fn the_cancellation_of_a_clipped_ladder_is_affordable() {
        let dear = Market::Dynamic { base_fee: 4 * GWEI, tips: [GWEI; 3] };
        let available = wei(900_000_000_056_250);
        let ladder = NO_LIMIT.ladder(dear, 50_000, below_cancellation(available, 50_000), None);
        let ladder = ladder.unwrap();
        assert_eq!(ladder.top().ceiling(), 16_000_000_000);
        assert_eq!(ladder.cancellation().max_fee(50_000), wei(900_000_000_000_000));
        // Exactly: at every remainder, and with one wei more for each unit of gas it does not fit.
        for limit in 0..2_000 {
            let top = below_cancellation(wei(limit), 7).0 / U256::from(7);
            let cancellation = |top: U256| {
                let price = u128::try_from(top).unwrap();
                Fees::Legacy { price }.bumped().max_fee(7)
            };
            if limit >= 7 {
                assert!(cancellation(top) <= wei(limit), "{limit}");
            }
            assert!(cancellation(top + U256::ONE) > wei(limit), "{limit}");
        }
        assert_eq!(below_cancellation(wei(1), 0), wei(0));
        assert!(below_cancellation(RICH, 21_000).0 < RICH.0);
    }

    #[test]
    fn one_endpoint_of_several_sets_no_price() {
        let other = |base_fee, tip| Market::Dynamic { base_fee, tips: [tip; 3] };
        let agreed = |reported: &[Market]| match Market::agreed(reported, 2) {
            Some(Market::Dynamic { base_fee, tips: [tip, ..] }) => {
                Some((base_fee / GWEI, tip / GWEI))
            }
            Some(Market::Legacy { .. }) => panic!("legacy"),
            None => None,
        };
        let (high, low) = (other(900 * GWEI, 500 * GWEI), other(GWEI, 0));
        let honest = other(11 * GWEI, 2 * GWEI);
        assert_eq!(agreed(&[MARKET]), None);
        assert_eq!(agreed(&[MARKET, honest]), Some((10, 1)));
        for liar in [high, low] {
            assert_eq!(agreed(&[MARKET, liar]), None);
            assert_eq!(agreed(&[liar, honest]), None);
        }
        for order in [[high, MARKET, honest], [MARKET, honest, high]] {
            assert_eq!(agreed(&order), Some((11, 2)));
        }
        assert_eq!(agreed(&[MARKET, low, honest]), Some((10, 1)));
        // Tips below the one of the other endpoint are raised to the operator's floor.
        assert_eq!(agreed(&[MARKET, other(10 * GWEI, 0)]), Some((10, 0)));
        // Where one endpoint is configured, it suffices.
        assert_eq!(Market::agreed(&[high], 1), Some(high));
        // A difference of some hundred wei is no sign of a lie.
        assert_eq!(Market::agreed(&[other(0, 0), other(700, 0)], 2), Some(other(0, 0)));
    }

    #[test]
    fn an_endpoint_that_omits_the_base_fee_decides_nothing() {
        let liar = Market::Legacy { price: 10_000 * GWEI };
        assert_eq!(Market::agreed(&[liar, MARKET, MARKET], 2), Some(MARKET));
        assert_eq!(Market::agreed(&[liar, MARKET], 2), None);
        // On a chain without a base fee all of them omit it.
        let honest = Market::Legacy { price: 20 };
        assert_eq!(Market::agreed(&[liar, honest, honest], 2), Some(honest));
        assert_eq!(Market::agreed(&[liar, honest], 2), None);
        assert_eq!(Market::agreed(&[honest, honest], 2), Some(honest));
    }
}
