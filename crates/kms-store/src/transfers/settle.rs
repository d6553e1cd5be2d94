//! Settlements: the transaction in a block that has the nonce of a transfer, and what follows from
//! it.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use kms_chain::follower::BlockRef;
use kms_chain::settlement::{NonceMatch, NonceUse, Outcome, Position, ReadBlocks, Settlement};
use kms_chain::state::Change;
use kms_chain::transfer::TransferFailure;
use kms_core::ServerKeys;
use kms_types::{
    EthAddress, EventKind, Timestamp, TransferEvent, TransferId, Units, Wei, text_table,
};

use super::row::{Row, to_i64};
use super::{
    advance, checks, find_row, notify_recipient, notify_sender, spends, step, was_notified,
};
use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure, cached_query};
use crate::events::{self, About};
use crate::schema::{chain_cursors, settlements, signed_transactions, transfers, wallets};

/// The number of values that one query compares with, which both databases support.
const CHUNK: usize = 10_000;

/// How an [`Outcome`] is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoredOutcome {
    Paid,
    Reverted,
    NothingMoved,
    Cancelled,
    Superseded,
}

text_table! {
    StoredOutcome {
        Paid = "paid",
        Reverted = "reverted",
        NothingMoved = "nothing_moved",
        Cancelled = "cancelled",
        Superseded = "superseded",
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = settlements)]
struct SettlementRow {
    transfer_id: String,
    block: i64,
    block_hash: Vec<u8>,
    tx_hash: Vec<u8>,
    outcome: String,
    fee: String,
    final_at: Option<i64>,
}

/// Finds the transfers whose nonces these transactions use: each was signed for the transfer, or is
/// another one with the key of the wallet.
pub(super) fn match_nonces(
    connection: &mut AnyConnection,
    chain_id: u64,
    uses: &[NonceUse],
) -> Result<Vec<NonceMatch>, Failure> {
    let mut found = Vec::new();
    let ours = our_wallets(connection, uses)?;
    for used in uses.iter().filter(|used| ours.contains(&used.from)) {
        let signed = signed_transactions::transfer_id
            .eq(transfers::id)
            .and(signed_transactions::tx_hash.eq(used.tx_hash.to_vec()));
        // More than one, if the nonce was released and taken by another transfer.
        let rows: Vec<(Row, Option<String>)> = transfers::table
            .left_join(signed_transactions::table.on(signed))
            .filter(transfers::chain_id.eq(to_i64(chain_id)))
            .filter(transfers::from_address.eq(used.from.to_lower_hex()))
            .filter(transfers::nonce.is_not_null())
            .filter(transfers::nonce.assume_not_null().eq(to_i64(used.nonce)))
            .select((Row::as_select(), signed_transactions::kind.nullable()))
            .load(connection)?;
        for (row, kind) in rows {
            let transfer = row.parse()?;
            let key = transfer.id.to_string();
            let signed = RowRef { table: "signed_transactions", key: &key };
            let signed_as = kind.map(|kind| signed.parse(&kind)).transpose()?;
            found.push(NonceMatch { transfer, tx_hash: used.tx_hash, signed_as });
        }
    }
    Ok(found)
}

fn our_wallets(
    connection: &mut AnyConnection,
    uses: &[NonceUse],
) -> Result<HashSet<EthAddress>, Failure> {
    let from: HashSet<String> = uses.iter().map(|used| used.from.to_lower_hex()).collect();
    let from: Vec<String> = from.into_iter().collect();
    let mut ours = HashSet::new();
    for from in from.chunks(CHUNK) {
        let rows: Vec<String> = wallets::table
            .filter(wallets::address.eq_any(from.to_vec()))
            .select(wallets::address)
            .load(connection)?;
        for address in rows {
            ours.insert(RowRef { table: "wallets", key: &address }.parse(&address)?);
        }
    }
    Ok(ours)
}

