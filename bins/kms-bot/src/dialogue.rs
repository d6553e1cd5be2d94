//! The step that the bot waits for in each private chat, in memory only. No step holds a secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_types::{TelegramId, Timestamp};

use crate::journal::PASSWORD_WINDOW;

/// A step expires after this long without an answer.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Dialogues are kept in memory for this long after their last question: longer than a password is
/// expected.
const KEPT: Duration = Duration::from_secs(2 * 60 * 60);
/// From this many dialogues on, those that are over are removed when one is added.
const CLEANUP_FROM: usize = 10_000;

/// The dialogues of all users. `S` is the type of a step, which is opaque to this store.
pub(crate) struct Dialogues<S: ?Sized>(Mutex<HashMap<TelegramId, Dialogue<S>>>);

struct Dialogue<S: ?Sized> {
    since: Instant,
    step: Option<Pending<S>>,
    /// When a password was last asked for.
    password_asked: Option<Timestamp>,
}

struct Pending<S: ?Sized> {
    step: Arc<S>,
    asks_password: bool,
}

impl<S: ?Sized> Default for Dialogues<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: ?Sized> Dialogues<S> {
    /// Waits for the answer to a step, instead of any earlier one.
    pub(crate) fn begin(
        &self,
        user: TelegramId,
        step: Arc<S>,
        asks_password: bool,
        now: Timestamp,
    ) {
        let mut dialogues = self.lock();
        if dialogues.len() >= CLEANUP_FROM {
            dialogues.retain(|_, dialogue| dialogue.since.elapsed() < KEPT);
        }
        let earlier = dialogues.remove(&user).and_then(|dialogue| dialogue.password_asked);
        let password_asked = if asks_password { Some(now) } else { earlier };
        let step = Some(Pending { step, asks_password });
        dialogues.insert(user, Dialogue { since: Instant::now(), step, password_asked });
    }

    /// Takes the user's texts for possible passwords, as a password was asked for at that time.
    pub(crate) fn restore_password_window(&self, user: TelegramId, asked: Timestamp) {
        let since = Instant::now();
        let dialogue = Dialogue { since, step: None, password_asked: Some(asked) };
        self.lock().insert(user, dialogue);
    }

    /// Returns the step that the user's next text answers.
    pub(crate) fn current(&self, user: TelegramId) -> Option<Arc<S>> {
        let dialogues = self.lock();
        let dialogue = dialogues.get(&user).filter(|dialogue| dialogue.is_alive())?;
        dialogue.step.as_ref().map(|pending| Arc::clone(&pending.step))
    }

    /// Ends the current step and returns it, unless it had expired.
    pub(crate) fn end(&self, user: TelegramId, now: Timestamp) -> Option<Arc<S>> {
        let mut dialogues = self.lock();
        let dialogue = dialogues.get_mut(&user)?;
        let alive = dialogue.is_alive();
        let pending = dialogue.step.take()?;
        if pending.asks_password {
            dialogue.password_asked = Some(now);
        }
        alive.then_some(pending.step)
    }

    /// Reports whether a text that this user wrote at that time may be a password: one was asked
    /// for, or had been recently.
    pub(crate) fn may_receive_password(&self, user: TelegramId, at: Timestamp) -> bool {
        let dialogues = self.lock();
        let asked = dialogues.get(&user).and_then(|dialogue| dialogue.password_asked);
        asked.is_some_and(|asked| at.0.saturating_sub(asked.0) < PASSWORD_WINDOW)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, Dialogue<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: ?Sized> Dialogue<S> {
    fn is_alive(&self) -> bool {
        self.since.elapsed() < LIFETIME
    }
}
