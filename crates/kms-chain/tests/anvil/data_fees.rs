//! Chains that take a fee in addition to gas, as OP-stack chains do for the data on L1.

use kms_chain::transfer::{Missing, TransferState};
use kms_chain::{Chain, PricePolicy, QuoteError};
use kms_testkit::set_data_fees;
use kms_types::{U256, Wei};
use serde_json::{Value, json};

use crate::stub::{Answer, Fate, ask, start_proxy_by_call};
use crate::tokens::Market;
use crate::world::{COIN, World, party, request, stranger, wei};

/// What a byte costs, and its upper bound for a payment: 256 bytes and the signature.
const A_BYTE: u128 = 1_000_000_000_000;
const BOUND: u128 = A_BYTE * (256 + 68);

#[tokio::test]
async fn the_data_fee_is_in_every_sum() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let plain = world.quote(&ann, party(&bob), "0.5").await;
    assert_eq!(plain.ladder.data_fee(), Wei::default());
    set_data_fees(&world.anvil, A_BYTE, 3).unwrap();
    let quote = world.quote(&ann, party(&bob), "0.5").await;
    // Three times what it is now, and the operator's fee.
    let reserved = 3 * (BOUND + 3 * 500_000);
    assert_eq!(quote.ladder.data_fee(), wei(reserved));
    let gas_fee = quote.ladder.top().max_fee(quote.gas_limit);
    assert_eq!(quote.max_fee().0, gas_fee.0 + U256::from(reserved));
    let gas_fee = quote.usual_fee().0 - U256::from(reserved / 3);
    assert!(gas_fee < quote.ladder.first().max_fee(quote.gas_limit).0);
    assert_eq!(world.stored(&quote).await, quote);
    // What is missing is exact.
    let all = world.quote(&ann, party(&bob), "all").await;
    let rest = U256::from(COIN) - all.value.0;
    assert_eq!(rest, all.max_fee().0);
    assert!(rest > U256::from(reserved));
    let poor = world.account(3, reserved).await;
    let error = world.try_quote(request(&poor, stranger(), "0.5")).await.unwrap_err();
    let QuoteError::Insufficient { missing: Missing::Native(missing) } = error else {
        panic!("{error}")
    };
    assert!(missing.0 > U256::from(COIN / 2), "{missing:?}");
}

#[tokio::test]
async fn a_payment_of_all_proceeds_when_the_data_fee_triples() {
    let world = World::new().await;
    set_data_fees(&world.anvil, A_BYTE, 0).unwrap();
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let all = world.quote(&ann, party(&bob), "all").await;
    set_data_fees(&world.anvil, 3 * A_BYTE, 0).unwrap();
    // Like a sequencer: what the sender cannot pay in addition to gas is refused.
    let (node, reserve) = (world.anvil.url(), all.ladder.data_fee());
    let address = ann.wallet.address.to_string();
    let spendable = world.balance(ann.wallet.address) - reserve.0;
    let url = start_proxy_by_call(&node.clone(), move |call| {
        match call.get("method").and_then(Value::as_str) {
            Some("eth_sendRawTransaction") => {
                let balance = ask(&node, "eth_getBalance", &json!([address, "latest"]));
                let balance: U256 = balance.as_str().unwrap().parse().unwrap();
                match balance >= spendable + U256::from(3 * BOUND) {
                    true => Fate::Passed,
                    false => {
                        let words = "insufficient funds for gas * price + value";
                        Fate::Answered(Answer::Error(-32_000, words))
                    }
                }
            }
            _ => Fate::Passed,
        }
    });
    let engine = world.through(&url);
    let ready = world.ready_by(&engine, &all).await;
    let wallet = world.open(&ann).await;
    let sent = engine.sign_and_send(ready, wallet, world.now()).await.unwrap();
    assert_eq!(sent.state, TransferState::Broadcast);
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&all).await, TransferState::Mined);
    // What is left pays the tripled fee.
    assert!(world.balance(ann.wallet.address) >= U256::from(3 * BOUND));
    assert_eq!(world.balance(bob.wallet.address), all.value.0);
}

#[tokio::test]
async fn the_data_fee_counts_towards_the_operators_maximum() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let policy = |max: u128| PricePolicy { max_fee: Some(wei(max)), max_share: 100, min_tip: 0 };
    let quote = async |max| {
        let engine = world.with_prices(policy(max));
        engine.quote(request(&ann, party(&bob), "0.5"), world.now()).await
    };
    quote(BOUND).await.unwrap();
    set_data_fees(&world.anvil, A_BYTE, 0).unwrap();
    let error = quote(BOUND).await.unwrap_err();
    assert!(matches!(error, QuoteError::FeeTooHigh(_)), "{error}");
    assert!(quote(4 * BOUND).await.unwrap().max_fee() <= wei(4 * BOUND));
}

#[tokio::test]
async fn a_token_payment_reserves_the_data_fee() {
    let market = Market::new().await;
    set_data_fees(&market.world.anvil, A_BYTE, 0).unwrap();
    let quote = market.quote("1").await;
    assert_eq!(quote.ladder.data_fee(), wei(3 * BOUND));
    market.world.anvil.set_balance(&market.ann.wallet.address.to_string(), 2 * BOUND).unwrap();
    let error = market.quote_error("1").await;
    assert!(matches!(error, QuoteError::Insufficient { .. }), "{error}");
}

#[tokio::test]
async fn the_reported_fee_has_the_data_fee() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let sent = world.quote(&ann, party(&bob), "0.5").await;
    let sent = world.confirm(&ann, &sent).await.unwrap();
    world.mine(1);
    let hash = sent.tx_hash.unwrap();
    let fee = async |url: &str| {
        let chain = Chain::new(url, world.anvil.chain_id()).unwrap();
        chain.first(|endpoint| endpoint.receipt(hash)).await.unwrap().unwrap().fee.0
    };
    let of_gas = fee(&world.anvil.url()).await;
    let data = json!({ "l1Fee": "0x7b" });
    // 2,000,000 millionths, and 3 hundreds, of a wei per gas.
    let isthmus = json!({ "operatorFeeScalar": "0x1e8480", "operatorFeeConstant": "0x5" });
    let jovian = json!({ "operatorFeeScalar": "0x3", "daFootprintGasScalar": "0x190" });
    for (fields, more) in [(data, 123), (isthmus, 2 * 21_000 + 5), (jovian, 300 * 21_000)] {
        let node = world.anvil.url();
        let url = start_proxy_by_call(&node.clone(), move |call| {
            match call.get("method").and_then(Value::as_str) {
                Some("eth_getTransactionReceipt") => {
                    let params = call.get("params").unwrap();
                    let mut receipt = ask(&node, "eth_getTransactionReceipt", params);
                    let receipt_fields = receipt.as_object_mut().unwrap();
                    receipt_fields.extend(fields.as_object().unwrap().clone());
                    Fate::Answered(Answer::Result(receipt))
                }
                _ => Fate::Passed,
            }
        });
        assert_eq!(fee(&url).await, of_gas + U256::from(more));
    }
}
