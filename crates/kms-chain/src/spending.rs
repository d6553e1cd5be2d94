//! How much an account may spend in a day: what the operator allows, what its owner wants, and less
//! for some time after a recovery. Pure: stores ask here inside the transaction that signs.
//!
//! A day is the last 24 hours, so that no midnight lets twice as much go. This module must never
//! let an owner's wish exceed what the operator allows, nor a raise come before its time.

use std::collections::HashMap;
use std::time::Duration;

use kms_types::{EthAddress, Timestamp, Token, U256, Units};

/// What a limit is about.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a higher limit waits: whoever takes over an account must not raise it at once.
pub const RAISE_AFTER: Duration = DAY;

/// What the operator allows, by token contract; the native coin has none. An asset that is not
/// named has no limit.
#[derive(Clone, Debug, Default)]
pub struct SpendingRules {
    /// In a day.
    pub a_day: HashMap<Option<EthAddress>, Units>,
    /// In a day, for some time after a recovery.
    pub after_recovery: HashMap<Option<EthAddress>, Units>,
    /// For how long after it.
    pub hold: Duration,
}

/// What the operator allows of one asset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// In a day.
    pub a_day: Option<Units>,
    /// In a day, for `hold` after a recovery.
    pub after_recovery: Option<Units>,
    /// For how long after it.
    pub hold: Duration,
}

/// What an owner set for one asset. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLimit {
    /// In force, until `later` is.
    pub units: Option<Units>,
    /// A higher one, and from when on it is in force.
    pub later: Option<(Option<Units>, Timestamp)>,
}

/// Money that was signed away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    /// How much.
    pub units: Units,
    /// When.
    pub at: Timestamp,
}

/// A payment takes more of an asset than may be spent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// Of which token; `None` is the native coin, of which the fee is a part.
    pub token: Option<Token>,
    /// What may be spent of it.
    pub reached: LimitReached,
}

/// What may be spent, where a payment is more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReached {
    /// What may be spent in a day.
    pub limit: Units,
    /// What is left of it now.
    pub left: Units,
    /// When this payment will be possible, if nothing else is spent meanwhile; `None` if it is more
    /// than the limit.
    pub possible_at: Option<Timestamp>,
}

impl SpendingRules {
    /// What the operator allows of an asset.
    #[must_use]
    pub fn caps(&self, token: Option<&Token>) -> Caps {
        let asset = token.map(|token| token.address);
        Caps {
            a_day: self.a_day.get(&asset).copied(),
            after_recovery: self.after_recovery.get(&asset).copied(),
            hold: self.hold,
        }
    }
}

impl OwnLimit {
    /// What is in force at this time.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<Units> {
        match self.later {
            Some((units, from)) if from <= now => units,
            _ => self.units,
        }
    }

    /// The limit after its owner asked for another one: a lower one at once, a higher one later. A
    /// raise that still waits is given up by either. None is in force `not_before`.
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

