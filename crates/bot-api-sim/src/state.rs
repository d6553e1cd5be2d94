//! The state of the simulation: users, chats, and updates that the bot has not fetched.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::message::Message;
use crate::refusal::Refusal;

pub(crate) const BOT_ID: i64 = 7_000_000_001;
pub(crate) const BOT_USERNAME: &str = "wallet_kms_bot";

/// A failure of Telegram, on a test's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 502.
    BadGateway,
    /// Answers 429, with the seconds to wait.
    TooManyRequests(u64),
}

/// One event in a chat. The contents of deleted messages are removed from earlier events too.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A message was sent.
    Sent {
        /// Its id.
        message: i64,
        /// The Telegram id of its sender.
        from: i64,
        /// The message as it was sent; `None` once it is deleted.
        shown: Option<Box<Message>>,
    },
    /// A message was edited.
    Edited {
        /// Its id.
        message: i64,
        /// The message after the edit; `None` once it is deleted.
        shown: Option<Box<Message>>,
    },
    /// A message was deleted.
    Deleted {
        /// Its id.
        message: i64,
    },
    /// A user pressed a button.
    Pressed {
        /// The user's Telegram id.
        by: i64,
        /// The button's text.
        button: String,
    },
    /// The bot answered a press with a short notice.
    Notice {
        /// The notice's text.
        text: String,
    },
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) first_name: String,
    pub(crate) username: Option<String>,
    pub(crate) blocked: bool,
}

#[derive(Debug)]
pub(crate) struct Chat {
    /// Groups have a title. The id of a private chat is the id of its user.
    pub(crate) title: Option<String>,
    pub(crate) members: HashSet<i64>,
    pub(crate) messages: BTreeMap<i64, Message>,
    pub(crate) changes: Vec<Change>,
}

/// A button press that the bot has not answered.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) chat: i64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) users: BTreeMap<i64, User>,
    pub(crate) chats: BTreeMap<i64, Chat>,
    pub(crate) updates: VecDeque<(i64, Value)>,
    pub(crate) allowed: Option<Vec<String>>,
    pub(crate) queries: BTreeMap<String, Query>,
    pub(crate) commands: Vec<(String, String)>,
    pub(crate) faults: VecDeque<(String, Fault)>,
    /// Counts calls of `getUpdates`: a newer call terminates an older one.
    pub(crate) poll: u64,
    last_update: i64,
    last_message: i64,
    last_date: i64,
}

impl State {
    pub(crate) fn user_json(&self, id: i64) -> Value {
        if id == BOT_ID {
            return json!({
                "id": BOT_ID, "is_bot": true, "first_name": "Wallet", "username": BOT_USERNAME,
            });
        }
        let mut json = json!({ "id": id, "is_bot": false, "language_code": "en" });
        if let Some(user) = self.users.get(&id) {
            json["first_name"] = json!(user.first_name);
            if let Some(username) = &user.username {
                json["username"] = json!(username);
            }
        }
        json
    }

    pub(crate) fn chat_json(&self, id: i64) -> Value {
        if let Some(title) = self.chats.get(&id).and_then(|chat| chat.title.as_ref()) {
            return json!({ "id": id, "type": "supergroup", "title": title });
        }
        let mut json = self.user_json(id);
        json["type"] = json!("private");
        if let Some(fields) = json.as_object_mut() {
            fields.remove("is_bot");
            fields.remove("language_code");
        }
        json
    }

    pub(crate) fn message_json(&self, chat: i64, message: &Message) -> Value {
        message.to_json(&self.chat_json(chat), &self.user_json(message.from))
    }

    /// The chat, if the bot may write to it.
    pub(crate) fn writable(&mut self, id: i64) -> Result<&mut Chat, Refusal> {
        match self.users.get(&id) {
            Some(user) if user.blocked => {
                return Err(Refusal::forbidden("bot was blocked by the user"));
            }
            Some(_) if !self.chats.contains_key(&id) => {
                return Err(Refusal::forbidden("bot can't initiate conversation with a user"));
            }
            _ => {}
        }
        self.chats.get_mut(&id).ok_or_else(|| Refusal::bad_request("chat not found"))
    }

    pub(crate) fn private_chat(&mut self, id: i64) -> &mut Chat {
        self.chats.entry(id).or_insert_with(|| Chat {
            title: None,
            members: HashSet::from([id]),
            messages: BTreeMap::new(),
            changes: Vec::new(),
        })
    }

    /// Gives a message its id and date, and adds it to its chat.
    pub(crate) fn store(&mut self, chat: i64, mut message: Message) -> Message {
        self.last_message += 1;
        message.id = self.last_message;
        // One second apart at least, so that dates are in the order of the messages.
        message.date = now().max(self.last_date + 1);
        self.last_date = message.date;
        if let Some(chat) = self.chats.get_mut(&chat) {
            let shown = Some(Box::new(message.clone()));
            chat.changes.push(Change::Sent { message: message.id, from: message.from, shown });
            chat.messages.insert(message.id, message.clone());
        }
        message
    }

    /// Queues an update for the bot, if the bot requested updates of this kind.
    pub(crate) fn push(&mut self, kind: &str, content: Value) {
        if self.allowed.as_ref().is_some_and(|kinds| kinds.iter().all(|allowed| allowed != kind)) {
            return;
        }
        self.last_update += 1;
        let mut update = json!({ "update_id": self.last_update });
        update[kind] = content;
        self.updates.push_back((self.last_update, update));
    }

    pub(crate) fn query(&mut self, chat: i64) -> String {
        self.last_update += 1;
        let id = format!("query-{}", self.last_update);
        self.queries.insert(id.clone(), Query { chat });
        id
    }

    /// Takes the next fault of this method.
    pub(crate) fn fault(&mut self, method: &str) -> Option<Fault> {
        let index = self.faults.iter().position(|(name, _)| name.eq_ignore_ascii_case(method))?;
        self.faults.remove(index).map(|(_, fault)| fault)
    }
}

impl Chat {
    pub(crate) fn edit(&mut self, message: Message) {
        let shown = Some(Box::new(message.clone()));
        self.changes.push(Change::Edited { message: message.id, shown });
        self.messages.insert(message.id, message);
    }

    /// Removes a message, and its contents from the events before.
    pub(crate) fn delete(&mut self, id: i64) -> bool {
        if self.messages.remove(&id).is_none() {
            return false;
        }
        for change in &mut self.changes {
            match change {
                Change::Sent { message, shown, .. } | Change::Edited { message, shown }
                    if *message == id =>
                {
                    *shown = None;
                }
                _ => {}
            }
        }
        self.changes.push(Change::Deleted { message: id });
        true
    }
}

/// Telegram dates messages by its own clock.
#[expect(clippy::disallowed_methods, reason = "a simulated server has a clock")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
