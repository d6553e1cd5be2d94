//! Addresses, with and without a checksum.
#![no_main]

use kms_types::EthAddress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<EthAddress>() {
        assert!(address.to_string().eq_ignore_ascii_case(text), "{text} parsed as another address");
        assert_eq!(address.to_string().parse(), Ok(address));
        let digits = &text[2..];
        let mixed = digits.bytes().any(|b| b.is_ascii_uppercase())
            && digits.bytes().any(|b| b.is_ascii_lowercase());
        assert!(!mixed || address.to_string() == text, "a wrong checksum was accepted");
    }
});
