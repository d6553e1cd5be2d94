//! Transfers: signed once, with the next nonce, within the balance.

use kms_chain::follower::{BlockRef, DepositStore};
use kms_chain::ports::{
    ChainView, Inserted, PaidBefore, Progress, Sign, SignOutcome, SignedBytes, SignedLadder,
    TransferStore,
};
use kms_chain::settlement::{Outcome, Position, ReadBlocks, Settlement, SettlementStore};
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::{Fees, Missing, Transfer, TransferState, WaitReason};
use kms_store::Database;
use kms_types::{AssetId, EventCursor, Timestamp, TransferId, U256, Units, Wei};

use crate::fixtures::{Subject, events, insert, on_every_database, transfer};

on_every_database!(
    quotes_are_read_back,
    a_quote_expires_by_the_clock_of_the_database,
    fifty_concurrent_transfers_have_gapless_nonces_within_the_balance,
    sixteen_transfers_of_a_wallet_are_in_flight,
    a_transfer_is_signed_or_cancelled,
    a_transfer_makes_only_allowed_transitions,
    due_checks_are_claimed_once,
    what_waits_for_a_transfer_is_checked_once_that_is_settled,
    transfers_of_another_chain_are_not_claimed,
    a_nonce_can_be_released_more_than_once,
    old_quotes_that_were_not_signed_are_deleted,
    old_events_are_deleted_except_the_newest_of_each_stream,
);

/// A node accepted a transaction, which is checked 13 seconds later.
pub(crate) const BROADCAST: Progress = Progress::Broadcast { check_at: Timestamp(NOW.0 + 13_000) };

pub(crate) fn view(block: u64, balance: u64, nonce: u64) -> ChainView {
    let (balance, token) = (Wei(U256::from(balance)), Units::default());
    ChainView { block, balance, token, nonce, mined: nonce }
}

/// Signs a unique transaction whose hash contains the nonce.
pub(crate) fn sign() -> Sign {
    let ladder = |nonce: u64| {
        let mut tx_hash = [0; 32];
        tx_hash[..16].copy_from_slice(kms_types::TransferId::random().as_bytes());
        tx_hash[24..].copy_from_slice(&nonce.to_be_bytes());
        let fees = Fees::Legacy { price: 1 };
        let signed = |tx_hash| SignedBytes { tx_hash, fees, sealed: vec![1, 2, 3] };
        let mut cancellation = tx_hash;
        cancellation[16] = 1;
        SignedLadder {
            first: signed(tx_hash),
            replacements: Vec::new(),
            cancellation: signed(cancellation),
        }
    };
    Sign { wallet_version: 1, ladder: Box::new(ladder) }
}

pub(crate) const NOW: Timestamp = Timestamp(10_000);

pub(crate) const CHAIN: u64 = 31_337;

/// Its native coin.
pub(crate) const COIN: AssetId = AssetId { chain_id: CHAIN, contract: None };

/// When the first check of a transfer that was signed at `NOW` is due.
pub(crate) const DUE: Timestamp = Timestamp(NOW.0 + 1_000);

/// Until when bytes are kept of what became final at `NOW`.
pub(crate) const KEPT_UNTIL: Timestamp = Timestamp(NOW.0 + 5_000);

/// Settles a transfer in this block, by a transaction whose hash consists of a byte.
pub(crate) async fn settle(
    database: &Database,
    transfer: TransferId,
    number: u64,
    hash: u8,
    outcome: Outcome,
    fee: u64,
) {
    let block = BlockRef { number, hash: [1; 32] };
    let (tx_hash, fee) = ([hash; 32], Wei(U256::from(fee)));
    let settlements = vec![Settlement { transfer, block, tx_hash, outcome, fee }];
    let read = ReadBlocks { blocks: vec![block], settlements, is_fork: false };
    database.settle(CHAIN, position(database).await, read, NOW).await.unwrap().unwrap();
}

/// The position of a server that takes over.
pub(crate) async fn position(database: &Database) -> Position {
    // Unless there is one.
    database.start_at(CHAIN, BlockRef { number: 0, hash: [0; 32] }).await.unwrap();
    let cursor = database.cursor(CHAIN).await.unwrap().unwrap();
    Position { cursor, tip: None }
}

