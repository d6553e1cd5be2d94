//! A payment that the network does not take: its owner, and through a freeze the operator, get the
//! wallet out of it.

use kms_chain::transfer::{Transfer, TransferState, WaitReason};
use kms_chain::{Checked, ConfirmError, ReadyReplacement};
use kms_core::account::Account;
use kms_types::{ReplacementId, TransferId, U256, Wei};
use serde_json::json;

use crate::world::{COIN, CONFIRMATIONS, World, stranger};

/// A base fee above every step of a ladder that was quoted at the usual one.
const SPIKE: u128 = 200_000_000_000;

/// Sets the base fee of the next blocks.
fn base_fee(world: &World, wei: u128) {
    world.rpc("anvil_setNextBlockBaseFeePerGas", json!([format!("{wei:#x}")]));
    world.mine(1);
    world.rpc("anvil_setNextBlockBaseFeePerGas", json!([format!("{wei:#x}")]));
}

async fn send(world: &World, from: &Account, amount: &str) -> Transfer {
    let quote = world.quote(from, stranger(), amount).await;
    world.confirm(from, &quote).await.unwrap()
}

/// Checks a request to sign again that was not handled before.
async fn ready(
    world: &World,
    sent: &Transfer,
    id: ReplacementId,
    max_fee: Wei,
) -> ReadyReplacement {
    match world.transfers.check_replacement(sent.id, id, max_fee).await.unwrap() {
        Checked::Ready(ready) => ready,
        Checked::Done(done) => panic!("{done:?}"),
    }
}

/// Mines until the last block is final, and lets the engine see it.
async fn finalize(world: &World) {
    for _ in 0..=CONFIRMATIONS {
        world.mine(1);
        world.tick().await;
    }
}

async fn reason(world: &World, transfer: &Transfer) -> Option<WaitReason> {
    world.stored(transfer).await.wait.map(|wait| wait.reason)
}

#[tokio::test]
async fn a_payment_without_funds_is_cancelled_and_the_wallet_pays_again() {
    let world = World::new().await;
    let ann = world.account(1, 10 * COIN).await;
    let address = ann.wallet.address.to_string();
    let (sent, behind) = (send(&world, &ann, "5").await, send(&world, &ann, "0.1").await);
    // The money disappears, and the node forgets the payments.
    world.rpc("anvil_dropAllTransactions", json!([]));
    world.anvil.set_balance(&address, COIN).unwrap();
    for _ in 0..3 {
        world.mine(2);
        world.tick().await;
    }
    assert_eq!(reason(&world, &sent).await, Some(WaitReason::Funds));
    // So does a later payment, with its own reason.
    assert_eq!(reason(&world, &behind).await, Some(WaitReason::EarlierTransfer));

    let asked = world.transfers.cancel(sent.id, world.now()).await.unwrap().unwrap();
    assert!(asked.cancel_requested_at.is_some());
    world.tick().await;
    world.mine(1);
    world.tick().await;
    finalize(&world).await;
    let end = world.stored(&sent).await;
    assert_eq!(end.state, TransferState::Cancelled);
    assert!(end.fee.unwrap() <= end.ladder.cancellation().max_fee(end.gas_limit));
    assert_eq!(world.state(&behind).await, TransferState::Final);
    assert_eq!(world.balance(sent.to.address), behind.value.0);
    assert_eq!(world.sent(&ann), 2);
}

