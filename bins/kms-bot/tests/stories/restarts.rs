//! A bot that was killed or stopped, for moments or for hours: it asks again what it was asking,
//! and what may be a password stays in no chat.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bot_api_sim::{Fault, Phone};
use kms_sandbox::StageOptions;
use kms_types::wire::TransferState;
use serde_json::{Value, json};

use crate::account::{code, mail};
use crate::process::BotProcess;
use crate::texts;
use crate::world::{ANNS, BOBS, Plays, World, transfer_of};

const NEW: &str = "seven quiet harbours at dawn";

/// A world whose bot is a process that can be killed.
async fn world(options: StageOptions) -> (World, BotProcess) {
    let mut world = World::with(StageOptions { bot: false, ..options }).await;
    let bot = BotProcess::start(&world.stage);
    world.onboard().await;
    (world, bot)
}

fn waiting(seconds: u64) -> StageOptions {
    StageOptions { recovery_wait: Duration::from_secs(seconds), ..StageOptions::default() }
}

fn shown(phone: &Phone, id: &str) -> usize {
    let chat = phone.person().chat();
    chat.iter().filter(|shown| texts::is(id, &shown.text)).count()
}

fn state(world: &World) -> PathBuf {
    world.stage.directory().join("kms-bot.state")
}

/// Kills the bot, and starts it after something was written.
fn restart(world: &World, bot: BotProcess, meanwhile: Option<&str>) -> BotProcess {
    bot.kill();
    if let Some(text) = meanwhile {
        world.ann.says(text);
    }
    BotProcess::start(&world.stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_questions_for_an_e_mail_address_are_asked_again_after_a_kill() {
    let (mut world, bot) = world(waiting(18)).await;
    world.ann.says("/contact");
    world.ann.bot("contact-none").await;
    world.ann.press("contact-add-button");
    world.ann.bot("contact-ask-address").await;
    let bot = restart(&world, bot, None);
    world.ann.bot("contact-ask-address").await;
    world.ann.says("ann@example.org");
    world.ann.bot_with("contact-ask-password-new", &["ann@example.org"]).await;
    let bot = restart(&world, bot, None);
    world.ann.bot_with("contact-ask-password-new", &["ann@example.org"]).await;
    let bot = restart(&world, bot, Some(ANNS));
    world.ann.bot_with("contact-ask-code", &["ann@example.org"]).await;
    world.forgets(ANNS).await;
    let bot = restart(&world, bot, None);
    world.ann.bot("wanted-code").await;
    let right = code(&mail(&world.stage, 1).await);
    let bot = restart(&world, bot, Some(&right));
    world.ann.bot("contact-changed").await;
    world.forgets(&right).await;
    world.ann.says("/contact");
    world.ann.bot_with("contact-address", &["a…@example.org"]).await;
    world.ann.press("contact-remove-button");
    world.ann.bot("contact-ask-password-remove").await;
    let _bot = restart(&world, bot, Some(ANNS));
    world.ann.bot("contact-ask-password-remove").await;
    world.ann.bot("contact-removed").await;
    world.forgets(ANNS).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_that_unfreezes_a_wallet_is_asked_for_again_after_a_kill() {
    let (mut world, bot) = world(StageOptions::default()).await;
    world.ann.says("/freeze");
    world.ann.bot("freeze-ask").await;
    world.ann.press("freeze-now-button");
    world.ann.bot("freeze-frozen").await;
    world.ann.press("freeze-lift-button");
    world.ann.bot("freeze-ask-password").await;
    let bot = restart(&world, bot, None);
    world.ann.bot("freeze-ask-password").await;
    let _bot = restart(&world, bot, Some(ANNS));
    world.ann.bot("freeze-lifting").await;
    world.forgets(ANNS).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_password_of_a_recovery_is_asked_for_again_after_a_kill() {
    let (mut world, bot) = world(waiting(3)).await;
    world.ann.says("/recover");
    world.ann.bot("recover-ask").await;
    world.ann.press("recover-start-button");
    world.ann.bot("notice-recovery-ready").await;
    world.ann.press("recover-set-button");
    world.ann.bot("recover-ask-password").await;
    let bot = restart(&world, bot, None);
    world.ann.bot("recover-ask-password").await;
    let _bot = restart(&world, bot, Some(NEW));
    world.ann.bot("recover-done").await;
    world.forgets(NEW).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mobile_number_is_asked_for_again_after_a_kill() {
    let (mut world, bot) = world(StageOptions::default()).await;
    world.ann.says("/contact");
    world.ann.bot("contact-mobile-none").await;
    world.ann.press("contact-mobile-button");
    world.ann.bot("contact-ask-mobile").await;
    let _bot = restart(&world, bot, None);
    world.ann.bot("contact-ask-mobile").await;
    world.ann.person().shares_own_number("4915112345699").unwrap();
    world.ann.bot_with("contact-mobile-added", &["99"]).await;
    world.stage.stop().await;
}

/// Makes all questions older, and the bot's end as long ago.
fn pass_minutes(world: &World, asked: u64, stopped: u64) {
    let text = std::fs::read_to_string(state(world)).unwrap();
    let earlier = |time: &mut Value| {
        if let Some(at) = time.as_i64() {
            *time = json!(at - i64::try_from(asked).unwrap() * 60_000);
        }
    };
    let aged = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(state) = line.get_mut("state") {
            for time in ["/password_asked", "/asked/at"] {
                if let Some(time) = state.pointer_mut(time) {
                    earlier(time);
                }
            }
        }
        format!("{line}\n")
    });
    let aged: String = aged.collect();
    assert!(aged.contains("password_asked"), "{aged}");
    std::fs::write(state(world), aged).unwrap();
    let written = std::fs::metadata(state(world)).unwrap().modified().unwrap();
    let ended = written - Duration::from_secs(stopped * 60);
    File::options().append(true).open(state(world)).unwrap().set_modified(ended).unwrap();
}

/// It was typed while the question was open.
#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_stopped_for_hours_deletes_and_uses_a_password_that_was_typed_in_time() {
    let (mut world, bot) = world(StageOptions::default()).await;
    let mut bot = Some(bot);
    for minutes in [30, 200] {
        world.ann.confirms("/send @bob 0.5").await;
        bot.take().map(BotProcess::terminate).unwrap();
        pass_minutes(&world, minutes, minutes - 1);
        world.ann.person().said(ANNS, Duration::from_secs((minutes - 10) * 60));
        bot = Some(BotProcess::start(&world.stage));
        world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
        world.forgets(ANNS).await;
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_typed_before_a_long_stop_is_deleted_although_its_quote_expired() {
    let options = StageOptions { quote_seconds: 15, ..StageOptions::default() };
    let (mut world, bot) = world(options).await;
    world.ann.says("/send @bob 0.5");
    let quote = transfer_of(&world.ann.bot("send-quote").await);
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    bot.terminate();
    pass_minutes(&world, 200, 199);
    world.ann.person().said(ANNS, Duration::from_secs(190 * 60));
    let client = &world.stage.client;
    while client.transfer(quote).await.unwrap().unwrap().state == TransferState::Quoted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("transfer-expired").await;
    world.ann.bot("unexpected-text-deleted").await;
    world.forgets(ANNS).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_over_before_the_bot_stopped_is_not_asked_again() {
    let (mut world, bot) = world(StageOptions::default()).await;
    world.ann.says("/password");
    world.ann.bot("password-ask").await;
    bot.terminate();
    pass_minutes(&world, 30, 5);
    let _bot = BotProcess::start(&world.stage);
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    assert_eq!(shown(&world.ann, "password-ask"), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

/// Waits until so many of Ann's updates have begun and none has ended.
async fn begun(world: &World, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let text = std::fs::read_to_string(state(world)).unwrap();
        let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut of_ann = lines.filter(|line| line["chat"] == json!(world.ann.person().id()));
        let open = of_ann.next().and_then(|line| line["state"]["updates"].as_array().cloned());
        if open.is_some_and(|open| open.len() == count) {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The bot is killed before it handles them.
#[tokio::test(flavor = "multi_thread")]
async fn a_forward_and_an_edit_that_show_a_password_do_not_stay_after_a_kill() {
    let (mut world, bot) = world(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let help = world.ann.person().says("/help");
    world.ann.bot("help-title").await;
    let slow = Fault::Slow(Duration::from_secs(60));
    world.stage.sim.decide(move |method| (method == "SendMessage").then_some(slow));
    world.ann.says("/balance");
    world.ann.person().forwards("sesame, as another user wrote it");
    world.ann.person().edits(help, "sesame, as an edit").unwrap();
    world.ann.says("/password sesame sesame");
    begun(&world, 4).await;
    bot.kill();
    world.stage.sim.decide(|_| None);
    let _bot = BotProcess::start(&world.stage);
    world.ann.bot("interrupted").await;
    world.forgets("sesame").await;
    world.stage.stop().await;
}

/// It is in the file, and comes when Telegram takes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_security_notice_that_telegram_fails_for_long_comes_all_the_same() {
    let (mut world, bot) = world(StageOptions::default()).await;
    world.stage.sim.decide(|method| (method == "SendMessage").then_some(Fault::BadGateway));
    world.export(&world.bob, BOBS).await;
    let deadline = Instant::now() + Duration::from_secs(150);
    while !std::fs::read_to_string(state(&world)).unwrap().contains("key_exported") {
        assert!(Instant::now() < deadline, "the notice is not kept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bot.kill();
    world.stage.sim.decide(|_| None);
    let _bot = BotProcess::start(&world.stage);
    world.bob.bot("notice-key-exported").await;
    assert_eq!(shown(&world.bob, "notice-missed"), 0, "{}", world.bob.transcript());
    world.stage.stop().await;
}