pub(super) fn settle(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    chain_id: u64,
    at: Position,
    read: &ReadBlocks,
    now: Timestamp,
) -> Result<Option<Vec<TransferId>>, Failure> {
    let tip = read.blocks.last().map(|block| block.hash);
    if !hold_position(connection, chain_id, at, tip)? {
        return Ok(None);
    }
    let reopened = reopen_replaced(connection, keys, chain_id, read, now)?;
    for settlement in &read.settlements {
        record(connection, keys, chain_id, settlement, now)?;
    }
    Ok(Some(reopened))
}

/// Reopens what blocks settled that are not on the chain any more.
fn reopen_replaced(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    chain_id: u64,
    read: &ReadBlocks,
    now: Timestamp,
) -> Result<Vec<TransferId>, Failure> {
    let (Some(first), Some(last)) = (read.blocks.first(), read.blocks.last()) else {
        return Ok(Vec::new());
    };
    let end = if read.is_fork { i64::MAX } else { to_i64(last.number) };
    let settled: Vec<SettlementRow> = settlements::table
        .filter(settlements::chain_id.eq(to_i64(chain_id)))
        .filter(settlements::block.between(to_i64(first.number), end))
        .order(settlements::transfer_id)
        .select(SettlementRow::as_select())
        .load(connection)?;
    let on_chain: HashMap<i64, &BlockRef> =
        read.blocks.iter().map(|block| (to_i64(block.number), block)).collect();
    let mut finals = Vec::new();
    for row in settled {
        let is_on_chain = on_chain.get(&row.block).is_some_and(|it| it.hash[..] == row.block_hash);
        if is_on_chain {
            continue;
        }
        let (id, was_final) = reopen(connection, keys, &row, now)?;
        if was_final {
            finals.push(id);
        }
    }
    Ok(finals)
}

/// Undoes a settlement. Returns whether it was final.
fn reopen(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    row: &SettlementRow,
    now: Timestamp,
) -> Result<(TransferId, bool), Failure> {
    let reference = RowRef { table: "settlements", key: &row.transfer_id };
    let id: TransferId = reference.parse(&row.transfer_id)?;
    let missing = || Failure::Store(reference.corrupt("no such transfer"));
    let transfer = find_row(connection, id)?.ok_or_else(missing)?;
    let outcome: StoredOutcome = reference.parse(&row.outcome)?;
    let was_final = row.final_at.is_some();
    diesel::delete(settlements::table.find(&row.transfer_id)).execute(connection)?;
    let is_visible = was_final || outcome == StoredOutcome::Paid;
    if is_visible && !step(connection, id, transfer.state, Change::Reopen)? {
        return Ok((id, false));
    }
    // Without the bytes nothing can be sent again: the next signature may take the nonce.
    let kept: i64 = signed_transactions::table
        .filter(signed_transactions::transfer_id.eq(&row.transfer_id))
        .filter(signed_transactions::sealed.is_not_null())
        .count()
        .get_result(connection)?;
    diesel::update(transfers::table.find(&row.transfer_id))
        .set((
            transfers::block.eq(None::<i64>),
            transfers::fee.eq(None::<String>),
            transfers::arrived.eq(None::<String>),
            transfers::failure.eq(None::<String>),
            transfers::nonce_held.eq((kept > 0).then_some(true)),
        ))
        .execute(connection)?;
    advance::show_last_sent(connection, &row.transfer_id)?;
    if kept > 0 {
        checks::schedule(connection, &transfer, now)?;
    }
    if was_final {
        spends::reserve_again(connection, keys, &transfer, now)?;
    }
    if !was_final && outcome != StoredOutcome::Paid {
        spends::note_unpaid(connection, keys, &row.transfer_id, None)?;
    }
    if is_visible {
        notify_sender(connection, &transfer, now)?;
        if was_notified(connection, &transfer)? {
            notify_recipient(connection, &transfer, now)?;
        }
    }
    Ok((id, was_final))
}

