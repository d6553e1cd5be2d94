//! What a server does unasked: it sees that the KMS keys can be used and that every wallet could
//! be recovered, and removes wrapped keys and limits that nobody needs any more. Any number of
//! servers may run it; it never opens a wallet, and no request waits for it.

mod sweeper;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kms_core::audit::Caller;
use kms_core::ports::StoreError;
use kms_core::{Custody, CustodyError, MasterKeyId};
use kms_store::{Database, ListedAccount, RateLimit};
use metrics::gauge;
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock;
use crate::config::UpkeepSettings;
use crate::state::KeyDatabase;

/// How many accounts are read at once, and how long others have the databases to themselves.
const PAGE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(500);

/// How many rows of limits are removed at once.
const LIMITS: u32 = 1_000;

/// How many wallets that could not be recovered one round names in the audit. It counts all.
const NAMED: u64 = 100;

/// After the start, and before what failed is tried again.
const SOON: Duration = Duration::from_secs(60);

/// Which KMS keys were seen to work last; nothing of one that was not tried yet.
#[derive(Debug, Default)]
pub(crate) struct KmsKeys(Mutex<BTreeMap<MasterKeyId, bool>>);

impl KmsKeys {
    /// In a word, for readiness.
    pub(crate) fn word(&self) -> &'static str {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (seen.is_empty(), seen.values().all(|works| *works)) {
            (true, _) => "unknown",
            (false, true) => "ok",
            (false, false) => "down",
        }
    }

    fn saw(&self, key: &MasterKeyId, works: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), works);
        gauge!("kms_key_works", "key" => key.to_string()).set(if works { 1.0 } else { 0.0 });
    }
}

/// One server's upkeep.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) custody: Arc<Custody>,
    pub(crate) database: Database,
    pub(crate) key_database: KeyDatabase,
    pub(crate) kms_keys: Arc<KmsKeys>,
    pub(crate) settings: UpkeepSettings,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Upkeep {
    /// Lets every KMS key unwrap a canary: soon after the start, then every hour, and sooner after
    /// one that failed. Each server does, because each has a way of its own to the keys.
    pub(crate) async fn watch_kms_keys(mut self) {
        let soon = SOON.min(self.settings.canary_interval);
        let mut rest = soon;
        while self.rests(rest).await {
            let keys: Vec<_> = self.custody.kms_keys().cloned().collect();
            let mut all = true;
            for key in keys {
                let caller = caller(&format!("canary of {key}"));
                let seen = self.custody.probe_kms_key(&key, &caller, clock::now()).await;
                if let Err(error) = &seen {
                    tracing::error!(%key, error = %report(error), "the KMS key can not be used");
                }
                self.kms_keys.saw(&key, seen.is_ok());
                all &= seen.is_ok();
            }
            rest = if all { self.settings.canary_interval } else { soon };
        }
    }

    /// Looks at every wallet once in a while, a page at a time. One server does; where it is
    /// stopped halfway, the next round comes in its time.
    pub(crate) async fn watch_wallets(mut self) {
        while self.turn("upkeep:wallets").await {
            self.round().await;
        }
    }

    /// Waits for the time of the next round, and for this server to be the one that does it; `false`
    /// when the server stops.
    pub(super) async fn turn(&mut self, work: &str) -> bool {
        let once = RateLimit { burst: 1, period: self.settings.check_interval };
        let mut rest = SOON.min(self.settings.check_interval);
        while self.rests(rest).await {
            rest = match self.database.take(work, once).await {
                Ok(Ok(())) => return true,
                Ok(Err(wait)) => wait,
                Err(error) => {
                    tracing::warn!(%error, work, "it can not be told whose turn it is");
                    SOON
                }
            };
        }
        false
    }

    /// Forgets limits that are whole again, of which each payment and each recovery leaves some. One
    /// server does.
    pub(crate) async fn forget_limits(mut self) {
        while self.turn("upkeep:limits").await {
            loop {
                match self.database.forget_full_limits(LIMITS).await {
                    Ok(0) => break,
                    Ok(_more) => {
                        if !self.rests(PAUSE).await {
                            return;
                        }
                    }
                    // They wait for the next round.
                    Err(error) => {
                        tracing::warn!(%error, "limits can not be forgotten now");
                        break;
                    }
                }
            }
        }
    }

    async fn round(&mut self) {
        let (mut after, mut seen, mut lost) = (String::new(), 0_u64, 0_u64);
        loop {
            match self.page(&after, &mut lost).await {
                Ok(None) => break,
                Ok(Some((last, count))) => {
                    after = last;
                    seen += count;
                    if !self.rests(PAUSE).await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "wallets can not be checked now");
                    if !self.rests(SOON).await {
                        return;
                    }
                }
            }
        }
        tracing::info!(wallets = seen, lost, "every wallet was checked");
        set_wallets(seen, lost);
    }

    /// Checks the page after this id; says which was the last and how many there were, or nothing
    /// after the end. A page that broke off is read again, so that nothing is counted of it.
    async fn page(
        &self,
        after: &str,
        lost: &mut u64,
    ) -> Result<Option<(String, u64)>, CustodyError> {
        let page = self.database.accounts_after(after, PAGE).await?;
        let Some(last) = page.last().map(|last| last.id.clone()) else {
            return Ok(None);
        };
        let (mut count, mut found) = (0, Vec::new());
        for listed in page {
            count += 1;
            let ListedAccount { id, account } = listed;
            let checked = match &account {
                Ok(account) => self.custody.find_wrapped_sck(account).await.map(drop),
                Err(_) => account.map(drop).map_err(CustodyError::from),
            };
            match checked {
                Ok(()) => {}
                Err(error @ CustodyError::Store(StoreError::Unavailable { .. })) => {
                    return Err(error);
                }
                Err(error) => found.push((id, error)),
            }
        }
        for (account, error) in found {
            *lost += 1;
            if *lost <= NAMED {
                tracing::error!(account, %error, "a wallet could not be recovered");
                if let Ok(id) = account.parse() {
                    let caller = caller("check of wallets");
                    self.custody.record_check_failure(id, &error, &caller, clock::now()).await;
                }
            }
        }
        Ok(Some((last, count)))
    }

    /// `false` when the server stops meanwhile.
    pub(super) async fn rests(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.stopping.wait_for(|stop| *stop)).await.is_err()
    }
}

/// Wallets, and those that could not be recovered, at the end of this server's last round.
#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 wallets")]
fn set_wallets(seen: u64, lost: u64) {
    gauge!("wallets").set(seen as f64);
    gauge!("wallets_not_recoverable").set(lost as f64);
}

/// With its causes: what a driver or AWS said.
fn report(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn caller(work: &str) -> Caller {
    Caller { actor: format!("kms-server {work}"), request_id: Uuid::new_v4().to_string() }
}
