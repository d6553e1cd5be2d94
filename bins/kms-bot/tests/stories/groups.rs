//! Commands in a group: they lead to the private chat, and nothing that was written is lost.

use bot_api_sim::{ButtonKind, Message};
use kms_sandbox::StageOptions;
use kms_types::Wei;

use crate::texts::label;
use crate::world::{ANNS, Plays, World, assert_transcript};

/// What Telegram sends for the link of an invitation.
fn start(invitation: &Message) -> String {
    let ButtonKind::Url(link) = &invitation.button(&label("group-button")).unwrap().kind else {
        panic!("no link");
    };
    format!("/start {}", link.split_once("?start=").unwrap().1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_written_in_a_group_is_confirmed_in_private() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let group = world.stage.sim.group("Friends", &[world.ann.person(), world.bob.person()]);
    let mut group_phone = world.stage.sim.phone_in(group, world.ann.person(), "Ann");
    world.ann.person().says_in(group, "/send @bob 0.5").unwrap();
    let first = group_phone.bot("group-invitation").await;
    world.ann.person().says_in(group, "/send @bob 1,5").unwrap();
    group_phone.bot("group-invitation").await;
    group_phone.press("group-button");
    world.ann.bot("input-amount-comma").await;
    // Each link opens what was written above it, for its writer alone.
    world.bob.says(&start(&first));
    world.bob.bot("start-link-expired").await;
    world.ann.says(&start(&first));
    world.ann.bot_with("send-quote", &["Bob", "@bob", "0.5 ETH"]).await;
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.ann.says("/start r_0123456789abcdef");
    world.ann.bot("start-link-expired").await;
    assert_transcript!("group_payment", world.ann);
    assert_transcript!("group_invitation", group_phone);
    world.stage.stop().await;
}

/// What a wallet holds is for its owner alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_that_is_asked_for_in_a_group_is_shown_in_private() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let group = world.stage.sim.group("Friends", &[world.ann.person(), world.bob.person()]);
    let mut group_phone = world.stage.sim.phone_in(group, world.ann.person(), "Ann");
    for (says, id) in [("/balance", "group-invitation"), ("/balance @bob", "unexpected-arguments")]
    {
        world.ann.person().says_in(group, says).unwrap();
        group_phone.bot(id).await;
        group_phone.press("group-button");
        world.ann.bot_with("balance-coin", &["10 ETH"]).await;
    }
    // Another bot's command, and a word that is none here.
    for says in ["/balance@other_bot", "/whatever"] {
        world.ann.person().says_in(group, says).unwrap();
    }
    world.ann.person().says_in(group, "/receive").unwrap();
    group_phone.bot("group-invitation").await;
    let shown = world.stage.sim.messages(group);
    assert_eq!(shown.iter().filter(|message| message.from != world.ann.person().id()).count(), 3);
    assert!(shown.iter().all(|message| !message.text.contains("10")), "{shown:?}");
    assert_transcript!("group_balance", group_phone);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_with_an_amount_pays_the_author() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let group = world.stage.sim.group("Friends", &[world.ann.person(), world.bob.person()]);
    let mut group_phone = world.stage.sim.phone_in(group, world.ann.person(), "Ann");
    let bobs = world.bob.person().says_in(group, "I paid the pizza").unwrap();
    world.ann.person().replies_in(group, bobs, "/send 0.5").unwrap();
    group_phone.bot("group-invitation").await;
    group_phone.press("group-button");
    world.ann.bot_with("send-quote", &["Bob", "0.5 ETH"]).await;
    // A recipient that is written counts, and the bot is none.
    world.ann.person().replies_in(group, bobs, "/send @ann 0.5").unwrap();
    let invitation = group_phone.bot("group-invitation").await;
    group_phone.press("group-button");
    world.ann.bot("problem-self-transfer").await;
    world.ann.person().replies_in(group, invitation.id, "/send 0.5").unwrap();
    group_phone.bot("group-invitation").await;
    group_phone.press("group-button");
    world.ann.bot("send-ask-recipient").await;
    world.stage.stop().await;
}

/// Telegram takes twenty messages a minute in a group.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_busy_group_is_answered_in_private() {
    let options = StageOptions { telegram_speed: 1, ..StageOptions::default() };
    let mut world = World::with(options).await;
    world.ann.says("/start");
    world.ann.bot("start-welcome").await;
    let group = world.stage.sim.group("Friends", &[world.ann.person(), world.bob.person()]);
    let mut group_phone = world.stage.sim.phone_in(group, world.ann.person(), "Ann");
    // All within a minute of Telegram's, and no more at once than wait for their answers.
    for _ in 0..2 {
        for _ in 0..9 {
            world.ann.person().says_in(group, "/balance").unwrap();
        }
        for _ in 0..9 {
            group_phone.bot("group-invitation").await;
        }
    }
    world.ann.person().says_in(group, "/send @bob 0.5").unwrap();
    let busy = world.ann.bot("group-busy").await;
    assert!(start(&busy).starts_with("/start r_"));
    assert_eq!(world.stage.sim.ignored_waits(), [""; 0]);
    assert_transcript!("group_busy", world.ann);
    world.stage.stop().await;
}
