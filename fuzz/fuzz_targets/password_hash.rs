//! Password hashes as clients send them.
#![no_main]

use kms_types::PasswordHash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let json = serde_json::to_string(text).unwrap();
    match serde_json::from_str::<PasswordHash>(&json) {
        Ok(hash) => assert_eq!(serde_json::to_string(&hash).unwrap(), json, "a hash has one text"),
        Err(error) => {
            let message = error.to_string().into_bytes();
            let digits = |run: &[u8]| run.iter().all(u8::is_ascii_hexdigit);
            assert!(!message.windows(16).any(digits), "an error contains a hash");
        }
    }
});
