//! Pitfalls of Telegram and of its client library, and attacks by other users.

use bot_api_sim::{Change, Fault};
use kms_client::hash_password;
use kms_sandbox::StageOptions;
use kms_types::wire::{CreateAccount, TransferState};

use crate::texts::{self, label};
use crate::world::{ANNS, Plays, World, assert_transcript, coins, data};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

/// The library sleeps for ten seconds after a 5xx. Without a lane for each user, every other user
/// would wait for Ann.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_and_a_failed_call_delay_no_other_user() {
    let mut world = world().await;
    world.stage.sim.break_next("SendMessage", Fault::BadGateway);
    world.ann.says("/help");
    world.faults_happen().await;
    let before = world.ann.person().chat().len();
    for _ in 0..200 {
        world.ann.says("/help");
    }
    world.bob.says("/balance");
    world.bob.bot_with("balance-coin", &["0 ETH"]).await;
    // Of her lane, sixteen are answered.
    let answered = world.ann.person().chat().len() - before - 200;
    assert!(answered < 16, "Bob waited for Ann");
    // Her lane resumes; what did not fit was dropped.
    world.ann.bot("help-title").await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_press_and_a_repeated_password_send_once() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("send-quote").await;
    let ann = world.ann.person().clone();
    let edited = |change: &&Change| matches!(change, Change::Edited { .. });
    let before = ann.changes().iter().filter(edited).count();
    ann.presses(ann.id(), quote.id, &label("send-confirm-button")).unwrap();
    ann.presses(ann.id(), quote.id, &label("send-confirm-button")).unwrap();
    world.ann.bot("send-ask-password").await;
    let mut watch = world.stage.sim.watch();
    while world.stage.sim.unanswered_presses() > 0 {
        watch.changed().await.unwrap();
    }
    let edits = ann.changes().iter().filter(edited).count();
    assert_eq!(edits, before + 1, "the second press leaves the screen as it is");
    world.ann.says(ANNS);
    world.ann.says(ANNS);
    world.ann.bot("unexpected-text-deleted").await;
    // The button of the old screen, pressed on a phone that has not received the edit.
    ann.forges(ann.id(), quote.id, &data(&quote, "send-confirm-button")).unwrap();
    world.bob.bot_with("notice-arriving", &["0.5 ETH"]).await;
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    assert_eq!(world.transfers(&world.ann).await.len(), 1);
    world.forgets(ANNS).await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_of_another_user_does_nothing() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("send-quote").await;
    world.bob.says("/help");
    let help = world.bob.bot("help-title").await;
    let bob = world.bob.person().clone();
    for button in ["send-confirm-button", "send-cancel-button"] {
        bob.forges(bob.id(), help.id, &data(&quote, button)).unwrap();
        world.bob.bot("expired-button-notice").await;
    }
    bob.forges(bob.id(), help.id, "send:c:what:ever").unwrap();
    world.bob.bot("expired-button-notice").await;
    // Messages in a group belong to no single user.
    let group = world.stage.sim.group("Friends", &[&bob]);
    let said = bob.says_in(group, "hello").unwrap();
    bob.forges(group, said, "balance:refresh").unwrap();
    let mut group = world.stage.sim.phone_in(group, &bob, "Bob");
    group.bot("foreign-button-notice").await;
    assert_transcript!("foreign_button_in_a_group", group);
    assert_transcript!("foreign_button", world.bob);
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_forwards_move_no_money() {
    let mut world = world().await;
    let help = world.ann.person().says("/help");
    world.ann.bot("help-title").await;
    world.ann.person().edits(help, "/send @bob 5").unwrap();
    world.ann.bot("edited-command").await;
    world.ann.person().forwards("/send @bob 5");
    world.ann.bot("other-content").await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.person().forwards(ANNS);
    world.ann.bot("other-deleted").await;
    let help = world.ann.person().says("/help");
    world.ann.bot("help-title").await;
    world.ann.person().edits(help, ANNS).unwrap();
    world.ann.bot("other-deleted").await;
    assert_transcript!("edits_and_forwards", world.ann);
    assert!(world.transfers(&world.ann).await.is_empty());
    world.forgets(ANNS).await;
    world.stage.stop().await;
}

/// The library reports "bot can't initiate conversation with a user" as an unknown error.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_cannot_be_delivered_delays_no_other_user() {
    let mut world = world().await;
    let carol = 4799.try_into().unwrap();
    let _ = world.stage.sim.person(4799, "Carol", Some("carol"));
    let body = CreateAccount {
        telegram_id: carol,
        password_hash: hash_password(carol, "never in this chat before").await,
        usernames: ["carol".parse().unwrap()].into_iter().collect(),
        seen_at: Some(kms_types::Timestamp(1)),
        mobile: None,
        email: None,
    };
    world.stage.client.create_account(&body).await.unwrap();
    world.pay(&world.ann, "@carol", "0.5").await;
    world.bob.person().blocks();
    world.pay(&world.ann, "@bob", "0.25").await;
    world.ann.says("/send @carol 0.125");
    world.ann.bot("send-name-unverified-notice").await;
    let carol = world.stage.client.account(carol.into()).await.unwrap().unwrap().address;
    world.ann.confirms(&format!("/send {carol} 0.125")).await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.125 ETH"]).await;
    assert!(!world.bob.transcript().contains("0.25"));
    let paid = world.transfers(&world.ann).await;
    let settled = |state| matches!(state, TransferState::Mined | TransferState::Final);
    assert!(paid.len() == 3 && paid.iter().all(|transfer| settled(transfer.state)));
    world.stage.stop().await;
}

