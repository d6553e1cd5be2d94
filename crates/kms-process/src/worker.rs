//! Background work in rounds, and the one loop that runs it.

use std::fmt;
use std::time::{Duration, SystemTime};

use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use crate::failure::ErrorChain;

/// Background work that repeats until the process stops.
///
/// Between rounds the supervisor waits, and ends the wait early when the process stops. A round is
/// never interrupted: one that takes long should do a part of its work and return
/// [`Next::After`].
pub trait Worker: Send + 'static {
    /// Names the worker in logs and metrics.
    const NAME: &'static str;

    /// Why a round failed. The supervisor logs it with its causes and continues.
    type Error: std::error::Error + Send;

    /// How long to wait after a round that returned [`Next::AfterInterval`].
    fn interval(&self) -> Duration;

    /// How long to wait after a failed round.
    fn retry_interval(&self) -> Duration {
        self.interval()
    }

    /// How long to wait before the first round.
    fn initial_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Does one round.
    fn round(&mut self) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// Cleans up when the process stops, after the last round.
    fn stopped(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// When a worker's next round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    AtOnce,
    /// After the worker's interval.
    AfterInterval,
    /// After this time.
    After(Duration),
}

/// Runs rounds until `shutdown`. Counts them in `kms_worker_rounds_total`, failed ones in
/// `kms_worker_failures_total`, and stores the time of the last success in
/// `kms_worker_last_success_timestamp_seconds`, each with the label `worker`.
pub(crate) async fn run<W: Worker>(mut worker: W, shutdown: CancellationToken) {
    let (rounds, failures) = (
        counter!("kms_worker_rounds_total", "worker" => W::NAME),
        counter!("kms_worker_failures_total", "worker" => W::NAME),
    );
    let last_success = gauge!("kms_worker_last_success_timestamp_seconds", "worker" => W::NAME);
    // Created at zero, so that the first failure is an increase.
    rounds.increment(0);
    failures.increment(0);
    let mut wait = worker.initial_delay();
    while waited(wait, &shutdown).await {
        let round = worker.round().await;
        rounds.increment(1);
        wait = match round {
            Ok(next) => {
                last_success.set(unix_time());
                match next {
                    Next::AtOnce => Duration::ZERO,
                    Next::AfterInterval => worker.interval(),
                    Next::After(wait) => wait,
                }
            }
            Err(error) => {
                failures.increment(1);
                log_failed_round(W::NAME, &error);
                worker.retry_interval()
            }
        };
    }
    worker.stopped().await;
}

/// Returns `false` if the process stops before the time is over.
async fn waited(wait: Duration, shutdown: &CancellationToken) -> bool {
    if wait.is_zero() {
        // Lets other tasks run between the rounds of a worker that is behind.
        tokio::task::yield_now().await;
        return !shutdown.is_cancelled();
    }
    shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_some()
}

fn log_failed_round(worker: &str, error: &(dyn std::error::Error + 'static)) {
    let error: &dyn fmt::Display = &ErrorChain(error);
    tracing::warn!(event = "worker_round_failed", worker, %error, "worker round failed");
}

#[expect(clippy::disallowed_methods, reason = "a metric of the process, not a decision")]
fn unix_time() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}
