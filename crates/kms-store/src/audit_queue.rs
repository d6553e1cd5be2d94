//! Audit records of this process that wait to be written, and refusals that need not be.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kms_core::audit::{AuditRecord, Tip};
use kms_core::ports::StoreError;
use tokio::sync::{MutexGuard, oneshot};

/// The records of one transaction, limited by the parameters of a statement.
const BATCH: usize = 512;

/// The capacity of the cache of refusals.
const REFUSALS: usize = 10_000;

/// A queue for group commit.
#[derive(Default)]
pub(crate) struct AuditQueue {
    waiting: Mutex<Vec<Waiting>>,
    /// Refusals that were recorded, and until when a repeat is not: a flood of them causes no
    /// query.
    refused: Mutex<HashMap<String, Instant>>,
    writer: tokio::sync::Mutex<()>,
    /// The row that this process wrote last.
    last: Mutex<Tip>,
}

/// A record, and the channel that reports whether it was written.
pub(crate) struct Waiting {
    pub(crate) record: AuditRecord,
    pub(crate) written: oneshot::Sender<Result<(), StoreError>>,
}

impl AuditQueue {
    pub(crate) fn push(&self, waiting: Waiting) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
    }

    /// Waits to become the only writer. The previous one may have taken the caller's record.
    pub(crate) async fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().await
    }

    /// Takes the oldest records, as many as one transaction writes.
    pub(crate) fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = waiting.len().min(BATCH);
        waiting.drain(..batch).collect()
    }

    /// Returns the row that this process wrote last: number 0 before the first.
    pub(crate) fn last(&self) -> Tip {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the row that this process wrote last.
    pub(crate) fn set_last(&self, tip: Tip) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = tip;
    }

    /// Whether the same refusal was recorded recently.
    pub(crate) fn is_refused(&self, key: &str) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(key).is_some_and(|until| Instant::now() < *until)
    }

    /// Remembers a refusal for a time. Beyond the capacity, the database decides about repeats.
    pub(crate) fn remember_refusal(&self, key: String, time: Duration) {
        let (mut refused, now) =
            (self.refused.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if refused.len() >= REFUSALS {
            refused.retain(|_, until| now < *until);
        }
        // The time comes from a database row; a modified one may be out of range.
        if let (true, Some(until)) = (refused.len() < REFUSALS, now.checked_add(time)) {
            refused.insert(key, until);
        }
    }
}
