//! KDF parameters from a wallet's row, and server keys and key ids from the configuration.
#![no_main]

use kms_core::{KdfParams, MasterKeyId, ServerKeySet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(params) = text.parse::<KdfParams>() {
        assert_eq!(params.to_string(), text, "parameters have one text");
    }
    if let Ok(id) = text.parse::<MasterKeyId>() {
        assert_eq!(id.to_string(), text);
    }
    match text.parse::<ServerKeySet>() {
        Ok(keys) => assert!(keys.get(keys.current()).is_some()),
        Err(error) => {
            let message = error.to_string().into_bytes();
            let digits = |run: &[u8]| run.iter().all(u8::is_ascii_hexdigit);
            assert!(!message.windows(16).any(digits), "an error contains a key");
        }
    }
});
