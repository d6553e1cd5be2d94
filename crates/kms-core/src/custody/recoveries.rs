//! Recovery of a forgotten password: requested, confirmed by an e-mail code, cancelled, and
//! completed with the KMS key.

use std::sync::Arc;
use std::time::Duration;

use kms_types::{
    AccountId, AccountRef, OneTimeCode, PasswordHash, RecoveryId, RecoveryStep, Timestamp,
};

use super::error::WRONG_CODE;
use super::journal::Journal;
use super::unlock::{refuse_frozen, refuse_token};
use super::upkeep::MISSING;
use super::wallet_sealer::open;
use super::{Custody, CustodyError};
use crate::account::{Account, SwapReason};
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::recovery::{Recovery, RecoveryCode, RecoveryError, RecoveryStage};
use crate::server_keys::{RowMac, RowMacError, is_same_code};

/// Most due recoveries that one round advances.
const ROUND: u32 = 100;

/// More than the clocks of two servers differ.
const CLOCKS: Duration = Duration::from_secs(60);

/// What the audit has of a recovery. Unlike the recovery's row, it cannot be replaced by an older
/// copy.
struct AuditedSteps {
    has_ended: bool,
    wrong_codes: usize,
    extended: Option<Extended>,
}

/// A wait that a pause made longer.
struct Extended {
    ready_at: Timestamp,
    /// Whether the code was confirmed before.
    was_confirmed: bool,
}

impl AuditedSteps {
    /// Whether the row is older than the audit.
    fn contradict(&self, recovery: &Recovery, account: &Account, now: Timestamp) -> bool {
        // The account's own record of its last recovery covers a crash before the audit's.
        let earliest = recovery.requested_at.plus(CLOCKS);
        let is_replaced = account.recovered_at.is_some_and(|at| at > earliest);
        let forgets_tries = match recovery.code {
            RecoveryCode::Sent { tries, .. } => usize::from(tries) < self.wrong_codes,
            RecoveryCode::None | RecoveryCode::Confirmed => false,
        };
        // A code that was confirmed later makes the wait shorter again.
        let may_be_shorter = recovery.code == RecoveryCode::Confirmed;
        let forgets_pause = self.extended.as_ref().is_some_and(|extended| {
            recovery.ready_at < extended.ready_at && (extended.was_confirmed || !may_be_shorter)
        });
        let contradicts = self.has_ended || is_replaced || forgets_tries || forgets_pause;
        recovery.is_open(now) && contradicts
    }
}