/// The lower of two limits, either of which may be none.
fn lower(one: Option<Units>, other: Option<Units>) -> Option<Units> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What may be spent in a day at this time; `None` is no limit.
#[must_use]
pub fn in_force(
    caps: Caps,
    own: OwnLimit,
    recovered_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Units> {
    let held = recovered_at.is_some_and(|at| now < at.plus(caps.hold));
    let usual = lower(caps.a_day, own.at(now));
    if held { lower(usual, caps.after_recovery) } else { usual }
}

/// How much was spent in the day that ends now.
#[must_use]
pub fn spent(spends: &[Spend], now: Timestamp) -> Units {
    let counts = |spend: &&Spend| spend.at.plus(DAY) > now;
    let units = spends.iter().filter(counts).map(|spend| spend.units.0);
    Units(units.fold(U256::ZERO, U256::saturating_add))
}

/// Whether this much may be spent now. `spends` are those of the last day, oldest first.
///
/// # Errors
/// When it may not: what the limit is, and when it will do.
pub fn check(
    value: Units,
    caps: Caps,
    own: OwnLimit,
    recovered_at: Option<Timestamp>,
    spends: &[Spend],
    now: Timestamp,
) -> Result<(), LimitReached> {
    let room = |at: Timestamp| {
        let limit = in_force(caps, own, recovered_at, at)?;
        Some((limit, Units(limit.0.saturating_sub(spent(spends, at).0))))
    };
    let Some((limit, left)) = room(now) else { return Ok(()) };
    if value <= left {
        return Ok(());
    }
    // Room grows when a spend is a day old, when a hold ends, and when a raise comes into force.
    let mut times: Vec<_> = spends.iter().map(|spend| spend.at.plus(DAY)).collect();
    times.extend(recovered_at.map(|at| at.plus(caps.hold)));
    times.extend(own.later.map(|(_, from)| from));
    times.sort_unstable();
    let fits = |at: &Timestamp| *at > now && room(*at).is_none_or(|(_, left)| value <= left);
    Err(LimitReached { limit, left, possible_at: times.into_iter().find(fits) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

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
            Err(LimitReached { limit: units(10), left: units(5), possible_at })
        };
        assert_eq!(check(6), reached(4));
        assert_eq!(check(9), reached(23));
        let never = LimitReached { limit: units(10), left: units(5), possible_at: None };
        assert_eq!(check(11), Err(never));
        // Without a limit nothing is counted.
        let none = Caps::default();
        assert!(
            super::check(Units(U256::MAX), none, OwnLimit::default(), None, &spends, NOW).is_ok()
        );
    }

    #[test]
    fn sums_do_not_overflow() {
        let spends = [Spend { units: Units(U256::MAX), at: ago(1) }; 2];
        let reached = check(units(1), caps(10), OwnLimit::default(), None, &spends, NOW);
        assert_eq!(reached.unwrap_err().left, units(0));
    }

    #[test]
    fn a_lower_limit_holds_at_once_and_a_higher_one_after_a_day() {
        let none = OwnLimit::default();
        let five = none.changed_to(Some(units(5)), None, NOW);
        assert_eq!(five, OwnLimit { units: Some(units(5)), later: None });
        let raised = five.changed_to(Some(units(9)), None, NOW);
        assert_eq!(raised.at(NOW), Some(units(5)));
        assert_eq!(raised.at(NOW.plus(RAISE_AFTER)), Some(units(9)));
        assert_eq!(raised.at(Timestamp(NOW.plus(RAISE_AFTER).0 - 1)), Some(units(5)));
        // A second wish begins the wait anew, and a lower one ends it.
        let again = raised.changed_to(Some(units(8)), None, NOW.plus(HOUR));
        assert_eq!(again.later, Some((Some(units(8)), NOW.plus(HOUR).plus(RAISE_AFTER))));
        let lowered = raised.changed_to(Some(units(4)), None, NOW);
        assert_eq!(lowered, OwnLimit { units: Some(units(4)), later: None });
        // No limit at all is the highest.
        let lifted = five.changed_to(None, None, NOW);
        assert_eq!((lifted.at(NOW), lifted.at(NOW.plus(RAISE_AFTER))), (Some(units(5)), None));
        assert_eq!(none.changed_to(None, None, NOW), none);
        // Not within the hold after a recovery.
        let held = Some(NOW.plus(3 * DAY));
        assert_eq!(five.changed_to(None, held, NOW).later, Some((None, NOW.plus(3 * DAY))));
    }

    #[test]
    fn no_wish_exceeds_what_the_operator_allows() {
        let own = OwnLimit { units: Some(units(100)), later: None };
        assert_eq!(in_force(caps(10), own, None, NOW), Some(units(10)));
        assert_eq!(in_force(Caps::default(), own, None, NOW), Some(units(100)));
        assert_eq!(in_force(caps(10), OwnLimit::default(), None, NOW), Some(units(10)));
    }

    #[test]
    fn after_a_recovery_less_goes_for_a_while() {
        let caps = Caps { after_recovery: Some(units(1)), hold: 72 * HOUR, ..caps(10) };
        let check =
            |value, recovered| check(units(value), caps, OwnLimit::default(), recovered, &[], NOW);
        assert!(check(2, Some(ago(72))).is_ok() && check(1, Some(ago(1))).is_ok());
        let reached = check(2, Some(ago(71))).unwrap_err();
        assert_eq!((reached.limit, reached.possible_at), (units(1), Some(NOW.plus(HOUR))));
        assert!(check(11, Some(ago(71))).unwrap_err().possible_at.is_none());
    }
}