fn record(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    chain_id: u64,
    settlement: &Settlement,
    now: Timestamp,
) -> Result<(), Failure> {
    let Settlement { transfer: id, block, tx_hash, outcome, fee } = *settlement;
    let Some(transfer) = find_row(connection, id)? else {
        return Ok(());
    };
    let key = id.to_string();
    let known: i64 = settlements::table.find(&key).count().get_result(connection)?;
    if known > 0 {
        return Ok(());
    }
    let change = match outcome {
        Outcome::Paid { .. } => Change::Mine,
        Outcome::Reverted | Outcome::NothingMoved | Outcome::Cancelled | Outcome::Superseded => {
            Change::Settle
        }
    };
    // Takes the lock of the row.
    if !step(connection, id, transfer.state, change)? {
        return Ok(());
    }
    let (stored, arrived) = stored(outcome);
    // Capped, because an endpoint may report anything.
    let fee = fee.min(transfer.ladder.cancellation_fee(transfer.gas_limit));
    diesel::insert_into(settlements::table)
        .values((
            settlements::transfer_id.eq(&key),
            settlements::chain_id.eq(to_i64(chain_id)),
            settlements::block.eq(to_i64(block.number)),
            settlements::block_hash.eq(block.hash.to_vec()),
            settlements::tx_hash.eq(tx_hash.to_vec()),
            settlements::outcome.eq(stored.as_str()),
            settlements::fee.eq(fee.to_string()),
        ))
        .execute(connection)?;
    checks::remove(connection, &key)?;
    checks::bring_forward(connection, &transfer, now)?;
    advance::end_wait(connection, &key)?;
    if let Outcome::Paid { .. } = outcome {
        let paid = "update transfers set tx_hash = $1, block = $2, fee = $3, arrived = $4 \
             where id = $5";
        cached_query(paid)
            .bind::<Binary, _>(tx_hash.to_vec())
            .bind::<BigInt, _>(to_i64(block.number))
            .bind::<Text, _>(fee.to_string())
            .bind::<Nullable<Text>, _>(arrived.map(|units| units.to_string()))
            .bind::<Text, _>(key)
            .execute(connection)?;
        notify_recipient(connection, &transfer, now)?;
        notify_sender(connection, &transfer, now)?;
    } else {
        let fee = if outcome == Outcome::Superseded { Wei::default() } else { fee };
        spends::note_unpaid(connection, keys, &key, Some(fee))?;
    }
    Ok(())
}

fn stored(outcome: Outcome) -> (StoredOutcome, Option<Units>) {
    match outcome {
        Outcome::Paid { arrived } => (StoredOutcome::Paid, arrived),
        Outcome::Reverted => (StoredOutcome::Reverted, None),
        Outcome::NothingMoved => (StoredOutcome::NothingMoved, None),
        Outcome::Cancelled => (StoredOutcome::Cancelled, None),
        Outcome::Superseded => (StoredOutcome::Superseded, None),
    }
}

pub(super) fn finalize(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    chain_id: u64,
    at: Position,
    up_to: u64,
    now: Timestamp,
    keep_until: Timestamp,
) -> Result<Option<Vec<TransferId>>, Failure> {
    if !hold_position(connection, chain_id, at, at.tip)? {
        return Ok(None);
    }
    finalize_up_to(connection, keys, chain_id, up_to, now, keep_until).map(Some)
}

/// Records settlements of a final block, and makes them final.
pub(super) fn settle_final(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    (chain_id, block): (u64, u64),
    settlements: &[Settlement],
    now: Timestamp,
    keep_until: Timestamp,
) -> Result<(), Failure> {
    // An update without effect takes the row lock.
    diesel::update(chain_cursors::table.find(to_i64(chain_id)))
        .set(chain_cursors::block.eq(chain_cursors::block))
        .execute(connection)?;
    for settlement in settlements {
        record(connection, keys, chain_id, settlement, now)?;
    }
    finalize_up_to(connection, keys, chain_id, block, now, keep_until)?;
    Ok(())
}

