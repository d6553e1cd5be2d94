//! The stores of the wallet KMS: everything but wrapped SCKs in PostgreSQL or SQLite, by one
//! implementation in diesel; wrapped SCKs in MongoDB or in a SQLite file of their own.
//!
//! Rows are private to this crate and are parsed when they are read; a row that this program
//! never wrote is an error, not a default. The rows that decide who may do what carry a MAC.
//! This crate must never hold a rule of custody or of names: it asks `kms-core` and
//! `name-service` inside its transactions.
//!
//! SQLite is for one process on one machine: one connection, no leases between processes.

mod accounts;
mod api_tokens;
mod audit;
mod convert;
mod database;
#[cfg(feature = "transfers")]
mod deposits;
mod events;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
mod keys;
mod leases;
mod names;
mod orphaned_scks;
mod password_lockout;
mod rate_limits;
mod recoveries;
mod schema;
#[cfg(feature = "transfers")]
mod transfers;

pub use accounts::ListedAccount;
pub use api_tokens::{ApiToken, Scope};
pub use audit::{AuditError, AuditRow};
pub use database::{ConnectError, Database};
pub use events::{StoredEvent, StoredEventKind, StoredEvents};
#[cfg(feature = "mongodb")]
pub use keys::MongoKeyDatabase;
#[cfg(feature = "sqlite")]
pub use keys::SqliteKeyDatabase;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
pub use keys::{KeyDatabase, open_existing_key_database, open_key_database};
pub use names::Resolved;
pub use rate_limits::{RateLimit, RateLimitExceeded};
#[cfg(feature = "transfers")]
pub use transfers::{HistoryEntry, HistoryPlace, NotAPlace, Page, Spending};
