//! Mobile numbers and e-mail addresses, and their masked forms.
#![no_main]

use kms_types::{Email, Mobile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(mobile) = text.parse::<Mobile>() {
        assert!(!mobile.masked().contains(mobile.as_str()));
    }
    if let Ok(email) = text.parse::<Email>() {
        assert!(!email.masked().contains(email.as_str()));
        assert!(!email.as_str().contains(['\r', '\n', ' ']), "an address could inject a header");
    }
});
