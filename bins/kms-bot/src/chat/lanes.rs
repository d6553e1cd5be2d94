//! One queue of work per user: a user's updates are handled in order, and users do not wait for
//! each other.
//!
//! A panic ends the job that panicked and nothing else. A user who floods the bot fills their own
//! lane; what does not fit is dropped.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use kms_types::TelegramId;
use tokio::sync::watch;
use tokio::time::Instant;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The most jobs that wait in one lane.
const CAPACITY: usize = 16;

/// The lane is full, and the job was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The lanes of all users. Clones share them.
#[derive(Clone)]
pub(crate) struct Lanes(Arc<Inner>);

struct Inner {
    /// Each lane in the map has a running task, even if nothing waits in it.
    lanes: Mutex<HashMap<TelegramId, VecDeque<Job>>>,
    /// The number of lanes.
    busy: watch::Sender<usize>,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("busy", &*self.0.busy.borrow()).finish()
    }
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { lanes: Mutex::default(), busy: watch::Sender::new(0) }))
    }

    /// Queues the handling of an update behind the user's earlier jobs.
    ///
    /// # Errors
    /// When the lane is full; the job is dropped.
    pub(crate) fn enqueue(
        &self,
        user: TelegramId,
        job: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Full> {
        let mut lanes = self.lock();
        if lanes.get(&user).is_some_and(|lane| lane.len() >= CAPACITY) {
            return Err(Full);
        }
        self.push(&mut lanes, user, Box::pin(job));
        Ok(())
    }

    /// Queues a notice, which is never dropped.
    pub(crate) fn enqueue_notice(
        &self,
        user: TelegramId,
        job: impl Future<Output = ()> + Send + 'static,
    ) {
        self.push(&mut self.lock(), user, Box::pin(job));
    }

    /// Waits until every lane is empty, or for the deadline. Reports whether every lane is empty.
    pub(crate) async fn finish(&self, deadline: Instant) -> bool {
        let mut busy = self.0.busy.subscribe();
        tokio::time::timeout_at(deadline, busy.wait_for(|busy| *busy == 0)).await.is_ok()
    }

    fn push(&self, lanes: &mut HashMap<TelegramId, VecDeque<Job>>, user: TelegramId, job: Job) {
        if let Some(lane) = lanes.get_mut(&user) {
            lane.push_back(job);
            return;
        }
        lanes.insert(user, VecDeque::new());
        self.0.busy.send_replace(lanes.len());
        tokio::spawn(self.clone().work(user, job));
    }

    async fn work(self, user: TelegramId, mut job: Job) {
        loop {
            if AssertUnwindSafe(job).catch_unwind().await.is_err() {
                // The panic hook has logged where and why.
                tracing::warn!(event = "handler_panicked", "handler panicked, its lane continues");
            }
            let mut lanes = self.lock();
            match lanes.get_mut(&user).and_then(VecDeque::pop_front) {
                Some(next) => job = next,
                None => {
                    lanes.remove(&user);
                    self.0.busy.send_replace(lanes.len());
                    return;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, VecDeque<Job>>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    fn id(id: i64) -> TelegramId {
        id.try_into().unwrap()
    }

    #[tokio::test]
    async fn jobs_of_one_user_run_in_order() {
        let (lanes, (done, mut order)) = (Lanes::new(), mpsc::unbounded_channel());
        for number in 0..10 {
            let done = done.clone();
            lanes
                .enqueue(id(1), async move {
                    tokio::task::yield_now().await;
                    done.send(number).unwrap();
                })
                .unwrap();
        }
        for number in 0..10 {
            assert_eq!(order.recv().await, Some(number));
        }
        assert!(lanes.finish(Instant::now() + Duration::from_secs(10)).await);
        assert!(lanes.lock().is_empty(), "idle lanes are removed");
    }

    #[tokio::test]
    async fn a_panic_ends_one_job_and_not_the_lane() {
        let (lanes, (done, is_done)) = (Lanes::new(), oneshot::channel());
        lanes.enqueue(id(1), async { panic!("deliberate") }).unwrap();
        lanes.enqueue(id(1), async move { done.send(()).unwrap() }).unwrap();
        tokio::time::timeout(Duration::from_secs(10), is_done).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_flood_fills_its_own_lane_only() {
        let (lanes, (open, gate)) = (Lanes::new(), watch::channel(false));
        let wait = || {
            let mut gate = gate.clone();
            async move { gate.wait_for(|open| *open).await.map(drop).unwrap() }
        };
        let accepted = (0..200).filter(|_| lanes.enqueue(id(1), wait()).is_ok()).count();
        assert_eq!(accepted, CAPACITY + 1, "one runs, the others wait");
        let (done, is_done) = oneshot::channel();
        lanes.enqueue(id(2), async move { done.send(()).unwrap() }).unwrap();
        is_done.await.unwrap();
        let (sent, is_sent) = oneshot::channel();
        lanes.enqueue_notice(id(1), async move { sent.send(()).unwrap() });
        open.send(true).unwrap();
        is_sent.await.unwrap();
    }
}
