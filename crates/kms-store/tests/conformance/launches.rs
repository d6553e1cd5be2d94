//! Openings of the vault page.

use kms_core::HashedToken;
use kms_core::launch::LaunchProof;
use kms_core::ports::StoreError;
use kms_store::{Opened, OpenedLaunch};
use kms_types::Timestamp;

use crate::fixtures::{Subject, on_every_database};

on_every_database!(
    a_launch_belongs_to_the_key_that_came_first,
    one_of_many_keys_wins,
    old_launches_are_deleted_and_proofs_kept,
    a_changed_launch_is_refused,
);

pub(crate) fn launch(name: &str, key: u8) -> OpenedLaunch {
    let message = format!("7:WebAppData\nauth_date=1\nstart_param=n\nuser={name}");
    OpenedLaunch {
        proof: LaunchProof { message, signature: [5; 64] },
        key: HashedToken::from([key; 32]),
        opened_at: Timestamp(1_000),
    }
}

async fn a_launch_belongs_to_the_key_that_came_first(subject: Subject) {
    let database = &subject.database;
    let ann = launch("ann", 1);
    for at in [1_000, 2_000] {
        let again = OpenedLaunch { opened_at: Timestamp(at), ..ann.clone() };
        assert_eq!(database.open_launch(again, false).await.unwrap(), Opened::Bound(ann.clone()));
    }
    assert_eq!(database.open_launch(launch("ann", 2), false).await.unwrap(), Opened::Used);
    // A key opens one launch.
    assert_eq!(database.open_launch(launch("bob", 1), false).await.unwrap(), Opened::Used);
    let of_key = async |key: u8| database.launch_of_key([key; 32].into()).await.unwrap();
    assert_eq!((of_key(1).await, of_key(2).await), (Some(ann.clone()), None));
    let id = ann.proof.id().to_string();
    assert_eq!(database.launch(&id).await.unwrap(), Some(ann));
    assert_eq!(database.launch("").await.unwrap(), None);
}

async fn one_of_many_keys_wins(subject: Subject) {
    let mut tasks = tokio::task::JoinSet::new();
    for key in 0..16 {
        let database = subject.database.clone();
        tasks.spawn(async move { database.open_launch(launch("ann", key), false).await.unwrap() });
    }
    let opened = tasks.join_all().await;
    let bound: Vec<_> = opened
        .into_iter()
        .filter_map(|opened| match opened {
            Opened::Bound(launch) => Some(launch),
            Opened::Used => None,
        })
        .collect();
    assert_eq!(bound.len(), 1);
    assert_eq!(subject.database.launch_of_key(bound[0].key).await.unwrap().as_ref(), bound.first());
}

async fn old_launches_are_deleted_and_proofs_kept(subject: Subject) {
    let database = &subject.database;
    for (name, key, is_proof) in [("ann", 1, false), ("bob", 2, true), ("eve", 3, false)] {
        database.open_launch(launch(name, key), is_proof).await.unwrap();
    }
    assert_eq!(database.delete_old_launches(Timestamp(1_000), 10).await.unwrap(), 0);
    assert_eq!(database.delete_old_launches(Timestamp(1_001), 1).await.unwrap(), 1);
    assert_eq!(database.delete_old_launches(Timestamp(1_001), 10).await.unwrap(), 1);
    assert_eq!(database.delete_old_launches(Timestamp(1_001), 10).await.unwrap(), 0);
    assert!(database.launch_of_key([2; 32].into()).await.unwrap().is_some());
}

async fn a_changed_launch_is_refused(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    database.open_launch(launch("ann", 1), false).await.unwrap();
    let read = async || database.launch_of_key([1; 32].into()).await;
    subject.tamper("update launches set opened_at = opened_at + 1");
    assert!(matches!(read().await, Err(StoreError::Tampered { .. })));
    let again = database.open_launch(launch("ann", 1), false).await;
    assert!(matches!(again, Err(StoreError::Tampered { .. })));
    subject.tamper("update launches set opened_at = opened_at - 1, message = message || 'x'");
    assert!(matches!(read().await, Err(StoreError::Corrupt { .. })));
}
