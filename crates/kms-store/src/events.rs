//! Events: an outbox that is written with what it tells, and read in commit order.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use kms_core::ports::StoreError;
use kms_core::recovery::RecoveryStep;
use kms_types::{
    AccountId, EventCursor, IncomingId, RecoveryId, TelegramId, Timestamp, TransferId, text_table,
};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Dialect, Failure};
use crate::schema::{event_cursors, events};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredEventKind {
    /// A wallet was made.
    AccountCreated,
    /// The password was changed by its owner.
    PasswordChanged,
    /// The key was handed out, to somebody with the password.
    KeyExported,
    /// A recovery moved on.
    Recovery(RecoveryStep),
    /// Another e-mail address was asked for.
    EmailChangeRequested,
    /// The account has another e-mail address, or none any more.
    EmailChanged,
    /// A higher spending limit was asked for, and waits.
    LimitRaiseAsked,
    /// A transfer that the account sends moved on.
    TransferChanged,
    /// Money came to the account.
    Received,
    /// The account received a payment that this system did not send.
    DepositReceived,
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place.
    pub cursor: EventCursor,
    /// Whom it concerns.
    pub account: AccountId,
    /// Whom it concerns, as Telegram knows them.
    pub telegram_id: TelegramId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: StoredEventKind,
    /// The transfer it is about.
    pub transfer: Option<TransferId>,
    /// The payment from outside that it is about.
    pub deposit: Option<IncomingId>,
    /// The recovery that it is about.
    pub recovery: Option<RecoveryId>,
    /// The e-mail address, sealed, that was the account's before it.
    pub contact: Option<Vec<u8>>,
}

/// Events in commit order, as far as one query went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvents {
    /// Those that could be read, oldest first.
    pub events: Vec<StoredEvent>,
    /// The place of the last one, readable or not; where the query began if there was none.
    pub end: EventCursor,
}

text_table! {
    StoredEventKind {
        AccountCreated = "account_created",
        PasswordChanged = "password_changed",
        KeyExported = "key_exported",
        Recovery(RecoveryStep::Requested) = "recovery_requested",
        Recovery(RecoveryStep::CodeConfirmed) = "recovery_confirmed",
        Recovery(RecoveryStep::Ready) = "recovery_ready",
        Recovery(RecoveryStep::Completed) = "recovered",
        Recovery(RecoveryStep::Cancelled) = "recovery_cancelled",
        Recovery(RecoveryStep::Expired) = "recovery_expired",
        EmailChangeRequested = "email_change_requested",
        EmailChanged = "email_changed",
        LimitRaiseAsked = "limit_raise_asked",
        TransferChanged = "transfer_changed",
        Received = "received",
        DepositReceived = "deposit_received",
    }
}

/// What an event is about, beside its account.
pub(crate) enum About {
    /// Nothing else.
    Nothing,
    /// A transfer.
    #[cfg(feature = "transfers")]
    Transfer(TransferId),
    /// A payment from outside.
    #[cfg(feature = "transfers")]
    Deposit(IncomingId),
    /// A recovery.
    Recovery(RecoveryId),
    /// The e-mail address, sealed, that was the account's before it.
    Contact(Option<Vec<u8>>),
}

/// Writes an event inside the transaction of what it tells.
pub(crate) fn append(
    connection: &mut AnyConnection,
    account: AccountId,
    at: Timestamp,
    kind: StoredEventKind,
    about: About,
) -> Result<(), Failure> {
    type Ids = (Option<String>, Option<String>, Option<String>, Option<Vec<u8>>);
    let (transfer, deposit, recovery, contact): Ids = match about {
        About::Nothing => (None, None, None, None),
        #[cfg(feature = "transfers")]
        About::Transfer(id) => (Some(id.to_string()), None, None, None),
        #[cfg(feature = "transfers")]
        About::Deposit(id) => (None, Some(id.to_string()), None, None),
        About::Recovery(id) => (None, None, Some(id.to_string()), None),
        About::Contact(sealed) => (None, None, None, sealed),
    };
    diesel::insert_into(events::table)
        .values((
            events::account_id.eq(account.to_string()),
            events::at.eq(at.0),
            events::kind.eq(kind.as_str()),
            events::transfer_id.eq(transfer),
            events::deposit_id.eq(deposit),
            events::recovery_id.eq(recovery),
            events::contact.eq(contact),
        ))
        .execute(connection)?;
    Ok(())
}

