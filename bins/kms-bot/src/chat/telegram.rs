//! The Bot API as the handlers use it: HTML messages in private chats, rate limits waited out.
//!
//! Errors keep only their kind: the URL of every call contains the token, and a response may
//! contain what a user wrote.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kms_types::{TelegramId, Username};
use teloxide_core::payloads::{
    AnswerCallbackQuerySetters, EditMessageTextSetters, SendMessage, SendMessageSetters,
    SendPhotoSetters,
};
use teloxide_core::requests::{JsonRequest, Payload, Request, Requester};
use teloxide_core::types::{
    CallbackQueryId, ChatAction, ChatId, InputFile, LinkPreviewOptions, MessageId, ParseMode,
};
use teloxide_core::{ApiError, Bot, RequestError};

use super::keyboard::Keyboard;
use crate::texts::{Html, Text};

/// The longest `retry_after` of Telegram that is waited out, in seconds.
const LONGEST_WAIT: u32 = 60;
/// Telegram counts as reachable for this long after its last response; a poll takes at most ten
/// seconds.
const REACHABLE_FOR: Duration = Duration::from_secs(30);

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
}

impl From<RequestError> for TelegramError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Api(error) => match error {
                ApiError::BotBlocked
                | ApiError::ChatNotFound
                | ApiError::UserDeactivated
                | ApiError::CantInitiateConversation => Self::Gone,
                // teloxide expects this description with a different beginning.
                ApiError::Unknown(text) if text.contains("can't initiate conversation") => {
                    Self::Gone
                }
                // Other unknown descriptions are failures of Telegram itself, like "Bad Gateway".
                ApiError::Unknown(text)
                    if !REFUSALS.iter().any(|known| text.starts_with(known)) =>
                {
                    Self::Unreachable("server error")
                }
                ApiError::InvalidToken => Self::Token,
                ApiError::TerminatedByOtherGetUpdates => Self::Conflict,
                error => Self::Refused(error),
            },
            RequestError::Network(error) if error.is_timeout() => Self::Unreachable("timeout"),
            RequestError::Network(_) => Self::Unreachable("network"),
            RequestError::InvalidJson { .. } => Self::Unreachable("invalid response"),
            RequestError::RetryAfter(_) => Self::Unreachable("rate limit"),
            RequestError::MigrateToChatId(_) => Self::Gone,
            RequestError::Io(_) => Self::Unreachable("file"),
        }
    }
}

/// A client of the Bot API. Has no `Debug`: it would show the token.
pub(crate) struct Telegram {
    api: Bot,
    last_response: Mutex<Instant>,
}

impl Telegram {
    pub(crate) fn new(api: Bot) -> Self {
        Self { api, last_response: Mutex::new(Instant::now()) }
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

    /// Sends a message and returns its id.
    pub(crate) async fn send(
        &self,
        to: TelegramId,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<MessageId, TelegramError> {
        let message = self.message(chat(to), html, keyboard);
        Ok(self.call(&message).await?.id)
    }

    /// Sends a message to a group. Its rate limit is not waited out: other users share it.
    pub(crate) async fn send_to_group(
        &self,
        group: ChatId,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        self.message(group, html, keyboard).await?;
        Ok(())
    }

    fn message(&self, chat: ChatId, html: &Html, keyboard: Keyboard) -> JsonRequest<SendMessage> {
        self.api
            .send_message(chat, html.as_str())
            .parse_mode(ParseMode::Html)
            .link_preview_options(no_preview())
            .reply_markup(keyboard.into_markup())
    }

    /// Replaces the text and the buttons of a message. An edit that changes nothing is no error.
    pub(crate) async fn edit(
        &self,
        of: TelegramId,
        message: MessageId,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        let edited = self
            .api
            .edit_message_text(chat(of), message, html.as_str())
            .parse_mode(ParseMode::Html)
            .link_preview_options(no_preview())
            .reply_markup(keyboard.into_markup());
        match self.call(&edited).await {
            Ok(_) | Err(RequestError::Api(ApiError::MessageNotModified)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Edits a message, or sends a new one if it no longer exists.
    pub(crate) async fn edit_or_send(
        &self,
        of: TelegramId,
        message: MessageId,
        html: &Html,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        match self.edit(of, message, html, keyboard.clone()).await {
            Err(TelegramError::Refused(_)) => self.send(of, html, keyboard).await.map(drop),
            other => other,
        }
    }

    /// Deletes a message. A message that no longer exists is no error.
    pub(crate) async fn delete(
        &self,
        of: TelegramId,
        message: MessageId,
    ) -> Result<(), TelegramError> {
        match self.call(&self.api.delete_message(chat(of), message)).await {
            Ok(_) | Err(RequestError::Api(ApiError::MessageToDeleteNotFound)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a picture with a caption.
    pub(crate) async fn send_picture(
        &self,
        to: TelegramId,
        png: Vec<u8>,
        caption: &Html,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        let picture = self
            .api
            .send_photo(chat(to), InputFile::memory(png).file_name("address.png"))
            .caption(caption.as_str())
            .parse_mode(ParseMode::Html)
            .reply_markup(keyboard.into_markup());
        self.call(&picture).await?;
        Ok(())
    }

    /// Answers a callback query, which ends the progress indicator of the pressed button.
    pub(crate) async fn answer_query(
        &self,
        query: CallbackQueryId,
        notice: Option<Text>,
    ) -> Result<(), TelegramError> {
        let answer = self.api.answer_callback_query(query);
        match notice {
            Some(notice) => answer.text(notice.into_string()).await?,
            None => answer.await?,
        };
        Ok(())
    }

    /// Shows "typing…" in the chat. Errors are ignored: nothing depends on it.
    pub(crate) async fn typing(&self, to: TelegramId) {
        let _ = self.api.send_chat_action(chat(to), ChatAction::Typing).await;
    }

    /// Makes a call; waits and repeats it when Telegram asks for that.
    async fn call<R>(&self, request: &R) -> Result<<R::Payload as Payload>::Output, RequestError>
    where
        R: Request<Err = RequestError> + Sync,
        R::SendRef: Send,
    {
        loop {
            match request.send_ref().await {
                Err(RequestError::RetryAfter(wait)) if wait.seconds() <= LONGEST_WAIT => {
                    tokio::time::sleep(Duration::from_secs(wait.seconds().into())).await;
                }
                Ok(output) => {
                    self.record_response();
                    return Ok(output);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Fetches the current first name and username of a user who started the bot.
    pub(crate) async fn profile(
        &self,
        of: TelegramId,
    ) -> Result<(Option<String>, Option<Username>), TelegramError> {
        let shown = self.call(&self.api.get_chat(chat(of))).await?;
        let username = shown.username().and_then(|name| name.parse().ok());
        Ok((shown.first_name().map(str::to_owned), username))
    }
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
