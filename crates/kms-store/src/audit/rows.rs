//! Alarms of rows that failed their integrity check, whichever query met them.

use std::sync::{Mutex, PoisonError};

use kms_core::audit::{Action, AuditRecord, Caller, Details, Phase};
use kms_core::ports::{AuditLog, StoreError};
use kms_core::{AlarmContext, integrity_alarm};
use tokio::task::JoinHandle;

use crate::database::Database;

impl Database {
    /// Logs a row that failed its integrity check, and records it in the background, at most once a
    /// minute.
    #[expect(clippy::disallowed_methods, reason = "a query has no time of its own")]
    pub(crate) fn alarm_of_row(&self, error: &StoreError) {
        let (table, row, code) = match error {
            StoreError::Tampered { table, key } => (*table, key, "tampered"),
            StoreError::Corrupt { table, key, .. } => (*table, key, "corrupt"),
            StoreError::RetiredRowKey { table, key, .. } => (*table, key, "retired_key"),
            StoreError::Unavailable { .. } | StoreError::NoRowKey { .. } => return,
        };
        // What is wrong with the chain cannot be written into it.
        if table.starts_with("audit") {
            return;
        }
        // Logged where the version of the key was looked up.
        if code != "retired_key" {
            integrity_alarm(error, AlarmContext { record: Some(row), ..AlarmContext::default() });
        }
        let record = AuditRecord {
            at: std::time::SystemTime::now().into(),
            caller: Caller::new("kms-store", ""),
            action: Action::ReadRow,
            phase: Phase::Alarm(code),
            account: None,
            telegram_id: None,
            details: Details::default().with("table", table).with("row", row),
        };
        let database = self.clone();
        let recorded = tokio::spawn(async move {
            if let Err(error) = database.append_refusal(record).await {
                tracing::warn!(%error, event = "audit_append_failed", "alarm not audited");
            }
        });
        let mut recording = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
        recording.retain(|alarm| !alarm.is_finished());
        recording.push(recorded);
    }
}

/// The alarms that are being recorded.
static RECORDING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits until the alarms of rows are in the audit, for a process that ends.
pub async fn alarms_recorded() {
    let recording = std::mem::take(&mut *RECORDING.lock().unwrap_or_else(PoisonError::into_inner));
    for alarm in recording {
        // Ends with the deadline of a query at the latest.
        let _ = alarm.await;
    }
}
