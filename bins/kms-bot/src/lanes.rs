//! A lane for each person: what concerns one is done in order, and nobody waits for another.
//!
//! A panic takes the work that panicked and nothing else. A person who floods fills their own
//! lane; what does not fit is dropped.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use kms_types::TelegramId;
use tokio::sync::watch;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How much of one person's work may wait.
const WAITING: usize = 16;

/// The lane is full, and the work was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// All lanes. A clone is the same lanes.
#[derive(Clone)]
pub(crate) struct Lanes(Arc<Inner>);

struct Inner {
    /// A lane that is here has a task, also when nothing waits in it.
    lanes: Mutex<HashMap<TelegramId, VecDeque<Job>>>,
    /// How many lanes there are.
    busy: watch::Sender<usize>,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { lanes: Mutex::default(), busy: watch::Sender::new(0) }))
    }

    /// Does what a person asked for, after what they asked for before.
    pub(crate) fn ask(
        &self,
        who: TelegramId,
        job: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Full> {
        let mut lanes = self.lock();
        if lanes.get(&who).is_some_and(|lane| lane.len() >= WAITING) {
            return Err(Full);
        }
        self.enter(&mut lanes, who, Box::pin(job));
        Ok(())
    }

    /// Does what the bot itself has to tell a person; never dropped.
    pub(crate) fn tell(&self, who: TelegramId, job: impl Future<Output = ()> + Send + 'static) {
        self.enter(&mut self.lock(), who, Box::pin(job));
    }

    /// Waits until nothing is under way, or for this long.
    pub(crate) async fn finish(&self, at_most: Duration) {
        let mut busy = self.0.busy.subscribe();
        let _ = tokio::time::timeout(at_most, busy.wait_for(|busy| *busy == 0)).await;
    }

    fn enter(&self, lanes: &mut HashMap<TelegramId, VecDeque<Job>>, who: TelegramId, job: Job) {
        if let Some(lane) = lanes.get_mut(&who) {
            lane.push_back(job);
            return;
        }
        lanes.insert(who, VecDeque::new());
        self.0.busy.send_replace(lanes.len());
        tokio::spawn(self.clone().work(who, job));
    }

    async fn work(self, who: TelegramId, mut job: Job) {
        loop {
            if AssertUnwindSafe(job).catch_unwind().await.is_err() {
                tracing::error!("a handler panicked; the chat goes on");
            }
            let mut lanes = self.lock();
            match lanes.get_mut(&who).and_then(VecDeque::pop_front) {
                Some(next) => job = next,
                None => {
                    lanes.remove(&who);
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
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    fn id(id: i64) -> TelegramId {
        id.try_into().unwrap()
    }

    #[tokio::test]
    async fn one_persons_work_is_done_in_order() {
        let (lanes, (done, mut order)) = (Lanes::new(), mpsc::unbounded_channel());
        for number in 0..10 {
            let done = done.clone();
            lanes
                .ask(id(1), async move {
                    tokio::task::yield_now().await;
                    done.send(number).unwrap();
                })
                .unwrap();
        }
        for number in 0..10 {
            assert_eq!(order.recv().await, Some(number));
        }
        lanes.finish(Duration::from_secs(10)).await;
        assert!(lanes.lock().is_empty(), "idle lanes are gone");
    }

    #[tokio::test]
    async fn a_panic_takes_one_handler_and_not_the_chat() {
        let (lanes, (done, is_done)) = (Lanes::new(), oneshot::channel());
        lanes.ask(id(1), async { panic!("this one is meant") }).unwrap();
        lanes.ask(id(1), async move { done.send(()).unwrap() }).unwrap();
        tokio::time::timeout(Duration::from_secs(10), is_done).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_flood_fills_its_own_lane_alone() {
        let (lanes, (open, gate)) = (Lanes::new(), watch::channel(false));
        let wait = || {
            let mut gate = gate.clone();
            async move { gate.wait_for(|open| *open).await.map(drop).unwrap() }
        };
        let taken = (0..200).filter(|_| lanes.ask(id(1), wait()).is_ok()).count();
        assert_eq!(taken, WAITING + 1, "one is under way, the rest waits");
        let (done, is_done) = oneshot::channel();
        lanes.ask(id(2), async move { done.send(()).unwrap() }).unwrap();
        is_done.await.unwrap();
        let (told, is_told) = oneshot::channel();
        lanes.tell(id(1), async move { told.send(()).unwrap() });
        open.send(true).unwrap();
        is_told.await.unwrap();
    }
}
