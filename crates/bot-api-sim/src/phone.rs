//! A phone that plays its part of a story: says, waits for what the bot says, presses; and tells
//! the chat as a transcript.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::message::Message;
use crate::people::{Person, SimError};
use crate::server::Sim;
use crate::state::{BOT_ID, Change};

/// How long the bot has for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A person's phone with a chat open.
#[derive(Debug)]
pub struct Phone {
    sim: Sim,
    person: Person,
    name: String,
    chat: i64,
    /// How many changes of the chat belong to an earlier story.
    forgotten: usize,
    /// How many changes of the chat the story has come by.
    heard: usize,
    /// How many changes were told.
    told: usize,
}

/// The bot did not say what the story says it says.
#[derive(Debug, thiserror::Error)]
#[error("the bot never said {expected:?} to {whom}; the chat was:\n{chat}")]
pub struct Unheard {
    expected: String,
    whom: String,
    chat: String,
}

impl Sim {
    /// A person's phone, with the private chat with the bot.
    #[must_use]
    pub fn phone(&self, id: i64, first_name: &str, username: Option<&str>) -> Phone {
        self.phone_in(id, &self.person(id, first_name, username), first_name)
    }

    /// The same with a group.
    #[must_use]
    pub fn phone_in(&self, chat: i64, person: &Person, name: &str) -> Phone {
        let (sim, person, name) = (self.clone(), person.clone(), name.to_owned());
        Phone { sim, person, name, chat, forgotten: 0, heard: 0, told: 0 }
    }
}

impl Phone {
    /// Whose it is.
    #[must_use]
    pub fn person(&self) -> &Person {
        &self.person
    }

    /// Writes to the bot.
    pub fn says(&self, text: &str) {
        self.person.says(text);
    }

    /// Waits until the bot says this, in a new message, an edit or a short notice, after what was
    /// heard before. Gives the message; a notice gives none.
    ///
    /// # Errors
    /// When the bot does not say it within 30 seconds.
    pub async fn hears(&mut self, text: &str) -> Result<Option<Message>, Unheard> {
        let deadline = Instant::now() + PATIENCE;
        let mut watch = self.sim.watch();
        loop {
            watch.mark_unchanged();
            let changes = self.changes();
            let heard =
                changes.iter().enumerate().skip(self.heard).find_map(|(at, change)| match change {
                    Change::Sent { from: BOT_ID, shown: Some(shown), .. }
                    | Change::Edited { shown: Some(shown), .. }
                        if shown.from == BOT_ID && shown.text.contains(text) =>
                    {
                        Some((at, Some(shown.as_ref().clone())))
                    }
                    Change::Notice { text: notice } if notice.contains(text) => Some((at, None)),
                    _ => None,
                });
            if let Some((at, message)) = heard {
                self.heard = at + 1;
                return Ok(message);
            }
            if timeout_at(deadline, watch.changed()).await.is_err() {
                return Err(Unheard {
                    expected: text.to_owned(),
                    whom: self.name.clone(),
                    chat: self.transcript(),
                });
            }
        }
    }

    /// Presses the button that says this, below the last message that has one.
    ///
    /// # Errors
    /// When no message has such a button.
    pub fn presses(&self, button: &str) -> Result<(), SimError> {
        let messages = self.sim.messages(self.chat);
        let message = messages.iter().rev().find(|message| message.button(button).is_some());
        let message = message.ok_or_else(|| SimError::NoButton(button.to_owned()))?;
        self.person.presses(self.chat, message.id, button)
    }

    /// The last message of the bot.
    #[must_use]
    pub fn last_of_bot(&self) -> Option<Message> {
        self.sim.messages(self.chat).into_iter().rev().find(|message| message.from == BOT_ID)
    }

    /// Begins another story: what was said is not told, nor heard, any more.
    pub fn forget(&mut self) {
        self.forgotten = self.changes().len();
        (self.heard, self.told) = (self.forgotten, 0);
    }

    fn changes(&self) -> Vec<Change> {
        self.sim.chat_changes(self.chat)
    }

    /// The chat so far, as people read it: who said, pressed, edited and deleted what. An edit
    /// shows what it changed.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.lines(&self.changes()).concat()
    }

    /// What the transcript has more than when this was last called.
    pub fn news(&mut self) -> String {
        let lines = self.lines(&self.changes());
        let news = lines.get(self.told..).unwrap_or_default().concat();
        self.told = lines.len();
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

/// A message as text; of what stood there before only an ellipsis.
fn said(message: Option<&Message>, before: &str) -> String {
    let Some(message) = message else { return "(deleted)".to_owned() };
    let same = message.text.lines().zip(before.lines()).take_while(|(new, old)| new == old);
    let same = same.count();
    let mut lines: Vec<_> = message.text.lines().map(str::to_owned).collect();
    if same > 1 {
        lines.splice(..same, ["…".to_owned()]);
    }
    for (on, what) in [(message.photo.is_some(), "picture"), (message.forwarded, "forwarded")] {
        if on {
            lines.insert(0, format!("({what})"));
        }
    }
    for row in &message.keyboard {
        let row: Vec<_> = row.iter().map(|button| format!("[{}]", button.text)).collect();
        lines.push(row.join(" "));
    }
    lines.retain(|line| !line.is_empty());
    lines.join("\n    ")
}
