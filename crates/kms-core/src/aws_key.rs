//! A KMS key in AWS KMS: its private half never leaves AWS. Wrapping is local, with the public
//! key; only unwrapping asks AWS.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::SharedHttpClient;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::operation::get_public_key::GetPublicKeyError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{EncryptionAlgorithmSpec, KeyUsageType};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use pkcs8::DecodePublicKey;
use rsa::PublicKey;
use rsa::traits::PublicKeyParts;
use zeroize::Zeroizing;

use crate::master_key::{MasterKey, MasterKeyError, MasterKeyId};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// For all attempts together: a recovery does not wait longer.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);
const ATTEMPTS: u32 = 3;
const ALGORITHM: EncryptionAlgorithmSpec = EncryptionAlgorithmSpec::RsaesOaepSha256;

/// The provider `aws-kms`.
pub struct AwsMasterKey {
    id: MasterKeyId,
    key: String,
    client: Client,
    public: PublicKey,
}

/// Why a key in AWS KMS can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AwsKeyError {
    /// The configured public key is no PEM of an RSA key of 3072 or 4096 bits.
    #[error("expected the PEM of an RSA public key of 3072 or 4096 bits")]
    PublicKey,
    /// AWS has another key under this name, or one that is not for OAEP.
    #[error("AWS KMS has no such key as {0}, or another public key for it, or not one for OAEP")]
    OtherKey(String),
    /// AWS does not answer, or refuses.
    #[error("AWS KMS does not give the public key: {0}")]
    Unavailable(String),
}

impl AwsMasterKey {
    /// The key that AWS knows as `key` (a key id, an ARN, or `alias/` and a name), with its public
    /// key. That is given, not fetched: so nobody on the way to AWS can slip in a key of their
    /// own to wrap with, and wrapping needs no AWS.
    ///
    /// # Errors
    /// When the PEM is not that of an RSA public key of 3072 or 4096 bits.
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

    /// Compares the public key with the one that AWS has.
    ///
    /// # Errors
    /// When it is another, when AWS does not answer, and when it refuses.
    pub async fn check(&self) -> Result<(), AwsKeyError> {
        let answer = self.client.get_public_key().key_id(&self.key).send().await;
        let answer = answer.map_err(|error| match error.as_service_error() {
            Some(GetPublicKeyError::NotFoundException(_)) => {
                AwsKeyError::OtherKey(self.key.clone())
            }
            _ => AwsKeyError::Unavailable(why(&error)),
        })?;
        let der = answer.public_key().map(AsRef::as_ref).unwrap_or_default();
        let same = PublicKey::from_public_key_der(der).is_ok_and(|found| found == self.public);
        let for_oaep = answer.key_usage() == Some(&KeyUsageType::EncryptDecrypt)
            && answer.encryption_algorithms().contains(&ALGORITHM);
        if same && for_oaep { Ok(()) } else { Err(AwsKeyError::OtherKey(self.key.clone())) }
    }
}

/// Region and credentials from where AWS' tools look for them: the environment, profiles, the
/// task's or the machine's role. `endpoint` is another than the region's, as a VPC's.
pub async fn aws_from_environment(endpoint: Option<String>) -> SdkConfig {
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

/// The error's code and message, or what went wrong on the way. Never a request's body.
fn why<E, R>(error: &SdkError<E, R>) -> String
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
        None => DisplayErrorContext(error).to_string(),
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
                _ => MasterKeyError::Unavailable(why(&error).into()),
            })?;
        match answer.plaintext {
            Some(plaintext) => Ok(Zeroizing::new(plaintext.into_inner())),
            None => Err(MasterKeyError::Unavailable("AWS KMS answered nothing".into())),
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
