//! `ops`: the operations listener.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

/// The listener of health checks and metrics, and what a load balancer needs at a stop.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpsSettings {
    /// The address and port of plain HTTP; only the private network may reach it.
    pub listen: SocketAddr,
    /// How long the server still accepts requests after a stop signal, while readiness fails, so
    /// that load balancers stop sending requests first; not at all if it is `None`.
    #[serde(deserialize_with = "kms_config::duration_or_none")]
    pub drain: Option<Duration>,
}

impl Default for OpsSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)), drain: None }
    }
}
