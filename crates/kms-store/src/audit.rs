//! The audit table: a hash chain, only appended to and read.

mod accounts;
mod append;
mod head;
mod rows;
#[cfg(feature = "transfers")]
mod signatures;
mod verify;

#[cfg(feature = "transfers")]
pub(crate) use self::accounts::changed_subjects;
pub(crate) use self::accounts::{
    newest_details, newest_revision, newest_revision_in, newest_revision_of,
};
pub use self::rows::alarms_recorded;
#[cfg(feature = "transfers")]
pub(crate) use self::signatures::{WAS_SIGNED, sent_since, signatures, was_signed};
pub use self::verify::AuditError;

use std::collections::{BTreeMap, HashSet};

use diesel::prelude::*;
use kms_core::RowMac;
use kms_core::audit::{Chaining, Entry, Link};
use kms_core::ports::StoreError;
use kms_types::{AccountId, RecoveryId, TelegramId, Timestamp};

use crate::database::Database;
use crate::schema::audit;

/// A record of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its position in the table, which may have gaps.
    pub sequence: i64,
    /// When it was written.
    pub at: Timestamp,
    /// The API token, or the operator's command.
    pub actor: String,
    /// The id of the request, as in the logs.
    pub request_id: String,
    /// The purpose.
    pub action: String,
    /// The object of the action, if it is not the account.
    pub subject: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The Telegram id of its owner.
    pub telegram_id: Option<i64>,
    /// `intent`, `outcome` or `alarm`.
    pub phase: String,
    /// The result, for an outcome.
    pub outcome: Option<String>,
    /// The text of its [`Details`](kms_core::audit::Details).
    pub details: String,
    /// Its link in the chain.
    pub chaining: Chaining,
}

impl AuditRow {
    /// The fields that its hash covers.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            at: self.at,
            actor: &self.actor,
            request_id: &self.request_id,
            action: &self.action,
            subject: self.subject.as_deref(),
            account: self.account.as_deref(),
            telegram_id: self.telegram_id,
            phase: &self.phase,
            outcome: self.outcome.as_deref(),
            details: &self.details,
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit)]
struct Columns {
    seq: i64,
    at: i64,
    actor: String,
    request_id: String,
    action: String,
    subject: Option<String>,
    account_id: Option<String>,
    telegram_id: Option<i64>,
    phase: String,
    outcome: Option<String>,
    details: String,
    chain_seq: i64,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
    key_id: i32,
    keyed_hash: Vec<u8>,
}

impl From<Columns> for AuditRow {
    fn from(columns: Columns) -> Self {
        let chaining = link(&columns).map_or(Chaining::Malformed, Chaining::Linked);
        Self {
            sequence: columns.seq,
            at: Timestamp(columns.at),
            actor: columns.actor,
            request_id: columns.request_id,
            action: columns.action,
            subject: columns.subject,
            account: columns.account_id,
            telegram_id: columns.telegram_id,
            phase: columns.phase,
            outcome: columns.outcome,
            details: columns.details,
            chaining,
        }
    }
}

/// `None` for a malformed link, which must not fail the query: verification reports the row.
fn link(columns: &Columns) -> Option<Link> {
    let key = u8::try_from(columns.key_id).ok()?.try_into().ok()?;
    let mac = RowMac { key, tag: columns.keyed_hash.as_slice().try_into().ok()? };
    let previous = columns.prev_hash.as_slice().try_into().ok()?;
    let hash = columns.hash.as_slice().try_into().ok()?;
    Some(Link { sequence: columns.chain_seq, previous, hash, mac })
}

impl Database {
    /// Lists the records after this position, oldest first.
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
                .select(Columns::as_select())
                .load(connection)?;
            Ok(rows.into_iter().map(AuditRow::from).collect())
        })
        .await
    }

    /// Returns the recoveries that were requested with the API token of this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recoveries_requested_by(
        &self,
        token: &str,
    ) -> Result<HashSet<RecoveryId>, StoreError> {
        let token = token.to_owned();
        self.blocking(move |connection| {
            let ids: Vec<Option<String>> = audit::table
                .filter(audit::action.eq("request_recovery"))
                .filter(audit::actor.eq(token))
                .filter(audit::outcome.eq("ok"))
                .select(audit::subject)
                .load(connection)?;
            Ok(ids.into_iter().flatten().filter_map(|id| id.parse().ok()).collect())
        })
        .await
    }

    /// Lists the records of an account after this position, oldest first: those with its id, and
    /// those with its owner's Telegram id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_of(
        &self,
        account: Option<AccountId>,
        telegram_id: Option<TelegramId>,
        sequence: i64,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.blocking(move |connection| {
            let account = account.map(|id| id.to_string());
            let telegram_id = telegram_id.map(i64::from);
            let whose = audit::account_id.eq(account).or(audit::telegram_id.eq(telegram_id));
            let rows: Vec<Columns> = audit::table
                .filter(audit::seq.gt(sequence))
                .filter(whose)
                .order(audit::seq)
                .limit(limit.into())
                .select(Columns::as_select())
                .load(connection)?;
            Ok(rows.into_iter().map(AuditRow::from).collect())
        })
        .await
    }

    /// Returns the newest records of an account, at most this many, oldest first: those with its
    /// id, and those with its owner's Telegram id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn newest_audit_of(
        &self,
        account: AccountId,
        owner: TelegramId,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.blocking(move |connection| {
            let newest = || {
                let rows = audit::table.order(audit::seq.desc()).limit(limit.into());
                rows.select(Columns::as_select())
            };
            // One index each: a condition with OR would read and sort all records of the account.
            let of_account: Vec<Columns> =
                newest().filter(audit::account_id.eq(account.to_string())).load(connection)?;
            let of_owner: Vec<Columns> =
                newest().filter(audit::telegram_id.eq(i64::from(owner))).load(connection)?;
            let both = of_account.into_iter().chain(of_owner);
            let rows: BTreeMap<i64, Columns> = both.map(|row| (row.seq, row)).collect();
            let surplus = rows.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(rows.into_values().skip(surplus).map(AuditRow::from).collect())
        })
        .await
    }
}
