//! What an endpoint lacks is found before money depends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kms_chain::follower::Finality;
use kms_chain::{Chain, ChainError, Endpoint, Family, Need};
use kms_testkit::Anvil;
use serde_json::json;

use crate::stub::{Answer, Fate, start_proxy};

const NEEDS: [Need; 5] = [Need::Prices, Need::Gas, Need::Logs, Need::Receipts, Need::FinalBalances];

/// A chain with two hundred blocks and a transaction in the newest.
fn node() -> Anvil {
    let anvil = Anvil::start().unwrap();
    anvil.rpc("anvil_mine", json!(["0xc8"])).unwrap();
    let accounts = anvil.rpc("eth_accounts", json!([])).unwrap();
    let (from, to) = (accounts.get(0), accounts.get(1));
    anvil.rpc("eth_sendTransaction", json!([{ "from": from, "to": to, "value": "0x1" }])).unwrap();
    anvil
}

/// What is missing at an endpoint that does not have a method.
async fn missing(node: &Anvil, method: &'static str) -> Vec<(Need, ChainError)> {
    let url = start_proxy(&node.url(), move |called| match called == method {
        true => Fate::Answered(Answer::Error(-32_601, "the method does not exist")),
        false => Fate::Passed,
    });
    let mut found = Vec::new();
    for need in NEEDS {
        // Each has its own, because an endpoint that failed is not asked in the same way.
        let chain = Chain::new(&url, node.chain_id()).unwrap();
        let probed = chain.first(|endpoint| endpoint.probe(need, Finality::Blocks(2))).await;
        found.extend(probed.err().map(|error| (need, error)));
    }
    found
}

#[tokio::test]
async fn an_endpoint_that_lacks_a_method_fails_what_needs_it_alone() {
    let node = node();
    assert!(missing(&node, "none").await.is_empty());
    for (method, need) in [
        ("eth_feeHistory", Need::Prices),
        ("eth_estimateGas", Need::Gas),
        ("eth_getLogs", Need::Logs),
        ("eth_getBlockReceipts", Need::Receipts),
        ("eth_getBalance", Need::FinalBalances),
    ] {
        let found = missing(&node, method).await;
        let [(lacked, error)] = found.as_slice() else { panic!("{method}: {found:?}") };
        assert_eq!(*lacked, need, "{method}: {error}");
        let is_without_receipts = matches!(error, ChainError::NoReceipts);
        assert_eq!(is_without_receipts, need == Need::Receipts, "{method}: {error}");
    }
}

#[tokio::test]
async fn receipts_that_do_not_have_the_root_are_no_receipts() {
    let node = node();
    let url = start_proxy(&node.url(), |called| match called {
        "eth_getBlockReceipts" => Fate::Answered(Answer::Result(json!([]))),
        _ => Fate::Passed,
    });
    let chain = Chain::new(&url, node.chain_id()).unwrap();
    let probed = chain.first(|endpoint| endpoint.probe(Need::Receipts, Finality::Tag)).await;
    assert!(matches!(probed, Err(ChainError::FalseReceipts { .. })), "{probed:?}");
}

#[tokio::test]
async fn the_depth_of_the_state_is_that_of_the_deepest_block_that_has_one() {
    let node = node();
    let chain = Chain::new(&node.url(), node.chain_id()).unwrap();
    assert_eq!(chain.first(Endpoint::state_depth).await.unwrap(), 201);
    let mut calls = 0;
    let url = start_proxy(&node.url(), move |called| {
        calls += u32::from(called == "eth_getTransactionCount");
        match calls > 2 {
            true => Fate::Answered(Answer::Error(-32_000, "missing trie node")),
            false => Fate::Passed,
        }
    });
    let chain = Chain::new(&url, node.chain_id()).unwrap();
    assert_eq!(chain.first(Endpoint::state_depth).await.unwrap(), 128);
}

#[tokio::test]
async fn a_chain_of_a_family_that_is_refused_is_named_without_a_request() {
    let url = start_proxy("", |method| panic!("{method} was asked"));
    let chain = Chain::new(&url, 324).unwrap();
    let refused = chain.check().await.unwrap_err();
    assert!(
        matches!(refused, ChainError::Unsupported { chain_id: 324, family: Family::ZkStack }),
        "{refused}"
    );
    let text = "chain 324 is of the family ZK stack (ZKsync), which is not supported";
    assert!(refused.to_string().starts_with(text), "{refused}");
}

#[tokio::test]
async fn an_unknown_chain_of_the_zk_stack_is_refused_by_what_its_nodes_answer() {
    let node = node();
    let asked = Arc::new(AtomicU32::new(0));
    let (counted, zk) = (Arc::clone(&asked), Arc::new(AtomicBool::new(true)));
    let is_zk = Arc::clone(&zk);
    let url = start_proxy(&node.url(), move |method| {
        if method != "zks_getBridgehubContract" {
            return Fate::Passed;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        match is_zk.load(Ordering::SeqCst) {
            true => Fate::Answered(Answer::Result(json!(format!("0x{}", "12".repeat(20))))),
            false => Fate::Passed,
        }
    });
    let refused = Chain::new(&url, node.chain_id()).unwrap();
    for error in [
        refused.check().await.unwrap_err(),
        refused.first(Endpoint::block_number).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, ChainError::Unsupported { family: Family::ZkStack, .. }),
            "{error}"
        );
    }
    // Another chain is asked once.
    zk.store(false, Ordering::SeqCst);
    let before = asked.load(Ordering::SeqCst);
    let chain = Chain::new(&url, node.chain_id()).unwrap();
    for _ in 0..3 {
        chain.first(Endpoint::block_number).await.unwrap();
        chain.check().await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), before + 1);
}
