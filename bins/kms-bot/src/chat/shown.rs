//! What the bot's messages show, so that an edit that would change nothing is not made.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use teloxide_core::types::{ChatId, MessageId};

use super::keyboard::Keyboard;
use crate::texts::Html;

/// The most messages that are remembered. What was forgotten is edited in vain.
const CAPACITY: usize = 20_000;

pub(crate) type Place = (ChatId, MessageId);

/// The messages that were sent or edited recently.
#[derive(Default)]
pub(super) struct Shown(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// A hash of what each message shows.
    messages: HashMap<Place, u64>,
    /// Messages that were sent because one to edit was gone.
    successors: HashMap<Place, MessageId>,
}

impl Shown {
    /// Reports whether the message shows this already.
    pub(super) fn is_shown(&self, place: Place, html: &Html, keyboard: &Keyboard) -> bool {
        self.lock().messages.get(&place) == Some(&hash(html, keyboard))
    }

    pub(super) fn record(&self, place: Place, html: &Html, keyboard: &Keyboard) {
        let mut inner = self.lock();
        if inner.messages.len() >= CAPACITY {
            inner.messages.clear();
        }
        inner.messages.insert(place, hash(html, keyboard));
    }

    /// The message's content is unknown from now on.
    pub(super) fn forget(&self, place: Place) {
        self.lock().messages.remove(&place);
    }

    /// Edits of a message are made in a new one from now on.
    pub(super) fn replace(&self, (chat, gone): Place, new: MessageId) {
        let mut inner = self.lock();
        if inner.successors.len() >= CAPACITY {
            inner.successors.clear();
        }
        inner.successors.insert((chat, gone), new);
    }

    /// The message in which edits of this one are made.
    pub(super) fn successor(&self, (chat, mut message): Place) -> MessageId {
        let inner = self.lock();
        // A successor is newer than what it replaces.
        while let Some(newer) = inner.successors.get(&(chat, message)) {
            message = *newer;
        }
        message
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(html: &Html, keyboard: &Keyboard) -> u64 {
    let mut hasher = DefaultHasher::new();
    html.as_str().hash(&mut hasher);
    // The debug form shows every button.
    format!("{keyboard:?}").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_follow_a_message_that_was_deleted_more_than_once() {
        let (shown, chat) = (Shown::default(), ChatId(1));
        shown.replace((chat, MessageId(15)), MessageId(17));
        shown.replace((chat, MessageId(17)), MessageId(20));
        for message in [15, 17, 20] {
            assert_eq!(shown.successor((chat, MessageId(message))), MessageId(20));
        }
        assert_eq!(shown.successor((ChatId(2), MessageId(15))), MessageId(15));
    }
}
