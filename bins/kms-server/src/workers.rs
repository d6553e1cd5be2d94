//! Background work of a server, one file per worker. `kms_process` runs them.
//!
//! Any number of servers may run all of them: work that one server should do at a time is guarded
//! by a lease in the database.

mod advance_recoveries;
mod by_the_clock;
mod check_dependencies;
mod check_tokens;
mod check_wallets;
mod clean;
mod count_transfers;
mod fold_metrics;
mod follow_blocks;
mod lease;
mod notify_digests;
mod probe_kms_keys;
mod read_brakes;
mod reload_certificate;
mod renew_key_database_claim;
mod send_mail;
mod sweep_sck_store;
mod watch_transfers;
mod write_checkpoints;

pub(crate) use advance_recoveries::AdvanceRecoveries;
pub(crate) use by_the_clock::ByTheClock;
pub(crate) use check_dependencies::{CheckChain, CheckDatabases};
pub(crate) use check_tokens::CheckTokens;
pub(crate) use check_wallets::CheckWallets;
pub(crate) use clean::{Clean, OldLaunches, OldSignedBytes, RefilledRateLimits, UnusedRows};
pub(crate) use count_transfers::CountTransfers;
pub(crate) use fold_metrics::FoldMetrics;
pub(crate) use follow_blocks::FollowBlocks;
pub(crate) use notify_digests::NotifyDigests;
pub(crate) use probe_kms_keys::ProbeKmsKeys;
pub(crate) use read_brakes::ReadBrakes;
pub(crate) use reload_certificate::ReloadCertificate;
pub(crate) use renew_key_database_claim::RenewKeyDatabaseClaim;
pub(crate) use send_mail::SendMail;
pub(crate) use sweep_sck_store::SweepSckStore;
pub(crate) use watch_transfers::WatchTransfers;
pub(crate) use write_checkpoints::{Checkpoints, WriteCheckpoints};

use std::time::Duration;

use kms_core::audit::Caller;
use uuid::Uuid;

/// The delay after the start, and before failed work is repeated, of work that runs a few times
/// a day.
const SOON: Duration = Duration::from_secs(60);

/// Rows per page of work that reads whole tables.
const PAGE: u32 = 100;

/// The pause between two pages, which leaves the databases to requests.
const PAGE_PAUSE: Duration = Duration::from_millis(500);

/// A worker as the caller in the audit. Each action has its own request id.
fn worker_caller(work: &str) -> Caller {
    Caller::new(format!("kms-server {work}"), Uuid::new_v4().to_string())
}
