//! A key database serves one account database: a wrong setting or a copy is refused at the start,
//! whether anything is swept or not.

use kms_server::{Server, StartError};
use kms_server_testing::commands::{checks, fails, kms_server, output_text, succeeds};
use kms_server_testing::requests::recover;
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_store::{ClaimError, open_key_database};
use kms_testkit::Postgres;

/// Why a server with these settings does not start.
async fn refused(env: &TestEnv) -> ClaimError {
    match Server::start(env.settings().unwrap()).await {
        Err(StartError::KeyDatabase { name, claim }) => {
            assert_eq!(name, env.key_database_name);
            claim
        }
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn a_server_of_another_account_database_is_refused() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let mut env = TestEnv::new(stores).unwrap();
        env.upkeep.retention = None;
        let test = TestServer::start(env).await;
        test.onboard(1, "ann", "ann's").await;
        let mut staging = TestEnv::new(stores).unwrap();
        staging.upkeep.retention = None;
        staging.server_keys[2].1 = format!("1:{}", "ee".repeat(32));
        staging.key_database = test.env.key_database.clone();
        staging.key_database_name = test.env.key_database_name.clone();
        staging.migrate().await.unwrap();
        assert!(matches!(refused(&staging).await, ClaimError::Foreign { .. }));
        let test = test.restart().await;
        recover(&test.client, 1, "new").await.unwrap();
    }
}

#[actix_web::test]
async fn a_server_with_an_empty_key_database_is_refused_once_it_used_another() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
        let TestServer { mut env, server, .. } = test;
        server.stop().await.unwrap();
        match stores {
            Stores::Embedded => env.key_database += ".typo",
            Stores::Servers => env.key_database_name += "_typo",
        }
        assert!(matches!(refused(&env).await, ClaimError::New));
        let keys = open_key_database(&env.key_database, &env.key_database_name).await.unwrap();
        assert_eq!(keys.owner().await.unwrap(), None);
        let report = fails(&env, "check-config");
        assert!(checks(&report).contains(&("key_database's owner", false)), "{report}");
    }
}

#[actix_web::test]
async fn a_copy_of_the_account_database_is_refused_until_it_is_adopted() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
    let backup = test.env.directory.path().join("accounts.dump");
    Postgres::shared().unwrap().dump(test.env.database_name(), &backup).unwrap();
    let TestServer { mut env, server, .. } = test.restart().await;
    server.stop().await.unwrap();
    let original = env.database.clone();
    env.database = Postgres::shared().unwrap().restore(&backup).unwrap();
    assert!(matches!(refused(&env).await, ClaimError::Copy));
    // The operator restores the backup in the place of the original.
    let without_reason = kms_server(&env, "keys adopt").output().unwrap();
    assert!(!without_reason.status.success(), "{}", output_text(&without_reason));
    succeeds(&env, "keys adopt --reason restored-after-a-disk-failure");
    let records = succeeds(&env, "audit export");
    assert!(records.contains("keys adopt restored-after-a-disk-failure"), "{records}");
    Server::start(env.settings().unwrap()).await.unwrap().stop().await.unwrap();
    env.database = original;
    assert!(matches!(refused(&env).await, ClaimError::Copy));
}
