//! What happens to a signed transfer, with its events, in one transaction.

use diesel::prelude::*;
use kms_chain::ports::Progress;
use kms_chain::transfer::TransferFailure;
use kms_types::{Timestamp, TransferId, Wei};

use super::row::to_i64;
use super::{find_row, spending_limits, step, tell_recipient, tell_sender};
use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure};
use crate::schema::{signed_transactions, transfers};

pub(super) fn advance(
    connection: &mut AnyConnection,
    id: TransferId,
    progress: Progress,
    now: Timestamp,
) -> Result<bool, Failure> {
    let Some(transfer) = find_row(connection, id)? else {
        return Ok(false);
    };
    // Taken first: who comes second finds the row changed, or waits for it.
    if !step(connection, id, transfer.state, progress.change())? {
        return Ok(false);
    }
    let key = id.to_string();
    let row = transfers::table.find(&key);
    match progress {
        Progress::Broadcast => {
            note_sent(connection, &key, 0, now)?;
            return Ok(true);
        }
        Progress::Replaced { step } => {
            let step = RowRef { table: "signed_transactions", key: &key }.convert(step)?;
            if !note_sent(connection, &key, step, now)? {
                return Ok(false);
            }
            show_last_sent(connection, &key)?;
        }
        Progress::Waiting => {
            let untold = transfers::table
                .filter(transfers::id.eq(&key))
                .filter(transfers::stalled_since.is_null());
            let told = transfers::stalled_since.eq(Some(now.0));
            if diesel::update(untold).set(told).execute(connection)? != 1 {
                return Ok(false);
            }
        }
        Progress::Mined { tx_hash, block, fee, arrived } => {
            let arrived = transfers::arrived.eq(arrived.map(|units| units.to_string()));
            diesel::update(row)
                .set((in_block(tx_hash, block, fee), arrived))
                .execute(connection)?;
            tell_recipient(connection, &transfer, now)?;
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
            fail(connection, &key, TransferFailure::NonceTaken)?;
            // Given back: if the chain calls it free all the same, the next transfer takes it, and
            // no block can have both.
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
    tell_sender(connection, &transfer, now)?;
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

/// `false` if it was noted before.
fn note_sent(
    connection: &mut AnyConnection,
    key: &str,
    step: i32,
    now: Timestamp,
) -> Result<bool, Failure> {
    let unsent = signed_transactions::table
        .filter(signed_transactions::transfer_id.eq(key))
        .filter(signed_transactions::step.eq(step))
        .filter(signed_transactions::sent_at.is_null());
    let noted = signed_transactions::sent_at.eq(Some(now.0));
    Ok(diesel::update(unsent).set(noted).execute(connection)? == 1)
}

/// The transfer's hash becomes that of the step which was sent last.
fn show_last_sent(connection: &mut AnyConnection, key: &str) -> Result<(), Failure> {
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
    erase(connection, key)
}

/// Every step's signed bytes: whoever has them could still send one.
fn erase(connection: &mut AnyConnection, key: &str) -> Result<(), Failure> {
    diesel::update(signed_transactions::table.filter(signed_transactions::transfer_id.eq(key)))
        .set(signed_transactions::sealed.eq(None::<Vec<u8>>))
        .execute(connection)?;
    Ok(())
}
