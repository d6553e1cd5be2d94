//! Signing, in one transaction with the nonce and the reserved amount. Must never sign what the
//! balances do not cover at the highest fee, nor with a nonce that another transfer has.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_chain::ports::{ChainView, Sign, SignOutcome};
use kms_chain::spending::SpendingRules;
use kms_chain::state::Change;
use kms_chain::transfer::{Missing, Outgoing, Transfer, TransferState};
use kms_core::ServerKeys;
use kms_types::{Timestamp, TokenAmount, TransferId, Units, Wei};

use super::row::{Row, to_i64};
use super::{IN_FLIGHT, find, notify_sender, spending_limits, step};
use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure, execute_on_either};
use crate::schema::{nonce_locks, signed_transactions, transfers};

pub(super) fn sign(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    id: TransferId,
    view: ChainView,
    rules: &SpendingRules,
    now: Timestamp,
    sign: Sign,
) -> Result<SignOutcome, Failure> {
    let key = id.to_string();
    let row = RowRef { table: "transfers", key: &key };
    let missing = || Failure::Store(row.corrupt("no such transfer"));
    let quoted = find(connection, id)?.ok_or_else(missing)?;
    let (chain_id, address) = (row.convert(quoted.chain_id)?, quoted.from.address.to_lower_hex());
    lock_nonces(connection, chain_id, &address)?;
    // Read again: it may have been signed before the lock was acquired.
    let transfer = find(connection, id)?.ok_or_else(missing)?;
    if transfer.state != TransferState::Quoted {
        return Ok(SignOutcome::NotQuoted(Box::new(transfer)));
    }
    if transfer.expires_at <= now {
        step(connection, id, TransferState::Quoted, Change::Expire)?;
        return Ok(SignOutcome::Expired);
    }
    let mut needed = reserved(connection, chain_id, &address, view)?;
    needed.add(&transfer);
    if let Some(missing) = shortfall(&needed, &transfer, view) {
        return Ok(SignOutcome::Insufficient { missing });
    }
    if let Some(over) = spending_limits::over_limit(connection, keys, &transfer, rules, now)? {
        return Ok(SignOutcome::OverLimit(over));
    }
    // The row is locked before a signature exists: a later cancellation waits, and after an earlier
    // one nothing is signed.
    if !step(connection, id, TransferState::Quoted, Change::Sign)? {
        let found = find(connection, id)?.ok_or_else(missing)?;
        return Ok(SignOutcome::NotQuoted(Box::new(found)));
    }
    let nonce = free_nonce(connection, chain_id, &address, row.convert(view.nonce)?)?;
    let signed = sign(row.convert(nonce)?);
    let tx_hash = signed.first.tx_hash;
    diesel::update(transfers::table.find(&key))
        .set((transfers::nonce.eq(Some(nonce)), transfers::tx_hash.eq(Some(tx_hash.to_vec()))))
        .execute(connection)?;
    let attempts: Vec<_> = (0..)
        .zip([signed.first].into_iter().chain(signed.replacements))
        .map(|(step, attempt)| {
            (
                signed_transactions::transfer_id.eq(&key),
                signed_transactions::step.eq(step),
                signed_transactions::tx_hash.eq(attempt.tx_hash.to_vec()),
                signed_transactions::sealed.eq(Some(attempt.sealed)),
            )
        })
        .collect();
    execute_on_either!(
        connection,
        diesel::insert_into(signed_transactions::table).values(attempts)
    )?;
    spending_limits::reserve(connection, &transfer, now)?;
    notify_sender(connection, &transfer, now)?;
    let (state, nonce) = (TransferState::Signed, Some(row.convert(nonce)?));
    let signed = Transfer { state, nonce, tx_hash: Some(tx_hash), ..transfer };
    Ok(SignOutcome::Signed(Box::new(signed)))
}

/// Returns what signed transfers may still take from the address. That includes transfers in a
/// block that the balance does not reflect: a later block, or one that a reorg removed.
fn reserved(
    connection: &mut AnyConnection,
    chain_id: i64,
    address: &str,
    view: ChainView,
) -> Result<Outgoing, Failure> {
    let rows: Vec<Row> = transfers::table
        .filter(transfers::chain_id.eq(chain_id))
        .filter(transfers::from_address.eq(address))
        .filter(
            transfers::state
                .eq_any(IN_FLIGHT)
                .or(transfers::block.assume_not_null().gt(to_i64(view.block)))
                .or(transfers::block
                    .is_not_null()
                    .and(transfers::nonce.assume_not_null().ge(to_i64(view.mined)))),
        )
        .select(Row::as_select())
        .load(connection)?;
    Ok(super::outgoing(rows)?)
}

/// Returns what the balances do not cover, the token first.
fn shortfall(needed: &Outgoing, transfer: &Transfer, view: ChainView) -> Option<Missing> {
    if let Some(token) = &transfer.token
        && let Some(units) = needed.of(token).checked_sub(view.token)
        && units > Units::default()
    {
        return Some(Missing::Token(TokenAmount { token: token.clone(), units }));
    }
    let wei = needed.wei.checked_sub(view.balance).filter(|wei| *wei > Wei::default())?;
    Some(Missing::Native(wei))
}

/// Locks the wallet's nonces until the transaction ends.
fn lock_nonces(
    connection: &mut AnyConnection,
    chain_id: i64,
    address: &str,
) -> Result<(), Failure> {
    // An update without effect takes the row lock.
    let row = || nonce_locks::table.find((chain_id, address));
    let lock = || diesel::update(row()).set(nonce_locks::address.eq(nonce_locks::address));
    if lock().execute(connection)? == 0 {
        let first = "insert into nonce_locks (chain_id, address) values ($1, $2) \
             on conflict (chain_id, address) do nothing";
        diesel::sql_query(first)
            .bind::<BigInt, _>(chain_id)
            .bind::<Text, _>(address)
            .execute(connection)?;
        lock().execute(connection)?;
    }
    Ok(())
}

/// Returns the first nonce from `floor` on that no transfer of the wallet has.
fn free_nonce(
    connection: &mut AnyConnection,
    chain_id: i64,
    address: &str,
    floor: i64,
) -> Result<i64, Failure> {
    let taken: Vec<Option<i64>> = transfers::table
        .filter(transfers::chain_id.eq(chain_id))
        .filter(transfers::from_address.eq(address))
        .filter(transfers::nonce.is_not_null())
        .filter(transfers::nonce.assume_not_null().ge(floor))
        .order(transfers::nonce)
        .select(transfers::nonce)
        .load(connection)?;
    let mut free = floor;
    for nonce in taken.into_iter().flatten() {
        if nonce > free {
            break;
        }
        free = nonce.saturating_add(1);
    }
    Ok(free)
}
