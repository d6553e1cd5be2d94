//! A database comes back from a backup, and the other one does not: every wallet opens by its
//! password and by the KMS key, or is named (`docs/restore.md`).

use kms_client::Client;
use kms_store::Scope;
use kms_testkit::Postgres;
use kms_types::wire::ChangePassword;
use mongodb::bson::{Document, doc};

use crate::harness::{Place, Stores, create, hash, telegram};
use crate::keys::{command, fails, opens, recovers, rotate, said, works};
use crate::process::ServerProcess;

/// The key database as it is now, under another name.
async fn copy(place: &Place, to: &str) {
    let mongo = mongodb::Client::with_uri_str(&place.key_database).await.unwrap();
    for collection in ["wrapped_scks", "audit_checkpoints", "owner"] {
        let from = mongo.database(&place.key_database_name).collection::<Document>(collection);
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

fn start(place: &Place, token: &str) -> (ServerProcess, Client) {
    let server = ServerProcess::start(place, None, "info");
    let client = server.client(place, token);
    (server, client)
}

/// Two wallets; then a dump of each database; then a new password, a recovery, another wallet.
async fn before_and_after() -> (Place, String, std::path::PathBuf, String) {
    let place = Place::new(Stores::Servers);
    let database = place.migrated().await;
    let token = place.token(&database, Scope::Bot).await;
    let (server, client) = start(&place, &token);
    for id in [1, 2] {
        client.create_account(&create(id, &format!("name{id}"), "before")).await.unwrap();
    }
    server.terminate();
    let dump = place.directory.path().join("accounts.dump");
    let name = place.database.rsplit('/').next().unwrap();
    Postgres::shared().unwrap().dump(name, &dump).unwrap();
    let older_keys = format!("{}_older", place.key_database_name);
    copy(&place, &older_keys).await;
    let (server, client) = start(&place, &token);
    change(&client, 1, "before", "after").await;
    assert!(recovers(&client, 2).await);
    client.create_account(&create(3, "name3", "after")).await.unwrap();
    server.terminate();
    (place, token, dump, older_keys)
}

#[actix_web::test]
async fn older_accounts_beside_newer_keys_open_as_they_did() {
    let (mut place, token, dump, _) = before_and_after().await;
    // The keys were even moved to another KMS key meanwhile.
    rotate(&mut place);
    works(&place, "keys rewrap");
    place.database = Postgres::shared().unwrap().restore(&dump).unwrap();
    let verified = works(&place, "keys verify");
    assert!(verified.contains("all 2 wallets"), "{verified}");
    // Those that only the older rows refer to are under the older key still.
    let moved = works(&place, "keys rewrap");
    assert!(moved.ends_with("2 moved to kms-2, 0 left\n"), "{moved}");
    assert!(works(&place, "keys verify --decrypt").contains("all 2 wallets"));
    let (server, client) = start(&place, &token);
    for id in [1, 2] {
        assert!(!opens(&client, id, "after").await && !opens(&client, id, "recovered").await);
        assert!(opens(&client, id, "before").await, "{id} by its password of then");
        assert!(recovers(&client, id).await, "{id} by the KMS key");
    }
    // Whoever came after the backup comes again.
    client.create_account(&create(3, "name3", "again")).await.unwrap();
    server.terminate();
    // That rows are gone is told: it is what a restore does.
    let audit = fails(&place, "audit verify");
    assert!(audit.contains("of the chain"), "{audit}");
}

#[actix_web::test]
async fn newer_accounts_beside_older_keys_open_and_those_that_would_not_are_named() {
    let (mut place, token, _, older_keys) = before_and_after().await;
    place.key_database_name = older_keys;
    let named = fails(&place, "keys verify");
    assert_eq!(named.matches("the wrapped key is missing").count(), 3, "{named}");
    assert!(named.contains("3 of 3 wallets would not be recovered"), "{named}");
    let (server, client) = start(&place, &token);
    for (id, words) in [(1, "after"), (2, "recovered"), (3, "after")] {
        assert!(!recovers(&client, id).await, "{id} by the KMS key, too early");
        assert!(opens(&client, id, words).await, "{id} by its password");
    }
    // Which puts each one back.
    let verify = || command(&place, "keys verify --decrypt").output().unwrap();
    let mut verified = verify();
    for _ in 0..50 {
        if verified.status.success() {
            break;
        }
        verified = verify();
    }
    assert!(said(&verified).contains("all 3 wallets"), "{}", said(&verified));
    for id in 1..=3 {
        assert!(recovers(&client, id).await, "{id} by the KMS key");
    }
    server.terminate();
}

#[actix_web::test]
async fn keys_from_before_a_rotation_need_the_older_kms_key() {
    let (mut place, token, _, _) = before_and_after().await;
    let older = format!("{}_unrotated", place.key_database_name);
    copy(&place, &older).await;
    rotate(&mut place);
    works(&place, "keys rewrap");
    place.key_database_name = older;
    assert!(works(&place, "keys verify --decrypt").contains("all 3 wallets"));
    place.variables.retain(|(key, _)| !key.contains("OLDER_KMS_KEYS"));
    let named = fails(&place, "keys verify");
    assert_eq!(named.matches("the KMS key kms-test is not configured").count(), 3, "{named}");
    // Passwords do not need it.
    let (server, client) = start(&place, &token);
    assert!(opens(&client, 1, "after").await);
    server.terminate();
}
