//! Following signed transfers: none is lost, and none is paid twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kms_chain::transfer::{TransferState, WaitReason};
use kms_types::U256;
use serde_json::json;

use crate::chain::reverting;
use crate::stub::{Fate, start_proxy};
use crate::world::{CHECK, COIN, CONFIRMATIONS, STRANGER, World, party, stranger};

#[tokio::test]
async fn a_signed_transfer_is_broadcast_by_another_server() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let signed = world.confirm_at(&world.cut_off(), &ann, &quote).await;
    let signed = signed.unwrap();
    assert_eq!(signed.state, TransferState::Signed);
    let hash = signed.tx_hash.unwrap();
    assert!(!world.transfers.chain().first(|it| it.has_transaction(hash)).await.unwrap());

    assert_eq!(world.tick().await, 1);
    assert_eq!(world.state(&signed).await, TransferState::Broadcast);
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&signed).await;
    assert_eq!(mined.state, TransferState::Mined);
    assert_eq!((mined.tx_hash, mined.nonce), (signed.tx_hash, Some(0)));
    assert_eq!(world.sent(&ann), 1);
}

#[tokio::test]
async fn without_a_chain_no_transfer_changes() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let cut_off = world.cut_off();
    world.confirm_at(&cut_off, &ann, &quote).await.unwrap();
    assert_eq!(cut_off.tick(world.now()).await.unwrap(), 0);
    assert_eq!(world.state(&quote).await, TransferState::Signed);
}

#[tokio::test]
async fn only_a_long_outage_of_the_chain_is_notified() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    world.confirm(&ann, &quote).await.unwrap();
    let events = world.event_count(&ann).await;
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let url = start_proxy(&world.anvil.url(), move |_| match down.load(Ordering::SeqCst) {
        true => Fate::Lost,
        false => Fate::Passed,
    });
    let server = world.through(&url);
    let check = async || {
        world.pass(CHECK);
        server.tick(world.now()).await.unwrap();
        world.stored(&quote).await.wait.map(|wait| wait.reason)
    };
    assert_eq!(check().await, None);
    is_down.store(false, Ordering::SeqCst);
    assert_eq!(check().await, None);
    is_down.store(true, Ordering::SeqCst);
    assert_eq!(check().await, None);
    assert_eq!(world.event_count(&ann).await, events);
    assert_eq!(check().await, Some(WaitReason::ChainStalled));
    is_down.store(false, Ordering::SeqCst);
    assert_eq!(check().await, None);
}

#[tokio::test]
async fn a_server_that_is_cut_off_says_nothing_about_the_chain() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    world.confirm(&ann, &quote).await.unwrap();
    let events = world.event_count(&ann).await;
    let cut_off = world.cut_off();
    let reason = async || world.stored(&quote).await.wait.map(|wait| wait.reason);
    for _ in 0..4 {
        world.pass(CHECK);
        world.read_blocks().await;
        assert_eq!(cut_off.tick(world.now()).await.unwrap(), 0);
        assert_eq!(reason().await, None);
    }
    // It leaves the check to the other server, which has an endpoint.
    assert_eq!(world.transfers.tick(world.now()).await.unwrap(), 1);
    assert_eq!((reason().await, world.event_count(&ann).await), (None, events));
    // No server reads the chain any more.
    world.pass(CHECK);
    cut_off.tick(world.now()).await.unwrap();
    assert_eq!(reason().await, Some(WaitReason::ChainStalled));
    assert_eq!(world.event_count(&ann).await, events + 1);
    world.tick().await;
    assert_eq!(reason().await, None);
}

#[tokio::test]
async fn a_leased_transfer_is_not_claimed_again() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    world.confirm(&ann, &quote).await.unwrap();
    assert_eq!(world.tick().await, 1);
    // Until the lease ends.
    assert_eq!(world.transfers.tick(world.now()).await.unwrap(), 0);
    assert_eq!(world.tick().await, 1);
}

#[tokio::test]
async fn a_transaction_that_the_node_forgot_is_broadcast_again() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    let hash = sent.tx_hash.unwrap();
    let is_known =
        async || world.transfers.chain().first(|it| it.has_transaction(hash)).await.unwrap();
    assert!(is_known().await);
    world.tick().await;
    assert!(is_known().await);

    world.rpc("anvil_dropTransaction", json!([hex::encode_prefixed(hash)]));
    assert!(!is_known().await);
    world.tick().await;
    assert!(is_known().await);
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    assert_eq!(world.sent(&ann), 1);
}

