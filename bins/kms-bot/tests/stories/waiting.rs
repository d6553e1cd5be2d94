//! Payments that were sent and wait: how they are sped up, cancelled, and lost.

use std::time::Duration;

use bot_api_sim::Message;
use kms_sandbox::StageOptions;
use kms_types::Wei;
use serde_json::{Value, json};

use crate::texts::{self, label};
use crate::world::{ANNS, Plays, World, coins};

/// A base fee above every step of a payment's prices.
pub(crate) const HIGH: &str = "0x1176592e00";
const LOW: &str = "0x1";

pub(crate) fn rpc(world: &World, method: &str, params: Value) {
    world.stage.anvil.rpc(method, params).unwrap();
}

pub(crate) fn mine_at(world: &World, base_fee: &str) {
    rpc(world, "anvil_setNextBlockBaseFeePerGas", json!([base_fee]));
    rpc(world, "anvil_mine", json!(["0x1"]));
}

/// Ann has paid, and no block takes the payment.
async fn pending() -> World {
    let mut world = World::with_wallets(StageOptions::default()).await;
    rpc(&world, "evm_setAutomine", json!([false]));
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot("transfer-waits-for-network").await;
    world
}

/// The base fee rises, and the bot reports that the payment waits. Returns that message.
pub(crate) async fn too_expensive(world: &mut World) -> Message {
    for _ in 0..6 {
        mine_at(world, HIGH);
    }
    rpc(world, "anvil_setNextBlockBaseFeePerGas", json!([HIGH]));
    world.ann.bot("transfer-waits").await
}

fn confirmed(world: &World) -> usize {
    let chat = world.ann.person().chat();
    chat.iter().filter(|shown| texts::is("transfer-confirmed", &shown.text)).count()
}

