//! One user's view of a chat: writes, waits for the bot's answers, presses buttons, and writes the
//! chat down as a transcript.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::message::Message;
use crate::person::{Person, SimError};
use crate::server::Sim;
use crate::state::{BOT_ID, Change};

/// How long to wait for an answer of the bot.
const PATIENCE: Duration = Duration::from_secs(120);

/// A user's phone with one chat open.
#[derive(Debug)]
pub struct Phone {
    sim: Sim,
    person: Person,
    name: String,
    chat: i64,
    /// How many changes of the chat the transcript omits.
    forgotten: usize,
    /// How many changes of the chat [`Phone::hears`] has passed.
    heard: usize,
    /// How many lines of the transcript [`Phone::news`] has returned.
    shown: usize,
}

/// The bot did not send an expected text.
#[derive(Debug, thiserror::Error)]
#[error("the bot did not send {expected:?} to {whom}; the chat was:\n{chat}")]
pub struct Unheard {
    expected: String,
    whom: String,
    chat: String,
}

impl Sim {
    /// A user's phone with the private chat with the bot open.
    #[must_use]
    pub fn phone(&self, id: i64, first_name: &str, username: Option<&str>) -> Phone {
        self.phone_in(id, &self.person(id, first_name, username), first_name)
    }

    /// A user's phone with another chat open.
    #[must_use]
    pub fn phone_in(&self, chat: i64, person: &Person, name: &str) -> Phone {
        let (sim, person, name) = (self.clone(), person.clone(), name.to_owned());
        Phone { sim, person, name, chat, forgotten: 0, heard: 0, shown: 0 }
    }
}

impl Phone {
    /// The user.
    #[must_use]
    pub fn person(&self) -> &Person {
        &self.person
    }

    /// Writes to the bot.
    pub fn says(&self, text: &str) {
        self.person.says(text);
    }

    /// Waits for a message, an edit or a notice of the bot that contains this text and comes after
    /// what was heard before. Returns the message, or `None` for a notice.
    ///
    /// # Errors
    /// When none comes within two minutes.
    pub async fn hears(&mut self, text: &str) -> Result<Option<Message>, Unheard> {
        self.hears_matching(text, |shown| shown.contains(text)).await
    }

    /// The same for a text that a predicate accepts; `expected` names it in the error.
    ///
    /// # Errors
    /// When the bot sends no such text within two minutes.
    pub async fn hears_matching(
        &mut self,
        expected: &str,
        matches: impl Fn(&str) -> bool,
    ) -> Result<Option<Message>, Unheard> {
        let deadline = Instant::now() + PATIENCE;
        let mut watch = self.sim.watch();
        loop {
            watch.mark_unchanged();
            let changes = self.changes();
            let heard =
                changes.iter().enumerate().skip(self.heard).find_map(|(at, change)| match change {
                    Change::Sent { from: BOT_ID, shown: Some(shown), .. }
                    | Change::Edited { shown: Some(shown), .. }
                        if shown.from == BOT_ID && matches(&shown.text) =>
                    {
                        Some((at, Some(shown.as_ref().clone())))
                    }
                    Change::Notice { text } if matches(text) => Some((at, None)),
                    _ => None,
                });
            if let Some((at, message)) = heard {
                self.heard = at + 1;
                return Ok(message);
            }
            if timeout_at(deadline, watch.changed()).await.is_err() {
                return Err(Unheard {
                    expected: expected.to_owned(),
                    whom: self.name.clone(),
                    chat: self.transcript(),
                });
            }
        }
    }

    /// Presses the button with this text, below the last message that has one.
    ///
    /// # Errors
    /// When no message has such a button.
    pub fn presses(&self, button: &str) -> Result<(), SimError> {
        let message = self.message_with(button)?;
        self.person.presses(self.chat, message.id, button)
    }

