//! An endpoint that is down, slow, of another chain, or hostile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kms_chain::{Chain, ChainError, Endpoint, Market, PlannedPayment};
use kms_testkit::{Anvil, AnvilOptions};
use kms_types::EthAddress;
use serde_json::json;

use crate::stub::{self, Answer};
use crate::world::units;

const ADDRESS: [u8; 20] = [7; 20];

#[tokio::test]
async fn another_chain_is_refused() {
    let options = AnvilOptions { chain_id: 5, ..AnvilOptions::default() };
    let anvil = Anvil::start_with(options).unwrap();
    let chain = Chain::new(&anvil.url(), 6).unwrap();
    let wrong =
        |error: ChainError| matches!(error, ChainError::WrongChain { expected: 6, found: 5 });
    assert!(wrong(chain.first(Endpoint::block_number).await.unwrap_err()));
    assert!(wrong(chain.view(ADDRESS.into(), None).await.unwrap_err()));
    assert!(wrong(chain.broadcast(&[2]).await.unwrap_err()));
    assert!(wrong(chain.first(|it| it.receipt([1; 32])).await.unwrap_err()));
}

#[tokio::test]
async fn an_unreachable_endpoint_is_an_error_at_once() {
    let mut anvil = Anvil::start().unwrap();
    let chain = Chain::new(&anvil.url(), anvil.chain_id()).unwrap();
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 0);
    anvil.kill().unwrap();
    let begun = Instant::now();
    let error = chain.view(ADDRESS.into(), None).await.unwrap_err();
    assert!(matches!(error, ChainError::Unavailable(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_silent_endpoint_is_an_error_within_seconds() {
    let anvil = Anvil::start().unwrap();
    let chain = Chain::new(&anvil.url(), anvil.chain_id()).unwrap();
    chain.first(Endpoint::block_number).await.unwrap();
    anvil.pause().unwrap();
    // The node may answer a few more calls before it is suspended.
    let deadline = Instant::now() + Duration::from_secs(60);
    let (error, took) = loop {
        assert!(Instant::now() < deadline, "the node still answers");
        let begun = Instant::now();
        if let Err(error) = chain.view(ADDRESS.into(), None).await {
            break (error, begun.elapsed());
        }
    };
    assert!(matches!(error, ChainError::Unavailable(_)), "{error}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    anvil.resume().unwrap();
    chain.view(ADDRESS.into(), None).await.unwrap();
}

#[tokio::test]
async fn the_chain_id_is_checked_once_and_again_after_a_failure() {
    let id = Arc::new(AtomicU64::new(5));
    let asked = Arc::new(AtomicU64::new(0));
    let broken = Arc::new(AtomicBool::new(false));
    let (its_id, its_asked, its_broken) = (id.clone(), asked.clone(), broken.clone());
    let url = stub::start(move |method| {
        if its_broken.load(Ordering::SeqCst) {
            return Answer::Http("502 Bad Gateway".to_owned());
        }
        if method == "eth_chainId" {
            its_asked.fetch_add(1, Ordering::SeqCst);
            return Answer::Result(json!(format!("{:#x}", its_id.load(Ordering::SeqCst))));
        }
        Answer::Result(json!("0x1"))
    });
    let chain = Chain::new(&url, 5).unwrap();
    chain.first(Endpoint::block_number).await.unwrap();
    chain.first(Endpoint::block_number).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    broken.store(true, Ordering::SeqCst);
    let error = chain.first(Endpoint::block_number).await.unwrap_err();
    assert!(matches!(error, ChainError::Unavailable(_)), "{error}");

    broken.store(false, Ordering::SeqCst);
    id.store(6, Ordering::SeqCst);
    for _ in 0..2 {
        let error = chain.first(Endpoint::block_number).await.unwrap_err();
        assert!(matches!(error, ChainError::WrongChain { found: 6, .. }), "{error}");
    }
    id.store(5, Ordering::SeqCst);
    chain.first(Endpoint::block_number).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_error_is_not_mistaken_for_a_revert() {
    let gas = async |code, message: &'static str, data: serde_json::Value| {
        let url = stub::start(move |method| match method {
            "eth_chainId" => Answer::Result(json!("0x5")),
            _ => Answer::ErrorWith(code, message, data.clone()),
        });
        let chain = Chain::new(&url, 5).unwrap();
        let (from, to, value) = (EthAddress::from(ADDRESS), EthAddress::from([8; 20]), units(1));
        let payment = PlannedPayment { from, to, token: None, value };
        chain.first(|it| it.gas_limit(&payment)).await
    };
    for (code, message, data) in [
        (-32_005, "daily request count exceeded", json!({"see": "https://example.com"})),
        (-32_000, "missing trie node", json!(null)),
        (-32_003, "rejected", json!(null)),
        (-32_603, "busy", json!("later")),
        (-32_603, "internal error", json!(null)),
    ] {
        let error = gas(code, message, data).await.unwrap_err();
        assert!(matches!(error, ChainError::Refused { code: said, .. } if said == code), "{error}");
    }
    let error = gas(429, "too many requests", json!(null)).await.unwrap_err();
    assert!(matches!(error, ChainError::RateLimited { seconds: 10 }), "{error}");
    for (code, message, data) in [
        (3, "a\u{0}b\nc\u{1b}[31m", json!(null)),
        (-32_000, "execution reverted", json!(null)),
        (-32_000, "Execution reverted: no", json!("0x")),
        (-32_000, "gas required exceeds allowance (50000000)", json!(null)),
        (-32_003, "Out of gas: gas required exceeds allowance: 0", json!(null)),
        (-32_000, "stack limit reached 1024 (1023)", json!(null)),
        (-32_015, "VM execution error.", json!("Reverted 0x08c379a0")),
        (-32_015, "OutOfGas", json!(null)),
        (-32_603, "it says no", json!("0x08c379a0")),
    ] {
        let cleaned: String = message.chars().filter(|it| !it.is_control()).collect();
        let error = gas(code, message, data).await.unwrap_err();
        assert!(matches!(&error, ChainError::Reverted { reason } if *reason == cleaned), "{error}");
    }
}

#[tokio::test]
async fn signed_bytes_follow_no_redirect() {
    let lured = Arc::new(AtomicBool::new(false));
    let its_lured = lured.clone();
    let elsewhere = stub::start(move |_method| {
        its_lured.store(true, Ordering::SeqCst);
        Answer::Result(json!("0x5"))
    });
    let url = stub::start(move |method| match method {
        "eth_chainId" => Answer::Result(json!("0x5")),
        _ => Answer::Http(format!("307 Temporary Redirect\r\nLocation: {elsewhere}")),
    });
    let chain = Chain::new(&url, 5).unwrap();
    let error = chain.broadcast(&[2]).await.unwrap_err();
    assert!(matches!(error, ChainError::Unavailable(_)), "{error}");
    assert!(!lured.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_chain_without_a_base_fee_has_a_gas_price() {
    let anvil = Anvil::start().unwrap();
    let block = anvil.rpc("eth_getBlockByNumber", json!(["latest", false])).unwrap();
    let mut block = block.as_object().unwrap().clone();
    block.remove("baseFeePerGas");
    let url = stub::start(move |method| match method {
        "eth_chainId" => Answer::Result(json!("0x5")),
        "eth_gasPrice" => Answer::Result(json!("0x7")),
        "eth_getBlockByNumber" => Answer::Result(json!(block)),
        _ => Answer::Result(json!(null)),
    });
    let market = Chain::new(&url, 5).unwrap().first(Endpoint::market).await.unwrap();
    assert_eq!(market, Market::Legacy { price: 7 });
}

#[tokio::test]
async fn no_message_shows_the_url() {
    let secret = "http://127.0.0.1:1/v3/5ec7e7";
    let chain = Chain::new(secret, 5).unwrap();
    let down = chain.first(Endpoint::block_number).await.unwrap_err();
    let other = Chain::new("ftp://127.0.0.1/5ec7e7", 5).unwrap_err();
    let none = Chain::new("5ec7e7", 5).unwrap_err();
    for text in [
        format!("{chain:?} {chain:#?}"),
        format!("{down} {down:?}"),
        format!("{other} {other:?} {none} {none:?}"),
    ] {
        assert!(!text.contains("5ec7e7") && !text.contains("127.0"), "{text}");
    }
}
