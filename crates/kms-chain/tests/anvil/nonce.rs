//! Nonces: gaps are filled, and a transfer whose nonce an external transaction used is ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use kms_chain::transfer::{
    MAX_IN_FLIGHT, Refusal, Transfer, TransferFailure, TransferState, WaitReason,
};
use kms_chain::{ChainError, Checked, ConfirmError, QuoteError, Transfers};
use kms_core::account::Account;
use kms_types::{ReplacementId, U256};
use serde_json::json;

use crate::refusals::{broadcast, pay, tick};
use crate::stub::{Answer, Fate, start_proxy_by_call};
use crate::world::{COIN, CONFIRMATIONS, World, request, stranger, wei};

/// The gas limit of a payment that fits no block, and the gas limit of a block.
const TOO_MUCH_GAS: u64 = 5_000_000;
const BLOCK_GAS: u64 = 4_000_000;

/// The wallet's key is used outside of this system: a payment at the next nonce.
pub(crate) fn use_externally(world: &World, account: &Account) -> String {
    use_externally_with(world, account, (100_000_000_000, 21_000))
}

/// Like [`use_externally`], at this price and with this gas limit.
fn use_externally_with(world: &World, account: &Account, (price, gas): (u64, u64)) -> String {
    let from = account.wallet.address.to_string();
    world.rpc("anvil_impersonateAccount", json!([from]));
    let price = format!("{price:#x}");
    let payment = json!({
        "from": from, "to": "0x00000000000000000000000000000000000000dd", "value": "0x1",
        "nonce": format!("{:#x}", world.sent(account)), "gas": format!("{gas:#x}"),
        "maxFeePerGas": price, "maxPriorityFeePerGas": price,
    });
    let hash = world.rpc("eth_sendTransaction", json!([payment]));
    world.rpc("anvil_stopImpersonatingAccount", json!([from]));
    hash.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_transfer_superseded_by_an_external_transaction_fails_at_finality() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.9").await;
    // Signed, and not broadcast before the external transaction.
    let signed = world.confirm_at(&world.cut_off(), &ann, &quote).await.unwrap();
    let hash = use_externally(&world, &ann);
    world.mine(1);
    world.tick().await;
    // A reorganisation could still remove the external transaction.
    assert_eq!(world.state(&signed).await, TransferState::Signed);

    world.mine(CONFIRMATIONS);
    world.tick().await;
    let failed = world.stored(&signed).await;
    assert_eq!(failed.state, TransferState::Failed);
    assert_eq!(failed.failure, Some(TransferFailure::Superseded));
    assert_eq!((failed.block, failed.fee), (None, None));
    assert_eq!(failed.superseded_by.map(hex::encode_prefixed), Some(hash));
    assert_eq!(world.tick().await, 0);
    // Its reservation is released, and the wallet can pay again.
    let next = world.quote(&ann, stranger(), "0.9").await;
    let next = world.confirm(&ann, &next).await.unwrap();
    assert_eq!((next.state, next.nonce), (TransferState::Broadcast, Some(1)));
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&next).await, TransferState::Mined);
    assert_eq!(world.balance(quote.to.address), U256::from(COIN / 10 * 9));
}

#[tokio::test]
async fn a_used_nonce_that_is_seen_only_once_fails_no_transfer() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let signed = world.confirm_at(&world.cut_off(), &ann, &quote).await.unwrap();
    // The node reports one transaction too many for a moment, and again much later.
    let address = ann.wallet.address.to_string();
    let hash = hex::encode_prefixed(signed.tx_hash.unwrap());
    for _ in 0..2 {
        world.rpc("anvil_setNonce", json!([address, "0x1"]));
        world.mine(CONFIRMATIONS + 1);
        world.tick().await;
        assert_ne!(world.state(&signed).await, TransferState::Failed);
        world.rpc("anvil_setNonce", json!([address, "0x0"]));
        world.tick().await;
        world.rpc("anvil_dropTransaction", json!([hash]));
    }
    world.tick().await;
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&signed).await, TransferState::Mined);
    assert_eq!(world.balance(quote.to.address), quote.value.0);
}

