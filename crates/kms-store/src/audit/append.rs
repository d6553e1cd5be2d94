//! Appending with group commit: records that arrive during a transaction are written together by
//! the next one, and share its fsync.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use kms_core::audit::{Action, AuditRecord, Details, Entry, Tip};
use kms_core::ports::{AuditLog, AuditedAccount, StoreError};
use kms_core::{ServerKeySet, ServerKeys};
use kms_types::{AccountId, Timestamp};
use tokio::sync::oneshot;

use super::accounts::state_revision;
use super::head;
use crate::audit_queue::Waiting;
use crate::database::{AnyConnection, Database, Failure, execute_on_either, unavailable};
use crate::dialect::Dialect;
use crate::rate_limits::RateLimit;
use crate::schema::audit;

#[cfg(feature = "postgres")]
mod at_once;

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
        // Of a token its name, of a row the row.
        let about = if record.action == Action::Authenticate {
            record.caller.actor.clone()
        } else if record.action == Action::ReadRow {
            record.details.to_string()
        } else {
            String::new()
        };
        let key = format!("audit:{account:?}:{telegram_id:?}:{action}:{outcome:?}:{about}");
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

    async fn count_outcomes(
        &self,
        actions: &[Action],
        outcome: &'static str,
    ) -> Result<usize, StoreError> {
        let mut wanted = Vec::new();
        for action in actions {
            wanted.push((action.as_str(), action.subject()));
        }
        self.blocking(move |connection| {
            let mut count = 0;
            for (action, subject) in wanted {
                let found: i64 = audit::table
                    .filter(audit::subject.eq(subject))
                    .filter(audit::action.eq(action))
                    .filter(audit::phase.eq("outcome"))
                    .filter(audit::outcome.eq(outcome))
                    .count()
                    .get_result(connection)?;
                count += usize::try_from(found).unwrap_or_default();
            }
            Ok(count)
        })
        .await
    }

    async fn newest_details(&self, action: Action) -> Result<Option<Details>, StoreError> {
        self.blocking(move |connection| {
            let found: Option<String> = audit::table
                .filter(audit::subject.eq(action.subject()))
                .filter(audit::action.eq(action.as_str()))
                .filter(audit::outcome.eq("ok"))
                .order(audit::seq.desc())
                .select(audit::details)
                .first(connection)
                .optional()?;
            Ok(found.and_then(|details| details.parse().ok()))
        })
        .await
    }

    async fn audited_account(
        &self,
        account: AccountId,
        since: Timestamp,
        at_most: usize,
    ) -> Result<AuditedAccount, StoreError> {
        self.read_audited_account(account, since, at_most).await
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
        let (keys, dialect, last) = (Arc::clone(&self.keys), self.dialect, self.audit_queue.last());
        let written = self
            .blocking(move |connection| append(connection, dialect, &keys, last, &records))
            .await
            .map(|tip| self.audit_queue.set_last(tip))
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
        StoreError::Tampered { table, key } => StoreError::Tampered { table, key: key.clone() },
        StoreError::Unavailable { .. }
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
    details: String,
    chain_seq: i64,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
    key_id: i32,
    keyed_hash: Vec<u8>,
}

impl NewRow {
    fn new(record: &AuditRecord, tip: &mut Tip, audit_keys: &ServerKeySet) -> Self {
        let (subject, account) = (record.action.subject(), record.account.map(|id| id.to_string()));
        let telegram_id = record.telegram_id.map(i64::from);
        let (phase, outcome) = (record.phase.as_str(), record.phase.outcome());
        let (action, caller) = (record.action.as_str(), &record.caller);
        let details = record.details.to_string();
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
            details: &details,
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
            details,
            chain_seq: link.sequence,
            prev_hash: link.previous.to_vec(),
            hash: link.hash.to_vec(),
            key_id: link.mac.key.as_u8().into(),
            keyed_hash: link.mac.tag.to_vec(),
        }
    }
}

/// Appends the records after the head of the chain, which must contain the row `last` that this
/// process wrote last. Returns the new end.
fn append(
    connection: &mut AnyConnection,
    dialect: Dialect,
    keys: &ServerKeys,
    last: Tip,
    records: &[AuditRecord],
) -> Result<Tip, Failure> {
    let mut stated = Vec::new();
    for record in records {
        stated.push(state_revision(connection, record)?);
    }
    let rows = |tip: &mut Tip| -> Vec<_> {
        stated.iter().map(|record| NewRow::new(record, tip, &keys.audit)).collect()
    };
    #[cfg(feature = "postgres")]
    if let AnyConnection::Postgres(connection) = &mut *connection {
        let mut tip = last;
        let rows = rows(&mut tip);
        if at_once::append(connection, last, tip, &rows)? {
            return Ok(tip);
        }
        // Another server has appended since.
    }
    connection.transaction(|connection| {
        let mut tip = head::lock(connection, dialect)?;
        head::check_continues(connection, tip, last)?;
        let rows = rows(&mut tip);
        execute_on_either!(connection, diesel::insert_into(audit::table).values(rows))?;
        head::advance(connection, tip)?;
        Ok(tip)
    })
}
