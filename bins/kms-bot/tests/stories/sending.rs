//! `/send`, `/history`, and money that comes.

use std::time::{Duration, Instant};

use kms_sandbox::StageOptions;
use kms_sandbox::TransferBehavior;
use kms_types::Wei;
use kms_types::wire::TransferState;
use serde_json::json;

use crate::world::{ANNS, BOBS, Plays, World, assert_transcript, coins, transfer_of};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ann_pays_bob_and_both_are_told() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 0.5 ETH to @bob").await;
    world.bob.bot("You received 0.5 ETH from @ann").await;
    world.bob.press("💰 Balance");
    world.bob.bot("💰 0.5 ETH").await;
    world.ann.says("/history");
    world.ann.bot("Your payments").await;
    world.bob.says("/history");
    world.bob.bot("0.5 ETH from @ann").await;
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    assert_transcript!("send_ann", world.ann);
    assert_transcript!("send_bob", world.bob);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_and_how_much_are_asked_for_when_they_are_missing() {
    let mut world = world().await;
    let bob = world.account(&world.bob).await.address.to_string();
    world.ann.says("/send");
    world.ann.bot("Whom do you want to pay?").await;
    world.ann.says("bob.eth");
    world.ann.bot("ENS names are not supported").await;
    world.ann.says(&bob);
    world.ann.bot("How much ETH").await;
    world.ann.says("1,5");
    world.ann.bot("without commas").await;
    world.ann.says("1.5");
    world.ann.bot("Total: at most").await;
    world.ann.press("✅ Confirm");
    world.ann.bot("Send your password").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 1.5 ETH").await;
    world.bob.bot("You received 1.5 ETH from @ann").await;
    world.ann.says("/send @bob");
    world.ann.bot("How much ETH").await;
    world.ann.press("✖️ Cancel");
    world.ann.bot("Cancelled").await;
    world.ann.says("1");
    world.ann.bot("I was not waiting").await;
    assert_transcript!("send_step_by_step", world.ann);
    assert_eq!(world.balance(&world.bob).await, coins("1.5"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_payment_is_not_sent_whatever_comes_after() {
    let mut world = world().await;
    world.ann.says("/send @bob 1");
    world.ann.bot("Total: at most").await;
    world.ann.press("✖️ Cancel");
    world.ann.bot("✖️ Cancelled").await;
    world.ann.confirms("/send @bob 2").await;
    world.ann.press("✖️ Cancel");
    world.ann.bot("✖️ Cancelled").await;
    world.ann.says(ANNS);
    world.ann.bot("not waiting for a password any more").await;
    world.ann.confirms("/send @bob 3").await;
    world.ann.says("/cancel");
    world.ann.bot("✖️ Cancelled: 3 ETH").await;
    world.ann.bot("Nothing was changed").await;
    world.ann.says(ANNS);
    world.ann.bot("not waiting for a password any more").await;
    assert_transcript!("cancel", world.ann);
    assert!(world.transfers(&world.ann).await.is_empty());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_paid_is_said_before_anything_is_asked() {
    let mut world = world().await;
    for (says, bot) in [
        ("/send @nobody 1", "has no wallet here"),
        ("/send @bob 11", "short, including the network fee"),
        ("/send @ann 1", "your own wallet"),
        ("/send @bob -1", "without a sign"),
        ("/send @bob 0", "more than zero"),
        ("/send @bob 1e3", "without an exponent"),
        ("/send 0x1486F47822927e3F2321E0bE433247dDADAf8F8c 1", "can not read that"),
        ("/send @bob 1 2", "write whom and how much"),
    ] {
        world.ann.says(says);
        world.ann.bot(bot).await;
    }
    assert_transcript!("refusals", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_leaves_nothing_but_what_the_fee_did_not_take() {
    let mut world = world().await;
    world.ann.confirms("/send @bob all").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid").await;
    world.bob.bot("You received").await;
    assert_transcript!("send_all", world.ann);
    let (left, got) = (world.balance(&world.ann).await, world.balance(&world.bob).await);
    assert!(left < coins("0.001") && got > coins("9.99"), "{left} left, {got} came");
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_that_is_too_old_is_renewed() {
    let options = StageOptions { quote_seconds: 5, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("Total: at most").await;
    world.ann.press("✅ Confirm");
    world.ann.bot("Send your password").await;
    let id = transfer_of(&quote);
    while world.stage.client.transfer(id).await.unwrap().unwrap().state == TransferState::Quoted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.ann.says(ANNS);
    world.ann.bot("too old").await;
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.ann.press("🔄 Renew");
    world.ann.bot("Total: at most").await;
    assert_transcript!("expired", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_wrong_passwords_the_right_one_waits_too() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    for _ in 0..5 {
        world.ann.says("it was something with oranges");
        world.ann.bot("That password is wrong").await;
    }
    world.ann.says(ANNS);
    world.ann.bot("Try again in 15 minutes").await;
    assert_transcript!("wrong_passwords", world.ann);
    assert!(world.transfers(&world.ann).await.is_empty());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_turns_its_pages() {
    let mut world = world().await;
    for amount in ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"] {
        world.pay(&world.ann, "@bob", amount).await;
        world.bob.bot(&format!("You received {amount} ETH")).await;
    }
    world.ann.says("/history");
    let newest = world.ann.bot("0.7 ETH to @bob").await;
    assert!(newest.text.contains("0.3 ETH") && !newest.text.contains("0.2 ETH"), "five a page");
    assert!(newest.button("◀ Newer").is_none());
    world.ann.press("Older ▶");
    let older = world.ann.bot("10 ETH from").await;
    assert!(older.text.contains("0.2 ETH") && !older.text.contains("0.3 ETH"));
    assert!(older.text.contains("from outside") && older.button("Older ▶").is_none());
    world.ann.press("◀ Newer");
    world.ann.bot("0.7 ETH to @bob").await;
    // What came meanwhile makes the first page no shorter.
    world.ann.press("Older ▶");
    world.ann.bot("10 ETH from").await;
    world.pay(&world.ann, "@bob", "0.8").await;
    world.bob.bot("You received 0.8 ETH").await;
    world.ann.press("◀ Newer");
    world.ann.bot("0.7 ETH to @bob").await;
    world.ann.press("◀ Newer");
    let newest = world.ann.bot("0.8 ETH to @bob").await;
    assert!(newest.text.contains("0.4 ETH") && !newest.text.contains("0.3 ETH"));
    assert_transcript!("history", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_its_holder_gave_up_pays_nobody() {
    let mut world = world().await;
    world.ann.says("/send @bob 1");
    world.ann.bot("Total: at most").await;
    // Bob takes another name, and does not write to the bot.
    world.bob.person().renames(Some("robert")).unwrap();
    world.ann.press("✅ Confirm");
    world.ann.bot("no longer belongs to the person").await;
    world.ann.says("/send @bob 1");
    world.ann.bot("has no wallet here").await;
    world.bob.says("/balance");
    world.bob.bot("💰 0 ETH").await;
    world.ann.confirms("/send @robert 1").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 1 ETH to @robert").await;
    assert_transcript!("moved_name", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_came_from_somebody_else_needs_a_second_press() {
    let mut world = world().await;
    let mut zoe = world.stage.sim.phone(4714, "Zoe", Some("treasure"));
    zoe.says("/start");
    zoe.bot("Choose a password").await;
    zoe.says("a treasure nobody looks for");
    zoe.bot("Your wallet is ready").await;
    zoe.person().renames(Some("zoe")).unwrap();
    zoe.says("/balance");
    zoe.bot("💰 0 ETH").await;
    world.bob.person().renames(Some("treasure")).unwrap();
    world.bob.says("/balance");
    world.bob.bot("💰 0 ETH").await;
    world.ann.says("/send @treasure 1");
    world.ann.bot("belonged to somebody else until lately").await;
    world.ann.press("✅ Confirm");
    world.ann.bot("Are you sure").await;
    world.ann.press("⚠️ It is really them");
    world.ann.bot("Send your password").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 1 ETH to @treasure").await;
    assert_transcript!("second_press", world.ann);
    assert_eq!(world.balance(&world.bob).await, coins("1"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_screen_waits_for_a_password() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 1").await;
    let first = world.ann.last_of_bot().unwrap().id;
    world.ann.says("/send @bob 2");
    world.ann.bot("Total: at most 2").await;
    world.ann.press("✅ Confirm");
    world.ann.bot("Send your password").await;
    let chat = world.ann.person().chat();
    let first = chat.iter().find(|message| message.id == first).unwrap();
    assert!(first.text.starts_with("Send 1 ETH"), "{}", world.ann.transcript());
    assert!(!first.text.contains("password"), "{}", world.ann.transcript());
    assert!(first.button("✅ Confirm").is_some(), "it may be confirmed again");
    world.ann.says(ANNS);
    world.ann.bot("Paid 2 ETH").await;
    world.bob.bot("You received 2 ETH").await;
    assert_eq!(world.balance(&world.bob).await, coins("2"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_from_outside_is_told_and_shows_in_the_balance_whose_buttons_stay() {
    let mut world = world().await;
    let bob = world.account(&world.bob).await.address;
    world.bob.says("/balance");
    world.bob.bot("💰 0 ETH").await;
    world.stage.faucet(bob, coins("2")).await.unwrap();
    let notice = world.bob.bot("You received 2 ETH from 0x").await;
    assert!(notice.button("💰 Balance").is_some());
    world.bob.press("🔄 Refresh");
    world.bob.bot("💰 2 ETH").await;
    world.bob.bot("Up to date").await;
    world.bob.press("🔄 Refresh");
    world.bob.bot("Up to date").await;
    world.bob.press("📤 Send");
    world.bob.bot("Whom do you want to pay?").await;
    world.bob.says("@ann");
    world.bob.bot("How much").await;
    world.bob.says("ALL");
    world.bob.bot("Total: at most").await;
    world.bob.press("✅ Confirm");
    world.bob.bot("Send your password").await;
    world.bob.says(BOBS);
    world.bob.bot("Paid").await;
    world.ann.bot("from @bob").await;
    assert_transcript!("balance", world.bob);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_place_another_transaction_took_is_told_as_not_paid() {
    let mut world = world().await;
    let from = world.account(&world.ann).await.address.to_string();
    let rpc = |method: &str, params| world.stage.anvil.rpc(method, params).unwrap();
    rpc("evm_setAutomine", json!([false]));
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot("Waiting for the network").await;
    rpc("anvil_impersonateAccount", json!([from]));
    let elsewhere = json!({
        "from": from, "to": "0x00000000000000000000000000000000000000dd", "value": "0x1",
        "nonce": "0x0", "gas": "0x5208",
        "maxFeePerGas": "0x174876e800", "maxPriorityFeePerGas": "0x174876e800",
    });
    rpc("eth_sendTransaction", json!([elsewhere]));
    rpc("anvil_mine", json!(["0x4"]));
    // It is believed when it is seen in a later block as well.
    rpc("evm_setIntervalMining", json!([1]));
    world.ann.bot("was not paid: this wallet's key was used elsewhere").await;
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ann_pays_bob_in_a_token_and_the_fee_in_coins() {
    let mut world = world().await;
    let ann = world.account(&world.ann).await;
    world.stage.faucet_tokens(ann.address, 100_000_000).unwrap();
    world.ann.bot("You received 100 TUSD from 0x").await;
    world.ann.says("/balance");
    world.ann.bot("100 TUSD").await;
    world.ann.says("/send @bob 101 TUSD");
    world.ann.bot("You are 1 TUSD short").await;
    world.ann.says("/send @bob 0.0000001 TUSD");
    world.ann.bot("more than 6 decimals").await;
    world.ann.says("/send TUSD 5");
    world.ann.bot("write whom and how much").await;
    world.ann.confirms("/send 5 tusd @bob").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 5 TUSD to @bob").await;
    world.bob.bot("You received 5 TUSD from @ann").await;
    world.ann.says("/send @bob");
    world.ann.bot("or 5 TUSD").await;
    world.ann.says("all TUSD");
    world.ann.bot("This is most of what you have of it").await;
    world.ann.press("✅ Confirm");
    world.ann.bot("Send your password").await;
    // The token changes its manners between what was shown and what is mined.
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::TakesFee).unwrap();
    world.ann.says(ANNS);
    world.ann.bot("The token kept a part of it: 85.5 TUSD came").await;
    world.bob.bot("You received 85.5 TUSD from @ann").await;
    world.ann.says("/history");
    world.ann.bot("95 TUSD to @bob").await;
    let bob = world.account(&world.bob).await;
    assert_eq!(world.stage.chain_tokens(bob.address).unwrap(), 90_500_000);
    assert_transcript!("send_token_ann", world.ann);
    assert_transcript!("send_token_bob", world.bob);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_pays_nothing_is_told_honestly() {
    let mut world = world().await;
    let ann = world.account(&world.ann).await;
    world.stage.faucet_tokens(ann.address, 10_000_000).unwrap();
    world.ann.bot("You received 10 TUSD").await;
    world.ann.confirms("/send @bob 1 TUSD").await;
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::MovesNothing).unwrap();
    world.ann.says(ANNS);
    world.ann.bot("Sent 1 TUSD").await;
    world.stage.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    world.ann.bot("reports no payment").await;
    world.ann.says("/send @bob 1 TUSD");
    world.ann.bot("Total: at most").await;
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::ReturnsFalse).unwrap();
    world.ann.says("/send @bob 1 TUSD");
    world.ann.bot("A contract would refuse this payment").await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_server_learns_is_known_to_a_bot_that_runs() {
    let options = StageOptions { token: false, ..Default::default() };
    let mut world = World::with_wallets(options).await;
    world.ann.says("/limit 1 tusd");
    world.ann.bot("write how much in a day").await;
    world.stage.stop_server().await;
    world.stage.start_server().await.unwrap();
    // It asks again after ten seconds at the soonest.
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        assert!(Instant::now() < deadline, "the token is not known");
        world.ann.says("/limit 1 tusd");
        let answer = world.ann.bot("/limit none").await;
        if answer.text.contains("at most 1 TUSD") {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_told_lowered_and_raised_later() {
    let spend_a_day = [("ETH".to_owned(), "1".parse().unwrap())].into();
    let mut world = World::with_wallets(StageOptions { spend_a_day, ..Default::default() }).await;
    world.ann.says("/limit");
    world.ann.bot("at most 1 ETH; 0 ETH of it is spent").await;
    world.ann.says("/send @bob 2");
    world.ann.bot("This payment is more than that").await;
    world.ann.confirms("/send @bob 0.75").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 0.75 ETH").await;
    world.ann.says("/send @bob 0.5");
    // A quarter, less the fee.
    world.ann.bot("ETH of it is left. This payment is possible on").await;
    world.ann.says("/limit 0.8");
    world.ann.bot("at most 0.8 ETH; 0.75").await;
    world.ann.says("/limit 5 TUSD");
    world.ann.bot("at most 5 TUSD; 0 TUSD of it is spent").await;
    world.ann.says("/limit none tusd");
    world.ann.bot("on: as much TUSD as you have").await;
    world.ann.bot("A higher spending limit was asked for on").await;
    world.ann.says("/limit 5 DAI");
    world.ann.bot("write how much in a day").await;
    assert_transcript!("limits", world.ann);
    world.stage.stop().await;
}
