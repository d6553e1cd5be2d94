//! Confirmations: each quote is signed at most once, and only as it was shown.

use std::sync::Arc;
use std::time::Duration;

use kms_chain::spending::Caps;
use kms_chain::transfer::{Missing, TransferState};
use kms_chain::{Checked, ConfirmError, Shown};
use kms_core::CustodyError;
use kms_types::{
    AssetId, PasswordHash, RecoveryId, Timestamp, Token, TransferId, U256, Units, Wei,
};

use crate::world::{
    COIN, QUOTE_LIFETIME, World, caller, party, password, request, shown, stranger, wei,
};

#[tokio::test]
async fn a_transfer_is_sent_mined_and_final() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 5).await);
    let quote = world.quote(&ann, party(&bob), "0.5").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    assert_eq!(sent.state, TransferState::Broadcast);
    assert_eq!((sent.nonce, sent.tx_hash.is_some()), (Some(0), true));
    assert_eq!((sent.id, sent.value, sent.to.clone()), (quote.id, quote.value, quote.to));

    world.mine(1);
    // The block settles it; there is nothing left to check.
    assert_eq!(world.tick().await, 0);
    let mined = world.stored(&sent).await;
    assert_eq!((mined.state, mined.block), (TransferState::Mined, Some(1)));
    let fee = mined.fee.unwrap();
    assert!(fee > wei(0) && fee <= mined.max_fee());
    assert_eq!(world.balance(ann.wallet.address), U256::from(COIN / 2) - fee.0);
    assert_eq!(world.balance(bob.wallet.address), U256::from(COIN / 2 + 5));

    // Two confirmations are not three.
    world.mine(2);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    assert_eq!(world.tick().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_confirmations_are_one_transaction() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.01").await;
    let mut confirmations = Vec::new();
    for _ in 0..50 {
        confirmations.push((world.ready(&quote).await, world.open(&ann).await));
    }
    let tasks: Vec<_> = confirmations
        .into_iter()
        .map(|(ready, wallet)| {
            let (transfers, now) = (Arc::clone(&world.transfers), world.now());
            tokio::spawn(async move { transfers.sign_and_send(ready, wallet, now).await })
        })
        .collect();
    let stored = {
        let mut hashes = Vec::new();
        for task in tasks {
            hashes.push(task.await.unwrap().unwrap().tx_hash);
        }
        let stored = world.stored(&quote).await;
        assert!(stored.tx_hash.is_some());
        assert!(hashes.iter().all(|hash| *hash == stored.tx_hash));
        stored
    };
    world.mine(1);
    assert_eq!(world.sent(&ann), 1);
    assert_eq!(world.balance(stored.to.address), stored.value.0);
    // A repeat much later returns the current state.
    world.pass(QUOTE_LIFETIME);
    match world.check(&quote).await.unwrap() {
        Checked::Done(done) => assert_eq!(done.tx_hash, stored.tx_hash),
        Checked::Ready(ready) => panic!("{ready:?}"),
    }
}

#[tokio::test]
async fn several_transfers_take_one_nonce_each() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let mut sent = Vec::new();
    for nonce in 0..5 {
        let quote = world.quote(&ann, stranger(), "0.1").await;
        let transfer = world.confirm(&ann, &quote).await.unwrap();
        assert_eq!(transfer.nonce, Some(nonce));
        sent.push(transfer);
    }
    world.mine(1);
    assert_eq!(world.tick().await, 0);
    for transfer in &sent {
        assert_eq!(world.state(transfer).await, TransferState::Mined);
    }
    assert_eq!(world.sent(&ann), 5);
}

#[tokio::test]
async fn two_transfers_cannot_spend_the_same_balance() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let one = world.quote(&ann, stranger(), "0.6").await;
    let two = world.quote(&ann, stranger(), "0.6").await;
    // Both checks saw the whole balance before either was signed.
    let (first, second) = (world.ready(&one).await, world.ready(&two).await);
    let (now, wallet) = (world.now(), world.open(&ann).await);
    let sent = world.transfers.sign_and_send(first, wallet, now).await;
    assert_eq!(sent.unwrap().state, TransferState::Broadcast);
    let wallet = world.open(&ann).await;
    let refused = world.transfers.sign_and_send(second, wallet, now).await;
    let needed = U256::from(COIN / 5) + one.max_fee().0 + two.max_fee().0;
    match refused.unwrap_err() {
        ConfirmError::Insufficient { missing: Missing::Native(missing) } => {
            assert_eq!(missing.0, needed);
        }
        error => panic!("{error}"),
    }
    assert_eq!(world.stored(&two).await, two);
}

