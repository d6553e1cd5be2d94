//! `audit`: checkpoints of the audit chain.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Checkpoints of the audit chain.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSettings {
    /// A file that checkpoints are appended to, in addition to the key database. It protects best
    /// where the operators of the databases cannot write.
    pub checkpoint_path: Option<PathBuf>,
    /// The time between two checkpoints.
    #[serde(deserialize_with = "kms_config::duration")]
    pub checkpoint_interval: Duration,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { checkpoint_path: None, checkpoint_interval: Duration::from_secs(5 * 60) }
    }
}
