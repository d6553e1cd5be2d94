//! The network that the server works with, and where owners type their passwords, cached.

use std::time::Duration;

use kms_client::{Client, ClientError};
use kms_types::wire::{Network, Passwords};

use crate::cached::Cached;

/// Both are fetched again when they are older than this: the operator may add tokens.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The same, if a text could not be read: it may name a token that is new.
const LIFETIME_IF_UNREAD: Duration = Duration::from_secs(10);

/// What `GET /v1/network` and `GET /v1/passwords` returned last.
pub(crate) struct NetworkCache {
    kms: Client,
    network: Cached<Network>,
    passwords: Cached<Passwords>,
}

impl NetworkCache {
    pub(crate) fn new(kms: Client) -> Self {
        Self { kms, network: Cached::default(), passwords: Cached::default() }
    }

    /// Returns the network, at most five minutes old if the server responds.
    pub(crate) async fn get(&self) -> Result<Network, ClientError> {
        self.network.younger_than(LIFETIME, self.kms.network()).await
    }

    /// Returns the network, at most ten seconds old if the server responds.
    pub(crate) async fn get_recent(&self) -> Result<Network, ClientError> {
        self.network.younger_than(LIFETIME_IF_UNREAD, self.kms.network()).await
    }

    /// Returns the network with this chain id, so that an amount is never shown with the symbol of
    /// another chain.
    pub(crate) async fn of_chain(&self, chain_id: u64) -> Result<Network, ClientError> {
        if let Some(network) = self.cached().filter(|known| known.chain_id == chain_id) {
            return Ok(network);
        }
        let network = self.network.fetch(self.kms.network()).await?;
        if network.chain_id == chain_id {
            return Ok(network);
        }
        let (name, symbol) = (format!("chain {chain_id}"), "coins".to_owned());
        Ok(Network { name, chain_id, symbol, tokens: Vec::new(), explorer: None })
    }

    /// Returns the network without asking the server.
    pub(crate) fn cached(&self) -> Option<Network> {
        self.network.known()
    }

    /// Returns where owners type their passwords, at most five minutes old if the server responds.
    pub(crate) async fn passwords(&self) -> Result<Passwords, ClientError> {
        self.passwords.younger_than(LIFETIME, self.kms.passwords()).await
    }
}
