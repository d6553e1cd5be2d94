//! Freezing accounts, by their owners and by operators, and lifting that.

use std::future::Future;

use kms_types::{AccountId, AccountRef, PasswordHash, Timestamp};

use super::journal::Journal;
use super::{Custody, CustodyError};
use crate::account::{Account, AccountState};
use crate::audit::{Action, Audited, Caller};
use crate::freeze::{FreezeChange, FreezeLink};
use crate::server_keys::RowMac;

/// Most freezes that one round lifts.
const ROUND: u32 = 100;

impl Custody {
    /// Freezes the account for its owner, without the password: from then on nothing is signed,
    /// exported or changed, an open recovery is cancelled, and so is a request to lift an earlier
    /// freeze. Repeating it succeeds.
    ///
    /// # Errors
    /// `NoAccount`; else as a store fails.
    pub async fn freeze_by_owner(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        self.change_freeze(account, FreezeChange::ByOwner, Action::Freeze, caller, now).await
    }

    /// Freezes the account by a link that was sent by e-mail.
    ///
    /// # Errors
    /// `NoAccount` also when the link is not valid; else as a store fails.
    pub async fn freeze_by_link(
        &self,
        link: FreezeLink,
        mac: &RowMac,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        self.check_freeze_link(link, mac, now)?;
        self.freeze_by_owner(link.account.into(), caller, now).await
    }

    /// Returns the account that a link freezes.
    ///
    /// # Errors
    /// `NoAccount` also when the link is not valid; else as a store fails.
    pub async fn account_of_freeze_link(
        &self,
        link: FreezeLink,
        mac: &RowMac,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        self.check_freeze_link(link, mac, now)?;
        self.load(link.account.into()).await
    }

    /// Returns the link that freezes an account, of an e-mail about what happened at this time.
    #[must_use]
    pub fn freeze_link(&self, account: AccountId, at: Timestamp) -> FreezeLink {
        FreezeLink::new(account, at, &self.rules)
    }

    /// Returns the MAC of a link.
    #[must_use]
    pub fn freeze_link_mac(&self, link: &FreezeLink) -> RowMac {
        link.mac(&self.sealer.keys.codes)
    }

    fn check_freeze_link(
        &self,
        link: FreezeLink,
        mac: &RowMac,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        let is_valid = link.check_mac(mac, &self.sealer.keys.codes).is_ok() && now < link.until;
        if is_valid { Ok(()) } else { Err(CustodyError::NoAccount) }
    }

    /// Requests with the password that the owner's freeze is lifted after a wait. Until then the
    /// account stays frozen, and every freeze cancels the request. Repeating it does not move the
    /// time.
    ///
    /// `admit` runs after the password was correct: an attacker without it cannot exhaust a limit.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `NotFrozen`; `Frozen` when an operator froze it;
    /// `Conflict` when the password was replaced meanwhile; else as `admit`, a store, the pool or
    /// the password gate fails.
    pub async fn request_unfreeze<E, F>(
        &self,
        account: AccountRef,
        password: PasswordHash,
        caller: &Caller,
        now: Timestamp,
        admit: impl FnOnce(AccountId) -> F,
    ) -> Result<Account, E>
    where
        E: From<CustodyError> + Audited,
        F: Future<Output = Result<(), E>>,
    {
        self.audited(Action::RequestUnfreeze, account, caller, now, async |journal| {
            let account = self.load_or_decoy(account, &password, journal).await?;
            let (id, wallet_version) = (account.id, account.wallet.version);
            match account.state {
                AccountState::FrozenByOwner => {}
                AccountState::Active => return Err(CustodyError::NotFrozen.into()),
                AccountState::Frozen => return Err(CustodyError::Frozen.into()),
            }
            self.check_password(account, password, now, journal).await?;
            admit(id).await?;
            let until = now.plus(self.rules.unfreeze_wait);
            let change = FreezeChange::RequestLift { wallet_version, until };
            let account = self.write_freeze(id, change, now, journal).await?;
            match (account.state, account.unfreezes_at) {
                (AccountState::FrozenByOwner, Some(_)) => Ok(account),
                (AccountState::Frozen, _) => Err(CustodyError::Frozen.into()),
                (AccountState::FrozenByOwner | AccountState::Active, _) => {
                    Err(CustodyError::Conflict.into())
                }
            }
        })
        .await
    }

    /// Freezes the account for an operator. Only an operator lifts it.
    ///
    /// # Errors
    /// `NoAccount`; else as a store fails.
    pub async fn freeze(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        self.change_freeze(account, FreezeChange::ByOperator, Action::Freeze, caller, now).await
    }

    /// Lifts any freeze, for an operator.
    ///
    /// # Errors
    /// `NoAccount`; else as a store fails.
    pub async fn unfreeze(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        let change = FreezeChange::LiftByOperator;
        self.change_freeze(account, change, Action::Unfreeze, caller, now).await
    }

    /// Lifts the freezes whose wait is over. Several servers may do so concurrently.
    ///
    /// # Errors
    /// As a store fails, the audit included: a freeze is not lifted without a record.
    pub async fn lift_due_freezes(
        &self,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        for account in self.ports.freezes.due_unfreezes(now, ROUND).await? {
            let (account, change) = (AccountRef::Id(account), FreezeChange::LiftDue { now });
            self.change_freeze(account, change, Action::Unfreeze, caller, now).await?;
        }
        Ok(())
    }

    async fn change_freeze(
        &self,
        account: AccountRef,
        change: FreezeChange,
        action: Action,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        self.audited(action, account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.set_account(&account);
            // A repeat changes nothing, and must not fill the audit.
            if change.apply(&mut account.clone()).is_none() {
                return Ok(account);
            }
            journal.intent().await?;
            self.write_freeze(account.id, change, now, journal).await
        })
        .await
    }

    async fn write_freeze(
        &self,
        account: AccountId,
        change: FreezeChange,
        now: Timestamp,
        journal: &Journal,
    ) -> Result<Account, CustodyError> {
        let written = self.ports.freezes.change_freeze(account, change, now).await?;
        let written = written.ok_or(CustodyError::NoAccount)?;
        if let Some(recovery) = written.cancelled_recovery {
            journal.record_cancelled_recovery(recovery).await;
        }
        Ok(written.account)
    }
}