/// Replaces the block with this number, and returns the transfers that were final.
pub(crate) async fn replace_block(database: &Database, number: u64) -> Vec<TransferId> {
    let blocks = vec![BlockRef { number, hash: [2; 32] }];
    let read = ReadBlocks { blocks, ..ReadBlocks::default() };
    database.settle(CHAIN, position(database).await, read, NOW).await.unwrap().unwrap()
}

/// Makes this block and those before it final.
pub(crate) async fn finalize(database: &Database, number: u64) -> Vec<TransferId> {
    let at = position(database).await;
    database.finalize(CHAIN, at, number, NOW, KEPT_UNTIL).await.unwrap().unwrap()
}

async fn quotes_are_read_back(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 100, NOW);
    assert_eq!(database.insert_quote(quote.clone()).await.unwrap(), Inserted::New);
    let again = database.insert_quote(quote.clone()).await.unwrap();
    assert_eq!(again, Inserted::Existing(Box::new(quote.clone())));
    assert_eq!(database.transfer(quote.id).await.unwrap().unwrap(), quote);
    let cancelled = transfer(&ann, &bob, 100, NOW);
    database.insert_quote(cancelled.clone()).await.unwrap();
    let state = database.cancel(cancelled.id, NOW).await.unwrap().unwrap().state;
    assert_eq!(state, TransferState::Cancelled);
    let refused = database
        .sign(cancelled.id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign())
        .await
        .unwrap();
    assert!(matches!(refused, SignOutcome::NotQuoted(_)));
}

/// A server whose clock is behind does not sign what another one has called expired, nor the other
/// way round.
async fn a_quote_expires_by_the_clock_of_the_database(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let expired = |expires_at| Transfer { expires_at, ..transfer(&ann, &bob, 100, NOW) };
    let sign_at = async |quote: &Transfer, now| {
        let rules = SpendingRules::default();
        database.sign(quote.id, view(1, 1_000, 0), rules, now, sign()).await.unwrap()
    };
    // Past by the database's clock, to be signed by a server whose clock says 1970.
    for read_first in [true, false] {
        let quote = expired(Timestamp(NOW.0 + 1));
        database.insert_quote(quote.clone()).await.unwrap();
        if read_first {
            let read = database.transfer(quote.id).await.unwrap().unwrap();
            assert_eq!(read.state, TransferState::Expired);
            assert!(matches!(sign_at(&quote, NOW).await, SignOutcome::NotQuoted(_)));
        } else {
            assert_eq!(sign_at(&quote, NOW).await, SignOutcome::Expired);
        }
        let cancelled = database.cancel(quote.id, NOW).await.unwrap().unwrap();
        assert_eq!(cancelled.state, TransferState::Expired);
    }
    let quote = transfer(&ann, &bob, 100, NOW);
    database.insert_quote(quote.clone()).await.unwrap();
    let far = Timestamp(i64::MAX);
    assert!(matches!(sign_at(&quote, far).await, SignOutcome::Signed(_)));
}

async fn fifty_concurrent_transfers_have_gapless_nonces_within_the_balance(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut tasks = Vec::new();
    for _ in 0..50 {
        let quote = transfer(&ann, &bob, 90, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let database = database.clone();
        // Each costs 90 and at most 10 for gas: the balance covers 12.
        tasks.push(tokio::spawn(async move {
            database
                .sign(quote.id, view(1, 1_250, 7), SpendingRules::default(), NOW, sign())
                .await
                .unwrap()
        }));
    }
    let mut nonces = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            SignOutcome::Signed(signed) => {
                let hash = signed.tx_hash.unwrap();
                assert_eq!(hash[24..], signed.nonce.unwrap().to_be_bytes());
                nonces.push(signed.nonce.unwrap());
            }
            SignOutcome::Insufficient { missing } => {
                assert_eq!(missing, Missing::Native(Wei(U256::from(50))))
            }
            other => panic!("{other:?}"),
        }
    }
    nonces.sort_unstable();
    assert_eq!(nonces, (7..19).collect::<Vec<_>>());
    assert_eq!(
        database.pending_spend(CHAIN, ann.wallet.address, 7).await.unwrap().wei,
        Wei(U256::from(1_200))
    );
}

