//! People with phones: they write, press, rename themselves and block the bot.

use serde_json::json;

use crate::message::{ButtonKind, Message};
use crate::server::Sim;
use crate::state::{BOT_ID, BOT_USERNAME, Change, State, User};

/// What a person can not do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimError {
    /// There is no such message in the chat.
    #[error("there is no message {0} in the chat")]
    NoMessage(i64),
    /// The message has no such button.
    #[error("there is no button {0:?} below the message")]
    NoButton(String),
    /// Somebody else has the username.
    #[error("somebody has this username")]
    Taken,
    /// The person is not in the chat.
    #[error("the person is not in the chat")]
    NotThere,
}

/// Somebody with a phone.
#[derive(Clone, Debug)]
pub struct Person {
    sim: Sim,
    id: i64,
}

impl Person {
    pub(crate) fn new(sim: Sim, id: i64) -> Self {
        Self { sim, id }
    }

    /// The Telegram id, also of the private chat with the bot.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Writes to the bot, and so starts it if this is the first time. Gives the message's number.
    #[expect(clippy::must_use_candidate, reason = "it is done for its effect")]
    pub fn says(&self, text: &str) -> i64 {
        self.sim.change(|state| {
            state.private_chat(self.id);
            // Telegram's apps let nobody write to a bot that they block.
            if let Some(user) = state.users.get_mut(&self.id) {
                user.blocked = false;
            }
            self.send(state, self.id, Message::text(self.id, text), false)
        })
    }

    /// Forwards somebody's message to the bot.
    #[expect(clippy::must_use_candidate, reason = "it is done for its effect")]
    pub fn forwards(&self, text: &str) -> i64 {
        self.sim.change(|state| {
            state.private_chat(self.id);
            let message = Message { forwarded: true, ..Message::text(self.id, text) };
            self.send(state, self.id, message, false)
        })
    }

    /// Writes in a group.
    ///
    /// # Errors
    /// When the person is not in it.
    pub fn says_in(&self, group: i64, text: &str) -> Result<i64, SimError> {
        self.sim.change(|state| {
            self.is_in(state, group)?;
            Ok(self.send(state, group, Message::text(self.id, text), false))
        })
    }

    /// Answers a message of the bot in a group.
    ///
    /// # Errors
    /// When the person is not in it, or there is no such message of the bot.
    pub fn replies_in(&self, group: i64, message: i64, text: &str) -> Result<i64, SimError> {
        self.sim.change(|state| {
            let bots = self.message(state, group, message)?.from == BOT_ID;
            if !bots {
                return Err(SimError::NoMessage(message));
            }
            Ok(self.send(state, group, Message::text(self.id, text), true))
        })
    }

    /// Changes a message of one's own.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn edits(&self, message: i64, text: &str) -> Result<(), SimError> {
        self.sim.change(|state| {
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

    /// Presses the button that says `button`, below a message of a chat that the person is in. A
    /// link into this bot starts it, as Telegram does; other links and copying do nothing here.
    ///
    /// # Errors
    /// When there is no such message or button.
    pub fn presses(&self, chat: i64, message: i64, button: &str) -> Result<(), SimError> {
        self.sim.change(|state| {
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

    /// Sends callback data of one's own making, as a modified phone can.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn forges(&self, chat: i64, message: i64, data: &str) -> Result<(), SimError> {
        self.sim.change(|state| {
            let shown = self.message(state, chat, message)?;
            self.press(state, chat, &shown, data);
            Ok(())
        })
    }

    /// Takes another username, or none.
    ///
    /// # Errors
    /// When somebody has it.
    pub fn renames(&self, username: Option<&str>) -> Result<(), SimError> {
        self.sim.change(|state| {
            let taken = |user: &User| {
                let names = user.username.as_deref().zip(username);
                names.is_some_and(|(theirs, wanted)| theirs.eq_ignore_ascii_case(wanted))
            };
            if state.users.values().any(taken) {
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
        self.sim.change(|state| {
            if let Some(user) = state.users.get_mut(&self.id) {
                user.blocked = true;
            }
        });
    }

    /// The private chat with the bot as the phone shows it.
    #[must_use]
    pub fn chat(&self) -> Vec<Message> {
        self.sim.messages(self.id)
    }

    /// What happened in the private chat.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.sim.chat_changes(self.id)
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
        let message = state.store(chat, message);
        let json = state.message_json(chat, &message);
        // In groups a bot sees what is meant for it alone (privacy mode).
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
            "message": state.message_json(chat, message),
            "data": data,
        });
        state.push("callback_query", query);
    }
}
