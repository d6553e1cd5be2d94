//! `tls`: the server's certificate.

use kms_config::Secret;
use serde::Deserialize;

/// The server's certificate and private key, both PEM. Those that come from files are read again
/// while the server runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate chain, the server's own certificate first.
    pub certificate: Secret,
    /// The private key of the first certificate.
    pub key: Secret,
}
