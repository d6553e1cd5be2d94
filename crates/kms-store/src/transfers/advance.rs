//! Progress of a signed transfer, with its events.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_chain::ports::Progress;
use kms_chain::state::{self, Change};
use kms_chain::transfer::{Transfer, TransferState, WaitReason};
use kms_types::{Timestamp, TransferId};

use super::row::to_i64;
use super::{checks, find_row, notify_sender, step};
#[cfg(feature = "postgres")]
use crate::database::cached_query;
use crate::database::{AnyConnection, Failure};
use crate::dialect::Dialect;
use crate::schema::{signed_transactions, transfer_checks, transfer_waits, transfers};

pub(super) fn advance(
    connection: &mut AnyConnection,
    dialect: Dialect,
    id: TransferId,
    progress: Progress,
    now: Timestamp,
) -> Result<bool, Failure> {
    let (key, change) = (id.to_string(), progress.change());
    match progress {
        Progress::Broadcast { check_at } => broadcast(connection, dialect, &key, check_at),
        Progress::Replaced { tx_hash, block } => {
            notified(connection, id, change, now, |connection, transfer| {
                if !record_sent(connection, &key, tx_hash, block, now)? {
                    return Ok(false);
                }
                show_last_sent(connection, &key)?;
                end_wait(connection, &key)?;
                checks::schedule(connection, transfer, now.plus(Duration::from_secs(1)))?;
                Ok(true)
            })
        }
        Progress::Waiting(reason) => notified(connection, id, change, now, |connection, _| {
            record_wait(connection, &key, reason, now)
        }),
        Progress::Resumed => {
            notified(connection, id, change, now, |connection, _| end_wait(connection, &key))
        }
        Progress::CancellationRequested => {
            notified(connection, id, change, now, |connection, transfer| {
                let first = transfers::table
                    .filter(transfers::id.eq(&key))
                    .filter(transfers::cancel_requested_at.is_null());
                let requested = transfers::cancel_requested_at.eq(Some(now.0));
                if diesel::update(first).set(requested).execute(connection)? != 1 {
                    return Ok(false);
                }
                checks::schedule(connection, transfer, now)?;
                Ok(true)
            })
        }
    }
}

/// Records that a node accepted the first transaction of a transfer, and puts off its check, unless
/// its cancellation was requested, which is sent at once. Does not wait for the disk: where this is
/// lost, the same bytes are sent again.
fn broadcast(
    connection: &mut AnyConnection,
    dialect: Dialect,
    key: &str,
    check_at: Timestamp,
) -> Result<bool, Failure> {
    #[cfg(feature = "postgres")]
    #[derive(QueryableByName)]
    struct Changed {
        #[diesel(sql_type = BigInt)]
        changed: i64,
    }
    let signed = TransferState::Signed;
    let Some(broadcast) = state::after(signed, Change::Broadcast) else { return Ok(false) };
    // The transfer first: a concurrent cancellation was before this, and is seen, or waits for it.
    // A check that another transaction has locked is brought forward or removed by it, and that
    // transaction may wait for the transfer.
    match connection {
        #[cfg(feature = "postgres")]
        AnyConnection::Postgres(connection) => {
            let unsynced = dialect.without_waiting_for_disk();
            let record = format!(
                "with sent as (update transfers set state = $1 where id = $2 and state = $3 \
                 and {unsynced} returning id, cancel_requested_at), \
                 put_off as (update transfer_checks set next_at = $4, done = 0 \
                 where transfer_id in (select transfer_id from transfer_checks \
                 where transfer_id in (select id from sent where cancel_requested_at is null) \
                 for update skip locked)) select count(*) as changed from sent"
            );
            let record = cached_query(record)
                .bind::<Text, _>(broadcast.as_str())
                .bind::<Text, _>(key.to_owned())
                .bind::<Text, _>(signed.as_str())
                .bind::<BigInt, _>(check_at.0);
            Ok(record.get_result::<Changed>(connection)?.changed == 1)
        }
        #[cfg(feature = "sqlite")]
        AnyConnection::Sqlite(connection) => connection.transaction(|connection| {
            let row = transfers::table.filter(transfers::id.eq(key));
            let sent = diesel::update(row.filter(transfers::state.eq(signed.as_str())))
                .set(transfers::state.eq(broadcast.as_str()))
                .returning(transfers::cancel_requested_at);
            let sent: Option<Option<i64>> = sent.get_result(connection).optional()?;
            if sent == Some(None) {
                let later = (transfer_checks::next_at.eq(check_at.0), transfer_checks::done.eq(0));
                diesel::update(transfer_checks::table.find(key)).set(later).execute(connection)?;
            }
            Ok(sent.is_some())
        }),
    }
}

