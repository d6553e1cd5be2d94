//! Publishes recoveries that became ready or expired, and lifts freezes and leaves pages whose
//! wait is over.

use std::sync::Arc;
use std::time::Duration;

use kms_core::{Custody, CustodyError};
use kms_process::{Next, Worker};
use kms_store::{Database, KeyDatabase, Pausable};

use super::worker_caller;
use crate::clock;

/// Moves recoveries, owners' freezes and requests to leave the page to their next stage, once their
/// time has come.
pub(crate) struct AdvanceRecoveries {
    pub(crate) custody: Arc<Custody>,
    pub(crate) database: Database,
    pub(crate) key_database: Arc<dyn KeyDatabase>,
    pub(crate) poll: Duration,
}

impl Worker for AdvanceRecoveries {
    const NAME: &'static str = "advance_recoveries";
    type Error = CustodyError;

    fn interval(&self) -> Duration {
        self.poll
    }

    async fn round(&mut self) -> Result<Next, CustodyError> {
        // A pause stops the waits. `recoveries resume` makes them longer by it.
        if self.database.paused(Pausable::Recoveries, &*self.key_database).await?.is_some() {
            return Ok(Next::AfterInterval);
        }
        // The earlier of both clocks, so that a fast local clock does not notify early.
        let now = clock::now().min(self.database.now().await?);
        self.custody.advance_due_recoveries(&worker_caller("recoveries"), now).await?;
        self.custody.lift_due_freezes(&worker_caller("freezes"), now).await?;
        self.custody.leave_due_pages(&worker_caller("pages"), now).await?;
        Ok(Next::AfterInterval)
    }
}
