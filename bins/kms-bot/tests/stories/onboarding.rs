//! `/start`, and chats without a wallet.

use std::time::{Duration, Instant};

use crate::world::{ANNS, Plays, World, assert_transcript, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_password_creates_a_wallet_and_start_shows_it_again() {
    let World { stage, mut ann, .. } = World::new().await;
    ann.says("/start");
    ann.bot("start-welcome").await;
    ann.says("what is this?");
    ann.bot("password-small-talk").await;
    ann.says("hunter2");
    ann.bot("password-too-short").await;
    ann.says("password123");
    ann.bot("password-guessable").await;
    ann.says("/slash-passwords are none");
    ann.bot("unknown-command-deleted").await;
    ann.says(ANNS);
    let ready = ann.bot("start-created").await;
    ann.bot("contact-offer").await;
    ann.press("contact-later-button");
    ann.bot("contact-later").await;
    ann.press("start-recovery-button");
    ann.bot("start-recovery").await;
    ann.press("receive-button");
    let receive = ann.bot("receive-address").await;
    assert!(receive.photo.is_some());
    ann.says("/start");
    let again = ann.bot("start-existing").await;
    let address = |text: &str| text.lines().find(|line| line.starts_with("0x")).unwrap().to_owned();
    assert_eq!(address(&ready.text), address(&again.text));
    assert_eq!(address(&ready.text), address(&receive.text));
    assert_transcript!("onboarding", ann);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_wallet_every_command_points_to_start() {
    let World { stage, mut ann, .. } = World::new().await;
    for says in ["/balance", "/receive", "/send", "/send @bob 1", "/history", "/password"] {
        ann.says(says);
        ann.bot("no-wallet").await;
    }
    ann.says("/recover");
    ann.bot("no-wallet").await;
    ann.says("hello?");
    ann.bot("unexpected-newcomer").await;
    ann.says("/dance");
    ann.bot("unknown-command").await;
    ann.says("/cancel");
    ann.bot("cancel-nothing").await;
    ann.says("/help");
    let help = ann.bot("help-title").await;
    assert_transcript!("no_wallet", ann);
    // Telegram's menu lists what the transcript pins.
    let words = help.text.lines().filter_map(|line| line.strip_prefix('/')?.split(' ').next());
    let commands: Vec<_> = stage.sim.commands().into_iter().map(|(name, _)| name).collect();
    assert!(commands.len() > 10 && words.eq(&commands), "{commands:?}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_the_bot_asks_nothing_and_shows_nothing() {
    let World { stage, mut ann, bob } = World::new().await;
    ann.says("/start");
    ann.bot("start-welcome").await;
    let group = stage.sim.group("Friends", &[ann.person(), bob.person()]);
    let mut group_phone = stage.sim.phone_in(group, ann.person(), "Ann");
    for says in ["/start", "/BALANCE@wallet_kms_bot", "/send @bob 1"] {
        ann.person().says_in(group, says).unwrap();
        group_phone.bot("group-invitation").await;
    }
    // A password that the private chat waits for is not accepted as a reply in the group.
    let invitation = group_phone.last_of_bot().unwrap();
    ann.person().replies_in(group, invitation.id, ANNS).unwrap();
    ann.bot("group-password-exposed").await;
    assert!(stage.sim.stored().contains(ANNS));
    stage.sim.promote_bot(group);
    for says in ["/password old new", "/password another sentence to guess"] {
        ann.person().says_in(group, says).unwrap();
        ann.bot("group-password-deleted").await;
    }
    ann.person().replies_in(group, invitation.id, "four words of a password").unwrap();
    ann.bot("group-password-deleted").await;
    for secret in ["four words of a password", "another sentence to guess"] {
        // An update is acknowledged by the next request for updates.
        let deadline = Instant::now() + Duration::from_secs(60);
        while stage.sim.stored().contains(secret) {
            assert!(Instant::now() < deadline, "{secret}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ann.person().says_in(group, "/help").unwrap();
    group_phone.bot("group-invitation").await;
    assert!(stage.client.account(id(&ann).into()).await.unwrap().is_none());
    group_phone.press("group-button");
    ann.bot("start-welcome").await;
    // In a group with topics the answer is in the topic of the command, and a reply to it.
    let asked = ann.person().says_in_topic(group, 77, "/balance").unwrap();
    let answer = group_phone.bot("group-invitation").await;
    assert_eq!((answer.topic, answer.reply_to), (Some(77), Some(asked)));
    assert_transcript!("group", group_phone);
    assert_transcript!("group_in_private", ann);
    stage.stop().await;
}
