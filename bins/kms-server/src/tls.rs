//! The server's side of TLS.

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsSettings;

/// Why the certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain.
    #[error("tls.certificate: not a PEM certificate chain")]
    Certificate(#[source] pem::Error),
    /// The private key. Without a cause, which could quote it.
    #[error("tls.key: not a PEM private key")]
    Key,
    /// The pair.
    #[error("tls: {0}")]
    Pair(#[from] rustls::Error),
}

/// TLS 1.3 only, without client certificates.
pub(crate) fn server_config(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(settings.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(settings.key.expose().as_bytes())
        .map_err(|_secret| TlsError::Key)?;
    let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(config)
}