/// Telegram refuses a message with a button that links to a host without a dot.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_telegram_would_refuse_is_left_out() {
    for (explorer, shown) in [("http://localhost:3000", false), ("https://scan.example", true)] {
        let explorer = Some(explorer.to_owned());
        let options = StageOptions { explorer, ..StageOptions::default() };
        let mut world = World::with_wallets(options).await;
        world.ann.confirms("/send @bob 0.5").await;
        world.ann.says(ANNS);
        let paid = world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
        assert_eq!(paid.button(&label("send-explorer-button")).is_some(), shown);
        world.ann.says("/history");
        let history = world.ann.bot("history-title").await;
        assert_eq!(history.entities.iter().any(|e| e["type"] == "text_link"), shown);
        world.stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_sent_again_after_a_failed_call() {
    let mut world = world().await;
    world.stage.sim.break_next("SendMessage", Fault::BadGateway);
    world.pay(&world.ann, "@bob", "0.5").await;
    world.bob.bot_with("notice-arriving", &["0.5 ETH"]).await;
    assert_eq!(world.stage.sim.faults_left(), 0);
    world.stage.stop().await;
}

/// Passwords sent too late, with a slash, behind a command, or instead of a recipient.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_the_wrong_place_is_deleted() {
    let mut world = world().await;
    for (says, id) in [
        ("/password", "password-ask"),
        ("/open-sesame-and-more", "unknown-command-deleted"),
        ("/open@sesame-and-more", "unknown-command-deleted"),
        ("/cancel", "cancel-done"),
        ("sesame, too late", "unexpected-text-deleted"),
        ("/password sesame sesame", "password-ask"),
        ("/send", "send-ask-recipient"),
        ("Sesame4you2open", "input-recipient-unmarked"),
        ("@bob", "send-ask-amount"),
        ("sesame4you2open", "input-amount-format"),
    ] {
        world.ann.says(says);
        world.ann.bot(id).await;
    }
    world.forgets("sesame").await;
    assert_transcript!("wrong_places", world.ann);
    world.stage.stop().await;
}

/// A display name can contain HTML, Markdown, a second line, a link, a mention, a command and a
/// stack of marks, change the direction of the text after it, and be invisible.
#[tokio::test(flavor = "multi_thread")]
async fn a_display_name_cannot_disguise_the_confirm_screen() {
    let mut world = world().await;
    let stacked = format!("Bo{}b\u{0}", "\u{301}".repeat(39));
    for (id, name, username, shown) in [
        (4713, "<b>Bob</b>\u{202e}bob@", "mallory", "<b>Bob</b>bob@, @mallory"),
        (4720, "\u{3164}\u{200b}", "mallory2", "(no name), @mallory2"),
        (4721, "Bob\u{2028}Total: 0 ETH", "mallory3", "Bob Total: 0 ETH, @mallory3"),
        (4722, "[z](http://e.vil) @ann", "mallory4", "[z](http://e.vil) @ann, @mallory4"),
        (4723, "*Bob* /send", "mallory5", "*Bob* /send, @mallory5"),
        (4724, &stacked, "mallory6", "Bo\u{301}\u{301}\u{301}b, @mallory6"),
    ] {
        let mut mallory = world.stage.sim.phone(id, name, Some(username));
        mallory.says("/start");
        mallory.bot("start-welcome").await;
        mallory.says("a sentence that is hard to guess");
        mallory.bot("start-created").await;
        world.ann.says(&format!("/send @{username} 1"));
        let quote = world.ann.bot("send-quote").await;
        assert!(quote.text.replace('\u{2060}', "").contains(shown), "{}", quote.text);
        // Telegram makes links, mentions and commands of what looks like them.
        let live = quote.marked(&["url", "mention", "bot_command", "email", "text_link"]);
        assert_eq!(live, [format!("@{username}")], "{}", quote.text);
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_deleted_before_it_is_used() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let changes = world.ann.person().changes();
    let pressed = changes.iter().position(|change| matches!(change, Change::Pressed { .. }));
    let after = &changes[pressed.unwrap()..];
    let position = |what: &dyn Fn(&Change) -> bool| after.iter().position(what).unwrap();
    let deleted = position(&|change| matches!(change, Change::Deleted { .. }));
    let sending = position(&|change| match change {
        Change::Edited { shown: Some(shown), .. } => texts::is("send-sending", &shown.text),
        _ => false,
    });
    assert!(deleted < sending);
    world.stage.stop().await;
}
