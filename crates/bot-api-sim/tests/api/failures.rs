//! How Telegram fails and how it limits a bot.

use std::time::Duration;

use bot_api_sim::{Fault, Limits};
use teloxide_core::payloads::GetUpdatesSetters;
use teloxide_core::requests::Requester;
use teloxide_core::types::{ChatAction, ChatId, InputFile, MessageId, Update, UpdateKind};
use teloxide_core::{ApiError, Bot, RequestError};

use crate::{ANN, png, refused, start};

async fn updates(bot: &Bot, offset: i32) -> Vec<Update> {
    bot.get_updates().offset(offset).timeout(0).await.unwrap()
}

/// So long that no test ends before another message may be sent.
fn once_a_minute() -> Limits {
    let mut limits = Limits::default();
    limits.chat_interval = Duration::from_secs(60);
    limits
}

#[tokio::test]
async fn a_chat_takes_a_burst_of_messages_and_edits_and_then_waits() {
    let (sim, bot, _ann) = start();
    sim.set_limits(once_a_minute());
    let sent = bot.send_message(ANN, "0").await.unwrap().id;
    for number in 1..5 {
        bot.edit_message_text(ANN, sent, number.to_string()).await.unwrap();
    }
    let over = bot.send_message(ANN, "one too many").await;
    assert!(matches!(over, Err(RequestError::RetryAfter(wait)) if wait.seconds() > 50));
    assert!(sim.ignored_waits().is_empty());
    // While it waits, nothing else may be sent to the chat, but secrets may be deleted.
    let early = bot.send_chat_action(ANN, ChatAction::Typing).await;
    assert!(matches!(early, Err(RequestError::RetryAfter(_))));
    assert_eq!(sim.ignored_waits().len(), 1);
    bot.delete_message(ANN, sent).await.unwrap();
}

#[tokio::test]
async fn all_chats_together_take_thirty_messages_a_second() {
    let (sim, bot, _ann) = start();
    for id in 1..=40 {
        sim.person(id, "Someone", None).says("/start");
    }
    let sends = (1..=40).map(|id| {
        let bot = bot.clone();
        async move { bot.send_message(ChatId(id), "hello").await.is_ok() }
    });
    let begun = std::time::Instant::now();
    let sent = futures::future::join_all(sends).await;
    let sent = sent.into_iter().filter(|sent| *sent).count();
    assert!(sent == 30 || (sent > 30 && begun.elapsed().as_secs() >= 1), "{sent}");
}

#[tokio::test]
async fn a_group_takes_twenty_messages_a_minute() {
    let (sim, bot, ann) = start();
    let group = ChatId(sim.group("Friends", &[&ann]));
    for _ in 0..20 {
        bot.send_message(group, "hello").await.unwrap();
    }
    let over = bot.send_message(group, "hello").await;
    assert!(matches!(over, Err(RequestError::RetryAfter(wait)) if wait.seconds() > 50));
}

#[tokio::test]
async fn a_lost_call_does_nothing_and_a_lost_answer_hides_what_was_done() {
    let (sim, bot, ann) = start();
    for (fault, arrives) in [(Fault::CallLost, false), (Fault::AnswerLost, true)] {
        let before = ann.chat().len();
        sim.break_next("SendMessage", fault);
        let sent = bot.send_message(ANN, "hello").await;
        assert!(matches!(sent, Err(RequestError::Network(_))), "{sent:?}");
        assert_eq!(ann.chat().len() > before, arrives, "{fault:?}");
    }
    sim.break_next("SendMessage", Fault::Slow(Duration::from_millis(50)));
    bot.send_message(ANN, "hello").await.unwrap();
}

#[tokio::test]
async fn a_photo_fails_as_a_message_does_and_counts_as_one() {
    let (sim, bot, ann) = start();
    sim.set_limits(once_a_minute());
    let photo = || InputFile::memory(png());
    for (fault, arrives) in [(Fault::CallLost, false), (Fault::AnswerLost, true)] {
        let before = ann.chat().len();
        sim.break_next("SendPhoto", fault);
        let sent = bot.send_photo(ANN, photo()).await;
        assert!(matches!(sent, Err(RequestError::Network(_))), "{sent:?}");
        assert_eq!(ann.chat().len() > before, arrives, "{fault:?}");
    }
    for _ in 0..4 {
        bot.send_photo(ANN, photo()).await.unwrap();
    }
    let over = bot.send_message(ANN, "one too many").await;
    assert!(matches!(over, Err(RequestError::RetryAfter(_))), "{over:?}");
}

