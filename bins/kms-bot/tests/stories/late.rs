//! Calls that Telegram makes after the bot was killed, and messages that the bot lost sight of:
//! none of them stays at work in progress, and none is shown twice.

use std::time::{Duration, Instant};

use bot_api_sim::Fault;
use kms_sandbox::StageOptions;

use crate::process::BotProcess;
use crate::texts;
use crate::world::{ANNS, Plays, World, coins};

const LATE: Duration = Duration::from_secs(1);

/// How many messages in a user's chat show this.
pub(crate) fn shown(phone: &bot_api_sim::Phone, id: &str) -> usize {
    let chat = phone.person().chat();
    chat.iter().filter(|shown| texts::is(id, &shown.text)).count()
}

/// Waits until the last message of the bot shows this and no other shows work in progress.
async fn settles(world: &World, id: &str) {
    let working = ["start-creating", "send-looking-up", "send-sending", "still-working"];
    let deadline = Instant::now() + Duration::from_secs(60);
    let settled = || {
        let last = world.ann.last_of_bot().is_some_and(|last| texts::is(id, &last.text));
        last && working.iter().all(|id| shown(&world.ann, id) == 0)
    };
    while !settled() {
        assert!(Instant::now() < deadline, "{}", world.ann.transcript());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_arrives_after_a_kill_does_not_stay_at_work_in_progress() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.ann.says("/start");
    world.ann.bot("start-welcome").await;
    world.stage.sim.break_next("SendMessage", Fault::Slow(2 * LATE));
    world.ann.says(ANNS);
    world.faults_happen().await;
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("start-creating").await;
    settles(&world, "start-welcome").await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_is_made_after_a_kill_does_not_stay_at_work_in_progress() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.onboard().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.sim.break_next("EditMessageText", Fault::Slow(2 * LATE));
    world.ann.says(ANNS);
    world.faults_happen().await;
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("send-sending").await;
    settles(&world, "send-ask-password").await;
    world.stage.stop().await;
}

/// The end of the payment's screen was shown, and its question was not.
#[tokio::test(flavor = "multi_thread")]
async fn a_screen_that_was_finished_after_a_kill_does_not_go_back_to_work_in_progress() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.onboard().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.sim.break_next("EditMessageText", Fault::LateAnswer(9 * LATE));
    world.ann.says(ANNS);
    world.ann.bot("send-sending").await;
    bot.kill();
    let mut edits = 0;
    world.stage.sim.decide(move |method| {
        edits += usize::from(method == "EditMessageText");
        (method == "EditMessageText" && (2..=5).contains(&edits)).then_some(Fault::BadGateway)
    });
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("send-quote").await;
    settles(&world, "send-ask-password").await;
    world.stage.stop().await;
}

