//! Orphaned SCKs, and since when they are orphaned.

use std::time::Duration;

use kms_core::ports::{AccountStore, StoreError};
use kms_types::{SckId, Timestamp};

use crate::fixtures::{Subject, insert, on_every_database};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NOTHING: [SckId; 0] = [];

on_every_database!(
    an_orphaned_sck_is_due_after_the_retention,
    one_clock_that_runs_ahead_ages_nothing,
    a_tampered_record_is_refused,
);

#[expect(clippy::disallowed_methods, reason = "it is compared with the database's clock")]
fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

async fn an_orphaned_sck_is_due_after_the_retention(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let (current, orphan) = (ann.wallet.sck_id, SckId::random());
    let due = async |retention| {
        database.orphaned_for(retention, vec![current, orphan], now()).await.unwrap()
    };
    let short = Duration::from_millis(50);
    assert_eq!(due(short).await, NOTHING);
    assert_eq!(due(DAY).await, NOTHING);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(due(DAY).await, NOTHING);
    assert_eq!(due(short).await, [orphan]);
    // A change of password refers to another SCK: the former one becomes an orphan.
    let wallet = kms_core::account::Wallet { sck_id: orphan, ..ann.wallet.clone() };
    assert!(database.reseal_wallet(ann.id, current, wallet).await.unwrap());
    assert_eq!(due(short).await, NOTHING);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(due(short).await, [current]);
    // A restored backup refers to the first SCK again: its time starts again later.
    let restored = ann.wallet.clone();
    assert!(database.reseal_wallet(ann.id, orphan, restored).await.unwrap());
    assert_eq!(due(short).await, NOTHING);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(due(short).await, [orphan]);
    database.forget_orphaned_sck(orphan).await.unwrap();
    assert_eq!(due(short).await, NOTHING);
}

async fn one_clock_that_runs_ahead_ages_nothing(subject: Subject) {
    let (database, orphan) = (&subject.database, SckId::random());
    let due = async |now| database.orphaned_for(DAY, vec![orphan], now).await.unwrap();
    assert_eq!(due(now()).await, NOTHING);
    assert_eq!(due(now().plus(DAY * 400)).await, NOTHING);
    // Recorded by a clock that runs behind: the time of the database counts.
    database.forget_orphaned_sck(orphan).await.unwrap();
    assert_eq!(due(Timestamp(0)).await, NOTHING);
    assert_eq!(due(now()).await, NOTHING);
}

async fn a_tampered_record_is_refused(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let (database, orphan) = (&subject.database, SckId::random());
    let due = async || database.orphaned_for(DAY, vec![orphan], now()).await;
    assert_eq!(due().await.unwrap(), NOTHING);
    subject.tamper("update orphaned_scks set since = 0");
    assert!(matches!(due().await, Err(StoreError::Tampered { .. })));
}
