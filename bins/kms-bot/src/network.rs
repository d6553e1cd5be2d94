//! The network that the server works with, cached.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_client::{Client, ClientError};
use kms_types::wire::Network;

/// The network is fetched again when it is older than this: the operator may add tokens.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The same, if a text could not be read: it may name a token that is new.
const LIFETIME_IF_UNREAD: Duration = Duration::from_secs(10);

/// The network that `GET /v1/network` returned last.
pub(crate) struct NetworkCache {
    kms: Client,
    cached: Mutex<Option<(Network, Instant)>>,
}

impl NetworkCache {
    pub(crate) fn new(kms: Client) -> Self {
        Self { kms, cached: Mutex::default() }
    }

    /// Returns the network, at most five minutes old if the server responds.
    pub(crate) async fn get(&self) -> Result<Network, ClientError> {
        self.younger_than(LIFETIME).await
    }

    /// Returns the network, at most ten seconds old if the server responds.
    pub(crate) async fn get_recent(&self) -> Result<Network, ClientError> {
        self.younger_than(LIFETIME_IF_UNREAD).await
    }

    /// Returns the network with this chain id, so that an amount is never shown with the symbol of
    /// another chain.
    pub(crate) async fn of_chain(&self, chain_id: u64) -> Result<Network, ClientError> {
        if let Some(network) = self.cached().filter(|known| known.chain_id == chain_id) {
            return Ok(network);
        }
        let network = self.fetch().await?;
        if network.chain_id == chain_id {
            return Ok(network);
        }
        let (name, symbol) = (format!("chain {chain_id}"), "coins".to_owned());
        Ok(Network { name, chain_id, symbol, tokens: Vec::new(), explorer: None })
    }

    /// Returns the network without asking the server.
    pub(crate) fn cached(&self) -> Option<Network> {
        self.lock().as_ref().map(|(network, _)| network.clone())
    }

    /// Falls back to the cached network if the server does not respond.
    async fn younger_than(&self, age: Duration) -> Result<Network, ClientError> {
        let old = match &mut *self.lock() {
            None => None,
            Some((network, asked)) if asked.elapsed() < age => return Ok(network.clone()),
            Some((network, asked)) => {
                // Concurrent callers use the old one while this caller fetches.
                *asked = Instant::now();
                Some(network.clone())
            }
        };
        match (self.fetch().await, old) {
            (Err(error), Some(old)) => {
                tracing::warn!(%error, event = "network_refresh_failed", "network refresh failed");
                Ok(old)
            }
            (fetched, _) => fetched,
        }
    }

    async fn fetch(&self) -> Result<Network, ClientError> {
        let network = self.kms.network().await?;
        *self.lock() = Some((network.clone(), Instant::now()));
        Ok(network)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Network, Instant)>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
