//! The audit records of one request: an INTENT before a key is used, then the outcome.

use std::sync::Arc;
use std::time::Duration;

use kms_types::{AccountRef, RecoveryId, Timestamp};

use super::error::WRONG_PASSWORD;
use crate::account::Account;
use crate::audit::{Action, AuditRecord, Audited, Caller, Details, Phase, Purpose};
use crate::integrity::{AlarmContext, integrity_alarm};
use crate::ports::{AuditLog, StoreError};

/// Seconds between attempts to append an outcome in the background.
const RETRIES: [u64; 4] = [1, 5, 30, 120];

pub(super) struct Journal {
    audit: Arc<dyn AuditLog>,
    record: AuditRecord,
    intended: bool,
}

impl Journal {
    /// Runs `work`, which writes the INTENT before it uses a key, and then records its outcome.
    pub(super) async fn keep<T, E: Audited>(
        audit: Arc<dyn AuditLog>,
        purpose: impl Into<Purpose>,
        account: Option<AccountRef>,
        caller: &Caller,
        now: Timestamp,
        work: impl AsyncFnOnce(&mut Journal) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut journal = Self::new(audit, purpose, account, caller, now);
        let result = work(&mut journal).await;
        journal.close(result.as_ref().err().map(Audited::phase)).await;
        result
    }

    pub(super) fn new(
        audit: Arc<dyn AuditLog>,
        purpose: impl Into<Purpose>,
        account: Option<AccountRef>,
        caller: &Caller,
        at: Timestamp,
    ) -> Self {
        let Purpose { action, details: known } = purpose.into();
        let (account, telegram_id) = match account {
            Some(AccountRef::Id(id)) => (Some(id), None),
            Some(AccountRef::Telegram(id)) => (None, Some(id)),
            None => (None, None),
        };
        let (caller, phase) = (caller.clone(), Phase::Intent);
        let details = caller.details();
        let record = AuditRecord { at, caller, action, phase, account, telegram_id, details };
        let mut journal = Self { audit, record, intended: false };
        journal.add(known);
        journal
    }

    /// The caller of the request.
    pub(super) fn caller(&self) -> &Caller {
        &self.record.caller
    }

    /// Adds the account's ids to the records, of which the request named one.
    pub(super) fn set_account(&mut self, account: &Account) {
        self.record.account = Some(account.id);
        self.record.telegram_id = Some(account.telegram_id);
    }

    /// Adds what the records state beside their columns.
    pub(super) fn add(&mut self, details: Details) {
        self.record.details.merge(details);
    }

    /// Replaces the action by a more precise one.
    pub(super) fn set_action(&mut self, action: Action) {
        self.record.action = action;
    }

    /// Writes the INTENT, once. No key may be used before this has succeeded.
    pub(super) async fn intent(&mut self) -> Result<(), StoreError> {
        if !self.intended {
            self.audit.append(self.record.clone()).await?;
            self.intended = true;
        }
        Ok(())
    }

    /// Writes an INTENT for a password that was counted as an attempt, also after another one: with
    /// it, the database makes the count durable.
    pub(super) async fn intent_of_attempt(&mut self) -> Result<(), StoreError> {
        self.intended = false;
        self.intent().await
    }

    /// Records that a correct password cancelled a recovery.
    pub(super) async fn record_cancelled_recovery(&self, recovery: RecoveryId) {
        let (action, phase) = (Action::CancelRecovery(recovery), Phase::Outcome("ok"));
        let details = self.record.caller.details();
        let record = AuditRecord { action, phase, details, ..self.record.clone() };
        append_outcome(Arc::clone(&self.audit), record).await;
    }

    /// Records that the account became page-only.
    pub(super) async fn record_page_only(&self) {
        let (action, phase) = (Action::EnterPage, Phase::Outcome("ok"));
        let details = self.record.caller.details();
        let record = AuditRecord { action, phase, details, ..self.record.clone() };
        append_outcome(Arc::clone(&self.audit), record).await;
    }

    /// Records a wrong password that was tried beside the action.
    pub(super) async fn record_guess(&self) {
        let record = AuditRecord { phase: Phase::Outcome(WRONG_PASSWORD), ..self.record.clone() };
        append_outcome(Arc::clone(&self.audit), record).await;
    }

    /// Records what was done without the use of a key.
    pub(super) async fn done(self) {
        let record = AuditRecord { phase: Phase::Outcome("ok"), ..self.record };
        append_outcome(self.audit, record).await;
    }

    /// Records the outcome: success, or `failed`, which may be an alarm. A failure before the
    /// INTENT is a refusal, and recorded once a minute.
    pub(super) async fn close(self, failed: Option<Phase>) {
        let Self { audit, mut record, intended } = self;
        record.phase = failed.unwrap_or(Phase::Outcome("ok"));
        if let Phase::Alarm(what) = record.phase {
            let context = AlarmContext {
                request_id: Some(&record.caller.request_id),
                account: record.account,
                record: None,
            };
            integrity_alarm(what, context);
        } else if !intended {
            if let Err(error) = audit.append_refusal(record).await {
                tracing::warn!(%error, event = "audit_append_failed", "audit refusal not appended");
            }
            return;
        }
        append_outcome(audit, record).await;
    }
}

/// Appends an outcome. A failure does not change the response: the key was used. It is retried in
/// the background.
async fn append_outcome(audit: Arc<dyn AuditLog>, record: AuditRecord) {
    let Err(first) = audit.append(record.clone()).await else {
        return;
    };
    let request_id = record.caller.request_id.clone();
    let event = "audit_outcome_delayed";
    tracing::error!(event, request_id, error = %first, "audit outcome delayed");
    tokio::spawn(async move {
        for seconds in RETRIES {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if audit.append(record.clone()).await.is_ok() {
                return;
            }
        }
        tracing::error!(event = "audit_outcome_lost", request_id, "audit outcome lost");
    });
}
