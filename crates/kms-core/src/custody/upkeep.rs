//! Operator actions on wallets, without their owners' passwords. SCKs are unwrapped here; no
//! private key is opened.

use kms_types::{AccountId, AccountRef, SckId, Timestamp};

use super::repair::record_wrapped_sck;
use super::wallet_sealer::wrap_context;
use super::{Custody, CustodyError};
use crate::account::Account;
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::ports::WrappedSck;
use crate::sck::Sck;

pub(super) const MISSING: CustodyError = CustodyError::Integrity("the wrapped SCK is missing");

/// What [`Custody::rewrap`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// The SCK was wrapped by another key and is wrapped by the active one now.
    Moved,
    /// The SCK was wrapped by the active key before; nothing was unwrapped.
    AlreadyActive,
}

impl Custody {
    /// Replaces the wallet's SCK wrapped by an older KMS key by the same SCK wrapped by the active
    /// one. The wallet does not change, so a concurrent request of its owner wins.
    ///
    /// # Errors
    /// `NoAccount`; `Integrity` when the wrapped SCK is missing, is not this wallet's, or its KMS
    /// key is not configured; `Conflict` when it was replaced concurrently; else as a store or a
    /// KMS key fails.
    pub async fn rewrap(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Rewrapped, CustodyError> {
        let account = self.load(account).await?;
        let found = self.ports.scks.sck(account.wallet.sck_id).await?;
        let active = self.sealer.ring.active()?.id();
        let is_recorded = |wrapped: &WrappedSck| wrapped.hash() == account.wallet.wrapped_hash;
        let is_active = found.as_ref().is_some_and(|wrapped| wrapped.master_key == *active);
        if is_active && found.as_ref().is_some_and(is_recorded) {
            return Ok(Rewrapped::AlreadyActive);
        }
        self.audited(Action::Rewrap, AccountRef::Id(account.id), caller, now, async |journal| {
            journal.set_account(&account);
            let old = found.ok_or(MISSING)?;
            journal.intent().await?;
            let sck = self.unwrap_committed(&account, old.clone()).await?;
            if is_active {
                // An earlier run ended between the two databases.
                record_wrapped_sck(&self.ports, account.id, &old).await?;
                return Ok(Rewrapped::AlreadyActive);
            }
            let new = wrap_context(&account).wrap(&sck, &self.sealer.ring)?;
            drop(sck);
            // It replaces the only copy, so it must unwrap first.
            drop(self.unwrap_committed(&account, new.clone()).await?);
            failpoint::reach("rewrap-before-replace");
            if !self.ports.scks.replace_sck(&old, new.clone()).await? {
                return Err(CustodyError::Conflict);
            }
            failpoint::reach("rewrap-after-replace");
            record_wrapped_sck(&self.ports, account.id, &new).await?;
            Ok(Rewrapped::Moved)
        })
        .await
    }

    /// Unwraps the wallet's SCK and compares it with the wallet's commitment.
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
            journal.set_account(&account);
            let wrapped = self.ports.scks.sck(account.wallet.sck_id).await?.ok_or(MISSING)?;
            journal.intent().await?;
            self.unwrap_committed(&account, wrapped).await.map(drop)
        })
        .await
    }

    /// Removes an orphaned wrapped SCK of the account: one that a change of password or KDF
    /// replaced, or that a failed creation left.
    ///
    /// # Errors
    /// `Conflict` when the account's wallet refers to it; `Integrity` when the SCK that the wallet
    /// refers to is unusable, in which case no SCK of the account is removed; else as a store
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
                journal.set_account(&account);
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

    /// Unwraps an SCK, and checks that it is the one that the wallet is sealed under.
    pub(super) async fn unwrap_committed(
        &self,
        account: &Account,
        wrapped: WrappedSck,
    ) -> Result<Sck, CustodyError> {
        let sck = wrap_context(account).unwrap(wrapped, &self.sealer.ring).await?;
        if sck.matches(&account.wallet.commitment) {
            Ok(sck)
        } else {
            Err(CustodyError::Integrity("the wrapped SCK is not this wallet's"))
        }
    }
}
