//! The server's side of TLS, and the certificate that is replaced while it runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use kms_config::FileError;
use metrics::gauge;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsSettings;

/// Why the certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain.
    #[error("tls.certificate: not a PEM certificate chain")]
    Certificate(#[source] pem::Error),
    /// The server's own certificate.
    #[error("tls.certificate: the first certificate is not X.509")]
    Malformed,
    /// The private key. Without a cause, which could quote it.
    #[error("tls.key: not a PEM private key")]
    Key,
    /// The pair.
    #[error("tls: {0}")]
    Pair(#[from] rustls::Error),
    /// A file of one of them, read again.
    #[error("tls: {0}")]
    File(#[from] FileError),
}

/// The certificate and its key, as their files were last read.
#[derive(Debug)]
pub(crate) struct Certificate {
    settings: TlsSettings,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    pub(crate) fn new(settings: TlsSettings) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(&settings)?));
        Ok(Self { settings, current })
    }

    /// Reads the files again, and uses what they hold for new connections if it is a pair. Returns
    /// whether it differs from what was used.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let TlsSettings { certificate, key } = &self.settings;
        let read = read(&TlsSettings { certificate: certificate.reread()?, key: key.reread()? })?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let differs = current.cert != read.cert;
        *current = Arc::new(read);
        Ok(differs)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// TLS 1.3 only, without client certificates.
pub(crate) fn server_config(certificate: Arc<Certificate>) -> Result<ServerConfig, TlsError> {
    let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    Ok(config)
}

/// How long the server's own certificate is still valid at this time; zero if it is not.
pub(crate) fn remaining(settings: &TlsSettings, now: SystemTime) -> Result<Duration, TlsError> {
    let pair = read(settings)?;
    let first = pair.cert.first().ok_or(TlsError::Malformed)?;
    Ok(expiry(first)?.duration_since(now).unwrap_or_default())
}

fn read(settings: &TlsSettings) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(settings.certificate.expose().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(settings.key.expose().as_bytes())
        .map_err(|_secret| TlsError::Key)?;
    let expires = expiry(chain.first().ok_or(TlsError::Malformed)?)?;
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let pair = CertifiedKey::from_der(chain, key, &default_provider())?;
    gauge!("kms_certificate_expires_timestamp_seconds").set(expires.as_secs_f64());
    Ok(pair)
}

fn expiry(certificate: &[u8]) -> Result<SystemTime, TlsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_malformed| TlsError::Malformed)?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
