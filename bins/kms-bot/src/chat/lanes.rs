//! One worker per user: a user's updates are handled in order, and users do not wait for each
//! other.
//!
//! What a user does comes before notices: a notice is delivered while nothing else waits. A panic
//! ends the job that panicked and nothing else. A user who floods the bot fills their own lane;
//! what does not fit is dropped.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::TelegramId;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The most updates that wait in one lane.
const CAPACITY: usize = 16;

/// The notices that wait for each user.
#[async_trait]
pub(crate) trait Notices: Send + Sync {
    /// Reports whether notices wait for this user.
    fn wait(&self, user: TelegramId) -> bool;

    /// Reports whether a notice must not wait for what the user does any longer.
    fn is_urgent(&self, user: TelegramId) -> bool;

    /// Waits until a notice may be delivered. It may be cancelled.
    async fn ready(&self, user: TelegramId);

    /// Delivers one.
    async fn deliver(&self, user: TelegramId);
}

/// The lane is full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// Whether this is the first update that does not fit since the lane was empty.
    pub(crate) first: bool,
}

/// The lanes of all users. Clones share them.
#[derive(Clone)]
pub(crate) struct Lanes(Arc<Inner>);

struct Inner {
    /// Each lane in the map has a running worker, even if nothing waits in it.
    lanes: Mutex<HashMap<TelegramId, Lane>>,
    notices: Arc<dyn Notices>,
    /// The number of lanes.
    busy: watch::Sender<usize>,
    /// Notices are delivered no longer.
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    flooded: bool,
    /// Wakes the worker while it waits to deliver a notice.
    wake: Arc<Notify>,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("busy", &*self.0.busy.borrow()).finish()
    }
}

impl Lanes {
    pub(crate) fn new(notices: Arc<dyn Notices>) -> Self {
        let (busy, stopping) = (watch::Sender::new(0), watch::Sender::new(false));
        Self(Arc::new(Inner { lanes: Mutex::default(), notices, busy, stopping }))
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
        if let Some(lane) = lanes.get_mut(&user).filter(|lane| lane.jobs.len() >= CAPACITY) {
            return Err(Full { first: !std::mem::replace(&mut lane.flooded, true) });
        }
        self.push(&mut lanes, user, Some(Box::pin(job)));
        Ok(())
    }

    /// Queues what the bot itself has to do in a chat, which is never dropped.
    pub(crate) fn enqueue_own(
        &self,
        user: TelegramId,
        job: impl Future<Output = ()> + Send + 'static,
    ) {
        self.push(&mut self.lock(), user, Some(Box::pin(job)));
    }

    /// Delivers the notices that wait for a user.
    pub(crate) fn notify(&self, user: TelegramId) {
        self.push(&mut self.lock(), user, None);
    }

    /// Waits until every lane is empty, or for the deadline. Reports whether every lane is empty.
    /// Notices that cannot be delivered at once stay undelivered.
    pub(crate) async fn finish(&self, deadline: Instant) -> bool {
        self.0.stopping.send_replace(true);
        let mut busy = self.0.busy.subscribe();
        tokio::time::timeout_at(deadline, busy.wait_for(|busy| *busy == 0)).await.is_ok()
    }

    fn push(&self, lanes: &mut HashMap<TelegramId, Lane>, user: TelegramId, job: Option<Job>) {
        let new = !lanes.contains_key(&user);
        let lane = lanes.entry(user).or_default();
        lane.jobs.extend(job);
        lane.wake.notify_one();
        if new {
            self.0.busy.send_replace(lanes.len());
            tokio::spawn(self.clone().work(user));
        }
    }

