//! Payments that nodes refuse on arrival: they are signed so that nodes accept them, or wait with
//! the node's reason, and the wallet pays again.

use alloy::consensus::{Transaction, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use kms_chain::transfer::{Party, Refusal, Transfer, TransferState, WaitReason};
use kms_chain::{Checked, Transfers};
use kms_core::account::Account;
use serde_json::{Value, json};

use crate::stub::{Answer, Fate, start_proxy_by_call};
use crate::world::{
    CHECK, COIN, CONFIRMATIONS, REPLACE_AFTER, STRANGER, World, request, shown, stranger,
};

/// Gas of a plain payment on a rollup whose limit also pays for the data on the chain below.
const ROLLUP_GAS: u64 = 80_000;

/// The words of several kinds of nodes.
const REFUSALS: [(&str, WaitReason); 5] = [
    ("insufficient funds for gas * price + value", WaitReason::Funds),
    ("intrinsic gas too low", WaitReason::Refused(Refusal::GasLimit)),
    ("transaction underpriced: tip needed 25000000000", WaitReason::Refused(Refusal::TipTooLow)),
    ("tx fee exceeds the configured cap", WaitReason::Refused(Refusal::FeeTooHigh)),
    ("not today", WaitReason::Refused(Refusal::Other)),
];

/// The bytes that a call broadcasts, if it does.
pub(crate) fn broadcast(call: &Value) -> Option<Vec<u8>> {
    if call.get("method")? != "eth_sendRawTransaction" {
        return None;
    }
    hex::decode(call.pointer("/params/0")?.as_str()?.trim_start_matches("0x")).ok()
}

/// Quotes and confirms through this server.
pub(crate) async fn pay(world: &World, server: &Transfers, from: &Account, to: Party) -> Transfer {
    let quote = server.quote(request(from, to, "0.1"), world.now()).await.unwrap();
    let Checked::Ready(ready) = server.check(quote.id, shown(&quote)).await.unwrap() else {
        panic!("confirmed before")
    };
    let wallet = world.open(from).await;
    server.sign_and_send(ready, wallet, world.now()).await.unwrap()
}

/// Reads all blocks, and checks every transfer through this server.
pub(crate) async fn tick(world: &World, server: &Transfers) {
    world.pass(CHECK);
    world.read_blocks().await;
    server.tick(world.now()).await.unwrap();
}

#[tokio::test]
async fn a_chain_that_asks_more_gas_of_plain_payments_gets_it() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let server = world.through(&start_proxy_by_call(&world.anvil.url(), |call| {
        if call.get("method") == Some(&json!("eth_estimateGas")) {
            return Fate::Answered(Answer::Result(json!(format!("{ROLLUP_GAS:#x}"))));
        }
        let gas = broadcast(call)
            .map(|bytes| TxEnvelope::decode_2718(&mut &bytes[..]).unwrap().gas_limit());
        match gas {
            Some(..ROLLUP_GAS) => Fate::Answered(Answer::Error(-32_000, "intrinsic gas too low")),
            _ => Fate::Passed,
        }
    }));
    world.read_blocks().await;
    let paid = pay(&world, &server, &ann, stranger()).await;
    let cancelled = pay(&world, &server, &ann, stranger()).await;
    for (nonce, sent) in (0..).zip([&paid, &cancelled]) {
        assert_eq!((sent.state, sent.nonce), (TransferState::Broadcast, Some(nonce)));
        assert!(sent.gas_limit >= ROLLUP_GAS);
    }
    // So does the cancellation.
    server.cancel(cancelled.id, world.now()).await.unwrap();
    for _ in 0..=CONFIRMATIONS {
        tick(&world, &server).await;
        world.mine(1);
    }
    tick(&world, &server).await;
    assert_eq!(world.state(&paid).await, TransferState::Final);
    assert_eq!(world.state(&cancelled).await, TransferState::Cancelled);
    assert_eq!((world.sent(&ann), world.balance(paid.to.address)), (2, paid.value.0));
}

#[tokio::test]
async fn what_every_node_refuses_waits_with_its_reason_and_can_be_cancelled() {
    for (words, reason) in REFUSALS {
        let world = World::new().await;
        let ann = world.account(1, COIN).await;
        let refused_recipient = hex::decode(STRANGER.trim_start_matches("0x")).unwrap();
        let server = world.through(&start_proxy_by_call(&world.anvil.url(), move |call| {
            let is_refused = broadcast(call)
                .is_some_and(|bytes| bytes.windows(20).any(|part| part == refused_recipient));
            match is_refused {
                true => Fate::Answered(Answer::Error(-32_000, words)),
                false => Fate::Passed,
            }
        }));
        world.read_blocks().await;
        let refused = pay(&world, &server, &ann, stranger()).await;
        let other = Party { address: [0xdd; 20].into(), ..stranger() };
        let behind = pay(&world, &server, &ann, other).await;
        for _ in 0..3 {
            world.mine(REPLACE_AFTER);
            tick(&world, &server).await;
        }
        let reason_of = async |transfer| world.stored(transfer).await.wait.map(|it| it.reason);
        // No node has it, so it is not called broadcast.
        assert_eq!(world.state(&refused).await, TransferState::Signed, "{words}");
        assert_eq!(reason_of(&refused).await, Some(reason), "{words}");
        assert_eq!(reason_of(&behind).await, Some(WaitReason::EarlierTransfer), "{words}");

        world.rpc("anvil_dropAllTransactions", json!([]));
        server.cancel(refused.id, world.now()).await.unwrap();
        server.tick(world.now()).await.unwrap();
        world.mine(1);
        // What waits behind it is checked when the block is read, not minutes later.
        world.read_blocks().await;
        server.tick(world.now()).await.unwrap();
        world.mine(1);
        world.read_blocks().await;
        let sent = world.stored(&behind).await;
        assert_eq!((sent.state, sent.wait), (TransferState::Mined, None), "{words}");
        world.mine(CONFIRMATIONS);
        tick(&world, &server).await;
        assert_eq!(world.state(&refused).await, TransferState::Cancelled, "{words}");
        assert_eq!(world.state(&behind).await, TransferState::Final, "{words}");
        assert_eq!((world.sent(&ann), world.balance(behind.to.address)), (2, behind.value.0));
    }
}
