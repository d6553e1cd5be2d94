//! Whether the server can serve requests, as the last checks of its dependencies found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kms_process::CancellationToken;
use metrics::{Label, gauge};
use serde::Serialize;

use crate::clock::{FAR, MAX_SKEW};

/// A service that the server depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// The database of accounts and transfers.
    Database,
    /// The database of wrapped keys.
    KeyDatabase,
    /// The endpoints of a chain.
    Chain {
        /// The chain (EIP-155).
        chain_id: u64,
    },
    /// Clocks of the server and the database that agree.
    Clock,
}

impl Dependency {
    fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::KeyDatabase => "key_database",
            Self::Chain { .. } => "chain",
            Self::Clock => "clock",
        }
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It was not checked yet.
    Unknown,
    /// It answered.
    Ok,
    /// It did not answer in time.
    Down,
}

/// The state of each dependency at its last check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Statuses {
    pub(crate) database: Status,
    pub(crate) key_database: Status,
    /// By chain id.
    pub(crate) chains: BTreeMap<u64, Status>,
    pub(crate) clock: Status,
}

/// The results of the checks, and whether the server is about to stop. Reading it never waits.
#[derive(Debug)]
pub(crate) struct Readiness {
    statuses: Mutex<Statuses>,
    /// Whether the clocks differ so much that nothing is done by them.
    is_clock_far: AtomicBool,
    draining: CancellationToken,
}

impl Readiness {
    /// A server of these chains that has just connected to both databases.
    pub(crate) fn connected(chain_ids: impl Iterator<Item = u64>) -> Self {
        let (database, key_database, clock) = (Status::Ok, Status::Ok, Status::Ok);
        let chains = chain_ids.map(|chain_id| (chain_id, Status::Unknown)).collect();
        let statuses = Mutex::new(Statuses { database, key_database, chains, clock });
        Self { statuses, is_clock_far: false.into(), draining: CancellationToken::new() }
    }

    /// Makes readiness fail from now on, while the server completes its work.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    pub(crate) fn statuses(&self) -> Statuses {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no endpoint of a chain answered its last check.
    pub(crate) fn is_chain_down(&self, chain_id: u64) -> bool {
        self.statuses().chains.get(&chain_id) == Some(&Status::Down)
    }

    /// Stores how far the clocks of the server and the database differ.
    pub(crate) fn record_skew(&self, skew: Duration) {
        gauge!("kms_clock_skew_seconds").set(skew.as_secs_f64());
        self.is_clock_far.store(skew > FAR, Ordering::Relaxed);
        let agree = skew <= MAX_SKEW;
        if !agree && self.statuses().clock != Status::Down {
            tracing::error!(
                event = "clock_skew",
                seconds = skew.as_secs(),
                "clocks of server and database differ; what depends on them is stopped"
            );
        }
        self.record(Dependency::Clock, agree);
    }

    /// Whether the clocks differed so much at their last comparison that nothing may be done by
    /// them.
    pub(crate) fn is_clock_far(&self) -> bool {
        self.is_clock_far.load(Ordering::Relaxed)
    }

    /// Stores what a check found, and publishes it as the metric `kms_dependency_up`.
    pub(crate) fn record(&self, dependency: Dependency, is_up: bool) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let status = match dependency {
            Dependency::Database => &mut statuses.database,
            Dependency::KeyDatabase => &mut statuses.key_database,
            Dependency::Chain { chain_id } => {
                statuses.chains.entry(chain_id).or_insert(Status::Unknown)
            }
            Dependency::Clock => &mut statuses.clock,
        };
        *status = if is_up { Status::Ok } else { Status::Down };
        let mut labels = vec![Label::new("dependency", dependency.as_str())];
        if let Dependency::Chain { chain_id } = dependency {
            labels.push(Label::new("chain", chain_id.to_string()));
        }
        gauge!("kms_dependency_up", labels).set(if is_up { 1.0 } else { 0.0 });
    }
}
