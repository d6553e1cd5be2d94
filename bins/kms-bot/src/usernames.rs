//! Reports to the server which usernames each user has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_client::Client;
use kms_types::wire::SeenUsernames;
use kms_types::{TelegramId, Timestamp, Username, Usernames};

use crate::chat::incoming::User;
use crate::chat::telegram::Telegram;

/// Usernames that were reported are not reported again for this long, while the first one is shown.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The most reports that are remembered.
const CAPACITY: usize = 100_000;

/// The usernames that were reported recently, so that not every message repeats a report.
///
/// The server orders reports by the time at which Telegram knew the usernames. Every time here is
/// therefore Telegram's: of a message, or, for what Telegram is asked, of the newest message that
/// the bot has seen. The clock of this machine may be ahead, and the user's next message would then
/// be older than the report.
pub(crate) struct UsernameReports {
    kms: Client,
    reported: Mutex<HashMap<TelegramId, (Instant, Option<Username>)>>,
    /// The time of the newest message, in milliseconds.
    newest: AtomicI64,
}

impl UsernameReports {
    pub(crate) fn new(kms: Client) -> Self {
        Self { kms, reported: Mutex::default(), newest: AtomicI64::new(0) }
    }

    /// Records when Telegram received a message.
    pub(crate) fn record_time(&self, at: Timestamp) {
        self.newest.fetch_max(at.0, Ordering::Relaxed);
    }

    /// Reports the user's usernames unless that happened recently. A failure is ignored: the next
    /// message reports them again.
    pub(crate) async fn report(&self, telegram: &Telegram, user: &User, seen_at: Timestamp) {
        if self.is_reported(user) {
            return;
        }
        // A message shows the first of them only, and a report of that one would end the others.
        let Ok(profile) = telegram.profile(user.id).await else { return };
        let seen = SeenUsernames { usernames: profile.usernames, seen_at };
        if self.kms.seen_usernames(user.id.into(), &seen).await.is_ok() {
            let mut reported = self.lock();
            if reported.len() >= CAPACITY {
                reported.clear();
            }
            reported.insert(user.id, (Instant::now(), user.username.clone()));
        }
    }

    /// Reports that a user no longer has the username that is bound to their wallet. A failure is
    /// logged: the username is not paid all the same, and the user's next message reports what they
    /// have.
    pub(crate) async fn correct(&self, user: TelegramId, usernames: Usernames) {
        self.lock().remove(&user);
        let newest = self.newest.load(Ordering::Relaxed);
        if newest == 0 {
            // No message has shown Telegram's time since the start.
            return;
        }
        // Before any message of the second in which the newest one was received.
        let seen = SeenUsernames { usernames, seen_at: Timestamp(newest - 1) };
        if let Err(error) = self.kms.seen_usernames(user.into(), &seen).await {
            tracing::info!(%error, "usernames not corrected");
        }
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
