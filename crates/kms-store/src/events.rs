//! Transactional outbox: an event is inserted by the transaction that causes it, and read in commit
//! order.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use kms_core::ports::StoreError;
use kms_types::{
    AccountId, DepositId, EventCursor, EventKind, EventStream, RecoveryId, TelegramId, Timestamp,
    TransferId,
};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::dialect::Dialect;
use crate::schema::{event_cursors, events};

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its position.
    pub cursor: EventCursor,
    /// The account that is notified.
    pub account: AccountId,
    /// Who is notified: the account's owner, or the user from whom it was moved.
    pub telegram_id: TelegramId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// The transfer, if it is about one.
    pub transfer: Option<TransferId>,
    /// The external deposit, if it is about one.
    pub deposit: Option<DepositId>,
    /// The recovery, if it is about one.
    pub recovery: Option<RecoveryId>,
    /// The former e-mail address, sealed, which is notified as well.
    pub contact: Option<Vec<u8>>,
}

/// A page of events in commit order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvents {
    /// The readable events, oldest first.
    pub events: Vec<StoredEvent>,
    /// The position of the last event, readable or not, or the start of the page if it is empty.
    pub end: EventCursor,
}

/// The subject of an event besides its account.
pub(crate) enum About {
    /// None.
    Nothing,
    /// A transfer.
    #[cfg(feature = "transfers")]
    Transfer(TransferId),
    /// An external deposit.
    #[cfg(feature = "transfers")]
    Deposit(DepositId),
    /// A recovery.
    Recovery(RecoveryId),
    /// The former e-mail address, sealed.
    Contact(Option<Vec<u8>>),
}

/// An event that is inserted.
#[derive(Insertable)]
#[diesel(table_name = events, treat_none_as_default_value = false)]
pub(crate) struct NewEvent {
    account_id: String,
    at: i64,
    stream: &'static str,
    kind: &'static str,
    transfer_id: Option<String>,
    deposit_id: Option<String>,
    recovery_id: Option<String>,
    contact: Option<Vec<u8>>,
    telegram_id: Option<i64>,
}

impl NewEvent {
    pub(crate) fn new(account: AccountId, at: Timestamp, kind: EventKind, about: About) -> Self {
        type Ids = (Option<String>, Option<String>, Option<String>, Option<Vec<u8>>);
        let (transfer_id, deposit_id, recovery_id, contact): Ids = match about {
            About::Nothing => (None, None, None, None),
            #[cfg(feature = "transfers")]
            About::Transfer(id) => (Some(id.to_string()), None, None, None),
            #[cfg(feature = "transfers")]
            About::Deposit(id) => (None, Some(id.to_string()), None, None),
            About::Recovery(id) => (None, None, Some(id.to_string()), None),
            About::Contact(sealed) => (None, None, None, sealed),
        };
        let (account_id, at) = (account.to_string(), at.0);
        let (stream, kind) = (kind.stream().as_str(), kind.as_str());
        let telegram_id = None;
        Self {
            account_id,
            at,
            stream,
            kind,
            transfer_id,
            deposit_id,
            recovery_id,
            contact,
            telegram_id,
        }
    }
}

/// Inserts an event within the transaction that causes it.
pub(crate) fn append(
    connection: &mut AnyConnection,
    account: AccountId,
    at: Timestamp,
    kind: EventKind,
    about: About,
) -> Result<(), Failure> {
    append_to(connection, None, account, at, kind, about)
}

/// Like [`append`], to notify this user instead of the owner.
pub(crate) fn append_to(
    connection: &mut AnyConnection,
    user: Option<TelegramId>,
    account: AccountId,
    at: Timestamp,
    kind: EventKind,
    about: About,
) -> Result<(), Failure> {
    let telegram_id = user.map(TelegramId::as_i64);
    let event = NewEvent { telegram_id, ..NewEvent::new(account, at, kind, about) };
    diesel::insert_into(events::table).values(event).execute(connection)?;
    Ok(())
}