#[tokio::test]
async fn a_payment_below_the_base_fee_is_signed_again_with_the_password() {
    let world = World::new().await;
    let ann = world.account(1, 10 * COIN).await;
    let sent = send(&world, &ann, "5").await;
    base_fee(&world, SPIKE);
    for _ in 0..4 {
        world.mine(1);
        world.tick().await;
    }
    assert_eq!(reason(&world, &sent).await, Some(WaitReason::Fee));
    let fee = world.transfers.replacement_fee(sent.id).await.unwrap();
    assert!(fee.max > sent.max_fee());

    // Less than was shown signs nothing.
    let id = ReplacementId::random();
    let low = ready(&world, &sent, id, sent.max_fee()).await;
    let wallet = world.open(&ann).await;
    let refused = world.transfers.sign_replacement(low, wallet, world.now()).await;
    assert!(matches!(refused.unwrap_err(), ConfirmError::Mismatch));

    let replace =
        async || match world.transfers.check_replacement(sent.id, id, fee.max).await.unwrap() {
            Checked::Done(transfer) => *transfer,
            Checked::Ready(ready) => {
                let wallet = world.open(&ann).await;
                world.transfers.sign_replacement(ready, wallet, world.now()).await.unwrap()
            }
        };
    let also_ready = ready(&world, &sent, id, fee.max).await;
    let replaced = replace().await;
    assert_eq!((replaced.nonce, replaced.max_fee()), (sent.nonce, fee.max));
    assert_ne!(replaced.tx_hash, sent.tx_hash);
    // A repeat with the same id signs nothing more.
    assert_eq!(replace().await.tx_hash, replaced.tx_hash);
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&sent).await;
    assert_eq!((mined.state, mined.tx_hash), (TransferState::Mined, replaced.tx_hash));
    assert_eq!((world.sent(&ann), world.balance(sent.to.address)), (1, sent.value.0));
    // A repeat returns it as it is now, also one that was checked before.
    assert_eq!(replace().await, mined);
    let wallet = world.open(&ann).await;
    let again = world.transfers.sign_replacement(also_ready, wallet, world.now()).await;
    assert_eq!(again.unwrap(), mined);
    let other = world.transfers.check_replacement(TransferId::random(), id, fee.max).await;
    assert!(matches!(other.unwrap_err(), ConfirmError::IdReused));
    let new = ReplacementId::random();
    let new = world.transfers.check_replacement(sent.id, new, fee.max).await;
    assert!(matches!(new.unwrap_err(), ConfirmError::NotPending));
}

#[tokio::test]
async fn a_payment_is_signed_again_with_what_the_balance_leaves() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    // What is left covers the base fee after the spike, and not twice that.
    let sent = send(&world, &ann, "0.995").await;
    base_fee(&world, SPIKE);
    let fee = world.transfers.replacement_fee(sent.id).await.unwrap();
    assert!(fee.max <= Wei(U256::from(COIN / 200)), "{fee:?}");
    let ready = ready(&world, &sent, ReplacementId::random(), fee.max).await;
    let wallet = world.open(&ann).await;
    world.transfers.sign_replacement(ready, wallet, world.now()).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    assert_eq!((world.sent(&ann), world.balance(sent.to.address)), (1, sent.value.0));

    // Less than the base fee is not signed: what is missing is reported.
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let sent = send(&world, &ann, "0.998").await;
    base_fee(&world, SPIKE);
    let fee = world.transfers.replacement_fee(sent.id).await.unwrap();
    let ready = self::ready(&world, &sent, ReplacementId::random(), fee.max).await;
    let wallet = world.open(&ann).await;
    let refused = world.transfers.sign_replacement(ready, wallet, world.now()).await;
    assert!(matches!(refused.unwrap_err(), ConfirmError::Insufficient { .. }));
}

#[tokio::test]
async fn a_cancellation_that_is_priced_out_is_signed_again() {
    let world = World::new().await;
    let ann = world.account(1, 10 * COIN).await;
    let sent = send(&world, &ann, "5").await;
    base_fee(&world, SPIKE);
    world.transfers.cancel(sent.id, world.now()).await.unwrap();
    for _ in 0..3 {
        world.mine(1);
        world.tick().await;
    }
    assert_eq!(reason(&world, &sent).await, Some(WaitReason::Fee));
    let fee = world.transfers.replacement_fee(sent.id).await.unwrap();
    let id = ReplacementId::random();
    let ready = ready(&world, &sent, id, fee.max).await;
    let wallet = world.open(&ann).await;
    world.transfers.sign_replacement(ready, wallet, world.now()).await.unwrap();
    world.tick().await;
    finalize(&world).await;
    let end = world.stored(&sent).await;
    assert_eq!(end.state, TransferState::Cancelled);
    assert!(end.fee.unwrap() <= fee.max);
    assert_eq!((world.sent(&ann), world.balance(sent.to.address)), (1, U256::ZERO));
}

