//! Every key database passes the same functions: a SQLite file and MongoDB.

use std::sync::Arc;

use kms_core::ServerKeySet;
use kms_core::audit::{Checkpoint, Tip};
use kms_core::ports::WrappedSck;
use kms_store::{
    ConnectError, KeyDatabase, KeyDatabaseOwner, open_existing_key_database, open_key_database,
};
use kms_types::{AccountId, SckId, Timestamp};

/// Runs functions over every key database: a name, and how to open an empty one.
macro_rules! on_every_key_database {
    ($($(#[$feature:meta])? $name:ident: $open:expr),* $(,)?) => {
        $(
            $(#[$feature])?
            mod $name {
                use super::*;

                #[tokio::test]
                async fn an_sck_is_inserted_once_and_replaced_by_the_first_of_two() {
                    let keys = $open.await;
                    super::an_sck_is_inserted_once_and_replaced_by_the_first_of_two(&*keys).await;
                }

                #[tokio::test]
                async fn scks_are_listed_in_the_order_of_their_ids() {
                    super::scks_are_listed_in_the_order_of_their_ids(&*$open.await).await;
                }

                #[tokio::test]
                async fn checkpoints_are_returned_as_stored() {
                    super::checkpoints_are_returned_as_stored(&*$open.await).await;
                }

                #[tokio::test]
                async fn the_owner_is_replaced_by_who_knows_it() {
                    super::the_owner_is_replaced_by_who_knows_it(&*$open.await).await;
                }
            }
        )*
    };
}

on_every_key_database!(
    #[cfg(feature = "sqlite")]
    sqlite: sqlite(),
    #[cfg(feature = "mongodb")]
    mongodb: mongodb(),
);

async fn sqlite() -> Arc<dyn KeyDatabase> {
    open_key_database("sqlite::memory:", "").await.unwrap()
}

#[cfg(feature = "mongodb")]
async fn mongodb() -> Arc<dyn KeyDatabase> {
    let url = kms_testkit::Mongod::shared().unwrap().url();
    open_key_database(&url, &format!("scks_{}", SckId::random())).await.unwrap()
}

fn sck(id: SckId) -> WrappedSck {
    WrappedSck {
        id,
        account: AccountId::random(),
        master_key: "kms-1".parse().unwrap(),
        bytes: vec![0, 1, 2, 255],
    }
}

async fn an_sck_is_inserted_once_and_replaced_by_the_first_of_two(keys: &dyn KeyDatabase) {
    keys.ping().await.unwrap();
    let one = sck(SckId::random());
    keys.put_sck(one.clone()).await.unwrap();
    assert_eq!(keys.sck(one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(keys.sck(SckId::random()).await.unwrap(), None);
    assert!(keys.put_sck(sck(one.id)).await.is_err());
    assert_eq!(keys.sck(one.id).await.unwrap(), Some(one.clone()));
    let new = |byte: u8| WrappedSck {
        master_key: "kms-2".parse().unwrap(),
        bytes: vec![byte; 3],
        ..one.clone()
    };
    let stale = WrappedSck { bytes: vec![7], ..one.clone() };
    assert!(!keys.replace_sck(&stale, new(8)).await.unwrap());
    assert!(keys.replace_sck(&one, new(9)).await.unwrap());
    assert!(!keys.replace_sck(&one, new(10)).await.unwrap());
    assert_eq!(keys.sck(one.id).await.unwrap(), Some(new(9)));
    keys.remove_sck(one.id).await.unwrap();
    assert_eq!(keys.sck(one.id).await.unwrap(), None);
}

async fn scks_are_listed_in_the_order_of_their_ids(keys: &dyn KeyDatabase) {
    let mut expected = Vec::new();
    for _ in 0..3 {
        let one = sck(SckId::random());
        expected.push((one.id.to_string(), one.account.to_string()));
        keys.put_sck(one).await.unwrap();
    }
    expected.sort();
    assert_eq!(keys.scks_after("", 2).await.unwrap(), expected[..2]);
    assert_eq!(keys.scks_after(&expected[1].0, 2).await.unwrap(), expected[2..]);
    assert_eq!(keys.scks_after(&expected[2].0, 2).await.unwrap(), []);
}

async fn checkpoints_are_returned_as_stored(keys: &dyn KeyDatabase) {
    let audit_keys: ServerKeySet = format!("1:{}", "44".repeat(32)).parse().unwrap();
    let mut lines = Vec::new();
    for sequence in 1..=3 {
        let tip = Tip { sequence, hash: [7; 32] };
        let checkpoint = Checkpoint::sign(tip, Timestamp(sequence), &audit_keys);
        lines.push(checkpoint.to_string());
        keys.put_checkpoint(checkpoint).await.unwrap();
    }
    assert_eq!(keys.checkpoints().await.unwrap(), lines);
}

async fn the_owner_is_replaced_by_who_knows_it(keys: &dyn KeyDatabase) {
    let owner =
        |claim: &str| KeyDatabaseOwner { identity: "first".to_owned(), claim: claim.to_owned() };
    assert_eq!(keys.owner().await.unwrap(), None);
    assert!(!keys.replace_owner(Some(&owner("a")), &owner("b")).await.unwrap());
    assert!(keys.replace_owner(None, &owner("a")).await.unwrap());
    assert!(!keys.replace_owner(None, &owner("b")).await.unwrap());
    assert!(!keys.replace_owner(Some(&owner("b")), &owner("c")).await.unwrap());
    assert!(keys.replace_owner(Some(&owner("a")), &owner("b")).await.unwrap());
    assert_eq!(keys.owner().await.unwrap(), Some(owner("b")));
}

#[tokio::test]
async fn a_sqlite_file_keeps_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("keys.db").display());
    let one = sck(SckId::random());
    open_key_database(&url, "").await.unwrap().put_sck(one.clone()).await.unwrap();
    let again = open_existing_key_database(&url, "").await.unwrap();
    assert_eq!(again.sck(one.id).await.unwrap(), Some(one));
}

#[tokio::test]
async fn a_missing_sqlite_file_is_created_only_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.db");
    let url = format!("sqlite:{}", file.display());
    let refused = open_existing_key_database(&url, "").await.unwrap_err();
    assert!(matches!(refused, ConnectError::Open(_)), "{refused}");
    assert!(!file.exists());
    open_key_database(&url, "").await.unwrap();
    assert!(file.exists());
}

#[tokio::test]
async fn another_scheme_is_refused() {
    for url in ["postgres://localhost/keys", "keys.db", ""] {
        let refused = open_key_database(url, "kms").await.unwrap_err();
        assert!(matches!(refused, ConnectError::Scheme { .. }), "{url}: {refused}");
    }
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn an_unreadable_url_is_not_quoted() {
    for url in ["mongodb://kms:zebra/zebra@localhost/", "mongodb://kms:zebra@zebra@localhost:2x/"] {
        let refused = open_key_database(url, "kms").await.unwrap_err();
        assert!(matches!(refused, ConnectError::Url), "{refused:?}");
        assert!(!format!("{refused:?} {refused}").contains("zebra"), "{refused:?}");
    }
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn a_silent_mongodb_fails_within_its_deadline() {
    use kms_core::ports::StoreError;
    let mongod = kms_testkit::Mongod::start().unwrap();
    let keys = open_key_database(&mongod.url(), "kms").await.unwrap();
    let one = sck(SckId::random());
    keys.put_sck(one.clone()).await.unwrap();
    mongod.pause().unwrap();
    let waited = std::time::Instant::now();
    let refused = keys.sck(one.id).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { store: "key", .. }), "{refused}");
    assert!(waited.elapsed() < std::time::Duration::from_secs(20));
    mongod.resume().unwrap();
    assert_eq!(keys.sck(one.id).await.unwrap(), Some(one));
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn the_rights_of_a_role_are_tried_without_a_trace() {
    use ::mongodb::bson::{Document, doc};
    let mongod = kms_testkit::Mongod::start_with_roles().unwrap();
    let grants = async |url: &str| open_key_database(url, "kms").await.unwrap().grants().await;
    let server = grants(&mongod.serving_url()).await.unwrap();
    assert_eq!(server, kms_store::KeyDatabaseGrants::default());
    let superuser = grants(&mongod.url()).await.unwrap();
    assert!(superuser.changes_checkpoints && superuser.missing.is_empty());

    let admin = ::mongodb::Client::with_uri_str(mongod.url()).await.unwrap();
    let made = admin.database("kms").list_collection_names().await.unwrap();
    assert_eq!(made, [""; 0], "nothing is left behind");
    let scks = doc! { "db": "kms", "collection": "wrapped_scks" };
    let privilege = doc! { "resource": scks, "actions": ["find", "insert"] };
    let role = doc! { "updateRole": "kmsServer", "privileges": [privilege] };
    let _: Document = admin.database("admin").run_command(role).await.unwrap();
    let less = grants(&mongod.serving_url()).await.unwrap();
    assert!(!less.changes_checkpoints);
    assert_eq!(less.missing[..2], ["update in wrapped_scks", "remove in wrapped_scks"]);
    assert_eq!(less.missing.len(), 10);
}