async fn sixteen_transfers_of_a_wallet_are_in_flight(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let sign_at_once = async |count: u8, mined: u64| {
        let mut tasks = Vec::new();
        for _ in 0..count {
            let quote = transfer(&ann, &bob, 1, NOW);
            database.insert_quote(quote.clone()).await.unwrap();
            let (database, view) = (database.clone(), view(1, 1_000_000, mined));
            tasks.push(tokio::spawn(async move {
                let rules = SpendingRules::default();
                database.sign(quote.id, view, rules, NOW, sign()).await.unwrap()
            }));
        }
        let mut signed = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                SignOutcome::Signed(transfer) => signed.push(transfer.id),
                outcome => assert_eq!(outcome, SignOutcome::TooManyInFlight),
            }
        }
        signed
    };
    let signed = sign_at_once(20, 0).await;
    assert_eq!(signed.len(), 16);
    // The chain counts, whatever the database knows of it.
    assert_eq!(sign_at_once(5, 3).await.len(), 3);
    let in_flight =
        async |mined| database.pending_spend(CHAIN, ann.wallet.address, mined).await.unwrap();
    assert_eq!((in_flight(3).await.in_flight, in_flight(10).await.in_flight), (16, 9));
    // Another wallet is not affected.
    let quote = transfer(&bob, &ann, 1, NOW);
    database.insert_quote(quote.clone()).await.unwrap();
    let other = database.sign(quote.id, view(1, 100, 0), SpendingRules::default(), NOW, sign());
    assert!(matches!(other.await.unwrap(), SignOutcome::Signed(_)));
}

