//! `audit`: checkpoints of the audit chain.

use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "aws-kms")]
use kms_key_aws::BucketPath;
use serde::Deserialize;
#[cfg(feature = "aws-kms")]
use serde::Deserializer;

/// Checkpoints of the audit chain, which are written to the key database and to these places. They
/// protect best where the operators of the databases cannot write.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSettings {
    /// A file that checkpoints are appended to.
    pub checkpoint_path: Option<PathBuf>,
    /// An S3 bucket that checkpoints are added to. Region and credentials are found as AWS' own
    /// tools find them.
    #[cfg(feature = "aws-kms")]
    #[serde(deserialize_with = "bucket")]
    pub checkpoint_s3: Option<BucketPath>,
    /// The time between two checkpoints.
    #[serde(deserialize_with = "kms_config::duration")]
    pub checkpoint_interval: Duration,
}

impl AuditSettings {
    /// Whether there is a place beside the key database.
    pub(crate) fn has_archive(&self) -> bool {
        #[cfg(feature = "aws-kms")]
        if self.checkpoint_s3.is_some() {
            return true;
        }
        self.checkpoint_path.is_some()
    }
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            checkpoint_path: None,
            #[cfg(feature = "aws-kms")]
            checkpoint_s3: None,
            checkpoint_interval: Duration::from_secs(5 * 60),
        }
    }
}

#[cfg(feature = "aws-kms")]
fn bucket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BucketPath>, D::Error> {
    kms_config::text(deserializer).map(Some)
}
