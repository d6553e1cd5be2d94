//! Recoveries: at most one open per account, one row that each step replaces.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use kms_core::ports::{RecoveryStore, StoreError};
use kms_core::recovery::{Recovery, RecoveryCode, RecoveryStage};
use kms_core::{AlarmContext, ServerKeys, integrity_alarm};
use kms_types::{AccountId, EventKind, RecoveryId, RecoveryStep, TelegramId, Timestamp};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, inserted};
use crate::events::{self, About};
use crate::schema::{accounts, recoveries};
use crate::server_keys::{BATCH, StaleMac};

pub(crate) const OPEN: &str = "stage in ('waiting', 'ready')";

#[derive(Clone, Queryable, QueryableByName, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = recoveries, treat_none_as_null = true)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    account_id: String,
    #[diesel(sql_type = Text)]
    stage: String,
    #[diesel(sql_type = Text)]
    code: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    code_until: Option<i64>,
    #[diesel(sql_type = Integer)]
    code_tries: i32,
    #[diesel(sql_type = Integer)]
    codes_key: i32,
    #[diesel(sql_type = Nullable<BigInt>)]
    moves_to: Option<i64>,
    #[diesel(sql_type = BigInt)]
    requested_at: i64,
    #[diesel(sql_type = BigInt)]
    ready_at: i64,
    #[diesel(sql_type = BigInt)]
    expires_at: i64,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Integer)]
    mac_key: i32,
    #[diesel(sql_type = Binary)]
    mac: Vec<u8>,
}

impl Row {
    fn new(recovery: &Recovery, keys: &ServerKeys) -> Self {
        let mac = with_mac_fields(recovery, |fields| keys.row.mac(fields));
        let (code, code_until, code_tries) = code_parts(recovery.code);
        Self {
            id: recovery.id.to_string(),
            account_id: recovery.account.to_string(),
            stage: recovery.written.as_str().to_owned(),
            code: code.to_owned(),
            code_until: code_until.map(|until| until.0),
            code_tries: code_tries.into(),
            codes_key: recovery.codes_key.as_u8().into(),
            moves_to: recovery.moves_to.map(TelegramId::as_i64),
            requested_at: recovery.requested_at.0,
            ready_at: recovery.ready_at.0,
            expires_at: recovery.expires_at.0,
            version: recovery.version,
            mac_key: mac.key.as_u8().into(),
            mac: mac.tag.to_vec(),
        }
    }

    fn parse(self, keys: &ServerKeys) -> Result<Recovery, StoreError> {
        let row = RowRef { table: "recoveries", key: &self.id };
        let code = match (self.code.as_str(), self.code_until, self.code_tries) {
            ("none", None, 0) => RecoveryCode::None,
            ("confirmed", None, 0) => RecoveryCode::Confirmed,
            ("sent", Some(until), tries) => {
                RecoveryCode::Sent { until: Timestamp(until), tries: row.convert(tries)? }
            }
            (other, ..) => return Err(row.corrupt(format!("unknown code {other}"))),
        };
        let recovery = Recovery {
            id: row.parse(&self.id)?,
            account: row.parse(&self.account_id)?,
            written: row.parse(&self.stage)?,
            code,
            codes_key: row.key_id(self.codes_key)?,
            moves_to: self.moves_to.map(|to| row.convert(to)).transpose()?,
            requested_at: Timestamp(self.requested_at),
            ready_at: Timestamp(self.ready_at),
            expires_at: Timestamp(self.expires_at),
            version: self.version,
        };
        let mac = row.mac(self.mac_key, &self.mac)?;
        let verified = with_mac_fields(&recovery, |fields| keys.row.verify(&mac, fields));
        verified.map_err(|error| row.not_verified(error))?;
        Ok(recovery)
    }
}

