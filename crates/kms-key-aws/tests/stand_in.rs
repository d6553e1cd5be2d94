//! The key against a stand-in that speaks AWS KMS' protocol with real RSA.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::config::{Credentials, SharedCredentialsProvider};
use kms_core::{MasterKey, MasterKeyError};
use kms_key_aws::{AwsKeyError, AwsMasterKey};
use kms_testkit::{AWS_ACCESS_KEY_ID, AWS_REGION, AwsFault, AwsKms};
use pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use rsa::PrivateKey;

const PEM: &str = include_str!("../../kms-core/vectors/test-kms-key.txt");
const PASSPHRASE: &str = include_str!("../../kms-core/vectors/test-kms-key-passphrase.txt");
const ALIAS: &str = "alias/kms";

/// Starts a stand-in with one key, and returns it with the key's ARN and public key.
fn stand_in() -> (AwsKms, String, String) {
    let aws = AwsKms::start().unwrap();
    let private = PrivateKey::from_pkcs8_encrypted_pem(PEM, PASSPHRASE).unwrap();
    let public = private.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let arn = aws.import(private);
    aws.alias(ALIAS, &arn);
    (aws, arn, public)
}

fn config(aws: &AwsKms) -> SdkConfig {
    let credentials = Credentials::new(AWS_ACCESS_KEY_ID, "only signs", None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(AWS_REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(aws.endpoint())
        .build()
}

fn key(aws: &AwsKms, public: &str) -> Result<AwsMasterKey, AwsKeyError> {
    AwsMasterKey::new("kms-aws".parse().unwrap(), ALIAS.to_owned(), public, &config(aws))
}

#[tokio::test]
async fn conforms_as_a_key_provider() {
    let (aws, _arn, public) = stand_in();
    let key = key(&aws, &public).unwrap();
    key.check().await.unwrap();
    kms_core::conformance::assert_master_key_conforms(Arc::new(key)).await;
}

#[tokio::test]
async fn rejects_public_keys_that_are_malformed_or_not_the_one_in_aws() {
    let (aws, arn, public) = stand_in();
    assert!(matches!(key(&aws, "no PEM"), Err(AwsKeyError::PublicKey)));
    let small = PrivateKey::new(&mut getrandom::SysRng, 2_048).unwrap();
    let small = small.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    assert!(matches!(key(&aws, &small), Err(AwsKeyError::PublicKey)));

    let key = key(&aws, &public).unwrap();
    let other = aws.import(PrivateKey::new(&mut getrandom::SysRng, 3_072).unwrap());
    aws.alias(ALIAS, &other);
    assert!(matches!(key.check().await, Err(AwsKeyError::OtherKey(name)) if name == ALIAS));
    aws.alias(ALIAS, "missing");
    assert!(matches!(key.check().await, Err(AwsKeyError::OtherKey(_))));
    aws.alias(ALIAS, &arn);
    key.check().await.unwrap();
}

#[tokio::test]
async fn retries_transient_faults_and_reports_lasting_ones_as_unavailable() {
    let (aws, arn, public) = stand_in();
    let key = key(&aws, &public).unwrap();
    let wrapped = || key.public_key().oaep_encrypt::<sha2::Sha256>(b"secret").unwrap();
    aws.fail_next([AwsFault::Throttling, AwsFault::Internal]);
    assert_eq!(*key.unwrap(wrapped()).await.unwrap(), b"secret");

    aws.fail_next([AwsFault::AccessDenied]);
    let denied = key.unwrap(wrapped()).await.unwrap_err();
    let MasterKeyError::Unavailable(cause) = denied else { panic!("{denied}") };
    assert!(cause.to_string().starts_with("AccessDeniedException"), "{cause}");
    aws.fail_next([AwsFault::AccessDenied]);
    assert!(matches!(key.check().await, Err(AwsKeyError::Unavailable(_))));
    aws.set_enabled(&arn, false);
    assert!(matches!(key.unwrap(wrapped()).await, Err(MasterKeyError::Unavailable(_))));
    aws.set_enabled(&arn, true);
    assert_eq!(*key.unwrap(wrapped()).await.unwrap(), b"secret");
    aws.stop().await;
    assert!(matches!(key.unwrap(wrapped()).await, Err(MasterKeyError::Unavailable(_))));
}
