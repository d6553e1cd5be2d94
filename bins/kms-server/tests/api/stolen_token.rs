//! What an attacker with the bot's token reaches, and how an operator ends it.

use std::time::Duration;

use kms_server_testing::commands::succeeds;
use kms_server_testing::requests::telegram;
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::wire::RequestRecovery;
use kms_types::{ErrorCode, RecoveryId};

use crate::recoveries::request;

/// A stolen token of the bot, and accounts whose owners have no second channel.
#[actix_web::test]
async fn a_thief_with_a_token_reaches_few_accounts_and_everything_they_asked_for_is_cancelled() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    env.recovery.wait_without_email = Duration::from_secs(3_600);
    env.limits.recoveries_without_email = "4/day".parse().unwrap();
    let test = TestServer::start(env).await;
    for id in 1..=6 {
        test.onboard(id, &format!("name{id}"), "known").await;
    }
    let own = request(&test).await.unwrap().id;
    let stolen = test.env.issue_token(&test.database, kms_store::Scope::Bot).await.unwrap();
    let thief = test.env.client(test.server.address().port(), &stolen).unwrap();
    let mut reached = 0;
    for id in 2..=6 {
        let body = RequestRecovery { id: RecoveryId::random() };
        match thief.request_recovery(telegram(id), &body).await {
            Ok(_) => reached += 1,
            Err(error) => assert_eq!(error.code(), Some(ErrorCode::RecoveriesPaused)),
        }
    }
    assert_eq!(reached, 3, "Ann's own is the fourth");
    let name = test.database.api_tokens().await.unwrap()[1].name.clone();
    let revoked = succeeds(&test.env, &format!("token revoke {name}"));
    assert!(revoked.contains("3 open recoveries") && revoked.contains("--token"), "{revoked}");
    let open = async || test.database.open_recoveries().await.unwrap();
    assert_eq!(open().await.len(), 4);
    succeeds(&test.env, &format!("recoveries cancel --token {name}"));
    let left: Vec<_> = open().await.into_iter().map(|recovery| recovery.id).collect();
    assert_eq!(left, [own]);
    succeeds(&test.env, "recoveries cancel --since 9000000000000");
    assert_eq!(open().await.len(), 1);
    succeeds(&test.env, "recoveries cancel --all");
    assert_eq!(open().await, []);
}