/// Whether there is such an event of the transfer.
#[cfg(feature = "transfers")]
pub(crate) fn was_told(
    connection: &mut AnyConnection,
    kind: StoredEventKind,
    transfer: TransferId,
) -> Result<bool, Failure> {
    let told: i64 = events::table
        .filter(events::transfer_id.assume_not_null().eq(transfer.to_string()))
        .filter(events::kind.eq(kind.as_str()))
        .count()
        .get_result(connection)?;
    Ok(told > 0)
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
        let at = RowRef { table: "events", key: &key };
        Ok(StoredEvent {
            cursor: self.cursor(),
            account: at.parse(&self.account_id)?,
            telegram_id: at.convert(self.telegram_id)?,
            at: Timestamp(self.at),
            kind: at.parse(&self.kind)?,
            transfer: at.parse_some(self.transfer_id.as_ref())?,
            deposit: at.parse_some(self.deposit_id.as_ref())?,
            recovery: at.parse_some(self.recovery_id.as_ref())?,
            contact: self.contact,
        })
    }
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    answer: bool,
}

/// Whether no event can appear before this one any more.
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
    // Servers that start together come one after the other.
    run("lock table event_cursors in exclusive mode")?;
    // There may be many rows.
    run("set local statement_timeout = 0")?;
    let restored: Answer = diesel::sql_query(
        "with snapshot as ( \
         select cast(cast(pg_snapshot_xmax(pg_current_snapshot()) as text) as bigint) as next) \
         select exists (select 1 from events, snapshot where tx >= next) \
         or exists (select 1 from event_cursors, snapshot where tx >= next) as answer",
    )
    .get_result(connection)?;
    if !restored.answer {
        return Ok(());
    }
    tracing::warn!("events from another PostgreSQL cluster are put before those of this one");
    let mut run = |statement| diesel::sql_query(statement).execute(connection);
    // Before the first that is not acknowledged: some may be told twice, none is skipped.
    run("update event_cursors set tx = 0, seq = coalesce( \
         (select min(e.seq) - 1 from events e \
         where (e.tx, e.seq) > (event_cursors.tx, event_cursors.seq)), \
         (select max(seq) from events), 0)")?;
    run("update events set tx = 0 where tx > 0")?;
    Ok(())
}

impl Database {
    /// The events after `cursor`, in commit order, oldest first. One whose row can not be read is
    /// logged and left out.
    ///
    /// A sequence is not commit order on PostgreSQL: a transaction that took a lower number may
    /// commit later. So the order is that of transactions, and events of one that is younger than
    /// the oldest running one wait.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn events_after(
        &self,
        cursor: EventCursor,
        limit: u32,
    ) -> Result<StoredEvents, StoreError> {
        let settled = settled(self.dialect);
        let query = format!(
            "select e.seq, e.tx, e.account_id, a.telegram_id, e.at, e.kind, e.transfer_id, \
             e.deposit_id, e.recovery_id, e.contact from events e join accounts a on a.id = e.account_id \
             where (e.tx, e.seq) > ($1, $2) and {settled} order by e.tx, e.seq limit $3"
        );
        self.blocking(move |connection| {
            let rows: Vec<Row> = diesel::sql_query(query)
                .bind::<BigInt, _>(cursor.transaction)
                .bind::<BigInt, _>(cursor.sequence)
                .bind::<BigInt, _>(i64::from(limit))
                .load(connection)?;
            let end = rows.last().map_or(cursor, Row::cursor);
            let mut events = Vec::with_capacity(rows.len());
            for row in rows {
                let place = row.cursor();
                match row.parse() {
                    Ok(event) => events.push(event),
                    // Those after it must not wait for somebody to mend it.
                    Err(error) => tracing::error!(event = %place, %error, "unreadable event"),
                }
            }
            Ok(StoredEvents { events, end })
        })
        .await
    }

    /// Remembers that the consumer has everything up to `cursor`. Never goes back. `false`, and
    /// nothing is remembered, for a cursor beyond the newest event: it would skip what is still to
    /// come.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn acknowledge_events(
        &self,
        consumer: &'static str,
        cursor: EventCursor,
    ) -> Result<bool, StoreError> {
        if cursor == EventCursor::default() {
            return Ok(true);
        }
        let reached = format!(
            "select exists (select 1 from events e \
             where (e.tx, e.seq) >= ($1, $2) and {}) as answer",
            settled(self.dialect)
        );
        self.blocking(move |connection| {
            let reached: Answer = diesel::sql_query(reached)
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

    /// Puts right what a restore into another PostgreSQL cluster leaves. There transaction numbers
    /// begin again, so that restored events would be told only when the new numbers reach the old
    /// ones, and new events never, because they lie before the cursor. The restored ones become
    /// the oldest, in the order of their sequence. Call it before events are written.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn adopt_restored_events(&self) -> Result<(), StoreError> {
        self.blocking(|connection| match connection {
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(connection) => connection.transaction(adopt_restored),
            #[cfg(feature = "sqlite")]
            AnyConnection::Sqlite(_) => Ok(()),
        })
        .await
    }

    /// Up to where the consumer has everything.
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