async fn a_transfer_is_signed_or_cancelled(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    for _ in 0..16 {
        let quote = transfer(&ann, &bob, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let (signs, cancels) = (database.clone(), database.clone());
        let signed = tokio::spawn(async move {
            signs
                .sign(quote.id, view(1, 100_000, 0), SpendingRules::default(), NOW, sign())
                .await
                .unwrap()
        });
        let cancelled =
            tokio::spawn(async move { cancels.cancel(quote.id, NOW).await.unwrap().unwrap() });
        let (signed, cancelled) = (signed.await.unwrap(), cancelled.await.unwrap());
        match signed {
            // Then the cancellation is sent.
            SignOutcome::Signed(signed) => {
                assert_eq!(cancelled, Transfer { cancel_requested_at: Some(NOW), ..*signed })
            }
            SignOutcome::NotQuoted(found) => assert_eq!(*found, cancelled),
            other => panic!("{other:?}"),
        }
        assert_eq!(database.transfer(quote.id).await.unwrap().unwrap(), cancelled);
    }
}

/// A cancellation during signing waits, then finds the transfer signed.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_transfer_cannot_be_cancelled_while_it_is_signed() {
    let subject = Subject::postgres().await;
    let database = subject.database.clone();
    let (ann, bob) = (insert(&database, 1, "ann").await, insert(&database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 1, NOW);
    let id = quote.id;
    database.insert_quote(quote).await.unwrap();
    let (give, cancelled) = tokio::sync::oneshot::channel();
    let (cancels, runtime) = (database.clone(), tokio::runtime::Handle::current());
    let ladder = move |nonce| {
        let cancel = runtime.spawn(async move { cancels.cancel(id, NOW).await });
        while !cancel.is_finished() && subject.waiting_for_locks() == 0 {}
        give.send(cancel).unwrap();
        (sign().ladder)(nonce)
    };
    let make = Sign { wallet_version: 1, ladder: Box::new(ladder) };
    let signed =
        database.sign(id, view(1, 1_000, 0), SpendingRules::default(), NOW, make).await.unwrap();
    let SignOutcome::Signed(signed) = signed else { panic!("{signed:?}") };
    let cancelled = cancelled.await.unwrap().await.unwrap().unwrap();
    assert_eq!(cancelled, Some(Transfer { cancel_requested_at: Some(NOW), ..*signed }));
}

async fn a_transfer_makes_only_allowed_transitions(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 100, NOW);
    let id = quote.id;
    database.insert_quote(quote).await.unwrap();
    let state = async || database.transfer(id).await.unwrap().unwrap().state;
    let paid = || settle(database, id, 5, 5, Outcome::Paid { arrived: None }, 3);
    // A quote has no nonce that a block could use.
    assert!(!database.advance(id, BROADCAST, NOW).await.unwrap());
    for outcome in [Outcome::Paid { arrived: None }, Outcome::Reverted, Outcome::Superseded] {
        settle(database, id, 5, 5, outcome, 3).await;
        finalize(database, 5).await;
        assert_eq!(state().await, TransferState::Quoted);
    }
    let signed =
        database.sign(id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign()).await.unwrap();
    let SignOutcome::Signed(signed) = signed else { panic!("{signed:?}") };
    assert_eq!((signed.state, signed.nonce), (TransferState::Signed, Some(0)));
    let again =
        database.sign(id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign()).await.unwrap();
    assert_eq!(again, SignOutcome::NotQuoted(signed.clone()));
    assert!(database.advance(id, BROADCAST, NOW).await.unwrap());
    assert!(!database.advance(id, BROADCAST, NOW).await.unwrap());
    let paid_before = async |chain_id, to| {
        let (sender, from) = ((ann.id, AssetId::native(chain_id)), (ann.wallet.address, 0));
        database.before_quote(sender, from, to).await.unwrap().paid_before
    };
    let address = bob.wallet.address;
    assert_eq!(paid_before(CHAIN, address).await, PaidBefore::default());
    paid().await;
    assert_eq!(paid_before(CHAIN, address).await, PaidBefore { same: true, lookalike: false });
    // On another chain the address may be that of another party.
    let elsewhere = paid_before(CHAIN + 1, address).await;
    assert_eq!(elsewhere, PaidBefore::default());
    let mut other = *bob.wallet.address.as_bytes();
    other[9] ^= 1;
    let lookalike = paid_before(CHAIN, other.into()).await;
    assert_eq!(lookalike, PaidBefore { same: false, lookalike: true });
    assert_eq!(paid_before(CHAIN + 1, other.into()).await, lookalike);
    other[0] ^= 1;
    let stranger = paid_before(CHAIN, other.into()).await;
    assert_eq!(stranger, PaidBefore::default());
    let now = database.transfer(id).await.unwrap().unwrap();
    assert_eq!((now.block, now.fee), (Some(5), Some(Wei(U256::from(3)))));
    // A balance of a chain on which its nonce is not mined must still cover it.
    let next = transfer(&ann, &bob, 100, NOW);
    database.insert_quote(next.clone()).await.unwrap();
    let refused = database
        .sign(next.id, view(5, 200, 0), SpendingRules::default(), NOW, sign())
        .await
        .unwrap();
    assert_eq!(
        refused,
        SignOutcome::Insufficient { missing: Missing::Native(Wei(U256::from(20))) }
    );
    replace_block(database, 5).await;
    let now = database.transfer(id).await.unwrap().unwrap();
    assert_eq!((now.state, now.block, now.fee), (TransferState::Broadcast, None, None));
    paid().await;
    finalize(database, 4).await;
    assert_eq!(state().await, TransferState::Mined);
    finalize(database, 5).await;
    finalize(database, 6).await;
    assert_eq!(state().await, TransferState::Final);
    assert!(!database.advance(id, BROADCAST, NOW).await.unwrap());
    let events = events(database, EventCursor::default(), 10).await;
    let about = |account| events.iter().filter(|event| event.account == account).count() - 1;
    // Signed, mined, reorged, mined again. The recipient: the last three of these, and that it is
    // final.
    assert_eq!((about(ann.id), about(bob.id)), (4, 4));
}

