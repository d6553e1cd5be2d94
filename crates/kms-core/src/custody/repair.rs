//! Repair after unlock: a wrapped SCK that the key database lost or damaged, or that no configured
//! KMS key can unwrap, is written again; a wallet under an older KDF or pepper is sealed under the
//! current one. Both need the SCK, which only a correct password yields.
//!
//! A repair must never fail or delay the request that made it possible, nor overwrite a concurrent
//! change of password or a recovery.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_types::{AccountId, PasswordHash, SckId, Timestamp};
use tokio::sync::{Semaphore, oneshot};

use super::journal::Journal;
use super::wallet_sealer::{WalletSealer, open, wrap_context};
use super::{CustodyError, Ports};
use crate::account::{Account, Wallet};
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::ports::WrappedSck;
use crate::sck::Sck;

/// Concurrent checks, and concurrent repairs. Excess wallets are repaired at their next unlock.
const CONCURRENCY: usize = 8;

/// How long the key database is not asked again for an SCK that was found usable: a wallet that
/// pays all day costs it one read an hour. The background check reads all SCKs once a day.
const RECENT: Duration = Duration::from_secs(60 * 60);

/// Above this number, SCKs that were found usable are forgotten.
const MANY: usize = 50_000;

/// Attempts to record a replaced SCK beside other changes of the row. What is not recorded is
/// replaced at the next unlock.
const RECORD_ATTEMPTS: usize = 4;

/// What a repair writes. Contains no plaintext key.
pub(super) enum Repair {
    /// The SCK wrapped by the active KMS key, if the key database has no usable one.
    Restore(WrappedSck),
    /// The same wallet under the current KDF and pepper.
    Reseal(Box<Wallet>, WrappedSck),
}

/// A repair that the thread which tried the password may still be preparing.
pub(super) struct PendingRepair(Option<oneshot::Receiver<Result<Repair, CustodyError>>>);

/// Runs repairs in the background.
#[derive(Debug)]
pub(super) struct Repairer {
    checks: Arc<Semaphore>,
    repairs: Arc<Semaphore>,
    usable: Arc<Usable>,
}

/// When SCKs were found usable.
#[derive(Debug, Default)]
struct Usable(Mutex<HashMap<SckId, Instant>>);

impl Usable {
    fn is_recent(&self, id: SckId) -> bool {
        self.found().get(&id).is_some_and(|at| at.elapsed() < RECENT)
    }

    fn add(&self, id: SckId) {
        let mut found = self.found();
        if found.len() >= MANY {
            found.clear();
        }
        found.insert(id, Instant::now());
    }

    fn found(&self) -> MutexGuard<'_, HashMap<SckId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Repairer {
    fn default() -> Self {
        let [checks, repairs] = [(); 2].map(|()| Arc::new(Semaphore::new(CONCURRENCY)));
        Self { checks, repairs, usable: Arc::default() }
    }
}

impl PendingRepair {
    pub(super) fn new(prepared: Option<oneshot::Receiver<Result<Repair, CustodyError>>>) -> Self {
        Self(prepared)
    }
}

/// These run on the thread that tried the password.
impl WalletSealer {
    /// Returns whether the wallet is under the current KDF and pepper.
    pub(super) fn is_current(&self, wallet: &Wallet) -> bool {
        wallet.kdf == self.kdf && wallet.pepper_id >= self.keys.pepper.current()
    }

    pub(super) fn prepare_repair(
        &self,
        account: &Account,
        sck: &Sck,
        password: &PasswordHash,
    ) -> Result<Repair, CustodyError> {
        if self.is_current(&account.wallet) {
            return Ok(Repair::Restore(wrap_context(account).wrap(sck, &self.ring)?));
        }
        // The version stays, so that a change of password that has read the wallet still wins.
        let (key, version) = (open(account, sck)?, account.wallet.version);
        let sealed = self.seal(account.id, account.telegram_id, &key, password, version);
        let (wallet, wrapped) = sealed?;
        Ok(Repair::Reseal(Box::new(wallet), wrapped))
    }

    /// Returns whether this is the wrapped SCK of the account as it was written, under a configured
    /// KMS key.
    fn is_usable(&self, account: &Account, found: Option<&WrappedSck>) -> bool {
        found.is_some_and(|found| {
            found.account == account.id
                && found.hash() == account.wallet.wrapped_hash
                && self.ring.get(&found.master_key).is_some()
        })
    }
}

