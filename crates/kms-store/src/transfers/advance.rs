//! Progress of a signed transfer, with its events, in one transaction.

use diesel::prelude::*;
use kms_chain::ports::Progress;
use kms_chain::transfer::{TransferFailure, WaitReason};
use kms_types::{Timestamp, TransferId, Wei};

use super::row::to_i64;
use super::{find_row, make_due, notify_recipient, notify_sender, spending_limits, step};
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
    let row = transfers::table.find(&key);
    match progress {
        Progress::Broadcast => return Ok(true),
        Progress::Replaced { tx_hash, block } => {
            if !record_sent(connection, &key, tx_hash, block, now)? {
                return Ok(false);
            }
            show_last_sent(connection, &key)?;
            end_wait(connection, &key)?;
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
            make_due(connection, &key)?;
        }
        Progress::Cancelled { tx_hash, block, fee } => {
            diesel::update(row).set(in_block(tx_hash, block, fee)).execute(connection)?;
            spending_limits::settle_fee_only(connection, &transfer, fee)?;
            end_wait(connection, &key)?;
            erase(connection, &key)?;
        }
        Progress::Mined { tx_hash, block, fee, arrived } => {
            let arrived = transfers::arrived.eq(arrived.map(|units| units.to_string()));
            diesel::update(row)
                .set((in_block(tx_hash, block, fee), arrived))
                .execute(connection)?;
            end_wait(connection, &key)?;
            notify_recipient(connection, &transfer, now)?;
        }
        Progress::Reverted { tx_hash, block, fee } => {
            diesel::update(row).set(in_block(tx_hash, block, fee)).execute(connection)?;
            spending_limits::settle_fee_only(connection, &transfer, fee)?;
            fail(connection, &key, TransferFailure::Reverted)?;
        }
        Progress::NothingMoved { tx_hash, block, fee } => {
            diesel::update(row).set(in_block(tx_hash, block, fee)).execute(connection)?;
            spending_limits::settle_fee_only(connection, &transfer, fee)?;
            fail(connection, &key, TransferFailure::NothingMoved)?;
        }
        Progress::Superseded => {
            spending_limits::release(connection, &key)?;
            fail(connection, &key, TransferFailure::Superseded)?;
            // Released: if the chain reports the nonce as free after all, the next transfer takes
            // it, and no block can contain both.
            diesel::update(row).set(transfers::nonce.eq(None::<i64>)).execute(connection)?;
        }
        Progress::Reorged => {
            diesel::update(row)
                .set((
                    transfers::block.eq(None::<i64>),
                    transfers::fee.eq(None::<String>),
                    transfers::arrived.eq(None::<String>),
                ))
                .execute(connection)?;
            show_last_sent(connection, &key)?;
        }
        Progress::Final => {
            if let Some(fee) = transfer.fee {
                spending_limits::settle(connection, &transfer, fee)?;
            }
            erase(connection, &key)?;
            return Ok(true);
        }
    }
    notify_sender(connection, &transfer, now)?;
    Ok(true)
}

type InBlock = (
    diesel::dsl::Eq<transfers::tx_hash, Option<Vec<u8>>>,
    diesel::dsl::Eq<transfers::block, Option<i64>>,
    diesel::dsl::Eq<transfers::fee, Option<String>>,
);

fn in_block(tx_hash: [u8; 32], block: u64, fee: Wei) -> InBlock {
    (
        transfers::tx_hash.eq(Some(tx_hash.to_vec())),
        transfers::block.eq(Some(to_i64(block))),
        transfers::fee.eq(Some(fee.to_string())),
    )
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

fn fail(
    connection: &mut AnyConnection,
    key: &str,
    failure: TransferFailure,
) -> Result<(), Failure> {
    diesel::update(transfers::table.find(key))
        .set(transfers::failure.eq(Some(failure.as_str())))
        .execute(connection)?;
    end_wait(connection, key)?;
    erase(connection, key)
}

/// Erases the signed bytes of every step, with which a transaction could still be sent.
fn erase(connection: &mut AnyConnection, key: &str) -> Result<(), Failure> {
    diesel::update(signed_transactions::table.filter(signed_transactions::transfer_id.eq(key)))
        .set(signed_transactions::sealed.eq(None::<Vec<u8>>))
        .execute(connection)?;
    Ok(())
}
