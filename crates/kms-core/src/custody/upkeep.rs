//! What an operator does to wallets without their owners. An SCK may be unwrapped here, and no
//! private key is ever opened.

use kms_types::{AccountId, AccountRef, SckId, Timestamp};

use super::{Custody, CustodyError};
use crate::account::{Account, AccountState};
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::ports::WrappedSck;
use crate::sck::Sck;
use crate::wrap::WrapContext;

pub(super) const MISSING: CustodyError = CustodyError::Integrity("the wrapped key is missing");

/// What [`Custody::rewrap`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// The SCK was wrapped by another key and is wrapped by the active one now.
    Moved,
    /// The SCK was wrapped by the active key before; nothing was unwrapped.
    AlreadyActive,
}

impl Custody {
    /// Wraps the wallet's SCK under the active KMS key, in the place of its wrapping under an
    /// older one. The wallet itself does not change, so whatever its owner does meanwhile wins.
    ///
    /// # Errors
    /// `NoAccount`; `Integrity` when there is no wrapped SCK, no key for it, or it is not this
    /// wallet's; `Conflict` when it was replaced meanwhile; else as a store or a KMS key fails.
    pub async fn rewrap(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Rewrapped, CustodyError> {
        let account = self.load(account).await?;
        let found = self.ports.scks.sck(account.wallet.sck_id).await?;
        let active = self.seals.ring.active().id();
        if found.as_ref().is_some_and(|wrapped| wrapped.master_key == *active) {
            return Ok(Rewrapped::AlreadyActive);
        }
        self.audited(Action::Rewrap, AccountRef::Id(account.id), caller, now, async |journal| {
            journal.concerns(&account);
            let old = found.ok_or(MISSING)?;
            journal.intent().await?;
            let sck = self.committed(&account, old.clone()).await?;
            let new = owner(&account).wrap(&sck, &self.seals.ring)?;
            drop(sck);
            // It takes the place of the last copy, so it must open first.
            drop(self.committed(&account, new.clone()).await?);
            failpoint::reach("rewrap-before-replace");
            if !self.ports.scks.replace_sck(&old, new).await? {
                return Err(CustodyError::Conflict);
            }
            failpoint::reach("rewrap-after-replace");
            Ok(Rewrapped::Moved)
        })
        .await
    }

    /// Unwraps the wallet's SCK, and checks that it is the wallet's.
    ///
    /// # Errors
    /// `NoAccount`; `Integrity` when the wallet could not be recovered; else as a store or the KMS
    /// key fails.
    pub async fn verify(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        let account = self.load(account).await?;
        self.audited(Action::Verify, AccountRef::Id(account.id), caller, now, async |journal| {
            journal.concerns(&account);
            let wrapped = self.ports.scks.sck(account.wallet.sck_id).await?.ok_or(MISSING)?;
            journal.intent().await?;
            self.committed(&account, wrapped).await.map(drop)
        })
        .await
    }

    /// Removes a wrapped SCK that no wallet has referred to for long: one that another password or
    /// KDF replaced, or that was left by a wallet that was never made. `account` is whose it was.
    ///
    /// # Errors
    /// `Conflict` when the wallet does refer to it; `Integrity` when the account could not be
    /// recovered by the one that it does refer to: then nothing of it is removed; else as a store
    /// fails.
    pub async fn sweep(
        &self,
        sck: SckId,
        account: AccountId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.audited(Action::Sweep(sck), AccountRef::Id(account), caller, now, async |journal| {
            if let Some(account) = self.ports.accounts.account(account.into()).await? {
                journal.concerns(&account);
                if account.wallet.sck_id == sck {
                    return Err(CustodyError::Conflict);
                }
                self.find_wrapped_sck(&account).await?;
            }
            journal.intent().await?;
            self.ports.scks.remove_sck(sck).await?;
            failpoint::reach("sweep-after-remove");
            Ok(())
        })
        .await
    }

    /// Stops the account: from the next request on it signs nothing, and neither a password nor a
    /// recovery changes it.
    ///
    /// # Errors
    /// `NoAccount`; else as a store fails.
    pub async fn freeze(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.set_state(account, AccountState::Frozen, Action::Freeze, caller, now).await
    }

    /// Lets the account go on.
    ///
    /// # Errors
    /// `NoAccount`; else as a store fails.
    pub async fn unfreeze(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.set_state(account, AccountState::Active, Action::Unfreeze, caller, now).await
    }

    async fn set_state(
        &self,
        account: AccountRef,
        state: AccountState,
        action: Action,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.audited(action, account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.concerns(&account);
            journal.intent().await?;
            if self.ports.accounts.set_state(account.id, state).await? {
                Ok(())
            } else {
                Err(CustodyError::NoAccount)
            }
        })
        .await
    }

    /// The SCK, if it is the one that the wallet was sealed under.
    async fn committed(&self, account: &Account, wrapped: WrappedSck) -> Result<Sck, CustodyError> {
        let sck = owner(account).unwrap(wrapped, &self.seals.ring).await?;
        if sck.matches(&account.wallet.commitment) {
            Ok(sck)
        } else {
            Err(CustodyError::Integrity("the wrapped key is not this wallet's"))
        }
    }
}

fn owner(account: &Account) -> WrapContext {
    let (address, sck_id) = (account.wallet.address, account.wallet.sck_id);
    WrapContext { account: account.id, address, sck_id }
}
