//! Signing a pending transfer again at higher prices, for the same nonce.

use diesel::prelude::*;
use kms_chain::ports::{ChainView, ChoosePrices, ReplaceOutcome, SignAgain, SignedLadder};
use kms_chain::spending::SpendingRules;
use kms_chain::state::{self, Change};
use kms_chain::transfer::Transfer;
use kms_core::ServerKeys;
use kms_types::{ReplacementId, Timestamp, TransferId, Units, Wei};

use super::advance::{end_wait, show_last_sent};
use super::expiry::{Locked, lock};
use super::reserving::reserving;
use super::sign::{SenderCheck, check_sender, shortfall, signed_rows};
use super::{checks, find, notify_sender, spending_limits, spends};
use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure, execute_on_either};
use crate::dialect::Dialect;
use crate::schema::{replacements, signed_transactions, transfers};

pub(super) fn replace(
    connection: &mut AnyConnection,
    (dialect, keys): (Dialect, &ServerKeys),
    (id, replacement): (TransferId, ReplacementId),
    view: ChainView,
    rules: &SpendingRules,
    now: Timestamp,
    (prices, sign): (ChoosePrices, SignAgain),
) -> Result<ReplaceOutcome, Failure> {
    let key = id.to_string();
    let row = RowRef { table: "transfers", key: &key };
    // A round of the engine waits, and then finds what is signed now.
    let Some(Locked { transfer, sender, .. }) = lock(connection, (dialect, keys), id)? else {
        return Ok(ReplaceOutcome::NotPending);
    };
    // Also a repeat waits for the request before it.
    if let Some(of) = replaced_by(connection, &replacement.to_string())? {
        return Ok(match of == key {
            true => ReplaceOutcome::Repeated(Box::new(transfer)),
            false => ReplaceOutcome::IdReused,
        });
    }
    if state::after(transfer.state, Change::Replace).is_none() {
        return Ok(ReplaceOutcome::NotPending);
    }
    let Some(nonce) = transfer.nonce else { return Ok(ReplaceOutcome::NotPending) };
    let recovered = match check_sender(&transfer, &sender, sign.wallet_version) {
        SenderCheck::Allowed { recovered_at } => recovered_at,
        SenderCheck::NotActive => return Ok(ReplaceOutcome::NotActive),
        SenderCheck::WalletChanged => return Ok(ReplaceOutcome::WalletChanged),
    };
    let Some((last_step, fees)) = last_sent(connection, &key)? else {
        return Ok(ReplaceOutcome::NotPending);
    };
    let Some(ladder) = prices(row.parse(&fees)?) else {
        return Ok(ReplaceOutcome::Outdated);
    };
    let ladder = ladder.with_data_fee(transfer.ladder.data_fee());
    let again = Transfer { ladder, ..transfer.clone() };
    let refusal = refusal(connection, keys, (&transfer, &again), view, (rules, recovered, now))?;
    if let Some(refusal) = refusal {
        return Ok(refusal);
    }
    let signed = (sign.ladder)(&again, nonce);
    let again = insert_again(connection, (&transfer, again), signed, last_step, (view.block, now))?;
    diesel::insert_into(replacements::table)
        .values((
            replacements::id.eq(replacement.to_string()),
            replacements::transfer_id.eq(&key),
            replacements::at.eq(now.0),
        ))
        .execute(connection)?;
    spends::reserve_fee(connection, keys, &again)?;
    show_last_sent(connection, &key)?;
    end_wait(connection, &key)?;
    checks::schedule(connection, &again, now)?;
    notify_sender(connection, &again, now)?;
    let replaced = find(connection, id)?.ok_or_else(|| row.corrupt("no such transfer"))?;
    Ok(ReplaceOutcome::Replaced(Box::new(replaced)))
}

