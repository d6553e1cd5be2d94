//! Messages that answer nothing: what they are is said, and what is wanted. Only what may show a
//! password is deleted.

use std::time::Duration;

use bot_api_sim::{Attachment, Fault, Phone};
use kms_sandbox::StageOptions;

use crate::texts;
use crate::world::{ANNS, Plays, World, assert_transcript};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

fn contact() -> Attachment {
    Attachment::Contact { phone: "4915112345678".to_owned(), user: Some(4712) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_show_a_password_stays_even_while_one_is_asked_for() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    let mut kept = Vec::new();
    for attachment in [
        contact(),
        Attachment::Voice,
        Attachment::Sticker,
        Attachment::Location,
        Attachment::Poll,
        Attachment::Dice,
        Attachment::Pinned,
        Attachment::AutoDeleteTimer,
    ] {
        kept.push(world.ann.person().sends(&attachment));
        world.ann.bot("other-content").await;
    }
    for attachment in
        [Attachment::Photo, Attachment::Document, Attachment::Video, Attachment::VideoNote]
    {
        world.ann.person().sends(&attachment);
        world.ann.bot("other-deleted").await;
    }
    let ids: Vec<_> = world.ann.person().chat().iter().map(|message| message.id).collect();
    assert!(kept.iter().all(|kept| ids.contains(kept)), "{kept:?} of {ids:?}");
    // The password is still asked for.
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("not_an_answer", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_answer_is_wanted_anything_else_is_named() {
    let mut world = world().await;
    let ann = &mut world.ann;
    ann.says("/send");
    ann.bot("send-ask-recipient").await;
    for attachment in [
        Attachment::Photo,
        Attachment::Video,
        Attachment::Location,
        Attachment::Poll,
        Attachment::Dice,
        Attachment::AutoDeleteTimer,
    ] {
        ann.person().sends(&attachment);
        ann.bot("other-content").await;
    }
    ann.says("@bob");
    ann.bot("send-ask-amount").await;
    ann.person().forwards("0.5");
    ann.bot("other-content").await;
    ann.person().sends(&contact());
    ann.bot("other-content").await;
    let said = ann.person().says("a lot");
    ann.bot("input-amount-format").await;
    ann.person().edits(said, "0.5").unwrap();
    ann.bot("edited-answer").await;
    ann.says("0.5");
    ann.bot("send-quote").await;
    assert_transcript!("wanted", world.ann);
    world.stage.stop().await;
}

/// A voice message where each kind of answer is awaited, and a command that there is not.
#[tokio::test(flavor = "multi_thread")]
async fn each_question_says_what_is_wanted() {
    let mut world = World::with(StageOptions::default()).await;
    let voice = async |ann: &mut Phone, wanted: &str| {
        ann.person().sends(&Attachment::Voice);
        ann.bot("other-content").await;
        let last = ann.last_of_bot().unwrap();
        assert!(texts::is(wanted, &last.text), "{wanted}: {}", last.text);
    };
    let ann = &mut world.ann;
    ann.says("/start");
    ann.bot("start-welcome").await;
    voice(ann, "wanted-new-password").await;
    ann.says(ANNS);
    ann.bot("contact-offer").await;
    ann.press("contact-add-button");
    ann.bot("contact-ask-address").await;
    voice(ann, "wanted-email").await;
    ann.says("ann@example.org");
    ann.bot("contact-ask-password-new").await;
    voice(ann, "wanted-password").await;
    ann.says(ANNS);
    ann.bot("contact-ask-code").await;
    voice(ann, "wanted-code").await;
    ann.says("/password");
    ann.bot("password-ask").await;
    voice(ann, "password-two-lines").await;
    ann.says("/contact");
    ann.bot("contact-mobile-none").await;
    ann.press("contact-mobile-button");
    ann.bot("contact-ask-mobile").await;
    voice(ann, "wanted-mobile").await;
    ann.says("/send");
    ann.bot("send-ask-recipient").await;
    voice(ann, "send-ask-recipient").await;
    ann.says("/export");
    ann.bot("export-on-page").await;
    voice(ann, "page-wanted").await;
    ann.person().sends(&Attachment::Story);
    ann.bot("other-content").await;
    let last = ann.last_of_bot().unwrap();
    assert!(texts::is("content-other", &last.text), "{}", last.text);
    assert_transcript!("each_question", world.ann);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_password_ordinary_messages_are_not_deleted() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let before = world.ann.person().changes().len();
    let ann = &mut world.ann;
    for (says, id) in [
        ("hello", "unexpected-text"),
        ("thank you!", "unexpected-text"),
        ("send @bob 0.5", "unexpected-command"),
        ("Balance", "unexpected-command"),
        ("@bob 0.5", "unexpected-command"),
        ("0.5 ETH to @bob", "unexpected-command"),
        ("0x000000000000000000000000000000000000dEaD", "unexpected-command"),
        ("/balance!", "balance-coin"),
        ("/send@bob 0.5", "unknown-command-similar"),
        ("/send@other_bot @bob 0.25", "unknown-command"),
        ("/stop", "unknown-command-similar"),
        ("/balance @bob", "unexpected-arguments"),
        ("/freeze now please", "unexpected-arguments"),
        ("/help me", "help-title"),
        ("/receive now", "receive-address"),
        ("/contact ann@example.org", "contact-none"),
        ("/settings", "unknown-command"),
        ("/tip 5", "unknown-command-similar"),
        ("/start c_0123456789abcdef", "start-existing"),
    ] {
        ann.says(says);
        ann.bot(id).await;
    }
    ann.says("/send");
    ann.bot("send-ask-recipient").await;
    // No name of a recipient, and too short for a password.
    ann.says("Cancel");
    ann.bot("cancel-done").await;
    ann.person().sends(&Attachment::Photo);
    ann.bot("other-content").await;
    ann.person().sends(&contact());
    ann.bot("other-content").await;
    let command = ann.person().says("/help");
    ann.bot("help-title").await;
    ann.person().edits(command, "/balance").unwrap();
    ann.bot("edited-command").await;
    let changes = world.ann.person().changes();
    let deleted = changes[before..]
        .iter()
        .filter(|change| matches!(change, bot_api_sim::Change::Deleted { .. }));
    assert_eq!(deleted.count(), 0);
    assert_transcript!("ordinary_messages", world.ann);
    world.stage.stop().await;
}

/// And every part of it is deleted while it may show a password.
#[tokio::test(flavor = "multi_thread")]
async fn an_album_is_answered_once() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    let before = world.ann.person().chat().len();
    let album = [Attachment::Photo, Attachment::Video, Attachment::Photo];
    world.ann.person().sends_album("7", &album);
    world.ann.bot("other-deleted").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let chat = world.ann.person().chat();
    assert_eq!(chat.len(), before + 1, "one answer, and no picture:\n{}", world.ann.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_command_leaves_the_question_and_says_what_is_wanted() {
    let mut world = world().await;
    world.ann.says("/password");
    world.ann.bot("password-ask").await;
    world.ann.says("/open-sesame-and-more");
    let told = world.ann.bot("unknown-command-deleted").await;
    assert!(texts::is("password-two-lines", &told.text));
    world.ann.confirms("/send @bob 0.5").await;
    for (says, id) in [
        ("/settings", "unknown-command"),
        ("/tip", "unknown-command-similar"),
        ("/send@bob 0.5", "unknown-command-similar"),
    ] {
        world.ann.says(says);
        let told = world.ann.bot(id).await;
        assert!(texts::is("wanted-password", &told.text), "{}", told.text);
    }
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("unknown_while_wanted", world.ann);
    world.stage.stop().await;
}

/// No password is asked for, and one was a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_show_a_password_is_deleted_even_if_a_flood_drops_it() {
    let mut world = world().await;
    world.ann.confirms("/send @bob 0.5").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let help = world.ann.person().says("/help");
    world.ann.bot("help-title").await;
    world.stage.sim.break_next("SendMessage", Fault::Slow(Duration::from_secs(2)));
    for _ in 0..30 {
        world.ann.says("hello, are you there?");
    }
    world.ann.says("sesame, too late");
    world.ann.person().forwards("sesame, as another user wrote it");
    world.ann.person().edits(help, "sesame, as an edit").unwrap();
    world.ann.says("/password sesame sesame");
    world.ann.says("/open-sesame-and-more");
    world.ann.bot("flood").await;
    world.forgets("sesame").await;
    world.stage.stop().await;
}