    /// Opens the Mini App of the button with this text, below the last message that has one.
    /// Returns the URL that the user's app shows.
    ///
    /// # Errors
    /// When no message has such a button, or it opens no registered app.
    pub fn opens(&self, button: &str) -> Result<String, SimError> {
        let message = self.message_with(button)?;
        self.person.opens(self.chat, message.id, button)
    }

    fn message_with(&self, button: &str) -> Result<Message, SimError> {
        let messages = self.sim.messages(self.chat).into_iter().rev();
        let mut found = messages.filter(|message| message.button(button).is_some());
        found.next().ok_or_else(|| SimError::NoButton(button.to_owned()))
    }

    /// The last message of the bot.
    #[must_use]
    pub fn last_of_bot(&self) -> Option<Message> {
        self.sim.messages(self.chat).into_iter().rev().find(|message| message.from == BOT_ID)
    }

    /// Omits everything so far from the transcript and from what can be heard.
    pub fn forget(&mut self) {
        self.forgotten = self.changes().len();
        (self.heard, self.shown) = (self.forgotten, 0);
    }

    fn changes(&self) -> Vec<Change> {
        self.sim.chat_changes(self.chat)
    }

    /// The chat so far: who sent, pressed, edited and deleted what. An edit shows only the lines
    /// that it changed.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.lines(&self.changes()).concat()
    }

    /// The part of the transcript since the last call.
    pub fn news(&mut self) -> String {
        let lines = self.lines(&self.changes());
        let news = lines.get(self.shown..).unwrap_or_default().concat();
        self.shown = lines.len();
        news
    }

    fn lines(&self, changes: &[Change]) -> Vec<String> {
        let mut before = HashMap::<i64, &str>::new();
        let mut lines = Vec::new();
        for change in changes {
            lines.push(match change {
                Change::Sent { from, message, shown } => {
                    let who = if *from == BOT_ID { "Bot" } else { &self.name };
                    if let Some(shown) = shown {
                        before.insert(*message, &shown.text);
                    }
                    format!("{who}: {}", said(shown.as_deref(), ""))
                }
                Change::Edited { message, shown } => {
                    let text = shown.as_ref().map_or("", |shown| &shown.text);
                    let old = before.insert(*message, text).unwrap_or_default();
                    format!("Bot, in the same message: {}", said(shown.as_deref(), old))
                }
                Change::Deleted { .. } => "Bot deletes that message.".to_owned(),
                Change::Pressed { button, .. } => format!("{} presses [{button}]", self.name),
                Change::Notice { text } => format!("Bot, in passing: {text}"),
            });
        }
        for line in &mut lines {
            line.push('\n');
        }
        lines.split_off(self.forgotten)
    }
}

/// A message as text, with an ellipsis for the lines that an edit left as they were.
fn said(message: Option<&Message>, before: &str) -> String {
    let Some(message) = message else { return "(deleted)".to_owned() };
    let same = message.text.lines().zip(before.lines()).take_while(|(new, old)| new == old);
    let same = same.count();
    let mut lines: Vec<_> = message.text.lines().map(str::to_owned).collect();
    if same > 1 {
        lines.splice(..same, ["…".to_owned()]);
    }
    let kind = message.fields.as_object().and_then(|fields| fields.keys().next());
    let kind = kind.map_or("", String::as_str);
    for (on, mark) in [
        (message.photo.is_some(), "picture"),
        (message.forwarded, "forwarded"),
        (!message.forwarded && !kind.is_empty(), kind),
    ] {
        if on {
            lines.insert(0, format!("({mark})"));
        }
    }
    for row in &message.keyboard {
        let row: Vec<_> = row.iter().map(|button| format!("[{}]", button.text)).collect();
        lines.push(row.join(" "));
    }
    for row in &message.reply_keyboard {
        let row: Vec<_> = row.iter().map(|key| format!("<{key}>")).collect();
        lines.push(row.join(" "));
    }
    lines.retain(|line| !line.is_empty());
    lines.join("\n    ")
}
