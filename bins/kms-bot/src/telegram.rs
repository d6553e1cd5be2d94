//! The Bot API as the handlers use it: HTML, private chats, floods waited out.
//!
//! Errors are told by their kind: the token stands in the URL of every call, and what people
//! wrote may stand in an answer.

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

use crate::buttons::Keyboard;

/// The longest that Telegram's wish to wait is followed.
const LONGEST_WAIT: u32 = 60;
/// Telegram counts as answering for this long after it did; polls come back within ten seconds.
const ALIVE: Duration = Duration::from_secs(30);

/// How the Bot API's refusals begin.
const REFUSALS: [&str; 6] =
    ["Bad Request", "Unauthorized", "Forbidden", "Not Found", "Conflict", "Request Entity"];

/// Why Telegram did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TelegramError {
    /// The person blocked the bot, never started it, or is gone.
    #[error("the person can not be written to")]
    Gone,
    /// The token is not one of a bot.
    #[error("telegram.token: Telegram does not know this token; ask @BotFather for it")]
    Token,
    /// Another process polls with this token.
    #[error("another bot process polls with this token")]
    Conflict,
    /// It refused, for another reason.
    #[error("Telegram refused: {0}")]
    Refused(ApiError),
    /// It did not answer, or not in a way that can be read.
    #[error("Telegram does not answer: {0}")]
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
                // The client library knows this sentence with another beginning only.
                ApiError::Unknown(text) if text.contains("can't initiate conversation") => {
                    Self::Gone
                }
                // What is not one of the Bot API's refusals is Telegram's own trouble: "Bad Gateway".
                ApiError::Unknown(text)
                    if !REFUSALS.iter().any(|known| text.starts_with(known)) =>
                {
                    Self::Unreachable("an error of its own")
                }
                ApiError::InvalidToken => Self::Token,
                ApiError::TerminatedByOtherGetUpdates => Self::Conflict,
                error => Self::Refused(error),
            },
            RequestError::Network(error) if error.is_timeout() => Self::Unreachable("timeout"),
            RequestError::Network(_) => Self::Unreachable("network"),
            RequestError::InvalidJson { .. } => Self::Unreachable("not the Bot API's JSON"),
            RequestError::RetryAfter(_) => Self::Unreachable("too many requests"),
            RequestError::MigrateToChatId(_) => Self::Gone,
            RequestError::Io(_) => Self::Unreachable("file"),
        }
    }
}

/// Telegram, to write to. Its `Debug` would show the token, so there is none.
pub(crate) struct Telegram {
    api: Bot,
    /// When it last did what it was asked.
    alive: Mutex<Instant>,
}

impl Telegram {
    pub(crate) fn new(api: Bot) -> Self {
        Self { api, alive: Mutex::new(Instant::now()) }
    }

    /// Says that Telegram answered.
    pub(crate) fn answered(&self) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether Telegram answered lately, to anything.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < ALIVE
    }

    /// Writes to somebody.
    pub(crate) async fn say(
        &self,
        to: TelegramId,
        html: &str,
        keyboard: Keyboard,
    ) -> Result<MessageId, TelegramError> {
        let message = self.message(chat(to), html, keyboard);
        Ok(self.patiently(&message).await?.id)
    }

    /// Writes into a group. Its floods are not waited out: they are not this person's.
    pub(crate) async fn say_in_group(
        &self,
        group: ChatId,
        html: &str,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        self.message(group, html, keyboard).await?;
        Ok(())
    }

    fn message(&self, chat: ChatId, html: &str, keyboard: Keyboard) -> JsonRequest<SendMessage> {
        self.api
            .send_message(chat, html)
            .parse_mode(ParseMode::Html)
            .link_preview_options(no_preview())
            .reply_markup(keyboard.into_markup())
    }

    /// Changes a message; its buttons are these afterwards. The same text again is no error.
    pub(crate) async fn edit(
        &self,
        of: TelegramId,
        message: MessageId,
        html: &str,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        let edited = self
            .api
            .edit_message_text(chat(of), message, html)
            .parse_mode(ParseMode::Html)
            .link_preview_options(no_preview())
            .reply_markup(keyboard.into_markup());
        match self.patiently(&edited).await {
            Ok(_) | Err(RequestError::Api(ApiError::MessageNotModified)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Telegram::edit`], or writes anew if the message is not there any more.
    pub(crate) async fn edit_or_say(
        &self,
        of: TelegramId,
        message: MessageId,
        html: &str,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        match self.edit(of, message, html, keyboard.clone()).await {
            Err(TelegramError::Refused(_)) => self.say(of, html, keyboard).await.map(drop),
            other => other,
        }
    }

    /// Deletes a message. One that is gone already is no error.
    pub(crate) async fn delete(
        &self,
        of: TelegramId,
        message: MessageId,
    ) -> Result<(), TelegramError> {
        match self.patiently(&self.api.delete_message(chat(of), message)).await {
            Ok(_) | Err(RequestError::Api(ApiError::MessageToDeleteNotFound)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a picture.
    pub(crate) async fn picture(
        &self,
        to: TelegramId,
        png: Vec<u8>,
        caption: &str,
        keyboard: Keyboard,
    ) -> Result<(), TelegramError> {
        let picture = self
            .api
            .send_photo(chat(to), InputFile::memory(png).file_name("address.png"))
            .caption(caption)
            .parse_mode(ParseMode::Html)
            .reply_markup(keyboard.into_markup());
        self.patiently(&picture).await?;
        Ok(())
    }

    /// Ends the waiting of a pressed button, perhaps with a short notice.
    pub(crate) async fn answer(
        &self,
        query: CallbackQueryId,
        notice: Option<&str>,
    ) -> Result<(), TelegramError> {
        let answer = self.api.answer_callback_query(query);
        match notice {
            Some(notice) => answer.text(notice).await?,
            None => answer.await?,
        };
        Ok(())
    }

    /// Shows that an answer is on its way.
    pub(crate) async fn typing(&self, to: TelegramId) {
        // It only decorates: nothing depends on it.
        let _ = self.api.send_chat_action(chat(to), ChatAction::Typing).await;
    }

    /// Waits as long as Telegram wants, and repeats.
    async fn patiently<R>(
        &self,
        request: &R,
    ) -> Result<<R::Payload as Payload>::Output, RequestError>
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
                    self.answered();
                    return Ok(output);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What Telegram shows now of somebody who started the bot: first name and username.
    pub(crate) async fn profile(
        &self,
        of: TelegramId,
    ) -> Result<(Option<String>, Option<Username>), TelegramError> {
        let shown = self.patiently(&self.api.get_chat(chat(of))).await?;
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
    fn errors_that_the_library_does_not_know_are_told_apart() {
        let error =
            |text: &str| TelegramError::from(RequestError::Api(ApiError::Unknown(text.to_owned())));
        let gone = error("Forbidden: bot can't initiate conversation with a user");
        assert!(matches!(gone, TelegramError::Gone));
        assert!(matches!(error("Bad Gateway"), TelegramError::Unreachable(_)));
        assert!(matches!(error("Internal Server Error: restart"), TelegramError::Unreachable(_)));
        assert!(matches!(error("Bad Request: SOMETHING_NEW"), TelegramError::Refused(_)));
    }

    #[test]
    fn errors_do_not_show_what_was_answered() {
        let source = serde_json::from_str::<u8>("x").unwrap_err().into();
        let error = RequestError::InvalidJson { source, raw: "a password".into() };
        let error = TelegramError::from(error);
        assert!(!format!("{error} {error:?}").contains("password"));
    }
}
