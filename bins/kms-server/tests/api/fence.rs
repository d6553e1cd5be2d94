//! The writer fence: a rolling deploy, and a rollback, to a release that must not write.

use std::time::Duration;

use kms_server_testing::commands::{fails, start_error, succeeds};
use kms_server_testing::requests::create;
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::{Database, Scope, WRITER};

#[actix_web::test]
async fn servers_of_an_older_release_stop_before_the_schema_changes() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    drop(database);
    let servers = [(); 2].map(|()| ServerProcess::start(&env, None, "info"));
    let writers: Vec<_> = servers
        .iter()
        .zip([1, 100_000])
        .map(|(server, first)| {
            let client = server.client(&env, &token);
            actix_web::rt::spawn(async move {
                let mut id = first;
                while client.create_account(&create(id, &format!("u{id}"), "pw")).await.is_ok() {
                    id += 1;
                }
                id - first
            })
        })
        .collect();
    let accounts = || env.sql("select count(*) from accounts").unwrap().parse::<i64>().unwrap();
    while accounts() < 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let keys = std::sync::Arc::new(env.server_keys().unwrap());
    let owner = env.owner.as_ref().unwrap_or(&env.database);
    let newer = Database::connect(owner, 1, keys).await.unwrap();
    newer.require_writer(WRITER + 1).await.unwrap();
    let written = accounts();
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.unwrap();
    }
    assert_eq!(accounts(), written, "an older server wrote after the fence");
    assert!(acknowledged <= written, "{acknowledged} acknowledged, {written} written");
    for server in servers {
        let log = std::sync::Arc::clone(&server.log);
        server.died();
        let log = log.lock().unwrap();
        assert!(log.contains("\"worker\":\"writer_fence\""), "{log}");
    }
    insta::assert_snapshot!(start_error(&fails(&env, "serve")));
    assert!(fails(&env, "migrate").contains("start the newer release"));
}

#[test]
fn a_plan_prints_the_pending_steps_and_changes_nothing() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let env = TestEnv::new(stores).unwrap();
        for _ in 0..2 {
            let plan = succeeds(&env, "migrate --plan");
            assert!(plan.starts_with("0001  ") && plan.contains("locks nothing"), "{plan}");
        }
        succeeds(&env, "migrate");
        assert_eq!(succeeds(&env, "migrate --plan"), "no migration is pending\n");
    }
}
