//! Usernames and recipients as users type them.
#![no_main]

use kms_types::{Recipient, Username};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<Username>() {
        assert!(name.as_str().is_ascii());
        assert_eq!(name.canonical(), name.canonical().to_ascii_lowercase());
        let again: Username = name.as_str().parse().unwrap();
        assert_eq!(again.canonical(), name.canonical());
    }
    if let Ok(recipient) = text.parse::<Recipient>() {
        assert_eq!(recipient.to_string().parse(), Ok(recipient));
    }
});
