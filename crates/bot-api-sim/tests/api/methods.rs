//! What works, and what is refused as Telegram refuses it.

use bot_api_sim::{Change, Fault, Person, Sim, SimError};
use teloxide_core::payloads::{
    AnswerCallbackQuerySetters, EditMessageTextSetters, GetUpdatesSetters, SendMessageSetters,
    SendPhotoSetters,
};
use teloxide_core::requests::Requester;
use teloxide_core::types::{
    AllowedUpdate, BotCommand, CallbackQueryId, ChatId, InlineKeyboardButton, InlineKeyboardMarkup,
    InputFile, MessageId, ParseMode, Recipient, Update, UpdateKind,
};
use teloxide_core::{ApiError, Bot, RequestError};

use crate::{ANN, png};

fn start() -> (Sim, Bot) {
    let sim = Sim::start().unwrap();
    let bot = Bot::new(sim.token()).set_api_url(sim.api_url().parse().unwrap());
    (sim, bot)
}

fn ann(sim: &Sim) -> Person {
    sim.person(4711, "Ann", Some("ann"))
}

fn button(text: &str, data: &str) -> InlineKeyboardMarkup {
    InlineKeyboardMarkup::new([[InlineKeyboardButton::callback(text, data)]])
}

async fn updates(bot: &Bot, offset: i32) -> Vec<Update> {
    bot.get_updates().offset(offset).timeout(5).await.unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, RequestError>) -> String {
    match result.unwrap_err() {
        RequestError::Api(error) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn updates_arrive_in_order_until_they_are_acknowledged() {
    let (sim, bot) = start();
    assert_eq!(bot.get_me().await.unwrap().username(), "wallet_kms_bot");
    let ann = ann(&sim);
    ann.says("one");
    ann.says("two");
    let first = updates(&bot, 0).await;
    assert_eq!(first.len(), 2);
    assert_eq!(updates(&bot, 0).await, first, "nothing was acknowledged");
    let second = updates(&bot, first[0].id.as_offset()).await;
    assert_eq!(second[..], first[1..]);
    let UpdateKind::Message(message) = &second[0].kind else { panic!("{second:?}") };
    assert_eq!((message.text(), message.chat.is_private()), (Some("two"), true));
    assert!(
        bot.get_updates().offset(second[0].id.as_offset()).timeout(0).await.unwrap().is_empty()
    );
}

#[tokio::test]
async fn a_poll_waits_until_a_second_one_terminates_it() {
    let (sim, bot) = start();
    let waiting = tokio::spawn({
        let bot = bot.clone();
        async move { bot.get_updates().timeout(30).await }
    });
    let mut watch = sim.watch();
    watch.changed().await.unwrap();
    let ann = ann(&sim);
    let newer = bot.get_updates().timeout(30);
    let (newer, ()) = tokio::join!(newer, async {
        let older = refusal(waiting.await.unwrap());
        assert!(older.contains("terminated by other"), "{older}");
        ann.says("hello");
    });
    assert_eq!(newer.unwrap().len(), 1);
}

#[tokio::test]
async fn the_bot_writes_only_to_users_who_started_it_and_did_not_block_it() {
    let (sim, bot) = start();
    let ann = ann(&sim);
    assert_eq!(
        refusal(bot.send_message(ChatId(1), "hello").await),
        ApiError::ChatNotFound.to_string()
    );
    let early = refusal(bot.send_message(ANN, "hello").await);
    assert!(early.contains("can't initiate conversation"), "{early}");
    assert!(bot.get_chat(ANN).await.is_err());
    ann.says("/start");
    bot.send_message(ANN, "hello").await.unwrap();
    assert_eq!(bot.get_chat(ANN).await.unwrap().username(), Some("ann"));
    ann.blocks();
    assert_eq!(refusal(bot.send_message(ANN, "x").await), ApiError::BotBlocked.to_string());
    let by_name = Recipient::ChannelUsername("@ann".to_owned());
    assert_eq!(refusal(bot.get_chat(by_name).await), ApiError::ChatNotFound.to_string());
}

#[tokio::test]
async fn an_edit_without_buttons_removes_them() {
    let (sim, bot) = start();
    let ann = ann(&sim);
    ann.says("/start");
    let sent = bot.send_message(ANN, "choose").reply_markup(button("Go", "go")).await.unwrap();
    let id = i64::from(sent.id.0);
    assert_eq!(ann.presses(ANN.0, id, "Stop"), Err(SimError::NoButton("Stop".to_owned())));
    ann.presses(ANN.0, id, "Go").unwrap();
    let update = updates(&bot, 0).await.pop().unwrap();
    let UpdateKind::CallbackQuery(query) = update.kind else { panic!("{update:?}") };
    assert_eq!(query.data.as_deref(), Some("go"));
    bot.answer_callback_query(query.id.clone()).text("done").await.unwrap();
    assert!(bot.answer_callback_query(query.id).await.is_err(), "a query is answered only once");
    assert!(bot.answer_callback_query(CallbackQueryId("x".to_owned())).await.is_err());

    let same = bot.edit_message_text(ANN, sent.id, "choose").reply_markup(button("Go", "go"));
    assert_eq!(refusal(same.await), ApiError::MessageNotModified.to_string());
    bot.edit_message_text(ANN, sent.id, "chosen").await.unwrap();
    assert!(ann.chat().last().unwrap().keyboard.is_empty());
    assert!(ann.changes().contains(&Change::Notice { text: "done".to_owned() }));

    let long = bot.send_message(ANN, "x").reply_markup(button("Go", &"x".repeat(65)));
    assert!(refusal(long.await).contains("BUTTON_DATA_INVALID"));
    let local = InlineKeyboardButton::url("Open", "http://localhost/x".parse().unwrap());
    let local = bot.send_message(ANN, "x").reply_markup(InlineKeyboardMarkup::new([[local]]));
    assert!(refusal(local.await).contains("Wrong HTTP URL"));
}

#[tokio::test]
async fn html_is_parsed_as_strictly_as_telegram_does() {
    let (sim, bot) = start();
    ann(&sim).says("/start");
    for bad in ["<b>bold", "1 < 2", "<blink>x</blink>"] {
        let sent = bot.send_message(ANN, bad).parse_mode(ParseMode::Html).await;
        assert!(refusal(sent).contains("can't parse entities"), "{bad}");
    }
    let sent = bot.send_message(ANN, "<b>1 &lt; 2</b>").parse_mode(ParseMode::Html).await.unwrap();
    assert_eq!(sent.text(), Some("1 < 2"));
    assert_eq!(refusal(bot.send_message(ANN, " ").await), ApiError::MessageTextIsEmpty.to_string());
    assert_eq!(
        refusal(bot.send_message(ANN, "x".repeat(4097)).await),
        ApiError::MessageIsTooLong.to_string()
    );
}

#[tokio::test]
async fn a_deleted_message_is_stored_nowhere() {
    let (sim, bot) = start();
    let ann = ann(&sim);
    let id = ann.says("my canary password");
    let update = updates(&bot, 0).await.pop().unwrap();
    assert!(sim.stored().contains("canary"));
    let id = MessageId(i32::try_from(id).unwrap());
    bot.delete_message(ANN, id).await.unwrap();
    bot.get_updates().offset(update.id.as_offset()).timeout(0).await.unwrap();
    assert!(!sim.stored().contains("canary"));
    assert!(bot.delete_message(ANN, id).await.is_err(), "the message is gone");
}

#[tokio::test]
async fn photos_are_uploaded_and_have_no_text_to_edit() {
    let (sim, bot) = start();
    let ann = ann(&sim);
    ann.says("/receive");
    let sent = bot.send_photo(ANN, InputFile::memory(png())).caption("scan").await.unwrap();
    assert_eq!(ann.chat().last().unwrap().photo, Some(png()));
    assert!(bot.edit_message_text(ANN, sent.id, "x").await.is_err());
    for broken in [&b"text"[..], &png()[..20]] {
        let sent = bot.send_photo(ANN, InputFile::memory(broken.to_vec())).await;
        assert!(refusal(sent).contains("IMAGE_PROCESS_FAILED"));
    }
}

#[tokio::test]
async fn in_groups_the_bot_receives_only_commands_and_replies_to_it() {
    let (sim, bot) = start();
    let (ann, bob) = (ann(&sim), sim.person(4712, "Bob", None));
    let group = sim.group("Friends", &[&ann]);
    ann.says_in(group, "only for friends").unwrap();
    ann.says_in(group, "/start@another_bot").unwrap();
    ann.says_in(group, "/start@wallet_kms_bot").unwrap();
    assert_eq!(bob.says_in(group, "/start"), Err(SimError::NotThere));
    let update = updates(&bot, 0).await;
    assert_eq!(update.len(), 1);
    let UpdateKind::Message(message) = &update[0].kind else { panic!("{update:?}") };
    assert!(message.chat.is_supergroup());
    let link = "https://t.me/wallet_kms_bot?start=balance".parse().unwrap();
    let link = InlineKeyboardMarkup::new([[InlineKeyboardButton::url("Open", link)]]);
    let sent = bot.send_message(ChatId(group), "in private").reply_markup(link).await.unwrap();
    let reply = ann.replies_in(group, i64::from(sent.id.0), "an answer").unwrap();
    let theirs = bot.delete_message(ChatId(group), message.id).await;
    assert!(theirs.is_err(), "the message of another user in a group");
    let last = updates(&bot, update[0].id.as_offset()).await.pop().unwrap();
    let UpdateKind::Message(answer) = last.kind else { panic!("{last:?}") };
    assert_eq!(i64::from(answer.id.0), reply, "the bot receives replies to it");
    ann.presses(group, i64::from(sent.id.0), "Open").unwrap();
    assert_eq!(ann.chat().last().unwrap().text, "/start balance");
}

#[tokio::test]
async fn only_requested_kinds_of_updates_arrive() {
    let (sim, bot) = start();
    let asked = bot.get_updates().allowed_updates([AllowedUpdate::Message]).timeout(0);
    assert!(asked.await.unwrap().is_empty());
    let ann = ann(&sim);
    let id = ann.says("one");
    ann.edits(id, "two").unwrap();
    ann.forwards("three");
    let updates = updates(&bot, 0).await;
    let forwarded = |update: &Update| match &update.kind {
        UpdateKind::Message(message) => message.forward_origin().is_some(),
        other => panic!("{other:?}"),
    };
    assert_eq!(updates.iter().map(forwarded).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn wrong_tokens_and_methods_that_are_not_simulated_are_refused() {
    let (sim, bot) = start();
    let unknown = Bot::new("1:x").set_api_url(sim.api_url().parse().unwrap());
    assert_eq!(refusal(unknown.get_me().await), ApiError::InvalidToken.to_string());
    assert!(bot.log_out().await.is_err(), "not simulated");
    let command = |name: &str| bot.set_my_commands([BotCommand::new(name, "what it does")]);
    command("start").await.unwrap();
    assert_eq!(sim.commands(), [("start".to_owned(), "what it does".to_owned())]);
    assert!(command("Start").await.is_err());
    sim.break_next("GetMe", Fault::TooManyRequests(3));
    assert!(matches!(bot.get_me().await, Err(RequestError::RetryAfter(_))));
    bot.get_me().await.unwrap();
}
