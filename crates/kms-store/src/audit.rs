//! The audit table: append and read, nothing else.

use async_trait::async_trait;
use diesel::prelude::*;
use kms_core::audit::AuditRecord;
use kms_core::ports::{AuditLog, StoreError};
use kms_types::Timestamp;

use crate::database::Database;
use crate::schema::audit;

/// One line of the audit table, as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place in the table.
    pub sequence: i64,
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub actor: String,
    /// The request, as logs know it.
    pub request_id: String,
    /// For what.
    pub action: String,
    /// The object of the action, where it is not the account.
    pub subject: Option<String>,
    /// On whose wallet.
    pub account: Option<String>,
    /// Whose it is.
    pub telegram_id: Option<i64>,
    /// `intent`, `outcome` or `alarm`.
    pub phase: String,
    /// What came of it.
    pub outcome: Option<String>,
}

#[async_trait]
impl AuditLog for Database {
    async fn append(&self, record: AuditRecord) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::insert_into(audit::table)
                .values((
                    audit::at.eq(record.at.0),
                    audit::actor.eq(record.caller.actor),
                    audit::request_id.eq(record.caller.request_id),
                    audit::action.eq(record.action.as_str()),
                    audit::subject.eq(record.action.subject()),
                    audit::account_id.eq(record.account.map(|id| id.to_string())),
                    audit::telegram_id.eq(record.telegram_id.map(i64::from)),
                    audit::phase.eq(record.phase.as_str()),
                    audit::outcome.eq(record.phase.outcome()),
                ))
                .execute(connection)?;
            Ok(())
        })
        .await
    }
}

type Columns = (
    i64,
    i64,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<i64>,
    String,
    Option<String>,
);

impl From<Columns> for AuditRow {
    fn from(columns: Columns) -> Self {
        let (
            sequence,
            at,
            actor,
            request_id,
            action,
            subject,
            account,
            telegram_id,
            phase,
            outcome,
        ) = columns;
        Self {
            sequence,
            at: Timestamp(at),
            actor,
            request_id,
            action,
            subject,
            account,
            telegram_id,
            phase,
            outcome,
        }
    }
}

impl Database {
    /// The records after this place, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_after(
        &self,
        sequence: i64,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.blocking(move |connection| {
            let rows: Vec<Columns> = audit::table
                .filter(audit::seq.gt(sequence))
                .order(audit::seq)
                .limit(limit.into())
                .load(connection)?;
            Ok(rows.into_iter().map(AuditRow::from).collect())
        })
        .await
    }
}