#[tokio::test]
async fn a_nonce_that_was_used_externally_is_not_used_again() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let one = world.quote(&ann, stranger(), "0.1").await;
    world.confirm(&ann, &one).await.unwrap();
    world.mine(1);
    use_externally(&world, &ann);
    // The external transaction is pending at first, then mined.
    for nonce in 2..4 {
        let next = world.quote(&ann, stranger(), "0.1").await;
        let next = world.confirm(&ann, &next).await.unwrap();
        assert_eq!(next.nonce, Some(nonce));
        world.mine(1);
        world.tick().await;
        assert_eq!(world.state(&next).await, TransferState::Mined);
    }
    assert_eq!(world.balance(one.to.address), U256::from(COIN / 10 * 3));
}

#[tokio::test]
async fn a_gap_caused_by_a_wrong_answer_is_filled_by_the_next_transfers() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    // The node reports two transactions too many, once.
    let address = ann.wallet.address.to_string();
    let quote = world.quote(&ann, stranger(), "0.1").await;
    world.rpc("anvil_setNonce", json!([address, "0x2"]));
    let ready = world.ready(&quote).await;
    world.rpc("anvil_setNonce", json!([address, "0x0"]));
    let wallet = world.open(&ann).await;
    let high = world.transfers.sign_and_send(ready, wallet, world.now()).await.unwrap();
    assert_eq!(high.nonce, Some(2));

    for nonce in [0, 1, 3] {
        let next = world.quote(&ann, stranger(), "0.1").await;
        let next = world.confirm(&ann, &next).await.unwrap();
        assert_eq!(next.nonce, Some(nonce));
    }
    world.tick().await;
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&high).await, TransferState::Mined);
    assert_eq!((world.sent(&ann), world.balance(quote.to.address)), (4, wei(COIN / 10 * 4).0));
}

/// Sends as many payments as may be in flight behind a transaction of another program that no block
/// includes, and returns them, with its hash, when they wait for it.
async fn sixteen_behind(world: &World, server: &Transfers, ann: &Account) -> Vec<Transfer> {
    use_externally_with(world, ann, (1_000_000_000, TOO_MUCH_GAS));
    world.rpc("evm_setBlockGasLimit", json!([format!("{BLOCK_GAS:#x}")]));
    world.read_blocks().await;
    let mut sent = Vec::new();
    for nonce in 1..=MAX_IN_FLIGHT {
        sent.push(pay(world, server, ann, stranger()).await);
        assert_eq!(sent.last().unwrap().nonce, Some(nonce.into()));
    }
    // They may be mined at any moment.
    let refused = server.quote(request(ann, stranger(), "0.1"), world.now()).await;
    assert!(matches!(refused.unwrap_err(), QuoteError::TooManyInFlight(_)));
    sent
}

/// Mines until the payments that wait have been waiting for long.
async fn wait(world: &World, server: &Transfers) {
    for _ in 0..3 {
        world.mine(1);
        tick(world, server).await;
    }
}

async fn reason(world: &World, transfer: &Transfer) -> Option<WaitReason> {
    world.stored(transfer).await.wait.map(|wait| wait.reason)
}

/// Mines until everything is final, and checks that all of it was paid but what was cancelled.
async fn ends(world: &World, server: &Transfers, ann: &Account, sent: &[Transfer]) {
    for _ in 0..CONFIRMATIONS + 4 {
        world.mine(1);
        tick(world, server).await;
    }
    let mut paid = U256::ZERO;
    for transfer in sent {
        let end = world.stored(transfer).await;
        let wanted = match end.cancel_requested_at {
            Some(_) => TransferState::Cancelled,
            None => TransferState::Final,
        };
        assert_eq!(end.state, wanted, "{:?}", transfer.nonce);
        paid += if wanted == TransferState::Final { transfer.value.0 } else { U256::ZERO };
    }
    assert_eq!(world.sent(ann), u64::try_from(sent.len()).unwrap());
    assert_eq!(world.balance(stranger().address), paid);
}