impl Repairer {
    /// Checks, while the password is being tried, whether the key database has a usable wrapped
    /// SCK, unless it had within the last hour: then none has to be prepared. An SCK that is not
    /// found in time counts as missing.
    pub(super) fn check_wrapped_sck(
        &self,
        ports: &Ports,
        sealer: &Arc<WalletSealer>,
        account: &Account,
    ) -> Arc<AtomicBool> {
        let id = account.wallet.sck_id;
        let usable = Arc::new(AtomicBool::new(self.usable.is_recent(id)));
        if !usable.load(Ordering::Relaxed)
            && sealer.is_current(&account.wallet)
            && let Ok(permit) = Arc::clone(&self.checks).try_acquire_owned()
        {
            let (ports, sealer, account) = (ports.clone(), Arc::clone(sealer), account.clone());
            let (result, recent) = (Arc::clone(&usable), Arc::clone(&self.usable));
            tokio::spawn(async move {
                let _permit = permit;
                let found = ports.scks.sck(id).await;
                let found = found.is_ok_and(|found| sealer.is_usable(&account, found.as_ref()));
                if found {
                    recent.add(id);
                }
                result.store(found, Ordering::Release);
            });
        }
        usable
    }

    /// Performs a repair in a task of its own.
    pub(super) fn repair(
        &self,
        (ports, sealer): (&Ports, &Arc<WalletSealer>),
        account: Account,
        pending: PendingRepair,
        caller: &Caller,
        now: Timestamp,
    ) {
        let Some(prepared) = pending.0 else {
            return;
        };
        let Ok(permit) = Arc::clone(&self.repairs).try_acquire_owned() else {
            return;
        };
        let (ports, sealer, caller) = (ports.clone(), Arc::clone(sealer), caller.clone());
        tokio::spawn(async move {
            let _permit = permit;
            // The thread panicked; the panic hook has reported it.
            let Ok(prepared) = prepared.await else {
                return;
            };
            let id = account.id;
            let done = match prepared {
                Ok(Repair::Restore(wrapped)) => {
                    restore(&ports, &sealer, &account, wrapped, &caller, now).await
                }
                Ok(Repair::Reseal(wallet, wrapped)) => {
                    reseal(&ports, &account, *wallet, wrapped, &caller, now).await
                }
                Err(error) => Err(error),
            };
            match done {
                // A conflict: repaired by another request, or the password was changed.
                Ok(()) | Err(CustodyError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(
                        account = %id,
                        %error,
                        event = "wallet_repair_failed",
                        "wallet repair failed"
                    )
                }
            }
        });
    }
}

async fn restore(
    ports: &Ports,
    sealer: &WalletSealer,
    account: &Account,
    wrapped: WrappedSck,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), CustodyError> {
    // Read again: `keys rewrap` may have replaced it meanwhile.
    let current = ports.accounts.account(account.id.into()).await?;
    let Some(account) = current.filter(|it| it.wallet.sck_id == wrapped.id) else { return Ok(()) };
    let found = ports.scks.sck(wrapped.id).await?;
    if sealer.is_usable(&account, found.as_ref()) {
        return Ok(());
    }
    let audit = Arc::clone(&ports.audit);
    Journal::keep(audit, Action::Restore, Some(account.id.into()), caller, now, async |journal| {
        journal.set_account(&account);
        journal.intent().await?;
        match found {
            None => ports.scks.put_sck(wrapped.clone()).await?,
            Some(old) if ports.scks.replace_sck(&old, wrapped.clone()).await? => {}
            Some(_) => return Err(CustodyError::Conflict),
        }
        failpoint::reach("restore-after-sck");
        record_wrapped_sck(ports, account.id, &wrapped).await?;
        tracing::warn!(
            account = %account.id,
            event = "wrapped_sck_restored",
            "lost wrapped SCK restored"
        );
        Ok(())
    })
    .await
}

/// Records in the wallet's row what the key database holds, unless the wallet is sealed under
/// another SCK by now, or another writer replaced this one and records it itself.
pub(super) async fn record_wrapped_sck(
    ports: &Ports,
    account: AccountId,
    wrapped: &WrappedSck,
) -> Result<(), CustodyError> {
    for _ in 0..RECORD_ATTEMPTS {
        let Some(current) = ports.accounts.account(account.into()).await? else { return Ok(()) };
        let (replaces, hash) = (current.wallet.wrapped_hash, wrapped.hash());
        if current.wallet.sck_id != wrapped.id
            || replaces == hash
            || ports.scks.sck(wrapped.id).await?.as_ref() != Some(wrapped)
            || ports.accounts.record_wrapped_sck(account, wrapped.id, replaces, hash).await?
        {
            break;
        }
    }
    Ok(())
}

async fn reseal(
    ports: &Ports,
    account: &Account,
    wallet: Wallet,
    wrapped: WrappedSck,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), CustodyError> {
    let audit = Arc::clone(&ports.audit);
    Journal::keep(audit, Action::Reseal, Some(account.id.into()), caller, now, async |journal| {
        journal.set_account(account);
        journal.intent().await?;
        ports.scks.put_sck(wrapped).await?;
        failpoint::reach("reseal-after-sck");
        let (id, old) = (account.id, account.wallet.sck_id);
        if !ports.accounts.reseal_wallet(id, old, wallet).await? {
            return Err(CustodyError::Conflict);
        }
        failpoint::reach("reseal-after-commit");
        Ok(())
    })
    .await
}
