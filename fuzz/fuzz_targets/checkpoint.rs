//! Audit checkpoints from a file or a database that an attacker may write, and the details of audit
//! rows.
#![no_main]

use std::sync::LazyLock;

use kms_core::ServerKeySet;
use kms_core::audit::{Checkpoint, CheckpointKeys, Details};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<CheckpointKeys> =
    LazyLock::new(|| CheckpointKeys::of(&ServerKeySet::random()));

fuzz_target!(|text: &str| {
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
        assert!(checkpoint.verify(&KEYS).is_err(), "a signature was forged");
    }
    if let Ok(keys) = text.parse::<CheckpointKeys>() {
        assert_eq!(keys.to_string().parse(), Ok(keys));
    }
    if let Ok(details) = text.parse::<Details>() {
        assert_eq!(details.to_string(), text);
    }
});
