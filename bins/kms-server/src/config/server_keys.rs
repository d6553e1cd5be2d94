//! `server_keys`: the server's own keys.

use kms_core::{ServerKeySet, ServerKeys};
use serde::Deserialize;

/// The shape of [`ServerKeys`], which documents it.
#[derive(Deserialize)]
#[serde(remote = "ServerKeys", deny_unknown_fields)]
pub(super) struct ServerKeysDef {
    #[serde(deserialize_with = "kms_config::secret")]
    pepper: ServerKeySet,
    #[serde(deserialize_with = "kms_config::secret")]
    contact: ServerKeySet,
    #[serde(deserialize_with = "kms_config::secret")]
    row: ServerKeySet,
    #[serde(deserialize_with = "kms_config::secret")]
    audit: ServerKeySet,
    #[serde(deserialize_with = "kms_config::secret")]
    codes: ServerKeySet,
    #[serde(deserialize_with = "kms_config::secret")]
    checkpoint: ServerKeySet,
}
