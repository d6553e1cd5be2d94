//! The chains that this server is configured for.
//!
//! Nothing of one depends on another: each has endpoints, a transfer engine, brakes and workers of
//! its own. A chain that is removed from the configuration keeps its rows: its transfers are shown,
//! and proceed when it is configured again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kms_chain::spending::SpendingRules;
use kms_chain::{Chain, Endpoint, Tokens, TransferConfig, Transfers};
use kms_core::Sealer;
use kms_store::{ConnectError, Database, KeyDatabase};
use kms_types::wire::{Network, Networks};
use kms_types::{ErrorCode, EthAddress};
use tokio::time::{Instant, timeout_at};

use crate::brakes::{Brakes, PolicyClient};
use crate::config::{self, ChainSettings};
use crate::error::ApiError;
use crate::start_error::StartError;

/// How long a start waits for the first check of all chains. Workers repeat it.
const FIRST_CHECK: Duration = Duration::from_secs(3);

/// A chain that this server is configured for.
pub(crate) struct ServedChain {
    pub(crate) transfers: Arc<Transfers>,
    /// What stops the payments of all accounts on it.
    pub(crate) brakes: Brakes,
    pub(crate) network: Network,
}

impl ServedChain {
    async fn open(
        (short_name, settings): (&String, &ChainSettings),
        rules: &PaymentRules,
        (database, key_database): (&Database, &dyn KeyDatabase),
        sealer: &Sealer,
    ) -> Result<Arc<Self>, StartError> {
        let chain = settings.open().map_err(StartError::of_chain(short_name))?;
        let tokens = Tokens::from(settings.tokens.clone());
        let deadline = Instant::now() + FIRST_CHECK;
        if check(&chain, settings, deadline).await {
            // What is not compared in time is compared before the first block is read.
            let _ = timeout_at(deadline, tokens.check(&chain)).await;
        }
        let PaymentRules { spending, external, policy, contracts } = rules;
        let on_chain = external.as_ref().map(|listed| listed.get(short_name).cloned());
        let external = on_chain.map(Option::unwrap_or_default);
        let brakes = Brakes::new(settings.chain_id, external, policy.clone());
        // Before the first request is served.
        brakes.read(database, key_database).await.map_err(ConnectError::from)?;
        let (store, config) = (Arc::new(database.clone()), transfer_config(settings, contracts));
        let (sealer, spending) = (sealer.clone(), spending.clone());
        let transfers = Transfers::new(store, chain, sealer, config, tokens, spending);
        let network = network(short_name, settings.clone());
        Ok(Arc::new(Self { transfers: Arc::new(transfers), brakes, network }))
    }
}

/// What the operator allows, on all chains.
pub(crate) struct PaymentRules {
    pub(crate) spending: SpendingRules,
    /// The only addresses without an account that can be paid, by the short name of their chain;
    /// `None` allows all.
    pub(crate) external: Option<BTreeMap<String, Vec<EthAddress>>>,
    pub(crate) policy: Option<Arc<PolicyClient>>,
    /// The contracts of the tokens of all chains: their addresses are pasted in place of a
    /// recipient's, also for a payment on another chain, where the money would be lost.
    pub(crate) contracts: Arc<[EthAddress]>,
}

/// The contracts of the tokens of all chains.
pub(crate) fn token_contracts(chains: &config::Chains) -> Arc<[EthAddress]> {
    chains.values().flat_map(|chain| &chain.tokens).map(|token| token.address).collect()
}

/// The chains that this server is configured for.
pub(crate) struct Chains {
    /// The chain of a request that names none.
    primary: Arc<ServedChain>,
    /// The others, in the order of their short names.
    others: Vec<Arc<ServedChain>>,
    /// The operator's limits, of all chains.
    pub(crate) spending: SpendingRules,
}