#[tokio::test]
async fn a_quote_is_signed_only_as_it_was_shown() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, COIN).await);
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let right = shown(&quote);
    let value = Units(right.value.0 + U256::from(1));
    let max_fee = Wei(right.max_fee.0 + U256::from(1));
    let token =
        Token { symbol: "USDC".parse().unwrap(), address: bob.wallet.address, decimals: 18 };
    for wrong in [
        Shown { chain_id: right.chain_id + 1, ..right.clone() },
        Shown { to_address: bob.wallet.address, ..right.clone() },
        Shown { token: Some(token), ..right.clone() },
        Shown { value, ..right.clone() },
        Shown { max_fee, ..right.clone() },
    ] {
        let refused = world.transfers.check(quote.id, wrong).await;
        assert!(matches!(refused.unwrap_err(), ConfirmError::Mismatch));
    }
    let unknown = world.transfers.check(TransferId::random(), right).await;
    assert!(matches!(unknown.unwrap_err(), ConfirmError::NoTransfer));

    // The wallet of another account does not sign it.
    let (ready, wallet) = (world.ready(&quote).await, world.open(&bob).await);
    let refused = world.transfers.sign_and_send(ready, wallet, world.now()).await;
    assert!(matches!(refused.unwrap_err(), ConfirmError::Mismatch));
    assert_eq!(world.stored(&quote).await, quote);
    assert_eq!((world.sent(&ann), world.sent(&bob)), (0, 0));
}

#[tokio::test]
async fn an_expired_quote_is_not_signed() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    // Some seconds are left, by the clock of the database.
    let now = world.database.now().await.unwrap();
    let long_ago = Timestamp(now.plus(Duration::from_secs(5)).0 - lifetime());
    let quote = world.transfers.quote(request(&ann, stranger(), "0.1"), long_ago).await.unwrap();
    let (ready, wallet) = (world.ready(&quote).await, world.open(&ann).await);
    let refused = loop {
        if let Err(refused) = world.check(&quote).await {
            break refused;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(matches!(refused, ConfirmError::Expired));
    // Not even if it expired while the password was checked.
    let refused = world.transfers.sign_and_send(ready, wallet, world.now());
    assert!(matches!(refused.await.unwrap_err(), ConfirmError::Expired));
    assert_eq!(world.state(&quote).await, TransferState::Expired);
    assert_eq!((world.sent(&ann), world.tick().await), (0, 0));
}

/// Between the KDF and the signature: a freeze, a new password, a recovery that completes.
#[tokio::test]
async fn a_wallet_that_is_open_signs_nothing_after_a_freeze_or_a_new_password() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let (custody, id, now) = (&world.custody, ann.id.into(), world.now());
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let coin = AssetId::native(quote.chain_id);
    let refused = async |wallet| {
        let ready = world.ready(&quote).await;
        let refused = world.transfers.sign_and_send(ready, wallet, now).await.unwrap_err();
        assert_eq!(world.stored(&quote).await, quote);
        assert_eq!((world.sent(&ann), world.tick().await), (0, 0));
        let spending = world.database.spending(ann.id, coin, Caps::default(), now).await.unwrap();
        assert_eq!(spending.spent, Units::default());
        refused
    };
    let wallet = world.open(&ann).await;
    custody.freeze(id, &caller(), now).await.unwrap();
    assert!(matches!(refused(wallet).await, ConfirmError::NotActive));
    custody.unfreeze(id, &caller(), now).await.unwrap();

    let wallet = world.open(&ann).await;
    let new = || PasswordHash::fill(|bytes| bytes.fill(9));
    let admit = |_| async { Ok::<_, CustodyError>(()) };
    custody.change_password(id, (password(), new()), &caller(), now, admit).await.unwrap();
    assert!(matches!(refused(wallet).await, ConfirmError::WalletChanged));
    custody.change_password(id, (new(), password()), &caller(), now, admit).await.unwrap();

    let (wallet, recovery) = (world.open(&ann).await, RecoveryId::random());
    let ready = custody.request_recovery(id, recovery, &caller(), now).await.unwrap().ready_at;
    custody.complete_recovery(id, recovery, password(), &caller(), ready).await.unwrap();
    assert!(matches!(refused(wallet).await, ConfirmError::WalletChanged));
}

#[tokio::test]
async fn a_cancelled_quote_is_not_signed_and_a_signed_transfer_is_cancelled_by_the_chain() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let cancelled_quote = world.quote(&ann, stranger(), "0.1").await;
    let (ready, wallet) = (world.ready(&cancelled_quote).await, world.open(&ann).await);
    let cancelled = world.transfers.cancel(cancelled_quote.id, world.now()).await;
    assert_eq!(cancelled.unwrap().unwrap().state, TransferState::Cancelled);
    let refused = world.check(&cancelled_quote).await;
    assert!(matches!(refused.unwrap_err(), ConfirmError::Cancelled));
    let refused = world.transfers.sign_and_send(ready, wallet, world.now());
    assert!(matches!(refused.await.unwrap_err(), ConfirmError::Cancelled));
    assert_eq!(world.sent(&ann), 0);

    let sent = world.quote(&ann, stranger(), "0.1").await;
    world.confirm(&ann, &sent).await.unwrap();
    let still = world.transfers.cancel(sent.id, world.now()).await.unwrap().unwrap();
    assert_eq!(still.state, TransferState::Broadcast);
    assert!(still.cancel_requested_at.is_some());
}

fn lifetime() -> i64 {
    i64::try_from(QUOTE_LIFETIME.as_millis()).unwrap()
}