/// Returns the next recoveries whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Row> = recoveries::table
        .filter(recoveries::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(recoveries::id.gt(after))
        .order(recoveries::id)
        .limit(BATCH)
        .select(Row::as_select())
        .load(connection)?;
    let stale = |row: Row| {
        let (key, old) = (row.id.clone(), row.mac.clone());
        let new = row
            .parse(keys)
            .map(|recovery| with_mac_fields(&recovery, |fields| keys.row.mac(fields)));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

/// Covers all columns: an attacker who can write to the table can neither shorten a wait nor reopen
/// a recovery.
fn with_mac_fields<T>(recovery: &Recovery, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    let (code, code_until, code_tries) = code_parts(recovery.code);
    let code_until = code_until.unwrap_or(Timestamp(-1)).0.to_be_bytes();
    let numbers = (
        [code_tries],
        [recovery.codes_key.as_u8()],
        recovery.requested_at.0.to_be_bytes(),
        recovery.ready_at.0.to_be_bytes(),
        recovery.expires_at.0.to_be_bytes(),
        recovery.version.to_be_bytes(),
    );
    let mut fields: Vec<&[u8]> = vec![
        b"recoveries",
        recovery.id.as_bytes(),
        recovery.account.as_bytes(),
        recovery.written.as_str().as_bytes(),
        code.as_bytes(),
        &code_until,
        &numbers.0,
        &numbers.1,
        &numbers.2,
        &numbers.3,
        &numbers.4,
        &numbers.5,
    ];
    let moves_to = recovery.moves_to.map(|to| to.as_i64().to_be_bytes());
    if let Some(to) = &moves_to {
        fields.extend([b"moves_to".as_slice(), to]);
    }
    work(&fields)
}

fn code_parts(code: RecoveryCode) -> (&'static str, Option<Timestamp>, u8) {
    match code {
        RecoveryCode::Sent { until, tries } => (code.as_str(), Some(until), tries),
        RecoveryCode::None | RecoveryCode::Confirmed => (code.as_str(), None, 0),
    }
}

fn find(connection: &mut AnyConnection, id: RecoveryId) -> Result<Option<Row>, Failure> {
    let row = recoveries::table.find(id.to_string()).select(Row::as_select());
    Ok(row.first(connection).optional()?)
}

fn open_of(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<Option<Recovery>, Failure> {
    let row: Option<Row> =
        diesel::sql_query(format!("select * from recoveries where account_id = $1 and {OPEN}"))
            .bind::<Text, _>(account.to_string())
            .get_result(connection)
            .optional()?;
    Ok(row.map(|row| row.parse(keys)).transpose()?)
}

/// Replaces the previous step of a recovery, within a transaction that must be rolled back if this
/// returns `false`.
pub(crate) fn update(
    connection: &mut AnyConnection,
    recovery: &Recovery,
    step: Option<RecoveryStep>,
    at: Timestamp,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    let before = recoveries::table
        .filter(recoveries::id.eq(recovery.id.to_string()))
        .filter(recoveries::account_id.eq(recovery.account.to_string()))
        .filter(recoveries::version.eq(recovery.version - 1));
    let row = Row::new(recovery, keys);
    if diesel::update(before).set(row).execute(connection)? != 1 {
        return Ok(false);
    }
    if let Some(step) = step {
        append_event(connection, recovery, step, at)?;
    }
    Ok(true)
}

/// Cancels the open recovery of an account whose password was verified: it was requested by another
/// party, or is not needed any more.
fn cancel_open(
    connection: &mut AnyConnection,
    account: AccountId,
    now: Timestamp,
    keys: &ServerKeys,
) -> Result<Option<RecoveryId>, Failure> {
    let Some(open) = open_of(connection, account, keys)? else { return Ok(None) };
    let Ok(cancelled) = open.cancelled(now) else { return Ok(None) };
    // `false` if it was completed concurrently.
    let done = update(connection, &cancelled, Some(RecoveryStep::Cancelled), now, keys)?;
    Ok(done.then_some(open.id))
}

/// The recoveries of the account whose rows fail their integrity check.
fn unreadable(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<Vec<Row>, Failure> {
    let rows: Vec<Row> = recoveries::table
        .filter(recoveries::account_id.eq(account.to_string()))
        .select(Row::as_select())
        .load(connection)?;
    Ok(rows.into_iter().filter(|row| row.clone().parse(keys).is_err()).collect())
}

/// Whether a recovery of the account fails its integrity check.
pub(crate) fn has_unreadable(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    Ok(!unreadable(connection, account, keys)?.is_empty())
}

/// Stores the account's recoveries that fail their integrity check as cancelled: that decides
/// nothing, and events refer to them.
pub(crate) fn end_unreadable(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<(), Failure> {
    for row in unreadable(connection, account, keys)? {
        let id = row.id.clone();
        let ended = Recovery {
            id: RowRef { table: "recoveries", key: &id }.parse(&id)?,
            account,
            written: RecoveryStage::Cancelled,
            code: RecoveryCode::None,
            codes_key: keys.codes.current(),
            moves_to: None,
            requested_at: Timestamp(row.requested_at),
            ready_at: Timestamp(row.ready_at),
            expires_at: Timestamp(row.expires_at),
            version: row.version.saturating_add(1),
        };
        diesel::update(recoveries::table.find(&id))
            .set(Row::new(&ended, keys))
            .execute(connection)?;
    }
    Ok(())
}

/// As [`cancel_open`]. A recovery that fails its integrity check is an alarm, and must not keep a
/// correct password or a freeze from being accepted. It is returned as cancelled: the audit has its
/// end then, and it cannot be completed when its row is put right again.
pub(crate) fn cancel_readable(
    connection: &mut AnyConnection,
    account: AccountId,
    now: Timestamp,
    keys: &ServerKeys,
) -> Result<Option<RecoveryId>, Failure> {
    match cancel_open(connection, account, now, keys) {
        Err(Failure::Store(error)) => {
            let context = AlarmContext { account: Some(account), ..AlarmContext::default() };
            integrity_alarm(error, context);
            let id: Option<String> = recoveries::table
                .filter(recoveries::account_id.eq(account.to_string()))
                .filter(recoveries::stage.eq_any(["waiting", "ready"]))
                .select(recoveries::id)
                .first(connection)
                .optional()?;
            Ok(id.and_then(|id| id.parse().ok()))
        }
        other => other,
    }
}

fn append_event(
    connection: &mut AnyConnection,
    recovery: &Recovery,
    step: RecoveryStep,
    at: Timestamp,
) -> Result<(), Failure> {
    let about = About::Recovery(recovery.id);
    if recovery.moves_to.is_none() {
        return events::append(connection, recovery.account, at, EventKind::Recovery(step), about);
    }
    // Who has the wallet now is notified, also if the notice is read after the move.
    let key = recovery.account.to_string();
    let owner: i64 = accounts::table.find(&key).select(accounts::telegram_id).first(connection)?;
    let owner = RowRef { table: "accounts", key: &key }.convert(owner)?;
    let kind = EventKind::Recovery(of_move(step));
    events::append_to(connection, Some(owner), recovery.account, at, kind, about)
}

/// The step of a move that this step of a recovery is.
fn of_move(step: RecoveryStep) -> RecoveryStep {
    match step {
        RecoveryStep::Requested => RecoveryStep::MoveRequested,
        RecoveryStep::Ready => RecoveryStep::MoveReady,
        RecoveryStep::Completed => RecoveryStep::Moved,
        RecoveryStep::Cancelled => RecoveryStep::MoveCancelled,
        RecoveryStep::Expired => RecoveryStep::MoveExpired,
        RecoveryStep::CodeConfirmed
        | RecoveryStep::MoveRequested
        | RecoveryStep::MoveReady
        | RecoveryStep::Moved
        | RecoveryStep::MoveCancelled
        | RecoveryStep::MoveExpired => step,
    }
}

/// Notifies the user from whom the wallet was moved.
pub(crate) fn append_moved(
    connection: &mut AnyConnection,
    recovery: &Recovery,
    user: Option<TelegramId>,
    at: Timestamp,
) -> Result<(), Failure> {
    let (kind, about) = (EventKind::Recovery(RecoveryStep::Moved), About::Recovery(recovery.id));
    events::append_to(connection, user, recovery.account, at, kind, about)
}

#[async_trait]
impl RecoveryStore for Database {
    async fn insert_recovery(&self, recovery: Recovery) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            inserted(connection.transaction(|connection| {
                let row = Row::new(&recovery, &keys);
                diesel::insert_into(recoveries::table).values(row).execute(connection)?;
                append_event(connection, &recovery, RecoveryStep::Requested, recovery.requested_at)
            }))
        })
        .await
    }

    async fn recovery(&self, id: RecoveryId) -> Result<Option<Recovery>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            Ok(find(connection, id)?.map(|row| row.parse(&keys)).transpose()?)
        })
        .await
    }

    async fn open_recovery(&self, account: AccountId) -> Result<Option<Recovery>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| open_of(connection, account, &keys)).await
    }

    async fn update_recovery(
        &self,
        recovery: Recovery,
        step: Option<RecoveryStep>,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| update(connection, &recovery, step, at, &keys))
        })
        .await
    }

    async fn due_recoveries(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Recovery>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let due = "select * from recoveries where \
                (stage = 'waiting' and ready_at <= $1) or (stage = 'ready' and expires_at <= $1) \
                order by ready_at desc, id limit $2 offset $3";
            let (limit, mut read, mut found) = (i64::from(limit), 0, Vec::new());
            loop {
                let rows: Vec<Row> = diesel::sql_query(due)
                    .bind::<BigInt, _>(now.0)
                    .bind::<BigInt, _>(limit)
                    .bind::<BigInt, _>(read)
                    .load(connection)?;
                let is_last = rows.len() < usize::try_from(limit).unwrap_or(usize::MAX);
                found.extend(rows.into_iter().filter_map(|row| readable(row, &keys)));
                // A page of unreadable rows keeps no other from being found.
                if is_last || !found.is_empty() {
                    return Ok(found);
                }
                read += limit;
            }
        })
        .await
    }
}

/// Lists the open recoveries in the order in which they become ready.
pub(crate) fn open(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
) -> Result<Vec<Recovery>, Failure> {
    let open = format!("select * from recoveries where {OPEN} order by ready_at");
    let rows: Vec<Row> = diesel::sql_query(open).load(connection)?;
    Ok(rows.into_iter().filter_map(|row| readable(row, keys)).collect())
}

/// Parses a row. An unreadable one is logged and left out, so that it does not block the others.
fn readable(row: Row, keys: &ServerKeys) -> Option<Recovery> {
    match row.parse(keys) {
        Ok(recovery) => Some(recovery),
        Err(error) => {
            tracing::error!(%error, event = "row_unreadable", "unreadable recovery");
            None
        }
    }
}

impl Database {
    /// Lists the open recoveries in the order in which they become ready.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_recoveries(&self) -> Result<Vec<Recovery>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| open(connection, &keys)).await
    }
}
