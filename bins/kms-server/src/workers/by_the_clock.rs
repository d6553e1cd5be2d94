//! Workers that do nothing while the clocks of the server and its database are far apart.

use std::sync::Arc;
use std::time::Duration;

use kms_process::{Next, Worker};

use crate::readiness::Readiness;

/// A worker that acts by the clock of its server. One that is wrong would delete too early what
/// limits count, and schedule work for a time that is far away.
pub(crate) struct ByTheClock<W> {
    pub(crate) worker: W,
    pub(crate) readiness: Arc<Readiness>,
}

impl<W: Worker> Worker for ByTheClock<W> {
    const NAME: &'static str = W::NAME;
    type Error = W::Error;

    fn interval(&self) -> Duration {
        self.worker.interval()
    }

    fn retry_interval(&self) -> Duration {
        self.worker.retry_interval()
    }

    fn initial_delay(&self) -> Duration {
        self.worker.initial_delay()
    }

    async fn round(&mut self) -> Result<Next, W::Error> {
        if self.readiness.is_clock_far() {
            return Ok(Next::After(self.retry_interval()));
        }
        self.worker.round().await
    }

    async fn stopped(&mut self) {
        self.worker.stopped().await;
    }
}
