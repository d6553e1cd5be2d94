//! A key database serves one account database, and not its copies.

use std::sync::Arc;

use kms_store::{ClaimError, Database, KeyDatabase, KeyDatabaseOwner, open_key_database};

use crate::fixtures::{Subject, on_every_database, open};

on_every_database!(
    another_key_database_is_refused,
    a_key_database_of_another_account_database_is_refused,
    a_copy_is_refused_once_the_original_has_started,
    an_interrupted_claim_is_completed,
    servers_that_start_at_once_are_all_accepted,
);

async fn keys() -> Arc<dyn KeyDatabase> {
    open_key_database("sqlite::memory:", "").await.unwrap()
}

async fn used(subject: &Subject) -> &Database {
    subject.database.check_server_keys().await.unwrap();
    &subject.database
}

async fn another_key_database_is_refused(subject: Subject) {
    let (database, first, second) = (used(&subject).await, keys().await, keys().await);
    database.check_key_database(&*first).await.unwrap();
    database.claim_key_database(&*first).await.unwrap();
    database.claim_key_database(&*first).await.unwrap();
    let refused = database.claim_key_database(&*second).await;
    assert!(matches!(refused, Err(ClaimError::New)), "{refused:?}");
    assert_eq!(second.owner().await.unwrap(), None);
    // The key database was lost.
    database.adopt_key_database(&*second).await.unwrap();
    database.claim_key_database(&*second).await.unwrap();
    let refused = database.claim_key_database(&*first).await;
    assert!(matches!(refused, Err(ClaimError::Copy)), "{refused:?}");
}

async fn a_key_database_of_another_account_database_is_refused(subject: Subject) {
    let (database, keys) = (used(&subject).await, keys().await);
    let owner = KeyDatabaseOwner { identity: "other".to_owned(), claim: "a".to_owned() };
    assert!(keys.replace_owner(None, &owner).await.unwrap());
    for refused in [
        database.check_key_database(&*keys).await,
        database.claim_key_database(&*keys).await,
        database.adopt_key_database(&*keys).await,
    ] {
        assert!(matches!(refused, Err(ClaimError::Foreign { .. })), "{refused:?}");
    }
    assert_eq!(keys.owner().await.unwrap(), Some(owner));
}

/// Two account databases with the same server keys are as alike as a database and its backup.
async fn a_copy_is_refused_once_the_original_has_started(subject: Subject) {
    let (original, keys) = (used(&subject).await, keys().await);
    let backup = Subject::memory().await;
    let copy = used(&backup).await;
    original.claim_key_database(&*keys).await.unwrap();
    let refused = copy.claim_key_database(&*keys).await;
    assert!(matches!(refused, Err(ClaimError::Copy)), "{refused:?}");
    // The operator restores the backup in the place of the original.
    copy.adopt_key_database(&*keys).await.unwrap();
    copy.claim_key_database(&*keys).await.unwrap();
    let refused = original.claim_key_database(&*keys).await;
    assert!(matches!(refused, Err(ClaimError::Copy)), "{refused:?}");
}

/// A server dies before or after its write to the key database.
async fn an_interrupted_claim_is_completed(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let (database, keys) = (used(&subject).await, keys().await);
    database.claim_key_database(&*keys).await.unwrap();
    subject.tamper("update key_database_claim set next = 'b'");
    database.claim_key_database(&*keys).await.unwrap();
    let owner = keys.owner().await.unwrap().unwrap();
    assert_eq!(owner.claim, "b");
    subject.tamper("update key_database_claim set current = 'a', next = 'b'");
    database.claim_key_database(&*keys).await.unwrap();
    assert_eq!(subject.count("key_database_claim where current = 'b' and next is null"), 1);
}

async fn servers_that_start_at_once_are_all_accepted(subject: Subject) {
    used(&subject).await;
    let keys = keys().await;
    let mut servers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let database = if subject.url.ends_with(":memory:") {
            subject.database.clone()
        } else {
            open(&subject.url, &subject.keys).await
        };
        let keys = Arc::clone(&keys);
        servers.spawn(async move {
            for _ in 0..5 {
                database.claim_key_database(&*keys).await.unwrap();
            }
        });
    }
    while let Some(done) = servers.join_next().await {
        done.unwrap();
    }
    subject.database.check_key_database(&*keys).await.unwrap();
}
