//! The state of the simulation: users, chats, and updates that the bot has not fetched.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::limits::Traffic;
use crate::message::Message;
use crate::refusal::Refusal;

pub(crate) const BOT_ID: i64 = 7_000_000_001;
pub(crate) const BOT_USERNAME: &str = "wallet_kms_bot";

/// How many updates can be repeated.
const PAST_UPDATES: usize = 100;
/// A message is too old to be deleted, or to be shown with a pressed button, after this long.
const OLD: Duration = Duration::from_secs(48 * 60 * 60);

/// A press can be answered for this long, in seconds. Telegram does not publish how long.
pub(crate) const PRESS_LIFETIME: i64 = 30;

/// A failure of Telegram, on a test's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Does nothing and answers 502.
    BadGateway,
    /// Does nothing and answers this status, with a page of a proxy instead of JSON.
    ServerError(u16),
    /// Does nothing and answers 429, with the seconds to wait.
    TooManyRequests(u64),
    /// Does nothing and breaks the connection.
    CallLost,
    /// Does what was asked, and breaks the connection before the answer is complete.
    AnswerLost,
    /// Does what was asked after this time, also if the caller has gone.
    Slow(Duration),
    /// Does what was asked, and answers after this time.
    LateAnswer(Duration),
}

/// An update that the bot has not acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) id: i64,
    pub(crate) update: Value,
    /// Whether it is delivered once more, although it was acknowledged.
    pub(crate) repeated: bool,
}

/// Decides on the fate of each call, by its method.
pub(crate) type Fate = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// A fault that a test ordered.
#[derive(Clone, Debug)]
pub(crate) struct Ordered {
    pub(crate) method: String,
    pub(crate) fault: Fault,
    /// Only calls about this chat count.
    pub(crate) chat: Option<i64>,
    /// How many calls succeed before.
    pub(crate) after: usize,
}

/// What a test does to the simulation.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) faults: VecDeque<Ordered>,
    pub(crate) fate: Option<Fate>,
    /// The last updates, acknowledged or not.
    pub(crate) past: VecDeque<Queued>,
}

/// Omits the past, which Telegram does not store.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("faults", &self.faults).finish_non_exhaustive()
    }
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
    pub(crate) last_name: Option<String>,
    pub(crate) username: Option<String>,
    /// The collectible usernames that are active.
    pub(crate) collectible_usernames: Vec<String>,
    pub(crate) blocked: bool,
}

impl User {
    /// All active usernames, the one that is shown first.
    pub(crate) fn active_usernames(&self) -> impl Iterator<Item = &String> {
        self.username.iter().chain(&self.collectible_usernames)
    }
}

#[derive(Debug)]
pub(crate) struct Chat {
    /// Groups have a title. The id of a private chat is the id of its user.
    pub(crate) title: Option<String>,
    pub(crate) members: HashSet<i64>,
    pub(crate) messages: BTreeMap<i64, Message>,
    pub(crate) changes: Vec<Change>,
    /// Whether the bot may delete messages of others in this group.
    pub(crate) bot_is_admin: bool,
    /// The topics of a group.
    pub(crate) topics: HashSet<i64>,
    /// Whether a reply keyboard is shown that shares the user's number.
    pub(crate) share_key: bool,
}

