//! Calls that Telegram makes after the bot has given them up and repeated them: the first one shows
//! something once more, or something old.

use std::time::{Duration, Instant};

use bot_api_sim::{Change, Fault, Phone};
use kms_sandbox::StageOptions;

use crate::texts;
use crate::world::{ANNS, Plays, World, coins};

/// Longer than the bot waits for a call.
const SLOW: Fault = Fault::Slow(Duration::from_secs(6));

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

fn shown(phone: &Phone, id: &str) -> usize {
    let chat = phone.person().chat();
    chat.iter().filter(|shown| texts::is(id, &shown.text)).count()
}

/// Waits until so many messages in a user's chat show this.
async fn shows(phone: &Phone, id: &str, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while shown(phone, id) != count {
        assert!(Instant::now() < deadline, "{count} times {id}\n{}", phone.transcript());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn deleted(phone: &Phone) -> usize {
    let changes = phone.person().changes();
    changes.iter().filter(|change| matches!(change, Change::Deleted { .. })).count()
}

/// Waits until a message is deleted in a user's chat.
async fn deletes(phone: &Phone, before: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while deleted(phone) == before {
        assert!(Instant::now() < deadline, "{}", phone.transcript());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_edit_does_not_take_the_place_of_a_newer_one() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    // Not the first edit, but the one after it: the block comes while that one is late.
    let chat = world.ann.person().id();
    world.stage.sim.break_later(Some(chat), "EditMessageText", SLOW, 1);
    world.ann.says(ANNS);
    let paid = world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    // That edit is made now.
    world.ann.bot("transfer-waits-for-network").await;
    let again = world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_eq!(again.id, paid.id);
    world.stage.stop().await;
}

/// And not the buttons of a message that has lost them since.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_edit_brings_no_button_back() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    world.stage.sim.break_next("EditMessageText", SLOW);
    world.ann.bot("send-quote").await;
    let is_made = Instant::now() + Duration::from_secs(8);
    world.ann.press("send-cancel-button");
    world.ann.bot("transfer-cancelled").await;
    tokio::time::sleep_until(is_made.into()).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let last = world.ann.last_of_bot().unwrap();
        if texts::is("transfer-cancelled", &last.text) && last.keyboard.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{}", world.ann.transcript());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.stage.stop().await;
}

/// None of its attempts is answered before the handler's deadline, and the button is pressed before
/// the last one is made.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_was_given_up_brings_no_button_back() {
    let mut world = world().await;
    world.ann.says("/freeze");
    world.ann.bot("freeze-ask").await;
    world.stage.sim.decide(|method| (method == "EditMessageText").then_some(SLOW));
    world.ann.press("freeze-now-button");
    let pressed = Instant::now();
    let frozen = world.ann.bot("freeze-frozen").await;
    world.ann.press("freeze-lift-button");
    world.ann.bot("problem-unreachable").await;
    world.stage.sim.decide(|_| None);
    world.ann.bot("freeze-ask-password").await;
    // The last attempt brings the button back, and the bot takes it away once more; on a slow
    // machine that attempt is made before the press.
    let edits = |world: &World| {
        let changes = world.ann.person().changes();
        let edits = changes.iter().filter(
            |change| matches!(change, Change::Edited { message, .. } if *message == frozen.id),
        );
        edits.count()
    };
    let buttons = |world: &World| {
        let chat = world.ann.person().chat();
        chat.iter().find(|shown| shown.id == frozen.id).unwrap().keyboard.len()
    };
    let (settled, deadline) = (Duration::from_secs(20), Duration::from_secs(60));
    while buttons(&world) > 0 || edits(&world) < 4 && pressed.elapsed() < settled {
        assert!(pressed.elapsed() < deadline, "{}", world.ann.transcript());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_sent_late_does_not_stay_beside_its_repetition() {
    let mut world = world().await;
    let before = deleted(&world.ann);
    world.stage.sim.break_next("SendMessage", SLOW);
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-quote").await;
    // The first message is sent, and then deleted.
    deletes(&world.ann, before).await;
    shows(&world.ann, "send-looking-up", 0).await;
    assert_eq!(shown(&world.ann, "send-quote"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_is_sent_late_is_shown_once() {
    let mut world = world().await;
    let ann = world.account(&world.ann).await.address;
    let before = deleted(&world.ann);
    world.stage.sim.break_next("SendMessage", SLOW);
    world.stage.faucet(ann, coins("2")).await.unwrap();
    world.ann.bot_with("notice-received", &["2 ETH"]).await;
    // What is sent meanwhile stays.
    world.ann.says("/balance");
    world.ann.bot_with("balance-coin", &["12 ETH"]).await;
    deletes(&world.ann, before).await;
    shows(&world.ann, "notice-received", 2).await;
    assert_eq!(shown(&world.ann, "balance-coin"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// The bot says that it could not answer, and what arrives late is not taken for that message.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_given_up_is_not_asked_later() {
    let mut world = world().await;
    world.ann.says("/balance");
    world.ann.bot("balance-coin").await;
    let before = deleted(&world.ann);
    let late = Fault::Slow(Duration::from_secs(10));
    world.stage.sim.decide(move |method| (method == "SendMessage").then_some(late));
    world.ann.press("send-button");
    let deadline = Instant::now() + Duration::from_secs(60);
    // The first attempt arrives after the bot has given up the last one.
    while shown(&world.ann, "send-ask-recipient") == 0 {
        assert!(Instant::now() < deadline, "{}", world.ann.transcript());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.stage.sim.decide(|_| None);
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-quote").await;
    deletes(&world.ann, before).await;
    shows(&world.ann, "send-ask-recipient", 0).await;
    shows(&world.ann, "problem-unreachable", 1).await;
    assert_eq!(shown(&world.ann, "send-quote"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}
