//! Telegram users: they write, press buttons, rename themselves and block the bot.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::message::{Button, ButtonKind, Message};
use crate::mini_apps::Opening;
use crate::shared::Shared;
use crate::state::{BOT_ID, BOT_USERNAME, Change, State, User, now};

pub(crate) mod content;

/// An action that is not possible.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SimError {
    /// The chat has no such message.
    #[error("the chat has no message {0}")]
    NoMessage(i64),
    /// The message has no such button.
    #[error("the message has no button {0:?}")]
    NoButton(String),
    /// Another user has the username.
    #[error("another user has this username")]
    Taken,
    /// The user is not a member of the chat.
    #[error("the user is not a member of the chat")]
    NotThere,
    /// The button opens no Mini App, or Telegram refuses to open it.
    #[error("{0:?} opens no Mini App")]
    NoApp(String),
}

/// A Telegram user.
#[derive(Clone, Debug)]
pub struct Person {
    shared: Arc<Shared>,
    id: i64,
}

impl Person {
    pub(crate) fn new(shared: Arc<Shared>, id: i64) -> Self {
        Self { shared, id }
    }

    /// The Telegram id, which is also the id of the private chat with the bot.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Writes to the bot, which starts the bot if this is the first message. Returns the message's
    /// id.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn says(&self, text: &str) -> i64 {
        self.shared.change(|state| {
            state.private_chat(self.id);
            // Telegram's apps unblock a bot before they let the user write to it.
            state.set_blocked(self.id, false);
            self.send(state, self.id, Message::text(self.id, text), false)
        })
    }

    /// Writes to the bot, which receives the message only after this time.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn said(&self, text: &str, ago: Duration) -> i64 {
        self.shared.change(|state| {
            state.private_chat(self.id);
            self.send_late(state, self.id, Message::text(self.id, text), false, ago)
        })
    }

    /// Forwards another user's message to the bot.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn forwards(&self, text: &str) -> i64 {
        self.shared.change(|state| {
            state.private_chat(self.id);
            let message = Message { forwarded: true, ..Message::text(self.id, text) };
            self.send(state, self.id, message, false)
        })
    }

    /// Writes in a group.
    ///
    /// # Errors
    /// When the user is not a member.
    pub fn says_in(&self, group: i64, text: &str) -> Result<i64, SimError> {
        self.shared.change(|state| {
            self.is_in(state, group)?;
            Ok(self.send(state, group, Message::text(self.id, text), false))
        })
    }

    /// Replies to a message in a group. The bot receives a command, or a reply to its own message.
    ///
    /// # Errors
    /// When the user is not a member, or there is no such message.
    pub fn replies_in(&self, group: i64, message: i64, text: &str) -> Result<i64, SimError> {
        self.shared.change(|state| {
            let replied = self.message(state, group, message)?;
            let fields = json!({ "reply_to_message": state.message_json(group, &replied) });
            let message = Message { fields, ..Message::text(self.id, text) };
            Ok(self.send(state, group, message, replied.from == BOT_ID))
        })
    }

    /// Edits one of the user's own messages in the private chat.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn edits(&self, message: i64, text: &str) -> Result<(), SimError> {
        self.shared.change(|state| {
            let chat = state.chats.get_mut(&self.id).ok_or(SimError::NotThere)?;
            let old = chat.messages.get(&message).filter(|message| message.from == self.id);
            let mut edited = old.cloned().ok_or(SimError::NoMessage(message))?;
            (edited.text, edited.edited) = (text.to_owned(), true);
            chat.edit(edited.clone());
            let json = state.message_json(self.id, &edited);
            state.push("edited_message", json);
            Ok(())
        })
    }

    /// Deletes a message of the private chat, also the bot's, for both sides. The bot does not
    /// learn of it.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn deletes(&self, message: i64) -> Result<(), SimError> {
        self.shared.change(|state| {
            let chat = state.chats.get_mut(&self.id).ok_or(SimError::NotThere)?;
            chat.delete(message).then_some(()).ok_or(SimError::NoMessage(message))
        })
    }

    /// Presses the button with this text below a message. A link to this bot starts it, as in
    /// Telegram; other links and copy buttons have no effect here.
    ///
    /// # Errors
    /// When the user is not a member of the chat, or it has no such message or button.
    pub fn presses(&self, chat: i64, message: i64, button: &str) -> Result<(), SimError> {
        self.shared.change(|state| {
            let shown = self.message(state, chat, message)?;
            let missing = || SimError::NoButton(button.to_owned());
            let kind = shown.button(button).ok_or_else(missing)?.kind.clone();
            if let Some(chat) = state.chats.get_mut(&chat) {
                chat.changes.push(Change::Pressed { by: self.id, button: button.to_owned() });
            }
            match kind {
                ButtonKind::Callback(data) => self.press(state, chat, &shown, &data),
                ButtonKind::Url(url) => {
                    let link = format!("https://t.me/{BOT_USERNAME}?start=");
                    if let Some(payload) = url.strip_prefix(&link) {
                        state.private_chat(self.id);
                        let text = format!("/start {payload}");
                        self.send(state, self.id, Message::text(self.id, &text), false);
                    }
                }
                ButtonKind::Copy(_) => {}
            }
            Ok(())
        })
    }

    /// Presses a button that opens a Mini App, and returns the URL that the user's app shows: the
    /// registered one, with what Telegram signed in its fragment.
    ///
    /// # Errors
    /// When there is no such message or button, or it opens no registered app.
    pub fn opens(&self, chat: i64, message: i64, button: &str) -> Result<String, SimError> {
        self.presses(chat, message, button)?;
        let no_app = || SimError::NoApp(button.to_owned());
        let shown = self.message(&self.shared.lock(), chat, message)?;
        let Some(Button { kind: ButtonKind::Url(url), .. }) = shown.button(button) else {
            return Err(no_app());
        };
        self.opens_link(url)?.ok_or_else(no_app)
    }

    /// Opens a link of a Mini App, wherever the user found it. `None` for any other link.
    ///
    /// # Errors
    /// When Telegram cannot sign it.
    pub fn opens_link(&self, link: &str) -> Result<Option<String>, SimError> {
        let no_app = |_no_randomness| SimError::NoApp(link.to_owned());
        self.opening("", |opening| self.shared.apps().open(link, opening).map_err(no_app))
    }

    /// Opens a page that the holder of the bot's token shows under the bot itself. Returns what
    /// Telegram signed, which that page receives.
    ///
    /// # Errors
    /// When Telegram cannot sign it.
    pub fn opens_foreign_page(&self, start_param: &str) -> Result<String, SimError> {
        let no_app = |_no_randomness| SimError::NoApp(start_param.to_owned());
        self.opening(start_param, |opening| self.shared.apps().init_data(opening).map_err(no_app))
    }

    /// Signs that this user opens something now.
    fn opening<T>(
        &self,
        start_param: &str,
        sign: impl FnOnce(Opening<'_>) -> Result<T, SimError>,
    ) -> Result<T, SimError> {
        let (first_name, last_name, username) = {
            let state = self.shared.lock();
            let user = state.users.get(&self.id).ok_or(SimError::NotThere)?;
            let username = user.active_usernames().next().cloned();
            (user.first_name.clone(), user.last_name.clone(), username)
        };
        sign(Opening {
            bot: BOT_ID,
            user: self.id,
            first_name: &first_name,
            last_name: last_name.as_deref(),
            username: username.as_deref(),
            start_param,
            at: now().try_into().unwrap_or_default(),
        })
    }

    /// Sends forged callback data, as a modified app can.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn forges(&self, chat: i64, message: i64, data: &str) -> Result<(), SimError> {
        self.shared.change(|state| {
            let shown = self.message(state, chat, message)?;
            self.press(state, chat, &shown, data);
            Ok(())
        })
    }

    /// Changes or removes the username.
    ///
    /// # Errors
    /// When another user has it.
    pub fn renames(&self, username: Option<&str>) -> Result<(), SimError> {
        self.shared.change(|state| {
            let taken = |wanted: &str| {
                let mut names = state.users.values().flat_map(User::active_usernames);
                names.any(|theirs| theirs.eq_ignore_ascii_case(wanted))
            };
            if username.is_some_and(taken) {
                return Err(SimError::Taken);
            }
            if let Some(user) = state.users.get_mut(&self.id) {
                user.username = username.map(str::to_owned);
            }
            Ok(())
        })
    }

    /// Blocks the bot.
    pub fn blocks(&self) {
        self.shared.change(|state| state.set_blocked(self.id, true));
    }

    /// Unblocks the bot.
    pub fn unblocks(&self) {
        self.shared.change(|state| state.set_blocked(self.id, false));
    }

    /// The messages of the private chat with the bot.
    #[must_use]
    pub fn chat(&self) -> Vec<Message> {
        self.shared.messages(self.id)
    }

    /// What has happened in the private chat, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.shared.changes(self.id)
    }

    fn is_in(&self, state: &State, chat: i64) -> Result<(), SimError> {
        let members = state.chats.get(&chat).map(|chat| &chat.members);
        members.filter(|all| all.contains(&self.id)).map(drop).ok_or(SimError::NotThere)
    }

    fn message(&self, state: &State, chat: i64, message: i64) -> Result<Message, SimError> {
        self.is_in(state, chat)?;
        let found = state.chats.get(&chat).and_then(|chat| chat.messages.get(&message));
        found.cloned().ok_or(SimError::NoMessage(message))
    }

    fn send(&self, state: &mut State, chat: i64, message: Message, to_bot: bool) -> i64 {
        self.send_late(state, chat, message, to_bot, Duration::ZERO)
    }

    /// Sends a message that the bot receives only after this time.
    fn send_late(
        &self,
        state: &mut State,
        chat: i64,
        message: Message,
        to_bot: bool,
        ago: Duration,
    ) -> i64 {
        let message = state.store(chat, message, ago);
        let json = state.message_json(chat, &message);
        // In groups, bots in privacy mode receive only commands to them and replies to them.
        let for_us = || {
            let word = message.text.split_whitespace().next().filter(|word| word.starts_with('/'));
            word.is_some_and(|word| word.split_once('@').is_none_or(|(_, bot)| bot == BOT_USERNAME))
        };
        if chat == self.id || to_bot || for_us() {
            state.push("message", json);
        }
        message.id
    }

    fn press(&self, state: &mut State, chat: i64, message: &Message, data: &str) {
        let id = state.query(chat);
        let query = json!({
            "id": id,
            "from": state.user_json(self.id),
            "chat_instance": chat.to_string(),
            "message": state.pressed_json(chat, message),
            "data": data,
        });
        state.push("callback_query", query);
    }
}
