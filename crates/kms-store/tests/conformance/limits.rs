//! What may be spent in a day: reserved with the signature, given back when nothing moved.

use std::time::Duration;

use kms_chain::ports::{Progress, SignOutcome, TransferStore};
use kms_chain::spending::{Caps, DAY, RAISE_AFTER};
use kms_core::account::Account;
use kms_types::{Timestamp, TransferId, U256, Units, Wei};

use crate::fixtures::{Subject, insert, on_every_database, transfer};
use crate::transfers::{NOW, sign, view};

on_every_database!(
    many_at_once_stay_within_the_limit,
    what_failed_is_given_back,
    a_day_later_there_is_room,
    an_owners_limit_counts_and_rises_late,
    assets_have_limits_of_their_own,
);

fn units(units: u64) -> Units {
    Units(U256::from(units))
}

fn caps(a_day: u64) -> Caps {
    Caps { a_day: Some(units(a_day)), ..Caps::default() }
}

async fn quoted(subject: &Subject, from: &Account, to: &Account, wei: u64) -> TransferId {
    let mut quote = transfer(from, to, wei, NOW);
    quote.expires_at = Timestamp(i64::MAX);
    subject.database.insert_quote(quote.clone()).await.unwrap();
    quote.id
}

async fn signs(subject: &Subject, id: TransferId, caps: Caps, now: Timestamp) -> SignOutcome {
    subject.database.sign(id, view(1, 1_000_000, 0), caps, now, sign()).await.unwrap()
}

async fn many_at_once_stay_within_the_limit(subject: Subject) {
    let (ann, bob) =
        (insert(&subject.database, 1, "ann").await, insert(&subject.database, 2, "bob").await);
    let mut signing = Vec::new();
    for _ in 0..20 {
        let id = quoted(&subject, &ann, &bob, 10).await;
        let database = subject.database.clone();
        signing.push(tokio::spawn(async move {
            database.sign(id, view(1, 1_000_000, 0), caps(75), NOW, sign()).await.unwrap()
        }));
    }
    let mut signed = 0;
    for outcome in signing {
        match outcome.await.unwrap() {
            SignOutcome::Signed(_) => signed += 1,
            SignOutcome::OverLimit(reached) => {
                assert_eq!((reached.limit, reached.left), (units(75), units(5)));
                assert_eq!(reached.possible_at, Some(NOW.plus(DAY)));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(signed, 7);
    let spending = subject.database.spending(ann.id, None, caps(75), NOW).await.unwrap();
    assert_eq!((spending.limit, spending.spent), (Some(units(75)), units(70)));
    // Another account is another account.
    let id = quoted(&subject, &bob, &ann, 75).await;
    assert!(matches!(signs(&subject, id, caps(75), NOW).await, SignOutcome::Signed(_)));
}

async fn what_failed_is_given_back(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let fee = Wei::default();
    for failure in [
        Progress::Reverted { tx_hash: [1; 32], block: 1, fee },
        Progress::NothingMoved { tx_hash: [2; 32], block: 1, fee },
        Progress::NonceTaken,
    ] {
        let id = quoted(&subject, &ann, &bob, 10).await;
        assert!(matches!(signs(&subject, id, caps(10), NOW).await, SignOutcome::Signed(_)));
        let next = quoted(&subject, &ann, &bob, 1).await;
        assert!(matches!(signs(&subject, next, caps(10), NOW).await, SignOutcome::OverLimit(_)));
        assert!(database.advance(id, failure, NOW).await.unwrap());
        let spending = database.spending(ann.id, None, caps(10), NOW).await.unwrap();
        assert_eq!(spending.spent, units(0));
    }
}

async fn a_day_later_there_is_room(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let id = quoted(&subject, &ann, &bob, 10).await;
    assert!(matches!(signs(&subject, id, caps(10), NOW).await, SignOutcome::Signed(_)));
    let next = quoted(&subject, &ann, &bob, 10).await;
    let almost = Timestamp(NOW.plus(DAY).0 - 1);
    assert!(matches!(signs(&subject, next, caps(10), almost).await, SignOutcome::OverLimit(_)));
    let over = async |now| database.over_limit(ann.id, None, units(10), caps(10), now).await;
    assert!(over(almost).await.unwrap().is_some());
    assert!(over(NOW.plus(DAY)).await.unwrap().is_none());
    assert!(matches!(signs(&subject, next, caps(10), NOW.plus(DAY)).await, SignOutcome::Signed(_)));
}

async fn an_owners_limit_counts_and_rises_late(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    database.set_limit(ann.id, None, Some(units(5)), Duration::ZERO, NOW).await.unwrap();
    let id = quoted(&subject, &ann, &bob, 6).await;
    let refused = signs(&subject, id, caps(10), NOW).await;
    assert!(matches!(refused, SignOutcome::OverLimit(reached) if reached.limit == units(5)));
    database.set_limit(ann.id, None, Some(units(100)), Duration::ZERO, NOW).await.unwrap();
    let soon = NOW.plus(Duration::from_secs(60));
    match signs(&subject, id, caps(10), soon).await {
        SignOutcome::OverLimit(reached) => {
            assert_eq!(reached.possible_at, Some(NOW.plus(RAISE_AFTER)));
        }
        outcome => panic!("{outcome:?}"),
    }
    let later = NOW.plus(RAISE_AFTER);
    let spending = database.spending(ann.id, None, caps(10), later).await.unwrap();
    assert_eq!((spending.limit, spending.own.at(later)), (Some(units(10)), Some(units(100))));
    assert!(matches!(signs(&subject, id, caps(10), later).await, SignOutcome::Signed(_)));
    database.set_limit(ann.id, None, None, Duration::ZERO, later).await.unwrap();
    let spending = database.spending(ann.id, None, Caps::default(), later).await.unwrap();
    assert_eq!(spending.limit, Some(units(100)));
}

async fn assets_have_limits_of_their_own(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let token = Some([200; 20].into());
    database.set_limit(ann.id, token, Some(units(1)), Duration::ZERO, NOW).await.unwrap();
    let id = quoted(&subject, &ann, &bob, 6).await;
    assert!(matches!(signs(&subject, id, Caps::default(), NOW).await, SignOutcome::Signed(_)));
    let none = Caps::default();
    assert!(database.over_limit(ann.id, token, units(2), none, NOW).await.unwrap().is_some());
    assert!(database.over_limit(ann.id, token, units(1), none, NOW).await.unwrap().is_none());
}

async fn a_limit_that_was_changed_behind_the_back_is_refused(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    database.set_limit(ann.id, None, Some(units(5)), Duration::ZERO, NOW).await.unwrap();
    database.set_limit(ann.id, None, Some(units(50)), Duration::ZERO, NOW).await.unwrap();
    let id = quoted(&subject, &ann, &bob, 6).await;
    for change in ["units = '500'", "later_at = 0", "later = 'none'"] {
        subject.tamper(&format!("update spending_limits set {change}"));
        let signed = database.sign(id, view(1, 1_000_000, 0), caps(10), NOW, sign()).await;
        assert!(signed.is_err(), "{change}");
    }
}

#[tokio::test]
async fn a_limit_in_a_file_that_was_changed_is_refused() {
    a_limit_that_was_changed_behind_the_back_is_refused(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_limit_in_postgresql_that_was_changed_is_refused() {
    a_limit_that_was_changed_behind_the_back_is_refused(Subject::postgres().await).await;
}
