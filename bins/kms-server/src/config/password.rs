//! `password`: how passwords are checked.

use std::num::NonZeroUsize;

use kms_core::KdfParams;
use serde::Deserialize;

/// How passwords are checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordSettings {
    /// The key derivation function (KDF) of new passwords, the same on every server. A wallet moves
    /// to it when it is next unlocked.
    #[serde(deserialize_with = "kms_config::text")]
    pub kdf: KdfParams,
    /// How many derivations run at once: the number of CPU cores by default.
    pub running: NonZeroUsize,
    /// How many may wait for one of these; more are refused.
    pub waiting: usize,
}

impl Default for PasswordSettings {
    fn default() -> Self {
        let running = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { kdf: KdfParams::default(), running, waiting: running.get().saturating_mul(16) }
    }
}
