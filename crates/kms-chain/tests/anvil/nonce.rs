//! Nonces: gaps are filled, and a transfer whose nonce an external transaction used is ended.

use kms_chain::transfer::{TransferFailure, TransferState};
use kms_chain::{ChainError, ConfirmError};
use kms_core::account::Account;
use kms_types::U256;
use serde_json::json;

use crate::world::{COIN, CONFIRMATIONS, World, stranger, wei};

/// The wallet's key is used outside of this system: a payment at the next nonce.
pub(crate) fn use_externally(world: &World, account: &Account) -> String {
    let from = account.wallet.address.to_string();
    world.rpc("anvil_impersonateAccount", json!([from]));
    let payment = json!({
        "from": from, "to": "0x00000000000000000000000000000000000000dd", "value": "0x1",
        "nonce": format!("{:#x}", world.sent(account)),
        "maxFeePerGas": "0x174876e800", "maxPriorityFeePerGas": "0x174876e800",
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
