//! Deletions of messages that may show a secret, each in a job of its own: neither the deadline of
//! a handler, nor a full lane, nor a slow server delays one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kms_types::TelegramId;
use teloxide_core::types::{ChatId, MessageId};
use tokio::sync::watch;
use tokio::time::timeout;

use super::shown::Place;
use super::telegram::{Telegram, TelegramError};

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
    running: Mutex<HashMap<Place, Outcome>>,
}

/// A message in a user's private chat.
pub(crate) fn in_private(user: TelegramId, message: MessageId) -> Place {
    (ChatId(user.into()), message)
}

impl Deletions {
    pub(crate) fn new(telegram: Arc<Telegram>) -> Self {
        Self(Arc::new(Inner { telegram, running: Mutex::default() }))
    }

    /// Starts to delete a message, unless that is being done, and keeps a value until it is done.
    pub(crate) fn start(&self, place: Place, kept: impl Send + 'static) {
        drop(self.run(place));
        self.keep(place, kept);
    }

    /// Keeps a value while a message is being deleted.
    pub(crate) fn keep(&self, place: Place, kept: impl Send + 'static) {
        let running = self.lock().get(&place).cloned();
        if let Some(mut outcome) = running {
            tokio::spawn(async move {
                // An error would mean that the deletion panicked.
                let _ = outcome.wait_for(Option::is_some).await.is_ok();
                drop(kept);
            });
        }
    }

    /// Deletes a message. A message that no longer exists is no error.
    pub(crate) async fn delete(&self, place: Place) -> Result<(), TelegramError> {
        let mut outcome = self.run(place);
        let waited = timeout(PATIENCE, outcome.wait_for(Option::is_some)).await;
        let known = waited.ok().and_then(Result::ok).and_then(|outcome| outcome.clone());
        if known.is_some() {
            self.lock().remove(&place);
        }
        known.unwrap_or(Err(TelegramError::Unreachable("timeout")))
    }

    fn run(&self, place: Place) -> Outcome {
        let start = || {
            let (done, outcome) = watch::channel(None);
            let deletions = self.clone();
            tokio::spawn(async move {
                let result = deletions.0.telegram.delete_persistently(place).await;
                match &result {
                    // A later request finds that the message is gone.
                    Ok(()) => drop(deletions.lock().remove(&place)),
                    Err(error) => {
                        let event = "password_message_kept";
                        tracing::warn!(%error, event, "password message not deleted");
                    }
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
