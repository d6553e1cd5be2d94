//! Speeding up and cancelling a payment that the network does not take, over the API.

use kms_client::ClientError;
use kms_server_testing::requests::{confirm, hash, quote, telegram};
use kms_server_testing::{TestServer, on_both_stores};
use kms_types::wire::{ReplaceTransfer, Transfer, TransferState, WaitReason};
use kms_types::{ErrorCode, ReplacementId};
use serde_json::json;

on_both_stores!(a_payment_that_waits_is_sped_up, a_payment_that_waits_is_cancelled);

/// Confirms a payment, and lets the base fee rise above its ladder until it is reported.
async fn waiting(test: &TestServer) -> Transfer {
    let rpc = |method: &str, params| test.env.anvil.rpc(method, params).unwrap();
    rpc("evm_setAutomine", json!([false]));
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    loop {
        spike(test);
        let now = test.client.transfer(quoted.id).await.unwrap().unwrap();
        if now.wait.is_some_and(|wait| wait.reason == WaitReason::Fee) {
            return now;
        }
    }
}

/// Mines a block whose base fee is above every price that was signed.
fn spike(test: &TestServer) {
    let rpc = |method: &str, params| test.env.anvil.rpc(method, params).unwrap();
    for _ in 0..2 {
        rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x1176592e00"]));
        rpc("anvil_mine", json!(["0x1"]));
    }
    rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x1176592e00"]));
}

async fn a_payment_that_waits_is_sped_up(test: TestServer) {
    test.ann_and_bob().await;
    let waits = waiting(&test).await;
    let fee = test.client.replacement(waits.id).await.unwrap();
    assert!(fee.usual_fee <= fee.max_fee && fee.max_fee > waits.max_fee);
    let body =
        |id, words: &str, max_fee| ReplaceTransfer { id, password_hash: hash(words), max_fee };
    let id = ReplacementId::random();
    let refused =
        async |body: ReplaceTransfer| match test.client.replace(waits.id, &body).await.unwrap_err()
        {
            ClientError::Problem(problem) => problem.code,
            error => panic!("{error}"),
        };
    assert_eq!(refused(body(id, "another password", fee.max_fee)).await, ErrorCode::WrongPassword);
    let low = body(id, "ann's password", waits.max_fee);
    assert_eq!(refused(low).await, ErrorCode::QuoteMismatch);
    let right = body(id, "ann's password", fee.max_fee);
    let replaced = test.client.replace(waits.id, &right).await.unwrap();
    assert_ne!(replaced.tx_hash, waits.tx_hash);
    let again = test.client.replace(waits.id, &right).await.unwrap();
    assert_eq!(again.tx_hash, replaced.tx_hash);
    test.until_known(replaced.tx_hash.as_deref().unwrap()).await;
    test.env.anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
    let mined = test.until(waits.id, TransferState::Mined).await;
    assert_eq!(mined.tx_hash, replaced.tx_hash);
    assert_eq!(test.balance(telegram(2)).await.wei.0, waits.value.0);
    assert_eq!(
        refused(body(ReplacementId::random(), "x", fee.max_fee)).await,
        ErrorCode::WrongState
    );
}

async fn a_payment_that_waits_is_cancelled(test: TestServer) {
    test.ann_and_bob().await;
    let waits = waiting(&test).await;
    let asked = test.client.cancel(waits.id).await.unwrap();
    assert!(asked.cancel_requested_at.is_some());
    let sent = test.until_replaced(&waits).await;
    // The base fee falls, and the network takes the cancellation.
    let rpc = |method: &str, params| test.env.anvil.rpc(method, params).unwrap();
    rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x1"]));
    test.until_known(sent.tx_hash.as_deref().unwrap()).await;
    rpc("anvil_mine", json!(["0x8"]));
    let end = test.until(waits.id, TransferState::Cancelled).await;
    assert!(end.fee.is_some());
    assert_eq!(test.balance(telegram(2)).await.wei.0, kms_types::U256::ZERO);
    // Once more changes nothing.
    assert_eq!(test.client.cancel(waits.id).await.unwrap().state, TransferState::Cancelled);
}
