//! The key provider `aws-kms`: a master key whose private half never leaves AWS KMS.
//!
//! Wrapping is local, with the configured public key; only unwrapping calls AWS. So passwords keep
//! working while AWS cannot be reached, and recoveries wait.
//!
//! With the same credentials, [`DatabaseTokens`] makes the passwords of roles in RDS, and
//! [`Bucket`] adds checkpoints of the audit to S3.

mod bucket;
mod database_token;
mod s3;
mod signing;

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::SharedHttpClient;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::operation::get_public_key::GetPublicKeyError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{EncryptionAlgorithmSpec, KeyUsageType};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use kms_core::{MasterKey, MasterKeyError, MasterKeyId};
use pkcs8::DecodePublicKey;
use rsa::PublicKey;
use rsa::traits::PublicKeyParts;
use zeroize::Zeroizing;

pub use bucket::{Bucket, BucketError, BucketPath, BucketPathFormat, Contents};
pub use database_token::{DatabaseRole, DatabaseTokens};
pub use signing::SigningError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// All attempts of one operation together.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);
const ATTEMPTS: u32 = 3;
const ALGORITHM: EncryptionAlgorithmSpec = EncryptionAlgorithmSpec::RsaesOaepSha256;

/// Which key of AWS KMS, and how to reach it.
#[derive(Clone, Debug)]
pub struct AwsKeySettings {
    /// A key id, an ARN, or `alias/` and a name.
    pub key: String,
    /// The key's public half, as PEM. It is configured rather than fetched, so that an attacker
    /// between this server and AWS cannot substitute a key of their own, and so that wrapping does
    /// not depend on AWS.
    pub public_key: String,
    /// Overrides the region's endpoint, for instance by that of a VPC.
    pub endpoint: Option<String>,
}

/// A key pair in AWS KMS.
pub struct AwsMasterKey {
    id: MasterKeyId,
    key: String,
    client: Client,
    public: PublicKey,
}

/// Why a key in AWS KMS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AwsKeyError {
    /// The configured public key is not the PEM of an RSA key with 3072 or 4096 bits.
    #[error("the public key must be the PEM of an RSA public key with 3072 or 4096 bits")]
    PublicKey,
    /// AWS has no such key, or its public key or key usage is not the configured one.
    #[error("the key {0} in AWS KMS does not exist, has another public key, or is not for OAEP")]
    OtherKey(String),
    /// AWS did not answer, or refused the call.
    #[error("AWS KMS did not return the public key: {0}")]
    Unavailable(String),
}

impl AwsMasterKey {
    /// Opens the key with the region and credentials that AWS' own tools would use (environment,
    /// profile, or the role of the task or machine), and compares its public key with the
    /// configured one. While AWS cannot be reached the key is opened unchecked, with a warning.
    ///
    /// # Errors
    /// When the configured public key is not usable, or is not the one in AWS.
    pub async fn open(id: MasterKeyId, settings: AwsKeySettings) -> Result<Self, AwsKeyError> {
        let aws = from_environment(settings.endpoint).await;
        let key = Self::new(id, settings.key, &settings.public_key, &aws)?;
        match key.check().await {
            Ok(()) => {}
            Err(AwsKeyError::Unavailable(error)) => {
                let event = "kms_key_unavailable";
                tracing::warn!(event, error, "AWS KMS unreachable, recoveries unavailable");
            }
            Err(other) => return Err(other),
        }
        Ok(key)
    }

    /// Creates a client of the key without calling AWS.
    ///
    /// # Errors
    /// When the PEM is not that of an RSA public key with 3072 or 4096 bits.
    pub fn new(
        id: MasterKeyId,
        key: String,
        public_key: &str,
        aws: &SdkConfig,
    ) -> Result<Self, AwsKeyError> {
        let public =
            PublicKey::from_public_key_pem(public_key).map_err(|_cause| AwsKeyError::PublicKey)?;
        if !matches!(public.n().bit_width(), 3072 | 4096) {
            return Err(AwsKeyError::PublicKey);
        }
        Ok(Self { id, key, client: client(aws), public })
    }

    /// Compares the configured public key with the one in AWS.
    ///
    /// # Errors
    /// When they differ, and when AWS does not answer or refuses the call.
    pub async fn check(&self) -> Result<(), AwsKeyError> {
        let answer = self.client.get_public_key().key_id(&self.key).send().await;
        let answer = answer.map_err(|error| match error.as_service_error() {
            Some(GetPublicKeyError::NotFoundException(_)) => {
                AwsKeyError::OtherKey(self.key.clone())
            }
            _ => AwsKeyError::Unavailable(describe(&error)),
        })?;
        let der = answer.public_key().map(AsRef::as_ref).unwrap_or_default();
        let same = PublicKey::from_public_key_der(der).is_ok_and(|found| found == self.public);
        let for_oaep = answer.key_usage() == Some(&KeyUsageType::EncryptDecrypt)
            && answer.encryption_algorithms().contains(&ALGORITHM);
        if same && for_oaep { Ok(()) } else { Err(AwsKeyError::OtherKey(self.key.clone())) }
    }
}

#[async_trait]
impl MasterKey for AwsMasterKey {
    fn id(&self) -> &MasterKeyId {
        &self.id
    }

    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    async fn unwrap(&self, ciphertext: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let answer = self
            .client
            .decrypt()
            .key_id(&self.key)
            .encryption_algorithm(ALGORITHM)
            .ciphertext_blob(Blob::new(ciphertext))
            .send()
            .await
            .map_err(|error| match error.as_service_error() {
                Some(
                    DecryptError::InvalidCiphertextException(_)
                    | DecryptError::IncorrectKeyException(_),
                ) => MasterKeyError::Undecryptable,
                _ => MasterKeyError::Unavailable(describe(&error).into()),
            })?;
        match answer.plaintext {
            Some(plaintext) => Ok(Zeroizing::new(plaintext.into_inner())),
            None => Err(MasterKeyError::Unavailable("AWS KMS returned no plaintext".into())),
        }
    }
}

impl fmt::Debug for AwsMasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsMasterKey")
            .field("id", &self.id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

async fn from_environment(endpoint: Option<String>) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http());
    match endpoint {
        Some(endpoint) => loader.endpoint_url(endpoint).load().await,
        None => loader.load().await,
    }
}

fn http() -> SharedHttpClient {
    let tls = Provider::Rustls(CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(tls).build_https()
}

fn client(aws: &SdkConfig) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let config = aws_sdk_kms::config::Builder::from(aws)
        .http_client(http())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .build();
    Client::from_conf(config)
}

/// Returns the service's error code and message, or the transport's error with its causes. Never
/// the debug text, which may include a response with a key in it.
fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: fmt::Debug,
{
    match error.as_service_error() {
        Some(error) => format!(
            "{}: {}",
            error.code().unwrap_or("unknown"),
            error.message().unwrap_or("no message")
        ),
        None => {
            let (mut text, mut cause) = (error.to_string(), error.source());
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        }
    }
}
