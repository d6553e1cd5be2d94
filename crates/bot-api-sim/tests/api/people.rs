//! What people send besides plain text, and where the bot may write.

use bot_api_sim::{Attachment, SimError};
use serde_json::{Value, json};
use teloxide_core::payloads::{GetUpdatesSetters, SendMessageSetters, SendPhotoSetters};
use teloxide_core::requests::{JsonRequest, Payload, Request, Requester};
use teloxide_core::types::{
    ButtonRequest, ChatId, InputFile, KeyboardButton, KeyboardMarkup, KeyboardRemove, Message,
    MessageEntityKind, MessageId, MessageOrigin, ReplyParameters, ThreadId, Update, UpdateKind,
};
use teloxide_core::{ApiError, Bot};

use crate::{ANN, png, quick, refused};

/// The newest message that the bot receives.
async fn received(bot: &Bot) -> Message {
    let update = bot.get_updates().timeout(0).await.unwrap().pop().unwrap();
    let UpdateKind::Message(message) = update.kind else { panic!("{update:?}") };
    message
}

#[tokio::test]
async fn an_app_turns_marks_into_entities_that_count_utf_16_units() {
    let (_sim, bot, ann) = quick();
    ann.says_formatted("\u{1f600} seven clouds", "seven", "bold");
    let message = received(&bot).await;
    assert_eq!(message.text(), Some("\u{1f600} seven clouds"));
    let [bold] = message.entities().unwrap() else { panic!("{message:?}") };
    assert_eq!((&bold.kind, bold.offset, bold.length), (&MessageEntityKind::Bold, 3, 5));
}

#[tokio::test]
async fn a_mention_of_a_person_without_a_username_carries_the_id() {
    let (sim, bot, ann) = quick();
    let bob = sim.person(4712, "Bob", None);
    ann.says_mentioning("/send bobby 1", "bobby", &bob);
    let message = received(&bot).await;
    let [mention] = message.entities().unwrap() else { panic!("{message:?}") };
    let MessageEntityKind::TextMention { user } = &mention.kind else { panic!("{mention:?}") };
    assert_eq!((user.id.0, mention.offset, mention.length), (4712, 6, 5));
}

#[tokio::test]
async fn a_forward_shows_its_author_unless_the_author_hides() {
    let (sim, bot, ann) = quick();
    let bob = sim.person(4712, "Bob", None);
    ann.forwards_from(&bob, "see you there");
    let message = received(&bot).await;
    assert_eq!(message.from.as_ref().unwrap().id.0, 4711, "who forwards it is its sender");
    let Some(MessageOrigin::User { sender_user, .. }) = message.forward_origin() else {
        panic!("{message:?}")
    };
    assert_eq!(sender_user.id.0, 4712);
    ann.forwards("see you there");
    let message = received(&bot).await;
    assert!(matches!(message.forward_origin(), Some(MessageOrigin::HiddenUser { .. })));
}

#[tokio::test]
async fn attachments_are_no_text() {
    let (_sim, bot, ann) = quick();
    bot.send_message(ANN, "pin this").await.unwrap();
    type Is = fn(&Message) -> bool;
    let kinds: [(Attachment, Is); 12] = [
        (Attachment::Story, |message| message.story().is_some()),
        (Attachment::Video, |message| message.video().is_some()),
        (Attachment::VideoNote, |message| message.video_note().is_some()),
        (Attachment::Poll, |message| message.poll().is_some()),
        (Attachment::Dice, |message| message.dice().is_some()),
        (Attachment::AutoDeleteTimer, |message| {
            message.message_auto_delete_timer_changed().is_some()
        }),
        (Attachment::Photo, |message| message.photo().is_some()),
        (Attachment::Document, |message| message.document().is_some()),
        (Attachment::Voice, |message| message.voice().is_some()),
        (Attachment::Sticker, |message| message.sticker().is_some()),
        (Attachment::Location, |message| message.location().is_some()),
        (Attachment::Pinned, |message| message.pinned_message().is_some()),
    ];
    for (attachment, is) in kinds {
        ann.sends(&attachment);
        let message = received(&bot).await;
        assert!(is(&message) && message.text().is_none(), "{attachment:?}");
    }
    for user in [Some(4712), None] {
        ann.sends(&Attachment::Contact { phone: "4915112345678".to_owned(), user });
        let message = received(&bot).await;
        let contact = message.contact().unwrap();
        assert_eq!(contact.phone_number, "4915112345678");
        assert_eq!(contact.user_id.map(|id| id.0), user.map(|_| 4712));
    }
}

