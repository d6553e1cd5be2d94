//! What the server answered last, for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_client::ClientError;

/// A value of the server's configuration, which the operator changes rarely.
pub(crate) struct Cached<T>(Mutex<Option<(T, Instant)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Cached<T> {
    /// Returns the value without asking the server.
    pub(crate) fn known(&self) -> Option<T> {
        self.lock().as_ref().map(|(value, _)| value.clone())
    }

    /// Returns the value, at most this old if the server responds. Falls back to the old one if it
    /// does not.
    pub(crate) async fn younger_than(
        &self,
        age: Duration,
        fetch: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let old = match &mut *self.lock() {
            None => None,
            Some((value, asked)) if asked.elapsed() < age => return Ok(value.clone()),
            Some((value, asked)) => {
                // Concurrent callers use the old one while this caller fetches.
                *asked = Instant::now();
                Some(value.clone())
            }
        };
        match (self.fetch(fetch).await, old) {
            (Err(error), Some(old)) => {
                tracing::warn!(%error, event = "network_refresh_failed", "network refresh failed");
                Ok(old)
            }
            (fetched, _) => fetched,
        }
    }

    /// Keeps what was fetched.
    pub(crate) async fn fetch(
        &self,
        fetch: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let value = fetch.await?;
        *self.lock() = Some((value.clone(), Instant::now()));
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(T, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
