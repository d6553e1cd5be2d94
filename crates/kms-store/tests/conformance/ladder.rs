//! Fee ladders and nonces: every step is stored with its hash before it is sent, and erased at the
//! end; no nonce is skipped.

use kms_chain::ports::{
    Progress, Sign, SignOutcome, SignedBytes, SignedLadder, SignedTx, TransferStore,
};
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::Missing;
use kms_chain::transfer::{Fees, Ladder, TransferFailure};
use kms_types::{Timestamp, U256, Wei};

use crate::fixtures::{Subject, insert, on_every_database, transfer};
use crate::transfers::{CHAIN, NOW, sign, view};

on_every_database!(a_ladder_is_stored_and_sent_step_by_step, the_lowest_free_nonce_is_taken);

/// Signs four steps, whose hashes and bytes consist of the number of the step.
fn sign_ladder() -> Sign {
    Box::new(|_| {
        let step = |step| SignedBytes { tx_hash: [step; 32], sealed: vec![step; 3] };
        SignedLadder { first: step(0), replacements: [1, 2, 3].map(step).to_vec() }
    })
}

async fn a_ladder_is_stored_and_sent_step_by_step(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let first = Fees { max_fee_per_gas: 8, max_priority_fee_per_gas: 1 };
    let mut quote = transfer(&ann, &bob, 100, NOW);
    quote.ladder = Ladder::rising_from(first);
    let id = quote.id;
    database.insert_quote(quote.clone()).await.unwrap();
    assert_eq!(database.transfer(id, NOW).await.unwrap(), Some(quote.clone()));
    // The balance must cover the highest step: 10 gas for 8, 9, 11, 13.
    assert_eq!(quote.max_fee(), Wei(U256::from(130)));
    let poor = database
        .sign(id, view(1, 229, 0), SpendingRules::default(), NOW, sign_ladder())
        .await
        .unwrap();
    assert_eq!(poor, SignOutcome::Insufficient { missing: Missing::Native(Wei(U256::from(1))) });
    database.sign(id, view(1, 230, 0), SpendingRules::default(), NOW, sign_ladder()).await.unwrap();
    assert_eq!(database.pending_spend(CHAIN, ann.id).await.unwrap().wei, Wei(U256::from(230)));

    let due = async |now: i64| {
        let (now, until) = (Timestamp(NOW.0 + now), Timestamp(NOW.0 + now + 1));
        let mut due = database.claim_due(CHAIN, now, until, 10).await.unwrap();
        assert_eq!(due.len(), 1);
        due.remove(0)
    };
    let at = |step: u8, sent_at| SignedTx {
        step: step.into(),
        tx_hash: [step; 32],
        sealed: vec![step; 3],
        sent_at,
    };
    let found = due(0).await;
    assert_eq!((found.first, found.waiting_notified), (at(0, None), false));
    assert_eq!(found.replacements, [1, 2, 3].map(|step| at(step, None)));

    let (one, two) = (Timestamp(NOW.0 + 1), Timestamp(NOW.0 + 2));
    assert!(database.advance(id, Progress::Broadcast, one).await.unwrap());
    assert!(database.advance(id, Progress::Replaced { step: 1 }, two).await.unwrap());
    // Recorded already, or no such step.
    for step in [1, 4] {
        assert!(!database.advance(id, Progress::Replaced { step }, two).await.unwrap());
    }
    assert!(database.advance(id, Progress::Waiting, two).await.unwrap());
    assert!(!database.advance(id, Progress::Waiting, two).await.unwrap());
    let found = due(10).await;
    assert_eq!((found.first, found.waiting_notified), (at(0, Some(one)), true));
    assert_eq!(found.replacements[..2], [at(1, Some(two)), at(2, None)]);
    assert_eq!(found.transfer.tx_hash, Some([1; 32]));

    // The first step is mined after all; after a reorg the last one counts again.
    let mined =
        Progress::Mined { tx_hash: [0; 32], block: 5, fee: Wei(U256::from(3)), arrived: None };
    assert!(database.advance(id, mined, NOW).await.unwrap());
    assert_eq!(due(20).await.transfer.tx_hash, Some([0; 32]));
    assert!(database.advance(id, Progress::Reorged, NOW).await.unwrap());
    assert_eq!(due(30).await.transfer.tx_hash, Some([1; 32]));
    assert!(database.advance(id, Progress::Superseded, NOW).await.unwrap());
    let failed = database.transfer(id, NOW).await.unwrap().unwrap();
    assert_eq!(failed.failure, Some(TransferFailure::Superseded));
    assert_eq!(database.pending_spend(CHAIN, ann.id).await.unwrap().wei, Wei::default());
}

async fn every_step_is_erased_at_the_end(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mined = Progress::Mined { tx_hash: [1; 32], block: 5, fee: Wei::default(), arrived: None };
    let reverted = Progress::Reverted { tx_hash: [1; 32], block: 5, fee: Wei::default() };
    for (nonce, end) in [&[mined, Progress::Final][..], &[reverted], &[Progress::Superseded]]
        .into_iter()
        .enumerate()
    {
        let quote = transfer(&ann, &bob, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        database
            .sign(quote.id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign_ladder())
            .await
            .unwrap();
        let kept = || subject.count("signed_transactions where sealed is not null");
        assert_eq!(kept(), 4);
        for progress in end {
            assert_eq!(kept(), 4);
            assert!(database.advance(quote.id, *progress, NOW).await.unwrap());
        }
        assert_eq!(kept(), 0);
        assert_eq!(subject.count("signed_transactions"), 4 * (i64::try_from(nonce).unwrap() + 1));
        subject.tamper("update transfers set tx_hash = null");
    }
}

#[tokio::test]
async fn every_step_is_erased_at_the_end_in_a_file() {
    every_step_is_erased_at_the_end(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn every_step_is_erased_at_the_end_in_postgresql() {
    every_step_is_erased_at_the_end(Subject::postgres().await).await;
}

async fn the_lowest_free_nonce_is_taken(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let signed_for = async |chain_says| {
        let quote = transfer(&ann, &bob, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let signed = database
            .sign(quote.id, view(1, 1_000, chain_says), SpendingRules::default(), NOW, sign())
            .await;
        match signed.unwrap() {
            SignOutcome::Signed(signed) => signed.nonce.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    // The chain reported a nonce that was too high: the gap below is filled later.
    assert_eq!(signed_for(5).await, 5);
    assert_eq!(signed_for(3).await, 3);
    assert_eq!(signed_for(3).await, 4);
    assert_eq!(signed_for(3).await, 6);
    // A nonce that is too low is not assigned twice.
    assert_eq!(signed_for(0).await, 0);
    assert_eq!(signed_for(4).await, 7);
}
