//! Scans finalized blocks for external deposits.

use std::time::Duration;

use kms_chain::follower::{FollowError, Follower};
use kms_process::{Next, Worker};

use crate::clock;

/// Reads blocks in their order; several per round when it is behind.
pub(crate) struct FollowBlocks {
    pub(crate) follower: Follower,
    pub(crate) poll: Duration,
}

impl Worker for FollowBlocks {
    const NAME: &'static str = "follow_blocks";
    type Error = FollowError;

    fn interval(&self) -> Duration {
        self.poll
    }

    async fn round(&mut self) -> Result<Next, FollowError> {
        let is_behind = self.follower.round(clock::now()).await?;
        Ok(if is_behind { Next::AtOnce } else { Next::AfterInterval })
    }
}
