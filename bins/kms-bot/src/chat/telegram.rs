//! The Bot API as the handlers use it: HTML messages in private chats, at a pace that Telegram
//! accepts, repeated until their outcome is known.
//!
//! Errors keep only their kind: the URL of every call contains the token, and a response may
//! contain what a user wrote.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kms_types::{TelegramId, Username, Usernames};
use serde::{Deserialize, Serialize};
use teloxide_core::payloads::{
    AnswerCallbackQuery, AnswerCallbackQuerySetters, DeleteMessage, EditMessageReplyMarkup,
    EditMessageReplyMarkupSetters, EditMessageText, EditMessageTextSetters, GetChat,
    SendChatAction, SendMessage, SendMessageSetters, SendPhotoSetters,
};
use teloxide_core::requests::{Payload, Requester};
use teloxide_core::types::{
    CallbackQueryId, ChatAction, ChatId, InputFile, LinkPreviewOptions, MessageId, ParseMode,
    ReplyParameters,
};
use teloxide_core::{ApiError, Bot, RequestError};
use tokio::time::{Instant, timeout};

use self::late::LateCalls;
use self::outcome::{KnownMessages, deleted};
use super::calls::{Call, CallError, Upload};
use super::incoming::{Group, User};
use super::keyboard::{Keyboard, Keys};
use super::pace::{Pace, RateLimits};
use super::shown::{Place, Shown};
use crate::texts::{Html, Text};

mod late;
mod outcome;

/// Telegram counts as reachable for this long after its last response; a poll takes at most ten
/// seconds.
const REACHABLE_FOR: Duration = Duration::from_secs(30);

/// How long a handler waits for the answer to a press.
const MOMENT: Duration = Duration::from_secs(1);

/// The beginnings of the Bot API's refusals.
const REFUSALS: [&str; 6] =
    ["Bad Request", "Unauthorized", "Forbidden", "Not Found", "Conflict", "Request Entity"];

/// Why a call of the Bot API failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TelegramError {
    /// The user blocked the bot, never started it, or no longer exists.
    #[error("the user cannot receive messages from this bot")]
    Gone,
    /// No bot has this token.
    #[error("telegram.token: Telegram does not know this token; get it from @BotFather")]
    Token,
    /// Another process polls with this token.
    #[error("another bot process polls with this token")]
    Conflict,
    /// Telegram refused the call for another reason.
    #[error("Telegram refused the call: {0}")]
    Refused(ApiError),
    /// Telegram did not respond, or not with the Bot API's JSON.
    #[error("Telegram is unreachable: {0}")]
    Unreachable(&'static str),
    /// Telegram asks to wait for this long. Nothing was done.
    #[error("Telegram asks to wait for {} s: rate limit", .0.as_secs())]
    RateLimit(Duration),
}

impl TelegramError {
    /// Reports whether the same call may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::RateLimit(_) => true,
            Self::Gone | Self::Token | Self::Conflict | Self::Refused(_) => false,
        }
    }
}

impl From<CallError> for TelegramError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => error.into(),
            CallError::Wait(time) => Self::RateLimit(time),
            CallError::Unknown(what) => Self::Unreachable(what),
            CallError::Timeout => Self::Unreachable("timeout"),
        }
    }
}

impl From<RequestError> for TelegramError {
    fn from(error: RequestError) -> Self {
        CallError::from(error).into()
    }
}

impl From<ApiError> for TelegramError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::BotBlocked
            | ApiError::ChatNotFound
            | ApiError::UserDeactivated
            | ApiError::CantInitiateConversation => Self::Gone,
            // teloxide expects this description with a different beginning.
            ApiError::Unknown(text) if text.contains("can't initiate conversation") => Self::Gone,
            // Other unknown descriptions are failures of Telegram itself, like "Bad Gateway".
            ApiError::Unknown(text) if !REFUSALS.iter().any(|known| text.starts_with(known)) => {
                Self::Unreachable("server error")
            }
            ApiError::InvalidToken => Self::Token,
            ApiError::TerminatedByOtherGetUpdates => Self::Conflict,
            error => Self::Refused(error),
        }
    }
}

