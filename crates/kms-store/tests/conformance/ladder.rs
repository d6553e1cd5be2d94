//! Fee ladders and nonces: every step is stored with its hash before it is sent, and erased at the
//! end; no nonce is skipped.

use kms_chain::follower::{BlockRef, DepositStore};
use kms_chain::ports::{
    ChoosePrices, Progress, ReplaceOutcome, Sent, Sign, SignAgain, SignOutcome, SignedBytes,
    SignedLadder, SignedTx, TransferStore,
};
use kms_chain::settlement::{Outcome, Position, ReadBlocks, Settlement, SettlementStore};
use kms_chain::spending::{Caps, SpendingRules};
use kms_chain::transfer::{
    Fees, Ladder, Missing, Refusal, TransactionKind, Transfer, TransferFailure, TransferState,
    WaitReason,
};
use kms_core::account::{SwapReason, Wallet, WalletSwap};
use kms_core::freeze::FreezeChange;
use kms_core::ports::{AccountStore, FreezeStore};
use kms_store::Page;
use kms_types::{EventCursor, ReplacementId, SckId, Timestamp, U256, Units, Wei};

use crate::fixtures::{Subject, events, insert, on_every_database, transfer};
use crate::transfers::{
    BROADCAST, CHAIN, COIN, DUE, KEPT_UNTIL, NOW, finalize, replace_block, settle, sign, view,
};

on_every_database!(
    a_ladder_is_stored_and_sent_step_by_step,
    a_cancellation_ends_a_signed_transfer,
    a_cancellation_that_is_signed_again_reserves_what_can_still_be_taken,
    a_frozen_account_signs_nothing_and_is_marked,
    a_wallet_that_was_opened_with_an_earlier_password_signs_nothing,
    a_wallet_that_was_opened_with_an_earlier_password_replaces_nothing,
    the_lowest_free_nonce_is_taken,
    a_server_that_was_overtaken_settles_and_finalizes_nothing,
);

/// The prices of four steps and of the cancellation.
const PRICES: [u128; 5] = [8, 9, 11, 13, 15];

fn fees(step: u8) -> Fees {
    Fees::Legacy { price: PRICES[usize::from(step)] }
}

/// Signs four steps and a cancellation, whose hashes and bytes consist of the number of the step.
fn sign_ladder() -> Sign {
    let ladder = |_| {
        let step =
            |step| SignedBytes { tx_hash: [step; 32], fees: fees(step), sealed: vec![step; 3] };
        SignedLadder {
            first: step(0),
            replacements: [1, 2, 3].map(step).to_vec(),
            cancellation: step(4),
        }
    };
    Sign { wallet_version: 1, ladder: Box::new(ladder) }
}

