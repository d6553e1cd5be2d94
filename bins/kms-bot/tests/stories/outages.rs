//! The server, the chain or Telegram is down: the bot reports it to the user, and nothing is lost.

use std::time::{Duration, Instant};

use bot_api_sim::Fault;
use kms_sandbox::StageOptions;
use kms_types::Wei;

use crate::process::{BotProcess, Proxy};
use crate::texts::{self, label};
use crate::world::{ANNS, BOBS, Plays, World, assert_transcript, coins, report};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_down_the_bot_says_so_and_resumes_afterwards() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.stop_server().await;
    world.bob.says("/balance");
    world.bob.bot("problem-unreachable").await;
    assert_transcript!("server_unreachable", world.bob);
    world.ann.says(ANNS);
    world.ann.bot("send-unknown-outcome").await;
    world.ann.press("send-check-button");
    world.ann.bot("problem-unreachable").await;
    world.stage.start_server().await.unwrap();
    // The message is updated without a press.
    world.ann.bot("send-quote").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.bob.bot_with("notice-arriving", &["0.5 ETH"]).await;
    assert_transcript!("server_down", world.ann);
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_password_whose_outcome_is_unknown_says_what_to_try() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.says("/password");
    world.ann.bot("password-ask").await;
    world.stage.stop_server().await;
    let both = format!("{ANNS}\nseven quiet harbours at dawn");
    world.ann.says(&both);
    world.ann.bot("password-change-unknown").await;
    world.stage.start_server().await.unwrap();
    // It is still asked for.
    world.ann.says(&both);
    world.ann.bot("password-changed").await;
    assert_transcript!("password_unknown", world.ann);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_chain_is_down_nothing_is_signed() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.anvil.pause().unwrap();
    world.ann.says(ANNS);
    world.ann.bot("problem-chain-unavailable").await;
    world.bob.says("/balance");
    world.bob.bot("problem-chain-unavailable").await;
    world.stage.anvil.resume().unwrap();
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.ann.press("send-again-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("chain_down", world.ann);
    world.end().await;
}

/// Nothing is sent to the chat meanwhile, not even that the bot is typing.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_of_telegram_is_waited_out() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.stage.sim.break_next("SendMessage", Fault::TooManyRequests(2));
    world.ann.says("/balance");
    world.ann.bot_with("balance-coin", &["10 ETH"]).await;
    assert_eq!(world.stage.sim.ignored_waits(), [""; 0]);
    world.end().await;
}

/// Telegram asks to wait for longer than a handler may take. The user hears of it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_beyond_a_handlers_deadline_loses_no_answer_and_leaves_no_dead_screen() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.stage.sim.break_next("SendMessage", Fault::TooManyRequests(11));
    world.ann.says("/balance");
    world.faults_happen().await;
    // Meanwhile others are served.
    world.bob.says("/balance");
    world.bob.bot("balance-coin").await;
    world.ann.bot("problem-telegram").await;
    world.stage.sim.break_next("EditMessageText", Fault::TooManyRequests(11));
    world.ann.says("/send @bob 0.5");
    world.ann.bot("interrupted").await;
    let chat = world.ann.person().chat();
    assert!(chat.iter().all(|shown| !texts::is("send-looking-up", &shown.text)));
    assert_eq!(world.stage.sim.ignored_waits(), [""; 0]);
    assert_transcript!("rate_limited", world.ann);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_absurd_length_breaks_nothing() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let absurd = Fault::TooManyRequests(u64::MAX);
    world.stage.sim.decide(move |method| (method == "GetChat").then_some(absurd));
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-name-unverified-notice").await;
    assert_transcript!("name_unverified", world.ann);
    world.stage.sim.decide(|_| None);
    world.stage.sim.break_next("SendMessage", absurd);
    world.bob.says("/help");
    world.faults_happen().await;
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-quote").await;
    world.end().await;
}

/// A password, and what may be one, is deleted at once, whatever was asked for; it is not used, and
/// what is asked for stays asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_cannot_be_deleted_is_not_used_and_can_be_sent_again() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let undeletable = |world: &World| {
        world.stage.sim.break_next("DeleteMessage", Fault::TooManyRequests(3_600));
    };
    world.ann.confirms("/send @bob 0.5").await;
    undeletable(&world);
    world.ann.says(ANNS);
    world.ann.bot("password-not-deleted").await;
    assert!(world.transfers(&world.ann).await.is_empty());
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.ann.says("/password");
    world.ann.bot("password-ask").await;
    undeletable(&world);
    let both = format!("{ANNS}\nseven quiet harbours at dawn");
    world.ann.says(&both);
    world.ann.bot("password-not-deleted").await;
    world.ann.says(&both);
    world.ann.bot("password-changed").await;
    // What nothing asked for.
    undeletable(&world);
    world.ann.says("sesame, too late");
    world.ann.bot("password-not-deleted").await;
    assert_transcript!("not_deleted", world.ann);
    let mut zoe = world.stage.sim.phone(4714, "Zoe", None);
    zoe.says("/start");
    zoe.bot("start-welcome").await;
    undeletable(&world);
    zoe.says(BOBS);
    zoe.bot("password-not-deleted").await;
    zoe.says(BOBS);
    zoe.bot("start-created").await;
    world.end().await;
}