/// Whether the transfer has an event of this kind.
#[cfg(feature = "transfers")]
pub(crate) fn exists(
    connection: &mut AnyConnection,
    kind: EventKind,
    transfer: TransferId,
) -> Result<bool, Failure> {
    let found: i64 = events::table
        .filter(events::transfer_id.assume_not_null().eq(transfer.to_string()))
        .filter(events::kind.eq(kind.as_str()))
        .count()
        .get_result(connection)?;
    Ok(found > 0)
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    tx: i64,
    #[diesel(sql_type = Text)]
    account_id: String,
    #[diesel(sql_type = BigInt)]
    telegram_id: i64,
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Nullable<Text>)]
    transfer_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    deposit_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    recovery_id: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    contact: Option<Vec<u8>>,
}

impl Row {
    fn cursor(&self) -> EventCursor {
        EventCursor { transaction: self.tx, sequence: self.seq }
    }

    fn parse(self) -> Result<StoredEvent, StoreError> {
        let key = self.seq.to_string();
        let row = RowRef { table: "events", key: &key };
        Ok(StoredEvent {
            cursor: self.cursor(),
            account: row.parse(&self.account_id)?,
            telegram_id: row.convert(self.telegram_id)?,
            at: row.convert(self.at)?,
            kind: row.parse(&self.kind)?,
            transfer: row.parse_some(self.transfer_id.as_ref())?,
            deposit: row.parse_some(self.deposit_id.as_ref())?,
            recovery: row.parse_some(self.recovery_id.as_ref())?,
            contact: self.contact,
        })
    }
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    answer: bool,
}

/// A condition on an event: every transaction that could insert an earlier one has ended.
fn settled(dialect: Dialect) -> &'static str {
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            "e.tx < cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint)"
        }
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => "true",
    }
}

#[cfg(feature = "postgres")]
fn adopt_restored(connection: &mut diesel::PgConnection) -> Result<(), Failure> {
    let mut run = |statement| diesel::sql_query(statement).execute(connection);
    // Serializes servers that start at the same time.
    run("lock table event_cursors in exclusive mode")?;
    // The updates may touch many rows.
    run("set local statement_timeout = 0")?;
    let restored: Answer = diesel::sql_query(
        "with snapshot as ( \
         select cast(cast(pg_snapshot_xmax(pg_current_snapshot()) as text) as bigint) as next) \
         select exists (select 1 from events, snapshot \
         where stream = 'security' and tx >= next) \
         or exists (select 1 from events, snapshot \
         where stream = 'payments' and tx >= next) \
         or exists (select 1 from event_cursors, snapshot where tx >= next) as answer",
    )
    .get_result(connection)?;
    if !restored.answer {
        return Ok(());
    }
    tracing::warn!(
        event = "events_reordered",
        "events of another PostgreSQL cluster reordered before those of this one"
    );
    let mut run = |statement| diesel::sql_query(statement).execute(connection);
    // Before the first unacknowledged event: some may be delivered twice, none is skipped.
    run("update event_cursors set tx = 0, seq = coalesce( \
         (select min(e.seq) - 1 from events e \
         where (e.tx, e.seq) > (event_cursors.tx, event_cursors.seq)), \
         (select max(seq) from events), 0)")?;
    run("update events set tx = 0 where tx > 0")?;
    Ok(())
}

