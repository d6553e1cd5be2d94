//! Calls that Telegram makes after the bot has waited for them in vain and has repeated them: the
//! first call then shows something once more, or something old.
//!
//! Some seconds after an attempt that timed out, an edited message is edited once more with what it
//! has to show by then, and a message that was sent twice, or was given up, is looked for and
//! deleted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use teloxide_core::types::{ChatId, MessageId};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Telegram, edit_of, without_buttons};
use crate::chat::calls::{ATTEMPT, CallError};
use crate::chat::keyboard::Keyboard;
use crate::chat::shown::Place;
use crate::texts::Html;

/// How long after an attempt timed out Telegram may still do what it asked for.
const LATE: Duration = Duration::from_secs(4);
/// How long one repair keeps the chat from other messages.
const TURN: Duration = Duration::from_secs(3);
/// The attempts of a repair.
const ATTEMPTS: u32 = 20;
/// From this many chats on, those that are idle are removed when one is added.
const CLEANUP_FROM: usize = 10_000;

/// What late calls may change, and whose turn it is in each chat: a repair and another message must
/// not overtake each other.
#[derive(Default)]
pub(super) struct LateCalls {
    edits: Mutex<HashMap<Place, Doubt>>,
    turns: Mutex<HashMap<ChatId, Arc<AsyncMutex<()>>>>,
    /// How many messages were given up in each chat that may still arrive.
    given_up: Mutex<HashMap<ChatId, u32>>,
}

/// A message that a late edit may change.
struct Doubt {
    until: Instant,
    /// What it has to show, if an edit after that succeeded.
    shows: Option<Wanted>,
}

/// What a message has to show.
enum Wanted {
    All(Html, Keyboard),
    /// No buttons, below whatever text.
    NoButtons,
}

/// When the calls of an attempt that times out now are done at the latest.
pub(super) fn until() -> Instant {
    Instant::now() + LATE
}

impl LateCalls {
    /// Waits until no other message is sent to a chat or edited there.
    pub(super) async fn turn(&self, chat: ChatId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= CLEANUP_FROM && !turns.contains_key(&chat) {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(chat).or_default())
        };
        turn.lock_owned().await
    }

    /// Records what a message shows, if a late edit may change that.
    pub(super) fn record(&self, place: Place, html: &Html, keyboard: &Keyboard) {
        if let Some(doubt) = self.edits().get_mut(&place) {
            doubt.shows = Some(Wanted::All(html.clone(), keyboard.clone()));
        }
    }

    /// Records that a message has no buttons any more, if a late edit may change that.
    pub(super) fn record_no_buttons(&self, place: Place) {
        match self.edits().get_mut(&place).map(|doubt| &mut doubt.shows) {
            Some(Some(Wanted::All(_, keyboard))) => *keyboard = Keyboard::none(),
            Some(shows) => *shows = Some(Wanted::NoButtons),
            None => {}
        }
    }

    /// Records that a message was deleted.
    pub(super) fn forget(&self, place: Place) {
        self.edits().remove(&place);
    }

    /// Whether a message may arrive that was given up.
    pub(super) fn has_given_up(&self, chat: ChatId) -> bool {
        self.given_up().contains_key(&chat)
    }

    fn end_given_up(&self, chat: ChatId) {
        let mut given_up = self.given_up();
        if let Some(count) = given_up.get_mut(&chat) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                given_up.remove(&chat);
            }
        }
    }

    fn given_up(&self) -> MutexGuard<'_, HashMap<ChatId, u32>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edits(&self) -> MutexGuard<'_, HashMap<Place, Doubt>> {
        self.edits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telegram {
    /// Edits a message once more after this time, unless none of its edits succeeds until then.
    pub(super) fn repair_edit(&self, place: Place, until: Instant) {
        // The bot may be ending.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut edits = self.late.edits();
        if let Some(doubt) = edits.get_mut(&place) {
            doubt.until = doubt.until.max(until);
            return;
        }
        edits.insert(place, Doubt { until, shows: None });
        let telegram = self.me.clone();
        runtime.spawn(async move {
            let mut until = until;
            for _ in 0..ATTEMPTS {
                sleep_until(until).await;
                let Some(telegram) = telegram.upgrade() else { return };
                match telegram.edit_once_more(place).await {
                    Some(later) => until = later,
                    None => break,
                }
            }
            if let Some(telegram) = telegram.upgrade() {
                telegram.late.forget(place);
            }
        });
    }

    /// Shows what a message has to show. Returns when to try that again.
    async fn edit_once_more(&self, place: Place) -> Option<Instant> {
        let _turn = self.late.turn(place.0).await;
        let wanted = {
            let mut edits = self.late.edits();
            let doubt = edits.get(&place)?;
            if doubt.until > Instant::now() {
                return Some(doubt.until);
            }
            // While this edit is made, no other one is.
            edits.remove(&place)?.shows?
        };
        let (chat, deadline) = (Some(place.0), Instant::now() + TURN);
        let edited = match &wanted {
            Wanted::All(html, keyboard) => {
                let edit = edit_of(place, html, keyboard.clone());
                self.attempt(chat, deadline, &edit).await.map(drop)
            }
            Wanted::NoButtons => {
                self.attempt(chat, deadline, &without_buttons(place)).await.map(drop)
            }
        };
        match edited {
            Ok(()) | Err(CallError::Refused(_)) => None,
            Err(CallError::Wait(_) | CallError::Unknown(_) | CallError::Timeout) => {
                let until = until();
                self.late.edits().insert(place, Doubt { until, shows: Some(wanted) });
                Some(until)
            }
        }
    }

    /// Looks after this time for what Telegram sent late after a message, a double of which it is,
    /// and deletes it.
    pub(super) fn delete_double_later(&self, chat: ChatId, after: MessageId, until: Instant) {
        // The bot may be ending.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(delete_late(self.me.clone(), chat, after, until));
    }

    /// Does the same for a message that is given up now. Until it is done, a search for a later
    /// message may find this one.
    pub(super) fn give_up(&self, chat: ChatId, after: MessageId) {
        let Ok(runtime) = Handle::try_current() else { return };
        *self.late.given_up().entry(chat).or_default() += 1;
        let telegram = self.me.clone();
        runtime.spawn(async move {
            // Its last attempt may have just begun.
            delete_late(telegram.clone(), chat, after, until() + ATTEMPT).await;
            if let Some(telegram) = telegram.upgrade() {
                telegram.late.end_given_up(chat);
            }
        });
    }
}

async fn delete_late(telegram: Weak<Telegram>, chat: ChatId, after: MessageId, until: Instant) {
    let mut at = until;
    for _ in 0..ATTEMPTS {
        sleep_until(at).await;
        let Some(telegram) = telegram.upgrade() else { return };
        let _turn = telegram.late.turn(chat).await;
        if let Ok(Ok(())) = timeout(TURN, telegram.delete_doubles(chat, after)).await {
            return;
        }
        at = Instant::now() + LATE;
    }
    tracing::info!("message that may have been sent late not looked for");
}
