//! Users who never stop: new wallets through the load balancer, from several users at once, and
//! what each was answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use kms_client::Client;
use kms_server_testing::requests::create;
use tokio::sync::{RwLock, RwLockWriteGuard};

/// How many users come at the same time.
const LANES: i64 = 3;
/// Between two users of a lane.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a step waits until users are served.
const PATIENCE: Duration = Duration::from_secs(180);
/// After how many acknowledgements in a row a lane is served again.
const SETTLED: usize = 3;
/// The password of each user.
pub(crate) const PASSWORD: &str = "pw";

/// The load, which ends with the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    answers: Arc<Mutex<Vec<Answer>>>,
    /// Each request holds it for reading.
    gate: Arc<RwLock<()>>,
}

/// What a user was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    lane: i64,
    pub(crate) telegram_id: i64,
    sent: Instant,
    pub(crate) answered: Instant,
    /// `None` if the wallet was acknowledged.
    error: Option<String>,
}

/// What users noticed of a loss.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    /// From the loss to the answer of the first request after the last one that failed; without a
    /// failed request, the longest that one took.
    pub(crate) took: Duration,
    /// How many requests failed.
    pub(crate) failed: usize,
    /// How many acknowledged acts are gone.
    pub(crate) lost: usize,
}

impl Load {
    pub(crate) fn start(client: &Client) -> Self {
        let load = Self::default();
        for lane in 0..LANES {
            tokio::spawn(load.clone().come(lane, client.clone()));
        }
        load
    }

    async fn come(self, lane: i64, client: Client) {
        for number in 0.. {
            let telegram_id = 1_000 + number * LANES + lane;
            let user = create(telegram_id, &name(telegram_id), PASSWORD);
            let open = self.gate.read().await;
            let sent = Instant::now();
            let error = client.create_account(&user).await.err();
            let error = error.map(|error| format!("{:#}", anyhow::Error::from(error)));
            let answered = Instant::now();
            self.lock().push(Answer { lane, telegram_id, sent, answered, error });
            drop(open);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until no request is in flight, and sends none until the guard is dropped.
    pub(crate) async fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }

    /// Waits until every lane is served after a loss at this moment.
    pub(crate) async fn served_after(&self, moment: Instant) -> anyhow::Result<Outage> {
        while moment.elapsed() < PATIENCE {
            let seen: Vec<_> =
                self.lock().iter().filter(|it| it.answered > moment).cloned().collect();
            let lanes: Vec<_> = (0..LANES).filter_map(|lane| served(&seen, lane, moment)).collect();
            let failures: Vec<_> = seen.iter().filter(|it| it.error.is_some()).collect();
            if i64::try_from(lanes.len())? == LANES {
                let slowest = seen.iter().map(|it| it.answered.duration_since(it.sent)).max();
                let last = lanes.into_iter().max();
                let took = if failures.is_empty() { slowest } else { last };
                let (took, failed) = (took.unwrap_or_default(), failures.len());
                return Ok(Outage { took, failed, lost: 0 });
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("not every user was served again: {:?}", self.last_failure())
    }

    /// Waits until this many more users were acknowledged.
    pub(crate) async fn more(&self, users: usize) -> anyhow::Result<()> {
        let wanted = self.acknowledged().len() + users;
        let since = Instant::now();
        while self.acknowledged().len() < wanted {
            if since.elapsed() > PATIENCE {
                bail!("the load stands still: {:?}", self.last_failure());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The users whose wallets were acknowledged.
    pub(crate) fn acknowledged(&self) -> Vec<Answer> {
        self.lock().iter().filter(|it| it.error.is_none()).cloned().collect()
    }

    /// The newest error.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.lock().iter().rev().find_map(|it| it.error.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The username of a user of the load.
pub(crate) fn name(telegram_id: i64) -> String {
    format!("user{telegram_id}")
}

/// After what time since a loss a lane was served again; `None` if that is not so yet.
fn served(seen: &[Answer], lane: i64, moment: Instant) -> Option<Duration> {
    let of_lane = seen.iter().filter(|it| it.lane == lane);
    let since: Vec<_> =
        of_lane.rev().take_while(|it| it.error.is_none() && it.sent > moment).collect();
    let first = since.last().filter(|_| since.len() >= SETTLED)?;
    Some(first.answered.duration_since(moment))
}