fn finalize_up_to(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    chain_id: u64,
    up_to: u64,
    now: Timestamp,
    keep_until: Timestamp,
) -> Result<Vec<TransferId>, Failure> {
    finalize_paid(connection, keys, chain_id, up_to, now, keep_until)?;
    let unpaid: Vec<SettlementRow> = settlements::table
        .filter(settlements::chain_id.eq(to_i64(chain_id)))
        .filter(settlements::block.le(to_i64(up_to)))
        .filter(settlements::final_at.is_null())
        .order(settlements::transfer_id)
        .select(SettlementRow::as_select())
        .load(connection)?;
    let mut superseded = Vec::new();
    for row in unpaid {
        superseded.extend(finalize_unpaid(connection, keys, &row, now, keep_until)?);
    }
    Ok(superseded)
}

/// Finalizes all payments up to a block: one statement for each table, and for each payment what it
/// cost and a notice of its recipient.
fn finalize_paid(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    chain_id: u64,
    up_to: u64,
    now: Timestamp,
    keep_until: Timestamp,
) -> Result<(), Failure> {
    // Parameters are numbered in the order in which they occur, as SQLite requires.
    let due = |chain: usize| {
        let block = chain + 1;
        format!(
            "select transfer_id from settlements where chain_id = ${chain} \
             and block <= ${block} and final_at is null and outcome = 'paid'"
        )
    };
    let (chain, block) = (to_i64(chain_id), to_i64(up_to));
    let paid: Vec<(String, String)> = settlements::table
        .filter(settlements::chain_id.eq(chain))
        .filter(settlements::block.le(block))
        .filter(settlements::final_at.is_null())
        .filter(settlements::outcome.eq(StoredOutcome::Paid.as_str()))
        .order(settlements::transfer_id)
        .select((settlements::transfer_id, settlements::fee))
        .load(connection)?;
    for (id, fee) in paid {
        let fee = RowRef { table: "settlements", key: &id }.parse(&fee)?;
        spends::settle(connection, keys, &id, fee)?;
    }
    let received: Vec<(String, String)> = settlements::table
        .inner_join(transfers::table.on(transfers::id.eq(settlements::transfer_id)))
        .filter(settlements::chain_id.eq(chain))
        .filter(settlements::block.le(block))
        .filter(settlements::final_at.is_null())
        .filter(settlements::outcome.eq(StoredOutcome::Paid.as_str()))
        .filter(transfers::to_account.is_not_null())
        .order(transfers::id)
        .select((transfers::id, transfers::to_account.assume_not_null()))
        .load(connection)?;
    for (id, recipient) in received {
        let row = RowRef { table: "transfers", key: &id };
        let kind = EventKind::Transfer(TransferEvent::Received);
        let (recipient, about) = (row.parse(&recipient)?, About::Transfer(row.parse(&id)?));
        events::append(connection, recipient, now, kind, about)?;
    }
    let states = format!(
        "update transfers set state = 'final' where state = 'mined' and id in ({})",
        due(1)
    );
    diesel::sql_query(states)
        .bind::<BigInt, _>(chain)
        .bind::<BigInt, _>(block)
        .execute(connection)?;
    let ends = format!(
        "update settlements set final_at = $1, bytes_until = $2 where transfer_id in ({})",
        due(3)
    );
    diesel::sql_query(ends)
        .bind::<BigInt, _>(now.0)
        .bind::<BigInt, _>(keep_until.0)
        .bind::<BigInt, _>(chain)
        .bind::<BigInt, _>(block)
        .execute(connection)?;
    Ok(())
}

