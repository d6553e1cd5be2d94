//! Deletes orphaned wrapped SCKs (symmetric cryptographic keys, the wallets' key-encryption keys).
//!
//! A password change leaves the previous SCK behind, wrapped. It is kept for as long as backups
//! are, and deleted then, so that an old password and an old backup of the accounts cannot open a
//! wallet forever.
//!
//! A wallet whose SCK is deleted can no longer be recovered, so the sweeper keeps everything that
//! is in doubt: an SCK that was first seen unreferenced more recently than the retention (which
//! covers writes in flight and a restored older account database), an SCK of an account that could
//! not be recovered otherwise, and everything in a key database that belongs to another account
//! database or to another copy of this one.

use std::sync::Arc;
use std::time::Duration;

use kms_core::ports::StoreError;
use kms_core::{AlarmContext, Custody, CustodyError, integrity_alarm};
use kms_process::{Next, Worker};
use kms_store::{ClaimError, Database, KeyDatabase};
use kms_types::{AccountId, SckId};
use metrics::counter;

use super::lease::PeriodicLease;
use super::{PAGE, PAGE_PAUSE, worker_caller};
use crate::clock;

/// Reads all wrapped SCKs, a page per round. A pass that fails or is interrupted is not continued;
/// what it noted as unreferenced is stored, and the next pass uses it.
pub(crate) struct SweepSckStore {
    custody: Arc<Custody>,
    database: Database,
    key_database: Arc<dyn KeyDatabase>,
    retention: Duration,
    period: Duration,
    lease: PeriodicLease,
    pass: Option<Pass>,
}

/// One pass over all wrapped SCKs.
#[derive(Default)]
struct Pass {
    /// The last SCK id that was read.
    after: String,
    removed: u64,
}

impl SweepSckStore {
    /// Sweeps once per period what has been unreferenced for `retention`.
    pub(crate) fn new(
        custody: Arc<Custody>,
        database: &Database,
        key_database: &Arc<dyn KeyDatabase>,
        retention: Duration,
        period: Duration,
    ) -> Self {
        Self {
            custody,
            database: database.clone(),
            key_database: key_database.clone(),
            retention,
            period,
            lease: PeriodicLease::new(database, "upkeep:sweep", period),
            pass: None,
        }
    }

    /// Sweeps the next page; returns `false` after the last one.
    async fn sweep_page(&self, pass: &mut Pass) -> Result<bool, CustodyError> {
        let page = self.key_database.scks_after(&pass.after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(false) };
        pass.after = last.clone();
        let scks: Vec<_> = page.iter().filter_map(|(id, account)| parse(id, account)).collect();
        let ids = scks.iter().map(|(id, _)| *id).collect();
        let due = self.database.orphaned_for(self.retention, ids, clock::now()).await?;
        if !due.is_empty() && !self.owns_key_database().await? {
            return Ok(false);
        }
        for (sck, account) in scks.into_iter().filter(|(id, _)| due.contains(id)) {
            pass.removed += u64::from(self.remove(sck, account).await?);
        }
        Ok(true)
    }

    async fn remove(&self, sck: SckId, account: AccountId) -> Result<bool, CustodyError> {
        match self.custody.sweep(sck, account, &worker_caller("sweeper"), clock::now()).await {
            Ok(()) => {
                counter!("kms_wrapped_keys_removed_total").increment(1);
                self.database.forget_orphaned_sck(sck).await?;
                Ok(true)
            }
            // The next one would fail as well, and leave two more rows in the audit.
            Err(error @ CustodyError::Store(StoreError::Unavailable { .. })) => Err(error),
            Err(error) => {
                tracing::warn!(
                    %sck,
                    %account,
                    %error,
                    event = "orphaned_sck_kept",
                    "orphaned SCK kept"
                );
                Ok(false)
            }
        }
    }

    /// Checked before each page from which SCKs are deleted, because another server may have
    /// become the owner meanwhile.
    async fn owns_key_database(&self) -> Result<bool, StoreError> {
        match self.database.check_key_database(&*self.key_database).await {
            Ok(()) => Ok(true),
            Err(ClaimError::Store(error)) => Err(error),
            Err(ClaimError::Foreign { .. } | ClaimError::New | ClaimError::Copy) => {
                integrity_alarm("the key database has another owner", AlarmContext::default());
                Ok(false)
            }
        }
    }
}

impl Worker for SweepSckStore {
    const NAME: &'static str = "sweep_sck_store";
    type Error = CustodyError;

    fn interval(&self) -> Duration {
        self.lease.delay()
    }

    fn initial_delay(&self) -> Duration {
        self.lease.delay()
    }

    async fn round(&mut self) -> Result<Next, CustodyError> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => {
                if let Err(wait) = self.lease.acquire().await? {
                    return Ok(Next::After(wait));
                }
                if !self.owns_key_database().await? {
                    return Ok(Next::AfterInterval);
                }
                Pass::default()
            }
        };
        if self.sweep_page(&mut pass).await? {
            self.pass = Some(pass);
            return Ok(Next::After(PAGE_PAUSE.min(self.period)));
        }
        tracing::info!(removed = pass.removed, "orphaned SCKs swept");
        Ok(Next::AfterInterval)
    }
}

fn parse(id: &str, account: &str) -> Option<(SckId, AccountId)> {
    let parsed = id.parse().ok().zip(account.parse().ok());
    if parsed.is_none() {
        let context = AlarmContext { record: Some(id), ..AlarmContext::default() };
        integrity_alarm("a wrapped SCK has an invalid id or account", context);
    }
    parsed
}