impl Chains {
    /// Opens all of them at once. One that does not answer, or serves another chain, is no error.
    pub(crate) async fn open(
        settings: &config::Chains,
        primary: &str,
        rules: PaymentRules,
        stores: (&Database, &dyn KeyDatabase),
        sealer: &Sealer,
    ) -> Result<Self, StartError> {
        let opened = settings.iter().map(|it| ServedChain::open(it, &rules, stores, sealer));
        let mut others = join_all(opened).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let position = others.iter().position(|chain| chain.network.short_name == primary);
        let primary = others.remove(position.ok_or_else(config::no_primary_chain)?);
        Ok(Self { primary, others, spending: rules.spending })
    }

    /// All of them, the primary one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ServedChain>> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    /// The chain with this id, if it is configured.
    pub(crate) fn get(&self, chain_id: u64) -> Option<&Arc<ServedChain>> {
        self.iter().find(|chain| chain.network.chain_id == chain_id)
    }

    /// The chain of a transfer. If it is not configured, another one, whose engine answers what the
    /// database can, and refuses what needs the chain.
    pub(crate) fn of_transfer(&self, chain_id: u64) -> &Arc<ServedChain> {
        self.get(chain_id).unwrap_or(&self.primary)
    }

    /// The chain that a request names: the primary one if it names none.
    pub(crate) fn named(&self, chain_id: Option<u64>) -> Result<&Arc<ServedChain>, ApiError> {
        let found = match chain_id {
            Some(chain_id) => self.get(chain_id),
            None => Some(&self.primary),
        };
        found.ok_or_else(|| {
            let detail = "expected the id of one of the chains that GET /v1/networks lists";
            let (detail, field) = (detail.to_owned(), Some("chain_id".to_owned()));
            ApiError::Refused { code: ErrorCode::UnknownChain, detail, field }
        })
    }

    /// Checks that payments are paused on no chain, before a key leaves the server: it pays on all
    /// of them.
    pub(crate) fn admit_export(&self) -> Result<(), ApiError> {
        self.iter().try_for_each(|chain| chain.brakes.admit_use())
    }

    /// All chains and their tokens, the primary one first.
    pub(crate) fn networks(&self) -> Networks {
        let networks = self.iter().map(|chain| chain.network.clone()).collect();
        Networks { networks }
    }
}

/// Checks the endpoints of a chain, and returns whether one may serve it.
async fn check(chain: &Chain, settings: &ChainSettings, deadline: Instant) -> bool {
    let chain_id = settings.chain_id;
    // Each request checks its endpoint again.
    let answer = async {
        // A wrong chain first, which the next request would report as a failed endpoint.
        chain.check().await?;
        chain.first(Endpoint::head).await
    };
    match timeout_at(deadline, answer).await {
        Ok(Ok(_head)) => {}
        Ok(Err(error)) => {
            let event = "no_chain_endpoint";
            tracing::error!(event, chain_id, %error, "no endpoint serves the chain");
            return false;
        }
        Err(_elapsed) => {
            let event = "chain_check_late";
            tracing::warn!(event, chain_id, "first check of the chain not finished in time");
            return false;
        }
    }
    // No reason not to start: a node that was restarted has no finalized block for a while. One
    // that takes long is no fault; the follower reports a chain that it cannot read.
    if let Ok(Err(error)) = timeout_at(deadline, chain.check_finality(settings.finality)).await {
        tracing::error!(event = "no_finalized_block", chain_id, %error, "nothing becomes final");
    }
    true
}

fn transfer_config(chain: &ChainSettings, contracts: &Arc<[EthAddress]>) -> TransferConfig {
    TransferConfig {
        quote_lifetime: chain.quote_lifetime,
        replace_after: chain.replace_after,
        check_after: chain.check_after,
        prices: chain.prices(),
        never_paid: Arc::clone(contracts),
    }
}

fn network(short_name: &str, chain: ChainSettings) -> Network {
    let symbol = chain.symbol().into();
    let ChainSettings { name, chain_id, explorer, tokens, .. } = chain;
    let short_name = short_name.to_owned();
    Network { short_name, name, chain_id, symbol, explorer, tokens }
}
