//! Balances at final blocks: what no known payment explains is recorded and reported once.

use std::time::Duration;

use kms_chain::follower::{BlockRef, Deposit, DepositStore, DueBalance, Payment};
use kms_chain::ports::TransferStore;
use kms_chain::settlement::Outcome;
use kms_chain::spending::SpendingRules;
use kms_core::account::Account;
use kms_store::{Database, HistoryEntry, Page};
use kms_types::{Timestamp, U256, Units, Wei};

use crate::fixtures::{Subject, insert, on_every_database, transfer};
use crate::transfers::{CHAIN, COIN, NOW, finalize, settle, sign, view};

on_every_database!(
    what_no_payment_explains_is_reported_once,
    payments_and_fees_are_explained_to_the_last_wei,
    small_amounts_are_summed_up,
    balances_from_before_a_rewind_are_not_compared,
    wallets_from_before_the_chain_have_nothing_to_compare_with,
    active_wallets_are_compared_at_every_block_and_others_in_turn,
);

fn block(number: u8) -> BlockRef {
    BlockRef { number: number.into(), hash: [number; 32] }
}

fn wei(wei: u64) -> Wei {
    Wei(U256::from(wei))
}

async fn move_to(database: &Database, from: u8, to: u8, found: Vec<Deposit>) {
    assert!(database.record_deposits(CHAIN, block(from), block(to), found, NOW).await.unwrap());
}

/// Records the balance of one wallet, and returns the number of deposits that were found.
async fn record(database: &Database, at: u8, account: &Account, balance: u64) -> u32 {
    let read = vec![(account.id, Some(wei(balance)))];
    database.record_balances(CHAIN, block(at), read, NOW).await.unwrap()
}

async fn due_at(database: &Database, at: u8, now: Timestamp) -> Vec<DueBalance> {
    database.due_balances(CHAIN, block(at), now, 10).await.unwrap()
}

/// What the account should have; panics if it is not due.
async fn expected(database: &Database, at: u8, account: &Account) -> Option<Wei> {
    let due = due_at(database, at, NOW).await;
    due.iter().find(|due| due.account == account.id).unwrap().expected
}

/// The deposits in the history: the value, and whether their sender is known.
async fn received(database: &Database, account: &Account) -> Vec<(u64, bool)> {
    let history = database.history(account.id, Page::Newest, 10).await.unwrap();
    let mut shown: Vec<_> = history
        .iter()
        .filter_map(|entry| match entry {
            HistoryEntry::Deposit { deposit, .. } => {
                assert_eq!(deposit.from.is_some(), deposit.tx_hash.is_some());
                Some((deposit.value.0.to(), deposit.from.is_some()))
            }
            HistoryEntry::Transfer(_) => None,
        })
        .collect();
    shown.sort_unstable();
    shown
}

async fn what_no_payment_explains_is_reported_once(subject: Subject) {
    let database = &subject.database;
    database.start_at(CHAIN, block(1)).await.unwrap();
    let ann = insert(database, 1, "ann").await;
    move_to(database, 1, 2, Vec::new()).await;
    assert_eq!(expected(database, 2, &ann).await, Some(wei(0)));
    // Not at a block where the cursor is not, nor at another one of the same number.
    assert_eq!(record(database, 1, &ann, 7).await, 0);
    let other = BlockRef { hash: [9; 32], ..block(2) };
    let read = vec![(ann.id, Some(wei(7)))];
    assert_eq!(database.record_balances(CHAIN, other, read, NOW).await.unwrap(), 0);
    let (one, two) = tokio::join!(record(database, 2, &ann, 7), record(database, 2, &ann, 7));
    assert_eq!(one + two, 1);
    assert_eq!(due_at(database, 2, NOW).await, []);
    move_to(database, 2, 3, Vec::new()).await;
    assert_eq!(expected(database, 3, &ann).await, Some(wei(7)));
    assert_eq!(record(database, 3, &ann, 7).await, 0);
    // It paid something that is not known.
    move_to(database, 3, 4, Vec::new()).await;
    assert_eq!(record(database, 4, &ann, 2).await, 0);
    move_to(database, 4, 5, Vec::new()).await;
    assert_eq!(record(database, 5, &ann, 5).await, 1);
    assert_eq!(received(database, &ann).await, [(3, false), (7, false)]);
}