/// A client of the Bot API. Has no `Debug`: it would show the token.
pub(crate) struct Telegram {
    api: Bot,
    pace: Pace,
    shown: Shown,
    known: KnownMessages,
    late: LateCalls,
    /// For what is done later.
    me: Weak<Self>,
    started: Instant,
    last_response: Mutex<Instant>,
}

/// The names of a user at Telegram.
pub(crate) struct Profile {
    pub(crate) first_name: Option<String>,
    pub(crate) usernames: Usernames,
}

/// `getChat`, with the usernames of a private chat, which teloxide does not read.
#[derive(Serialize)]
struct GetNames {
    chat_id: ChatId,
}

#[derive(Deserialize)]
struct ShownNames {
    first_name: Option<String>,
    username: Option<String>,
    #[serde(default)]
    active_usernames: Vec<String>,
}

impl Payload for GetNames {
    type Output = ShownNames;

    const NAME: &'static str = "GetChat";
}

impl Telegram {
    pub(crate) fn new(api: Bot, limits: RateLimits) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            api,
            pace: Pace::new(limits),
            shown: Shown::default(),
            known: KnownMessages::default(),
            late: LateCalls::default(),
            me: me.clone(),
            started: Instant::now(),
            last_response: Mutex::new(Instant::now()),
        })
    }

    /// Records that Telegram responded.
    pub(crate) fn record_response(&self) {
        *self.last_response.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Reports whether Telegram responded recently, to any call.
    pub(crate) fn is_reachable(&self) -> bool {
        let last = *self.last_response.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() < REACHABLE_FOR
    }

    /// Records that a message exists in a private chat. It may still be one that is looked for: a
    /// press names a message of the bot, and not what it reports.
    pub(crate) fn reach_message(&self, message: MessageId) {
        self.known.reach(message);
    }

    /// Records a message in a private chat that is none of those that are looked for.
    pub(crate) fn record_message(&self, message: MessageId) {
        self.known.add(message);
    }

    /// The highest id of a message that is known, to find later what was sent after it.
    pub(crate) fn last_message(&self) -> MessageId {
        self.known.highest()
    }

    /// Waits until a notice of a payment to this user delays no answer.
    pub(crate) async fn quiet(&self, user: TelegramId) {
        self.pace.quiet(chat(user)).await;
    }

    /// Sends a message and returns its id.
    pub(crate) async fn send(
        &self,
        to: TelegramId,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<MessageId, TelegramError> {
        let message = message(chat(to), html, keyboard.clone());
        let sent = self.send_once(chat(to), &message).await?;
        if sent.is_certain {
            self.shown.record((chat(to), sent.id), html, &keyboard);
        } else {
            // An earlier message gets this text. If that fails, the next edit is not left out.
            let _ = self.edit(to, sent.id, html, keyboard).await;
        }
        Ok(sent.id)
    }

    /// Sends a message that changes the keys in place of the user's keyboard.
    pub(crate) async fn send_with_keys(
        &self,
        to: TelegramId,
        html: &Html,
        keys: Keys,
    ) -> Result<(), TelegramError> {
        let to = chat(to);
        let message = message(to, html, Keyboard::none()).reply_markup(keys.into_markup());
        self.send_once(to, &message).await.map(drop)
    }

    /// Sends a message to a group. Its rate limit is not waited out: other users share it.
    pub(crate) async fn send_to_group(
        &self,
        group: Group,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        if !self.pace.try_group(group.chat) {
            return Err(TelegramError::RateLimit(Duration::ZERO));
        }
        let mut reply = ReplyParameters::new(group.message);
        reply.allow_sending_without_reply = Some(true);
        let mut message = message(group.chat, html, keyboard).reply_parameters(reply);
        message.message_thread_id = group.topic;
        match message.attempt(&self.api).await {
            Ok(_) => Ok(()),
            Err(error) => {
                if let CallError::Wait(time) = error {
                    self.pace.wait(group.chat, time);
                }
                Err(error.into())
            }
        }
    }

    /// Replaces the text and the buttons of a message. Nothing is sent if it shows them already.
    pub(crate) async fn edit(
        &self,
        of: TelegramId,
        message: MessageId,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        let message = (chat(of), self.shown.successor((chat(of), message)));
        let _turn = self.late.turn(message.0).await;
        if self.shown.is_shown(message, html, &keyboard) {
            return Ok(());
        }
        self.shown.forget(message);
        let edit = edit_of(message, html, keyboard.clone());
        match self.repeat_edit(message, &edit).await {
            Ok(_) | Err(CallError::Refused(ApiError::MessageNotModified)) => {
                self.shown.record(message, html, &keyboard);
                self.late.record(message, html, &keyboard);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the buttons of a message. A message that no longer exists is no error.
    pub(crate) async fn remove_buttons(
        &self,
        of: TelegramId,
        message: MessageId,
    ) -> Result<(), TelegramError> {
        let message = (chat(of), self.shown.successor((chat(of), message)));
        let _turn = self.late.turn(message.0).await;
        self.shown.forget(message);
        match self.repeat_edit(message, &without_buttons(message)).await {
            Ok(_) | Err(CallError::Refused(_)) => {
                self.late.record_no_buttons(message);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Edits a message, or sends a new one if it no longer exists or is too old. Later edits are
    /// made in the new one. Returns the message that shows the text.
    pub(crate) async fn edit_or_send(
        &self,
        of: TelegramId,
        message: MessageId,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<MessageId, TelegramError> {
        let message = self.shown.successor((chat(of), message));
        match self.edit(of, message, html, keyboard.clone()).await {
            Err(TelegramError::Refused(_)) => {
                let new = self.send(of, html, keyboard).await?;
                self.replace(of, message, new);
                Ok(new)
            }
            other => other.map(|()| message),
        }
    }

    /// Makes later edits of a message that no longer exists in a new one.
    pub(crate) fn replace(&self, of: TelegramId, gone: MessageId, new: MessageId) {
        self.shown.replace((chat(of), gone), new);
    }

    /// Deletes a message of the bot. A message that no longer exists is no error.
    pub(crate) async fn delete(
        &self,
        of: TelegramId,
        message: MessageId,
    ) -> Result<(), TelegramError> {
        self.late.forget((chat(of), message));
        deleted(self.repeat(None, &DeleteMessage::new(chat(of), message)).await)
    }

    /// Sends a picture with a caption.
    pub(crate) async fn send_picture(
        &self,
        to: TelegramId,
        png: Vec<u8>,
        caption: &Html,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        let to = chat(to);
        let picture = self
            .api
            .send_photo(to, InputFile::memory(png).file_name("address.png"))
            .caption(caption.as_str())
            .parse_mode(ParseMode::Html)
            .reply_markup(keyboard.into_markup());
        self.send_once(to, &Upload(picture)).await.map(drop)
    }

    /// Answers a callback query, which ends the progress indicator of the pressed button, and tries
    /// that for minutes. It waits for the answer for a moment only: what was pressed is done, and
    /// does not fail with its answer.
    pub(crate) async fn answer_query(
        self: &Arc<Self>,
        query: CallbackQueryId,
        notice: Option<Text>,
    ) {
        let mut answer = AnswerCallbackQuery::new(query);
        if let Some(notice) = notice {
            answer = answer.text(notice.into_string());
        }
        let telegram = Arc::clone(self);
        let answered = tokio::spawn(async move {
            match telegram.persist(&answer).await {
                // It was answered before, or is too old. teloxide expects another case.
                Ok(_)
                | Err(CallError::Refused(ApiError::InvalidQueryId | ApiError::Unknown(_))) => {}
                Err(error) => {
                    let error = TelegramError::from(error);
                    tracing::warn!(%error, event = "update_failed", "press not answered");
                }
            }
        });
        let _ = timeout(MOMENT, answered).await;
    }

    /// Shows "typing…" in the chat, unless Telegram asks to leave the chat alone. Errors are
    /// ignored: nothing depends on it.
    pub(crate) async fn typing(&self, to: TelegramId) {
        let to = chat(to);
        if self.pace.waits(to).is_some() {
            return;
        }
        let action = SendChatAction::new(to, ChatAction::Typing);
        if let Err(CallError::Wait(time)) = action.attempt(&self.api).await {
            self.pace.wait(to, time);
        }
    }

    /// Fetches a user who started the bot.
    pub(crate) async fn user(&self, id: TelegramId) -> Result<User, TelegramError> {
        let shown = self.repeat(None, &GetChat::new(chat(id))).await?;
        let username = shown.username().and_then(|name| name.parse().ok());
        let first_name = shown.first_name().unwrap_or_default().to_owned();
        let last_name = shown.last_name().map(str::to_owned);
        Ok(User { id, username, first_name, last_name })
    }

    /// Fetches the current names of a user who started the bot.
    pub(crate) async fn profile(&self, of: TelegramId) -> Result<Profile, TelegramError> {
        let shown = self.repeat(None, &GetNames { chat_id: chat(of) }).await?;
        let ShownNames { first_name, username, active_usernames } = shown;
        let usernames = username.into_iter().chain(active_usernames);
        let usernames = usernames.filter_map(|name| name.parse::<Username>().ok()).collect();
        Ok(Profile { first_name, usernames })
    }

    /// Fetches the usernames of a user: at least the one that the user's message showed.
    pub(crate) async fn usernames(&self, user: &User) -> Usernames {
        match self.profile(user.id).await {
            Ok(profile) => profile.usernames,
            Err(_unknown) => user.username.clone().into_iter().collect(),
        }
    }
}

fn edit_of((chat, message): Place, html: &Html, keyboard: Keyboard) -> EditMessageText {
    EditMessageText::new(chat, message, html.as_str())
        .parse_mode(ParseMode::Html)
        .link_preview_options(no_preview())
        .reply_markup(keyboard.into_markup())
}

fn without_buttons((chat, message): Place) -> EditMessageReplyMarkup {
    EditMessageReplyMarkup::new(chat, message).reply_markup(Keyboard::none().into_markup())
}

fn message(chat: ChatId, html: &Html, keyboard: Keyboard) -> SendMessage {
    SendMessage::new(chat, html.as_str())
        .parse_mode(ParseMode::Html)
        .link_preview_options(no_preview())
        .reply_markup(keyboard.into_markup())
}

fn chat(of: TelegramId) -> ChatId {
    ChatId(of.into())
}

fn no_preview() -> LinkPreviewOptions {
    LinkPreviewOptions {
        is_disabled: true,
        url: None,
        prefer_small_media: false,
        prefer_large_media: false,
        show_above_text: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_unknown_to_teloxide_are_classified() {
        let error =
            |text: &str| TelegramError::from(RequestError::Api(ApiError::Unknown(text.to_owned())));
        let gone = error("Forbidden: bot can't initiate conversation with a user");
        assert!(matches!(gone, TelegramError::Gone));
        assert!(matches!(error("Bad Gateway"), TelegramError::Unreachable(_)));
        assert!(matches!(error("Internal Server Error: restart"), TelegramError::Unreachable(_)));
        assert!(matches!(error("Bad Request: SOMETHING_NEW"), TelegramError::Refused(_)));
    }

    #[test]
    fn errors_do_not_show_the_response() {
        let source = serde_json::from_str::<u8>("x").unwrap_err().into();
        let error = RequestError::InvalidJson { source, raw: "a password".into() };
        let error = TelegramError::from(error);
        assert!(!format!("{error} {error:?}").contains("password"));
    }
}
