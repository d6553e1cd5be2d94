//! Whether the server can serve requests, as the last checks of its dependencies found.

use std::sync::{Mutex, PoisonError};

use kms_process::CancellationToken;
use metrics::gauge;
use serde::Serialize;

/// A service that the server depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// The database of accounts and transfers.
    Database,
    /// The database of wrapped keys.
    KeyDatabase,
    /// The endpoints of the chain.
    Chain,
}

impl Dependency {
    fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::KeyDatabase => "key_database",
            Self::Chain => "chain",
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
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Statuses {
    pub(crate) database: Status,
    pub(crate) key_database: Status,
    pub(crate) chain: Status,
}

/// The results of the checks, and whether the server is about to stop. Reading it never waits.
#[derive(Debug)]
pub(crate) struct Readiness {
    statuses: Mutex<Statuses>,
    draining: CancellationToken,
}

impl Readiness {
    /// A server that has just connected to both databases.
    pub(crate) fn connected() -> Self {
        let statuses =
            Statuses { database: Status::Ok, key_database: Status::Ok, chain: Status::Unknown };
        Self { statuses: Mutex::new(statuses), draining: CancellationToken::new() }
    }

    /// Makes readiness fail from now on, while the server completes its work.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    pub(crate) fn statuses(&self) -> Statuses {
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what a check found, and publishes it as the metric `dependency_up`.
    pub(crate) fn record(&self, dependency: Dependency, is_up: bool) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let status = match dependency {
            Dependency::Database => &mut statuses.database,
            Dependency::KeyDatabase => &mut statuses.key_database,
            Dependency::Chain => &mut statuses.chain,
        };
        *status = if is_up { Status::Ok } else { Status::Down };
        gauge!("dependency_up", "dependency" => dependency.as_str()).set(if is_up {
            1.0
        } else {
            0.0
        });
    }
}
