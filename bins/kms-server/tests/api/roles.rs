//! The roles in both databases, as `docs/operating/upgrade.md` describes them: what they suffice
//! for, and what they refuse. With `KMS_TEST_ROLES=1` all tests of the server run with them.

use kms_server_testing::commands::succeeds;
use kms_server_testing::requests::recover;
use kms_server_testing::{TestEnv, TestServer};
use kms_testkit::{Mongod, Postgres};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;

#[actix_web::test]
async fn the_documented_roles_suffice_and_cannot_change_the_audit() {
    let mongod = Mongod::start_with_roles().unwrap();
    let (owner, serving) = Postgres::shared().unwrap().create_database_with_roles().unwrap();
    let directory = kms_testkit::Scratch::new("server").unwrap();
    let env = TestEnv::on(directory, serving, mongod.serving_url(), "kms".to_owned()).unwrap();
    let env = TestEnv { owner: Some(owner), ..env };
    for _ in 0..2 {
        succeeds(&env, "migrate");
    }
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    recover(&test.client, 1, "new").await.unwrap();
    let checked = succeeds(&test.env, "check-config");
    for bad in ["failed  ", "weak    database", "weak    key_database"] {
        assert!(!checked.contains(bad), "{checked}");
    }

    for statement in [
        "update audit set at = 0",
        "delete from audit",
        "truncate audit",
        "delete from audit_head",
        "truncate accounts",
        "drop table audit",
        "alter table audit disable trigger all",
        "create table more (id int)",
        "delete from __diesel_schema_migrations",
        "update writer_fence set oldest = 0",
    ] {
        let refused = test.env.sql(&format!("set role kms; {statement}")).unwrap_err().to_string();
        let is_right = refused.contains("permission denied") || refused.contains("must be owner");
        assert!(is_right, "{statement}: {refused}");
    }

    let serving = Client::with_uri_str(&test.env.key_database).await.unwrap();
    let all =
        |collection: &str| doc! { "delete": collection, "deletes": [{ "q": {}, "limit": 0 }] };
    let set = doc! { "q": {}, "u": { "$set": { "line": "" } } };
    for command in [
        all("audit_checkpoints"),
        all("owner"),
        doc! { "update": "audit_checkpoints", "updates": [set] },
        doc! { "drop": "wrapped_scks" },
        doc! { "dropDatabase": 1 },
        doc! { "find": "other" },
        doc! { "createUser": "eve", "pwd": "eve", "roles": ["root"] },
    ] {
        assert_refused(&serving, command).await;
    }
    let stranger = format!("mongodb://127.0.0.1:{}/?directConnection=true", mongod.port());
    let stranger = Client::with_uri_str(stranger).await.unwrap();
    assert_refused(&stranger, doc! { "find": "wrapped_scks" }).await;
}

async fn assert_refused(client: &Client, command: Document) {
    const UNAUTHORIZED: i32 = 13;
    let refused = client.database("kms").run_command(command.clone()).await.unwrap_err();
    let ErrorKind::Command(error) = *refused.kind else { panic!("{command}: {refused}") };
    assert_eq!(error.code, UNAUTHORIZED, "{command}: {error}");
}
