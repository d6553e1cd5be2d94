//! Reads the blocks of the chain: settles transfers, and finds external deposits.

use std::sync::Arc;
use std::time::Duration;

use kms_chain::follower::{FollowError, Follower};
use kms_process::{Next, Worker};
use kms_store::Database;
use uuid::Uuid;

use crate::clock;

/// After this long without a round, another server takes over.
const LEASE: Duration = Duration::from_secs(10);

/// After so many failed rounds in a row the lease is released.
const ATTEMPTS: u32 = 3;

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
#[error("chain {chain_id}")]
pub(crate) struct RoundFailed {
    chain_id: u64,
    #[source]
    error: FollowError,
}

/// Reads blocks in their order; many per round when it is behind. One server of several does it, by
/// a lease.
pub(crate) struct FollowBlocks {
    follower: Arc<Follower>,
    database: Database,
    chain_id: u64,
    /// The name of the lease, which is that of one chain.
    lease: String,
    /// This server, as the holder of the lease.
    holder: String,
    poll: Duration,
    /// How many rounds in a row failed.
    failures: u32,
}

impl FollowBlocks {
    /// Reads a chain with this follower.
    pub(crate) fn new(
        follower: Arc<Follower>,
        database: &Database,
        chain_id: u64,
        poll: Duration,
    ) -> Self {
        let (lease, holder) = (lease_name(chain_id), Uuid::new_v4().to_string());
        Self { follower, database: database.clone(), chain_id, lease, holder, poll, failures: 0 }
    }

    async fn follow(&mut self) -> Result<Next, FollowError> {
        // A deposit of a token whose contract is another one would be reported with a wrong amount.
        if !self.follower.tokens().were_checked() {
            return Ok(Next::AfterInterval);
        }
        if !self.database.acquire_lease(&self.lease, &self.holder, LEASE).await? {
            return Ok(Next::AfterInterval);
        }
        match self.follower.round(clock::now()).await {
            Ok(is_behind) => {
                self.failures = 0;
                Ok(if is_behind { Next::AtOnce } else { Next::AfterInterval })
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= ATTEMPTS {
                    // Another server may have an endpoint that works.
                    self.database.release_lease(&self.lease, &self.holder).await?;
                }
                Err(error)
            }
        }
    }
}

fn lease_name(chain_id: u64) -> String {
    format!("{}/{chain_id}", FollowBlocks::NAME)
}

impl Worker for FollowBlocks {
    const NAME: &'static str = "follow_blocks";
    type Error = RoundFailed;

    fn interval(&self) -> Duration {
        self.poll
    }

    async fn round(&mut self) -> Result<Next, RoundFailed> {
        let chain_id = self.chain_id;
        self.follow().await.map_err(|error| RoundFailed { chain_id, error })
    }

    /// Releases the lease, so that another server takes over at once.
    async fn stopped(&mut self) {
        let _ = self.database.release_lease(&self.lease, &self.holder).await;
    }
}

#[cfg(test)]
mod tests {
    use kms_chain::follower::{Finality, FollowerConfig};
    use kms_chain::{Chain, Tokens};
    use kms_core::ServerKeys;
    use kms_testkit::Anvil;
    use kms_types::Token;

    use super::*;

    async fn worker(tokens: Tokens) -> (FollowBlocks, Database) {
        let keys = Arc::new(ServerKeys::random());
        let database = Database::connect("sqlite::memory:", 1, keys).await.unwrap();
        database.migrate().await.unwrap();
        let config = FollowerConfig {
            finality: Finality::Tag,
            prove_receipts: true,
            compare_balances: false,
            tokens,
        };
        let follower = Follower::new(Arc::new(database.clone()), dead_chain(), config);
        let poll = Duration::from_secs(1);
        (FollowBlocks::new(Arc::new(follower), &database, 1, poll), database)
    }

    fn dead_chain() -> Chain {
        Chain::new("http://127.0.0.1:1", 1).unwrap()
    }

    #[tokio::test]
    async fn a_server_without_an_endpoint_leaves_the_lease_to_another_one() {
        let (mut worker, database) = worker(Tokens::default()).await;
        let lease = lease_name(1);
        let other = || database.acquire_lease(&lease, "other", LEASE);
        for round in 1..=ATTEMPTS {
            worker.round().await.unwrap_err();
            assert_eq!(other().await.unwrap(), round == ATTEMPTS);
        }
        // Until that one ends. A server without the lease asks its endpoint nothing.
        assert_eq!(worker.round().await.unwrap(), Next::AfterInterval);
        database.release_lease(&lease, "other").await.unwrap();
        worker.round().await.unwrap_err();
    }

    #[tokio::test]
    async fn no_block_is_read_before_the_tokens_were_compared() {
        let symbol = "USDC".parse().unwrap();
        let tokens = Tokens::from(vec![Token { symbol, address: [1; 20].into(), decimals: 6 }]);
        let (mut worker, _database) = worker(tokens.clone()).await;
        // A chain that does not answer says nothing of its tokens.
        tokens.check(&dead_chain()).await;
        assert_eq!(worker.round().await.unwrap(), Next::AfterInterval);
        let anvil = Anvil::start().unwrap();
        tokens.check(&Chain::new(&anvil.url(), anvil.chain_id()).unwrap()).await;
        worker.round().await.unwrap_err();
    }
}