#[tokio::test]
async fn a_payment_fills_a_gap_below_sixteen_that_wait() {
    for is_dropped in [true, false] {
        let world = World::new().await;
        let (ann, server) = (world.account(1, 10 * COIN).await, &world.transfers);
        let mut sent = sixteen_behind(&world, server, &ann).await;
        // What the owner cancels waits no less.
        server.cancel(sent[15].id, world.now()).await.unwrap();
        wait(&world, server).await;
        for transfer in &sent {
            assert_eq!(reason(&world, transfer).await, Some(WaitReason::EarlierTransfer));
        }
        if is_dropped {
            world.rpc("anvil_dropAllTransactions", json!([]));
        }
        // The transaction of the other program, if it is still there, is replaced by it.
        sent.push(pay(&world, server, &ann, stranger()).await);
        assert_eq!(sent[16].nonce, Some(0));
        // It fills the gap once.
        let refused = server.quote(request(&ann, stranger(), "0.1"), world.now()).await;
        assert!(matches!(refused.unwrap_err(), QuoteError::TooManyInFlight(_)));
        ends(&world, server, &ann, &sent).await;
        // And the wallet pays again.
        let next = pay(&world, server, &ann, stranger()).await;
        assert_eq!((next.state, next.nonce), (TransferState::Broadcast, Some(17)));
    }
}

#[tokio::test]
async fn a_payment_that_fills_a_gap_is_sped_up_past_what_the_node_has() {
    let world = World::new().await;
    let ann = world.account(1, 10 * COIN).await;
    // The node has a transaction with this nonce, and replaces it only by one at this price.
    let price = Arc::new(AtomicU64::new(0));
    let wanted = Arc::clone(&price);
    let server = world.through(&start_proxy_by_call(&world.anvil.url(), move |call| {
        let sent = broadcast(call).map(|bytes| TxEnvelope::decode_2718(&mut &bytes[..]).unwrap());
        let is_low = sent.is_some_and(|sent| {
            sent.nonce() == 0 && sent.max_fee_per_gas() <= u128::from(wanted.load(Ordering::SeqCst))
        });
        match is_low {
            true => {
                let words = "replacement transaction underpriced";
                Fate::Answered(Answer::Error(-32_000, words))
            }
            false => Fate::Passed,
        }
    }));
    let mut sent = sixteen_behind(&world, &server, &ann).await;
    wait(&world, &server).await;
    let quote = server.quote(request(&ann, stranger(), "0.1"), world.now()).await.unwrap();
    price.store(quote.ladder.first().ceiling().try_into().unwrap(), Ordering::SeqCst);
    let ready = world.ready_by(&server, &quote).await;
    let wallet = world.open(&ann).await;
    let filling = server.sign_and_send(ready, wallet, world.now()).await.unwrap();
    sent.push(filling.clone());
    assert_eq!((filling.state, filling.nonce), (TransferState::Signed, Some(0)));
    wait(&world, &server).await;
    let refused = WaitReason::Refused(Refusal::TipTooLow);
    assert_eq!(reason(&world, &filling).await, Some(refused));

    let fee = server.replacement_fee(filling.id).await.unwrap();
    let id = ReplacementId::random();
    let ready = match server.check_replacement(filling.id, id, fee.max).await.unwrap() {
        Checked::Ready(ready) => ready,
        Checked::Done(done) => panic!("{done:?}"),
    };
    let wallet = world.open(&ann).await;
    server.sign_replacement(ready, wallet, world.now()).await.unwrap();
    ends(&world, &server, &ann, &sent).await;
}

#[tokio::test]
async fn nothing_is_signed_above_a_final_nonce_that_the_chain_does_not_count() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let first = world.quote(&ann, stranger(), "0.1").await;
    world.confirm(&ann, &first).await.unwrap();
    world.mine(CONFIRMATIONS + 1);
    world.tick().await;
    assert_eq!(world.state(&first).await, TransferState::Final);
    let address = ann.wallet.address.to_string();
    world.rpc("anvil_setNonce", json!([address, "0x0"]));
    let next = world.quote(&ann, stranger(), "0.1").await;
    let error = world.confirm(&ann, &next).await.unwrap_err();
    assert!(matches!(error, ConfirmError::Chain(ChainError::Contradicted { nonce: 0 })), "{error}");
    assert_eq!(world.state(&next).await, TransferState::Quoted);
    // It was one lagging answer.
    world.rpc("anvil_setNonce", json!([address, "0x1"]));
    assert_eq!(world.confirm(&ann, &next).await.unwrap().nonce, Some(1));
}