async fn a_ladder_is_stored_and_sent_step_by_step(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut quote = transfer(&ann, &bob, 100, NOW);
    quote.ladder = Ladder::new(7, fees(0), [1, 2, 3].map(fees).to_vec()).unwrap();
    let id = quote.id;
    database.insert_quote(quote.clone()).await.unwrap();
    assert_eq!(database.transfer(id).await.unwrap(), Some(quote.clone()));
    // The balance must cover the highest step: 10 gas for 8, 9, 11, 13.
    assert_eq!(quote.max_fee(), Wei(U256::from(130)));
    let poor = database
        .sign(id, view(1, 229, 0), SpendingRules::default(), NOW, sign_ladder())
        .await
        .unwrap();
    assert_eq!(poor, SignOutcome::Insufficient { missing: Missing::Native(Wei(U256::from(1))) });
    database.sign(id, view(1, 230, 0), SpendingRules::default(), NOW, sign_ladder()).await.unwrap();
    let pending = async || database.pending_spend(CHAIN, ann.wallet.address, 0).await.unwrap().wei;
    assert_eq!(pending().await, Wei(U256::from(230)));

    let due = async |now: i64| {
        let mut due = database.claim_due(CHAIN, Timestamp(NOW.0 + now), 10).await.unwrap();
        assert_eq!(due.len(), 1);
        due.remove(0)
    };
    let at = |step: u8, sent: Option<(Timestamp, u64)>| SignedTx {
        step: step.into(),
        kind: match step {
            4 => TransactionKind::Cancellation,
            _ => TransactionKind::Payment,
        },
        fees: fees(step),
        tx_hash: [step; 32],
        sealed: vec![step; 3],
        sent: sent.map(|(at, block)| Sent { at, block }),
    };
    let found = due(1_000).await;
    // The first one counts as sent from the signature on.
    assert_eq!((found.first, found.sender_frozen), (at(0, Some((NOW, 1))), false));
    assert_eq!(found.replacements, [1, 2, 3, 4].map(|step| at(step, None)));

    let (one, two) = (Timestamp(NOW.0 + 1), Timestamp(NOW.0 + 2));
    assert!(database.advance(id, BROADCAST, one).await.unwrap());
    let replaced = |step| Progress::Replaced { tx_hash: [step; 32], block: 5 };
    assert!(database.advance(id, replaced(1), two).await.unwrap());
    // Recorded already, or no such transaction.
    for step in [0, 1, 5] {
        assert!(!database.advance(id, replaced(step), two).await.unwrap());
    }
    let waits = |reason| database.advance(id, Progress::Waiting(reason), two);
    assert!(waits(WaitReason::Fee).await.unwrap());
    assert!(!waits(WaitReason::Fee).await.unwrap());
    let found = due(60_000).await;
    let wait = found.transfer.wait.unwrap();
    assert_eq!((found.first, wait.reason), (at(0, Some((NOW, 1))), WaitReason::Fee));
    assert_eq!(found.replacements[..2], [at(1, Some((two, 5))), at(2, None)]);
    assert_eq!(found.transfer.tx_hash, Some([1; 32]));
    // Another reason replaces it, and a sent transaction ends it.
    assert!(waits(WaitReason::Refused(Refusal::TipTooLow)).await.unwrap());
    assert!(database.advance(id, Progress::Resumed, two).await.unwrap());
    assert!(!database.advance(id, Progress::Resumed, two).await.unwrap());
    assert!(waits(WaitReason::Funds).await.unwrap());
    assert!(database.advance(id, replaced(2), two).await.unwrap());
    assert_eq!(due(120_000).await.transfer.wait, None);

    // The first step is mined after all; after a reorg the last one counts again.
    settle(database, id, 5, 0, Outcome::Paid { arrived: None }, 3).await;
    let hash = async || database.transfer(id).await.unwrap().unwrap().tx_hash;
    assert_eq!(hash().await, Some([0; 32]));
    assert!(database.claim_due(CHAIN, Timestamp(NOW.0 + 900_000), 10).await.unwrap().is_empty());
    replace_block(database, 5).await;
    assert_eq!(due(900_000).await.transfer.tx_hash, Some([2; 32]));
    settle(database, id, 6, 9, Outcome::Superseded, 0).await;
    assert_eq!(finalize(database, 6).await, [id]);
    let failed = database.transfer(id).await.unwrap().unwrap();
    assert_eq!(failed.failure, Some(TransferFailure::Superseded));
    assert_eq!((failed.superseded_by, failed.tx_hash), (Some([9; 32]), Some([2; 32])));
    let left = database.pending_spend(CHAIN, ann.wallet.address, 1).await.unwrap();
    assert_eq!(left.wei, Wei::default());
}

