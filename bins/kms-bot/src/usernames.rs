//! Reports to the server which username each user writes under.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_client::Client;
use kms_types::wire::SeenUsername;
use kms_types::{TelegramId, Timestamp, Username};

use crate::chat::incoming::User;
use crate::chat::telegram::{Profile, Telegram};

/// A username that was reported is not reported again for this long.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The most reports that are remembered.
const CAPACITY: usize = 100_000;

/// The usernames that were reported recently, so that not every message repeats a report.
///
/// The server orders reports by the time at which Telegram knew the username. Every time here is
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

    /// Reports the user's username unless that happened recently. A failure is ignored: the next
    /// message reports it again.
    pub(crate) async fn report(&self, telegram: &Telegram, user: &User, seen_at: Timestamp) {
        if self.is_reported(user) {
            return;
        }
        let username = self.kept(telegram, user).await;
        let seen = SeenUsername { username, seen_at };
        if self.kms.seen_username(user.id.into(), &seen).await.is_ok() {
            let mut reported = self.lock();
            if reported.len() >= CAPACITY {
                reported.clear();
            }
            reported.insert(user.id, (Instant::now(), user.username.clone()));
        }
    }

    /// The username to report: of several that a user has, the one that is bound to the wallet.
    async fn kept(&self, telegram: &Telegram, user: &User) -> Option<Username> {
        let shown = user.username.clone()?;
        let Ok(Profile { usernames, .. }) = telegram.profile(user.id).await else {
            return Some(shown);
        };
        if usernames.len() < 2 {
            return Some(shown);
        }
        let account = self.kms.account(user.id.into()).await.ok().flatten();
        let bound = account.and_then(|account| account.username);
        Some(bound.filter(|bound| usernames.contains(bound)).unwrap_or(shown))
    }

    /// Reports that a user no longer has the username that is bound to their wallet. A failure is
    /// logged: the username is not paid all the same, and the user's next message reports what they
    /// have.
    pub(crate) async fn correct(&self, user: TelegramId, usernames: Vec<Username>) {
        self.lock().remove(&user);
        let newest = self.newest.load(Ordering::Relaxed);
        if newest == 0 {
            // No message has shown Telegram's time since the start.
            return;
        }
        // Before any message of the second in which the newest one was received.
        let seen_at = Timestamp(newest - 1);
        let seen = SeenUsername { username: usernames.into_iter().next(), seen_at };
        if let Err(error) = self.kms.seen_username(user.into(), &seen).await {
            tracing::info!(%error, "username not corrected");
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
