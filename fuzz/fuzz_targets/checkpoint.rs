//! Audit checkpoints from a file or a database that an attacker may write.
#![no_main]

use std::sync::LazyLock;

use kms_core::ServerKeySet;
use kms_core::audit::Checkpoint;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<ServerKeySet> = LazyLock::new(ServerKeySet::random);

fuzz_target!(|line: &str| {
    if let Ok(checkpoint) = line.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        assert!(checkpoint.verify(&KEYS).is_err(), "a signature was forged");
    }
});
