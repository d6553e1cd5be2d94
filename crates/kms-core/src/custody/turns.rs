//! Attempts at one account's password are made one after the other: several correct ones at once
//! would be counted before the first is cleared, and the account locked as if they were guesses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kms_types::AccountId;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::kdf_pool::PoolError;

/// Attempts at one account's password that wait, at most. A waiting attempt occupies no permit of
/// the KDF pool.
const WAITING: usize = 128;

/// How long an attempt waits.
const LONGEST: Duration = Duration::from_secs(10);

/// Above this number of accounts, those without an attempt are forgotten.
const MANY: usize = 1_000;

type Queue = tokio::sync::Mutex<()>;

/// A queue for each account with an attempt in flight, in this process.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<AccountId, Weak<Queue>>>);

/// The right to try the account's password. The next attempt proceeds when it is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits for the earlier attempts at the account's password.
    ///
    /// # Errors
    /// `Busy` when too many wait, or for too long.
    pub(super) async fn take(&self, account: AccountId) -> Result<Turn, PoolError> {
        let queue = self.queue(account);
        // One reference for the attempt in flight, and one for each that waits.
        if Arc::strong_count(&queue) > WAITING + 1 {
            return Err(PoolError::Busy);
        }
        timeout(LONGEST, queue.lock_owned()).await.map_err(|_elapsed| PoolError::Busy)
    }

    fn queue(&self, account: AccountId) -> Arc<Queue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() > MANY {
            queues.retain(|_, queue| queue.strong_count() > 0);
        }
        let found = queues.get(&account).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let queue = Arc::default();
            queues.insert(account, Arc::downgrade(&queue));
            queue
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_is_bounded_and_each_account_has_its_own() {
        let (turns, ann) = (Arc::new(Turns::default()), AccountId::random());
        let first = turns.take(ann).await.unwrap();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.take(ann).await.map(drop) })
            })
            .collect();
        while Arc::strong_count(&turns.queue(ann)) < WAITING + 2 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(turns.take(ann).await, Err(PoolError::Busy)));
        turns.take(AccountId::random()).await.unwrap();
        drop(first);
        for attempt in waiting {
            attempt.await.unwrap().unwrap();
        }
        turns.take(ann).await.unwrap();
    }
}
