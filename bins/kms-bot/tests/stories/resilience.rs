//! Failures of Telegram and restarts: nothing is lost, nothing is done twice, and every user has an
//! answer to every message.

use std::time::{Duration, Instant};

use bot_api_sim::{Attachment, Fault};
use kms_sandbox::StageOptions;
use kms_types::wire::{Transfer, TransferState};
use kms_types::{EventStream, Wei};
use serde_json::json;

use crate::process::BotProcess;
use crate::texts;
use crate::world::{ANNS, BOBS, Plays, World, assert_transcript, coins, data, report};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

/// Waits until the bot has acknowledged all events.
pub(crate) async fn acknowledged(world: &World) {
    for stream in [EventStream::Security, EventStream::Payments] {
        let client = &world.stage.client;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !client.events(stream, None, None, Duration::ZERO).await.unwrap().events.is_empty() {
            assert!(Instant::now() < deadline, "events are not acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Under Telegram's own rate limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_shown_as_confirmed_soon_after_its_block() {
    let options = StageOptions { telegram_speed: 1, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    let rpc = |method: &str, params| world.stage.anvil.rpc(method, params).unwrap();
    rpc("evm_setAutomine", json!([false]));
    for _ in 0..3 {
        world.ann.confirms("/send @bob 0.5").await;
        world.ann.says(ANNS);
        world.ann.bot("transfer-waits-for-network").await;
        let mined = Instant::now();
        rpc("anvil_mine", json!(["0x1"]));
        world.ann.bot("transfer-confirmed").await;
        assert_eq!(world.stage.sim.vain_edits(), 0, "an edit that changes nothing takes a turn");
        report("a payment is shown as confirmed after its block", mined, 2);
    }
    assert_eq!(world.stage.sim.ignored_waits(), [""; 0]);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_comes_back_is_told_once_what_happened_meanwhile() {
    let mut world = world().await;
    world.bob.person().blocks();
    world.export(&world.bob, BOBS).await;
    world.pay(&world.ann, "@bob", "0.5").await;
    let mined = |transfers: &[Transfer]| {
        matches!(transfers[0].state, TransferState::Mined | TransferState::Final)
    };
    while !mined(&world.transfers(&world.ann).await) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    acknowledged(&world).await;
    // The first attempt to report it fails.
    world.stage.sim.break_next("SendMessage", Fault::TooManyRequests(9));
    world.bob.person().unblocks();
    world.bob.bot("notice-missed").await;
    world.bob.bot("notice-key-exported").await;
    world.bob.bot("notice-missed-payments").await;
    let before = world.bob.person().chat().len();
    world.bob.person().blocks();
    world.bob.person().unblocks();
    world.bob.says("/help");
    world.bob.bot("help-title").await;
    assert_eq!(world.bob.person().chat().len(), before + 2, "nothing is reported twice");
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_comes_twice_has_one_effect_and_one_answer() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-quote").await;
    world.stage.sim.repeat_updates(3);
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.stage.sim.repeat_updates(5);
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    let chat = world.ann.person().chat();
    let of_bot = chat.iter().filter(|message| message.from != world.ann.person().id()).count();
    assert_eq!(of_bot, 2 + 4, "{}", world.ann.transcript());
    assert_eq!(world.transfers(&world.ann).await.len(), 1);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_last_week_gets_a_short_answer() {
    let mut world = world().await;
    world.ann.person().said("/send @bob 5", Duration::from_secs(7 * 24 * 3_600));
    world.ann.bot("old-message").await;
    world.stage.sim.pass_time(Duration::from_secs(3 * 24 * 3_600));
    world.ann.says("/balance");
    world.ann.bot("balance-coin").await;
    world.stage.sim.pass_time(Duration::from_secs(3 * 24 * 3_600));
    world.ann.press("balance-refresh-button");
    world.ann.bot("up-to-date-notice").await;
    assert!(world.transfers(&world.ann).await.is_empty());
    world.stage.stop().await;
}

/// Of what the bot receives late, a possible password is deleted if Telegram still does that, and
/// nothing is acted on.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_message_of_any_kind_gets_a_short_answer() {
    let mut world = world().await;
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.person().said(ANNS, hours(72));
    world.ann.bot("password-not-deleted").await;
    world.ann.person().said(ANNS, hours(30));
    world.ann.bot("old-message").await;
    world.ann.person().sent(&Attachment::Photo, hours(30));
    world.ann.bot("old-message").await;
    assert!(world.ann.person().chat().iter().all(|message| message.fields.is_null()));
    world.ann.says("/send 0.5");
    world.ann.bot("send-ask-recipient").await;
    let contact = Attachment::Contact { phone: "4915112345678".to_owned(), user: Some(4712) };
    world.ann.person().sent(&contact, hours(30));
    world.ann.bot("old-message").await;
    assert!(world.transfers(&world.ann).await.is_empty());
    assert_transcript!("old_messages", world.ann);
    world.end().await;
}

/// Each way in which a picture fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_picture_arrives_once_whatever_is_lost() {
    let mut world = world().await;
    let faults = [Fault::BadGateway, Fault::CallLost, Fault::AnswerLost, Fault::TooManyRequests(1)];
    for (fault, sent) in faults.into_iter().zip(1..) {
        world.stage.sim.break_next("SendPhoto", fault);
        world.ann.says("/receive");
        // An upload whose answer was lost is heard before the bot knows of it.
        world.ann.bot("receive-address").await;
        world.ann.says("/help");
        world.ann.bot("help-title").await;
        assert_eq!(world.stage.sim.faults_left(), 0, "{fault:?}");
        let chat = world.ann.person().chat();
        let pictures = chat.iter().filter(|message| message.photo.is_some());
        assert_eq!(pictures.count(), sent, "{fault:?}");
    }
    world.stage.sim.break_next("SendPhoto", Fault::TooManyRequests(11));
    world.ann.says("/receive");
    world.ann.bot("problem-telegram").await;
    assert_eq!(world.stage.sim.ignored_waits(), [""; 0]);
    world.stage.stop().await;
}

/// The response to the edit that asks for the password is lost, and so is each later one.
#[tokio::test(flavor = "multi_thread")]
async fn a_screen_that_asks_for_a_password_is_one_that_waits_for_it() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("send-quote").await;
    for _ in 0..4 {
        world.stage.sim.break_next("EditMessageText", Fault::AnswerLost);
    }
    let ann = world.ann.person().clone();
    ann.forges(ann.id(), quote.id, &data(&quote, "send-confirm-button")).unwrap();
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.stage.stop().await;
}

/// A world whose bot is a process that can be killed.
async fn with_process() -> (World, BotProcess) {
    let options = StageOptions { bot: false, ..StageOptions::default() };
    let mut world = World::with(options).await;
    let bot = BotProcess::start(&world.stage);
    world.onboard().await;
    (world, bot)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bot_still_waits_for_what_it_asked() {
    let (mut world, bot) = with_process().await;
    world.ann.confirms("/send @bob 0.5").await;
    bot.kill();
    world.ann.says(ANNS);
    let bot = BotProcess::start(&world.stage);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.ann.says("/send @bob");
    world.ann.bot("send-ask-amount").await;
    bot.kill();
    let bot = BotProcess::start(&world.stage);
    world.ann.bot("send-ask-amount").await;
    world.ann.says("0.25");
    world.ann.bot("send-quote").await;
    world.ann.says("/send 0.125");
    world.ann.bot("send-ask-recipient").await;
    bot.kill();
    let bot = BotProcess::start(&world.stage);
    world.ann.bot("send-ask-recipient").await;
    world.ann.says("@bob");
    world.ann.bot_with("send-quote", &["0.125 ETH"]).await;
    world.ann.says("/password");
    world.ann.bot("password-ask").await;
    bot.terminate();
    world.ann.says(&format!("{ANNS}\nseven quiet harbours at dawn"));
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("password-changed").await;
    world.forgets(ANNS).await;
    assert_eq!(world.transfers(&world.ann).await.len(), 1);
    world.stage.stop().await;
}

/// The search for a message whose response was lost meets a message with buttons that another
/// process sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_search_for_a_lost_message_takes_no_button_away() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("send-quote").await;
    for fault in [Fault::AnswerLost, Fault::CallLost] {
        world.stage.sim.break_next("SendMessage", fault);
        world.ann.says("/send @bob");
        world.ann.bot("send-ask-amount").await;
    }
    let chat = world.ann.person().chat();
    let shown = chat.iter().find(|message| message.id == quote.id).unwrap();
    assert_eq!(shown.keyboard, quote.keyboard);
    let asked = chat.iter().filter(|message| texts::is("send-ask-amount", &message.text));
    assert_eq!(asked.count(), 2, "one for each command");
    world.stage.stop().await;
}

/// After a restart, too, one message follows a payment to the recipient.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_arrived_before_a_restart_is_received_in_the_same_message() {
    let (mut world, bot) = with_process().await;
    world.pay(&world.ann, "@bob", "0.5").await;
    let arriving = world.bob.bot_with("notice-arriving", &["0.5 ETH"]).await;
    bot.terminate();
    world.stage.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    let _bot = BotProcess::start(&world.stage);
    let received = world.bob.bot_with("notice-received", &["0.5 ETH"]).await;
    assert_eq!(received.id, arriving.id);
    // The file holds no more of the payment than its id.
    let state = std::fs::read_to_string(world.stage.directory().join("kms-bot.state")).unwrap();
    assert!(state.contains("payments") && !state.contains("0x"), "{state}");
    world.stage.stop().await;
}

/// Telegram delivers the last updates once more.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_comes_again_after_a_restart_has_no_second_effect() {
    let (mut world, bot) = with_process().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    let before = world.ann.person().chat().len();
    bot.terminate();
    world.stage.sim.repeat_updates(4);
    let _bot = BotProcess::start(&world.stage);
    world.ann.says("/balance");
    world.ann.bot("balance-coin").await;
    let after = world.ann.person().chat().len();
    assert_eq!(after, before + 2, "{}", world.ann.transcript());
    assert_eq!(world.transfers(&world.ann).await.len(), 1);
    world.stage.stop().await;
}

/// The bot is killed before it has acknowledged the event, which comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_screen_was_deleted_is_confirmed_once_after_a_kill_too() {
    let (mut world, bot) = with_process().await;
    world.stage.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot("transfer-waits-for-network").await;
    world.ann.person().deletes(world.ann.last_of_bot().unwrap().id).unwrap();
    world.stage.anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
    let confirmed = world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let file = world.stage.directory().join("kms-bot.state");
    let remembered = format!("\"message\":{},\"state\":\"mined\"", confirmed.id);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&file).unwrap().contains(&remembered) {
        assert!(Instant::now() < deadline, "the new message is not remembered");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.stage.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    world.bob.bot_with("notice-received", &["0.5 ETH"]).await;
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    let chat = world.ann.person().chat();
    let confirmed = chat.iter().filter(|shown| texts::is("transfer-confirmed", &shown.text));
    assert_eq!(confirmed.count(), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// Makes the last question for a password older, as if the bot had been stopped for this long.
fn pass_minutes(world: &World, minutes: i64) {
    let file = world.stage.directory().join("kms-bot.state");
    let text = std::fs::read_to_string(&file).unwrap();
    let aged = text.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(asked) = line["state"]["password_asked"].as_i64() {
            line["state"]["password_asked"] = json!(asked - minutes * 60_000);
        }
        format!("{line}\n")
    });
    let aged: String = aged.collect();
    assert!(aged.contains("password_asked"), "{aged}");
    std::fs::write(&file, aged).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_after_a_password_no_text_is_taken_for_one() {
    let (mut world, bot) = with_process().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let mut bot = Some(bot);
    for (minutes, id) in [(58, "unexpected-text-deleted"), (3, "unexpected-text")] {
        bot.take().map(BotProcess::terminate).unwrap();
        pass_minutes(&world, minutes);
        bot = Some(BotProcess::start(&world.stage));
        world.ann.says("see you in the harbour tomorrow");
        world.ann.bot(id).await;
    }
    assert!(world.stage.sim.stored().contains("harbour tomorrow"), "the last one stays");
    world.stage.stop().await;
}

/// Kills the bot when Telegram has the next message, and before the bot knows it, and starts it
/// again. The bot then looks for the message.
async fn kill_between(
    world: &mut World,
    bot: BotProcess,
    whose: Whose,
    act: impl AsyncFnOnce(&mut World),
    id: &str,
) -> BotProcess {
    let late = Fault::LateAnswer(Duration::from_secs(60));
    world.stage.sim.break_next("SendMessage", late);
    act(world).await;
    match whose {
        Whose::Anns => world.ann.bot(id).await,
        Whose::Bobs => world.bob.bot(id).await,
    };
    bot.kill();
    BotProcess::start(&world.stage)
}

enum Whose {
    Anns,
    Bobs,
}

fn shown(phone: &bot_api_sim::Phone, id: &str) -> usize {
    let chat = phone.person().chat();
    chat.iter().filter(|shown| texts::is(id, &shown.text)).count()
}

/// The bot is killed between each message about a payment and its own record of that message.
#[tokio::test(flavor = "multi_thread")]
async fn no_payment_is_reported_twice_when_the_bot_is_killed_while_it_reports_it() {
    let (mut world, bot) = with_process().await;
    let mine = async |world: &mut World| {
        world.stage.anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
    };
    world.stage.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    // To the sender, who deleted the screen; the recipient has blocked the bot.
    world.bob.person().blocks();
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot("transfer-waits-for-network").await;
    world.ann.person().deletes(world.ann.last_of_bot().unwrap().id).unwrap();
    let bot = kill_between(&mut world, bot, Whose::Anns, mine, "transfer-confirmed").await;
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    // To the recipient, who comes back.
    acknowledged(&world).await;
    let comes_back = async |world: &mut World| world.bob.person().unblocks();
    let bot = kill_between(&mut world, bot, Whose::Bobs, comes_back, "notice-missed").await;
    world.bob.bot("notice-missed-payments").await;
    world.bob.says("/help");
    world.bob.bot("help-title").await;
    for id in ["notice-missed", "notice-missed-payments"] {
        assert_eq!(shown(&world.bob, id), 1, "{id}\n{}", world.bob.transcript());
    }
    // To the recipient, when it arrives; then it is final.
    world.pay(&world.ann, "@bob", "0.25").await;
    let bot = kill_between(&mut world, bot, Whose::Bobs, mine, "notice-arriving").await;
    world.stage.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    world.bob.bot_with("notice-received", &["0.25 ETH"]).await;
    // A deposit, and a notice of security.
    let pays = async |world: &mut World| {
        world.stage.anvil.rpc("evm_setAutomine", json!([true])).unwrap();
        let bob = world.account(&world.bob).await.address;
        world.stage.faucet(bob, coins("2")).await.unwrap();
    };
    let bot = kill_between(&mut world, bot, Whose::Bobs, pays, "notice-received").await;
    let exports = async |world: &mut World| world.export(&world.bob, BOBS).await;
    let _bot = kill_between(&mut world, bot, Whose::Bobs, exports, "notice-key-exported").await;
    world.export(&world.ann, ANNS).await;
    world.ann.bot("notice-key-exported").await;
    world.stage.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    let bob = world.account(&world.bob).await.address;
    world.stage.faucet(bob, coins("3")).await.unwrap();
    world.bob.bot_with("notice-received", &["3 ETH"]).await;
    for id in ["notice-arriving", "notice-key-exported"] {
        assert!(shown(&world.bob, id) <= 1, "{id}\n{}", world.bob.transcript());
    }
    // What arrived, two ether and three.
    assert_eq!(shown(&world.bob, "notice-received"), 3, "{}", world.bob.transcript());
    assert_eq!(shown(&world.ann, "transfer-confirmed"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_screen_stays_at_work_in_progress_after_a_kill() {
    let (mut world, bot) = with_process().await;
    // The quote cannot be shown: Telegram has the message that says that it is being prepared.
    world.stage.sim.decide(|method| (method == "EditMessageText").then_some(Fault::BadGateway));
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-looking-up").await;
    bot.kill();
    world.stage.sim.decide(|_| None);
    let bot = BotProcess::start(&world.stage);
    world.ann.bot("interrupted").await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.sim.decide(|method| {
        (method == "EditMessageText").then_some(Fault::Slow(Duration::from_secs(5)))
    });
    world.ann.says(ANNS);
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.stage.sim.stored().contains(ANNS) {
        assert!(Instant::now() < deadline, "the password is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bot.kill();
    world.stage.sim.decide(|_| None);
    let _bot = BotProcess::start(&world.stage);
    // The server never had the password: the payment is as it was before.
    world.ann.bot("send-quote").await;
    let chat = world.ann.person().chat();
    for dead in ["send-looking-up", "send-sending"] {
        assert!(chat.iter().all(|shown| !texts::is(dead, &shown.text)), "{dead}");
    }
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.stage.stop().await;
}
