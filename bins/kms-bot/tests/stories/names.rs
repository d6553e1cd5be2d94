//! Usernames: collectible ones, and when a change of one counts.

use bot_api_sim::Phone;
use kms_sandbox::StageOptions;

use crate::texts;
use crate::world::{ANNS, Plays, World, assert_transcript, coins};

async fn pays(ann: &mut Phone, to: &str) {
    ann.confirms(&format!("/send {to} 0.5")).await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["0.5 ETH", to]).await;
}

/// Telegram shows a collectible username first, or only that.
#[tokio::test(flavor = "multi_thread")]
async fn each_username_of_a_person_is_paid() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.bob.person().also_has(&["robert", "bobsled"]);
    world.bob.says("/start");
    world.bob.bot_with("start-existing", &["@bob"]).await;
    pays(&mut world.ann, "@bob").await;
    pays(&mut world.ann, "@robert").await;
    assert_eq!(world.balance(&world.bob).await, coins("1"));
    // Bob keeps what he bought, and no other username.
    world.bob.person().renames(None).unwrap();
    world.bob.says("/start");
    world.bob.bot_with("start-has-username", &["@robert"]).await;
    world.ann.says("/send @bobsled 0.5");
    world.ann.bot_with("send-quote", &["Bob", "@bobsled"]).await;
    world.ann.says("/send @bob 0.5");
    world.ann.bot_with("send-unknown-name", &["@bob"]).await;
    assert_transcript!("collectible_names", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usernames_that_a_person_has_at_the_start_are_paid() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let mut zoe = world.stage.sim.phone(4714, "Zoe", None);
    zoe.person().also_has(&["zoe", "gold"]);
    zoe.says("/start");
    zoe.bot("start-welcome").await;
    zoe.says("a treasure on a quiet island");
    zoe.bot_with("start-has-username", &["@zoe"]).await;
    world.ann.says("/send @gold 0.5");
    world.ann.bot_with("send-quote", &["Zoe", "@gold"]).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sold_username_is_not_paid_to_the_seller() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.bob.person().also_has(&["robert"]);
    world.bob.says("/start");
    world.bob.bot("start-existing").await;
    pays(&mut world.ann, "@robert").await;
    world.bob.person().also_has(&[]);
    let mut zoe = world.stage.sim.phone(4714, "Zoe", Some("zoe"));
    zoe.person().also_has(&["robert"]);
    // Zoe has not written to the bot.
    world.ann.says("/send @robert 0.5");
    world.ann.bot_with("send-name-reassigned", &["@robert"]).await;
    zoe.says("/start");
    zoe.bot("start-welcome").await;
    zoe.says("a treasure on a quiet island");
    zoe.bot_with("start-has-username", &["@zoe"]).await;
    world.ann.says("/send @robert 0.5");
    world.ann.bot("problem-name-unproved").await;
    world.stage.proves_name(4714, "robert").await.unwrap();
    world.ann.says("/send @robert 0.5");
    world.ann.bot_with("send-warning-reassigned", &["Zoe", "@robert"]).await;
    pays(&mut world.ann, "@bob").await;
    assert_eq!(world.balance(&world.bob).await, coins("1"));
    assert_transcript!("sold_name", world.ann);
    world.stage.stop().await;
}

/// The bot asked Telegram about Bob before Bob chose his username, in the same second: what it
/// learnt does not count as newer than Bob's next message, whatever this machine's clock shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_username_that_was_just_chosen_counts_at_the_next_message() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.bob.person().renames(None).unwrap();
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-name-reassigned").await;
    world.bob.person().renames(Some("robert")).unwrap();
    world.bob.says("/start");
    let wallet = world.bob.bot_with("start-has-username", &["@robert"]).await;
    assert!(!texts::is("start-no-username", &wallet.text), "{}", wallet.text);
    world.ann.says("/send @robert 0.5");
    world.ann.bot_with("send-quote", &["Bob", "@robert"]).await;
    assert_eq!(world.account(&world.bob).await.username, Some("robert".parse().unwrap()));
    world.stage.stop().await;
}
