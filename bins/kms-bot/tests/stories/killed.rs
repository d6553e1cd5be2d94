//! Passwords in the chat of a bot that is killed: they go, and nothing stays at work in progress.

use std::time::{Duration, Instant};

use bot_api_sim::Fault;
use kms_sandbox::StageOptions;
use kms_types::wire::AccountState;

use crate::late::shown;
use crate::process::BotProcess;
use crate::texts;
use crate::world::{ANNS, Plays, World};

/// An update with a password is not acknowledged before Telegram has deleted the password, whatever
/// comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_acknowledged_only_when_it_is_deleted() {
    let mut world = World::with(StageOptions { bot: false, ..StageOptions::default() }).await;
    let bot = BotProcess::start(&world.stage);
    world.onboard().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.sim.break_next("DeleteMessage", Fault::TooManyRequests(30));
    world.ann.says(ANNS);
    world.faults_happen().await;
    for _ in 0..2 {
        world.bob.says("/help");
        world.bob.bot("help-title").await;
    }
    assert!(world.stage.sim.unacknowledged_updates() > 0, "it was acknowledged");
    assert!(world.stage.sim.stored().contains(ANNS));
    bot.kill();
    let _bot = BotProcess::start(&world.stage);
    world.forgets(ANNS).await;
    let mut watch = world.stage.sim.watch();
    while world.stage.sim.unacknowledged_updates() > 0 {
        watch.changed().await.unwrap();
    }
    assert!(world.transfers(&world.ann).await.iter().all(|transfer| transfer.tx_hash.is_none()));
    world.stage.stop().await;
}

/// Each message that shows that the bot is working on a password, by an answer that Telegram does
/// not let through until the bot is killed.
#[tokio::test(flavor = "multi_thread")]
async fn no_message_about_a_password_stays_at_work_in_progress_after_a_kill() {
    let recovery_wait = Duration::from_secs(1);
    let options = StageOptions { bot: false, recovery_wait, ..StageOptions::default() };
    let mut world = World::with(options).await;
    let mut bot = BotProcess::start(&world.stage);
    world.onboard().await;
    // Whether the recovery was completed before the kill is not known.
    let both = format!("{ANNS}\nseven quiet harbours at dawn");
    let contact: &[Act] = &[
        Act::Says("/contact", "contact-none"),
        Act::Presses("contact-add-button", "contact-ask-address"),
        Act::Says("ann@example.org", "contact-ask-password-new"),
    ];
    let freeze: &[Act] = &[
        Act::Says("/freeze", "freeze-ask"),
        Act::Presses("freeze-now-button", "freeze-frozen"),
        Act::Presses("freeze-lift-button", "freeze-ask-password"),
    ];
    let recover: &[Act] = &[
        Act::Says("/recover", "recover-ask"),
        Act::Presses("recover-start-button", "notice-recovery-ready"),
        Act::Presses("recover-set-button", "recover-ask-password"),
    ];
    for (acts, password, working) in [
        (contact, ANNS, "contact-working"),
        (freeze, ANNS, "freeze-working"),
        (recover, "a kettle under the northern stairs", "recover-working"),
        (&[Act::Says("/password", "password-ask")][..], &*both, "password-changing"),
    ] {
        world.ann.forget();
        for act in acts {
            match act {
                Act::Says(text, _) => world.ann.says(text),
                Act::Presses(button, _) => world.ann.press(button),
            }
            let (Act::Says(_, id) | Act::Presses(_, id)) = act;
            world.ann.bot(id).await;
        }
        world.stage.sim.decide(|method| (method == "EditMessageText").then_some(Fault::BadGateway));
        world.ann.says(password);
        world.ann.bot(working).await;
        bot.kill();
        world.stage.sim.decide(|_| None);
        bot = BotProcess::start(&world.stage);
        let deadline = Instant::now() + Duration::from_secs(20);
        while shown(&world.ann, working) + shown(&world.ann, "still-working") > 0 {
            assert!(Instant::now() < deadline, "{}", world.ann.transcript());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.forgets(password).await;
        // What was asked again is left.
        world.ann.says("/cancel");
        let left =
            |text: &str| ["cancel-done", "cancel-nothing"].iter().any(|id| texts::is(id, text));
        world.ann.hears_matching("that nothing is asked", left).await.unwrap();
        if working == "freeze-working" {
            thaw(&world).await;
        }
    }
    world.stage.stop().await;
}

enum Act {
    Says(&'static str, &'static str),
    Presses(&'static str, &'static str),
}

/// Waits until Ann's wallet is no longer frozen, whether or not that was requested already.
async fn thaw(world: &World) {
    if world.account(&world.ann).await.unfreezes_at.is_none() {
        world.unfreeze(&world.ann, ANNS).await;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.account(&world.ann).await.state != AccountState::Active {
        assert!(Instant::now() < deadline, "the wallet is still frozen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
