//! Amounts as people type them.
#![no_main]

use kms_types::{Amount, Wei};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(wei) = text.parse::<Wei>() {
        assert_eq!(wei.to_string(), text, "one number, one text");
        // Nothing is no amount, and so is what no coin has.
        if let Ok(coins) = wei.to_coins().parse::<Amount>() {
            assert_eq!(Wei::try_from(&coins), Ok(wei), "shown and read back");
        }
    }
    if let Ok(amount) = text.parse::<Amount>() {
        assert_eq!(amount.to_string().parse(), Ok(amount.clone()));
        if let Ok(units) = amount.to_units(18) {
            assert_eq!(Wei(units).to_coins(), amount.to_string(), "nothing is rounded");
            assert!(text.bytes().any(|byte| byte.is_ascii_digit()));
            assert!(!text.contains('-'), "nothing is sent backwards");
        }
    }
});