#[tokio::test]
async fn the_parts_of_an_album_are_messages_with_its_id() {
    let (_sim, bot, ann) = quick();
    ann.sends_album("7", &[Attachment::Photo, Attachment::Video]);
    ann.sends(&Attachment::Photo);
    let updates = bot.get_updates().timeout(0).await.unwrap().into_iter();
    let album = |update: Update| match update.kind {
        UpdateKind::Message(message) => message.media_group_id().cloned(),
        other => panic!("{other:?}"),
    };
    let albums: Vec<_> = updates.map(album).collect();
    let [.., first, second, alone] = &albums[..] else { panic!("{albums:?}") };
    assert!(first.is_some() && first == second && alone.is_none());
}

fn share_key() -> KeyboardMarkup {
    let share = KeyboardButton::new("Share my number").request(ButtonRequest::Contact);
    KeyboardMarkup::new([[share]])
}

#[tokio::test]
async fn the_key_that_shares_a_number_is_for_private_chats_and_stays_until_it_is_removed() {
    let (sim, bot, ann) = quick();
    let missing = ann.shares_own_number("4915112345678");
    assert!(matches!(missing, Err(SimError::NoButton(_))), "{missing:?}");
    bot.send_message(ANN, "your number?").reply_markup(share_key()).await.unwrap();
    assert_eq!(ann.chat().last().unwrap().reply_keyboard, [["Share my number"]]);
    bot.send_message(ANN, "a message without keys").await.unwrap();
    ann.shares_own_number("4915112345678").unwrap();
    assert_eq!(received(&bot).await.contact().unwrap().user_id.unwrap().0, 4711);
    bot.send_message(ANN, "thanks").reply_markup(KeyboardRemove::new()).await.unwrap();
    assert!(ann.shares_own_number("4915112345678").is_err());

    let group = ChatId(sim.group("Friends", &[&ann]));
    let asked = bot.send_message(group, "your number?").reply_markup(share_key()).await;
    assert!(refused(asked).to_string().contains("private chats only"));
    let unnamed = KeyboardMarkup::new([[KeyboardButton::new("")]]);
    let unnamed = bot.send_message(ANN, "x").reply_markup(unnamed).await;
    assert!(refused(unnamed).to_string().contains("text is empty"));
}

/// `getChat` with the field that the client library does not read.
#[derive(serde::Serialize)]
struct GetNames {
    chat_id: i64,
}

impl Payload for GetNames {
    type Output = Value;

    const NAME: &'static str = "GetChat";
}

#[tokio::test]
async fn all_usernames_of_a_person_are_listed_and_each_has_one_holder() {
    let (sim, bot, ann) = quick();
    let names = async || {
        let call = JsonRequest::new(bot.clone(), GetNames { chat_id: 4711 });
        let mut chat = call.send().await.unwrap();
        (chat["username"].take(), chat["active_usernames"].take())
    };
    assert_eq!(names().await, (json!("ann"), json!(["ann"])));
    ann.also_has(&["ann_of_old", "ann2"]);
    assert_eq!(names().await, (json!("ann"), json!(["ann", "ann_of_old", "ann2"])));
    let bob = sim.person(4712, "Bob", Some("bob"));
    for taken in ["ANN", "ann2"] {
        assert_eq!(bob.renames(Some(taken)), Err(SimError::Taken));
    }
    ann.renames(None).unwrap();
    assert_eq!(names().await, (json!("ann_of_old"), json!(["ann_of_old", "ann2"])));
    ann.also_has(&[]);
    assert_eq!(names().await, (Value::Null, Value::Null));
    bob.renames(Some("ann")).unwrap();
}

