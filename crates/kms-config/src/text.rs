//! Values that are written as text: for `#[serde(deserialize_with = "…")]`.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Longer than anything that is configured, and short enough to add to any time.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Deserializes a secret that parses from text. Its error must not show the text.
///
/// # Errors
/// When the text is not a `T`, or is in a TOML file that other users can read.
pub fn secret<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Secret::deserialize(deserializer)?.expose().parse().map_err(Error::custom)
}

/// Deserializes anything that parses from text. Its error must not show the text.
///
/// # Errors
/// When the text is not a `T`.
pub fn text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = Zeroizing::new(String::deserialize(deserializer)?);
    text.parse().map_err(Error::custom)
}

/// Deserializes a duration that is not zero: a whole number and `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// When the text is not such a duration.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = duration_or_zero(deserializer)?;
    if duration.is_zero() {
        return Err(Error::custom("expected more than zero"));
    }
    Ok(duration)
}

/// Deserializes a duration that may be zero.
///
/// # Errors
/// When the text is not a duration.
pub fn duration_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text)
        .ok_or_else(|| Error::custom("expected a duration, as 500ms, 45s, 10m, 72h or 35d"))
}

/// Deserializes a duration, zero as `None`.
///
/// # Errors
/// When the text is not a duration.
pub fn duration_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let duration = duration_or_zero(deserializer)?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
    (duration <= MAX_DURATION).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_bound() {
        for (text, seconds) in
            [("0s", 0), ("45s", 45), ("10m", 600), ("72h", 259_200), ("35d", 3_024_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        let bad = ["", "0", "45", "s", "-1s", "+1s", "1.5h", "1h30m", "1 h", "1H", "1w", "40000d"];
        for text in bad.into_iter().chain(["99999999999999999999s", "18446744073709551615d"]) {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
