//! Leaving the vault page, so that bearer tokens may act again.

use std::future::Future;

use kms_types::{AccountId, AccountRef, PasswordHash, Timestamp};

use super::journal::Journal;
use super::unlock::refuse_frozen;
use super::{Custody, CustodyError};
use crate::account::Account;
use crate::audit::{Action, Audited, Caller};
use crate::page_only::PageChange;

/// Most accounts that one round changes.
const ROUND: u32 = 100;

impl Custody {
    /// Requests with the password, on the page, that the account is no longer page-only after a
    /// wait. Repeating it does not move the time.
    ///
    /// `admit` runs after the password was correct: an attacker without it cannot exhaust a limit.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `PageRequired` for any caller but the page;
    /// `NotPageOnly`; `Conflict` when the password was replaced meanwhile; else as `admit`, a
    /// store, the pool or the password gate fails.
    pub async fn request_page_leave<E, F>(
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
        self.audited(Action::RequestPageLeave, account, caller, now, async |journal| {
            let account = self.load_or_decoy(account, &password, journal).await?;
            // Before the password, which makes an account page-only.
            if account.page_only_since.is_none() {
                return Err(CustodyError::NotPageOnly.into());
            }
            refuse_frozen(&account)?;
            let (id, wallet_version) = (account.id, account.wallet.version);
            self.check_password(account, password, now, journal).await?;
            admit(id).await?;
            let until = now.plus(self.rules.unfreeze_wait);
            let change = PageChange::RequestLeave { wallet_version, until };
            let account = self.write_page(id, change, now).await?;
            if account.page_only_until.is_some() {
                Ok(account)
            } else {
                Err(CustodyError::Conflict.into())
            }
        })
        .await
    }

    /// Cancels such a request, without the password. Repeating it succeeds.
    ///
    /// # Errors
    /// `NoAccount`; else as a store fails.
    pub async fn keep_page_only(
        &self,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        self.change_page(account, PageChange::Keep, Action::KeepPageOnly, caller, now).await
    }

    /// Ends the state of accounts whose wait is over. Several servers may do so concurrently.
    ///
    /// # Errors
    /// As a store fails, the audit included: nothing changes without a record.
    pub async fn leave_due_pages(
        &self,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        for account in self.ports.accounts.due_page_leaves(now, ROUND).await? {
            let (account, change) = (AccountRef::Id(account), PageChange::LeaveDue { now });
            self.change_page(account, change, Action::LeavePage, caller, now).await?;
        }
        Ok(())
    }

    /// Makes the account page-only, if its owner acts on the page. Called once the caller has shown
    /// what the act requires, and before it has an effect.
    pub(super) async fn enter_page(
        &self,
        account: &Account,
        now: Timestamp,
        journal: &Journal,
    ) -> Result<(), CustodyError> {
        if journal.caller().is_at_page() && account.page_only_since.is_none() {
            self.ports.accounts.change_page(account.id, PageChange::Enter { now }, now).await?;
            journal.record_page_only().await;
        }
        Ok(())
    }

    async fn change_page(
        &self,
        account: AccountRef,
        change: PageChange,
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
            self.write_page(account.id, change, now).await
        })
        .await
    }

    async fn write_page(
        &self,
        account: AccountId,
        change: PageChange,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        let written = self.ports.accounts.change_page(account, change, now).await?;
        written.ok_or(CustodyError::NoAccount)
    }
}
