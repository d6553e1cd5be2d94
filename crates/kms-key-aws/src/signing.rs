//! Signs requests with the credentials of the task or machine.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableRequest, SigningInstructions, SigningSettings, sign};
use aws_sigv4::sign::v4;
use tokio::sync::Mutex;

/// Credentials of a role are fetched again so long before they expire.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// Region and credentials.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    credentials: SharedCredentialsProvider,
    /// The newest credentials that expire: a pool that opens many connections at once asks for them
    /// once.
    cached: Arc<Mutex<Option<Credentials>>>,
    region: String,
}

/// Why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// AWS' tools find no region.
    #[error("no AWS region; set AWS_REGION")]
    Region,
    /// AWS' tools find no credentials.
    #[error("no AWS credentials")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request itself is at fault.
    #[error("the request cannot be signed")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Signer {
    /// Signs with this region and these credentials.
    pub(crate) fn new(aws: &SdkConfig) -> Result<Self, SigningError> {
        let region = aws.region().ok_or(SigningError::Region)?.to_string();
        let missing = || SigningError::Credentials("none is configured".into());
        let credentials = aws.credentials_provider().ok_or_else(missing)?;
        Ok(Self { credentials, cached: Arc::default(), region })
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// Signs a request to a service.
    pub(crate) async fn sign(
        &self,
        service: &'static str,
        settings: SigningSettings,
        request: SignableRequest<'_>,
        now: SystemTime,
    ) -> Result<SigningInstructions, SigningError> {
        let identity = self.credentials(now).await?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(service)
            .time(now)
            .settings(settings)
            .build()
            .map_err(|error| SigningError::Request(error.into()))?
            .into();
        let signed = sign(request, &params).map_err(|error| SigningError::Request(error.into()))?;
        Ok(signed.into_parts().0)
    }

    async fn credentials(&self, now: SystemTime) -> Result<Credentials, SigningError> {
        let mut cached = self.cached.lock().await;
        let valid_at = |time: SystemTime, known: &Option<Credentials>| {
            known.clone().filter(|known| known.expiry().is_some_and(|expiry| expiry > time))
        };
        if let Some(known) = valid_at(now + MARGIN, &cached) {
            return Ok(known);
        }
        match self.credentials.provide_credentials().await {
            Ok(fetched) => Ok(cached.insert(fetched).clone()),
            // While new ones cannot be fetched, the current ones still sign.
            Err(error) => {
                valid_at(now, &cached).ok_or_else(|| SigningError::Credentials(error.into()))
            }
        }
    }
}
