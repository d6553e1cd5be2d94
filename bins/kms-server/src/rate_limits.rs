//! Rate limits of requests: those kept in the database, which hold over all servers, and those of
//! reads, kept in this process's memory.
//!
//! Read limits are per process, because a database write for each read would cost more than the
//! read. They keep one caller from reading out the database, and one account's flood from delaying
//! the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota};
use kms_store::{Database, RateLimit};
use kms_types::TelegramId;

use crate::error::ApiError;

/// Above this number of keys, refilled buckets are dropped from memory.
const MANY: usize = 50_000;
/// Long polls that wait at once on each server, and those of one caller: each is five queries a
/// second. A bot has two, and those of one that was killed wait until they time out.
const POLLS: usize = 64;
const POLLS_OF_A_CALLER: usize = 24;
/// The longest account reference is shorter.
const LONGEST: usize = 64;

/// The token buckets of callers and accounts.
#[derive(Debug)]
pub(crate) struct ReadLimits {
    callers: DefaultKeyedRateLimiter<String>,
    accounts: DefaultKeyedRateLimiter<String>,
}

impl ReadLimits {
    pub(crate) fn new(of_a_caller: Quota, of_an_account: Quota) -> Self {
        Self {
            callers: DefaultKeyedRateLimiter::keyed(of_a_caller),
            accounts: DefaultKeyedRateLimiter::keyed(of_an_account),
        }
    }

    /// Takes one read from the caller's bucket, and one from the account's if it names one.
    pub(crate) fn take(&self, caller: &str, account: Option<&str>) -> Result<(), ApiError> {
        take(
            &self.callers,
            caller,
            "too many reads by this caller; repeat after `retry_after` seconds",
        )?;
        match account {
            // A longer one is refused by the parser.
            Some(account) if account.len() <= LONGEST => take(
                &self.accounts,
                account,
                "too many reads of this account; repeat after `retry_after` seconds",
            ),
            _ => Ok(()),
        }
    }
}

/// The token buckets of openings of the page.
#[derive(Debug)]
pub(crate) struct OpeningLimits {
    all: DefaultDirectRateLimiter,
    users: DefaultKeyedRateLimiter<String>,
}

impl OpeningLimits {
    pub(crate) fn new(of_all: Quota, of_a_user: Quota) -> Self {
        let users = DefaultKeyedRateLimiter::keyed(of_a_user);
        Self { all: DefaultDirectRateLimiter::direct(of_all), users }
    }

    /// Takes one from the bucket of all.
    pub(crate) fn take_any(&self) -> Result<(), ApiError> {
        self.all.check().map_err(|until| {
            let after = until.wait_time_from(DefaultClock::default().now());
            ApiError::rate_limited("too many pages are opened; try again in a moment", after)
        })
    }

    /// Takes one from a user's bucket.
    pub(crate) fn take_of(&self, user: TelegramId) -> Result<(), ApiError> {
        let detail = "you opened the page too often; try again in a minute";
        take(&self.users, &user.to_string(), detail)
    }
}

/// The long polls that wait, of each caller.
#[derive(Debug, Default)]
pub(crate) struct Polls(Mutex<HashMap<String, usize>>);

impl Polls {
    /// Lets a caller wait, until the result is dropped.
    pub(crate) fn begin(&self, caller: &str) -> Result<Poll<'_>, ApiError> {
        let mut waiting = self.lock();
        let all: usize = waiting.values().sum();
        let own = waiting.get(caller).copied().unwrap_or_default();
        if own >= POLLS_OF_A_CALLER || all >= POLLS {
            let detail = "too many long polls wait; repeat after `retry_after` seconds";
            return Err(ApiError::rate_limited(detail, Duration::from_secs(1)));
        }
        waiting.insert(caller.to_owned(), own + 1);
        Ok(Poll { polls: self, caller: caller.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A long poll that waits.
#[derive(Debug)]
pub(crate) struct Poll<'a> {
    polls: &'a Polls,
    caller: String,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut own) = self.polls.lock().entry(std::mem::take(&mut self.caller))
        {
            match own.get().checked_sub(1) {
                None | Some(0) => drop(own.remove()),
                Some(rest) => drop(own.insert(rest)),
            }
        }
    }
}

/// Takes one from the bucket of `key` in the database.
///
/// # Errors
/// 429 with `detail` when the bucket is empty.
pub(crate) async fn admit(
    database: &Database,
    key: &str,
    limit: RateLimit,
    detail: &'static str,
) -> Result<(), ApiError> {
    let taken = database.take(key, limit).await?;
    taken.map_err(|after| ApiError::rate_limited(detail, after))
}

fn take(
    limiter: &DefaultKeyedRateLimiter<String>,
    key: &str,
    detail: &'static str,
) -> Result<(), ApiError> {
    if limiter.len() > MANY {
        limiter.retain_recent();
    }
    limiter.check_key(&key.to_owned()).map_err(|until| {
        let after = until.wait_time_from(DefaultClock::default().now());
        ApiError::rate_limited(detail, after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_polls_of_a_caller_and_of_all_wait_at_once() {
        let polls = Polls::default();
        let mut waiting: Vec<_> = (0..24).map(|_| polls.begin("bot").unwrap()).collect();
        assert!(polls.begin("bot").is_err());
        let others = (24..64).map(|poll| polls.begin(&format!("other{}", poll / 8)).unwrap());
        waiting.extend(others.collect::<Vec<_>>());
        assert!(polls.begin("another").is_err());
        drop(waiting.remove(0));
        polls.begin("bot").unwrap();
        drop(waiting);
        assert!(polls.lock().is_empty());
    }

    #[test]
    fn callers_and_accounts_have_buckets_of_their_own() {
        let three = Quota::per_second(3.try_into().unwrap());
        let two = Quota::per_second(2.try_into().unwrap());
        let limits = ReadLimits::new(three, two);
        for _ in 0..2 {
            limits.take("bot", Some("ann")).unwrap();
        }
        assert!(limits.take("bot", Some("ann")).is_err());
        assert!(limits.take("bot", Some("bob")).is_err(), "the caller's bucket is empty");
        limits.take("reader", Some("bob")).unwrap();
    }
}
