//! A forgotten password: asked for, confirmed by a code, cancelled, completed by the KMS key.

use kms_types::{AccountRef, OneTimeCode, PasswordHash, RecoveryId, Timestamp};

use super::journal::Journal;
use super::seals::open;
use super::{Custody, CustodyError, refuse_frozen};
use crate::account::{Account, SwapReason};
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::recovery::{Recovery, RecoveryError, RecoveryStage, RecoveryStep};
use crate::server_keys::RowMac;

/// How many due recoveries one round moves on.
const ROUND: u32 = 100;

impl Custody {
    /// Asks for a recovery. Nothing secret is taken yet. A repeat with the same id answers with the
    /// recovery as it stands.
    ///
    /// # Errors
    /// `NoAccount`; `Frozen`; `RecoveryReused` for another account's id; `RecoveryOpen` when one
    /// has not ended; else as a store fails.
    pub async fn request_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        self.audited(Action::RequestRecovery(id), account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.concerns(&account);
            refuse_frozen(&account)?;
            if let Some(known) = self.ports.recoveries.recovery(id).await? {
                if known.account != account.id {
                    return Err(CustodyError::RecoveryReused);
                }
                return Ok(known);
            }
            journal.intent().await?;
            // One whose time is over does not stand in the way, though nobody has written that yet.
            if let Some(before) = self.ports.recoveries.open_recovery(account.id).await?
                && let Some(due) = before.due(now)
            {
                self.write_due(due, caller, now).await?;
            }
            let recovery = Recovery::request(id, &account, &self.rules, now);
            if self.ports.recoveries.insert_recovery(recovery).await? {
                Ok(recovery)
            } else {
                Err(CustodyError::RecoveryOpen)
            }
        })
        .await
    }

    /// Confirms the code that was sent by e-mail: the wait is the short one from now on. The try is
    /// counted before the code is looked at.
    ///
    /// # Errors
    /// `NoRecovery`; `WrongCode`; `Recovery` when no code can be confirmed any more; `Conflict`
    /// when two are tried at once; else as a store fails.
    pub async fn confirm_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        code: &OneTimeCode,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        self.audited(Action::ConfirmRecovery(id), account, caller, now, async |journal| {
            let (_, recovery) = self.recovery_of(account, id, journal, caller, now).await?;
            let tried = recovery.code_tried(now)?;
            journal.intent().await?;
            if !self.ports.recoveries.update_recovery(tried, None, now).await? {
                return Err(CustodyError::Conflict);
            }
            if !recovery.is_code(code, &self.seals.keys.row) {
                return Err(CustodyError::WrongCode);
            }
            let confirmed = tried.code_confirmed(&self.rules, now)?;
            let step = Some(RecoveryStep::CodeConfirmed);
            if self.ports.recoveries.update_recovery(confirmed, step, now).await? {
                Ok(confirmed)
            } else {
                Err(CustodyError::Conflict)
            }
        })
        .await
    }

    /// Cancels a recovery. A repeat answers the same.
    ///
    /// # Errors
    /// `NoRecovery`; `Recovery` when it ended otherwise; else as a store fails.
    pub async fn cancel_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        self.audited(Action::CancelRecovery(id), account, caller, now, async |journal| {
            let (_, recovery) = self.recovery_of(account, id, journal, caller, now).await?;
            if recovery.written == RecoveryStage::Cancelled {
                return Ok(recovery);
            }
            let cancelled = recovery.cancelled(now)?;
            journal.intent().await?;
            if self.step(cancelled, now).await? {
                Ok(cancelled)
            } else {
                Err(CustodyError::Conflict)
            }
        })
        .await
    }

    /// Cancels a recovery for whoever has the link that was sent by e-mail.
    ///
    /// # Errors
    /// `NoRecovery` also when the link is not this recovery's; else as
    /// [`Custody::cancel_recovery`].
    pub async fn cancel_recovery_by_link(
        &self,
        id: RecoveryId,
        mac: &RowMac,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        let recovery = self.recovery_by_link(id, mac).await?;
        self.cancel_recovery(recovery.account.into(), id, caller, now).await
    }

    /// The recovery that a link is of.
    ///
    /// # Errors
    /// `NoRecovery` also when the link is not this recovery's; else as a store fails.
    pub async fn recovery_by_link(
        &self,
        id: RecoveryId,
        mac: &RowMac,
    ) -> Result<Recovery, CustodyError> {
        let found = self.ports.recoveries.recovery(id).await?;
        let is = |recovery: &Recovery| recovery.check_cancel_mac(mac, &self.seals.keys.row).is_ok();
        found.filter(is).ok_or(CustodyError::NoRecovery)
    }

    /// Replaces the forgotten password: the SCK comes from the KMS key instead of the old password.
    /// A repeat with the same password answers the same.
    ///
    /// # Errors
    /// `NoAccount`; `NoRecovery`; `Frozen`; `Recovery` when it still waits or has ended; `Conflict`
    /// when another change came first; `Integrity` when what is stored was exchanged or changed;
    /// else as a store, the pool or the KMS key fails.
    pub async fn complete_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        new: PasswordHash,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        self.audited(Action::Recover(id), account, caller, now, async |journal| {
            let (account, recovery) = self.recovery_of(account, id, journal, caller, now).await?;
            refuse_frozen(&account)?;
            if recovery.written == RecoveryStage::Completed {
                self.unlock(account, new, now, journal, drop).await?;
                return Ok(recovery);
            }
            let completed = recovery.completed(now)?;
            let place = self.pool.reserve()?;
            journal.intent().await?;
            let sck = self.unwrap_sck(&account).await?;
            let seals = std::sync::Arc::clone(&self.seals);
            let sealed = account.clone();
            let (wallet, wrapped) = place
                .run(move || {
                    if !sck.matches(&sealed.wallet.commitment) {
                        return Err(CustodyError::Integrity(
                            "the wrapped key is not this wallet's",
                        ));
                    }
                    let key = open(&sealed, &sck)?;
                    let version = sealed.wallet.version + 1;
                    seals.seal(sealed.id, sealed.telegram_id, &key, &new, version)
                })
                .await??;
            self.ports.scks.put_sck(wrapped).await?;
            failpoint::reach("recover-after-sck");
            let reason = SwapReason::Recovery(completed);
            self.swap(account.id, account.wallet.version, wallet, reason, now).await?;
            failpoint::reach("recover-after-commit");
            Ok(completed)
        })
        .await
    }

    /// Writes what time has made of recoveries, so that their owners are told. Any number of
    /// servers may do so at once.
    ///
    /// # Errors
    /// As a store fails, the audit among them: what can not be written down does not happen.
    pub async fn advance_due_recoveries(
        &self,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        for recovery in self.ports.recoveries.due_recoveries(now, ROUND).await? {
            if let Some(due) = recovery.due(now) {
                self.write_due(due, caller, now).await?;
            }
        }
        Ok(())
    }

    async fn recovery_of(
        &self,
        account: AccountRef,
        id: RecoveryId,
        journal: &mut Journal,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(Account, Recovery), CustodyError> {
        let account = self.load(account).await?;
        journal.concerns(&account);
        let find = async || {
            let found = self.ports.recoveries.recovery(id).await?;
            let own = found.filter(|recovery| recovery.account == account.id);
            own.ok_or(CustodyError::NoRecovery)
        };
        let mut recovery = find().await?;
        // Written first, so that it is not written by another server in the middle of what follows.
        if let Some(due) = recovery.due(now) {
            self.write_due(due, caller, now).await?;
            recovery = find().await?;
        }
        Ok((account, recovery))
    }

    /// Writes what time has made of a recovery, unless somebody wrote another step first. Nobody
    /// asked for it, so it has a record of its own.
    async fn write_due(
        &self,
        due: Recovery,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        let action = match due.written {
            RecoveryStage::Ready => Action::RecoveryReady(due.id),
            RecoveryStage::Expired => Action::RecoveryExpired(due.id),
            // Time alone leads to no other stage.
            RecoveryStage::Waiting | RecoveryStage::Completed | RecoveryStage::Cancelled => {
                return Err(RecoveryError::Ended.into());
            }
        };
        let account = AccountRef::Id(due.account);
        let written = self.audited(action, account, caller, now, async |journal| {
            journal.intent().await?;
            if self.step(due, now).await? { Ok(()) } else { Err(CustodyError::Conflict) }
        });
        match written.await {
            Err(CustodyError::Conflict) => Ok(()),
            other => other,
        }
    }

    /// Writes a step that has an event of its own.
    async fn step(&self, recovery: Recovery, now: Timestamp) -> Result<bool, CustodyError> {
        let step = match recovery.written {
            RecoveryStage::Ready => RecoveryStep::Ready,
            RecoveryStage::Cancelled => RecoveryStep::Cancelled,
            RecoveryStage::Expired => RecoveryStep::Expired,
            // Written by their own transactions.
            RecoveryStage::Waiting | RecoveryStage::Completed => {
                return Err(RecoveryError::Ended.into());
            }
        };
        Ok(self.ports.recoveries.update_recovery(recovery, Some(step), now).await?)
    }
}
