//! Checks that every wallet can be recovered.

use std::sync::Arc;
use std::time::Duration;

use kms_core::ports::StoreError;
use kms_core::{Custody, CustodyError};
use kms_process::{Next, Worker};
use kms_store::{Database, ListedAccount};
use metrics::gauge;

use super::lease::PeriodicLease;
use super::{PAGE, PAGE_PAUSE, SOON, worker_caller};
use crate::clock;

/// Wallets that one pass names in the audit; more are only counted.
const MAX_NAMED: u64 = 100;

/// Reads all wallets, a page per round, and checks that each has a wrapped SCK that a configured
/// KMS key can unwrap. Never opens a wallet. A pass that a stop interrupts is not continued.
pub(crate) struct CheckWallets {
    custody: Arc<Custody>,
    database: Database,
    lease: PeriodicLease,
    pass: Option<Pass>,
}

/// One pass over all wallets.
#[derive(Default)]
struct Pass {
    /// The last account id that was read.
    after: String,
    checked: u64,
    unrecoverable: u64,
}

impl CheckWallets {
    /// Checks all wallets once per period.
    pub(crate) fn new(custody: Arc<Custody>, database: &Database, period: Duration) -> Self {
        let lease = PeriodicLease::new(database, "upkeep:wallets", period);
        Self { custody, database: database.clone(), lease, pass: None }
    }

    /// Checks the next page; returns `false` after the last one. A page that failed is read again,
    /// so the pass counts nothing of it.
    async fn check_page(&self, pass: &mut Pass) -> Result<bool, CustodyError> {
        let page = self.database.accounts_after(&pass.after, PAGE).await?;
        let Some(last) = page.last().map(|last| last.id.clone()) else { return Ok(false) };
        let (mut checked, mut failed) = (0, Vec::new());
        for ListedAccount { id, account } in page {
            checked += 1;
            let result = match account {
                Ok(account) => self.custody.find_wrapped_sck(&account).await.map(drop),
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(()) => {}
                Err(error @ CustodyError::Store(StoreError::Unavailable { .. })) => {
                    return Err(error);
                }
                Err(error) => failed.push((id, error)),
            }
        }
        for (account, error) in failed {
            pass.unrecoverable += 1;
            if pass.unrecoverable <= MAX_NAMED {
                self.report(&account, &error).await;
            }
        }
        pass.checked += checked;
        pass.after = last;
        Ok(true)
    }

    async fn report(&self, account: &str, error: &CustodyError) {
        tracing::error!(event = "wallet_unrecoverable", account, %error, "wallet unrecoverable");
        if let Ok(id) = account.parse() {
            let caller = worker_caller("check of wallets");
            self.custody.record_check_failure(id, error, &caller, clock::now()).await;
        }
    }
}

impl Worker for CheckWallets {
    const NAME: &'static str = "check_wallets";
    type Error = CustodyError;

    fn interval(&self) -> Duration {
        self.lease.delay()
    }

    fn retry_interval(&self) -> Duration {
        SOON
    }

    fn initial_delay(&self) -> Duration {
        self.lease.delay()
    }

    async fn round(&mut self) -> Result<Next, CustodyError> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => match self.lease.acquire().await? {
                Ok(()) => Pass::default(),
                Err(wait) => return Ok(Next::After(wait)),
            },
        };
        let checked = self.check_page(&mut pass).await;
        if let Ok(false) = checked {
            pass.publish();
            return Ok(Next::AfterInterval);
        }
        self.pass = Some(pass);
        checked.map(|_more| Next::After(PAGE_PAUSE))
    }
}

impl Pass {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^53 wallets")]
    fn publish(&self) {
        let Self { checked, unrecoverable, .. } = self;
        tracing::info!(wallets = checked, unrecoverable, "wallet check finished");
        gauge!("kms_wallets").set(*checked as f64);
        gauge!("kms_wallets_not_recoverable").set(*unrecoverable as f64);
    }
}
