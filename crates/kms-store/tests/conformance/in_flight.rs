//! Transfers in flight are counted, and what is left of those that ended is deleted.

use std::time::Duration;

use kms_chain::follower::BlockRef;
use kms_chain::ports::{Progress, SignOutcome, TransferStore};
use kms_chain::settlement::{NonceUse, Outcome, ReadBlocks, Settlement, SettlementStore};
use kms_chain::spending::{Caps, SpendingRules};
use kms_chain::transfer::{Transfer, TransferState, WaitReason};
use kms_store::{InState, InWait};
use kms_types::{Timestamp, TransferId, U256, Units, Wei};

use crate::fixtures::{Subject, insert, on_every_database, transfer};
use crate::transfers::{
    BROADCAST, CHAIN, COIN, DUE, KEPT_UNTIL, NOW, finalize, position, settle, sign, view,
};

on_every_database!(
    transfers_in_flight_are_counted_by_state_and_reason,
    old_attempts_are_deleted_except_what_is_in_a_block,
);

/// Another server is claiming the check of one of two transfers at this moment.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_claim_does_not_wait_for_another_one() {
    use diesel::connection::SimpleConnection;
    let subject = Subject::postgres().await;
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut signed = Vec::new();
    for nonce in 0..2 {
        let quote = transfer(&ann, &bob, 100, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let view = view(1, 10_000, nonce);
        database.sign(quote.id, view, SpendingRules::default(), NOW, sign()).await.unwrap();
        signed.push(quote.id);
    }
    let mut other = subject.postgres_connection();
    let lock = format!(
        "begin; select transfer_id from transfer_checks where transfer_id = '{}' for update",
        signed[0]
    );
    other.batch_execute(&lock).unwrap();
    let claimed = database.claim_due(CHAIN, DUE, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|due| due.transfer.id).collect::<Vec<_>>(), [signed[1]]);
    other.batch_execute("rollback").unwrap();
    let claimed = database.claim_due(CHAIN, DUE, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|due| due.transfer.id).collect::<Vec<_>>(), [signed[0]]);
}

async fn transfers_in_flight_are_counted_by_state_and_reason(subject: Subject) {
    let database = &subject.database;
    assert_eq!(database.transfers_in_flight().await.unwrap(), []);
    assert_eq!(database.waits_by_reason().await.unwrap(), []);
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut signed = Vec::new();
    for nonce in 0..5 {
        let quoted_at = Timestamp(NOW.0 - i64::try_from(nonce).unwrap());
        let quote = transfer(&ann, &bob, 100, quoted_at);
        database.insert_quote(quote.clone()).await.unwrap();
        let view = view(1, 10_000, nonce);
        database.sign(quote.id, view, SpendingRules::default(), NOW, sign()).await.unwrap();
        signed.push(quote.id);
    }
    let funds = Progress::Waiting(WaitReason::Funds);
    for id in &signed[1..4] {
        database.advance(*id, BROADCAST, NOW).await.unwrap();
        database.advance(*id, funds, NOW).await.unwrap();
    }
    let paid = Outcome::Paid { arrived: None };
    settle(database, signed[3], 7, 1, paid, 1).await;
    settle(database, signed[4], 6, 2, paid, 1).await;
    finalize(database, 6).await;
    let mut found = database.transfers_in_flight().await.unwrap();
    found.sort_unstable_by_key(|it| it.oldest);
    let state = |state, count, before| InState {
        chain_id: CHAIN,
        state,
        count,
        oldest: Timestamp(NOW.0 - before),
    };
    assert_eq!(
        found,
        [
            state(TransferState::Mined, 1, 3),
            state(TransferState::Broadcast, 2, 2),
            state(TransferState::Signed, 1, 0),
        ]
    );
    let funds = InWait { chain_id: CHAIN, reason: WaitReason::Funds, count: 2 };
    assert_eq!(database.waits_by_reason().await.unwrap(), [funds]);
    // Those of another chain are counted apart.
    let other = Transfer { chain_id: CHAIN + 1, ..transfer(&ann, &bob, 100, NOW) };
    database.insert_quote(other.clone()).await.unwrap();
    database
        .sign(other.id, view(1, 10_000, 0), SpendingRules::default(), NOW, sign())
        .await
        .unwrap();
    database.advance(other.id, Progress::Waiting(WaitReason::Funds), NOW).await.unwrap();
    let found = database.transfers_in_flight().await.unwrap();
    let counts = |chain| found.iter().filter(move |it| it.chain_id == chain).map(|it| it.count);
    assert_eq!((counts(CHAIN).sum::<u64>(), counts(CHAIN + 1).sum::<u64>()), (4, 1));
    let waits = database.waits_by_reason().await.unwrap();
    assert!(
        waits.contains(&funds)
            && waits.contains(&InWait { chain_id: CHAIN + 1, count: 1, ..funds })
    );
}

async fn old_attempts_are_deleted_except_what_is_in_a_block(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut hashes = Vec::new();
    for nonce in 0..3 {
        let quote = transfer(&ann, &bob, 100, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let view = view(1, 10_000, nonce);
        let signed = database.sign(quote.id, view, SpendingRules::default(), NOW, sign());
        let SignOutcome::Signed(signed) = signed.await.unwrap() else { panic!() };
        hashes.push((quote.id, signed.tx_hash.unwrap(), nonce));
    }
    // One is paid, the nonce of one is used by another transaction, and one is pending.
    let used = |&(id, tx_hash, nonce): &(TransferId, [u8; 32], u64)| {
        let uses = vec![NonceUse { from: ann.wallet.address, nonce, tx_hash }];
        async move {
            let found = database.match_nonces(CHAIN, uses).await.unwrap();
            found.iter().any(|it| it.transfer.id == id && it.signed_as.is_some())
        }
    };
    let block = BlockRef { number: 5, hash: [1; 32] };
    let settlement = |(transfer, tx_hash), outcome| Settlement {
        transfer,
        block,
        tx_hash,
        outcome,
        fee: Wei::default(),
    };
    let settlements = vec![
        settlement((hashes[0].0, hashes[0].1), Outcome::Paid { arrived: None }),
        settlement((hashes[1].0, [9; 32]), Outcome::Superseded),
    ];
    let read = ReadBlocks { blocks: vec![block], settlements, is_fork: false };
    let at = position(database).await;
    database.settle(CHAIN, at, read, NOW).await.unwrap().unwrap();
    finalize(database, 5).await;
    let later = NOW.plus(Duration::from_millis(1));
    // Not while the bytes are kept, and not before the time.
    assert_eq!(database.delete_old_attempts(later, 10).await.unwrap(), 0);
    database.erase_old_signed_bytes(KEPT_UNTIL, 10).await.unwrap();
    assert_eq!(database.delete_old_attempts(NOW, 10).await.unwrap(), 0);
    assert_eq!(database.delete_old_attempts(later, 10).await.unwrap(), 2);
    assert_eq!(database.delete_old_attempts(later, 10).await.unwrap(), 0);
    let mut known = Vec::new();
    for hash in &hashes {
        known.push(used(hash).await);
    }
    assert_eq!(known, [true, false, true]);
    // The proofs, and what was spent.
    let superseded = database.transfer(hashes[1].0).await.unwrap().unwrap();
    assert_eq!(superseded.superseded_by, Some([9; 32]));
    let caps = Caps::default();
    let spent = database.spending(ann.id, COIN, caps, NOW).await.unwrap().spent;
    assert_eq!(spent, Units(U256::from(100 + 100 + 10)));
    assert_eq!(database.claim_due(CHAIN, DUE, 10).await.unwrap().len(), 1);
}
