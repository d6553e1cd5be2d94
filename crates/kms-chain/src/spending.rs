//! Spending limits: how much an account may spend in a day. The lowest of three applies: the limit
//! of the operator, the owner's own limit, and a reduced limit for some time after a recovery. And
//! how much all accounts together may send in an hour.
//!
//! Pure rules; the store applies them inside the transaction that signs. A day is the last 24
//! hours, so that midnight does not allow the double. An owner's limit never exceeds that of the
//! operator, and a raised limit never applies before its waiting period has passed.

use std::collections::HashMap;
use std::time::Duration;

use kms_types::{AssetId, Timestamp, Token, U256, Units};

/// The period of a limit.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The period of the limit of all accounts together.
pub const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long a raised limit waits, so that an attacker who takes over an account cannot raise it at
/// once.
pub const RAISE_AFTER: Duration = DAY;

/// The limits of the operator. Other assets are unlimited, except after a recovery, when nothing of
/// them can be sent to a new recipient.
#[derive(Clone, Debug, Default)]
pub struct SpendingRules {
    /// The limits for a day.
    pub a_day: HashMap<AssetId, Units>,
    /// What all accounts together may send: a bucket of this size, which refills in [`HOUR`].
    pub outflow: HashMap<AssetId, Units>,
    /// What can be sent to new recipients after a recovery.
    pub after_recovery: HashMap<AssetId, Allowance>,
    /// How long they apply after a recovery.
    pub hold: Duration,
}

/// What an account may send in a day, after a recovery, to recipients that it had not paid before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allowance {
    /// Nothing.
    #[default]
    Nothing,
    /// Up to this amount.
    UpTo(Units),
    /// As much as at any other time.
    Unlimited,
}

/// The limits of the operator for one asset. `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// The limit for a day.
    pub a_day: Option<Units>,
    /// What can be sent to new recipients after a recovery.
    pub after_recovery: Allowance,
    /// How long it applies after a recovery.
    pub hold: Duration,
}

/// The limit that an owner set for one asset. `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLimit {
    /// The limit that applies until `later` does.
    pub units: Option<Units>,
    /// A raised limit, and the time from which on it applies.
    pub later: Option<(Option<Units>, Timestamp)>,
}

/// An amount that was signed away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    /// The amount.
    pub units: Units,
    /// When it was signed.
    pub at: Timestamp,
}

/// A payment exceeds the limit of an asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// The token; `None` is the native coin, whose spend includes the fee.
    pub token: Option<Token>,
    /// The limit.
    pub reached: LimitReached,
}

/// The limit that a payment exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReached {
    /// The limit for a day.
    pub limit: Units,
    /// The unspent part.
    pub left: Units,
    /// When the payment becomes possible if nothing else is spent; `None` if it exceeds the limit
    /// itself.
    pub possible_at: Option<Timestamp>,
    /// Whether nothing can be sent to a new recipient, because of a recovery.
    pub is_held: bool,
}

impl SpendingRules {
    /// Returns the limits for an asset.
    #[must_use]
    pub fn caps(&self, asset: AssetId) -> Caps {
        Caps {
            a_day: self.a_day.get(&asset).copied(),
            after_recovery: self.after_recovery.get(&asset).copied().unwrap_or_default(),
            hold: self.hold,
        }
    }

    /// Returns the time in which so much of what all accounts together may send is refilled; longer
    /// than [`HOUR`] if it is more than that, and `None` without such a limit.
    #[must_use]
    pub fn part_of_an_hour(&self, asset: AssetId, value: Units) -> Option<Duration> {
        let limit = *self.outflow.get(&asset)?;
        if value > limit || limit == Units::default() {
            return Some(2 * HOUR);
        }
        let hour = U256::from(HOUR.as_millis());
        let part = match value.0.checked_mul(hour) {
            Some(product) => product / limit.0,
            // The limit is far above 2^200 then.
            None => value.0 / (limit.0 / hour),
        };
        let milliseconds = u64::try_from(part).unwrap_or(u64::MAX).saturating_add(1);
        Some(Duration::from_millis(milliseconds).min(HOUR))
    }
}

impl OwnLimit {
    /// Returns the limit that applies at this time.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<Units> {
        match self.later {
            Some((units, from)) if from <= now => units,
            _ => self.units,
        }
    }

    /// Returns the limit after the owner requested another one. A lower limit applies at once, a
    /// higher one after [`RAISE_AFTER`] and not before `not_before`. Either replaces a raised limit
    /// that still waits.
    #[must_use]
    pub fn changed_to(
        &self,
        wanted: Option<Units>,
        not_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let current = self.at(now);
        let lower = match (wanted, current) {
            (Some(wanted), Some(current)) => wanted <= current,
            (Some(_), None) | (None, None) => true,
            (None, Some(_)) => false,
        };
        match lower {
            true => Self { units: wanted, later: None },
            false => Self {
                units: current,
                later: Some((wanted, not_before.unwrap_or(now).max(now.plus(RAISE_AFTER)))),
            },
        }
    }
}

