//! The conformance tests: every database passes the same functions.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod accounts;
mod audit;
mod balances;
#[cfg(feature = "postgres")]
mod broadcasts;
mod chains;
mod columns;
mod deposits;
#[cfg(feature = "postgres")]
mod durability;
mod fence;
mod fixtures;
mod format;
mod history;
mod in_flight;
mod key_database_claim;
mod key_databases;
mod ladder;
mod launches;
mod limit_rollbacks;
mod migrations;
mod names;
mod orphaned_scks;
mod outflow;
mod page_only;
mod plans;
mod recoveries;
mod rescue;
mod server;
mod server_keys;
mod signs;
mod spending_limits;
mod tokens;
mod transfers;