#[tokio::test]
async fn a_freeze_sends_the_cancellation_and_nothing_else() {
    let world = World::new().await;
    let ann = world.account(1, 10 * COIN).await;
    let sent = send(&world, &ann, "5").await;
    world.rpc("anvil_dropAllTransactions", json!([]));
    world.freeze(&ann).await;
    world.tick().await;
    world.tick().await;
    let frozen = world.stored(&sent).await;
    assert!(frozen.cancel_requested_at.is_some());
    // The payment was not sent again: the pool has the cancellation alone.
    let pool = world.rpc("txpool_content", json!([]));
    let pool = pool.to_string().to_lowercase();
    assert!(!pool.contains(&sent.to.address.to_lower_hex()), "{pool}");
    finalize(&world).await;
    assert_eq!(world.state(&sent).await, TransferState::Cancelled);
    assert_eq!((world.sent(&ann), world.balance(sent.to.address)), (1, U256::ZERO));
}

/// The base fee rises above each of its steps; those of an account that is not frozen are sent.
#[tokio::test]
async fn no_step_of_a_frozen_accounts_payment_is_sent_while_the_base_fee_rises() {
    for is_frozen in [true, false] {
        let world = World::new().await;
        let ann = world.account(1, 10 * COIN).await;
        let sent = send(&world, &ann, "5").await;
        world.rpc("anvil_dropAllTransactions", json!([]));
        if is_frozen {
            world.freeze(&ann).await;
        }
        let to = sent.to.address.to_lower_hex();
        let mut payments = 0;
        for step in [sent.ladder.first()].into_iter().chain(sent.ladder.replacements()) {
            base_fee(&world, step.ceiling() + 1);
            world.tick().await;
            let pool = world.rpc("txpool_content", json!([])).to_string().to_lowercase();
            payments += usize::from(pool.contains(&to));
        }
        let raised = sent.ladder.replacements().count();
        assert_eq!(payments, if is_frozen { 0 } else { raised });
        let hash = world.stored(&sent).await.tx_hash;
        assert_ne!(hash, sent.tx_hash);
        if is_frozen {
            let hash = hash.map(hex::encode_prefixed);
            let found = world.rpc("eth_getTransactionByHash", json!([hash]));
            assert_eq!(found.get("to"), Some(&json!(ann.wallet.address.to_lower_hex())));
        }
    }
}

#[tokio::test]
async fn cancel_and_the_miner_have_one_outcome() {
    for cancelled_first in [false, true] {
        let world = World::new().await;
        let ann = world.account(1, 10 * COIN).await;
        let sent = send(&world, &ann, "5").await;
        let events = world.event_count(&ann).await;
        if cancelled_first {
            world.transfers.cancel(sent.id, world.now()).await.unwrap();
            // Two servers send it.
            let other = world.through(&world.anvil.url());
            let (one, two) =
                tokio::join!(world.transfers.tick(world.now()), other.tick(world.now()));
            assert_eq!(one.unwrap() + two.unwrap(), 1);
            world.mine(1);
        } else {
            world.mine(1);
            world.transfers.cancel(sent.id, world.now()).await.unwrap();
        }
        world.tick().await;
        finalize(&world).await;
        let end = world.stored(&sent).await;
        let (state, paid) = match cancelled_first {
            true => (TransferState::Cancelled, Wei::default()),
            false => (TransferState::Final, Wei(sent.value.0)),
        };
        assert_eq!((end.state, world.balance(sent.to.address)), (state, paid.0));
        assert_eq!(world.sent(&ann), 1);
        // Asked, sent and cancelled; or asked and mined, and perhaps final.
        let notified = world.event_count(&ann).await - events;
        assert!(notified <= 3, "{notified}");
        // Nothing happens any more.
        finalize(&world).await;
        assert_eq!(world.event_count(&ann).await - events, notified);
    }
}
