//! Where passwords are stretched: as many at once as there are cores for it, as many waiting as
//! an operator allows, and everybody else is told to come back.
//!
//! The threads are the pool's own and stand back behind whatever else wants the cores (on Linux: ten
//! steps of niceness, a tenth of a core where all are busy), so that a read that takes a tenth of a
//! millisecond does not wait for passwords that take twenty.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::stack::with_wiped_stack;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool for work that takes a core for tens of milliseconds. Its threads end with the last
/// copy of it.
#[derive(Clone)]
pub struct KdfPool {
    /// One permit for every task that runs or waits.
    places: Arc<Semaphore>,
    /// One permit for every task that runs: for every thread.
    cores: Arc<Semaphore>,
    threads: Sender<Job>,
}

/// A place in the pool that is taken, and given back when it is dropped or its work ends.
pub struct Place {
    place: OwnedSemaphorePermit,
    pool: KdfPool,
}

/// Why the pool did not do the work.
#[derive(Debug, thiserror::Error)]
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
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(running: NonZeroUsize, waiting: usize) -> io::Result<Self> {
        let (threads, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for _thread in 0..running.get() {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name("password".to_owned()).spawn(move || work_off(&jobs))?;
        }
        Ok(Self {
            places: Arc::new(Semaphore::new(running.get().saturating_add(waiting))),
            cores: Arc::new(Semaphore::new(running.get())),
            threads,
        })
    }

    /// Takes a place, or says at once that there is none.
    ///
    /// # Errors
    /// `Busy` when as many tasks run and wait as may.
    pub fn reserve(&self) -> Result<Place, PoolError> {
        let place =
            Arc::clone(&self.places).try_acquire_owned().map_err(|_full| PoolError::Busy)?;
        Ok(Place { place, pool: self.clone() })
    }
}

impl Place {
    /// Runs the work on a thread of the pool, in order of arrival, and leaves nothing of it there.
    ///
    /// # Errors
    /// `Stopped` when the work panics or the process is stopping.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let Self { place, pool: KdfPool { cores, threads, .. } } = self;
        let core = cores.acquire_owned().await.map_err(|_closed| PoolError::Stopped)?;
        let (answer, done) = oneshot::channel();
        let job = move || {
            // A panic has been told where it happened; whoever waits sees that no answer comes.
            let done = catch_unwind(AssertUnwindSafe(|| with_wiped_stack(work)));
            // Held until the work ends, also when nobody waits for it any more; and not longer than
            // that, for whoever has the answer and comes back.
            drop((place, core));
            if let Ok(done) = done {
                let _ = answer.send(done);
            }
        };
        threads.send(Box::new(job)).map_err(|_ended| PoolError::Stopped)?;
        done.await.map_err(|_panic| PoolError::Stopped)
    }
}

/// What a thread of the pool does until the pool is dropped.
fn work_off(jobs: &Mutex<Receiver<Job>>) {
    // Where it is refused, reads wait for passwords a little longer.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 10);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(job) = next() {
        job();
    }
}

impl fmt::Debug for KdfPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KdfPool")
            .field("places", &self.places.available_permits())
            .field("cores", &self.cores.available_permits())
            .finish()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn refuses_at_once_what_does_not_fit() {
        let pool = KdfPool::new(NonZeroUsize::MIN, 1).unwrap();
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

    #[tokio::test]
    async fn a_panic_costs_neither_the_thread_nor_the_place() {
        let pool = KdfPool::new(NonZeroUsize::MIN, 0).unwrap();
        for _ in 0..2 {
            let panics = pool.reserve().unwrap().run(|| panic!("as the test wants"));
            assert!(matches!(panics.await, Err::<(), _>(PoolError::Stopped)));
        }
        assert_eq!(pool.reserve().unwrap().run(|| 9).await.unwrap(), 9);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_stand_back_and_no_other_does() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let pool = KdfPool::new(NonZeroUsize::MIN, 0).unwrap();
        assert_eq!(pool.reserve().unwrap().run(nice).await.unwrap(), (before + 10).min(19));
        assert_eq!(nice(), before);
    }
}
