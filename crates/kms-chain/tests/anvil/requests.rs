//! What an endpoint is asked for a quote and for a block: one batch about one block by its hash,
//! and each block once.

use std::sync::{Arc, Mutex};

use kms_chain::transfer::TransferState;
use serde_json::{Value, json};

use crate::stub::{self, Answer, Fate, method_of};
use crate::world::{COIN, CONFIRMATIONS, World, party, request, stranger};

/// 60 times SSTORE: more than 1,300,000 gas.
const EXPENSIVE: &str = "0x603c5b808055600190038060025700";

type Requests = Arc<Mutex<Vec<Value>>>;

/// A proxy that records the requests of HTTP that it forwards.
fn recording(world: &World) -> (String, Requests) {
    let requests = Requests::default();
    let recorded = Arc::clone(&requests);
    let url = stub::start_recording(&world.anvil.url(), move |request| {
        recorded.lock().unwrap().push(request.clone());
    });
    (url, requests)
}

fn take(requests: &Requests) -> Vec<Value> {
    std::mem::take(&mut *requests.lock().unwrap())
}

/// The block that a call is about, if it is about the state of one.
fn block_of(call: &Value) -> Option<&Value> {
    let place = match method_of(call) {
        "eth_getBalance"
        | "eth_getTransactionCount"
        | "eth_getCode"
        | "eth_estimateGas"
        | "eth_call" => 1,
        _ => return None,
    };
    call.get("params")?.get(place)
}

#[tokio::test]
async fn a_quote_is_one_batch_about_one_block_by_its_hash() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let (url, requests) = recording(&world);
    let server = world.through(&url);
    let quote = async || server.quote(request(&ann, stranger(), "0.1"), world.now()).await;
    // With the checks of a new endpoint.
    quote().await.unwrap();
    take(&requests);
    world.mine(1);
    quote().await.unwrap();
    let asked = take(&requests);
    let [head, batch] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(method_of(head), "eth_getBlockByNumber");
    let newest = world.rpc("eth_getBlockByNumber", json!(["latest", false]));
    let at = json!({ "blockHash": newest.get("hash"), "requireCanonical": true });
    let calls = batch.as_array().unwrap();
    let about: Vec<_> =
        calls.iter().filter_map(|call| Some((method_of(call), block_of(call)?))).collect();
    for method in ["eth_getBalance", "eth_getTransactionCount", "eth_getCode", "eth_estimateGas"] {
        assert!(about.contains(&(method, &at)), "{method}: {calls:?}");
    }
    assert!(about.iter().all(|(_, block)| **block == at), "{calls:?}");
}

#[tokio::test]
async fn an_endpoint_without_blocks_by_hash_is_asked_by_number() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let asked = Requests::default();
    let calls = Arc::clone(&asked);
    let url = stub::start_proxy_by_call(&world.anvil.url(), move |call| {
        calls.lock().unwrap().push(call.clone());
        match block_of(call).is_some_and(Value::is_object) {
            true => Fate::Answered(Answer::Error(-32_602, "invalid argument 1: not a number")),
            false => Fate::Passed,
        }
    });
    let server = world.through(&url);
    let quoted = world.quote(&ann, stranger(), "0.1").await;
    for round in 0..2 {
        let quote = server.quote(request(&ann, stranger(), "0.1"), world.now()).await.unwrap();
        assert_eq!((quote.ladder, quote.gas_limit), (quoted.ladder.clone(), 21_000));
        let calls = take(&asked);
        let about = |is: fn(&Value) -> bool| {
            calls.iter().filter(|call| block_of(call).is_some_and(is)).count()
        };
        // Found out once. That it was the same block until the end is checked each time.
        assert_eq!(about(Value::is_object) > 0, round == 0, "{calls:?}");
        assert!(about(Value::is_string) > 3, "{calls:?}");
        let last = calls.last().unwrap();
        let (method, block) = (method_of(last), last.pointer("/params/0"));
        assert_eq!((method, block), ("eth_getBlockByNumber", Some(&json!("0x0"))), "{calls:?}");
    }
}

#[tokio::test]
async fn a_payment_may_need_much_gas_if_its_fee_is_allowed() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let to = stranger();
    world.rpc("anvil_setCode", json!([to.address.to_string(), EXPENSIVE]));
    let quote = world.quote(&ann, to, "0.1").await;
    assert!(quote.gas_limit > 1_300_000, "{}", quote.gas_limit);
    world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&quote).await;
    assert_eq!(mined.state, TransferState::Mined);
    assert_eq!(world.balance(mined.to.address), mined.value.0);
}

#[tokio::test]
async fn a_block_is_read_once_for_transfers_and_deposits() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let (url, requests) = recording(&world);
    let follower = world.follower_through(&url);
    world.rounds(&follower).await;
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    world.confirm(&ann, &quote).await.unwrap();
    take(&requests);
    // Both in one block.
    world.deposit(&bob, 7);
    world.rounds(&follower).await;
    world.mine(CONFIRMATIONS);
    world.rounds(&follower).await;
    assert_eq!(world.state(&quote).await, TransferState::Final);
    assert_eq!(world.deposits_of(&bob).await.len(), 1);
    let newest = world.stored(&quote).await.block.unwrap();
    let calls = take(&requests).into_iter().flat_map(|request| match request {
        Value::Array(calls) => calls,
        call => vec![call],
    });
    let of_block: Vec<_> = calls
        .filter(|call| call.pointer("/params/0") == Some(&json!(format!("{newest:#x}"))))
        .collect();
    let bodies = of_block.iter().filter(|call| {
        method_of(call) == "eth_getBlockByNumber" && call.pointer("/params/1") == Some(&json!(true))
    });
    assert_eq!(bodies.count(), 1, "{of_block:?}");
    let receipts = of_block.iter().filter(|call| method_of(call).contains("Receipt"));
    assert!(receipts.count() <= 1, "{of_block:?}");
}
