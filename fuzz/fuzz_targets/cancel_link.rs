//! The path of a link that cancels a recovery: its id and a MAC.
#![no_main]

use std::sync::LazyLock;

use kms_core::{RowMac, ServerKeySet};
use kms_types::RecoveryId;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<ServerKeySet> = LazyLock::new(ServerKeySet::random);

fuzz_target!(|path: &str| {
    let (id, mac) = path.split_once('/').unwrap_or(("", path));
    if let Ok(id) = id.parse::<RecoveryId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(read) = mac.parse::<RowMac>() {
        assert_eq!(read.to_string(), mac, "a MAC has one text");
        assert!(KEYS.verify(&read, &[id.as_bytes()]).is_err(), "a MAC was forged");
    }
});
