//! Checks the databases and the chain, for readiness.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kms_chain::follower::DepositStore;
use kms_chain::{Endpoint, Transfers};
use kms_core::ports::StoreError;
use kms_process::{Next, Worker};
use kms_store::{Database, KeyDatabase};
use kms_types::Timestamp;
use metrics::gauge;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock;
use crate::readiness::{Dependency, Readiness};

/// How often the databases are checked, and how long one may take to answer.
const DATABASE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the chain is checked.
const CHAIN_INTERVAL: Duration = Duration::from_secs(15);

/// Checks that both databases answer.
pub(crate) struct CheckDatabases {
    readiness: Arc<Readiness>,
    database: Database,
    key_database: Arc<dyn KeyDatabase>,
    database_ping: Ping,
    key_database_ping: Ping,
}

/// Checks that an endpoint of the chain answers, and reports the age of its newest block and of the
/// follower's.
pub(crate) struct CheckChain {
    readiness: Arc<Readiness>,
    transfers: Arc<Transfers>,
    database: Database,
    /// When the newest block was made that an endpoint had.
    newest: Option<Timestamp>,
}

impl CheckChain {
    pub(crate) fn new(
        readiness: Arc<Readiness>,
        transfers: Arc<Transfers>,
        database: Database,
    ) -> Self {
        Self { readiness, transfers, database, newest: None }
    }

    /// When the newest block was made whose deposits are reported.
    async fn reported(&self) -> Result<Option<Timestamp>, StoreError> {
        let chain = self.transfers.chain();
        let Some(cursor) = self.database.cursor(chain.chain_id()).await? else { return Ok(None) };
        let made = chain.first(|endpoint| endpoint.block_time(cursor.number)).await;
        Ok(made.ok().flatten())
    }
}

/// The ping in flight of one database.
#[derive(Default)]
struct Ping(Option<JoinHandle<bool>>);

impl Ping {
    /// Whether the database answers in time. A late ping is awaited again in the next round, so
    /// that a database that hangs has one ping at a time.
    async fn answers<E>(
        &mut self,
        ping: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> bool {
        let in_flight = self.0.get_or_insert_with(|| tokio::spawn(async { ping.await.is_ok() }));
        let Ok(answered) = timeout(DATABASE_INTERVAL, in_flight).await else {
            return false;
        };
        self.0 = None;
        answered.unwrap_or(false)
    }
}

impl CheckDatabases {
    pub(crate) fn new(
        readiness: Arc<Readiness>,
        database: Database,
        key_database: Arc<dyn KeyDatabase>,
    ) -> Self {
        let (database_ping, key_database_ping) = Default::default();
        Self { readiness, database, key_database, database_ping, key_database_ping }
    }
}

impl Worker for CheckDatabases {
    const NAME: &'static str = "check_databases";
    type Error = Infallible;

    fn interval(&self) -> Duration {
        DATABASE_INTERVAL
    }

    async fn round(&mut self) -> Result<Next, Infallible> {
        let (database, keys) = (self.database.clone(), Arc::clone(&self.key_database));
        let readiness = Arc::clone(&self.readiness);
        let ping = async move {
            readiness.record_skew(clock::compare(&database).await?.skew);
            Ok::<_, StoreError>(())
        };
        let (database_is_up, keys_are_up) = futures::join!(
            self.database_ping.answers(ping),
            self.key_database_ping.answers(async move { keys.ping().await }),
        );
        self.readiness.record(Dependency::Database, database_is_up);
        self.readiness.record(Dependency::KeyDatabase, keys_are_up);
        Ok(Next::AfterInterval)
    }
}

impl Worker for CheckChain {
    const NAME: &'static str = "check_chain";
    type Error = StoreError;

    fn interval(&self) -> Duration {
        CHAIN_INTERVAL
    }

    async fn round(&mut self) -> Result<Next, StoreError> {
        let chain = self.transfers.chain();
        let head = chain.first(Endpoint::head).await;
        let dependency = Dependency::Chain { chain_id: chain.chain_id() };
        self.readiness.record(dependency, head.is_ok());
        self.newest = head.ok().map(|head| head.made_at).max(self.newest);
        let (label, now) = (chain.chain_id().to_string(), clock::now());
        if let Some(newest) = self.newest {
            let age = now.since(newest).as_secs_f64();
            gauge!("kms_chain_head_age_seconds", "chain" => label.clone()).set(age);
        }
        if let Some(reported) = self.reported().await? {
            let lag = now.since(reported).as_secs_f64();
            gauge!("kms_deposit_lag_seconds", "chain" => label).set(lag);
        }
        Ok(Next::AfterInterval)
    }
}
