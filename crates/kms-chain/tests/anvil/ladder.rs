//! Fees that prove too low: the replacement is broadcast without the password, and the transaction
//! that is mined settles the transfer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_chain::Transfers;
use kms_chain::transfer::{Fees, Transfer, TransferState, WaitReason};
use kms_types::U256;
use serde_json::{Value, json};

use crate::stub::{Answer, Fate, ask, method_of, start_proxy, start_proxy_by_call};
use crate::world::{CHECK, COIN, CONFIRMATIONS, World, request, stranger};

fn hash(transfer: &Transfer) -> String {
    hex::encode_prefixed(transfer.tx_hash.unwrap())
}

/// The `maxFeePerGas` of a transaction that the node has, pending or mined.
fn max_fee_of(world: &World, hash: &str) -> Option<u128> {
    let found = world.rpc("eth_getTransactionByHash", json!([hash]));
    let digits = found.get("maxFeePerGas")?.as_str()?.trim_start_matches("0x").to_owned();
    Some(u128::from_str_radix(&digits, 16).unwrap())
}

/// Mines a block with this base fee.
fn mine_at(world: &World, base_fee: u128) {
    let base_fee = format!("{base_fee:#x}");
    world.rpc("anvil_setNextBlockBaseFeePerGas", json!([base_fee]));
    world.mine(1);
    // Otherwise the base fee of the next block would be lower.
    world.rpc("anvil_setNextBlockBaseFeePerGas", json!([base_fee]));
}

#[tokio::test]
async fn a_transaction_below_the_base_fee_is_replaced_at_once_without_the_password() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    let first = sent.ladder.first();
    assert_eq!(max_fee_of(&world, &hash(&sent)), Some(first.ceiling()));

    mine_at(&world, first.ceiling() + 1);
    assert_eq!(world.sent(&ann), 0);
    world.tick().await;
    let replaced = world.stored(&sent).await;
    assert_eq!((replaced.state, replaced.nonce), (TransferState::Broadcast, sent.nonce));
    assert_ne!(replaced.tx_hash, sent.tx_hash);
    let second = sent.ladder.replacements().next().unwrap();
    assert_eq!(max_fee_of(&world, &hash(&replaced)), Some(second.ceiling()));

    world.mine(1);
    world.tick().await;
    let mined = world.stored(&sent).await;
    assert_eq!((mined.state, mined.tx_hash), (TransferState::Mined, replaced.tx_hash));
    let paid = world.balance(ann.wallet.address);
    assert_eq!(paid, U256::from(COIN) - mined.value.0 - mined.fee.unwrap().0);
    assert!(mined.fee.unwrap() <= quote.max_fee());
    assert_eq!(world.balance(quote.to.address), quote.value.0);
    assert_eq!(world.sent(&ann), 1);
}

#[tokio::test]
async fn a_pending_transaction_is_replaced_up_to_the_top_then_the_sender_is_notified() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    let mut seen = vec![sent.tx_hash];
    let events = async || world.event_count(&ann).await;
    let at_first = events().await;
    for _ in 0..2 {
        // Neither time nor empty blocks spend a step.
        world.pass(Duration::from_secs(3_600));
        world.rpc("anvil_dropAllTransactions", json!([]));
        world.mine(10);
        world.tick().await;
        assert_eq!(world.stored(&sent).await.tx_hash, *seen.last().unwrap());
        world.pass_over();
        world.tick().await;
        seen.push(world.stored(&sent).await.tx_hash);
    }
    let top = world.stored(&sent).await;
    assert_eq!(max_fee_of(&world, &hash(&top)), Some(quote.ladder.top().ceiling()));
    assert_eq!(top.ladder.top().max_fee(top.gas_limit), quote.max_fee());
    seen.dedup();
    assert_eq!(seen.len(), 3);
    // Each of the two replacements was notified.
    assert_eq!(events().await, at_first + 2);

    // No replacement is left: that it waits is notified, once.
    for _ in 0..2 {
        world.pass_over();
        world.tick().await;
    }
    let waits = world.stored(&sent).await;
    assert_eq!((waits.state, waits.tx_hash), (TransferState::Broadcast, top.tx_hash));
    assert_eq!(waits.wait.unwrap().reason, WaitReason::Fee);
    assert_eq!(events().await, at_first + 3);

    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    assert_eq!(world.sent(&ann), 1);
}

