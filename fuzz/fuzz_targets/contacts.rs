//! Mobile numbers and e-mail addresses, and how they are shown.
#![no_main]

use kms_types::{Email, Mobile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(mobile) = text.parse::<Mobile>() {
        assert!(!mobile.masked().contains(mobile.as_str()));
    }
    if let Ok(email) = text.parse::<Email>() {
        assert!(!email.masked().contains(email.as_str()));
        assert!(!email.as_str().contains(['\r', '\n', ' ']), "a header could be made of it");
    }
});
