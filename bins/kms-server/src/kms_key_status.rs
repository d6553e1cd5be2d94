//! Which KMS keys passed their last probe, for readiness and metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kms_core::MasterKeyId;
use metrics::gauge;

/// The result of the last probe of each KMS key; empty until the first.
#[derive(Debug, Default)]
pub(crate) struct KmsKeyStatus(Mutex<BTreeMap<MasterKeyId, bool>>);

impl KmsKeyStatus {
    /// `ok`, `down` if any key failed, or `unknown` before the first probe.
    pub(crate) fn as_str(&self) -> &'static str {
        let results = self.lock();
        match (results.is_empty(), results.values().all(|works| *works)) {
            (true, _) => "unknown",
            (false, true) => "ok",
            (false, false) => "down",
        }
    }

    /// Stores a probe's result, and publishes it as the metric `kms_key_works`.
    pub(crate) fn record(&self, key: &MasterKeyId, works: bool) {
        self.lock().insert(key.clone(), works);
        gauge!("kms_key_works", "key" => key.to_string()).set(if works { 1.0 } else { 0.0 });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MasterKeyId, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