/// Telegram asks to wait for longer than the handler waits for the deletion.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_whose_deletion_is_late_is_deleted_after_all() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.sim.break_next("DeleteMessage", Fault::TooManyRequests(7));
    world.ann.says(ANNS);
    world.ann.bot("password-not-deleted").await;
    world.forgets(ANNS).await;
    assert!(world.transfers(&world.ann).await.is_empty());
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_delays_neither_the_deletion_of_a_password_nor_other_users() {
    let options = StageOptions { bot: false, ..StageOptions::default() };
    let mut world = World::with(options).await;
    let server = Proxy::start(&world.stage).await;
    let _bot = BotProcess::start_at(&world.stage, &server.url());
    world.onboard().await;
    world.bob.says("/balance");
    world.bob.bot("balance-coin").await;
    world.ann.confirms("/send @bob 0.5").await;
    server.freeze(true);
    let asked = Instant::now();
    world.ann.says(ANNS);
    world.forgets(ANNS).await;
    report("server hangs: a password is deleted after", asked, 1);
    world.bob.says("/help");
    world.bob.bot("help-title").await;
    report("server hangs: another user is answered after", asked, 2);
    world.ann.bot("send-sending").await;
    let reported = ["send-unknown-outcome", "still-working"];
    let reported = |text: &str| reported.iter().any(|id| texts::is(id, text));
    world.ann.hears_matching("that the server hangs", reported).await.unwrap();
    report("server hangs: reported after", asked, 10);
    world.bob.press("balance-refresh-button");
    world.bob.bot("problem-unreachable").await;
    // What may be a password is deleted although nothing waits for it.
    world.ann.says("sesame, too late");
    world.ann.says("/password sesame sesame");
    world.forgets("sesame").await;
    assert_eq!(world.stage.sim.unanswered_presses(), 0);
    server.freeze(false);
    // Unless the bot still looks for the outcome itself, there is a button.
    let _ = world.ann.presses(&label("send-check-button"));
    let outcomes = ["send-quote", "transfer-pending", "transfer-confirmed"];
    let known = |text: &str| outcomes.iter().any(|id| texts::is(id, text));
    world.ann.hears_matching("an outcome", known).await.unwrap();
    assert!(world.transfers(&world.ann).await.len() <= 1);
    world.stage.stop().await;
}

/// A bot that has just started knows nothing of the network that it serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_starts_while_the_server_hangs_deletes_what_may_be_a_password() {
    let options = StageOptions { bot: false, ..StageOptions::default() };
    let mut world = World::with(options).await;
    let server = Proxy::start(&world.stage).await;
    server.freeze(true);
    let _bot = BotProcess::start_at(&world.stage, &server.url());
    let asked = Instant::now();
    world.ann.says("/password sesame sesame");
    world.forgets("sesame").await;
    world.ann.bot("problem-unreachable").await;
    report("server hangs since the start: reported after", asked, 10);
    world.stage.stop().await;
}

/// The button is pressed before the bot looks again.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_was_checked_by_hand_is_not_overwritten_later() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.stop_server().await;
    world.ann.says(ANNS);
    world.ann.bot("send-unknown-outcome").await;
    // Some attempts fail, and the next one is a while away.
    for _ in 0..3 {
        world.ann.press("send-check-button");
        world.ann.bot("problem-unreachable").await;
    }
    world.stage.start_server().await.unwrap();
    let _ = world.ann.presses(&label("send-check-button"));
    world.ann.bot("send-quote").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    world.stage.stop().await;
}

/// While a message still asks for an answer, the bot waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_telegram_does_not_take_back_can_be_answered() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let fail = |method: &str| (method == "EditMessageText").then_some(Fault::BadGateway);
    world.ann.confirms("/send @bob 0.25").await;
    world.stage.sim.decide(fail);
    world.ann.says("/help");
    world.ann.bot("problem-telegram").await;
    world.stage.sim.decide(|_| None);
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.25 ETH"]).await;
    world.ann.says("/password");
    world.ann.bot("password-ask").await;
    world.stage.sim.decide(fail);
    world.ann.press("cancel-button");
    world.ann.bot("problem-telegram").await;
    world.stage.sim.decide(|_| None);
    world.ann.says(&format!("{ANNS}\nseven quiet harbours at dawn"));
    world.ann.bot("password-changed").await;
    world.stage.stop().await;
}

/// What was pressed was done: nothing says that it has to be done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_was_done_is_answered_in_the_end_and_nothing_else() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.says("/balance");
    world.ann.bot("balance-coin").await;
    let before = world.ann.person().chat().len();
    for (fault, calls) in [
        (Fault::BadGateway, 6),
        (Fault::CallLost, 6),
        (Fault::AnswerLost, 6),
        (Fault::TooManyRequests(1), 2),
        (Fault::TooManyRequests(11), 1),
        (Fault::Slow(Duration::from_secs(5)), 1),
    ] {
        let mut left = calls;
        world.stage.sim.decide(move |method| {
            let hit = method == "AnswerCallbackQuery" && left > 0;
            left -= usize::from(hit);
            hit.then_some(fault)
        });
        world.ann.press("balance-refresh-button");
        let deadline = Instant::now() + Duration::from_secs(30);
        while world.stage.sim.unanswered_presses() > 0 {
            assert!(Instant::now() < deadline, "{fault:?}: the press is not answered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.ann.bot("up-to-date-notice").await;
    }
    world.stage.sim.decide(|_| None);
    world.ann.says("/help");
    world.ann.bot("help-title").await;
    let after = world.ann.person().chat().len();
    assert_eq!(after, before + 2, "{}", world.ann.transcript());
    world.stage.stop().await;
}
