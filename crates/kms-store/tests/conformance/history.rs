//! The history: sent and received transfers and external deposits, in pages of both directions.

use kms_chain::follower::{BlockRef, Deposit, DepositStore, Payment};
use kms_chain::ports::{Progress, Sign, SignedBytes, TransferStore};
use kms_chain::settlement::Outcome;
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::{Wait, WaitReason};
use kms_core::account::Account;
use kms_store::{HistoryCursor, HistoryEntry, Page};
use kms_types::{AccountId, Timestamp, U256, Units};

use crate::fixtures::{Subject, insert, on_every_database, transfer};
use crate::transfers::{BROADCAST, CHAIN, NOW, settle, sign, view};

on_every_database!(
    pages_of_both_directions_lose_and_repeat_nothing,
    deposits_are_part_of_the_history,
    recipients_see_mined_transfers,
    a_replaced_transfer_shows_it_while_in_flight,
);

async fn page(subject: &Subject, account: AccountId, page: Page, limit: u32) -> Vec<HistoryCursor> {
    let found = subject.database.history(account, page, limit).await.unwrap();
    found.iter().map(HistoryEntry::place).collect()
}

/// Records an external deposit at this time.
async fn receive(subject: &Subject, to: &Account, hash: u8, at: i64) {
    let payment = Payment {
        tx_hash: [hash; 32],
        from: [99; 20].into(),
        to: to.wallet.address,
        token: None,
        value: Units(U256::from(hash)),
        block: 7,
    };
    let block = |number: u8| BlockRef { number: number.into(), hash: [number; 32] };
    subject.database.start_at(CHAIN, block(0)).await.unwrap();
    let from = subject.database.cursor(CHAIN).await.unwrap().unwrap();
    let incoming = vec![Deposit { account: to.id, payment }];
    let to = block(u8::try_from(from.number).unwrap() + 1);
    assert!(
        subject.database.record_deposits(CHAIN, from, to, incoming, Timestamp(at)).await.unwrap()
    );
}

async fn pages_of_both_directions_lose_and_repeat_nothing(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    for at in 0..6 {
        // Two of each have the same time and are ordered by id.
        let quote = transfer(&ann, &bob, 1, Timestamp(NOW.0 + at / 2));
        database.insert_quote(quote.clone()).await.unwrap();
        database
            .sign(quote.id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign())
            .await
            .unwrap();
        receive(&subject, &ann, u8::try_from(at + 1).unwrap(), NOW.0 + at / 2).await;
    }
    // A quote that is never confirmed.
    database.insert_quote(transfer(&ann, &bob, 1, NOW)).await.unwrap();
    let all = page(&subject, ann.id, Page::Newest, 100).await;
    assert_eq!(all.len(), 12);
    assert!(all.is_sorted_by(|one, next| one > next));
    for limit in [1, 2, 5, 11, 12, 13] {
        let (mut seen, mut at) = (Vec::new(), Page::Newest);
        loop {
            let found = page(&subject, ann.id, at, limit).await;
            let Some(last) = found.last() else { break };
            at = Page::Before(last.to_string().parse().unwrap());
            seen.extend(found);
        }
        assert_eq!(seen, all, "{limit} a page");
        let (mut seen, mut at) = (Vec::new(), Page::After(all.last().unwrap().clone()));
        loop {
            let found = page(&subject, ann.id, at, limit).await;
            let Some(first) = found.first() else { break };
            at = Page::After(first.clone());
            seen.splice(0..0, found);
        }
        assert_eq!(seen, all[..11], "{limit} a page back");
    }
    for bad in ["", "1", "1.", ".x", "x.6f1c5f0a-3c0e-4d52-9a3e-0f6b7c9d1e2f", "1.' or 1=1"] {
        assert!(bad.parse::<HistoryCursor>().is_err(), "{bad}");
    }
}

async fn deposits_are_part_of_the_history(subject: Subject) {
    let ann = insert(&subject.database, 1, "ann").await;
    receive(&subject, &ann, 9, NOW.0 + 5).await;
    let found = subject.database.history(ann.id, Page::Newest, 10).await.unwrap();
    let [HistoryEntry::Deposit { at, deposit, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((*at, deposit.value), (Timestamp(NOW.0 + 5), Units(U256::from(9))));
    let bob = insert(&subject.database, 2, "bob").await;
    assert!(subject.database.history(bob.id, Page::Newest, 10).await.unwrap().is_empty());
}

async fn recipients_see_mined_transfers(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 1, NOW);
    database.insert_quote(quote.clone()).await.unwrap();
    database
        .sign(quote.id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign())
        .await
        .unwrap();
    assert!(page(&subject, bob.id, Page::Newest, 10).await.is_empty());
    settle(database, quote.id, 1, 1, Outcome::Paid { arrived: None }, 0).await;
    assert_eq!(page(&subject, bob.id, Page::Newest, 10).await.len(), 1);
}

async fn a_replaced_transfer_shows_it_while_in_flight(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 1, NOW);
    database.insert_quote(quote.clone()).await.unwrap();
    let two = |nonce| {
        let mut ladder = (sign().ladder)(nonce);
        let replacement = SignedBytes { tx_hash: [9; 32], ..(sign().ladder)(nonce).first };
        ladder.replacements.push(replacement);
        ladder
    };
    let two = Sign { wallet_version: 1, ladder: Box::new(two) };
    database.sign(quote.id, view(1, 1_000, 0), SpendingRules::default(), NOW, two).await.unwrap();
    let progress = async || {
        let read = database.transfer(quote.id).await.unwrap().unwrap();
        let listed = database.history(ann.id, Page::Newest, 1).await.unwrap();
        assert_eq!(listed, [HistoryEntry::Transfer(Box::new(read.clone()))]);
        (read.replacements_sent, read.wait)
    };
    database.advance(quote.id, BROADCAST, NOW).await.unwrap();
    assert_eq!(progress().await, (0, None));
    let replaced = Progress::Replaced { tx_hash: [9; 32], block: 2 };
    database.advance(quote.id, replaced, NOW).await.unwrap();
    assert_eq!(progress().await, (1, None));
    let later = Timestamp(NOW.0 + 1);
    let reason = WaitReason::Fee;
    database.advance(quote.id, Progress::Waiting(reason), later).await.unwrap();
    assert_eq!(progress().await, (1, Some(Wait { reason, since: later })));
    settle(database, quote.id, 1, 1, Outcome::Paid { arrived: None }, 0).await;
    assert_eq!(progress().await, (0, None));
}