#[tokio::test]
async fn a_person_may_have_a_last_name() {
    let (_sim, bot, ann) = quick();
    assert_eq!(received(&bot).await.from.unwrap().last_name, None);
    ann.has_last_name("Featherstone");
    assert_eq!(bot.get_chat(ANN).await.unwrap().last_name(), Some("Featherstone"));
    ann.says("hello");
    assert_eq!(received(&bot).await.from.unwrap().last_name.unwrap(), "Featherstone");
}

#[tokio::test]
async fn an_answer_in_a_topic_names_a_topic_and_a_message_that_exist() {
    let (sim, bot, ann) = quick();
    let group = ChatId(sim.group("Friends", &[&ann]));
    let said = ann.says_in_topic(group.0, 77, "/balance@wallet_kms_bot").unwrap();
    let message = received(&bot).await;
    let topic = message.thread_id.unwrap();
    assert!(message.is_topic_message && topic == ThreadId(MessageId(77)));
    let reply = ReplyParameters::new(message.id);
    let sent = bot.send_message(group, "in private").message_thread_id(topic);
    let sent = sent.reply_parameters(reply).await.unwrap();
    let shown = sim.messages(group.0).pop().unwrap();
    assert_eq!((shown.id, shown.topic), (i64::from(sent.id.0), Some(77)));
    assert_eq!(shown.reply_to, Some(said));
    let elsewhere = bot.send_message(group, "x").message_thread_id(ThreadId(MessageId(78))).await;
    assert!(refused(elsewhere).to_string().contains("thread not found"));
    let mut gone = ReplyParameters::new(MessageId(999));
    let refusal = refused(bot.send_message(group, "x").reply_parameters(gone.clone()).await);
    assert_eq!(refusal, ApiError::MessageToReplyNotFound);
    gone.allow_sending_without_reply = Some(true);
    bot.send_message(group, "x").reply_parameters(gone).await.unwrap();
}

#[tokio::test]
async fn only_an_administrator_deletes_what_others_write_in_a_group() {
    let (sim, bot, ann) = quick();
    let group = ChatId(sim.group("Friends", &[&ann]));
    let said = ann.says_in(group.0, "/password my secret").unwrap();
    let said = MessageId(i32::try_from(said).unwrap());
    let refusal = refused(bot.delete_message(group, said).await).to_string();
    assert!(refusal.contains("can't be deleted"), "{refusal}");
    sim.promote_bot(group.0);
    bot.delete_message(group, said).await.unwrap();
    let own = bot.send_message(group, "own").await.unwrap().id;
    bot.delete_message(group, own).await.unwrap();
}

#[tokio::test]
async fn no_message_of_the_bot_has_a_live_location_to_stop() {
    let (sim, bot, ann) = quick();
    let text = bot.send_message(ANN, "hello").await.unwrap().id;
    let photo = InputFile::memory(png());
    let photo = bot.send_photo(ANN, photo).caption("scan").await.unwrap().id;
    for own in [text, photo] {
        let refusal = refused(bot.stop_message_live_location(ANN, own).await).to_string();
        assert!(refusal.contains("there is no live location in the message"), "{refusal}");
    }
    let theirs = MessageId(i32::try_from(ann.says("hello")).unwrap());
    let refusal = refused(bot.stop_message_live_location(ANN, theirs).await);
    assert_eq!(refusal, ApiError::MessageCantBeEdited);
    // A message that its reader deleted, and one of another chat.
    ann.deletes(i64::from(text.0)).unwrap();
    assert_eq!(ann.deletes(i64::from(text.0)), Err(SimError::NoMessage(i64::from(text.0))));
    let bob = sim.person(4712, "Bob", None);
    let elsewhere = MessageId(i32::try_from(bob.says("/start")).unwrap());
    for missing in [text, elsewhere] {
        let refusal = refused(bot.stop_message_live_location(ANN, missing).await);
        assert_eq!(refusal, ApiError::MessageToEditNotFound);
    }
}
