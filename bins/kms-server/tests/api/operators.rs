//! What operators learn of payments from the log and the metrics of a running server, and what it
//! deletes once its time has passed.

use std::time::Duration;

use kms_server_testing::requests::{COIN, confirm, create, quote};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_store::Scope;
use kms_types::ErrorCode;
use kms_types::wire::TransferState;
use serde_json::json;

/// Waits until this holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

#[actix_web::test]
async fn final_payments_that_are_removed_are_alarms_and_those_that_wait_are_counted() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    let rpc = |method: &str, params| env.anvil.rpc(method, params).unwrap();
    let logged = async |event: &str| {
        until(event, async || server.log.lock().unwrap().contains(event)).await;
        let chain = env.anvil.chain_id();
        let counted = format!("kms_alarms_total{{event=\"{event}\",chain=\"{chain}\"}} ");
        let is_counted = async || {
            let metrics = server.ops("/metrics").await.text().await.unwrap();
            let count = metrics.lines().find_map(|line| line.strip_prefix(&counted));
            count.is_some_and(|count| count != "0")
        };
        until(&counted, is_counted).await;
    };
    let ann = client.create_account(&create(1, "ann", "ann's password")).await.unwrap();
    client.create_account(&create(2, "bob", "bob's password")).await.unwrap();
    env.fund(&ann, 10 * COIN).unwrap();
    let state = async |id| client.transfer(id).await.unwrap().unwrap().state;

    let paid = client.quote(&quote(1, "@bob", "1")).await.unwrap();
    client.confirm(paid.id, &confirm(&paid, "ann's password")).await.unwrap();
    until("mined", async || state(paid.id).await == TransferState::Mined).await;
    rpc("anvil_mine", json!(["0x4"]));
    until("final", async || state(paid.id).await == TransferState::Final).await;

    // The chain does not count what was final. Nothing is signed.
    let address = ann.address.to_string();
    rpc("anvil_setNonce", json!([address, "0x0"]));
    rpc("anvil_mine", json!(["0x1"]));
    let next = client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let refused = client.confirm(next.id, &confirm(&next, "ann's password")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ChainContradicted));
    logged("final_nonce_contradicted").await;

    // The blocks are removed, and the payment is pending again.
    rpc("evm_setAutomine", json!([false]));
    rpc("anvil_reorg", json!([6, []]));
    rpc("anvil_dropAllTransactions", json!([]));
    rpc("anvil_mine", json!(["0x1"]));
    for event in ["finalized_block_removed", "final_transfer_reopened"] {
        logged(event).await;
    }
    let is_pending = async || state(paid.id).await == TransferState::Broadcast;
    until("pending again", is_pending).await;

    // The base fee is above every price that was signed.
    let spike = || {
        for _ in 0..2 {
            rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x1176592e00"]));
            rpc("anvil_mine", json!(["0x1"]));
        }
        rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x1176592e00"]));
    };
    let is_counted = async || {
        spike();
        let metrics = server.ops("/metrics").await.text().await.unwrap();
        let counted = [
            "kms_transfers{chain=\"31337\",state=\"broadcast\"} 1",
            "kms_transfer_waits{chain=\"31337\",reason=\"fee\"} 1",
        ];
        counted.iter().all(|line| metrics.lines().any(|it| it == *line))
    };
    until("counted as waiting", is_counted).await;
    server.terminate();
}

#[actix_web::test]
async fn quotes_events_and_attempts_are_deleted_after_their_time() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    env.upkeep.check_interval = Duration::from_millis(200);
    env.upkeep.quote_retention = HOUR;
    env.upkeep.event_retention = Some(2 * HOUR);
    env.upkeep.attempt_retention = Some(3 * HOUR);
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let (old, new) = (
        test.client.quote(&quote(1, "@bob", "1")).await.unwrap().id,
        test.client.quote(&quote(1, "@bob", "1")).await.unwrap().id,
    );
    let paid = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(paid.id, &confirm(&paid, "ann's password")).await.unwrap();
    test.until(paid.id, TransferState::Mined).await;
    test.env.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    test.until(paid.id, TransferState::Final).await;
    let count = |of: &str| -> u64 {
        let counted = test.env.sql(&format!("select count(*) from {of}")).unwrap();
        counted.trim().parse().unwrap()
    };
    let pass = |column: &str, of: &str, minutes: u64| {
        let change =
            format!("update {of} set {column} = {column} - {minutes} * 60 * 1000 where true");
        test.env.sql(&change).unwrap();
    };
    let attempts = format!("signed_transactions where transfer_id = '{}'", paid.id);
    let (events, signed) = (count("events"), count(&attempts));
    assert!(events > 2 && signed > 1, "{events} {signed}");

    // Its time has passed for the first quote alone, and for nothing else.
    test.env
        .sql(&format!("update transfers set created_at = created_at - 3660000 where id = '{old}'"))
        .unwrap();
    pass("at", "events", 119);
    pass("final_at", "settlements", 179);
    test.env.sql("update settlements set bytes_until = 1").unwrap();
    until("the quote is gone", async || test.client.transfer(old).await.unwrap().is_none()).await;
    let erased = format!("{attempts} and sealed is not null");
    until("the bytes are erased", async || count(&erased) == 0).await;
    assert!(test.client.transfer(new).await.unwrap().is_some());
    assert_eq!((count("events"), count(&attempts)), (events, signed));

    pass("at", "events", 2);
    pass("final_at", "settlements", 2);
    // The newest of each stream, to which cursors point, and the transaction in the block.
    until("the events are gone", async || count("events") <= 2).await;
    until("the attempts are gone", async || count(&attempts) == 1).await;
    let kept = test.client.transfer(paid.id).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.id), (TransferState::Final, paid.id));
}
