//! Accounts that are used on the vault page alone.

use kms_core::freeze::FreezeChange;
use kms_core::ports::{AccountStore, FreezeStore, StoreError};
use kms_types::{AccountId, Timestamp};

use crate::fixtures::{Subject, insert, on_every_database};

on_every_database!(an_account_is_page_only_from_the_first_time_on);

async fn an_account_is_page_only_from_the_first_time_on(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let read = async || database.account(ann.id.into()).await.unwrap().unwrap().page_only_since;
    assert_eq!(read().await, None);
    for at in [7, 8] {
        database.set_page_only(ann.id, Timestamp(at)).await.unwrap();
        assert_eq!(read().await, Some(Timestamp(7)));
    }
    // A change of the same row keeps it.
    database.change_freeze(ann.id, FreezeChange::ByOwner, Timestamp(9)).await.unwrap();
    assert_eq!(read().await, Some(Timestamp(7)));
    database.set_page_only(AccountId::random(), Timestamp(1)).await.unwrap();
    if !subject.url.ends_with(":memory:") {
        subject.tamper("update accounts set page_only_since = null");
        let found = database.account(ann.id.into()).await;
        assert!(matches!(found, Err(StoreError::Tampered { .. })), "{found:?}");
    }
}
