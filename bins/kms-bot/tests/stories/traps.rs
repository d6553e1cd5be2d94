//! What Telegram and its client library do to bots that do not expect it.

use bot_api_sim::{Change, Fault};
use kms_client::hash_password;
use kms_sandbox::StageOptions;
use kms_types::wire::{CreateAccount, TransferState};

use crate::world::{ANNS, Plays, World, assert_transcript, coins, data};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

/// The library sleeps ten seconds after a 5xx, and hands one chat's updates on in order: without
/// a lane for each person everybody waits for Ann.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_and_a_broken_answer_hold_nobody_else() {
    let mut world = world().await;
    let mut watch = world.stage.sim.watch();
    world.stage.sim.break_next("SendMessage", Fault::BadGateway);
    world.ann.says("/help");
    while world.stage.sim.faults_left() > 0 {
        watch.changed().await.unwrap();
    }
    let before = world.ann.person().chat().len();
    for _ in 0..200 {
        world.ann.says("/help");
    }
    world.bob.says("/balance");
    world.bob.bot("💰 0 ETH").await;
    assert_eq!(world.ann.person().chat().len(), before + 200, "Ann still waits");
    // Her lane goes on when it can; what did not fit was dropped.
    world.ann.bot("What I can do").await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_press_and_a_repeated_password_send_once() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("Total: at most").await;
    let ann = world.ann.person().clone();
    ann.presses(ann.id(), quote.id, "✅ Confirm").unwrap();
    ann.presses(ann.id(), quote.id, "✅ Confirm").unwrap();
    world.ann.bot("Send your password").await;
    world.ann.says(ANNS);
    world.ann.says(ANNS);
    world.ann.bot("not waiting for a password any more").await;
    // The button of the old screen, from a phone that did not see the edit.
    ann.forges(ann.id(), quote.id, &data(&quote, "✅ Confirm")).unwrap();
    world.bob.bot("You received 0.5 ETH").await;
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    assert_eq!(world.transfers(&world.ann).await.len(), 1);
    assert!(!world.stage.sim.stored().contains(ANNS));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_button_does_nothing() {
    let mut world = world().await;
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("Total: at most").await;
    world.bob.says("/help");
    let help = world.bob.bot("What I can do").await;
    let bob = world.bob.person().clone();
    for button in ["✅ Confirm", "✖️ Cancel"] {
        bob.forges(bob.id(), help.id, &data(&quote, button)).unwrap();
        world.bob.bot("does not work any more").await;
    }
    bob.forges(bob.id(), help.id, "c:what:ever").unwrap();
    world.bob.bot("does not work any more").await;
    // A message of a group is nobody's own.
    let group = world.stage.sim.group("Friends", &[&bob]);
    let said = bob.says_in(group, "hello").unwrap();
    bob.forges(group, said, "refresh").unwrap();
    let mut group = world.stage.sim.phone_in(group, &bob, "Bob");
    group.bot("not yours").await;
    world.ann.press("✅ Confirm");
    world.ann.bot("Send your password").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 0.5 ETH").await;
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_forwards_move_no_money() {
    let mut world = world().await;
    let help = world.ann.person().says("/help");
    world.ann.bot("What I can do").await;
    world.ann.person().edits(help, "/send @bob 5").unwrap();
    world.ann.bot("I deleted this one").await;
    world.ann.person().forwards("/send @bob 5");
    world.ann.bot("I deleted this one").await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.person().forwards(ANNS);
    world.ann.bot("I deleted this one").await;
    let help = world.ann.person().says("/help");
    world.ann.bot("What I can do").await;
    world.ann.person().edits(help, ANNS).unwrap();
    world.ann.bot("I deleted this one").await;
    assert_transcript!("edits_and_forwards", world.ann);
    assert!(world.transfers(&world.ann).await.is_empty());
    assert!(!world.stage.sim.stored().contains(ANNS));
    world.stage.stop().await;
}

/// "bot can't initiate conversation with a user" comes as an unknown error.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_to_somebody_who_can_not_be_written_to_holds_no_other() {
    let mut world = world().await;
    let carol = 4799.try_into().unwrap();
    let _ = world.stage.sim.person(4799, "Carol", Some("carol"));
    let body = CreateAccount {
        telegram_id: carol,
        password_hash: hash_password(carol, "never in this chat before").await,
        username: Some("carol".parse().unwrap()),
        seen_at: Some(kms_types::Timestamp(1)),
        mobile: None,
        email: None,
    };
    world.stage.client.create_account(&body).await.unwrap();
    world.pay(&world.ann, "@carol", "0.5").await;
    world.bob.person().blocks();
    world.pay(&world.ann, "@bob", "0.25").await;
    world.ann.says("/send @carol 0.125");
    world.ann.bot("Telegram does not tell right now").await;
    let carol = world.stage.client.account(carol.into()).await.unwrap().unwrap().address;
    world.ann.confirms(&format!("/send {carol} 0.125")).await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 0.125 ETH").await;
    assert!(!world.bob.transcript().contains("0.25"));
    let paid = world.transfers(&world.ann).await;
    let settled = |state| matches!(state, TransferState::Mined | TransferState::Final);
    assert!(paid.len() == 3 && paid.iter().all(|transfer| settled(transfer.state)));
    world.stage.stop().await;
}

