//! Reports to the server which username each user writes under.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_client::Client;
use kms_types::wire::SeenUsername;
use kms_types::{TelegramId, Timestamp, Username};

use crate::chat::incoming::User;

/// A username that was reported is not reported again for this long.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The most reports that are remembered.
const CAPACITY: usize = 100_000;

/// The usernames that were reported recently, so that not every message repeats a report.
pub(crate) struct UsernameReports {
    kms: Client,
    reported: Mutex<HashMap<TelegramId, (Instant, Option<Username>)>>,
}

impl UsernameReports {
    pub(crate) fn new(kms: Client) -> Self {
        Self { kms, reported: Mutex::default() }
    }

    /// Reports the user's username unless that happened recently. A failure is ignored: the next
    /// message reports it again.
    pub(crate) async fn report(&self, user: &User, seen_at: Timestamp) {
        if self.is_reported(user) {
            return;
        }
        let seen = SeenUsername { username: user.username.clone(), seen_at };
        if self.kms.seen_username(user.id.into(), &seen).await.is_ok() {
            let mut reported = self.lock();
            if reported.len() >= CAPACITY {
                reported.clear();
            }
            reported.insert(user.id, (Instant::now(), seen.username));
        }
    }

    /// Drops the remembered report, so that the user's next message reports the username again.
    pub(crate) fn forget(&self, user: TelegramId) {
        self.lock().remove(&user);
    }

    fn is_reported(&self, user: &User) -> bool {
        self.lock().get(&user.id).is_some_and(|(since, username)| {
            *username == user.username && since.elapsed() < INTERVAL
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, (Instant, Option<Username>)>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
