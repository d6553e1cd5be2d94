//! `/start` and what comes with it.

use crate::world::{ANNS, Plays, World, assert_transcript, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_password_makes_a_wallet_and_start_shows_it_again() {
    let World { stage, mut ann, .. } = World::new().await;
    ann.says("/start");
    ann.bot("Choose a password").await;
    ann.says("hunter2");
    ann.bot("too short").await;
    ann.says("password123");
    ann.bot("too easy to guess").await;
    ann.says("/slash-passwords are none");
    ann.bot("can not begin with a slash").await;
    ann.says(ANNS);
    let ready = ann.bot("Your wallet is ready").await;
    ann.press("🛟 How recovery works");
    ann.bot("Write /recover").await;
    ann.press("📥 Receive");
    let receive = ann.bot("Your address on Sandbox").await;
    assert!(receive.photo.is_some());
    ann.says("/start");
    let again = ann.bot("This is your wallet").await;
    let address = |text: &str| text.lines().find(|line| line.starts_with("0x")).unwrap().to_owned();
    assert_eq!(address(&ready.text), address(&again.text));
    assert_eq!(address(&ready.text), address(&receive.text));
    assert_transcript!("onboarding", ann);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_wallet_everything_leads_to_start() {
    let World { stage, mut ann, .. } = World::new().await;
    for says in ["/balance", "/receive", "/send", "/send @bob 1", "/history", "/password"] {
        ann.says(says);
        ann.bot("You have no wallet yet").await;
    }
    ann.says("/recover");
    ann.bot("You have no wallet yet").await;
    ann.says("hello?");
    ann.bot("I was not waiting for an answer").await;
    ann.says("/dance");
    ann.bot("I do not know this command").await;
    ann.says("/cancel");
    ann.bot("nothing to cancel").await;
    ann.says("/help");
    ann.bot("What I can do").await;
    assert_transcript!("no_wallet", ann);
    let commands: Vec<_> = stage.sim.commands().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        commands,
        [
            "start", "balance", "send", "receive", "history", "limit", "password", "recover",
            "contact", "cancel", "help"
        ]
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_nothing_is_asked_and_nothing_is_shown() {
    let World { stage, mut ann, bob } = World::new().await;
    ann.says("/start");
    ann.bot("Choose a password").await;
    let group = stage.sim.group("Friends", &[ann.person(), bob.person()]);
    let mut group_phone = stage.sim.phone_in(group, ann.person(), "Ann");
    for says in ["/start", "/BALANCE@wallet_kms_bot", "/send @bob 1"] {
        ann.person().says_in(group, says).unwrap();
        group_phone.bot("belong in our private chat").await;
    }
    // What the private chat waits for is not taken from the group, where it is an answer to the bot.
    let invitation = group_phone.last_of_bot().unwrap();
    ann.person().replies_in(group, invitation.id, ANNS).unwrap();
    ann.person().says_in(group, "/help").unwrap();
    group_phone.bot("belong in our private chat").await;
    assert!(stage.client.account(id(&ann).into()).await.unwrap().is_none());
    group_phone.press("Open the private chat");
    ann.bot("Choose a password").await;
    assert_transcript!("group", group_phone);
    stage.stop().await;
}