/// Telegram refuses a button with a link to a host without a dot, and the whole message with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_telegram_would_refuse_is_left_out() {
    for (explorer, shown) in [("http://localhost:3000", false), ("https://scan.example", true)] {
        let explorer = Some(explorer.to_owned());
        let options = StageOptions { explorer, ..StageOptions::default() };
        let mut world = World::with_wallets(options).await;
        world.ann.confirms("/send @bob 0.5").await;
        world.ann.says(ANNS);
        let paid = world.ann.bot("Paid 0.5 ETH").await;
        assert_eq!(paid.button("🔗 Open in the explorer").is_some(), shown);
        world.ann.says("/history");
        let history = world.ann.bot("Your payments").await;
        assert_eq!(history.entities.iter().any(|e| e["type"] == "text_link"), shown);
        world.stage.stop().await;
    }
}

/// A broken answer of Telegram's is no reason to forget a notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_told_again_when_telegram_stumbles() {
    let mut world = world().await;
    world.stage.sim.break_next("SendMessage", Fault::BadGateway);
    world.pay(&world.ann, "@bob", "0.5").await;
    world.bob.bot("You received 0.5 ETH").await;
    assert_eq!(world.stage.sim.faults_left(), 0);
    world.stage.stop().await;
}

/// Passwords come too late, with a slash, behind a command, or where a name is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_the_wrong_place_does_not_stay_there() {
    let mut world = world().await;
    for (says, bot) in [
        ("/password", "Write both passwords"),
        ("/open-sesame-and-more", "I do not know this command"),
        ("/open@sesame-and-more", "I do not know this command"),
        ("/cancel", "Nothing was changed"),
        ("sesame, too late", "I deleted your message"),
        ("/password sesame sesame", "Write both passwords"),
        ("/send", "Whom do you want to pay?"),
        ("Sesame4you", "write a @username"),
        ("@bob", "How much"),
        ("sesame4you", "I can not read that"),
    ] {
        world.ann.says(says);
        world.ann.bot(bot).await;
    }
    assert!(!world.stage.sim.stored().to_lowercase().contains("sesame"));
    assert_transcript!("wrong_places", world.ann);
    world.stage.stop().await;
}

/// A display name can turn the direction of what follows it, and hold HTML.
#[tokio::test(flavor = "multi_thread")]
async fn a_display_name_can_not_disguise_the_screen() {
    let mut world = world().await;
    let mut mallory = world.stage.sim.phone(4713, "<b>Bob</b>\u{202e}bob@", Some("mallory"));
    mallory.says("/start");
    mallory.bot("Choose a password").await;
    mallory.says("nobody guesses this sentence");
    mallory.bot("Your wallet is ready").await;
    world.ann.says("/send @mallory 1");
    let quote = world.ann.bot("Total: at most").await;
    assert!(quote.text.contains("<b>Bob</b>bob@, @mallory"), "{}", quote.text);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_deleted_before_it_is_used() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot("Paid 0.5 ETH").await;
    let changes = world.ann.person().changes();
    let pressed = changes.iter().position(|change| matches!(change, Change::Pressed { .. }));
    let after = &changes[pressed.unwrap()..];
    let place = |what: &dyn Fn(&Change) -> bool| after.iter().position(what).unwrap();
    let deleted = place(&|change| matches!(change, Change::Deleted { .. }));
    let sending = place(
        &|change| matches!(change, Change::Edited { shown: Some(shown), .. } if shown.text.contains("Sending")),
    );
    assert!(deleted < sending);
    world.stage.stop().await;
}