impl Database {
    /// Lists the events of a stream after `cursor`, in commit order, oldest first. An unreadable
    /// row is logged and left out.
    ///
    /// In PostgreSQL a sequence is not in commit order: a transaction that took a lower number may
    /// commit later. So events are ordered by transaction id, and those of transactions younger
    /// than the oldest running one are withheld.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn events_after(
        &self,
        stream: EventStream,
        cursor: EventCursor,
        limit: u32,
    ) -> Result<StoredEvents, StoreError> {
        let settled = settled(self.dialect);
        let query = format!(
            "select e.seq, e.tx, e.account_id, \
             coalesce(e.telegram_id, a.telegram_id) as telegram_id, e.at, e.kind, e.transfer_id, \
             e.deposit_id, e.recovery_id, e.contact \
             from events e join accounts a on a.id = e.account_id \
             where e.stream = $1 and (e.tx, e.seq) > ($2, $3) and {settled} \
             order by e.tx, e.seq limit $4"
        );
        self.blocking(move |connection| {
            let rows: Vec<Row> = diesel::sql_query(query)
                .bind::<Text, _>(stream.as_str())
                .bind::<BigInt, _>(cursor.transaction)
                .bind::<BigInt, _>(cursor.sequence)
                .bind::<BigInt, _>(i64::from(limit))
                .load(connection)?;
            let end = rows.last().map_or(cursor, Row::cursor);
            let mut events = Vec::with_capacity(rows.len());
            for row in rows {
                let cursor = row.cursor();
                match row.parse() {
                    Ok(event) => events.push(event),
                    // Later events are delivered even if this row is never repaired.
                    Err(error) => tracing::error!(
                        %cursor,
                        %error,
                        event = "row_unreadable",
                        "unreadable event"
                    ),
                }
            }
            Ok(StoredEvents { events, end })
        })
        .await
    }

    /// Records that the consumer of a stream has processed everything up to `cursor`, which never
    /// moves back. Returns `false` and records nothing for a cursor beyond the newest event, which
    /// would skip events to come.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn acknowledge_events(
        &self,
        consumer: &'static str,
        stream: EventStream,
        cursor: EventCursor,
    ) -> Result<bool, StoreError> {
        if cursor == EventCursor::default() {
            return Ok(true);
        }
        let reached = format!(
            "select exists (select 1 from events e \
             where e.stream = $1 and (e.tx, e.seq) >= ($2, $3) and {}) as answer",
            settled(self.dialect)
        );
        self.blocking(move |connection| {
            let reached: Answer = diesel::sql_query(reached)
                .bind::<Text, _>(stream.as_str())
                .bind::<BigInt, _>(cursor.transaction)
                .bind::<BigInt, _>(cursor.sequence)
                .get_result(connection)?;
            if !reached.answer {
                return Ok(false);
            }
            diesel::sql_query(
                "insert into event_cursors (consumer, tx, seq) values ($1, $2, $3) \
                 on conflict (consumer) do update set tx = excluded.tx, seq = excluded.seq \
                 where (event_cursors.tx, event_cursors.seq) < (excluded.tx, excluded.seq)",
            )
            .bind::<Text, _>(consumer)
            .bind::<BigInt, _>(cursor.transaction)
            .bind::<BigInt, _>(cursor.sequence)
            .execute(connection)?;
            Ok(true)
        })
        .await
    }

    /// Repairs the order of events after a restore into another PostgreSQL cluster. There,
    /// transaction ids start again: restored events would be withheld until the new ids reach the
    /// old ones, and new events would lie before the cursor and never be delivered. The restored
    /// events become the oldest, in the order of their sequence. Call this before events are
    /// written.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn adopt_restored_events(&self) -> Result<(), StoreError> {
        self.without_deadline(|connection| match connection {
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(connection) => connection.transaction(adopt_restored),
            #[cfg(feature = "sqlite")]
            AnyConnection::Sqlite(_) => Ok(()),
        })
        .await
    }

    /// Returns the last cursor that the consumer acknowledged.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn acknowledged_events(
        &self,
        consumer: &'static str,
    ) -> Result<EventCursor, StoreError> {
        self.blocking(move |connection| {
            let row: Option<(i64, i64)> = event_cursors::table
                .find(consumer)
                .select((event_cursors::tx, event_cursors::seq))
                .first(connection)
                .optional()?;
            let (transaction, sequence) = row.unwrap_or_default();
            Ok(EventCursor { transaction, sequence })
        })
        .await
    }
}