async fn a_cancellation_ends_a_signed_transfer(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut quote = transfer(&ann, &bob, 100, NOW);
    quote.ladder = Ladder::new(7, fees(0), [1, 2, 3].map(fees).to_vec()).unwrap();
    let id = quote.id;
    database.insert_quote(quote).await.unwrap();
    let rules = SpendingRules::default;
    database.sign(id, view(1, 230, 0), rules(), NOW, sign_ladder()).await.unwrap();
    let until = Timestamp(DUE.0 + 1_000);
    assert_eq!(database.claim_due(CHAIN, DUE, 10).await.unwrap().len(), 1);
    // Recorded once, and looked at by the next round.
    let later = Timestamp(DUE.0 + 1);
    for now in [later, Timestamp(DUE.0 + 500)] {
        let asked = database.cancel(id, now).await.unwrap().unwrap();
        assert_eq!((asked.state, asked.cancel_requested_at), (TransferState::Signed, Some(later)));
        let due = database.claim_due(CHAIN, now, 10).await.unwrap();
        assert_eq!(due.len(), usize::from(now == later));
    }
    let (tx_hash, fee) = ([4; 32], Wei(U256::from(140)));
    for _ in 0..2 {
        settle(database, id, 5, 4, Outcome::Cancelled, 140).await;
        // Not before it is final.
        assert_eq!(database.transfer(id).await.unwrap().unwrap().state, TransferState::Signed);
    }
    finalize(database, 5).await;
    let end = database.transfer(id).await.unwrap().unwrap();
    assert_eq!(
        (end.state, end.tx_hash, end.fee),
        (TransferState::Cancelled, Some(tx_hash), Some(fee))
    );
    let spent = database.spending(ann.id, COIN, Caps::default(), until).await.unwrap().spent;
    assert_eq!(spent, Units(U256::from(140)));
    // Signed, asked, cancelled; the recipient was never notified of it.
    let events = events(database, EventCursor::default(), 5).await;
    let about = |account| events.iter().filter(|event| event.account == account).count() - 1;
    assert_eq!((about(ann.id), about(bob.id)), (3, 0));
    assert_eq!(database.history(ann.id, Page::Newest, 10).await.unwrap().len(), 1);
}

/// The payment was not signed again, and still may be mined at its own price.
async fn a_cancellation_that_is_signed_again_reserves_what_can_still_be_taken(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut quote = transfer(&ann, &bob, 100, NOW);
    quote.ladder = Ladder::new(7, fees(0), [1, 2, 3].map(fees).to_vec()).unwrap();
    let id = quote.id;
    database.insert_quote(quote).await.unwrap();
    let rules = SpendingRules::default;
    database.sign(id, view(1, 230, 0), rules(), NOW, sign_ladder()).await.unwrap();
    database.cancel(id, NOW).await.unwrap().unwrap();
    let sent = Progress::Replaced { tx_hash: [4; 32], block: 5 };
    assert!(database.advance(id, sent, NOW).await.unwrap());
    let pending = async || database.pending_spend(CHAIN, ann.wallet.address, 0).await.unwrap().wei;
    // 10 gas for an eighth more than the price; the payment takes 100, and 130 for its gas.
    for (step, price, reserved) in [(10, 20, 230), (11, 40, 450)] {
        let (view, again) = (view(6, reserved, 0), sign_again(step, price, 1));
        let replaced = database.replace(id, ReplacementId::random(), view, rules(), NOW, again);
        assert!(matches!(replaced.await.unwrap(), ReplaceOutcome::Replaced(_)));
        assert_eq!(pending().await, Wei(U256::from(reserved)));
    }
}

/// Signs at this price with a wallet that was opened at this version.
pub(crate) fn sign_again(step: u8, price: u128, wallet_version: i64) -> (ChoosePrices, SignAgain) {
    let price = Fees::Legacy { price };
    let ladder = Box::new(move |again: &Transfer, _nonce| {
        let signed = |fees| SignedBytes { tx_hash: [step; 32], fees, sealed: vec![step; 3] };
        SignedLadder {
            first: signed(again.ladder.first()),
            replacements: Vec::new(),
            cancellation: signed(again.ladder.cancellation()),
        }
    });
    let choose: ChoosePrices = Box::new(move |_above| Ladder::new(7, price, Vec::new()));
    (choose, SignAgain { wallet_version, ladder })
}

