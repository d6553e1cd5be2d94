//! `upkeep`: background maintenance.

use std::time::Duration;

use serde::Deserialize;

/// Background maintenance.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpkeepSettings {
    /// How often each KMS key is probed.
    #[serde(deserialize_with = "kms_config::duration")]
    pub probe_interval: Duration,
    /// How often one of the servers checks that every wallet can be recovered.
    #[serde(deserialize_with = "kms_config::duration")]
    pub check_interval: Duration,
    /// How long a wrapped key that no wallet refers to is kept; forever if it is `None`.
    #[serde(deserialize_with = "kms_config::duration_or_none")]
    pub retention: Option<Duration>,
    /// How long a quote that was not signed is kept.
    #[serde(deserialize_with = "kms_config::duration")]
    pub quote_retention: Duration,
    /// How long an event is kept, delivered or not; forever if it is `None`.
    #[serde(deserialize_with = "kms_config::duration_or_none")]
    pub event_retention: Option<Duration>,
    /// How long transactions are kept that were signed for a transfer and did not get into the
    /// final block; forever if it is `None`.
    #[serde(deserialize_with = "kms_config::duration_or_none")]
    pub attempt_retention: Option<Duration>,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            probe_interval: Duration::from_secs(HOUR),
            check_interval: Duration::from_secs(24 * HOUR),
            retention: Some(Duration::from_secs(35 * 24 * HOUR)),
            quote_retention: Duration::from_secs(24 * HOUR),
            event_retention: Some(Duration::from_secs(90 * 24 * HOUR)),
            attempt_retention: Some(Duration::from_secs(90 * 24 * HOUR)),
        }
    }
}