/// Returns the lower of two limits; `None` is unlimited.
fn lower(one: Option<Units>, other: Option<Units>) -> Option<Units> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Caps {
    /// Whether the account was recovered so recently that payments to new recipients are limited.
    #[must_use]
    pub fn is_held(&self, recovered_at: Option<Timestamp>, now: Timestamp) -> bool {
        recovered_at.is_some_and(|at| now < at.plus(self.hold))
    }
}

/// Returns the limit for a day that applies to a new recipient at this time; `None` is unlimited.
#[must_use]
pub fn in_force(
    caps: Caps,
    own: OwnLimit,
    recovered_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Units> {
    let usual = lower(caps.a_day, own.at(now));
    if !caps.is_held(recovered_at, now) {
        return usual;
    }
    match caps.after_recovery {
        Allowance::Nothing => Some(Units::default()),
        Allowance::UpTo(units) => lower(usual, Some(units)),
        Allowance::Unlimited => usual,
    }
}

/// Returns the sum of the last 24 hours.
#[must_use]
pub fn spent(spends: &[Spend], now: Timestamp) -> Units {
    let counts = |spend: &&Spend| spend.at.plus(DAY) > now;
    let units = spends.iter().filter(counts).map(|spend| spend.units.0);
    Units(units.fold(U256::ZERO, U256::saturating_add))
}

/// Checks an amount against the limit. `spends` are those of the last day, oldest first;
/// `recovered_at` is `None` for a recipient that was paid before the recovery.
///
/// # Errors
/// When the amount exceeds the unspent part of the limit.
pub fn check(
    value: Units,
    caps: Caps,
    own: OwnLimit,
    recovered_at: Option<Timestamp>,
    spends: &[Spend],
    now: Timestamp,
) -> Result<(), LimitReached> {
    let limit_and_left = |at: Timestamp| {
        let limit = in_force(caps, own, recovered_at, at)?;
        Some((limit, Units(limit.0.saturating_sub(spent(spends, at).0))))
    };
    let Some((limit, left)) = limit_and_left(now) else { return Ok(()) };
    if value <= left {
        return Ok(());
    }
    // The unspent part grows when a spend is a day old, when the hold after a recovery ends, and
    // when a raised limit applies.
    let mut times: Vec<_> = spends.iter().map(|spend| spend.at.plus(DAY)).collect();
    times.extend(recovered_at.map(|at| at.plus(caps.hold)));
    times.extend(own.later.map(|(_, from)| from));
    times.sort_unstable();
    let fits =
        |at: &Timestamp| *at > now && limit_and_left(*at).is_none_or(|(_, left)| value <= left);
    let is_held = caps.after_recovery == Allowance::Nothing && caps.is_held(recovered_at, now);
    Err(LimitReached { limit, left, possible_at: times.into_iter().find(fits), is_held })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const COIN: AssetId = AssetId { chain_id: 1, contract: None };

    fn units(units: u64) -> Units {
        Units(U256::from(units))
    }

    fn ago(hours: u32) -> Timestamp {
        Timestamp(NOW.0 - 3_600_000 * i64::from(hours))
    }

    fn caps(a_day: u64) -> Caps {
        Caps { a_day: Some(units(a_day)), ..Caps::default() }
    }

    #[test]
    fn a_day_is_the_last_24_hours() {
        let spends = [
            Spend { units: units(5), at: ago(24) },
            Spend { units: units(3), at: ago(20) },
            Spend { units: units(2), at: ago(1) },
        ];
        let check = |value| check(units(value), caps(10), OwnLimit::default(), None, &spends, NOW);
        assert_eq!(check(5), Ok(()));
        let reached = |hours: u32| {
            let possible_at = Some(NOW.plus(hours * HOUR));
            Err(LimitReached { limit: units(10), left: units(5), possible_at, is_held: false })
        };
        assert_eq!(check(6), reached(4));
        assert_eq!(check(9), reached(23));
        let never =
            LimitReached { limit: units(10), left: units(5), possible_at: None, is_held: false };
        assert_eq!(check(11), Err(never));
        // Without a limit every amount is allowed.
        let none = Caps::default();
        assert!(
            super::check(Units(U256::MAX), none, OwnLimit::default(), None, &spends, NOW).is_ok()
        );
    }

    #[test]
    fn an_amount_is_a_part_of_an_hour() {
        let part = |value: U256, limit: U256| {
            let outflow = [(COIN, Units(limit))].into();
            let rules = SpendingRules { outflow, ..SpendingRules::default() };
            rules.part_of_an_hour(COIN, Units(value)).unwrap()
        };
        let (ten, max) = (U256::from(10), U256::MAX);
        assert_eq!(part(U256::from(5), ten), Duration::from_millis(1_800_001));
        assert_eq!(part(ten, ten), HOUR);
        assert_eq!(part(max, max), HOUR);
        assert_eq!(part(max / U256::from(2), max).as_secs(), 1_800);
        assert_eq!(part(U256::ONE, max), Duration::from_millis(1));
        for (value, limit) in [(U256::from(11), ten), (U256::ONE, U256::ZERO), (max, ten)] {
            assert!(part(value, limit) > HOUR);
        }
        assert_eq!(SpendingRules::default().part_of_an_hour(COIN, units(1)), None);
    }

    #[test]
    fn sums_do_not_overflow() {
        let spends = [Spend { units: Units(U256::MAX), at: ago(1) }; 2];
        let reached = check(units(1), caps(10), OwnLimit::default(), None, &spends, NOW);
        assert_eq!(reached.unwrap_err().left, units(0));
    }

    #[test]
    fn a_lower_limit_applies_at_once_and_a_higher_one_after_a_day() {
        let none = OwnLimit::default();
        let five = none.changed_to(Some(units(5)), None, NOW);
        assert_eq!(five, OwnLimit { units: Some(units(5)), later: None });
        let raised = five.changed_to(Some(units(9)), None, NOW);
        assert_eq!(raised.at(NOW), Some(units(5)));
        assert_eq!(raised.at(NOW.plus(RAISE_AFTER)), Some(units(9)));
        assert_eq!(raised.at(Timestamp(NOW.plus(RAISE_AFTER).0 - 1)), Some(units(5)));
        // A second raise restarts the waiting period, and a lower limit cancels the raise.
        let again = raised.changed_to(Some(units(8)), None, NOW.plus(HOUR));
        assert_eq!(again.later, Some((Some(units(8)), NOW.plus(HOUR).plus(RAISE_AFTER))));
        let lowered = raised.changed_to(Some(units(4)), None, NOW);
        assert_eq!(lowered, OwnLimit { units: Some(units(4)), later: None });
        // No limit counts as the highest limit.
        let lifted = five.changed_to(None, None, NOW);
        assert_eq!((lifted.at(NOW), lifted.at(NOW.plus(RAISE_AFTER))), (Some(units(5)), None));
        assert_eq!(none.changed_to(None, None, NOW), none);
        // No raise applies within the hold after a recovery.
        let held = Some(NOW.plus(3 * DAY));
        assert_eq!(five.changed_to(None, held, NOW).later, Some((None, NOW.plus(3 * DAY))));
    }

    #[test]
    fn an_owners_limit_never_exceeds_that_of_the_operator() {
        let own = OwnLimit { units: Some(units(100)), later: None };
        assert_eq!(in_force(caps(10), own, None, NOW), Some(units(10)));
        assert_eq!(in_force(Caps::default(), own, None, NOW), Some(units(100)));
        assert_eq!(in_force(caps(10), OwnLimit::default(), None, NOW), Some(units(10)));
    }

    #[test]
    fn the_limit_is_reduced_for_some_time_after_a_recovery() {
        let after_recovery = Allowance::UpTo(units(1));
        let caps = Caps { after_recovery, hold: 72 * HOUR, ..caps(10) };
        let check =
            |value, recovered| check(units(value), caps, OwnLimit::default(), recovered, &[], NOW);
        assert!(check(2, Some(ago(72))).is_ok() && check(1, Some(ago(1))).is_ok());
        let reached = check(2, Some(ago(71))).unwrap_err();
        assert_eq!((reached.limit, reached.possible_at), (units(1), Some(NOW.plus(HOUR))));
        assert!(check(11, Some(ago(71))).unwrap_err().possible_at.is_none());
    }

    #[test]
    fn nothing_can_be_sent_after_a_recovery_unless_the_operator_allows_it() {
        let check = |after_recovery, recovered| {
            let caps = Caps { after_recovery, hold: 72 * HOUR, ..Caps::default() };
            check(units(1), caps, OwnLimit::default(), recovered, &[], NOW)
        };
        let held = check(Allowance::default(), Some(ago(1))).unwrap_err();
        assert!(held.is_held && held.limit == units(0));
        assert_eq!(held.possible_at, Some(NOW.plus(71 * HOUR)));
        assert_eq!(check(Allowance::Unlimited, Some(ago(1))), Ok(()));
        for recovered in [None, Some(ago(72))] {
            assert_eq!(check(Allowance::default(), recovered), Ok(()));
        }
    }
}