/// The wallet was shown, and the question was not.
#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_offered_once_although_onboarding_was_interrupted() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.ann.says("/start");
    world.ann.bot("start-welcome").await;
    world.stage.sim.break_next("EditMessageText", Fault::LateAnswer(9 * LATE));
    world.ann.says(ANNS);
    world.ann.bot("start-created").await;
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("start-existing").await;
    world.ann.bot("contact-offer").await;
    for _ in 0..2 {
        world.ann.says("/start");
        world.ann.bot("start-existing").await;
    }
    assert_eq!(shown(&world.ann, "contact-offer"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// More is written meanwhile than the bot looks through.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_lost_sight_of_does_not_stay_at_work_in_progress() {
    let mut world = World::new().await;
    let others = (0..40).map(|id| world.stage.sim.person(5_000 + id, "Someone", None));
    let others: Vec<_> = others.collect();
    world.ann.says("/start");
    world.ann.bot("start-welcome").await;
    let sim = &world.stage.sim;
    sim.break_next("GetUpdates", Fault::LateAnswer(2 * LATE));
    sim.break_next("DeleteMessage", Fault::Slow(LATE));
    sim.break_next("SendMessage", Fault::AnswerLost);
    world.ann.says(ANNS);
    let mut watch = sim.watch();
    while sim.faults_left() > 1 {
        watch.changed().await.unwrap();
    }
    for other in &others {
        other.says("hello");
    }
    world.ann.bot("contact-offer").await;
    settles(&world, "contact-offer").await;
    assert_eq!(shown(&world.ann, "start-created"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// The same, and the bot is killed before Telegram returns the message.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_lost_sight_of_in_a_kill_does_not_stay_at_work_in_progress() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    let others = (0..40).map(|id| world.stage.sim.person(5_000 + id, "Someone", None));
    let others: Vec<_> = others.collect();
    world.ann.says("/start");
    world.ann.bot("start-welcome").await;
    let sim = &world.stage.sim;
    sim.break_next("GetUpdates", Fault::LateAnswer(9 * LATE));
    sim.break_next("DeleteMessage", Fault::Slow(LATE));
    sim.break_next("SendMessage", Fault::LateAnswer(9 * LATE));
    world.ann.says(ANNS);
    let mut watch = sim.watch();
    while sim.faults_left() > 1 {
        watch.changed().await.unwrap();
    }
    for other in &others {
        other.says("hello");
    }
    world.ann.bot("start-creating").await;
    bot.kill();
    // Telegram does not deliver what was written, for now.
    world.stage.sim.break_next("GetUpdates", Fault::Slow(9 * LATE));
    let _bot = BotProcess::start(&world.stage);
    settles(&world, "start-welcome").await;
    world.stage.stop().await;
}

/// A bot was killed while it asked for the password, and its question arrives late.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_arrives_after_a_kill_is_not_taken_for_the_next_one() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.stage.sim.break_next("SendMessage", Fault::Slow(2 * LATE));
    world.ann.says("/start");
    world.faults_happen().await;
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("interrupted").await;
    world.ann.bot("start-welcome").await;
    world.stage.sim.break_next("DeleteMessage", Fault::Slow(2 * LATE));
    world.stage.sim.break_next("SendMessage", Fault::AnswerLost);
    world.ann.says(ANNS);
    world.ann.bot("contact-offer").await;
    settles(&world, "contact-offer").await;
    assert_eq!(shown(&world.ann, "start-created"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// The same, and the next message is a notice that the bot loses sight of and sends again.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_shown_once_although_an_earlier_message_arrived_after_a_kill() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.onboard().await;
    let others = (0..60).map(|id| world.stage.sim.person(5_000 + id, "Someone", None));
    let others: Vec<_> = others.collect();
    world.stage.sim.break_next("SendMessage", Fault::Slow(2 * LATE));
    world.ann.says("/help");
    world.faults_happen().await;
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("interrupted").await;
    while shown(&world.ann, "help-title") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ann = world.account(&world.ann).await.address;
    let before = shown(&world.ann, "notice-received");
    // The second one is given up, and delivered again later.
    for attempts in [1, 4] {
        let sim = &world.stage.sim;
        sim.break_next("GetUpdates", Fault::LateAnswer(9 * LATE));
        world.faults_happen().await;
        for other in &others {
            other.says("hello");
        }
        sim.break_next("SendMessage", Fault::AnswerLost);
        (1..attempts).for_each(|_| sim.break_next("SendMessage", Fault::BadGateway));
        world.stage.faucet(ann, coins("1")).await.unwrap();
        world.ann.bot_with("notice-received", &["1 ETH"]).await;
        world.faults_happen().await;
        // Which is answered after the notice.
        world.ann.says("/balance");
        let balance = format!("{} ETH", 10 + attempts.min(2));
        world.ann.bot_with("balance-coin", &[&balance]).await;
    }
    assert_eq!(shown(&world.ann, "notice-received") - before, 2, "{}", world.ann.transcript());
    assert_eq!(shown(&world.ann, "help-title"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// Its owner has pressed its button before the bot looks for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_was_pressed_after_a_kill_is_not_sent_again() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.onboard().await;
    let (ann, before) = (world.account(&world.ann).await, shown(&world.ann, "notice-received"));
    world.stage.sim.break_next("SendMessage", Fault::LateAnswer(9 * LATE));
    world.stage.faucet(ann.address, coins("1")).await.unwrap();
    world.ann.bot_with("notice-received", &["1 ETH"]).await;
    bot.kill();
    world.ann.press("balance-button");
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot_with("balance-coin", &["11 ETH"]).await;
    // Whose notice comes after those of earlier events.
    world.stage.faucet(ann.address, coins("2")).await.unwrap();
    world.ann.bot_with("notice-received", &["2 ETH"]).await;
    let shown = shown(&world.ann, "notice-received") - before;
    assert_eq!(shown, 2, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// Two updates were interrupted: that of the work that is finished, and one that waited for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waited_when_the_bot_was_killed_is_answered() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.ann.says("/start");
    world.ann.bot("start-welcome").await;
    world.stage.sim.break_next("SendMessage", Fault::LateAnswer(9 * LATE));
    world.ann.says(ANNS);
    world.ann.bot("start-creating").await;
    world.ann.says("/help");
    while world.stage.sim.unacknowledged_updates() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("interrupted").await;
    settles(&world, "start-welcome").await;
    world.stage.stop().await;
}
