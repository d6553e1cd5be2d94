//! Folds recorded durations into their summaries.

use std::convert::Infallible;
use std::time::Duration;

use kms_process::{Next, Worker};

/// The recorder keeps every duration until it is folded: without this worker, a server that is
/// never scraped would grow with every request.
pub(crate) struct FoldMetrics;

impl Worker for FoldMetrics {
    const NAME: &'static str = "fold_metrics";
    type Error = Infallible;

    fn interval(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn round(&mut self) -> Result<Next, Infallible> {
        kms_process::metrics().run_upkeep();
        Ok(Next::AfterInterval)
    }
}