#[tokio::test]
async fn an_earlier_transaction_that_is_mined_settles_the_transfer() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let before = world.rpc("evm_snapshot", json!([]));
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    let raw = world.rpc("eth_getRawTransactionByHash", json!([hash(&sent)]));
    world.pass_over();
    world.tick().await;
    let replaced = world.stored(&sent).await;
    assert_ne!(replaced.tx_hash, sent.tx_hash);

    // A node that never had the replacement mines the block.
    world.rpc("evm_revert", json!([before]));
    world.rpc("anvil_dropAllTransactions", json!([]));
    world.rpc("eth_sendRawTransaction", json!([raw]));
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&sent).await;
    assert_eq!((mined.state, mined.tx_hash), (TransferState::Mined, sent.tx_hash));
    assert!(mined.fee.unwrap() <= sent.ladder.first().max_fee(sent.gas_limit));
    world.mine(CONFIRMATIONS);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    assert_eq!((world.sent(&ann), world.balance(quote.to.address)), (1, quote.value.0));
}

#[tokio::test]
async fn after_a_reorg_the_last_replacement_is_broadcast_again() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.pass_over();
    world.tick().await;
    let replaced = world.stored(&sent).await;
    world.mine(2);
    world.tick().await;
    assert_eq!(world.stored(&sent).await.block, Some(3));

    world.rpc("anvil_reorg", json!([2, []]));
    assert_eq!(world.sent(&ann), 0);
    world.tick().await;
    let back = world.stored(&sent).await;
    assert_eq!((back.state, back.tx_hash), (TransferState::Broadcast, replaced.tx_hash));
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&sent).await;
    assert_eq!((mined.state, mined.tx_hash), (TransferState::Mined, replaced.tx_hash));
    assert_eq!((world.sent(&ann), world.balance(quote.to.address)), (1, quote.value.0));
}

#[tokio::test]
async fn a_transfer_behind_a_pending_one_is_not_replaced() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let one = world.quote(&ann, stranger(), "0.1").await;
    let one = world.confirm(&ann, &one).await.unwrap();
    let two = world.quote(&ann, stranger(), "0.1").await;
    let two = world.confirm(&ann, &two).await.unwrap();
    world.tick().await;
    world.pass_over();
    world.tick().await;
    assert_ne!(world.stored(&one).await.tx_hash, one.tx_hash);
    assert_eq!(world.stored(&two).await.tx_hash, two.tx_hash);
    world.mine(1);
    world.tick().await;
    for transfer in [&one, &two] {
        assert_eq!(world.state(transfer).await, TransferState::Mined);
    }
    assert_eq!(world.sent(&ann), 2);
}

/// Checks a payment that was passed over and forgotten through an endpoint that does not know
/// `eth_feeHistory`, with this latest block and gas price where they are given. Returns the
/// payment as it was sent and as it is then, and what the endpoint was asked.
async fn without_fee_history(
    world: &World,
    latest: impl FnOnce(Value) -> Option<Value>,
    gas_price: &'static str,
) -> (Transfer, Transfer, Vec<String>) {
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.pass_over();
    let latest = latest(world.rpc("eth_getBlockByNumber", json!(["latest", false])));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&asked);
    let url = start_proxy(&world.anvil.url(), move |method| {
        calls.lock().unwrap().push(method.to_owned());
        match (method, &latest) {
            ("eth_feeHistory", _) => Fate::Answered(Answer::Error(-32_601, "no such method")),
            ("eth_gasPrice", _) => Fate::Answered(Answer::Result(json!(gas_price))),
            ("eth_getBlockByNumber", Some(latest)) => {
                Fate::Answered(Answer::Result(latest.clone()))
            }
            _ => Fate::Passed,
        }
    });
    let server = world.through(&url);
    world.pass(CHECK);
    server.tick(world.now()).await.unwrap();
    // An endpoint that counts as failed would be checked again.
    server.chain().check().await.unwrap();
    let now = world.stored(&sent).await;
    let asked = asked.lock().unwrap().clone();
    (sent, now, asked)
}

