//! Reads the blocks of the chain: settles transfers, and finds external deposits.

use std::time::Duration;

use kms_chain::follower::{FollowError, Follower};
use kms_process::{Next, Worker};
use kms_store::Database;
use uuid::Uuid;

use crate::clock;

const LEASE_NAME: &str = "follow_blocks";

/// After this long without a round, another server takes over.
const LEASE: Duration = Duration::from_secs(10);

/// Reads blocks in their order; many per round when it is behind. One server of several does it, by
/// a lease.
pub(crate) struct FollowBlocks {
    follower: Follower,
    database: Database,
    /// This server, as the holder of the lease.
    holder: String,
    poll: Duration,
}

impl FollowBlocks {
    /// Reads with this follower.
    pub(crate) fn new(follower: Follower, database: &Database, poll: Duration) -> Self {
        let (database, holder) = (database.clone(), Uuid::new_v4().to_string());
        Self { follower, database, holder, poll }
    }
}

impl Worker for FollowBlocks {
    const NAME: &'static str = LEASE_NAME;
    type Error = FollowError;

    fn interval(&self) -> Duration {
        self.poll
    }

    async fn round(&mut self) -> Result<Next, FollowError> {
        if !self.database.acquire_lease(LEASE_NAME, &self.holder, LEASE).await? {
            return Ok(Next::AfterInterval);
        }
        let is_behind = self.follower.round(clock::now()).await?;
        Ok(if is_behind { Next::AtOnce } else { Next::AfterInterval })
    }

    /// Releases the lease, so that another server takes over at once.
    async fn stopped(&mut self) {
        let _ = self.database.release_lease(LEASE_NAME, &self.holder).await;
    }
}