#[tokio::test]
async fn after_a_reorg_a_transfer_is_pending_and_mined_again() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.stored(&sent).await.block, Some(1));
    world.mine(1);

    world.rpc("anvil_reorg", json!([2, []]));
    assert_eq!(world.sent(&ann), 0);
    world.tick().await;
    let back = world.stored(&sent).await;
    assert_eq!(back.state, TransferState::Broadcast);
    assert_eq!((back.block, back.fee, back.tx_hash), (None, None, sent.tx_hash));

    // The same round broadcast it again.
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&sent).await;
    assert_eq!((mined.state, mined.block), (TransferState::Mined, Some(3)));
    world.mine(CONFIRMATIONS);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    assert_eq!((world.sent(&ann), world.balance(quote.to.address)), (1, quote.value.0));
}

/// It was said to arrive, and the blocks do not have it any more.
#[tokio::test]
async fn a_recipient_is_notified_each_time_that_the_block_of_a_payment_is_removed() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    world.confirm(&ann, &quote).await.unwrap();
    let mut notified = world.event_count(&bob).await;
    for _ in 0..2 {
        world.mine(1);
        world.tick().await;
        assert_eq!(world.state(&quote).await, TransferState::Mined);
        assert_eq!(world.event_count(&bob).await, notified + 1);
        world.rpc("anvil_reorg", json!([1, []]));
        world.tick().await;
        assert_eq!(world.state(&quote).await, TransferState::Broadcast);
        assert_eq!(world.event_count(&bob).await, notified + 2);
        notified += 2;
    }
    // Why it waits, and that it is being cancelled, is its sender's business.
    for _ in 0..5 {
        // Above every price that was signed, so that no step is left.
        world.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x2e90edd000"]));
        world.mine(1);
        world.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x2e90edd000"]));
        world.tick().await;
    }
    let wait = world.stored(&quote).await.wait.map(|wait| wait.reason);
    assert_eq!(wait, Some(WaitReason::Fee));
    world.transfers.cancel(quote.id, world.now()).await.unwrap();
    assert_eq!(world.event_count(&bob).await, notified);
    // Who was never notified of a payment is not notified that it is cancelled either.
    let never = world.quote(&ann, party(&bob), "0.1").await;
    world.confirm(&ann, &never).await.unwrap();
    world.transfers.cancel(never.id, world.now()).await.unwrap();
    assert_eq!(world.event_count(&bob).await, notified);
}

#[tokio::test]
async fn a_lagging_node_is_not_mistaken_for_a_reorg() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let before = world.rpc("evm_snapshot", json!([]));
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.stored(&sent).await.block, Some(1));

    // The node's chain now ends before that block, like that of a node that is behind.
    world.rpc("evm_revert", json!([before]));
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);

    // It reaches that block, and has another one there.
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&sent).await;
    assert_eq!((mined.state, mined.block), (TransferState::Mined, Some(2)));
    assert_eq!(world.sent(&ann), 1);
}

#[tokio::test]
async fn a_reverted_transfer_fails_at_finality_and_costs_only_its_fee() {
    let world = World::new().await;
    world.rpc("anvil_setCode", json!([STRANGER, "0x00"]));
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    // The contract changes after the quote.
    world.rpc("anvil_setCode", json!([STRANGER, reverting()]));
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    world.mine(CONFIRMATIONS);
    world.tick().await;
    let failed = world.stored(&sent).await;
    assert_eq!((failed.state, failed.block), (TransferState::Failed, Some(1)));
    let fee = failed.fee.unwrap().0;
    assert!(fee > U256::ZERO);
    assert_eq!(world.balance(ann.wallet.address), U256::from(COIN) - fee);
    assert_eq!(world.tick().await, 0);
}

#[tokio::test]
async fn a_failure_of_one_transfer_does_not_affect_the_others() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, COIN).await);
    let stuck = world.quote(&ann, stranger(), "0.1").await;
    let sealed_elsewhere = world.cut_off_with_another_key();
    let signed = world.confirm_at(&sealed_elsewhere, &ann, &stuck).await;
    assert_eq!(signed.unwrap().state, TransferState::Signed);
    let good = world.quote(&bob, stranger(), "0.1").await;
    world.confirm_at(&world.cut_off(), &bob, &good).await.unwrap();

    assert_eq!(world.tick().await, 2);
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&stuck).await, TransferState::Signed);
    assert_eq!(world.state(&good).await, TransferState::Mined);
    assert_eq!((world.sent(&ann), world.sent(&bob)), (0, 1));
}
