//! Reads the files of the certificate again.

use std::sync::Arc;
use std::time::Duration;

use kms_process::{Next, Worker};

use crate::tls::{Certificate, TlsError};

/// Uses a certificate that replaced the one before, for new connections. One that cannot be used is
/// reported, and the one before stays in use.
pub(crate) struct ReloadCertificate(pub(crate) Arc<Certificate>);

impl Worker for ReloadCertificate {
    const NAME: &'static str = "reload_certificate";
    type Error = TlsError;

    fn interval(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn round(&mut self) -> Result<Next, TlsError> {
        if self.0.reload()? {
            tracing::info!("certificate replaced");
        }
        Ok(Next::AfterInterval)
    }
}
