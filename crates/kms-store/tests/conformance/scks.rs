//! Wrapped SCKs in a SQLite file and in MongoDB.

use kms_core::ports::{SckStore, WrappedSck};
use kms_store::SqliteScks;
use kms_types::{AccountId, SckId};

fn sck(id: SckId) -> WrappedSck {
    WrappedSck {
        id,
        account: AccountId::random(),
        master_key: "kms-1".parse().unwrap(),
        bytes: vec![0, 1, 2, 255],
    }
}

async fn keeps_what_it_was_given(store: &dyn SckStore) {
    let one = sck(SckId::random());
    store.put_sck(one.clone()).await.unwrap();
    assert_eq!(store.sck(one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(store.sck(SckId::random()).await.unwrap(), None);
    // An id is written once.
    assert!(store.put_sck(sck(one.id)).await.is_err());
    assert_eq!(store.sck(one.id).await.unwrap(), Some(one.clone()));
    // It is replaced by who read what stands there, and by the first of two.
    let new = |byte: u8| WrappedSck {
        master_key: "kms-2".parse().unwrap(),
        bytes: vec![byte; 3],
        ..one.clone()
    };
    let stale = WrappedSck { bytes: vec![7], ..one.clone() };
    assert!(!store.replace_sck(&stale, new(8)).await.unwrap());
    assert!(store.replace_sck(&one, new(9)).await.unwrap());
    assert!(!store.replace_sck(&one, new(10)).await.unwrap());
    assert_eq!(store.sck(one.id).await.unwrap(), Some(new(9)));
}

#[tokio::test]
async fn sqlite_keeps_what_it_was_given() {
    keeps_what_it_was_given(&SqliteScks::open(":memory:").await.unwrap()).await;
    let file = tempfile::tempdir().unwrap().keep().join("keys.db");
    let path = file.to_str().unwrap();
    let one = sck(SckId::random());
    SqliteScks::open(path).await.unwrap().put_sck(one.clone()).await.unwrap();
    let again = SqliteScks::open(path).await.unwrap();
    assert_eq!(again.sck(one.id).await.unwrap(), Some(one));
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn mongodb_keeps_what_it_was_given() {
    let url = kms_testkit::Mongod::shared().unwrap().url();
    let name = format!("scks_{}", SckId::random());
    let store = kms_store::MongoScks::connect(&url, &name).await.unwrap();
    store.ping().await.unwrap();
    keeps_what_it_was_given(&store).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn a_silent_mongodb_is_given_up_in_time() {
    use kms_core::ports::StoreError;
    let mongod = kms_testkit::Mongod::start().unwrap();
    let store = kms_store::MongoScks::connect(&mongod.url(), "kms").await.unwrap();
    let one = sck(SckId::random());
    store.put_sck(one.clone()).await.unwrap();
    mongod.pause().unwrap();
    let waited = std::time::Instant::now();
    let refused = store.sck(one.id).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { store: "key", .. }), "{refused}");
    assert!(waited.elapsed() < std::time::Duration::from_secs(8));
    mongod.resume().unwrap();
    assert_eq!(store.sck(one.id).await.unwrap(), Some(one));
}
