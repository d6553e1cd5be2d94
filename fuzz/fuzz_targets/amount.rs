//! Amounts as users type them.
#![no_main]

use kms_types::{Amount, Wei};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(wei) = text.parse::<Wei>() {
        assert_eq!(wei.to_string(), text, "a number has one text");
        // Zero does not parse as an amount, nor do values beyond its bound.
        if let Ok(coins) = wei.to_coins().parse::<Amount>() {
            assert_eq!(Wei::try_from(&coins), Ok(wei), "the display parses to the same number");
        }
    }
    if let Ok(amount) = text.parse::<Amount>() {
        assert_eq!(amount.to_string().parse(), Ok(amount.clone()));
        if let Ok(units) = amount.to_units(18) {
            assert_eq!(Wei(units).to_coins(), amount.to_string(), "an amount is not rounded");
            assert!(text.bytes().any(|byte| byte.is_ascii_digit()));
            assert!(!text.contains('-'), "an amount is not negative");
        }
    }
});
