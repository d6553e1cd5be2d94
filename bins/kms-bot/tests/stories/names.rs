//! Usernames: collectible ones, and when a change of one counts.

use kms_sandbox::StageOptions;

use crate::world::{Plays, World, assert_transcript};

/// Telegram shows a collectible username first; the other one stays the person's.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_with_a_second_username_keeps_the_first() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.bob.person().renames(Some("bobsled")).unwrap();
    world.bob.person().also_has(&["bob"]);
    world.ann.says("/send @bob 0.5");
    world.ann.bot_with("send-quote", &["Bob", "@bob"]).await;
    world.bob.says("/start");
    world.bob.bot_with("start-existing", &["@bob"]).await;
    world.ann.says("/send @bob 0.5");
    world.ann.bot_with("send-quote", &["Bob", "@bob"]).await;
    assert_transcript!("collectible_name", world.ann);
    world.stage.stop().await;
}

/// The bot asked Telegram about Bob before Bob chose his username, in the same second.
#[tokio::test(flavor = "multi_thread")]
async fn a_username_that_was_just_chosen_counts_at_the_next_message() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.bob.person().renames(None).unwrap();
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-name-reassigned").await;
    world.bob.person().renames(Some("robert")).unwrap();
    world.bob.says("/start");
    world.bob.bot_with("start-has-username", &["@robert"]).await;
    world.ann.says("/send @robert 0.5");
    world.ann.bot_with("send-quote", &["Bob", "@robert"]).await;
    assert_eq!(world.account(&world.bob).await.username, Some("robert".parse().unwrap()));
    world.stage.stop().await;
}
