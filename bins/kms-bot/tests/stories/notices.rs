//! What the bot reports on its own: which notices come first.

use std::time::{Duration, Instant};

use bot_api_sim::Fault;
use kms_sandbox::StageOptions;
use kms_types::EventStream;

use crate::texts;
use crate::world::{ANNS, Plays, World, coins};

/// How many events of a stream the bot has not acknowledged.
async fn unacknowledged(world: &World, stream: EventStream) -> usize {
    let page = world.stage.client.events(stream, None, None, Duration::ZERO).await.unwrap();
    page.events.len()
}

/// Telegram wants Ann's chat left alone. Meanwhile payments arrive, and after them an export.
#[tokio::test(flavor = "multi_thread")]
async fn a_security_notice_comes_before_payments_that_were_earlier() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = world.account(&world.ann).await.address;
    world.stage.sim.break_next("SendMessage", Fault::TooManyRequests(20));
    world.ann.says("/help");
    world.faults_happen().await;
    for _ in 0..5 {
        world.stage.faucet(ann, coins("1")).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while unacknowledged(&world, EventStream::Payments).await < 5 {
        assert!(Instant::now() < deadline, "the payments were reported before the export");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.export(&world.ann, ANNS).await;
    world.ann.bot("notice-received-largest").await;
    let chat = world.ann.person().chat();
    let first = |ids: &[&str]| {
        let shows = |text: &str| ids.iter().any(|id| texts::is(id, text));
        chat.iter().rposition(|message| shows(&message.text)).unwrap()
    };
    let payments = ["notice-received-largest"];
    assert!(first(&["notice-key-exported"]) < first(&payments), "{}", world.ann.transcript());
    world.end().await;
}