async fn due_checks_are_claimed_once(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut ids = Vec::new();
    for _ in 0..6 {
        let quote = transfer(&ann, &bob, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        database
            .sign(quote.id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign())
            .await
            .unwrap();
        ids.push(quote.id);
    }
    let claims = (0..4).map(|_| {
        let database = database.clone();
        tokio::spawn(async move { database.claim_due(CHAIN, DUE, 2).await.unwrap() })
    });
    let mut claimed = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        claimed.extend(claim.await.unwrap());
    }
    // What one server claimed no other one does.
    let mut unique: Vec<_> = claimed.iter().map(|due| due.transfer.id).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), claimed.len());
    assert!(claimed.iter().all(|due| due.first.sealed == [1, 2, 3]));
    while unique.len() < 6 {
        let more = database.claim_due(CHAIN, DUE, 2).await.unwrap();
        assert!(!more.is_empty());
        unique.extend(more.iter().map(|due| due.transfer.id));
    }
    assert!(database.claim_due(CHAIN, DUE, 10).await.unwrap().is_empty());
    let after = database.claim_due(CHAIN, Timestamp(DUE.0 + 1_000), 10).await.unwrap();
    assert_eq!(after.iter().map(|due| due.transfer.id).collect::<Vec<_>>(), ids);
    // The time between two checks doubles, up to five minutes.
    let mut now = Timestamp(DUE.0 + 1_000);
    for seconds in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let almost = Timestamp(now.0 + 1_000 * seconds - 1);
        assert!(database.claim_due(CHAIN, almost, 10).await.unwrap().is_empty());
        now = Timestamp(almost.0 + 1);
        assert_eq!(database.claim_due(CHAIN, now, 10).await.unwrap().len(), 6, "{seconds}");
    }
}