async fn a_wallet_that_was_opened_with_an_earlier_password_replaces_nothing(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = Transfer {
        ladder: Ladder::new(7, fees(0), [1, 2, 3].map(fees).to_vec()).unwrap(),
        ..transfer(&ann, &bob, 100, NOW)
    };
    let (id, rules) = (quote.id, SpendingRules::default);
    database.insert_quote(quote).await.unwrap();
    database.sign(id, view(1, 230, 0), rules(), NOW, sign_ladder()).await.unwrap();
    database.cancel(id, NOW).await.unwrap().unwrap();
    let sent = Progress::Replaced { tx_hash: [4; 32], block: 5 };
    assert!(database.advance(id, sent, NOW).await.unwrap());
    let wallet = Wallet { version: 2, sck_id: SckId::random(), ..ann.wallet.clone() };
    let reason = SwapReason::PasswordChange;
    let swap = WalletSwap { account: ann.id, replaces: 1, wallet, reason, at: NOW };
    assert!(database.swap_wallet(swap).await.unwrap());
    let replace = async |version| {
        let (view, again) = (view(6, 230, 0), sign_again(10, 20, version));
        database.replace(id, ReplacementId::random(), view, rules(), NOW, again).await.unwrap()
    };
    let pending = async || database.pending_spend(CHAIN, ann.wallet.address, 0).await.unwrap().wei;
    let before = pending().await;
    assert_eq!(replace(1).await, ReplaceOutcome::WalletChanged);
    assert_eq!(pending().await, before);
    assert!(matches!(replace(2).await, ReplaceOutcome::Replaced(_)));
}

async fn a_frozen_account_signs_nothing_and_is_marked(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quotes = [transfer(&ann, &bob, 1, NOW), transfer(&ann, &bob, 1, NOW)];
    for quote in &quotes {
        database.insert_quote(quote.clone()).await.unwrap();
    }
    let sign_one = async |quote: &Transfer| {
        let rules = SpendingRules::default();
        database.sign(quote.id, view(1, 1_000, 0), rules, NOW, sign()).await.unwrap()
    };
    assert!(matches!(sign_one(&quotes[0]).await, SignOutcome::Signed(_)));
    database.change_freeze(ann.id, FreezeChange::ByOwner, NOW).await.unwrap();
    assert_eq!(sign_one(&quotes[1]).await, SignOutcome::NotActive);
    let due = database.claim_due(CHAIN, DUE, 10).await.unwrap();
    assert!(due.len() == 1 && due[0].sender_frozen);
}