/// Returns why the sender cannot pay the new prices, if so: too little money, or a limit.
fn refusal(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    (before, again): (&Transfer, &Transfer),
    view: ChainView,
    (rules, recovered, now): (&SpendingRules, Option<Timestamp>, Timestamp),
) -> Result<Option<ReplaceOutcome>, Failure> {
    let key = again.id.to_string();
    let chain_id = RowRef { table: "transfers", key: &key }.convert(again.chain_id)?;
    let address = again.from.address.to_lower_hex();
    let is_cancelled = again.cancel_requested_at.is_some();
    let mut others = reserving(connection, chain_id, &address, view.mined)?;
    others.retain(|other| other.id != key);
    let mut needed = super::outgoing(others)?;
    // A cancellation pays nothing but its fee.
    let paid = if is_cancelled { paying_nothing(again) } else { again.clone() };
    needed.add(&paid);
    if let Some(missing) = shortfall(&needed, &paid, view) {
        return Ok(Some(ReplaceOutcome::Insufficient { missing }));
    }
    if is_cancelled {
        return Ok(None);
    }
    let increase = Units(again.max_wei().0.saturating_sub(before.max_wei().0));
    let ladder = again.ladder.clone().with_data_fee(Wei::default());
    let fee = Transfer { value: increase, gas_limit: 0, ladder, ..paying_nothing(again) };
    let own = spending_limits::own_limit(connection, keys, spends::sender(&fee)?, fee.asset())?.own;
    let fee = (&fee, recovered, own);
    let over = spending_limits::over_limit(connection, keys, fee, rules, now)?;
    Ok(over.map(ReplaceOutcome::OverLimit))
}

/// Puts what was signed again in the place of what was never sent, and returns the transfer with
/// the prices that it has then.
fn insert_again(
    connection: &mut AnyConnection,
    (before, again): (&Transfer, Transfer),
    signed: SignedLadder,
    last_step: i32,
    sent: (u64, Timestamp),
) -> Result<Transfer, Failure> {
    let key = again.id.to_string();
    let is_cancelled = again.cancel_requested_at.is_some();
    // What was never sent must not be sent any more: its prices may be below the new ones.
    let unsent = signed_transactions::table
        .filter(signed_transactions::transfer_id.eq(&key))
        .filter(signed_transactions::sent_at.is_null());
    diesel::delete(unsent).execute(connection)?;
    let payments = [signed.first].into_iter().chain(signed.replacements);
    let payments = payments.filter(|_| !is_cancelled);
    let rows = signed_rows(&key, last_step + 1, payments, signed.cancellation, sent);
    execute_on_either!(connection, diesel::insert_into(signed_transactions::table).values(rows))?;
    // The payment was not signed again: it costs what it did, if it is mined after all.
    let again = if is_cancelled {
        let ladder = before.ladder.clone().with_cancellation(again.ladder.cancellation());
        Transfer { ladder, ..again }
    } else {
        again
    };
    diesel::update(transfers::table.find(&key))
        .set(transfers::ladder.eq(again.ladder.to_string()))
        .execute(connection)?;
    Ok(again)
}

/// Returns the id of the transfer that was signed again by this replacement.
pub(super) fn replaced_by(
    connection: &mut AnyConnection,
    replacement: &str,
) -> Result<Option<String>, Failure> {
    Ok(replacements::table
        .find(replacement)
        .select(replacements::transfer_id)
        .first(connection)
        .optional()?)
}

/// Returns the step that was sent last, and its prices.
pub(super) fn last_sent(
    connection: &mut AnyConnection,
    key: &str,
) -> Result<Option<(i32, String)>, Failure> {
    Ok(signed_transactions::table
        .filter(signed_transactions::transfer_id.eq(key))
        .filter(signed_transactions::sent_at.is_not_null())
        .order(signed_transactions::step.desc())
        .select((signed_transactions::step, signed_transactions::fees))
        .first(connection)
        .optional()?)
}

fn paying_nothing(transfer: &Transfer) -> Transfer {
    Transfer { value: Units::default(), token: None, ..transfer.clone() }
}
