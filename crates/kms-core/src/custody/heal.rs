//! What a right password puts right after its request was answered: a wrapped SCK that the key
//! database lost or that no KMS key opens any more, and a wallet under an older KDF or pepper.
//!
//! It must never fail a request, slow it, or win against it: whoever changes or recovers the
//! password meanwhile does so as if nothing had been put right.

use std::sync::Arc;

use kms_types::{PasswordHash, Timestamp};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::journal::Journal;
use super::seals::{Seals, open};
use super::{CustodyError, Ports};
use crate::account::{Account, Wallet};
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::kdf_pool::PoolError;
use crate::ports::WrappedSck;
use crate::sck::Sck;
use crate::wrap::SckOwner;

/// How many wallets are put right at once. The others are at their next unlock.
const AT_ONCE: usize = 8;

/// What an unlock leaves for later. Nothing of it is secret.
pub(super) enum Later {
    /// The SCK under the active KMS key, if the key database should have no other.
    Restore(WrappedSck),
    /// The same wallet under today's KDF and pepper.
    Reseal(Box<Wallet>, WrappedSck),
}

/// As the thread of the KDF pool will tell it.
pub(super) type Afterwards = JoinHandle<Result<Option<Result<Later, CustodyError>>, PoolError>>;

#[derive(Debug)]
pub(super) struct Healer(Arc<Semaphore>);

impl Default for Healer {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Seals {
    /// Runs where the password was tried. A wallet that is sealed anew takes one more KDF.
    pub(super) fn later(
        &self,
        account: &Account,
        sck: &Sck,
        password: &PasswordHash,
    ) -> Result<Later, CustodyError> {
        let wallet = &account.wallet;
        if wallet.kdf == self.kdf && wallet.pepper_id >= self.keys.pepper.current() {
            let (address, sck_id) = (wallet.address, wallet.sck_id);
            let owner = SckOwner { account: account.id, address, sck_id };
            return Ok(Later::Restore(owner.wrap(sck, &self.ring)?));
        }
        let key = open(account, sck)?;
        // The version stays, so that a change of password that read the wallet before still wins.
        let (wallet, wrapped) =
            self.seal(account.id, account.telegram_id, &key, password, wallet.version)?;
        Ok(Later::Reseal(Box::new(wallet), wrapped))
    }
}

impl Healer {
    /// Puts right what there is, in a task of its own.
    pub(super) fn heal(
        &self,
        (ports, seals): (&Ports, &Arc<Seals>),
        account: Account,
        later: Afterwards,
        caller: &Caller,
        now: Timestamp,
    ) {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            return;
        };
        let (ports, seals, caller) = (ports.clone(), Arc::clone(seals), caller.clone());
        tokio::spawn(async move {
            let _held = place;
            let id = account.id;
            let done = match later.await {
                Ok(Ok(Some(Ok(Later::Restore(wrapped))))) => {
                    restore(&ports, &seals, &account, wrapped, &caller, now).await
                }
                Ok(Ok(Some(Ok(Later::Reseal(wallet, wrapped))))) => {
                    reseal(&ports, &account, *wallet, wrapped, &caller, now).await
                }
                Ok(Ok(Some(Err(error)))) => Err(error),
                // The process is stopping.
                Ok(Ok(None) | Err(_)) | Err(_) => return,
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
    let sound = |found: &WrappedSck| {
        found.account == account.id && seals.ring.get(&found.master_key).is_some()
    };
    if found.as_ref().is_some_and(sound) {
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
        if !ports.accounts.reseal_wallet(id, old, wallet, now).await? {
            return Err(CustodyError::Conflict);
        }
        failpoint::reach("reseal-after-commit");
        Ok(())
    })
    .await
}