    async fn work(self, user: TelegramId) {
        let notices = Arc::clone(&self.0.notices);
        let mut stopping = self.0.stopping.subscribe();
        loop {
            let urgent = notices.is_urgent(user);
            let (job, wake) = {
                let mut lanes = self.lock();
                let Some(lane) = lanes.get_mut(&user) else { return };
                let job = if urgent { None } else { lane.jobs.pop_front() };
                if job.is_none() && !urgent && (!notices.wait(user) || *stopping.borrow()) {
                    lanes.remove(&user);
                    self.0.busy.send_replace(lanes.len());
                    return;
                }
                if lane.jobs.is_empty() {
                    lane.flooded = false;
                }
                (job, Arc::clone(&lane.wake))
            };
            match job {
                Some(job) => run(job).await,
                None if urgent => run(notices.deliver(user)).await,
                None => tokio::select! {
                    biased;
                    // A job has come.
                    () = wake.notified() => {}
                    () = notices.ready(user) => run(notices.deliver(user)).await,
                    () = stopped(&mut stopping) => {}
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, Lane>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error would mean that the lanes are gone.
    let _ = stopping.wait_for(|stopping| *stopping).await.is_ok();
}

async fn run(job: impl Future<Output = ()>) {
    if AssertUnwindSafe(job).catch_unwind().await.is_err() {
        // The panic hook has logged where and why.
        tracing::warn!(event = "handler_panicked", "handler panicked, its lane continues");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// Notices that are only counted.
    #[derive(Default)]
    struct Counted {
        waiting: AtomicUsize,
        delivered: AtomicUsize,
        urgent: AtomicUsize,
        changed: Notify,
    }

    #[async_trait]
    impl Notices for Counted {
        fn wait(&self, _user: TelegramId) -> bool {
            self.waiting.load(Ordering::SeqCst) > 0
        }

        fn is_urgent(&self, _user: TelegramId) -> bool {
            self.urgent.load(Ordering::SeqCst) > 0
        }

        async fn ready(&self, _user: TelegramId) {}

        async fn deliver(&self, _user: TelegramId) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            self.urgent.store(0, Ordering::SeqCst);
            self.delivered.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_one();
        }
    }

    fn id(id: i64) -> TelegramId {
        id.try_into().unwrap()
    }

    fn lanes() -> (Lanes, Arc<Counted>) {
        let notices = Arc::new(Counted::default());
        (Lanes::new(notices.clone()), notices)
    }

    /// A job that waits until the gate is open.
    fn gated(gate: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
        let mut gate = gate.clone();
        async move { gate.wait_for(|open| *open).await.map(drop).unwrap() }
    }

    #[tokio::test]
    async fn jobs_of_one_user_run_in_order() {
        let ((lanes, _), (done, mut order)) = (lanes(), mpsc::unbounded_channel());
        for number in 0..10 {
            let done = done.clone();
            let job = async move {
                tokio::task::yield_now().await;
                done.send(number).unwrap();
            };
            lanes.enqueue(id(1), job).unwrap();
        }
        for number in 0..10 {
            assert_eq!(order.recv().await, Some(number));
        }
        assert!(lanes.finish(Instant::now() + Duration::from_secs(10)).await);
        assert!(lanes.lock().is_empty(), "idle lanes are removed");
    }

    #[tokio::test]
    async fn a_panic_ends_one_job_and_not_the_lane() {
        let ((lanes, _), (done, is_done)) = (lanes(), oneshot::channel());
        lanes.enqueue(id(1), async { panic!("deliberate") }).unwrap();
        lanes.enqueue(id(1), async move { done.send(()).unwrap() }).unwrap();
        tokio::time::timeout(Duration::from_secs(10), is_done).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_flood_fills_its_own_lane_only_and_is_reported_once() {
        let ((lanes, _), (open, gate)) = (lanes(), watch::channel(false));
        let results: Vec<_> = (0..200).map(|_| lanes.enqueue(id(1), gated(&gate))).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), CAPACITY);
        let first = results.iter().filter(|result| **result == Err(Full { first: true }));
        assert_eq!(first.count(), 1);
        let (done, is_done) = oneshot::channel();
        lanes.enqueue(id(2), async move { done.send(()).unwrap() }).unwrap();
        is_done.await.unwrap();
        let (sent, is_sent) = oneshot::channel();
        lanes.enqueue_own(id(1), async move { sent.send(()).unwrap() });
        open.send(true).unwrap();
        is_sent.await.unwrap();
    }

    #[tokio::test]
    async fn notices_wait_for_what_the_user_does_unless_they_are_urgent() {
        let ((lanes, notices), (open, gate)) = (lanes(), watch::channel(false));
        notices.waiting.store(2, Ordering::SeqCst);
        lanes.enqueue(id(1), gated(&gate)).unwrap();
        let (second, at_second) = oneshot::channel();
        let seen = Arc::clone(&notices);
        let job = async move { second.send(seen.delivered.load(Ordering::SeqCst)).unwrap() };
        lanes.enqueue(id(1), job).unwrap();
        lanes.notify(id(1));
        tokio::task::yield_now().await;
        notices.urgent.store(1, Ordering::SeqCst);
        open.send(true).unwrap();
        assert_eq!(at_second.await.unwrap(), 1, "the urgent one was first, the other one waited");
        while notices.delivered.load(Ordering::SeqCst) < 2 {
            notices.changed.notified().await;
        }
        assert!(lanes.finish(Instant::now() + Duration::from_secs(10)).await);
    }
}
