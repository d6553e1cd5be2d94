//! What one request writes into the audit: INTENT before a key is touched, then what came of it.

use std::sync::Arc;
use std::time::Duration;

use kms_types::{AccountRef, RecoveryId, Timestamp};

use crate::account::Account;
use crate::audit::{Action, AuditRecord, Audited, Caller, Phase};
use crate::integrity::{AlarmContext, integrity_alarm};
use crate::ports::{AuditLog, StoreError};

pub(super) struct Journal {
    audit: Arc<dyn AuditLog>,
    record: AuditRecord,
    intended: bool,
}

impl Journal {
    /// Runs `work`, which writes the INTENT before it touches a key, and writes what came of it.
    pub(super) async fn keep<T, E: Audited>(
        audit: Arc<dyn AuditLog>,
        action: Action,
        account: Option<AccountRef>,
        caller: &Caller,
        now: Timestamp,
        work: impl AsyncFnOnce(&mut Journal) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut journal = Self::new(audit, action, account, caller, now);
        let result = work(&mut journal).await;
        journal.close(result.as_ref().err().map(Audited::phase)).await;
        result
    }

    pub(super) fn new(
        audit: Arc<dyn AuditLog>,
        action: Action,
        account: Option<AccountRef>,
        caller: &Caller,
        at: Timestamp,
    ) -> Self {
        let (account, telegram_id) = match account {
            Some(AccountRef::Id(id)) => (Some(id), None),
            Some(AccountRef::Telegram(id)) => (None, Some(id)),
            None => (None, None),
        };
        let (caller, phase) = (caller.clone(), Phase::Intent);
        let record = AuditRecord { at, caller, action, phase, account, telegram_id };
        Self { audit, record, intended: false }
    }

    /// Fills in what the request did not say.
    pub(super) fn concerns(&mut self, account: &Account) {
        self.record.account = Some(account.id);
        self.record.telegram_id = Some(account.telegram_id);
    }

    /// Writes the INTENT, once. Without it nothing may be opened.
    pub(super) async fn intent(&mut self) -> Result<(), StoreError> {
        if !self.intended {
            self.audit.append(self.record.clone()).await?;
            self.intended = true;
        }
        Ok(())
    }

    /// Writes that a right password stopped a recovery.
    pub(super) async fn cancelled(&self, recovery: RecoveryId) {
        let (action, phase) = (Action::CancelRecovery(recovery), Phase::Outcome("ok"));
        let record = AuditRecord { action, phase, ..self.record.clone() };
        append_outcome(Arc::clone(&self.audit), record).await;
    }

    /// Writes what came of it: an OUTCOME, or an alarm, or a refusal if a key was never touched.
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
                tracing::warn!(%error, "a refusal was not audited");
            }
            return;
        }
        append_outcome(audit, record).await;
    }
}

/// An outcome that can not be written changes no answer: it is tried again in the background.
async fn append_outcome(audit: Arc<dyn AuditLog>, record: AuditRecord) {
    let Err(first) = audit.append(record.clone()).await else {
        return;
    };
    tracing::error!(request_id = record.caller.request_id, error = %first, "audit outcome delayed");
    tokio::spawn(async move {
        for seconds in [1, 5, 30, 120] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if audit.append(record.clone()).await.is_ok() {
                return;
            }
        }
        tracing::error!(request_id = record.caller.request_id, "audit outcome lost");
    });
}
