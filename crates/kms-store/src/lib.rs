//! The stores of the wallet KMS. [`Database`] keeps accounts, transfers, events and the audit in
//! PostgreSQL or SQLite, by one implementation in diesel. A [`KeyDatabase`] keeps the wrapped SCKs
//! (symmetric cryptographic keys, which encrypt the wallets' keys) in MongoDB or a SQLite file.
//!
//! Rows are private to this crate and parsed when they are read: a value that this program never
//! writes is an error, not a default. Rows on which authorization depends carry a MAC. This crate
//! must never contain a rule of custody, of transfers or of usernames: its transactions call
//! `kms-core`, `kms-chain` and `name-service`.
//!
//! SQLite is for one process on one machine.
//!
//! To add a table, edit `migrations/schema.sql` and `schema.rs`, and put the queries into a file
//! named after the table's subject. Each port method is one transaction, run by
//! `Database::blocking`.

mod accounts;
mod api_tokens;
mod audit;
mod audit_queue;
#[cfg(feature = "transfers")]
mod balances;
mod convert;
mod database;
#[cfg(feature = "transfers")]
mod deposits;
mod dialect;
mod events;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
mod key_database_claim;
mod keys;
mod launches;
mod leases;
mod names;
mod orphaned_scks;
mod password_lockout;
mod pause;
mod proposals;
mod rate_limits;
mod recoveries;
mod schema;
mod server_keys;
mod signs;
#[cfg(feature = "transfers")]
mod transfers;

pub use accounts::{ListedAccount, Resolved};
pub use api_tokens::{ApiToken, ListedToken, Scope, ScopeError};
pub use audit::{AuditError, AuditRow, alarms_recorded};
#[cfg(feature = "transfers")]
pub use database::NoticeFrom;
pub use database::{
    ConnectError, Database, Fenced, Grants, Lock, Step, UrlSource, UrlSourceError, WRITER,
};
#[cfg(feature = "transfers")]
pub use events::{StoredEvent, StoredEvents};
pub use key_database_claim::ClaimError;
#[cfg(feature = "sqlite")]
pub use keys::SqliteKeyDatabase;
#[cfg(any(feature = "mongodb", feature = "sqlite"))]
pub use keys::{
    KeyDatabase, KeyDatabaseGrants, KeyDatabaseOwner, open_existing_key_database, open_key_database,
};
pub use launches::{Opened, OpenedLaunch};
pub use pause::{Pausable, Paused, pause_line_version};
pub use proposals::{Proposal, ProposalError};
pub use rate_limits::{RateLimit, RateLimitExceeded};
pub use server_keys::{Dependants, MovedBatch, Sealed};
#[cfg(feature = "transfers")]
pub use transfers::{
    HistoryCursor, HistoryCursorError, HistoryEntry, InState, InWait, LimitRefused, Page, Raises,
    Spending,
};
