//! Appending with group commit: records that arrive during a transaction are written together by
//! the next one, and share its fsync.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use kms_core::audit::{AuditRecord, Entry, Tip};
use kms_core::ports::{AuditLog, StoreError};
use kms_core::{ServerKeySet, ServerKeys};
use tokio::sync::oneshot;

use crate::audit_queue::Waiting;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, execute_on_either, unavailable};
use crate::dialect::Dialect;
use crate::rate_limits::RateLimit;
use crate::schema::audit;

#[async_trait]
impl AuditLog for Database {
    async fn append(&self, record: AuditRecord) -> Result<(), StoreError> {
        let (written, answer) = oneshot::channel();
        self.audit_queue.push(Waiting { record, written });
        // A task of its own: the records of other callers must survive a caller that is dropped.
        let database = self.clone();
        tokio::spawn(async move { database.write_waiting().await });
        answer.await.map_err(unavailable)?
    }

    async fn append_refusal(&self, record: AuditRecord) -> Result<(), StoreError> {
        let (account, telegram_id) = (record.account, record.telegram_id);
        let (action, outcome) = (record.action.as_str(), record.phase.outcome());
        let key = format!("audit:{account:?}:{telegram_id:?}:{action}:{outcome:?}");
        if self.audit_queue.is_refused(&key) {
            return Ok(());
        }
        let once = RateLimit { burst: 1, period: Duration::from_secs(60) };
        let taken = self.take(&key, once).await?;
        self.audit_queue.remember_refusal(key, taken.err().unwrap_or(once.period));
        match taken {
            Ok(()) => self.append(record).await,
            Err(_wait) => Ok(()),
        }
    }
}

impl Database {
    async fn write_waiting(&self) {
        let _writer = self.audit_queue.writer().await;
        let (records, answers): (Vec<_>, Vec<_>) =
            self.audit_queue.take().into_iter().map(|one| (one.record, one.written)).unzip();
        if records.is_empty() {
            return;
        }
        let (keys, dialect) = (Arc::clone(&self.keys), self.dialect);
        let written = self
            .blocking(move |connection| append(connection, dialect, &keys, &records))
            .await
            .map_err(Arc::new);
        for answer in answers {
            // Fails if the caller was dropped.
            let _ = answer.send(written.as_ref().copied().map_err(shared));
        }
    }
}

/// Copies the error of a transaction for each of its callers.
fn shared(error: &Arc<StoreError>) -> StoreError {
    match &**error {
        StoreError::Corrupt { table, key, reason } => {
            StoreError::Corrupt { table, key: key.clone(), reason: reason.clone() }
        }
        StoreError::Unavailable { .. }
        | StoreError::Tampered { .. }
        | StoreError::RetiredRowKey { .. }
        | StoreError::NoRowKey { .. } => unavailable(Arc::clone(error)),
    }
}

#[derive(Insertable)]
#[diesel(table_name = audit)]
struct NewRow {
    at: i64,
    actor: String,
    request_id: String,
    action: &'static str,
    subject: Option<String>,
    account_id: Option<String>,
    telegram_id: Option<i64>,
    phase: &'static str,
    outcome: Option<&'static str>,
    chain_seq: i64,
    key_id: i32,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
}

impl NewRow {
    fn new(record: &AuditRecord, tip: &mut Tip, audit_keys: &ServerKeySet) -> Self {
        let (subject, account) = (record.action.subject(), record.account.map(|id| id.to_string()));
        let telegram_id = record.telegram_id.map(i64::from);
        let (phase, outcome) = (record.phase.as_str(), record.phase.outcome());
        let (action, caller) = (record.action.as_str(), &record.caller);
        let entry = Entry {
            at: record.at,
            actor: &caller.actor,
            request_id: &caller.request_id,
            action,
            subject: subject.as_deref(),
            account: account.as_deref(),
            telegram_id,
            phase,
            outcome,
        };
        let link = tip.append(&entry, audit_keys);
        Self {
            at: record.at.0,
            actor: caller.actor.clone(),
            request_id: caller.request_id.clone(),
            action,
            subject,
            account_id: account,
            telegram_id,
            phase,
            outcome,
            chain_seq: link.sequence,
            key_id: link.mac.key.as_u8().into(),
            prev_hash: link.previous.to_vec(),
            hash: link.mac.tag.to_vec(),
        }
    }
}

fn append(
    connection: &mut AnyConnection,
    dialect: Dialect,
    keys: &ServerKeys,
    records: &[AuditRecord],
) -> Result<(), Failure> {
    connection.transaction(|connection| {
        diesel::sql_query(lock(dialect)).execute(connection)?;
        let mut tip = tip(connection)?;
        let rows: Vec<_> =
            records.iter().map(|record| NewRow::new(record, &mut tip, &keys.audit)).collect();
        execute_on_either!(connection, diesel::insert_into(audit::table).values(rows))?;
        Ok(())
    })
}

/// A statement that lets no other transaction append before this one ends.
fn lock(dialect: Dialect) -> &'static str {
    match dialect {
        // The first bytes of the SHA-256 of `wallet-kms/v1/audit`.
        #[cfg(feature = "postgres")]
        Dialect::Postgres => "select pg_advisory_xact_lock(-3855145189506829152)",
        // An update without effect: a transaction that starts with a read cannot become the writer
        // after another transaction has written.
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => "update audit set seq = seq where false",
    }
}

/// Reads the end of the chain.
fn tip(connection: &mut AnyConnection) -> Result<Tip, Failure> {
    let last: Option<(i64, Vec<u8>)> = audit::table
        .order(audit::chain_seq.desc())
        .select((audit::chain_seq, audit::hash))
        .first(connection)
        .optional()?;
    let Some((sequence, hash)) = last else {
        return Ok(Tip::default());
    };
    let key = sequence.to_string();
    let row = RowRef { table: "audit", key: &key };
    Ok(Tip { sequence, hash: row.array(&hash)? })
}
