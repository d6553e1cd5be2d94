//! `/send`, `/history`, `/limit`, and received payments.

use std::time::{Duration, Instant};

use kms_sandbox::StageOptions;
use kms_sandbox::TransferBehavior;
use kms_types::Wei;
use kms_types::wire::TransferState;
use serde_json::json;

use crate::texts::{self, label};
use crate::waiting::{HIGH, mine_at, rpc};
use crate::world::{ANNS, BOBS, Plays, World, assert_transcript, coins, transfer_of};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ann_pays_bob_and_both_are_notified() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.bob.bot_with("notice-arriving", &["0.5 ETH", "@ann"]).await;
    world.bob.press("balance-button");
    world.bob.bot_with("balance-coin", &["0.5 ETH"]).await;
    world.ann.says("/history");
    world.ann.bot("history-title").await;
    world.bob.says("/history");
    world.bob.bot_with("history-received", &["0.5 ETH"]).await;
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    assert_transcript!("send_ann", world.ann);
    assert_transcript!("send_bob", world.bob);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn high_fees_and_addresses_that_look_alike_are_warned_of() {
    const PAID: &str = "0x1234000000000000000000000000000000005678";
    const ALIKE: &str = "0x1234000000000000001000000000000000005678";
    let mut world = world().await;
    world.ann.confirms(&format!("/send {PAID} 0.5")).await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.ann.says(&format!("/send {ALIKE} 0.5"));
    let quote = world.ann.bot("send-warning-lookalike").await;
    assert!(texts::is("send-first-payment", &quote.text), "{}", quote.text);
    // A fee of 0.0016 coins.
    rpc(&world, "evm_setAutomine", json!([false]));
    for (amount, warning) in
        [("0.01", "send-warning-fee-high"), ("0.001", "send-warning-fee-above-amount")]
    {
        mine_at(&world, HIGH);
        world.ann.says(&format!("/send {PAID} {amount}"));
        let quote = world.ann.bot(warning).await;
        assert!(texts::is("send-paid-before", &quote.text), "{}", quote.text);
        assert!(!texts::is("send-warning-lookalike", &quote.text), "{}", quote.text);
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_recipient_or_amount_is_asked_for() {
    let mut world = world().await;
    let bob = world.account(&world.bob).await.address.to_string();
    world.ann.says("/send");
    world.ann.bot("send-ask-recipient").await;
    world.ann.says("bob.eth");
    world.ann.bot("input-ens").await;
    world.ann.says(&bob);
    world.ann.bot("send-ask-amount").await;
    world.ann.says("1,5");
    world.ann.bot("input-amount-comma").await;
    world.ann.says("1.5");
    world.ann.bot("send-quote").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["1.5 ETH"]).await;
    world.bob.bot_with("notice-arriving", &["1.5 ETH", "@ann"]).await;
    world.ann.says("/send @bob");
    world.ann.bot("send-ask-amount").await;
    world.ann.press("cancel-button");
    world.ann.bot("cancel-done").await;
    world.ann.says("1");
    world.ann.bot("unexpected-text").await;
    assert_transcript!("send_step_by_step", world.ann);
    assert_eq!(world.balance(&world.bob).await, coins("1.5"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_payment_is_never_sent() {
    let mut world = world().await;
    world.ann.says("/send @bob 1");
    world.ann.bot("send-quote").await;
    world.ann.press("cancel-button");
    world.ann.bot("transfer-cancelled").await;
    world.ann.confirms("/send @bob 2").await;
    world.ann.press("cancel-button");
    world.ann.bot("transfer-cancelled").await;
    world.ann.says(ANNS);
    world.ann.bot("unexpected-text-deleted").await;
    world.ann.confirms("/send @bob 3").await;
    world.ann.says("/cancel");
    world.ann.bot_with("transfer-cancelled", &["3 ETH"]).await;
    world.ann.says(ANNS);
    world.ann.bot("unexpected-text-deleted").await;
    assert_transcript!("cancel", world.ann);
    assert!(world.transfers(&world.ann).await.is_empty());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_payment_is_refused_before_the_password_is_asked_for() {
    let mut world = world().await;
    for (says, id) in [
        ("/send @carol 1", "send-unknown-name"),
        ("/send @bob 11", "problem-insufficient-coin"),
        ("/send @ann 1", "problem-self-transfer"),
        ("/send @bob -1", "input-amount-sign"),
        ("/send @bob 0", "input-amount-zero"),
        ("/send @bob 1e3", "input-amount-exponent"),
        ("/send 0x1486F47822927e3F2321E0bE433247dDADAf8F8c 1", "input-address-checksum"),
        ("/send @bob 1 2", "input-amount-separator"),
        ("/send @bob @ann 1", "input-second-recipient"),
    ] {
        world.ann.says(says);
        world.ann.bot(id).await;
    }
    assert_transcript!("refusals", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_all_leaves_nothing() {
    let mut world = world().await;
    world.ann.confirms("/send @bob all").await;
    world.ann.says(ANNS);
    world.ann.bot("transfer-confirmed").await;
    world.bob.bot("notice-arriving").await;
    assert_transcript!("send_all", world.ann);
    let (left, got) = (world.balance(&world.ann).await, world.balance(&world.bob).await);
    assert!(left == Wei::default() && got > coins("9.99"), "{left} left, {got} came");
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_quote_is_renewed() {
    let options = StageOptions { quote_seconds: 15, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("send-quote").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    let id = transfer_of(&quote);
    while world.stage.client.transfer(id).await.unwrap().unwrap().state == TransferState::Quoted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.ann.says(ANNS);
    world.ann.bot("problem-quote-expired").await;
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.ann.press("send-renew-button");
    world.ann.bot("send-quote").await;
    assert_transcript!("expired", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_wrong_passwords_the_correct_one_is_refused_too() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    for _ in 0..5 {
        world.ann.says("it was something with oranges");
        world.ann.bot("send-wrong-password").await;
    }
    world.ann.says(ANNS);
    world.ann.bot_with("problem-password-locked", &["15 minutes"]).await;
    assert_transcript!("wrong_passwords", world.ann);
    assert!(world.transfers(&world.ann).await.is_empty());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_has_pages() {
    let mut world = world().await;
    for amount in ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"] {
        world.pay(&world.ann, "@bob", amount).await;
        world.bob.bot_with("notice-arriving", &[&format!("{amount} ETH")]).await;
    }
    world.ann.says("/history");
    let newest = world.ann.bot_with("history-sent", &["0.7 ETH"]).await;
    assert!(newest.text.contains("0.3 ETH") && !newest.text.contains("0.2 ETH"), "five a page");
    assert!(newest.button(&label("history-newer-button")).is_none());
    world.ann.press("history-older-button");
    let older = world.ann.bot_with("history-received", &["10 ETH"]).await;
    assert!(older.text.contains("0.2 ETH") && !older.text.contains("0.3 ETH"));
    assert!(older.button(&label("history-older-button")).is_none());
    world.ann.press("history-newer-button");
    world.ann.bot_with("history-sent", &["0.7 ETH"]).await;
    // The first page stays full when new payments arrive.
    world.ann.press("history-older-button");
    world.ann.bot_with("history-received", &["10 ETH"]).await;
    world.pay(&world.ann, "@bob", "0.8").await;
    world.bob.bot_with("notice-arriving", &["0.8 ETH"]).await;
    world.ann.press("history-newer-button");
    world.ann.bot_with("history-sent", &["0.7 ETH"]).await;
    world.ann.press("history-newer-button");
    let newest = world.ann.bot_with("history-sent", &["0.8 ETH"]).await;
    assert!(newest.text.contains("0.4 ETH") && !newest.text.contains("0.3 ETH"));
    assert_transcript!("history", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_username_that_its_holder_gave_up_is_not_paid() {
    let mut world = world().await;
    world.ann.says("/send @bob 1");
    world.ann.bot("send-quote").await;
    // Bob takes another username and does not write to the bot.
    world.bob.person().renames(Some("robert")).unwrap();
    world.ann.press("send-confirm-button");
    world.ann.bot("send-name-reassigned").await;
    world.ann.says("/send @bob 1");
    world.ann.bot("send-unknown-name").await;
    world.bob.says("/balance");
    world.bob.bot_with("balance-coin", &["0 ETH"]).await;
    world.ann.confirms("/send @robert 1").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["1 ETH"]).await;
    assert_transcript!("moved_name", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reassigned_username_needs_a_second_confirmation() {
    let mut world = world().await;
    let mut zoe = world.stage.sim.phone(4714, "Zoe", Some("treasure"));
    zoe.says("/start");
    zoe.bot("start-welcome").await;
    zoe.says("a treasure on a quiet island");
    zoe.bot("start-created").await;
    zoe.person().renames(Some("zoe")).unwrap();
    zoe.says("/balance");
    zoe.bot_with("balance-coin", &["0 ETH"]).await;
    world.bob.person().renames(Some("treasure")).unwrap();
    world.bob.says("/balance");
    world.bob.bot_with("balance-coin", &["0 ETH"]).await;
    world.ann.says("/send @treasure 1");
    world.ann.bot("problem-name-unproved").await;
    world.stage.proves_name(4712, "treasure").await.unwrap();
    world.ann.says("/send @treasure 1");
    world.ann.bot("send-warning-reassigned").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-reassigned").await;
    world.ann.press("send-confirm-reassigned-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["1 ETH"]).await;
    assert_transcript!("second_press", world.ann);
    assert_eq!(world.balance(&world.bob).await, coins("1"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_confirm_screen_waits_for_a_password() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 1").await;
    let first = world.ann.last_of_bot().unwrap().id;
    world.ann.says("/send @bob 2");
    // The total; the first screen is shown again, too.
    world.ann.bot_with("send-quote", &["2.0"]).await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    let chat = world.ann.person().chat();
    let first = chat.iter().find(|message| message.id == first).unwrap();
    assert!(texts::is("send-quote", &first.text), "{}", world.ann.transcript());
    assert!(!texts::is("send-ask-password", &first.text), "{}", world.ann.transcript());
    assert!(first.button(&label("send-confirm-button")).is_some(), "it may be confirmed again");
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["2 ETH"]).await;
    world.bob.bot_with("notice-arriving", &["2 ETH"]).await;
    assert_eq!(world.balance(&world.bob).await, coins("2"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_deposit_is_reported_and_shows_in_the_balance() {
    let mut world = world().await;
    let bob = world.account(&world.bob).await.address;
    world.bob.says("/balance");
    world.bob.bot_with("balance-coin", &["0 ETH"]).await;
    world.stage.faucet(bob, coins("2")).await.unwrap();
    let notice = world.bob.bot_with("notice-received", &["2 ETH"]).await;
    assert!(notice.button(&label("balance-button")).is_some());
    world.bob.press("balance-refresh-button");
    world.bob.bot_with("balance-coin", &["2 ETH"]).await;
    world.bob.bot("up-to-date-notice").await;
    world.bob.press("balance-refresh-button");
    world.bob.bot("up-to-date-notice").await;
    world.bob.press("send-button");
    world.bob.bot("send-ask-recipient").await;
    world.bob.says("@ann");
    world.bob.bot("send-ask-amount").await;
    world.bob.says("ALL");
    world.bob.bot("send-quote").await;
    world.bob.press("send-confirm-button");
    world.bob.bot("send-ask-password").await;
    world.bob.says(BOBS);
    world.bob.bot("transfer-confirmed").await;
    world.ann.bot_with("notice-arriving", &["@bob"]).await;
    assert_transcript!("balance", world.bob);
    world.stage.stop().await;
}

/// As smart wallets and the payouts of many exchanges send it.
#[tokio::test(flavor = "multi_thread")]
async fn coin_that_comes_through_a_contract_is_reported_without_a_sender() {
    let mut world = world().await;
    let bob = world.account(&world.bob).await.address.to_string();
    let rpc = |method: &str, params| world.stage.anvil.rpc(method, params).unwrap();
    let contract = "0x00000000000000000000000000000000000000f0";
    rpc("anvil_setCode", json!([contract, "0x6000600060006000346000355af100"]));
    let call = json!({
        "from": rpc("eth_accounts", json!([])).get(0), "to": contract,
        "value": "0x29a2241af62c0000", "data": format!("0x{:0>64}", bob.trim_start_matches("0x")),
    });
    rpc("eth_sendTransaction", json!([call]));
    rpc("anvil_mine", json!(["0x4"]));
    world.bob.bot_with("notice-received-unnamed", &["3 ETH"]).await;
    world.bob.says("/history");
    world.bob.bot_with("history-title", &["3 ETH received"]).await;
    assert_transcript!("through_a_contract", world.bob);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ann_pays_bob_in_a_token_and_the_fee_in_coins() {
    let mut world = world().await;
    let ann = world.account(&world.ann).await;
    world.stage.faucet_tokens(ann.address, 100_000_000).unwrap();
    world.ann.bot_with("notice-received", &["100 TUSD"]).await;
    world.ann.says("/balance");
    world.ann.bot_with("balance-token", &["100 TUSD"]).await;
    world.ann.says("/send @bob 101 TUSD");
    world.ann.bot_with("problem-insufficient-token", &["1 TUSD"]).await;
    world.ann.says("/send @bob 0.0000001 TUSD");
    world.ann.bot_with("problem-other", &["6"]).await;
    // A symbol is never a username.
    world.ann.says("/send TUSD 5");
    world.ann.bot("send-ask-recipient").await;
    world.ann.confirms("/send 5 tusd @bob").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["5 TUSD"]).await;
    world.bob.bot_with("notice-arriving", &["5 TUSD", "@ann"]).await;
    world.stage.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    world.bob.bot_with("notice-received", &["5 TUSD", "@ann"]).await;
    world.ann.says("/send @bob");
    world.ann.bot("send-amount-examples-token").await;
    world.ann.says("all TUSD");
    world.ann.bot("send-warning-most-of-balance").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    // The token starts to take a fee between the confirmation and the block.
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::TakesFee).unwrap();
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-received-less", &["85.5 TUSD"]).await;
    world.bob.bot_with("notice-arriving", &["85.5 TUSD", "@ann"]).await;
    world.ann.says("/history");
    world.ann.bot_with("history-sent", &["95 TUSD"]).await;
    let bob = world.account(&world.bob).await;
    assert_eq!(world.stage.chain_tokens(bob.address).unwrap(), 90_500_000);
    assert_transcript!("send_token_ann", world.ann);
    assert_transcript!("send_token_bob", world.bob);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_transfer_that_moves_nothing_is_reported_as_failed() {
    let mut world = world().await;
    let ann = world.account(&world.ann).await;
    world.stage.faucet_tokens(ann.address, 10_000_000).unwrap();
    world.ann.bot_with("notice-received", &["10 TUSD"]).await;
    world.ann.confirms("/send @bob 1 TUSD").await;
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::MovesNothing).unwrap();
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-pending", &["1 TUSD"]).await;
    world.stage.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    world.ann.bot("transfer-nothing-moved").await;
    world.ann.says("/send @bob 1 TUSD");
    world.ann.bot("send-quote").await;
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::ReturnsFalse).unwrap();
    world.ann.says("/send @bob 1 TUSD");
    world.ann.bot("problem-token-refuses").await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_bot_loads_a_new_token_from_the_server() {
    let options = StageOptions { token: false, ..Default::default() };
    let mut world = World::with_wallets(options).await;
    world.ann.says("/limit 1 tusd");
    world.ann.bot("input-unknown-asset").await;
    world.stage.stop_server().await;
    world.stage.start_server().await.unwrap();
    // The bot fetches the network again after ten seconds at the earliest.
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        assert!(Instant::now() < deadline, "the token is not known");
        world.ann.says("/limit 1 tusd");
        let answers = ["limit-help", "input-unknown-asset"];
        let is_answer = |text: &str| answers.iter().any(|id| texts::is(id, text));
        let answer = world.ann.hears_matching("an answer to /limit", is_answer).await.unwrap();
        if answer.unwrap().text.contains("1 TUSD") {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_shown_lowered_at_once_and_raised_later() {
    let spend_a_day = [("ETH".to_owned(), "1".parse().unwrap())].into();
    let mut world = World::with_wallets(StageOptions { spend_a_day, ..Default::default() }).await;
    world.ann.says("/limit");
    world.ann.bot_with("limit-spent", &["1 ETH", "0 ETH"]).await;
    world.ann.says("/send @bob 2");
    world.ann.bot("problem-limit-never").await;
    world.ann.confirms("/send @bob 0.75").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.75 ETH"]).await;
    world.ann.says("/send @bob 0.5");
    // A quarter of a coin, less the fee.
    world.ann.bot("problem-limit-possible-at").await;
    world.ann.says("/limit 0.8");
    world.ann.bot_with("limit-spent", &["0.8 ETH", "0.75"]).await;
    world.ann.says("/limit 5 TUSD");
    world.ann.bot_with("limit-spent", &["5 TUSD", "0 TUSD"]).await;
    world.ann.says("/limit none tusd");
    world.ann.bot("limit-later").await;
    world.ann.says("/limit 5 DAI");
    world.ann.bot("input-unknown-asset").await;
    assert_transcript!("limits", world.ann);
    world.stage.stop().await;
}
