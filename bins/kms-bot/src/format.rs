//! Amounts, dates and durations as people read them.

use std::time::Duration;

use chrono::DateTime;
use kms_types::wire::Network;
use kms_types::{Timestamp, Token, U256, Units, Wei};

use crate::chat::html::clean_name;
use crate::texts::{Count, Html, Text, html, text};

/// Formats an amount of the native coin.
pub(crate) fn coins(wei: Wei, network: &Network) -> String {
    format!("{} {}", wei.to_coins(), network.symbol)
}

/// Formats an amount of a token, or of the native coin.
pub(crate) fn amount(units: Units, token: Option<&Token>, network: &Network) -> String {
    match token {
        None => coins(Wei(units.0), network),
        Some(token) => format!("{} {}", token.to_decimal(units), token.symbol),
    }
}

/// Formats the upper bound of an amount of the native coin: rounded up to eight decimals, because
/// eighteen are unreadable.
pub(crate) fn at_most(wei: Wei, network: &Network) -> String {
    let unit = U256::from(10).pow(U256::from(10));
    coins(Wei(wei.0.div_ceil(unit).saturating_mul(unit)), network)
}

/// The symbol of a token, or of the native coin.
pub(crate) fn symbol<'a>(token: Option<&'a Token>, network: &'a Network) -> &'a str {
    token.map_or(network.symbol.as_str(), |token| token.symbol.as_str())
}

/// Formats a display name, which its owner chooses freely.
pub(crate) fn name(chosen: &str) -> Html {
    let clean = clean_name(chosen);
    if clean.is_empty() { html!("no-name") } else { html!("display-name", name = clean) }
}

/// Formats a date in UTC.
pub(crate) fn date(at: Timestamp) -> String {
    let date = DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    date.format("%-d %B %Y").to_string()
}

/// Formats a date and time in UTC.
pub(crate) fn time(at: Timestamp) -> String {
    let date = DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    date.format("%-d %b %Y, %H:%M UTC").to_string()
}

/// Formats a duration, rounded up to seconds, minutes or hours.
pub(crate) fn duration(duration: Duration) -> Text {
    match duration.as_secs() {
        seconds @ 0..120 => text!("duration-seconds", count = Count(seconds.max(1))),
        seconds @ 120..7_200 => text!("duration-minutes", count = Count(seconds.div_ceil(60))),
        seconds => text!("duration-hours", count = Count(seconds.div_ceil(3_600))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_bounds_are_rounded_up() {
        let network = Network {
            short_name: "test".to_owned(),
            name: "Test".to_owned(),
            chain_id: 1,
            symbol: "ETH".to_owned(),
            tokens: Vec::new(),
            explorer: None,
        };
        let formatted = |wei: u64| at_most(Wei(U256::from(wei)), &network);
        assert_eq!(formatted(63_000_000_000_000), "0.000063 ETH");
        assert_eq!(formatted(63_000_000_000_001), "0.00006301 ETH");
        assert_eq!(formatted(1), "0.00000001 ETH");
        assert_eq!(formatted(0), "0 ETH");
    }

    #[test]
    fn durations_are_shown_in_their_usual_unit() {
        let formatted = |seconds| duration(Duration::from_secs(seconds)).into_string();
        assert_eq!(formatted(0), "1 second");
        assert_eq!(formatted(61), "61 seconds");
        assert_eq!(formatted(899), "15 minutes");
        assert_eq!(formatted(24 * 3_600), "24 hours");
    }
}
