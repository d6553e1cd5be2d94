//! An owner's spending limit, or a quote, that another program puts back as it was, or deletes.

use std::time::Duration;

use kms_chain::ports::{SignOutcome, TransferStore};
#[cfg(feature = "postgres")]
use kms_chain::spending::SpendingRules;
use kms_core::audit::{Action, AuditRecord, Caller, Details, Phase};
use kms_core::ports::{AuditLog, RescueStore, StoreError};
use kms_store::Raises;

use crate::fixtures::{Subject, insert, on_every_shared_database};
use crate::spending_limits::{caps, quoted, record_signature, rules, units};
use crate::transfers::{COIN, NOW, sign, view};

on_every_shared_database!(
    a_limit_that_was_put_back_or_deleted_is_refused_until_a_rescue,
    a_quote_that_is_put_back_after_it_was_signed_is_not_signed_again,
);

/// Another program puts an older, higher limit back, or deletes the newest.
async fn a_limit_that_was_put_back_or_deleted_is_refused_until_a_rescue(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let set = async |limit: u64| {
        let raises = (Duration::ZERO, Raises::Always);
        let set = database.set_spending_limit(ann.id, COIN, Some(units(limit)), raises, NOW);
        set.await.unwrap().unwrap();
        let (action, phase) = (Action::ChangeLimit(ann.id, COIN), Phase::Outcome("ok"));
        let (caller, details) = (Caller::new("bot", "r-1"), Details::default());
        let (account, telegram_id) = (Some(ann.id), Some(ann.telegram_id));
        let record = AuditRecord { at: NOW, caller, action, phase, account, telegram_id, details };
        database.append(record).await.unwrap();
    };
    let signed = async || {
        let id = quoted(&subject, &ann, &bob, 5).await;
        database.sign(id, view(1, 1_000_000, 0), rules(100), NOW, sign()).await
    };
    set(50).await;
    subject.tamper("create table kept as select * from spending_limits");
    set(4).await;
    subject.tamper("create table newest as select * from spending_limits");
    assert!(matches!(signed().await, Ok(SignOutcome::OverLimit(_))));
    for change in ["delete from spending_limits", "insert into spending_limits select * from kept"]
    {
        subject.tamper(change);
        for error in [
            signed().await.unwrap_err(),
            database.spending(ann.id, COIN, caps(100), NOW).await.unwrap_err(),
        ] {
            let tampered = matches!(error, StoreError::Tampered { table: "spending_limits", .. });
            assert!(tampered, "{change}: {error}");
        }
        let damaged = database.damaged_account(ann.id.into()).await.unwrap().unwrap();
        assert_eq!(damaged.damage, ["spending_limits"], "{change}");
    }
    // The newest one is as good as before.
    subject.tamper("delete from spending_limits");
    subject.tamper("insert into spending_limits select * from newest");
    assert!(matches!(signed().await, Ok(SignOutcome::OverLimit(_))));
    // A rescue leaves the limit of the operator.
    subject.tamper("delete from spending_limits");
    let damaged = database.damaged_account(ann.id.into()).await.unwrap().unwrap();
    let rescued = damaged.clone().rescued(NOW);
    assert!(database.rescue_account(&damaged, rescued, NOW).await.unwrap());
    let spending = database.spending(ann.id, COIN, caps(100), NOW).await.unwrap();
    assert_eq!(spending.own.units, None);
    assert_eq!(database.damaged_account(ann.id.into()).await.unwrap().unwrap().damage.len(), 0);
    set(3).await;
    let own = database.spending(ann.id, COIN, caps(100), NOW).await.unwrap().own;
    assert_eq!(own.units, Some(units(3)));
}

/// Put back while the password is tried, after all that is read before it.
async fn a_quote_that_is_put_back_after_it_was_signed_is_not_signed_again(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let id = quoted(&subject, &ann, &bob, 5).await;
    let signed = async || {
        let signed = database.sign(id, view(1, 1_000_000, 0), rules(100), NOW, sign());
        signed.await.unwrap()
    };
    subject.tamper("create table kept as select * from transfers");
    assert!(matches!(signed().await, SignOutcome::Signed(_)));
    record_signature(database, &ann, id, &bob, NOW).await;
    for table in ["signed_transactions", "transfer_checks", "spends", "events"] {
        subject.tamper(&format!("delete from {table}"));
    }
    subject.tamper("delete from transfers");
    subject.tamper("insert into transfers select * from kept");
    assert_eq!(signed().await, SignOutcome::RolledBack);
    assert_eq!(subject.count("signed_transactions"), 0);
}

/// Put back while a second confirmation waits for the row: the audit that it began with is older
/// than the record of the first.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_quote_that_is_put_back_while_its_row_is_waited_for_is_not_signed_again() {
    use diesel::{Connection, RunQueryDsl};
    let subject = Subject::postgres().await;
    let database = subject.database.clone();
    let (ann, bob) = (insert(&database, 1, "ann").await, insert(&database, 2, "bob").await);
    let id = quoted(&subject, &ann, &bob, 5).await;
    let mut other = diesel::PgConnection::establish(&subject.url).unwrap();
    let mut run = |sql: &str| diesel::sql_query(sql).execute(&mut other).unwrap();
    run("begin");
    run("update transfers set state = 'quoted'");
    let signed = tokio::spawn(async move {
        // Without a limit, which would compare the spends with the audit.
        let rules = SpendingRules::default();
        database.sign(id, view(1, 1_000_000, 0), rules, NOW, sign()).await
    });
    while subject.waiting_for_locks() == 0 {
        tokio::task::yield_now().await;
    }
    record_signature(&subject.database, &ann, id, &bob, NOW).await;
    run("commit");
    assert_eq!(signed.await.unwrap().unwrap(), SignOutcome::RolledBack);
    for table in ["signed_transactions", "transfer_checks", "spends"] {
        assert_eq!(subject.count(table), 0, "{table}");
    }
    assert_eq!(subject.count("transfers where state = 'quoted'"), 1);
}
