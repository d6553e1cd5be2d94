//! `server_keys`: the server's own symmetric keys.

use kms_core::{ServerKeySet, ServerKeys};
use serde::Deserialize;

/// The shape of [`ServerKeys`], which documents it.
#[derive(Deserialize)]
#[serde(remote = "ServerKeys", deny_unknown_fields)]
pub(super) struct ServerKeysDef {
    #[serde(deserialize_with = "kms_config::text")]
    pepper: ServerKeySet,
    #[serde(deserialize_with = "kms_config::text")]
    contact: ServerKeySet,
    #[serde(deserialize_with = "kms_config::text")]
    row: ServerKeySet,
    #[serde(deserialize_with = "kms_config::text")]
    audit: ServerKeySet,
}
