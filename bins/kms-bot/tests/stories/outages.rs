//! The server, the chain or Telegram is down: the bot reports it to the user, and nothing is lost.

use bot_api_sim::Fault;
use kms_sandbox::StageOptions;
use kms_types::Wei;

use crate::world::{ANNS, Plays, World, assert_transcript, coins};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_down_the_bot_says_so_and_resumes_afterwards() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.stop_server().await;
    world.bob.says("/balance");
    world.bob.bot("problem-unreachable").await;
    world.ann.says(ANNS);
    world.ann.bot("send-unknown-outcome").await;
    world.stage.start_server().await.unwrap();
    world.ann.press("send-check-button");
    world.ann.bot("send-quote").await;
    world.ann.bot("up-to-date-notice").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.bob.bot_with("notice-arriving", &["0.5 ETH"]).await;
    assert_transcript!("server_down", world.ann);
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_chain_is_down_nothing_is_signed() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.anvil.pause().unwrap();
    world.ann.says(ANNS);
    world.ann.bot("problem-chain-unavailable").await;
    world.stage.anvil.resume().unwrap();
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.ann.press("send-check-button");
    world.ann.bot("send-quote").await;
    world.ann.bot("up-to-date-notice").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("chain_down", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_of_telegram_is_waited_out() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.stage.sim.break_next("SendMessage", Fault::TooManyRequests(1));
    world.ann.says("/balance");
    world.ann.bot_with("balance-coin", &["10 ETH"]).await;
    assert_eq!(world.stage.sim.faults_left(), 0);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_cannot_be_deleted_is_not_used() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.confirms("/send @bob 0.5").await;
    // When it arrives, and before it would be used.
    for _ in 0..2 {
        world.stage.sim.break_next("DeleteMessage", Fault::TooManyRequests(3_600));
    }
    world.ann.says(ANNS);
    world.ann.bot("password-not-deleted").await;
    assert!(world.transfers(&world.ann).await.is_empty());
    world.stage.stop().await;
}
