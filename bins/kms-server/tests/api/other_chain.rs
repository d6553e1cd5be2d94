//! A chain that is removed from the configuration keeps its transfers until it is back.

use std::sync::Arc;
use std::time::Duration;

use kms_server_testing::requests::{COIN, confirm, quote};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::ErrorCode;
use kms_types::wire::{Transfer, TransferState};
use serde_json::json;

const HOME: u64 = 1_010;
const OTHER: u64 = 1_011;

async fn pay(test: &TestServer) -> Transfer {
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap()
}

/// Waits until the server counts so many transfers of a chain that a node accepted.
async fn until_counted(test: &TestServer, chain_id: u64, count: u32) {
    let number = format!("kms_transfers{{chain=\"{chain_id}\",state=\"broadcast\"}} {count}\n");
    for _ in 0..1_200 {
        if test.ops("/metrics").await.text().await.unwrap().contains(&number) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {number}");
}

#[actix_web::test]
async fn a_chain_that_is_removed_keeps_its_transfers_until_it_is_back() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.use_chain_id(HOME).unwrap();
    let mut test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    let home = Arc::clone(&test.env.anvil);
    home.rpc("evm_setAutomine", json!([false])).unwrap();
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let sent = pay(&test).await;
    test.until(sent.id, TransferState::Broadcast).await;
    until_counted(&test, HOME, 1).await;

    test.env.use_chain_id(OTHER).unwrap();
    let mut test = test.restart().await;
    let found = test.client.transfer(sent.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.chain_id), (TransferState::Broadcast, HOME));
    // No server follows it, which the operator sees.
    until_counted(&test, HOME, 1).await;
    // What needs the chain is refused with the reason; a repeat and a cancellation are answered.
    let refused = test.client.replacement(sent.id).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ChainUnavailable));
    let again = confirm(&sent, "ann's password");
    assert_eq!(test.client.confirm(sent.id, &again).await.unwrap().tx_hash, sent.tx_hash);
    let unsigned = confirm(&quoted, "ann's password");
    let refused = test.client.confirm(quoted.id, &unsigned).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ChainUnavailable));
    let cancelled = test.client.cancel(quoted.id).await.unwrap();
    assert_eq!(cancelled.state, TransferState::Cancelled);
    // The other chain works, with nonces and balances of its own.
    test.env.fund(&ann, 10 * COIN).unwrap();
    let elsewhere = pay(&test).await;
    assert_eq!(test.until(elsewhere.id, TransferState::Mined).await.chain_id, OTHER);

    (test.env.rpc_urls, test.env.chain.chain_id) = (home.url(), HOME);
    test.env.anvil = Arc::clone(&home);
    let test = test.restart().await;
    home.rpc("anvil_mine", json!(["0x4"])).unwrap();
    test.until(sent.id, TransferState::Final).await;
    until_counted(&test, HOME, 0).await;
}
