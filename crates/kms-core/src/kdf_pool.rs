//! Where passwords are stretched: as many at once as there are cores for it, as many waiting as
//! an operator allows, and everybody else is told to come back.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::stack;

/// A bounded pool for work that takes a core for tens of milliseconds.
#[derive(Clone, Debug)]
pub struct KdfPool {
    /// One permit for every task that runs or waits.
    places: Arc<Semaphore>,
    /// One permit for every task that runs.
    cores: Arc<Semaphore>,
}

/// A place in the pool that is taken, and given back when it is dropped or its work ends.
#[derive(Debug)]
pub struct Place {
    place: OwnedSemaphorePermit,
    cores: Arc<Semaphore>,
}

/// Why the pool did not do the work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// All places are taken.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    /// The work panicked, or the process is stopping.
    #[error("the password could not be checked")]
    Stopped,
}

impl KdfPool {
    /// A pool for `running` tasks at once and `waiting` more.
    #[must_use]
    pub fn new(running: NonZeroUsize, waiting: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(running.get().saturating_add(waiting))),
            cores: Arc::new(Semaphore::new(running.get())),
        }
    }

    /// Takes a place, or says at once that there is none.
    ///
    /// # Errors
    /// `Busy` when as many tasks run and wait as may.
    pub fn reserve(&self) -> Result<Place, PoolError> {
        let place =
            Arc::clone(&self.places).try_acquire_owned().map_err(|_full| PoolError::Busy)?;
        Ok(Place { place, cores: Arc::clone(&self.cores) })
    }
}

impl Place {
    /// Runs the work on a thread of its own, in order of arrival, and leaves nothing of it there.
    ///
    /// # Errors
    /// `Stopped` when the work panics or the process is stopping.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let core = self.cores.acquire_owned().await.map_err(|_closed| PoolError::Stopped)?;
        let place = self.place;
        tokio::task::spawn_blocking(move || {
            // Held until the work ends, also when nobody waits for it any more.
            let _held = (place, core);
            stack::wiped_after(work)
        })
        .await
        .map_err(|_panic| PoolError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn refuses_at_once_what_does_not_fit() {
        let pool = KdfPool::new(NonZeroUsize::MIN, 1);
        let (release, wait) = mpsc::channel::<()>();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move { pool.reserve().unwrap().run(move || wait.recv()).await }
        });
        while pool.cores.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.reserve().unwrap().run(|| 7).await }
        });
        while pool.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(pool.reserve(), Err(PoolError::Busy)));
        release.send(()).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 7);
        running.await.unwrap().unwrap().unwrap();
        assert_eq!(pool.reserve().unwrap().run(|| 8).await.unwrap(), 8);
    }
}
