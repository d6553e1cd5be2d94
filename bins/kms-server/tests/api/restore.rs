//! One database is restored from a backup and the other is not: every wallet opens by its password
//! and by the KMS key, or `keys verify` names it.

use kms_client::Client;
use kms_server_testing::commands::{fails, kms_server, masked, output_text, succeeds};
use kms_server_testing::requests::{create, hash, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::Scope;
use kms_testkit::Postgres;
use kms_types::wire::ChangePassword;
use mongodb::bson::{Document, doc};

use crate::keys::{opens, recovers, rotate};

/// Copies the key database under another name.
async fn copy(env: &TestEnv, to: &str) {
    let mongo = mongodb::Client::with_uri_str(env.key_database_of_admin().unwrap()).await.unwrap();
    for collection in ["wrapped_scks", "audit_checkpoints", "owner"] {
        let from = mongo.database(&env.key_database_name).collection::<Document>(collection);
        let to = mongo.database(to).collection::<Document>(collection);
        let mut rows = from.find(doc! {}).await.unwrap();
        while rows.advance().await.unwrap() {
            to.insert_one(rows.deserialize_current().unwrap()).await.unwrap();
        }
    }
}

async fn change(client: &Client, id: i64, old: &str, new: &str) {
    let body = ChangePassword { old_password_hash: hash(old), new_password_hash: hash(new) };
    client.change_password(telegram(id), &body).await.unwrap();
}

pub(crate) fn start(env: &TestEnv, token: &str) -> (ServerProcess, Client) {
    let server = ServerProcess::start(env, None, "info");
    let client = server.client(env, token);
    (server, client)
}

/// Creates two wallets, backs up both databases, then changes a password, recovers a wallet and
/// creates a third. Returns the environment, a token, the backup and the older key database's name.
pub(crate) async fn before_and_after() -> (TestEnv, String, std::path::PathBuf, String) {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let (server, client) = start(&env, &token);
    for id in [1, 2] {
        client.create_account(&create(id, &format!("name{id}"), "before")).await.unwrap();
    }
    server.terminate();
    let backup = env.directory.path().join("accounts.dump");
    Postgres::shared().unwrap().dump(env.database_name(), &backup).unwrap();
    let older_keys = format!("{}_older", env.key_database_name);
    copy(&env, &older_keys).await;
    let (server, client) = start(&env, &token);
    change(&client, 1, "before", "after").await;
    assert!(recovers(&client, 2).await);
    client.create_account(&create(3, "name3", "after")).await.unwrap();
    server.terminate();
    (env, token, backup, older_keys)
}

#[actix_web::test]
async fn older_accounts_with_newer_keys_open_by_their_older_passwords() {
    let (mut env, token, backup, _) = before_and_after().await;
    // The KMS key was even rotated since the backup.
    rotate(&mut env);
    succeeds(&env, "keys rewrap");
    env.database = Postgres::shared().unwrap().restore(&backup).unwrap();
    fails(&env, "keys rewrap");
    succeeds(&env, "keys adopt --reason restore");
    insta::assert_snapshot!("two_wallets_recoverable", succeeds(&env, "keys verify"));
    // SCKs that only the restored rows refer to are still wrapped under the older key.
    let moved = succeeds(&env, "keys rewrap");
    assert!(moved.ends_with("2 moved to kms-2, 0 left\n"), "{moved}");
    let opened = succeeds(&env, "keys verify --decrypt");
    insta::assert_snapshot!("two_wallets_decrypted", opened);
    let (server, client) = start(&env, &token);
    for id in [1, 2] {
        assert!(!opens(&client, id, "after").await && !opens(&client, id, "recovered").await);
        assert!(
            opens(&client, id, "before").await,
            "{id} by its password at the time of the backup"
        );
        assert!(recovers(&client, id).await, "{id} by the KMS key");
    }
    // Users who joined after the backup can onboard again.
    client.create_account(&create(3, "name3", "again")).await.unwrap();
    server.terminate();
    // The audit verification reports the lost rows, as it must after a restore, until an operator
    // has adopted the chain.
    fails(&env, "audit verify");
    succeeds(&env, "audit adopt --reason restored");
    succeeds(&env, "audit verify");
    fails(&env, "audit adopt --reason again");
}

#[actix_web::test]
async fn newer_accounts_with_older_keys_open_by_password_and_are_reported_until_then() {
    let (mut env, token, _, older_keys) = before_and_after().await;
    env.key_database_name = older_keys;
    insta::assert_snapshot!("three_wrapped_keys_missing", masked(&fails(&env, "keys verify")));
    succeeds(&env, "keys adopt --reason restore");
    let (server, client) = start(&env, &token);
    for (id, words) in [(1, "after"), (2, "recovered"), (3, "after")] {
        assert!(!recovers(&client, id).await, "{id} by the KMS key, before the repair");
        assert!(opens(&client, id, words).await, "{id} by its password");
    }
    // Each correct password has repaired its wallet.
    let verify = || kms_server(&env, "keys verify --decrypt").output().unwrap();
    let mut verified = verify();
    for _ in 0..50 {
        if verified.status.success() {
            break;
        }
        verified = verify();
    }
    assert!(verified.status.success(), "{}", output_text(&verified));
    for id in 1..=3 {
        assert!(recovers(&client, id).await, "{id} by the KMS key");
    }
    server.terminate();
}

#[actix_web::test]
async fn keys_from_before_a_rotation_need_the_older_kms_key() {
    let (mut env, token, _, _) = before_and_after().await;
    let older = format!("{}_unrotated", env.key_database_name);
    copy(&env, &older).await;
    rotate(&mut env);
    succeeds(&env, "keys rewrap");
    env.key_database_name = older;
    succeeds(&env, "keys verify --decrypt");
    env.variables.retain(|(key, _)| !key.contains("OLDER_KMS_KEYS"));
    insta::assert_snapshot!("an_older_kms_key_missing", masked(&fails(&env, "keys verify")));
    // Passwords do not need the older KMS key.
    let (server, client) = start(&env, &token);
    assert!(opens(&client, 1, "after").await);
    server.terminate();
}