impl Custody {
    /// Requests a recovery, which requires no secret. Repeating the request returns the recovery in
    /// its current state.
    ///
    /// # Errors
    /// `NoAccount`; `Frozen`; `RecoveryReused` when the id is that of another account's recovery;
    /// `RecoveryOpen` when another recovery has not ended; else as a store fails.
    pub async fn request_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        self.audited(Action::RequestRecovery(id), account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.set_account(&account);
            refuse_token(&account, journal)?;
            refuse_frozen(&account)?;
            if let Some(known) = self.ports.recoveries.recovery(id).await? {
                if known.account != account.id {
                    return Err(CustodyError::RecoveryReused);
                }
                return Ok(known);
            }
            journal.intent().await?;
            self.expire_before(account.id, caller, now).await?;
            self.enter_page(&account, now, journal).await?;
            let codes_key = self.sealer.keys.codes.current();
            let recovery = Recovery::request(id, &account, &self.rules, codes_key, now);
            journal.add(recovery.details());
            if self.ports.recoveries.insert_recovery(recovery).await? {
                Ok(recovery)
            } else {
                Err(CustodyError::RecoveryOpen)
            }
        })
        .await
    }

    /// Confirms the code that was sent by e-mail, which shortens the wait. The attempt is counted
    /// before the code is compared.
    ///
    /// # Errors
    /// `NoRecovery`; `WrongCode`; `Recovery` when no code can be confirmed; `Conflict` when two
    /// attempts are concurrent; else as a store fails.
    pub async fn confirm_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        code: &OneTimeCode,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        self.audited(Action::ConfirmRecovery(id), account, caller, now, async |journal| {
            let (account, recovery) = self.recovery_of(account, id, journal, caller, now).await?;
            refuse_token(&account, journal)?;
            let tried = recovery.code_tried(now)?;
            let right = recovery.code(&self.sealer.keys.codes)?;
            journal.intent().await?;
            if !self.ports.recoveries.update_recovery(tried, None, now).await? {
                return Err(CustodyError::Conflict);
            }
            if !is_same_code(code, &right) {
                return Err(CustodyError::WrongCode);
            }
            self.enter_page(&account, now, journal).await?;
            let confirmed = tried.code_confirmed(&self.rules, now)?;
            journal.add(confirmed.details());
            let step = Some(RecoveryStep::CodeConfirmed);
            if self.ports.recoveries.update_recovery(confirmed, step, now).await? {
                Ok(confirmed)
            } else {
                Err(CustodyError::Conflict)
            }
        })
        .await
    }

    /// Cancels a recovery. Cancelling it again succeeds.
    ///
    /// # Errors
    /// `NoRecovery`; `Recovery` when it was completed or has expired; else as a store fails.
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
            journal.add(recovery.details());
            journal.intent().await?;
            if self.step(cancelled, now).await? {
                Ok(cancelled)
            } else {
                Err(CustodyError::Conflict)
            }
        })
        .await
    }

    /// Cancels a recovery by the link that was sent by e-mail.
    ///
    /// # Errors
    /// `NoRecovery` also when the link is not of this recovery; else as
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

    /// Returns the recovery that a link is of.
    ///
    /// # Errors
    /// `NoRecovery` also when the link is not of this recovery; else as a store fails.
    pub async fn recovery_by_link(
        &self,
        id: RecoveryId,
        mac: &RowMac,
    ) -> Result<Recovery, CustodyError> {
        let found = self.ports.recoveries.recovery(id).await?;
        let found = found.ok_or(CustodyError::NoRecovery)?;
        match found.check_cancel_mac(mac, &self.sealer.keys.codes) {
            Ok(()) => Ok(found),
            Err(RowMacError::Mismatch) => Err(CustodyError::NoRecovery),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the forgotten password: the KMS key unwraps the SCK that the old password would
    /// have derived. Repeating the request with the same password succeeds.
    ///
    /// # Errors
    /// `NoAccount`; `NoRecovery`; `Frozen`; `Recovery` when it still waits or has ended; `Conflict`
    /// when a concurrent change came first; `Integrity` when stored data was exchanged or modified;
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
            refuse_token(&account, journal)?;
            refuse_frozen(&account)?;
            if recovery.moves_to.is_some() {
                return Err(CustodyError::NoRecovery);
            }
            if recovery.written == RecoveryStage::Completed {
                self.unlock(account, new, now, journal, drop).await?;
                return Ok(recovery);
            }
            let completed = recovery.completed(now)?;
            let permit = self.pool.reserve()?;
            journal.add(recovery.details());
            journal.intent().await?;
            let wrapped = self.ports.scks.sck(account.wallet.sck_id).await?.ok_or(MISSING)?;
            let sck = self.unwrap_committed(&account, wrapped).await?;
            let sealer = Arc::clone(&self.sealer);
            let sealed = account.clone();
            let (wallet, wrapped) = permit
                .run(move || {
                    let key = open(&sealed, &sck)?;
                    let version = sealed.wallet.version + 1;
                    sealer.seal(sealed.id, sealed.telegram_id, &key, &new, version)
                })
                .await??;
            self.enter_page(&account, now, journal).await?;
            self.ports.scks.put_sck(wrapped).await?;
            failpoint::reach("recover-after-sck");
            let reason = SwapReason::Recovery(completed);
            self.swap(account.id, account.wallet.version, wallet, reason, now).await?;
            failpoint::reach("recover-after-commit");
            Ok(completed)
        })
        .await
    }

    /// Stores the stages that recoveries have reached by time alone, with their events, so that the
    /// owners are notified. Several servers may do so concurrently.
    ///
    /// # Errors
    /// As a store fails, the audit included: a step that cannot be audited is not made.
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

    /// Stores that the last recovery of the account has expired, if it has: it does not block a new
    /// one.
    pub(super) async fn expire_before(
        &self,
        account: AccountId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        if let Some(before) = self.ports.recoveries.open_recovery(account).await?
            && let Some(due) = before.due(now)
        {
            self.write_due(due, caller, now).await?;
        }
        Ok(())
    }

    pub(super) async fn recovery_of(
        &self,
        account: AccountRef,
        id: RecoveryId,
        journal: &mut Journal,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(Account, Recovery), CustodyError> {
        let account = self.load(account).await?;
        journal.set_account(&account);
        self.refuse_rolled_back(&account).await?;
        // Before the row: what the audit records by then has been stored in the row.
        let audited = self.audited_steps(id).await?;
        let find = async || {
            let found = self.ports.recoveries.recovery(id).await?;
            let own = found.filter(|recovery| recovery.account == account.id);
            own.ok_or(CustodyError::NoRecovery)
        };
        let mut recovery = find().await?;
        if audited.contradict(&recovery, &account, now) {
            return Err(CustodyError::RolledBack);
        }
        // Stored first, so that another server does not store it in the middle of what follows.
        if let Some(due) = recovery.due(now) {
            self.write_due(due, caller, now).await?;
            recovery = find().await?;
        }
        Ok((account, recovery))
    }

    /// Reads what the audit records of a recovery.
    async fn audited_steps(&self, id: RecoveryId) -> Result<AuditedSteps, CustodyError> {
        let audit = &self.ports.audit;
        let ends = [
            Action::CancelRecovery(id),
            Action::Recover(id),
            Action::Move(id),
            Action::RecoveryExpired(id),
        ];
        let has_ended = audit.count_outcomes(&ends, "ok").await? > 0;
        let tried = [Action::ConfirmRecovery(id)];
        let wrong_codes = audit.count_outcomes(&tried, WRONG_CODE).await?;
        let extended = audit.newest_details(Action::ExtendRecovery(id)).await?;
        let extended = extended.and_then(|details| {
            let ready_at = Timestamp(details.get("ready_at")?.parse().ok()?);
            let was_confirmed = details.get("code")? == RecoveryCode::Confirmed.as_str();
            Some(Extended { ready_at, was_confirmed })
        });
        Ok(AuditedSteps { has_ended, wrong_codes, extended })
    }

    /// Stores the stage that a recovery has reached by time alone, unless another step was stored
    /// first. It has an audit record of its own, because no request caused it.
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
            journal.add(due.details());
            journal.intent().await?;
            if self.step(due, now).await? { Ok(()) } else { Err(CustodyError::Conflict) }
        });
        match written.await {
            Err(CustodyError::Conflict) => Ok(()),
            other => other,
        }
    }

    /// Stores a step and its event.
    pub(super) async fn step(
        &self,
        recovery: Recovery,
        now: Timestamp,
    ) -> Result<bool, CustodyError> {
        let step = match recovery.written {
            RecoveryStage::Ready => RecoveryStep::Ready,
            RecoveryStage::Cancelled => RecoveryStep::Cancelled,
            RecoveryStage::Expired => RecoveryStep::Expired,
            // Stored by transactions of their own.
            RecoveryStage::Waiting | RecoveryStage::Completed => {
                return Err(RecoveryError::Ended.into());
            }
        };
        Ok(self.ports.recoveries.update_recovery(recovery, Some(step), now).await?)
    }
}
