//! The trace id of each user's last update. Kept in memory alone: it helps with what has just
//! happened.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kms_types::{TelegramId, TraceId};

/// More users than write between two complaints. Above it, all are forgotten.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Traces(Mutex<HashMap<TelegramId, Last>>);

#[derive(Debug)]
struct Last {
    id: TraceId,
    /// Whether the update that is being handled shows it, and so does not replace it.
    shown: bool,
}

impl Traces {
    /// Notes that an update was handled under this id.
    pub(crate) fn note(&self, user: TelegramId, id: TraceId) {
        let mut traces = self.lock();
        if let Some(last) = traces.get_mut(&user)
            && std::mem::take(&mut last.shown)
        {
            return;
        }
        if traces.len() >= MOST {
            traces.clear();
        }
        traces.insert(user, Last { id, shown: false });
    }

    /// Returns the id of the user's last update, for the one that is being handled to show it.
    pub(crate) fn show(&self, user: TelegramId) -> Option<TraceId> {
        let mut traces = self.lock();
        let last = traces.get_mut(&user)?;
        last.shown = true;
        Some(last.id.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
