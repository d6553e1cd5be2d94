//! Progress of a signed transfer, with its events, in one transaction.

use std::time::Duration;

use diesel::prelude::*;
use kms_chain::ports::Progress;
use kms_chain::transfer::WaitReason;
use kms_types::{Timestamp, TransferId};

use super::row::to_i64;
use super::{checks, find_row, notify_sender, step};
use crate::database::{AnyConnection, Failure};
use crate::schema::{signed_transactions, transfer_waits, transfers};

pub(super) fn advance(
    connection: &mut AnyConnection,
    id: TransferId,
    progress: Progress,
    now: Timestamp,
) -> Result<bool, Failure> {
    let Some(transfer) = find_row(connection, id)? else {
        return Ok(false);
    };
    // First: a concurrent server waits for the row lock, then finds the row changed.
    if !step(connection, id, transfer.state, progress.change())? {
        return Ok(false);
    }
    let key = id.to_string();
    match progress {
        Progress::Broadcast { check_at } => {
            checks::schedule(connection, &transfer, check_at)?;
            return Ok(true);
        }
        Progress::Replaced { tx_hash, block } => {
            if !record_sent(connection, &key, tx_hash, block, now)? {
                return Ok(false);
            }
            show_last_sent(connection, &key)?;
            end_wait(connection, &key)?;
            checks::schedule(connection, &transfer, now.plus(Duration::from_secs(1)))?;
        }
        Progress::Waiting(reason) => {
            if !record_wait(connection, &key, reason, now)? {
                return Ok(false);
            }
        }
        Progress::Resumed => {
            if !end_wait(connection, &key)? {
                return Ok(false);
            }
        }
        Progress::CancellationRequested => {
            let first = transfers::table
                .filter(transfers::id.eq(&key))
                .filter(transfers::cancel_requested_at.is_null());
            let requested = transfers::cancel_requested_at.eq(Some(now.0));
            if diesel::update(first).set(requested).execute(connection)? != 1 {
                return Ok(false);
            }
            checks::schedule(connection, &transfer, now)?;
        }
    }
    notify_sender(connection, &transfer, now)?;
    Ok(true)
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
