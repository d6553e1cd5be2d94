//! What a right password puts right after its request was answered: a wrapped SCK that the key
//! database lost or that no KMS key opens any more, and a wallet under an older KDF or pepper.
//!
//! It must never fail a request, slow it, or win against it: whoever changes or recovers the
//! password meanwhile does so as if nothing had been put right.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kms_types::{PasswordHash, Timestamp};
use tokio::sync::Semaphore;

use super::journal::Journal;
use super::seals::{Seals, open};
use super::{CustodyError, Ports};
use crate::account::{Account, Wallet};
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::ports::WrappedSck;
use crate::sck::Sck;
use crate::wrap::WrapContext;

/// How many wallets are looked at, and how many put right, at once. The others are at their next unlock.
const AT_ONCE: usize = 8;

/// What an unlock leaves for later. Nothing of it is secret.
pub(super) enum Later {
    /// All is as it should be.
    Nothing,
    /// The SCK under the active KMS key, if the key database should have no other.
    Restore(WrappedSck),
    /// The same wallet under today's KDF and pepper.
    Reseal(Box<Wallet>, WrappedSck),
}

/// When the thread of the KDF pool tells it: with the key, or after one more KDF.
pub(super) enum Afterwards {
    Now(Result<Later, CustodyError>),
    Soon(Pin<Box<dyn Future<Output = Result<Later, CustodyError>> + Send>>),
}

#[derive(Debug)]
pub(super) struct Healer {
    looks: Arc<Semaphore>,
    work: Arc<Semaphore>,
}

impl Default for Healer {
    fn default() -> Self {
        let [looks, work] = [(); 2].map(|()| Arc::new(Semaphore::new(AT_ONCE)));
        Self { looks, work }
    }
}

/// These run where the password was tried.
impl Seals {
    /// Whether the wallet is as one would be sealed today.
    pub(super) fn are_todays(&self, wallet: &Wallet) -> bool {
        wallet.kdf == self.kdf && wallet.pepper_id >= self.keys.pepper.current()
    }

    /// Whether this is a wrapped SCK of the account, under a KMS key that is configured.
    fn is_sound(&self, account: &Account, found: Option<&WrappedSck>) -> bool {
        found.is_some_and(|found| {
            found.account == account.id && self.ring.get(&found.master_key).is_some()
        })
    }

    pub(super) fn restore(&self, account: &Account, sck: &Sck) -> Result<Later, CustodyError> {
        let (address, sck_id) = (account.wallet.address, account.wallet.sck_id);
        let owner = WrapContext { account: account.id, address, sck_id };
        Ok(Later::Restore(owner.wrap(sck, &self.ring)?))
    }

    /// The version stays, so that a change of password that read the wallet before still wins.
    pub(super) fn reseal(
        &self,
        account: &Account,
        sck: &Sck,
        password: &PasswordHash,
    ) -> Result<Later, CustodyError> {
        let (key, version) = (open(account, sck)?, account.wallet.version);
        let sealed = self.seal(account.id, account.telegram_id, &key, password, version);
        let (wallet, wrapped) = sealed?;
        Ok(Later::Reseal(Box::new(wallet), wrapped))
    }
}

impl Healer {
    /// Looks, while the password is tried, whether the key database has the wrapped SCK: one need not
    /// be made again then. What is not known in time counts as missing.
    pub(super) fn look(
        &self,
        ports: &Ports,
        seals: &Arc<Seals>,
        account: &Account,
    ) -> Arc<AtomicBool> {
        let sound = Arc::new(AtomicBool::new(false));
        if seals.are_todays(&account.wallet)
            && let Ok(place) = Arc::clone(&self.looks).try_acquire_owned()
        {
            let (ports, seals, account) = (ports.clone(), Arc::clone(seals), account.clone());
            let tell = Arc::clone(&sound);
            tokio::spawn(async move {
                let _held = place;
                let found = ports.scks.sck(account.wallet.sck_id).await;
                let found = found.is_ok_and(|found| seals.is_sound(&account, found.as_ref()));
                tell.store(found, Ordering::Release);
            });
        }
        sound
    }

    /// Puts right what there is, in a task of its own.
    pub(super) fn heal(
        &self,
        (ports, seals): (&Ports, &Arc<Seals>),
        account: Account,
        later: Afterwards,
        caller: &Caller,
        now: Timestamp,
    ) {
        if matches!(later, Afterwards::Now(Ok(Later::Nothing))) {
            return;
        }
        let Ok(place) = Arc::clone(&self.work).try_acquire_owned() else {
            return;
        };
        let (ports, seals, caller) = (ports.clone(), Arc::clone(seals), caller.clone());
        tokio::spawn(async move {
            let _held = place;
            let id = account.id;
            let later = match later {
                Afterwards::Now(later) => later,
                Afterwards::Soon(later) => later.await,
            };
            let done = match later {
                Ok(Later::Nothing) => Ok(()),
                Ok(Later::Restore(wrapped)) => {
                    restore(&ports, &seals, &account, wrapped, &caller, now).await
                }
                Ok(Later::Reseal(wallet, wrapped)) => {
                    reseal(&ports, &account, *wallet, wrapped, &caller, now).await
                }
                Err(error) => Err(error),
            };
            match done {
                // Somebody else put it right, or changed the password.
                Ok(()) | Err(CustodyError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(account = %id, %error, "a wallet was not put right");
                }
            }
        });
    }
}

async fn restore(
    ports: &Ports,
    seals: &Seals,
    account: &Account,
    wrapped: WrappedSck,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), CustodyError> {
    let found = ports.scks.sck(wrapped.id).await?;
    if seals.is_sound(account, found.as_ref()) {
        return Ok(());
    }
    let audit = Arc::clone(&ports.audit);
    Journal::keep(audit, Action::Restore, Some(account.id.into()), caller, now, async |journal| {
        journal.concerns(account);
        journal.intent().await?;
        match found {
            None => ports.scks.put_sck(wrapped).await?,
            Some(old) if ports.scks.replace_sck(&old, wrapped).await? => {}
            Some(_) => return Err(CustodyError::Conflict),
        }
        tracing::warn!(account = %account.id, "a lost wrapped key was put back");
        Ok(())
    })
    .await
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
        journal.concerns(account);
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
