//! A bounded pool of threads that run password hashing: one job per thread, a configured number of
//! jobs waiting, and an immediate refusal of any further one.
//!
//! The threads belong to the pool and run at a nice value 10 above the process on Linux, so that
//! reads that take a tenth of a millisecond are not queued behind password hashing that takes
//! twenty.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::kdf;
use crate::stack::with_wiped_stack;

/// Added to the nice value of the process.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// A pool for jobs that use a core for tens of milliseconds. Its threads end with its last clone.
#[derive(Clone)]
pub struct KdfPool {
    /// One permit for every job that runs or waits.
    slots: Arc<Semaphore>,
    /// One permit for every job that runs, that is, for every thread.
    cores: Arc<Semaphore>,
    jobs: Sender<Job>,
}

/// A permit to run one job. Released when it is dropped or the job ends.
pub struct KdfPermit {
    slot: OwnedSemaphorePermit,
    pool: KdfPool,
}

/// Why the pool did not run a job.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// As many jobs run and wait as are allowed.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    /// The job panicked, or the process is stopping.
    #[error("the password could not be checked")]
    Stopped,
}

impl KdfPool {
    /// Starts a pool that runs `running` jobs at once and lets `waiting` more wait.
    ///
    /// # Errors
    /// When the system refuses to create the threads, or the CPU computes a hash wrongly.
    pub fn new(running: NonZeroUsize, waiting: usize) -> io::Result<Self> {
        kdf::self_test()?;
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _thread in 0..running.get() {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new()
                .name("password".to_owned())
                .spawn(move || run_jobs(&receiver))?;
        }
        Ok(Self {
            slots: Arc::new(Semaphore::new(running.get().saturating_add(waiting))),
            cores: Arc::new(Semaphore::new(running.get())),
            jobs,
        })
    }

    /// Acquires a permit without waiting.
    ///
    /// # Errors
    /// `Busy` when as many jobs run and wait as are allowed.
    pub fn reserve(&self) -> Result<KdfPermit, PoolError> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_full| PoolError::Busy)?;
        Ok(KdfPermit { slot, pool: self.clone() })
    }
}

impl KdfPermit {
    /// Runs `work` on a thread of the pool, in order of arrival, and wipes the stack that it used.
    ///
    /// # Errors
    /// `Stopped` when the work panics or the process is stopping.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (done, _no_rest) = self.run_with_rest(|| (work(), None::<fn()>)).await?;
        Ok(done)
    }

    /// Runs `work` as [`KdfPermit::run`] does, and then, on the same thread and with the same
    /// permit, the rest that `work` returned. Returns when `work` has ended; the result of the
    /// rest arrives in the receiver.
    ///
    /// # Errors
    /// `Stopped` when `work` panics or the process is stopping.
    pub(crate) async fn run_with_rest<T, R, F>(
        self,
        work: impl FnOnce() -> (T, Option<F>) + Send + 'static,
    ) -> Result<(T, Option<oneshot::Receiver<R>>), PoolError>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnOnce() -> R,
    {
        let Self { slot, pool: KdfPool { cores, jobs, .. } } = self;
        let core = cores.acquire_owned().await.map_err(|_closed| PoolError::Stopped)?;
        let (answer, answered) = oneshot::channel();
        // Permits are held until the work ends, even if the caller no longer waits, and released
        // before the last answer is sent: a caller that has it may reserve the next one at once.
        let permits = (slot, core);
        let job = move || {
            let Some((done, rest)) = run_and_wipe(work) else {
                drop(permits);
                return;
            };
            let Some(rest) = rest else {
                drop(permits);
                // Fails only if the caller no longer waits.
                let _ = answer.send((done, None));
                return;
            };
            let (rest_answer, rest_answered) = oneshot::channel();
            let _ = answer.send((done, Some(rest_answered)));
            let rest = run_and_wipe(rest);
            drop(permits);
            if let Some(rest) = rest {
                let _ = rest_answer.send(rest);
            }
        };
        jobs.send(Box::new(job)).map_err(|_ended| PoolError::Stopped)?;
        answered.await.map_err(|_panic| PoolError::Stopped)
    }
}

/// Returns `None` after a panic, which the panic hook has reported.
fn run_and_wipe<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(|| with_wiped_stack(work))).ok()
}

/// Runs jobs until the pool is dropped.
fn run_jobs(jobs: &Mutex<Receiver<Job>>) {
    lower_priority();
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(job) = next() {
        job();
    }
}

/// Lowers the priority of this thread. If the system refuses, it keeps that of the process.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Ok(nice) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, nice + NICE);
    }
}

impl fmt::Debug for KdfPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KdfPool")
            .field("free_slots", &self.slots.available_permits())
            .field("free_cores", &self.cores.available_permits())
            .finish()
    }
}

impl fmt::Debug for KdfPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KdfPermit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn refuses_at_once_when_full() {
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
        while pool.slots.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(pool.reserve(), Err(PoolError::Busy)));
        release.send(()).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 7);
        running.await.unwrap().unwrap().unwrap();
        assert_eq!(pool.reserve().unwrap().run(|| 8).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_panic_loses_neither_thread_nor_permit() {
        let pool = KdfPool::new(NonZeroUsize::MIN, 0).unwrap();
        for _ in 0..2 {
            let panics = pool.reserve().unwrap().run(|| panic!("planted"));
            assert!(matches!(panics.await, Err::<(), _>(PoolError::Stopped)));
        }
        assert_eq!(pool.reserve().unwrap().run(|| 9).await.unwrap(), 9);
    }

    #[tokio::test]
    async fn the_rest_of_a_job_runs_after_its_result_and_holds_the_permit() {
        let pool = KdfPool::new(NonZeroUsize::MIN, 0).unwrap();
        let (release, wait) = mpsc::channel::<()>();
        let work = move || {
            let rest = move || {
                wait.recv().unwrap();
                thread::current().id()
            };
            (thread::current().id(), Some(rest))
        };
        let (thread, rest) = pool.reserve().unwrap().run_with_rest(work).await.unwrap();
        assert!(matches!(pool.reserve(), Err(PoolError::Busy)));
        release.send(()).unwrap();
        assert_eq!(rest.unwrap().await.unwrap(), thread);
        pool.reserve().unwrap();

        let work = || ((), Some(|| panic!("planted")));
        let ((), rest) = pool.reserve().unwrap().run_with_rest(work).await.unwrap();
        assert!(rest.unwrap().await.is_err());
        assert_eq!(pool.reserve().unwrap().run(|| 9).await.unwrap(), 9);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_pool_threads_run_at_lower_priority() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let pool = KdfPool::new(NonZeroUsize::MIN, 0).unwrap();
        assert_eq!(pool.reserve().unwrap().run(nice).await.unwrap(), (before + 10).min(19));
        assert_eq!(nice(), before);
    }
}