async fn every_step_is_erased_some_time_after_the_end(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let kept = || subject.count("signed_transactions where sealed is not null");
    let paid = Outcome::Paid { arrived: None };
    let outcomes = [paid, Outcome::Reverted, Outcome::Cancelled, Outcome::Superseded];
    for (nonce, outcome) in (0..).zip(outcomes) {
        let quote = transfer(&ann, &bob, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let (view, rules) = (view(1, 1_000, nonce), SpendingRules::default());
        let signed = database.sign(quote.id, view, rules, NOW, sign_ladder()).await.unwrap();
        assert!(matches!(signed, SignOutcome::Signed(_)), "{signed:?}");
        settle(database, quote.id, 5, 1, outcome, 0).await;
        let erased = async |now| database.erase_old_signed_bytes(now, 10).await.unwrap();
        assert_eq!((erased(KEPT_UNTIL).await, kept()), (0, 5));
        finalize(database, 5).await;
        assert_eq!((erased(Timestamp(KEPT_UNTIL.0 - 1)).await, kept()), (0, 5));
        assert_eq!((erased(KEPT_UNTIL).await, kept()), (1, 0));
        assert_eq!((erased(KEPT_UNTIL).await, kept()), (0, 0));
        subject.tamper("update transfers set tx_hash = null");
    }
    assert_eq!(subject.count("signed_transactions"), 4 * 5);
}

#[tokio::test]
async fn every_step_is_erased_some_time_after_the_end_in_a_file() {
    every_step_is_erased_some_time_after_the_end(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn every_step_is_erased_some_time_after_the_end_in_postgresql() {
    every_step_is_erased_some_time_after_the_end(Subject::postgres().await).await;
}

async fn a_wallet_that_was_opened_with_an_earlier_password_signs_nothing(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 1, NOW);
    database.insert_quote(quote.clone()).await.unwrap();
    let wallet = Wallet { version: 2, sck_id: SckId::random(), ..ann.wallet.clone() };
    let reason = SwapReason::PasswordChange;
    let swap = WalletSwap { account: ann.id, replaces: 1, wallet, reason, at: NOW };
    assert!(database.swap_wallet(swap).await.unwrap());
    let sign_at = async |wallet_version| {
        let (rules, sign) = (SpendingRules::default(), Sign { wallet_version, ..sign() });
        database.sign(quote.id, view(1, 1_000, 0), rules, NOW, sign).await.unwrap()
    };
    assert_eq!(sign_at(1).await, SignOutcome::WalletChanged);
    let spent = database.spending(ann.id, COIN, Caps::default(), NOW).await.unwrap().spent;
    let due = database.claim_due(CHAIN, DUE, 10).await.unwrap();
    assert_eq!((spent, due.len()), (Units::default(), 0));
    assert!(matches!(sign_at(2).await, SignOutcome::Signed(_)));
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

async fn a_server_that_was_overtaken_settles_and_finalizes_nothing(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 1, NOW);
    let id = quote.id;
    database.insert_quote(quote).await.unwrap();
    database.sign(id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign()).await.unwrap();
    let block = |number, hash| BlockRef { number, hash: [hash; 32] };
    let read = |block, fee| {
        let (outcome, fee) = (Outcome::Paid { arrived: None }, Wei(U256::from(fee)));
        let settlement = Settlement { transfer: id, block, tx_hash: [1; 32], outcome, fee };
        ReadBlocks { blocks: vec![block], settlements: vec![settlement], is_fork: false }
    };
    database.start_at(CHAIN, block(4, 4)).await.unwrap();
    let takes_over = Position { cursor: block(4, 4), tip: None };
    let at = |hash| Position { tip: Some([hash; 32]), ..takes_over };
    let settle = async |at, read| database.settle(CHAIN, at, read, NOW).await.unwrap();
    let finalize = async |at| database.finalize(CHAIN, at, 5, NOW, KEPT_UNTIL).await.unwrap();
    let state = async || {
        let found = database.transfer(id).await.unwrap().unwrap();
        (found.state, found.block)
    };
    assert_eq!(settle(takes_over, read(block(5, 1), 1)).await, Some(Vec::new()));
    // Another server has another block in its place, without the payment.
    let other = ReadBlocks { blocks: vec![block(5, 2)], ..ReadBlocks::default() };
    assert_eq!(settle(takes_over, other).await, Some(Vec::new()));
    assert_eq!(state().await, (TransferState::Broadcast, None));
    for overtaken in [at(1), Position { cursor: block(3, 3), tip: None }] {
        assert_eq!(settle(overtaken, read(block(6, 1), 1)).await, None);
        assert_eq!(finalize(overtaken).await, None);
        assert_eq!(state().await, (TransferState::Broadcast, None));
    }
    assert_eq!(settle(at(2), read(block(6, 3), 1)).await, Some(Vec::new()));
    assert_eq!(state().await, (TransferState::Mined, Some(6)));
    // It is above the final block.
    assert_eq!(finalize(at(3)).await, Some(Vec::new()));
    assert_eq!(state().await, (TransferState::Mined, Some(6)));
}
