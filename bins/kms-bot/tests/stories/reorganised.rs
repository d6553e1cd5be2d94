//! Payments whose block the chain removes: the sender and the recipient are notified of it, and of
//! what becomes of them, each time in a new message.

use std::time::{Duration, Instant};

use kms_sandbox::StageOptions;
use kms_types::EventStream;
use kms_types::wire::TransferState;
use serde_json::json;

use crate::texts;
use crate::waiting::rpc;
use crate::world::{ANNS, Plays, World};

/// As many blocks as the payment and those on top of it.
const DEEP: u64 = 4;

/// Ann has paid Bob, and both were notified that it is final. No block is mined by itself any more.
async fn paid() -> World {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.bob.bot_with("notice-arriving", &["0.5 ETH"]).await;
    rpc(&world, "evm_setAutomine", json!([false]));
    rpc(&world, "anvil_mine", json!(["0x3"]));
    world.bob.bot_with("notice-received", &["0.5 ETH"]).await;
    world
}

/// Ann has paid Bob, in a block that is not final.
async fn arriving() -> World {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.bob.bot_with("notice-arriving", &["0.5 ETH"]).await;
    rpc(&world, "evm_setAutomine", json!([false]));
    world
}

/// Waits until the bot has handled every event of payments.
async fn until_handled(world: &World) {
    let payments = EventStream::Payments;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let page = world.stage.client.events(payments, None, None, Duration::ZERO).await.unwrap();
        if page.events.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{} events are left", page.events.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many messages in a chat show this.
fn shown(phone: &bot_api_sim::Phone, id: &str) -> usize {
    let chat = phone.person().chat();
    chat.iter().filter(|shown| texts::is(id, &shown.text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_payment_that_is_taken_back_and_made_again_is_reported_to_both() {
    let mut world = paid().await;
    rpc(&world, "anvil_reorg", json!([DEEP, []]));
    let pending = world.ann.bot("transfer-reopened").await;
    let reopened = world.bob.bot_with("notice-received-reopened", &["0.5 ETH"]).await;
    // Neither chat has a message any more that says that it was paid.
    assert_eq!(shown(&world.ann, "transfer-confirmed"), 0, "{}", world.ann.transcript());
    assert_eq!(shown(&world.bob, "notice-received"), 0, "{}", world.bob.transcript());

    rpc(&world, "evm_setIntervalMining", json!([1]));
    let confirmed = world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let received = world.bob.bot_with("notice-received", &["0.5 ETH"]).await;
    assert!(confirmed.id > pending.id, "an edit would not be noticed");
    assert!(received.id > reopened.id, "an edit would not be noticed");
    assert_eq!(shown(&world.ann, "transfer-reopened"), 0, "{}", world.ann.transcript());
    assert_eq!(shown(&world.bob, "notice-received-reopened"), 0, "{}", world.bob.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_payment_that_is_taken_back_and_cancelled_is_reported_to_both() {
    let mut world = paid().await;
    rpc(&world, "anvil_reorg", json!([DEEP, []]));
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    world.ann.bot("transfer-reopened").await;
    let reopened = world.bob.bot_with("notice-received-reopened", &["0.5 ETH"]).await;
    let transfer = world.transfers(&world.ann).await.remove(0);
    world.stage.client.cancel(transfer.id).await.unwrap();
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    rpc(&world, "evm_setIntervalMining", json!([1]));
    world.ann.bot_with("transfer-cancelled-on-chain", &["0.5 ETH"]).await;
    let taken = world.bob.bot_with("notice-taken-back", &["0.5 ETH"]).await;
    assert!(taken.id > reopened.id);
    assert_eq!(shown(&world.bob, "notice-received-reopened"), 0, "{}", world.bob.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_who_blocked_the_bot_is_notified_later_that_it_was_taken_back() {
    let mut world = paid().await;
    world.bob.person().blocks();
    rpc(&world, "anvil_reorg", json!([DEEP, []]));
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    world.ann.bot("transfer-reopened").await;
    let transfer = world.transfers(&world.ann).await.remove(0);
    world.stage.client.cancel(transfer.id).await.unwrap();
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    rpc(&world, "evm_setIntervalMining", json!([1]));
    world.ann.bot_with("transfer-cancelled-on-chain", &["0.5 ETH"]).await;
    world.bob.person().unblocks();
    world.bob.says("/help");
    world.bob.bot_with("notice-taken-back", &["0.5 ETH"]).await;
    assert_eq!(shown(&world.bob, "notice-received"), 0, "{}", world.bob.transcript());
    world.stage.stop().await;
}

/// The recipient was notified that it arrives, which is no longer so.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_arrives_and_whose_block_is_removed_is_reported_to_both() {
    let mut world = arriving().await;
    rpc(&world, "anvil_reorg", json!([1, []]));
    let reopened = world.bob.bot_with("notice-received-reopened", &["0.5 ETH"]).await;
    world.ann.bot("transfer-reopened").await;
    assert_eq!(shown(&world.bob, "notice-arriving"), 0, "{}", world.bob.transcript());
    rpc(&world, "evm_setIntervalMining", json!([1]));
    let received = world.bob.bot_with("notice-received", &["0.5 ETH"]).await;
    assert!(received.id > reopened.id, "an edit would not be noticed");
    assert_eq!(shown(&world.bob, "notice-received"), 1, "{}", world.bob.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_who_blocked_the_bot_is_notified_later_that_it_is_pending_again() {
    let mut world = arriving().await;
    until_handled(&world).await;
    world.ann.person().blocks();
    rpc(&world, "anvil_reorg", json!([1, []]));
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    world.bob.bot_with("notice-received-reopened", &["0.5 ETH"]).await;
    until_handled(&world).await;
    let transfer = world.transfers(&world.ann).await.remove(0);
    assert_eq!(transfer.state, TransferState::Broadcast);
    world.ann.person().unblocks();
    world.ann.says("/help");
    let pending = world.ann.bot("transfer-reopened").await;
    assert_eq!(shown(&world.ann, "transfer-confirmed"), 0, "{}", world.ann.transcript());
    rpc(&world, "evm_setIntervalMining", json!([1]));
    let confirmed = world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert!(confirmed.id > pending.id, "an edit would not be noticed");
    world.stage.stop().await;
}