async fn what_waits_for_a_transfer_is_checked_once_that_is_settled(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut ids = Vec::new();
    for from in [&ann, &ann, &ann, &bob] {
        let quote = transfer(from, if from.id == bob.id { &ann } else { &bob }, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let rules = SpendingRules::default();
        database.sign(quote.id, view(1, 1_000, 0), rules, NOW, sign()).await.unwrap();
        ids.push(quote.id);
    }
    // Of hers the last one is in time; his waits for a payment that is not hers.
    for id in [ids[1], ids[3]] {
        let waiting = Progress::Waiting(WaitReason::EarlierTransfer);
        assert!(database.advance(id, waiting, NOW).await.unwrap());
    }
    let claimed = async |at| {
        let due = database.claim_due(CHAIN, at, 10).await.unwrap();
        due.iter().map(|due| due.transfer.id).collect::<Vec<_>>()
    };
    let later = Timestamp(DUE.0 + 60_000);
    for at in [DUE, later] {
        assert_eq!(claimed(at).await.len(), 4);
    }
    assert!(claimed(later).await.is_empty());
    settle(database, ids[0], 5, 1, Outcome::Paid { arrived: None }, 1).await;
    assert_eq!(claimed(NOW).await, [ids[1]]);
    assert!(claimed(NOW).await.is_empty());
}

async fn transfers_of_another_chain_are_not_claimed(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = transfer(&ann, &bob, 90, NOW);
    database.insert_quote(quote.clone()).await.unwrap();
    database
        .sign(quote.id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign())
        .await
        .unwrap();
    assert!(database.claim_due(1, DUE, 10).await.unwrap().is_empty());
    assert_eq!(database.pending_spend(1, ann.wallet.address, 0).await.unwrap().wei, Wei::default());
    assert_eq!(database.claim_due(CHAIN, DUE, 10).await.unwrap().len(), 1);
    assert_eq!(
        database.pending_spend(CHAIN, ann.wallet.address, 0).await.unwrap().wei,
        Wei(U256::from(100))
    );
}

async fn old_quotes_that_were_not_signed_are_deleted(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut ids = Vec::new();
    for at in [NOW.0 - 4, NOW.0 - 3, NOW.0 - 2, NOW.0 - 1, NOW.0] {
        let quote = transfer(&ann, &bob, 1, Timestamp(at));
        database.insert_quote(quote.clone()).await.unwrap();
        ids.push(quote.id);
    }
    let chain = view(1, 1_000, 0);
    database.sign(ids[0], chain, SpendingRules::default(), Timestamp(0), sign()).await.unwrap();
    database.cancel(ids[1], Timestamp(0)).await.unwrap();
    assert_eq!(database.delete_unsigned_quotes(NOW, 2).await.unwrap(), 2);
    assert_eq!(database.delete_unsigned_quotes(NOW, 2).await.unwrap(), 1);
    assert_eq!(database.delete_unsigned_quotes(NOW, 2).await.unwrap(), 0);
    let mut kept = Vec::new();
    for id in &ids {
        kept.extend(database.transfer(*id).await.unwrap().map(|transfer| transfer.id));
    }
    assert_eq!(kept, [ids[0], ids[4]]);
}

async fn old_events_are_deleted_except_the_newest_of_each_stream(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    for at in [NOW.0, NOW.0 + 1, NOW.0 + 2] {
        let quote = transfer(&ann, &bob, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let chain = view(1, 1_000, 0);
        let rules = SpendingRules::default();
        database.sign(quote.id, chain, rules, Timestamp(at), sign()).await.unwrap();
    }
    // The first wallet and the first signature; the second wallet is the newest of its stream.
    assert_eq!(database.delete_events(Timestamp(NOW.0 + 1), 9).await.unwrap(), 2);
    assert_eq!(database.delete_events(Timestamp(NOW.0 + 1), 9).await.unwrap(), 0);
    assert_eq!(database.delete_events(Timestamp(i64::MAX), 1).await.unwrap(), 1);
    assert_eq!(database.delete_events(Timestamp(i64::MAX), 9).await.unwrap(), 0);
    assert_eq!(events(database, EventCursor::default(), 2).await.len(), 2);
}

async fn an_unreadable_row_blocks_no_other(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let quote = transfer(&ann, &bob, 1, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        database
            .sign(quote.id, view(1, 1_000, 0), SpendingRules::default(), NOW, sign())
            .await
            .unwrap();
        ids.push(quote.id);
    }
    subject.tamper(&format!("update transfers set value = 'much' where id = '{}'", ids[0]));
    let due = database.claim_due(CHAIN, DUE, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.transfer.id).collect::<Vec<_>>(), ids[1..]);
}

#[tokio::test]
async fn an_unreadable_row_in_a_file_blocks_no_other() {
    an_unreadable_row_blocks_no_other(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn an_unreadable_row_in_postgresql_blocks_no_other() {
    an_unreadable_row_blocks_no_other(Subject::postgres().await).await;
}

/// The chain removes a final block whose signed bytes are erased, and then the one of the next
/// transfer that took the nonce.
async fn a_nonce_can_be_released_more_than_once(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    for round in 1..=3 {
        let quote = transfer(&ann, &bob, 100, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let signed = database
            .sign(quote.id, view(1, 10_000, 0), SpendingRules::default(), NOW, sign())
            .await
            .unwrap();
        let SignOutcome::Signed(signed) = signed else { panic!("{signed:?}") };
        assert_eq!(signed.nonce, Some(0));
        let block = u64::from(round);
        settle(database, quote.id, block, round, Outcome::Paid { arrived: None }, 1).await;
        finalize(database, block).await;
        assert_eq!(database.erase_old_signed_bytes(KEPT_UNTIL, 10).await.unwrap(), 1);
        assert_eq!(replace_block(database, block).await, [quote.id]);
    }
}

async fn no_payment_of_a_tampered_account_is_claimed(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    for sender in [&ann, &bob] {
        let quote = transfer(sender, &ann, 100, NOW);
        database.insert_quote(quote.clone()).await.unwrap();
        let rules = SpendingRules::default();
        database.sign(quote.id, view(1, 1_000, 0), rules, NOW, sign()).await.unwrap();
    }
    // That would have its payment cancelled.
    subject.tamper(&format!("update accounts set state = 'frozen' where id = '{}'", ann.id));
    let due = database.claim_due(CHAIN, DUE, 10).await.unwrap();
    let senders: Vec<_> = due.iter().map(|due| due.transfer.from.account).collect();
    assert_eq!(senders, [Some(bob.id)]);
}

#[tokio::test]
async fn no_payment_of_a_tampered_account_is_claimed_in_a_file() {
    no_payment_of_a_tampered_account_is_claimed(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn no_payment_of_a_tampered_account_is_claimed_in_postgresql() {
    no_payment_of_a_tampered_account_is_claimed(Subject::postgres().await).await;
}
