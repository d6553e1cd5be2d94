//! A server that has no credentials of its own, but the role of its task.

use kms_server_testing::requests::{create, recover};
use kms_server_testing::{ServerProcess, TestEnv};
use kms_testkit::{AWS_IDENTITY, AWS_ROLE, AwsKms, AwsRoles};

use crate::aws::env_with_aws;

/// Creates a wallet, and recovers it twice with the KMS key. Returns how many credentials the
/// server was issued before each recovery, and after the last.
async fn recover_twice(
    aws: &AwsKms,
    roles: &AwsRoles,
    mut env: TestEnv,
    own: &[(&str, String)],
) -> [usize; 3] {
    env.variables
        .retain(|(name, _)| !name.ends_with("ACCESS_KEY_ID") && !name.ends_with("ACCESS_KEY"));
    let own = own.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    env.variables.extend(own);
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    client.create_account(&create(1, "ann", "first")).await.unwrap();
    let mut issued = [roles.issued(); 3];
    for (index, password) in ["second", "third"].into_iter().enumerate() {
        recover(&client, 1, password).await.unwrap();
        issued[index + 1] = roles.issued();
    }
    assert_eq!(aws.calls().iter().filter(|call| *call == "Decrypt").count(), 2);
    server.terminate();
    issued
}

fn identity(env: &TestEnv) -> String {
    let path = env.directory.path().join("identity");
    std::fs::write(&path, AWS_IDENTITY).unwrap();
    path.display().to_string()
}

#[actix_web::test]
async fn credentials_of_a_container_are_renewed_when_they_expire() {
    let (aws, _arn, env) = env_with_aws();
    let roles = AwsRoles::start(&aws, "2026-01-01T00:00:00Z").unwrap();
    let own = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/credentials", roles.endpoint())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", identity(&env)),
    ];
    let [first, second, third] = recover_twice(&aws, &roles, env, &own).await;
    assert!(0 < first && first < second && second < third, "{first} {second} {third}");
}

#[actix_web::test]
async fn credentials_of_a_web_identity_are_used_until_they_expire() {
    let (aws, _arn, env) = env_with_aws();
    let roles = AwsRoles::start(&aws, "2099-01-01T00:00:00Z").unwrap();
    let own = [
        ("AWS_ENDPOINT_URL_STS", roles.endpoint()),
        ("AWS_ROLE_ARN", AWS_ROLE.to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", identity(&env)),
    ];
    assert_eq!(recover_twice(&aws, &roles, env, &own).await, [1; 3]);
}
