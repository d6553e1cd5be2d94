//! The networks that the server works with, and where owners type their passwords, cached.

use std::time::Duration;

use kms_client::{Client, ClientError};
use kms_types::wire::{Network, Networks, Passwords};
use kms_types::{Token, Units};

use crate::cached::Cached;
use crate::format;
use crate::problems;
use crate::texts::{Html, html};

/// Both are fetched again when they are older than this: the operator may add tokens.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The same, if a text could not be read: it may name a token that is new.
const LIFETIME_IF_UNREAD: Duration = Duration::from_secs(10);

/// What `GET /v1/networks` and `GET /v1/passwords` returned last.
pub(crate) struct NetworkCache {
    kms: Client,
    networks: Cached<Networks>,
    passwords: Cached<Passwords>,
}

impl NetworkCache {
    pub(crate) fn new(kms: Client) -> Self {
        Self { kms, networks: Cached::default(), passwords: Cached::default() }
    }

    /// Returns all networks, the primary one first, at most five minutes old if the server
    /// responds.
    pub(crate) async fn all(&self) -> Result<Vec<Network>, ClientError> {
        let networks = self.networks.younger_than(LIFETIME, self.kms.networks()).await?;
        Ok(networks.networks)
    }

    /// Returns the primary network, at most five minutes old if the server responds.
    pub(crate) async fn get(&self) -> Result<Network, ClientError> {
        Ok(first(self.networks.younger_than(LIFETIME, self.kms.networks()).await?))
    }

    /// Returns all networks, at most ten seconds old if the server responds.
    pub(crate) async fn all_recent(&self) -> Result<Vec<Network>, ClientError> {
        let networks = self.networks.younger_than(LIFETIME_IF_UNREAD, self.kms.networks()).await?;
        Ok(networks.networks)
    }

    /// Returns the network with this chain id, so that an amount is never shown with the symbol of
    /// another chain.
    pub(crate) async fn of_chain(&self, chain_id: u64) -> Result<Network, ClientError> {
        let known = self.networks.younger_than(LIFETIME, self.kms.networks()).await?;
        if let Some(network) = find(known, chain_id) {
            return Ok(network);
        }
        let networks = self.networks.fetch(self.kms.networks()).await?;
        Ok(find(networks, chain_id).unwrap_or_else(|| unnamed(chain_id)))
    }

    /// Fetches the networks again if the server refused a chain: its configuration is newer than
    /// what is known here.
    pub(crate) async fn correct(&self, refused: &ClientError) {
        if problems::is_unknown_chain(refused) {
            // If the server does not answer, they are fetched when they are too old.
            let _ = self.networks.fetch(self.kms.networks()).await;
        }
    }

    /// Formats an amount with the name of its chain, unless there is only one. Two chains may have
    /// assets with the same symbol.
    pub(crate) async fn amount(
        &self,
        units: Units,
        token: Option<&Token>,
        chain_id: u64,
    ) -> Result<Html, ClientError> {
        let network = self.of_chain(chain_id).await?;
        let amount = format::amount(units, token, &network);
        Ok(match self.all_cached().as_slice() {
            [only] if only.chain_id == chain_id => html!("amount", amount = amount),
            _ => html!("amount-on", amount = amount, network = &network.name),
        })
    }

    /// Returns all networks, without asking the server; none if they are not known yet.
    pub(crate) fn all_cached(&self) -> Vec<Network> {
        self.networks.known().map(|known| known.networks).unwrap_or_default()
    }

    /// Returns where owners type their passwords, at most five minutes old if the server responds.
    pub(crate) async fn passwords(&self) -> Result<Passwords, ClientError> {
        self.passwords.younger_than(LIFETIME, self.kms.passwords()).await
    }
}

/// The first in the order of the server. A server has at least one.
fn first(networks: Networks) -> Network {
    networks.networks.into_iter().next().unwrap_or_else(|| unnamed(0))
}

fn find(networks: Networks, chain_id: u64) -> Option<Network> {
    networks.networks.into_iter().find(|network| network.chain_id == chain_id)
}

/// A chain that the server does not have any more.
fn unnamed(chain_id: u64) -> Network {
    let (name, symbol) = (format!("chain {chain_id}"), "coins".to_owned());
    Network {
        short_name: chain_id.to_string(),
        name,
        chain_id,
        symbol,
        tokens: Vec::new(),
        explorer: None,
    }
}
