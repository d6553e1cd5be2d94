//! A server whose KMS key is in AWS KMS, against a stand-in that implements the real protocol.

use std::time::Duration;

use kms_client::{Client, ClientError};
use kms_server_testing::commands::{checks, fails, masked, start_error, succeeds};
use kms_server_testing::requests::{create, hash, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE, TestEnv};
use kms_testkit::{AWS_ACCESS_KEY_ID, AWS_REGION, AwsFault, AwsKms};
use kms_types::ErrorCode;
use kms_types::wire::ChangePassword;
use pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use rsa::PrivateKey;

const ALIAS: &str = "alias/kms";

/// An AWS KMS with one key, and an environment whose servers use it by its alias.
pub(crate) fn env_with_aws() -> (AwsKms, String, TestEnv) {
    let aws = AwsKms::start().unwrap();
    let private =
        PrivateKey::from_pkcs8_encrypted_pem(TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE).unwrap();
    let public = private.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let arn = aws.import(private);
    aws.alias(ALIAS, &arn);
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let variable = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    env.variables = vec![
        variable("KMS_SERVER__KMS_KEY__PROVIDER", "aws-kms"),
        variable("KMS_SERVER__KMS_KEY__KEY", ALIAS),
        variable("KMS_SERVER__KMS_KEY__PUBLIC_KEY", &public),
        variable("KMS_SERVER__KMS_KEY__ENDPOINT", &aws.endpoint()),
        variable("KMS_SERVER__KMS_KEY__PATH", ""),
        variable("KMS_SERVER__KMS_KEY__PASSPHRASE", ""),
        variable("KMS_SERVER__LIMITS__RECOVERIES", "100/day"),
        variable("AWS_ACCESS_KEY_ID", AWS_ACCESS_KEY_ID),
        variable("AWS_SECRET_ACCESS_KEY", "only signs"),
        variable("AWS_REGION", AWS_REGION),
        variable("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    (aws, arn, env)
}

async fn start(env: &TestEnv) -> (ServerProcess, Client) {
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let server = ServerProcess::start(env, None, "info");
    let client = server.client(env, &token);
    (server, client)
}

async fn change(client: &Client, old: &str, new: &str) -> Result<(), ClientError> {
    let body = ChangePassword { old_password_hash: hash(old), new_password_hash: hash(new) };
    client.change_password(telegram(1), &body).await
}

#[actix_web::test]
async fn an_aws_key_wraps_locally_and_unwraps_in_aws() {
    let (aws, arn, env) = env_with_aws();
    let (server, client) = start(&env).await;
    let account = client.create_account(&create(1, "ann", "first")).await.unwrap();
    assert_eq!(aws.calls(), ["GetPublicKey"], "wrapping calls no service");
    recover(&client, 1, "second").await.unwrap();
    let recovered = client.account(telegram(1)).await.unwrap().unwrap();
    assert_eq!(recovered.address, account.address);
    assert_eq!(aws.calls(), ["GetPublicKey", "Decrypt"]);
    // Transient errors are retried.
    aws.fail_next([AwsFault::Throttling, AwsFault::Internal]);
    recover(&client, 1, "third").await.unwrap();

    // Lasting errors stop recoveries, and nothing else.
    let refusals = [
        vec![AwsFault::AccessDenied],
        vec![AwsFault::Throttling; 3],
        vec![AwsFault::Slow(Duration::from_secs(20)); 3],
    ];
    for faults in refusals {
        aws.fail_next(faults.clone());
        let refused = recover(&client, 1, "never").await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable), "{faults:?}");
        aws.clear_faults();
        change(&client, "third", "fourth").await.unwrap();
        change(&client, "fourth", "third").await.unwrap();
    }
    aws.set_enabled(&arn, false);
    let refused = recover(&client, 1, "never").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable));
    aws.set_enabled(&arn, true);

    // Another key under the same alias is refused, and nothing changes.
    let other = aws.import(PrivateKey::new(&mut getrandom::SysRng, 3_072).unwrap());
    aws.alias(ALIAS, &other);
    assert!(recover(&client, 1, "never").await.is_err());
    aws.alias(ALIAS, &arn);
    change(&client, "third", "fourth").await.unwrap();
    aws.stop().await;
    let refused = recover(&client, 1, "never").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable));
    change(&client, "fourth", "third").await.unwrap();
    let log = server.terminate();
    assert!(log.contains("AccessDeniedException") && log.contains("DisabledException"), "{log}");
}

#[actix_web::test]
async fn a_server_starts_while_aws_is_down_but_not_with_another_key() {
    let (aws, _arn, env) = env_with_aws();
    let other = aws.import(PrivateKey::new(&mut getrandom::SysRng, 3_072).unwrap());
    aws.alias(ALIAS, &other);
    drop(env.migrate().await.unwrap());
    let refused = start_error(&fails(&env, "serve"));
    insta::assert_snapshot!("start_with_another_aws_key", masked(&refused));
    aws.stop().await;
    let (server, client) = start(&env).await;
    client.create_account(&create(1, "ann", "first")).await.unwrap();
    change(&client, "first", "second").await.unwrap();
    let log = server.terminate();
    assert!(log.contains("kms_key_unavailable"), "{log}");
}

#[actix_web::test]
async fn check_config_reports_what_aws_refuses() {
    let (aws, _arn, env) = env_with_aws();
    drop(env.migrate().await.unwrap());
    let report = succeeds(&env, "check-config");
    assert!(checks(&report).contains(&("kms_key", true)), "{report}");
    // Reading the public key, and decrypting.
    aws.fail_next([AwsFault::AccessDenied; 2]);
    let report = fails(&env, "check-config");
    assert!(checks(&report).contains(&("kms_key", false)), "{report}");
    assert!(report.contains("AccessDeniedException") && report.contains("permit kms:Decrypt"));
}
