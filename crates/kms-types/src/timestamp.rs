//! A point in time, as it is sent and stored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z (UTC).
///
/// JSON holds it as an integer from 0 to 2^53 - 1, the integers that every JSON parser reads
/// exactly; other values are refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "i64", into = "i64")]
pub struct Timestamp(pub i64);

/// The number is not a time of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is a whole number of milliseconds since 1970, from 0 to 2^53 - 1")]
pub struct TimestampError;

impl Timestamp {
    /// The greatest value in JSON: 2^53 - 1.
    pub const MAX_WIRE: i64 = (1 << 53) - 1;

    /// Returns the time `later` after this one; saturates.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time `earlier` before this one; saturates.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(earlier.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time that passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl TryFrom<i64> for Timestamp {
    type Error = TimestampError;

    fn try_from(milliseconds: i64) -> Result<Self, TimestampError> {
        if (0..=Self::MAX_WIRE).contains(&milliseconds) {
            Ok(Self(milliseconds))
        } else {
            Err(TimestampError)
        }
    }
}

impl From<Timestamp> for i64 {
    fn from(time: Timestamp) -> i64 {
        time.0
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(0).plus(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_times_are_milliseconds_since_1970() {
        assert_eq!(serde_json::from_str::<Timestamp>("5").unwrap(), Timestamp(5));
        assert_eq!(serde_json::to_string(&Timestamp(5)).unwrap(), "5");
        for bad in ["-1", "9007199254740992", "1.5", "\"5\""] {
            assert!(serde_json::from_str::<Timestamp>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).since(Timestamp(5)), Duration::from_millis(4));
        assert_eq!(Timestamp(i64::MAX).plus(Duration::from_secs(1)), Timestamp(i64::MAX));
        assert_eq!(Timestamp(1_500).minus(Duration::from_secs(1)), Timestamp(500));
    }
}