#[tokio::test]
async fn a_wait_on_a_tests_order_holds_the_chat_and_no_other() {
    let (sim, bot, _ann) = start();
    sim.person(1, "Someone", None).says("/start");
    sim.break_next("SendMessage", Fault::TooManyRequests(30));
    assert!(matches!(bot.send_message(ANN, "x").await, Err(RequestError::RetryAfter(_))));
    let early = bot.edit_message_text(ANN, MessageId(1), "x").await;
    assert!(matches!(early, Err(RequestError::Api(_))), "the user's message");
    assert!(matches!(bot.send_message(ANN, "x").await, Err(RequestError::RetryAfter(_))));
    bot.send_message(ChatId(1), "x").await.unwrap();
    assert_eq!(sim.ignored_waits().len(), 1);
}

#[tokio::test]
async fn a_slow_call_is_done_although_its_caller_has_gone() {
    let (sim, bot, ann) = start();
    let before = ann.chat().len();
    sim.break_next("SendMessage", Fault::Slow(Duration::from_secs(3)));
    let sent = tokio::spawn(async move { bot.send_message(ANN, "hello").await });
    let mut watch = sim.watch();
    while sim.faults_left() > 0 {
        watch.changed().await.unwrap();
    }
    sent.abort();
    assert!(sent.await.unwrap_err().is_cancelled());
    assert_eq!(ann.chat().len(), before);
    while ann.chat().last().is_none_or(|message| message.text != "hello") {
        watch.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_late_answer_comes_after_what_was_done() {
    let (sim, bot, ann) = start();
    sim.break_next("SendMessage", Fault::LateAnswer(Duration::from_secs(3)));
    let sent = tokio::spawn(async move { bot.send_message(ANN, "hello").await });
    let mut watch = sim.watch();
    while ann.chat().last().is_none_or(|message| message.text != "hello") {
        watch.changed().await.unwrap();
    }
    assert!(!sent.is_finished());
    sent.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_call_meets_the_fate_that_a_test_decides() {
    let (sim, bot, _ann) = start();
    sim.decide(|method| (method == "GetChat").then_some(Fault::TooManyRequests(7)));
    let waits = bot.get_chat(ANN).await;
    assert!(matches!(waits, Err(RequestError::RetryAfter(wait)) if wait.seconds() == 7));
    sim.decide(|_| None);
    bot.get_chat(ANN).await.unwrap();
}

#[tokio::test]
async fn acknowledged_updates_can_come_again_once() {
    let (sim, bot, ann) = start();
    let first = updates(&bot, 0).await;
    let offset = first[0].id.as_offset();
    assert!(updates(&bot, offset).await.is_empty());
    ann.says("two");
    sim.repeat_updates(2);
    let again = updates(&bot, offset).await;
    assert_eq!(again.len(), 3, "one twice, as it is new as well");
    assert_eq!(again[0], first[0]);
    assert_eq!(updates(&bot, offset).await.len(), 1);
    assert_eq!(sim.unacknowledged_updates(), 1);
}

#[tokio::test]
async fn blocking_and_unblocking_are_updates() {
    let (_sim, bot, ann) = start();
    ann.blocks();
    ann.blocks();
    ann.says("I am back");
    let kinds = updates(&bot, 0).await.into_iter().map(|update| match update.kind {
        UpdateKind::MyChatMember(change) => format!("{:?}", change.new_chat_member.status()),
        UpdateKind::Message(message) => message.text().unwrap_or_default().to_owned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["/start", "Banned", "Member", "I am back"]);
}

#[tokio::test]
async fn old_messages_cannot_be_deleted_and_are_not_shown_with_a_press() {
    let (sim, bot, ann) = start();
    let old = ann.said("a password of last week", Duration::from_secs(7 * 24 * 3_600));
    let old = MessageId(i32::try_from(old).unwrap());
    let refusal = refused(bot.delete_message(ANN, old).await).to_string();
    assert!(refusal.contains("can't be deleted"), "{refusal}");
    let keyboard = teloxide_core::types::InlineKeyboardButton::callback("Go", "go");
    let keyboard = teloxide_core::types::InlineKeyboardMarkup::new([[keyboard]]);
    let mut sent = bot.send_message(ANN, "choose");
    sent.reply_markup = Some(keyboard.into());
    let sent = sent.await.unwrap();
    sim.pass_time(Duration::from_secs(3 * 24 * 3_600));
    ann.presses(ANN.0, i64::from(sent.id.0), "Go").unwrap();
    let update = updates(&bot, 0).await.pop().unwrap();
    let UpdateKind::CallbackQuery(query) = update.kind else { panic!("{update:?}") };
    let message = query.message.unwrap();
    assert!(message.regular_message().is_none() && message.id() == sent.id);
    assert_eq!(sim.unanswered_presses(), 1);
    bot.answer_callback_query(query.id).await.unwrap();
    assert_eq!(sim.unanswered_presses(), 0);
}

#[tokio::test]
async fn only_the_buttons_of_a_message_can_be_edited_and_not_in_vain() {
    let (sim, bot, ann) = start();
    sim.set_limits(Limits::times_faster(100));
    let sent = bot.send_message(ANN, "hello").await.unwrap().id;
    let unchanged = refused(bot.edit_message_reply_markup(ANN, sent).await);
    assert_eq!((unchanged, sim.vain_edits()), (ApiError::MessageNotModified, 1));
    let theirs = ann.chat().first().unwrap().id;
    let theirs = bot.edit_message_reply_markup(ANN, MessageId(i32::try_from(theirs).unwrap()));
    assert_eq!(refused(theirs.await), ApiError::MessageCantBeEdited);
    let missing = bot.edit_message_reply_markup(ANN, MessageId(999)).await;
    assert_eq!(refused(missing), ApiError::MessageToEditNotFound);
}

#[tokio::test]
async fn a_call_about_one_chat_fails_after_others_that_succeed() {
    let (sim, bot, ann) = start();
    sim.person(1, "Someone", None).says("/start");
    sim.break_later(Some(ann.id()), "SendMessage", Fault::CallLost, 2);
    sim.break_later(None, "EditMessageText", Fault::CallLost, 0);
    for _ in 0..3 {
        bot.send_message(ChatId(1), "hello").await.unwrap();
    }
    for fails in [false, false, true, false] {
        assert_eq!(bot.send_message(ANN, "hello").await.is_err(), fails);
    }
    assert_eq!((sim.forget_faults(), sim.faults_left()), (1, 0));
}

#[tokio::test]
async fn a_press_can_be_answered_for_a_short_time_only() {
    let (sim, bot, ann) = start();
    let button = teloxide_core::types::InlineKeyboardButton::callback("Go", "go");
    let mut sent = bot.send_message(ANN, "choose");
    sent.reply_markup = Some(teloxide_core::types::InlineKeyboardMarkup::new([[button]]).into());
    let sent = sent.await.unwrap();
    ann.presses(ANN.0, i64::from(sent.id.0), "Go").unwrap();
    let update = updates(&bot, 0).await.pop().unwrap();
    let UpdateKind::CallbackQuery(query) = update.kind else { panic!("{update:?}") };
    sim.pass_time(Duration::from_secs(31));
    assert_eq!(sim.unanswered_presses(), 1);
    let late = refused(bot.answer_callback_query(query.id).await);
    assert!(late.to_string().contains("query is too old"), "{late}");
}

#[tokio::test]
async fn a_failure_of_a_proxy_has_no_json() {
    let (sim, bot, ann) = start();
    let before = ann.chat().len();
    for status in [500, 503, 504] {
        sim.break_next("SendMessage", Fault::ServerError(status));
        let url = format!("{}bot{}/SendMessage", bot.api_url(), bot.token());
        let message = serde_json::json!({ "chat_id": ANN.0, "text": "hello" });
        let answer = bot.client().post(url).json(&message).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(answer.json::<serde_json::Value>().await.is_err());
    }
    assert_eq!(ann.chat().len(), before);
}

#[tokio::test]
async fn what_a_text_looks_like_becomes_entities() {
    let (_sim, bot, ann) = start();
    let mut sent = bot.send_message(ANN, "<b>Bob</b> @ann_smith <code>/send</code> /help e.vil");
    sent.parse_mode = Some(teloxide_core::types::ParseMode::Html);
    sent.await.unwrap();
    let shown = ann.chat().pop().unwrap();
    assert_eq!(shown.marked(&["mention", "bot_command", "url"]), ["@ann_smith", "/help", "e.vil"]);
    assert_eq!(shown.marked(&["bold", "code"]), ["Bob", "/send"]);
}

#[tokio::test]
async fn an_edit_that_repeats_one_whose_answer_was_lost_is_not_in_vain() {
    let (sim, bot, _ann) = start();
    let sent = bot.send_message(ANN, "0").await.unwrap().id;
    sim.break_next("EditMessageText", Fault::AnswerLost);
    assert!(bot.edit_message_text(ANN, sent, "1").await.is_err());
    for vain in [0, 1] {
        let again = refused(bot.edit_message_text(ANN, sent, "1").await);
        assert_eq!((again, sim.vain_edits()), (ApiError::MessageNotModified, vain));
    }
}
