//! The record that a node accepted a payment, beside other transactions in PostgreSQL.

use diesel::{Connection, RunQueryDsl};
use kms_chain::ports::TransferStore;
use kms_chain::spending::SpendingRules;

use crate::fixtures::{Subject, insert, transfer};
use crate::transfers::{BROADCAST, NOW, sign, view};

/// A cancellation is sent at once, also if it is requested while a node accepts the payment.
#[tokio::test]
async fn the_check_of_a_cancellation_that_is_being_committed_is_not_put_off() {
    let subject = Subject::postgres().await;
    let database = subject.database.clone();
    let (ann, bob) = (insert(&database, 1, "ann").await, insert(&database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 1, NOW);
    let id = quote.id;
    database.insert_quote(quote).await.unwrap();
    database.sign(id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign()).await.unwrap();
    let mut other = diesel::PgConnection::establish(&subject.url).unwrap();
    let mut run = |sql: &str| diesel::sql_query(sql).execute(&mut other).unwrap();
    run("begin");
    run("update transfers set cancel_requested_at = 10000");
    run("update transfer_checks set next_at = 10000");
    let broadcast = tokio::spawn(async move { database.advance(id, BROADCAST, NOW).await });
    while subject.waiting_for_locks() == 0 {
        tokio::task::yield_now().await;
    }
    run("commit");
    assert!(broadcast.await.unwrap().unwrap());
    assert_eq!(subject.count("transfer_checks where next_at = 10000"), 1);
}

/// A check that is settled or brought forward is not waited for: what does that may wait for the
/// transfer.
#[tokio::test]
async fn a_broadcast_waits_for_no_check_that_is_locked() {
    let subject = Subject::postgres().await;
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 1, NOW);
    let id = quote.id;
    database.insert_quote(quote).await.unwrap();
    database.sign(id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign()).await.unwrap();
    let mut other = diesel::PgConnection::establish(&subject.url).unwrap();
    let mut run = |sql: &str| diesel::sql_query(sql).execute(&mut other).unwrap();
    run("begin");
    run("update transfer_checks set next_at = 10000");
    assert!(database.advance(id, BROADCAST, NOW).await.unwrap());
    run("commit");
    assert_eq!(subject.count("transfer_checks where next_at = 10000"), 1);
}