/// Changes the state of a transfer, records what belongs to the change, and notifies the sender:
/// all of it, or nothing if the state does not allow it or `record` returns `false`.
fn notified(
    connection: &mut AnyConnection,
    id: TransferId,
    change: Change,
    now: Timestamp,
    record: impl FnOnce(&mut AnyConnection, &Transfer) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    connection.transaction(|connection| {
        let Some(transfer) = find_row(connection, id)? else { return Ok(false) };
        // First: a concurrent server waits for the row lock, then finds the row changed.
        if !step(connection, id, transfer.state, change)? || !record(connection, &transfer)? {
            return Ok(false);
        }
        notify_sender(connection, &transfer, now)?;
        Ok(true)
    })
}

/// Returns `false` if it is recorded as sent already.
fn record_sent(
    connection: &mut AnyConnection,
    key: &str,
    tx_hash: [u8; 32],
    block: u64,
    now: Timestamp,
) -> Result<bool, Failure> {
    let unsent = signed_transactions::table
        .filter(signed_transactions::transfer_id.eq(key))
        .filter(signed_transactions::tx_hash.eq(tx_hash.to_vec()))
        .filter(signed_transactions::sent_at.is_null());
    let sent = (
        signed_transactions::sent_at.eq(Some(now.0)),
        signed_transactions::sent_block.eq(Some(to_i64(block))),
    );
    Ok(diesel::update(unsent).set(sent).execute(connection)? == 1)
}

/// Returns `false` if this reason is recorded already.
fn record_wait(
    connection: &mut AnyConnection,
    key: &str,
    reason: WaitReason,
    now: Timestamp,
) -> Result<bool, Failure> {
    let recorded: Option<String> = transfer_waits::table
        .find(key)
        .select(transfer_waits::reason)
        .first(connection)
        .optional()?;
    if recorded.as_deref() == Some(reason.as_str()) {
        return Ok(false);
    }
    end_wait(connection, key)?;
    diesel::insert_into(transfer_waits::table)
        .values((
            transfer_waits::transfer_id.eq(key),
            transfer_waits::reason.eq(reason.as_str()),
            transfer_waits::since.eq(now.0),
        ))
        .execute(connection)?;
    Ok(true)
}

/// Returns `false` if the transfer did not wait.
pub(super) fn end_wait(connection: &mut AnyConnection, key: &str) -> Result<bool, Failure> {
    Ok(diesel::delete(transfer_waits::table.find(key)).execute(connection)? == 1)
}

/// Sets the transfer's hash to that of the last step that was sent.
pub(super) fn show_last_sent(connection: &mut AnyConnection, key: &str) -> Result<(), Failure> {
    let last: Option<Vec<u8>> = signed_transactions::table
        .filter(signed_transactions::transfer_id.eq(key))
        .filter(signed_transactions::sent_at.is_not_null())
        .order(signed_transactions::step.desc())
        .select(signed_transactions::tx_hash)
        .first(connection)
        .optional()?;
    if let Some(hash) = last {
        diesel::update(transfers::table.find(key))
            .set(transfers::tx_hash.eq(Some(hash)))
            .execute(connection)?;
    }
    Ok(())
}
