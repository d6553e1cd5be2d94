//! Passwords in the chat of a bot that is killed: they go.

use bot_api_sim::Fault;
use kms_sandbox::StageOptions;

use crate::process::BotProcess;
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
