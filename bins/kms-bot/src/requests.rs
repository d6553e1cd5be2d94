//! Commands that a user wrote in a group. A link leads to the private chat and runs them there.
//!
//! The link carries a key. The command itself stays in the state of its writer's chat, so a link
//! that another user presses finds nothing.

use kms_types::{TelegramId, Timestamp};
use sha2::{Digest, Sha256};

use crate::chat::incoming::Group;
use crate::journal::{Journal, Request};

/// How long a link works, in milliseconds.
pub(crate) const LIFETIME: i64 = 15 * 60 * 1_000;
/// The most commands that are kept of a user.
const KEPT: usize = 4;
/// The longest command that is kept, in bytes.
const LONGEST: usize = 256;
/// How the payload of a link begins. No command does.
const PREFIX: &str = "r_";

/// Whether the payload of a link to the bot is the key of a command.
pub(crate) fn is_key(payload: &str) -> bool {
    payload.starts_with(PREFIX)
}

/// Keeps a command of a user. Returns the key for the link, or `None` if the command is too long.
pub(crate) fn keep(
    journal: &Journal,
    user: TelegramId,
    group: Group,
    command: String,
    now: Timestamp,
) -> Option<String> {
    if command.len() > LONGEST {
        return None;
    }
    let message = format!("{} {}", group.chat, group.message);
    let digest = Sha256::digest(message);
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let key = format!("{PREFIX}{digits}");
    let request = Request { key: key.clone(), command, at: now };
    journal.change(user, |chat| {
        chat.requests.retain(|other| other.key != request.key && other.is_fresh(now));
        if chat.requests.len() >= KEPT {
            chat.requests.remove(0);
        }
        chat.requests.push(request);
    });
    Some(key)
}

/// The command with this key that the user wrote.
pub(crate) fn find(
    journal: &Journal,
    user: TelegramId,
    key: &str,
    now: Timestamp,
) -> Option<String> {
    let mut requests = journal.chat(user).requests.into_iter();
    requests.find(|request| request.key == key && request.is_fresh(now)).map(|found| found.command)
}

impl Request {
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.at.0) < LIFETIME
    }
}