/// The money for a payment disappears, and another payment is behind it.
#[tokio::test(flavor = "multi_thread")]
async fn payments_say_what_they_wait_for() {
    let mut world = pending().await;
    world.ann.confirms("/send @bob 0.25").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-waits-for-network", &["0.25 ETH"]).await;
    let address = world.account(&world.ann).await.address.to_string();
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    rpc(&world, "anvil_setBalance", json!([address, "0x1"]));
    for (reason, amount) in
        [("transfer-wait-funds", "0.5 ETH"), ("transfer-wait-earlier", "0.25 ETH")]
    {
        let shown = loop {
            mine_at(&world, LOW);
            let chat = world.ann.person().chat();
            let is_it =
                |shown: &&Message| texts::is(reason, &shown.text) && shown.text.contains(amount);
            if let Some(shown) = chat.iter().find(is_it) {
                break shown.clone();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        assert!(texts::is("transfer-waits", &shown.text), "{}", shown.text);
        // A higher fee does not help against these.
        assert!(shown.button(&label("send-cancel-button")).is_some());
        assert!(shown.button(&label("send-speed-up-button")).is_none());
    }
    // Her money is back, and both go through.
    rpc(&world, "anvil_setBalance", json!([address, "0x8ac7230489e80000"]));
    rpc(&world, "evm_setIntervalMining", json!([1]));
    for amount in ["0.5 ETH", "0.25 ETH"] {
        world.ann.bot_with("transfer-confirmed", &[amount]).await;
    }
    assert_eq!(world.balance(&world.bob).await, coins("0.75"));
    world.stage.stop().await;
}

/// Mines blocks until the bot says why the payment waits.
async fn until_it_says(world: &World, reason: &str) -> Message {
    for _ in 0..600 {
        let chat = world.ann.person().chat();
        if let Some(shown) = chat.iter().find(|shown| texts::is(reason, &shown.text)) {
            return shown.clone();
        }
        mine_at(world, LOW);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the bot never said {reason}:\n{}", world.ann.transcript());
}

/// A block has no room for it any more, and then again.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_the_network_refuses_says_so() {
    let mut world = pending().await;
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    rpc(&world, "evm_setBlockGasLimit", json!(["0x4e20"]));
    let shown = until_it_says(&world, "transfer-wait-refused").await;
    assert!(texts::is("transfer-waits", &shown.text), "{}", shown.text);
    rpc(&world, "evm_setBlockGasLimit", json!(["0x1c9c380"]));
    rpc(&world, "evm_setIntervalMining", json!([1]));
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_eq!(confirmed(&world), 1);
    world.stage.stop().await;
}

/// No endpoint answers for more than a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_says_that_the_network_makes_no_progress() {
    let mut world = pending().await;
    world.stage.anvil.pause().unwrap();
    let shown = world.ann.bot("transfer-wait-chain").await;
    assert!(texts::is("transfer-waits", &shown.text), "{}", shown.text);
    assert_eq!(confirmed(&world), 0);
    world.stage.anvil.resume().unwrap();
    rpc(&world, "evm_setIntervalMining", json!([1]));
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_eq!(confirmed(&world), 1);
    world.stage.stop().await;
}

/// A freeze sends the cancellation of what waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_waits_is_cancelled_by_a_freeze() {
    let mut world = pending().await;
    too_expensive(&mut world).await;
    world.ann.says("/freeze");
    world.ann.bot("freeze-ask").await;
    world.ann.press("freeze-now-button");
    world.ann.bot("freeze-frozen").await;
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    rpc(&world, "anvil_setNextBlockBaseFeePerGas", json!([LOW]));
    rpc(&world, "evm_setIntervalMining", json!([1]));
    world.ann.bot_with("transfer-cancelled-on-chain", &["0.5 ETH"]).await;
    assert_eq!(confirmed(&world), 0);
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_waits_is_sped_up_by_chat() {
    let mut world = pending().await;
    let waits = too_expensive(&mut world).await;
    assert!(texts::is("transfer-wait-fee", &waits.text), "{}", waits.text);
    world.ann.press("send-speed-up-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says("it was something with oranges");
    world.ann.bot("send-wrong-password").await;
    world.ann.says(ANNS);
    world.ann.bot("transfer-waits-replaced").await;
    rpc(&world, "anvil_mine", json!(["0x1"]));
    world.ann.bot("transfer-confirmed").await;
    assert_eq!(confirmed(&world), 1);
    world.stage.stop().await;
}

/// It is mined while the password for a higher fee is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_mined_ends_the_question_for_a_higher_fee() {
    let mut world = pending().await;
    too_expensive(&mut world).await;
    world.ann.press("send-speed-up-button");
    world.ann.bot("send-ask-password").await;
    rpc(&world, "anvil_setNextBlockBaseFeePerGas", json!([LOW]));
    rpc(&world, "evm_setIntervalMining", json!([1]));
    world.ann.bot("transfer-confirmed").await;
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    assert_eq!(confirmed(&world), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// She deletes its message before it waits, and once more while the password is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_message_was_deleted_is_sped_up_in_a_new_one() {
    let mut world = pending().await;
    let deleted = world.ann.last_of_bot().unwrap().id;
    world.ann.person().deletes(deleted).unwrap();
    let waits = too_expensive(&mut world).await;
    assert_ne!(waits.id, deleted);
    world.ann.press("send-speed-up-button");
    let asked = world.ann.bot("send-ask-password").await;
    assert_eq!(asked.id, waits.id, "{}", world.ann.transcript());
    world.ann.person().deletes(asked.id).unwrap();
    world.ann.says(ANNS);
    let replaced = world.ann.bot("transfer-waits-replaced").await;
    rpc(&world, "anvil_mine", json!(["0x1"]));
    let paid = world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_eq!(paid.id, replaced.id);
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    assert_eq!(confirmed(&world), 1);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_waits_is_cancelled_by_chat() {
    let mut world = pending().await;
    let waits = too_expensive(&mut world).await;
    assert!(waits.button(&label("send-cancel-button")).is_some());
    world.ann.press("send-cancel-button");
    world.ann.bot("transfer-cancelling-waits").await;
    let pressed = world.ann.last_of_bot().unwrap();
    assert!(pressed.button(&label("send-cancel-button")).is_none(), "once is enough");
    // No block takes the payment before the cancellation reaches the network.
    rpc(&world, "anvil_dropAllTransactions", json!([]));
    rpc(&world, "anvil_setNextBlockBaseFeePerGas", json!([LOW]));
    rpc(&world, "evm_setIntervalMining", json!([1]));
    world.ann.bot_with("transfer-cancelled-on-chain", &["0.5 ETH"]).await;
    assert_eq!(confirmed(&world), 0);
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    // The money is free again.
    world.ann.confirms("/send @bob 9").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["9 ETH"]).await;
    assert_eq!(world.balance(&world.bob).await, coins("9"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seventeenth_pending_payment_is_refused_until_one_is_confirmed() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    rpc(&world, "evm_setAutomine", json!([false]));
    for _ in 0..15 {
        world.pay(&world.ann, "@bob", "0.1").await;
    }
    world.ann.confirms("/send @bob 0.2").await;
    world.pay(&world.ann, "@bob", "0.1").await;
    // The quote can be confirmed later.
    world.ann.says(ANNS);
    world.ann.bot("problem-too-many-in-flight").await;
    world.ann.says("/send @bob 0.3");
    world.ann.bot("problem-too-many-in-flight").await;
    rpc(&world, "anvil_mine", json!(["0x1"]));
    world.ann.says("/send @bob 0.4");
    world.ann.bot_with("send-quote", &["0.4 ETH"]).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_nonce_another_transaction_took_is_reported_as_failed() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let from = world.account(&world.ann).await.address.to_string();
    let rpc = |method: &str, params| world.stage.anvil.rpc(method, params).unwrap();
    rpc("evm_setAutomine", json!([false]));
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot("transfer-waits-for-network").await;
    rpc("anvil_impersonateAccount", json!([from]));
    let elsewhere = json!({
        "from": from, "to": "0x00000000000000000000000000000000000000dd", "value": "0x1",
        "nonce": "0x0", "gas": "0x5208",
        "maxFeePerGas": "0x174876e800", "maxPriorityFeePerGas": "0x174876e800",
    });
    let hash = rpc("eth_sendTransaction", json!([elsewhere]));
    rpc("anvil_mine", json!(["0x4"]));
    // The server believes it once it sees it in a later block as well.
    rpc("evm_setIntervalMining", json!([1]));
    // With the proof.
    world.ann.bot_with("transfer-nonce-taken", &[hash.as_str().unwrap()]).await;
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.stage.stop().await;
}