/// A button press that the bot has not answered.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) chat: i64,
    /// Unix time in seconds.
    pub(crate) date: i64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) users: BTreeMap<i64, User>,
    pub(crate) chats: BTreeMap<i64, Chat>,
    pub(crate) updates: VecDeque<Queued>,
    pub(crate) allowed: Option<Vec<String>>,
    pub(crate) queries: BTreeMap<String, Query>,
    pub(crate) commands: Vec<(String, String)>,
    pub(crate) script: Script,
    pub(crate) traffic: Traffic,
    /// How many edits changed nothing, other than repetitions of one whose answer was lost or late.
    pub(crate) vain_edits: usize,
    /// The edited messages of which the bot may not know: chat and message.
    pub(crate) unsure: HashSet<(i64, i64)>,
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
            if let Some(last_name) = &user.last_name {
                json["last_name"] = json!(last_name);
            }
            if let Some(username) = user.active_usernames().next() {
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

    /// The message of a pressed button, of which Telegram shows little once it is old.
    pub(crate) fn pressed_json(&self, chat: i64, message: &Message) -> Value {
        match is_old(message.date) {
            true => json!({ "chat": self.chat_json(chat), "message_id": message.id, "date": 0 }),
            false => self.message_json(chat, message),
        }
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
            bot_is_admin: false,
            topics: HashSet::new(),
            share_key: false,
        })
    }

    /// Gives a message its id and date, and adds it to its chat. A message that was written some
    /// time ago reaches the bot only now.
    pub(crate) fn store(&mut self, chat: i64, mut message: Message, ago: Duration) -> Message {
        self.last_message += 1;
        message.id = self.last_message;
        // One second apart at least, so that dates are in the order of the messages.
        self.last_date = now().max(self.last_date + 1);
        message.date = self.last_date - i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
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
        let queued = Queued { id: self.last_update, update, repeated: false };
        self.script.past.push_back(queued.clone());
        if self.script.past.len() > PAST_UPDATES {
            self.script.past.pop_front();
        }
        self.updates.push_back(queued);
    }

    /// Reports that a user blocked or unblocked the bot.
    pub(crate) fn set_blocked(&mut self, id: i64, blocked: bool) {
        let Some(user) = self.users.get_mut(&id) else { return };
        if user.blocked == blocked {
            return;
        }
        user.blocked = blocked;
        let member = |kicked: bool| match kicked {
            true => json!({ "status": "kicked", "user": self.user_json(BOT_ID), "until_date": 0 }),
            false => json!({ "status": "member", "user": self.user_json(BOT_ID) }),
        };
        let update = json!({
            "chat": self.chat_json(id),
            "from": self.user_json(id),
            "date": now(),
            "old_chat_member": member(!blocked),
            "new_chat_member": member(blocked),
        });
        self.push("my_chat_member", update);
    }

    pub(crate) fn query(&mut self, chat: i64) -> String {
        self.last_update += 1;
        let id = format!("query-{}", self.last_update);
        self.queries.insert(id.clone(), Query { chat, date: now() });
        id
    }

    /// Takes the next fault of this method, of a call about this chat.
    pub(crate) fn fault(&mut self, method: &str, chat: Option<i64>) -> Option<Fault> {
        let Script { faults, fate, .. } = &mut self.script;
        let due = faults.iter_mut().position(|ordered| {
            let meant = ordered.method.eq_ignore_ascii_case(method)
                && ordered.chat.is_none_or(|meant| chat == Some(meant));
            let due = meant && ordered.after == 0;
            if meant && !due {
                ordered.after -= 1;
            }
            due
        });
        match due {
            Some(index) => faults.remove(index).map(|ordered| ordered.fault),
            None => fate.as_mut().and_then(|fate| fate(method)),
        }
    }

    /// Delivers the last updates once more, in their order.
    pub(crate) fn repeat_updates(&mut self, count: usize) {
        let past = &self.script.past;
        let again = past.iter().skip(past.len().saturating_sub(count));
        let again = again.map(|queued| Queued { repeated: true, ..queued.clone() });
        let waiting = std::mem::take(&mut self.updates);
        self.updates = again.chain(waiting).collect();
    }

    /// Makes everything that was written so far older.
    pub(crate) fn pass_time(&mut self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        for message in self.chats.values_mut().flat_map(|chat| chat.messages.values_mut()) {
            message.date -= seconds;
        }
        for query in self.queries.values_mut() {
            query.date -= seconds;
        }
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

/// Whether a message of this date is too old to be deleted.
pub(crate) fn is_old(date: i64) -> bool {
    Duration::from_secs((now() - date).try_into().unwrap_or_default()) > OLD
}

/// Telegram dates messages by its own clock.
#[expect(clippy::disallowed_methods, reason = "a simulated server has a clock")]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