async fn payments_and_fees_are_explained_to_the_last_wei(subject: Subject) {
    let database = &subject.database;
    database.start_at(CHAIN, block(1)).await.unwrap();
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let payment = Payment {
        tx_hash: [99; 32],
        from: [98; 20].into(),
        to: ann.wallet.address,
        token: None,
        value: Units(U256::from(1_000)),
        block: 2,
    };
    let deposit = Deposit { account: ann.id, payment };
    move_to(database, 1, 2, vec![deposit.clone()]).await;
    assert_eq!(record(database, 2, &ann, 1_000).await, 0);
    // Known already, and in another block: it explains what arrived there.
    let mut again = deposit;
    again.payment.block = 3;
    let mut nonces = 0..;
    for (hash, outcome) in [
        (16, Outcome::Paid { arrived: None }),
        (17, Outcome::Reverted),
        (18, Outcome::Cancelled),
        (19, Outcome::Superseded),
    ] {
        let quote = transfer(&ann, &bob, 100, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let view = view(1, 100_000, nonces.next().unwrap());
        database.sign(quote.id, view, SpendingRules::default(), NOW, sign()).await.unwrap();
        settle(database, quote.id, 3, hash, outcome, 3).await;
    }
    finalize(database, 3).await;
    move_to(database, 2, 3, vec![again]).await;
    // One payment of 100, three fees of 3, and 1,000 that arrived again; what the unknown
    // transaction took is not known.
    assert_eq!(expected(database, 3, &ann).await, Some(wei(1_000 + 1_000 - 100 - 9)));
    assert_eq!(expected(database, 3, &bob).await, Some(wei(100)));
    assert_eq!(record(database, 3, &ann, 1_892).await, 1);
    assert_eq!(record(database, 3, &bob, 100).await, 0);
    assert_eq!(received(database, &ann).await, [(1, false), (1_000, true)]);
}

async fn small_amounts_are_summed_up(subject: Subject) {
    let database = subject.database.clone();
    let database = database.with_notice_from([(COIN, Units(U256::from(100)))].into());
    database.start_at(CHAIN, block(1)).await.unwrap();
    let ann = insert(&database, 1, "ann").await;
    for (at, balance) in [(2, 5), (3, 9), (4, 200)] {
        move_to(&database, at - 1, at, Vec::new()).await;
        assert_eq!(record(&database, at, &ann, balance).await, 1);
    }
    assert_eq!(received(&database, &ann).await, [(9, false), (191, false)]);
}

async fn balances_from_before_a_rewind_are_not_compared(subject: Subject) {
    let database = &subject.database;
    database.start_at(CHAIN, block(5)).await.unwrap();
    let ann = insert(database, 1, "ann").await;
    move_to(database, 5, 6, Vec::new()).await;
    assert_eq!(record(database, 6, &ann, 0).await, 0);
    move_to(database, 6, 3, Vec::new()).await;
    assert_eq!(expected(database, 3, &ann).await, None);
    assert_eq!(record(database, 3, &ann, 9).await, 0);
    move_to(database, 3, 6, Vec::new()).await;
    assert_eq!(expected(database, 6, &ann).await, Some(wei(9)));
    assert_eq!(record(database, 6, &ann, 10).await, 1);
    assert_eq!(received(database, &ann).await, [(1, false)]);
}

async fn wallets_from_before_the_chain_have_nothing_to_compare_with(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    database.start_at(CHAIN, block(1)).await.unwrap();
    move_to(database, 1, 2, Vec::new()).await;
    assert_eq!(expected(database, 2, &ann).await, None);
    assert_eq!(record(database, 2, &ann, 1_000).await, 0);
    move_to(database, 2, 3, Vec::new()).await;
    database.compare_balance_soon(CHAIN, ann.id, NOW).await.unwrap();
    assert_eq!(expected(database, 3, &ann).await, Some(wei(1_000)));
    assert_eq!(record(database, 3, &ann, 1_001).await, 1);
}

async fn active_wallets_are_compared_at_every_block_and_others_in_turn(subject: Subject) {
    let database = &subject.database;
    database.start_at(CHAIN, block(1)).await.unwrap();
    let ann = insert(database, 1, "ann").await;
    let ids = |due: Vec<DueBalance>| due.iter().map(|due| due.account).collect::<Vec<_>>();
    let hour = Duration::from_secs(3_600);
    let mut now = ann.created_at.plus(hour / 2);
    let mut at = 2;
    let mut compare = async |now, balance| {
        move_to(database, at - 1, at, Vec::new()).await;
        let due = ids(due_at(database, at, now).await);
        let read = vec![(ann.id, balance)];
        if !due.is_empty() {
            database.record_balances(CHAIN, block(at), read, now).await.unwrap();
        }
        at += 1;
        due.len()
    };
    assert_eq!(compare(now, Some(wei(0))).await, 1);
    assert_eq!(compare(now, Some(wei(0))).await, 1);
    // Eight hours later: an hour from then.
    now = ann.created_at.plus(hour * 8);
    assert_eq!(compare(now, Some(wei(0))).await, 1);
    assert_eq!(compare(now.plus(hour / 2), Some(wei(0))).await, 0);
    now = now.plus(hour);
    // No second endpoint confirms it: again in a minute, and then still not taken for known.
    assert_eq!(compare(now, None).await, 1);
    assert_eq!(compare(now.plus(Duration::from_secs(59)), None).await, 0);
    now = now.plus(Duration::from_secs(60));
    assert_eq!(compare(now, Some(wei(7))).await, 1);
    // It received something, so it is active.
    assert_eq!(compare(now.plus(hour / 2), Some(wei(7))).await, 1);
    assert_eq!(received(database, &ann).await, [(7, false)]);
    // At most a day later.
    now = now.plus(hour * 24 * 100);
    assert_eq!(compare(now, Some(wei(7))).await, 1);
    assert_eq!(compare(now.plus(hour * 24), Some(wei(7))).await, 1);
    // Its owner looks at the balance.
    now = now.plus(hour * 24 + hour);
    assert_eq!(compare(now, Some(wei(7))).await, 0);
    database.compare_balance_soon(CHAIN, ann.id, now).await.unwrap();
    assert_eq!(compare(now, Some(wei(7))).await, 1);
}