fn without_base_fee(mut block: Value) -> Option<Value> {
    block.as_object_mut().unwrap().remove("baseFeePerGas").unwrap();
    Some(block)
}

fn count(asked: &[String], method: &str) -> usize {
    asked.iter().filter(|asked| *asked == method).count()
}

#[tokio::test]
async fn a_refused_fee_history_stops_neither_the_rebroadcast_nor_the_wait() {
    let world = World::new().await;
    let (sent, now, asked) = without_fee_history(&world, |_| None, "0x1").await;
    assert_eq!((now.state, now.tx_hash), (TransferState::Broadcast, sent.tx_hash));
    assert_eq!(now.wait.unwrap().reason, WaitReason::Fee);
    assert!(max_fee_of(&world, &hash(&sent)).is_some());
    assert_eq!((count(&asked, "eth_feeHistory"), count(&asked, "eth_chainId")), (1, 1));
}

#[tokio::test]
async fn a_chain_without_a_base_fee_is_asked_for_its_gas_price_alone() {
    let world = World::new().await;
    let (sent, now, asked) = without_fee_history(&world, without_base_fee, "0x1").await;
    assert_eq!((now.state, now.tx_hash), (TransferState::Broadcast, sent.tx_hash));
    assert_eq!(now.wait.unwrap().reason, WaitReason::Fee);
    assert!(max_fee_of(&world, &hash(&sent)).is_some());
    assert_eq!((count(&asked, "eth_feeHistory"), count(&asked, "eth_chainId")), (0, 1));

    // A price above that of the current step spends it.
    let world = World::new().await;
    let (sent, now, asked) = without_fee_history(&world, without_base_fee, "0xe8d4a51000").await;
    assert_ne!(now.tx_hash, sent.tx_hash);
    assert_eq!((now.state, now.wait), (TransferState::Broadcast, None));
    assert_eq!(count(&asked, "eth_feeHistory"), 0);
}

/// An engine for which this chain has no base fee.
fn on_a_legacy_chain(world: &World) -> Transfers {
    let node = world.anvil.url();
    let url = start_proxy_by_call(&world.anvil.url(), move |call| match method_of(call) {
        "eth_feeHistory" => Fate::Answered(Answer::Error(-32_601, "no such method")),
        method @ "eth_getBlockByNumber" => {
            let block = ask(&node, method, call.get("params").unwrap());
            Fate::Answered(Answer::Result(without_base_fee(block).unwrap()))
        }
        _ => Fate::Passed,
    });
    world.through(&url)
}

#[tokio::test]
async fn a_payment_on_a_chain_without_a_base_fee_is_a_legacy_transaction() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let server = on_a_legacy_chain(&world);
    let exact = server.quote(request(&ann, stranger(), "0.1"), world.now()).await.unwrap();
    let all = server.quote(request(&ann, stranger(), "all"), world.now()).await.unwrap();
    for quote in [&exact, &all] {
        assert!(matches!(quote.ladder.first(), Fees::Legacy { .. }), "{:?}", quote.ladder);
    }
    assert_eq!(all.value.0 + all.max_fee().0, U256::from(COIN));
    let sent = world.confirm_at(&server, &ann, &exact).await.unwrap();
    let found = world.rpc("eth_getTransactionByHash", json!([hash(&sent)]));
    assert_eq!(found.get("type"), Some(&json!("0x0")));
    world.mine(1);
    world.tick().await;
    world.mine(CONFIRMATIONS);
    world.tick().await;
    let paid = world.stored(&sent).await;
    assert_eq!((paid.state, paid.tx_hash), (TransferState::Final, sent.tx_hash));
    assert_eq!(paid.fee.unwrap(), exact.ladder.first().max_fee(exact.gas_limit));
    let left = U256::from(COIN) - paid.value.0 - paid.fee.unwrap().0;
    assert_eq!(world.balance(ann.wallet.address), left);
}

#[tokio::test]
async fn a_step_is_spent_after_more_blocks_than_the_market_is_read_from() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    for _ in 0..6 {
        world.pass_over();
    }
    world.pass(CHECK);
    world.replacing_after(12).tick(world.now()).await.unwrap();
    assert_ne!(world.stored(&sent).await.tx_hash, sent.tx_hash);
}