/// Ends a transfer that was not paid. Returns it if it was superseded.
fn finalize_unpaid(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    row: &SettlementRow,
    now: Timestamp,
    keep_until: Timestamp,
) -> Result<Option<TransferId>, Failure> {
    let reference = RowRef { table: "settlements", key: &row.transfer_id };
    let id: TransferId = reference.parse(&row.transfer_id)?;
    let missing = || Failure::Store(reference.corrupt("no such transfer"));
    let transfer = find_row(connection, id)?.ok_or_else(missing)?;
    let outcome: StoredOutcome = reference.parse(&row.outcome)?;
    let fee: Wei = reference.parse(&row.fee)?;
    let (change, failure) = match outcome {
        StoredOutcome::Reverted => (Change::Fail, Some(TransferFailure::Reverted)),
        StoredOutcome::NothingMoved => (Change::Fail, Some(TransferFailure::NothingMoved)),
        StoredOutcome::Superseded => (Change::Fail, Some(TransferFailure::Superseded)),
        StoredOutcome::Cancelled => (Change::CancelMined, None),
        StoredOutcome::Paid => return Ok(None),
    };
    if !step(connection, id, transfer.state, change)? {
        return Ok(None);
    }
    diesel::update(settlements::table.find(&row.transfer_id))
        .set((
            settlements::final_at.eq(Some(now.0)),
            settlements::bytes_until.eq(Some(keep_until.0)),
        ))
        .execute(connection)?;
    spends::release(connection, keys, &row.transfer_id)?;
    let ended = diesel::update(transfers::table.find(&row.transfer_id));
    let failure = transfers::failure.eq(failure.map(|failure| failure.as_str()));
    if outcome == StoredOutcome::Superseded {
        ended.set(failure).execute(connection)?;
    } else {
        ended
            .set((
                failure,
                transfers::tx_hash.eq(Some(row.tx_hash.clone())),
                transfers::block.eq(Some(row.block)),
                transfers::fee.eq(Some(fee.to_string())),
            ))
            .execute(connection)?;
    }
    notify_sender(connection, &transfer, now)?;
    if was_notified(connection, &transfer)? {
        notify_recipient(connection, &transfer, now)?;
    }
    Ok((outcome == StoredOutcome::Superseded).then_some(id))
}

/// Erases signed bytes whose time has passed. Returns the number of transfers.
pub(super) fn erase_old_bytes(
    connection: &mut AnyConnection,
    now: Timestamp,
    limit: u32,
) -> Result<usize, Failure> {
    let old: Vec<String> = settlements::table
        .filter(settlements::bytes_until.is_not_null())
        .filter(settlements::bytes_until.assume_not_null().le(now.0))
        .order(settlements::bytes_until)
        .limit(limit.into())
        .select(settlements::transfer_id)
        .load(connection)?;
    diesel::update(
        signed_transactions::table.filter(signed_transactions::transfer_id.eq_any(old.clone())),
    )
    .set(signed_transactions::sealed.eq(None::<Vec<u8>>))
    .execute(connection)?;
    diesel::update(settlements::table.filter(settlements::transfer_id.eq_any(old.clone())))
        .set(settlements::bytes_until.eq(None::<i64>))
        .execute(connection)?;
    Ok(old.len())
}

/// Locks the chain until the transaction ends, and records the last block that was settled. Returns
/// `false`, and changes nothing, if another server moved the cursor or settled blocks since.
fn hold_position(
    connection: &mut AnyConnection,
    chain_id: u64,
    at: Position,
    tip: Option<[u8; 32]>,
) -> Result<bool, Failure> {
    let row = chain_cursors::table
        .filter(chain_cursors::chain_id.eq(to_i64(chain_id)))
        .filter(chain_cursors::block.eq(to_i64(at.cursor.number)))
        .filter(chain_cursors::block_hash.eq(at.cursor.hash.to_vec()));
    let tip = tip.map(|tip| chain_cursors::tip_hash.eq(tip.to_vec()));
    let held = match (at.tip, tip) {
        (Some(known), Some(tip)) => {
            let row = row.filter(chain_cursors::tip_hash.eq(known.to_vec()));
            diesel::update(row).set(tip).execute(connection)?
        }
        (None, Some(tip)) => diesel::update(row).set(tip).execute(connection)?,
        (_, None) => {
            let same = chain_cursors::block.eq(chain_cursors::block);
            diesel::update(row).set(same).execute(connection)?
        }
    };
    Ok(held == 1)
}
