//! Deletions of messages that may show a secret, each in a job of its own: neither the deadline of
//! a handler, nor a full lane, nor a slow server delays one. The journal remembers them until they
//! are done, so that a bot that is killed deletes the messages when it starts again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kms_types::TelegramId;
use teloxide_core::types::{ChatId, MessageId};
use tokio::sync::watch;
use tokio::time::timeout;

use super::shown::Place;
use super::telegram::{Telegram, TelegramError};
use crate::journal::Journal;

/// How long a handler waits for a deletion before it asks the user to delete the message. The
/// deletion continues.
const PATIENCE: Duration = Duration::from_secs(5);

/// The outcome of a deletion, once it is known.
type Outcome = watch::Receiver<Option<Result<(), TelegramError>>>;

/// The deletions that run, and those that failed and that no handler knows of yet. Clones share
/// them.
#[derive(Clone)]
pub(crate) struct Deletions(Arc<Inner>);

struct Inner {
    telegram: Arc<Telegram>,
    journal: Arc<Journal>,
    running: Mutex<HashMap<Place, Outcome>>,
}

/// A message in a user's private chat.
pub(crate) fn in_private(user: TelegramId, message: MessageId) -> Place {
    (ChatId(user.into()), message)
}

impl Deletions {
    pub(crate) fn new(telegram: Arc<Telegram>, journal: Arc<Journal>) -> Self {
        Self(Arc::new(Inner { telegram, journal, running: Mutex::default() }))
    }

    /// Starts the deletions that the bot's end interrupted.
    pub(crate) fn resume(&self) {
        for (user, place) in self.0.journal.deletions() {
            self.start(user, place, ());
        }
    }

    /// Starts to delete a user's message, unless that is being done, and keeps a value until it is
    /// done.
    pub(crate) fn start(&self, user: TelegramId, place: Place, kept: impl Send + 'static) {
        keep(self.run(user, place), kept);
    }

    /// Keeps a value while a message is being deleted. A message of which no handler has started a
    /// deletion shows no secret.
    pub(crate) fn settle(&self, user: TelegramId, place: Place, kept: impl Send + 'static) {
        let running = self.lock().get(&place).cloned();
        match running {
            Some(outcome) => keep(outcome, kept),
            None => self.0.journal.end_deletion(user, place),
        }
    }

    /// Deletes a user's message. A message that no longer exists is no error.
    pub(crate) async fn delete(&self, user: TelegramId, place: Place) -> Result<(), TelegramError> {
        let mut outcome = self.run(user, place);
        let waited = timeout(PATIENCE, outcome.wait_for(Option::is_some)).await;
        let known = waited.ok().and_then(Result::ok).and_then(|outcome| outcome.clone());
        if known.is_some() {
            self.lock().remove(&place);
        }
        known.unwrap_or(Err(TelegramError::Unreachable("timeout")))
    }

    fn run(&self, user: TelegramId, place: Place) -> Outcome {
        let start = || {
            self.0.journal.begin_deletion(user, place);
            let (done, outcome) = watch::channel(None);
            let deletions = self.clone();
            tokio::spawn(async move {
                let result = deletions.0.telegram.delete_persistently(place).await;
                if let Err(error) = &result {
                    let event = "password_message_kept";
                    tracing::warn!(%error, event, "password message not deleted");
                }
                // What Telegram did not answer is tried again after a restart.
                if !result.as_ref().is_err_and(TelegramError::is_temporary) {
                    deletions.0.journal.end_deletion(user, place);
                }
                if result.is_ok() {
                    // A later request finds that the message is gone.
                    deletions.lock().remove(&place);
                }
                done.send_replace(Some(result));
            });
            outcome
        };
        self.lock().entry(place).or_insert_with(start).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Outcome>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(mut outcome: Outcome, kept: impl Send + 'static) {
    tokio::spawn(async move {
        // An error would mean that the deletion panicked.
        let _ = outcome.wait_for(Option::is_some).await.is_ok();
        drop(kept);
    });
}
