//! Signing, in one transaction with the nonce and the reserved amount. Must never sign what the
//! balances do not cover at the maximum fee, nor with a nonce that another transfer has.

use std::time::Duration;

use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use kms_chain::ports::{ChainView, Sign, SignOutcome, SignedBytes};
use kms_chain::spending::{HOUR, SpendingRules};
use kms_chain::state::{self, Change};
use kms_chain::transfer::{
    MAX_IN_FLIGHT, Missing, Outgoing, TransactionKind, Transfer, TransferState,
};
use kms_core::ServerKeys;
use kms_core::account::{Account, AccountState};
use kms_core::audit::Action;
use kms_types::{Timestamp, TokenAmount, TransferId, Units, Wei};

use super::expiry::{expire, lock};
use super::reserving::{free_nonce, gap, in_flight};
use super::row::{Row, to_i64};
use super::standing::{Standing, standing};
use super::{changed, checks, spending_limits, spends};
use crate::audit::WAS_SIGNED;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure, Writes, add_write, cached_query};
use crate::dialect::Dialect;
use crate::rate_limits;
use crate::schema::{events, signed_transactions, spends as spends_table, transfer_checks};

/// Signs a transfer in a transaction.
pub(super) fn sign(
    connection: &mut AnyConnection,
    store: (Dialect, &ServerKeys),
    id: TransferId,
    view: ChainView,
    rules: &SpendingRules,
    now: Timestamp,
    sign: Sign,
) -> Result<SignOutcome, Failure> {
    let work = |connection: &mut _| sign_within(connection, store, id, view, rules, now, sign);
    match connection.transaction(work) {
        Err(Failure::Diesel(Error::RollbackTransaction)) => Ok(SignOutcome::RolledBack),
        done => done,
    }
}

fn sign_within(
    connection: &mut AnyConnection,
    (dialect, keys): (Dialect, &ServerKeys),
    id: TransferId,
    view: ChainView,
    rules: &SpendingRules,
    now: Timestamp,
    sign: Sign,
) -> Result<SignOutcome, Failure> {
    let key = id.to_string();
    let row = RowRef { table: "transfers", key: &key };
    let missing = || Failure::Store(row.corrupt("no such transfer, or its sender has no wallet"));
    // Before a signature exists: a later cancellation waits, and after an earlier one nothing is
    // signed.
    let locked = lock(connection, (dialect, keys), id)?.ok_or_else(missing)?;
    let transfer = locked.transfer;
    if transfer.state != TransferState::Quoted {
        return Ok(SignOutcome::NotQuoted(Box::new(transfer)));
    }
    if locked.was_signed {
        return Ok(SignOutcome::RolledBack);
    }
    if locked.is_past {
        expire(connection, dialect, id)?;
        return Ok(SignOutcome::Expired);
    }
    let recovered = match check_sender(&transfer, &locked.sender, sign.wallet_version) {
        SenderCheck::Allowed { recovered_at } => recovered_at,
        SenderCheck::NotActive => return Ok(SignOutcome::NotActive),
        SenderCheck::WalletChanged => return Ok(SignOutcome::WalletChanged),
    };
    let Standing { others, own } = standing(connection, keys, &transfer, view.mined)?;
    if let Some(nonce) = others.iter().find_map(Row::final_nonce) {
        return Ok(SignOutcome::Contradicted { nonce });
    }
    let gap = gap(connection, &others, view.mined)?;
    let nonce = gap.unwrap_or_else(|| free_nonce(&others, view.nonce));
    if in_flight(&others, view.mined..nonce) >= MAX_IN_FLIGHT {
        return Ok(SignOutcome::TooManyInFlight);
    }
    let mut needed = super::outgoing(others)?;
    needed.add(&transfer);
    if let Some(missing) = shortfall(&needed, &transfer, view) {
        return Ok(SignOutcome::Insufficient { missing });
    }
    let checked = (&transfer, recovered, own);
    if let Some(over) = spending_limits::over_limit(connection, keys, checked, rules, now)? {
        return Ok(SignOutcome::OverLimit(over));
    }
    // Last of all locks, and of all refusals: what is refused takes nothing.
    if let Some(after) = take_outflow(connection, dialect, &transfer, rules)? {
        return Ok(SignOutcome::OverOutflow { after });
    }
    let nonce_column: i64 = row.convert(nonce)?;
    let signed = (sign.ladder)(nonce);
    let tx_hash = signed.first.tx_hash;
    let payments = [signed.first].into_iter().chain(signed.replacements);
    let transactions = signed_rows(&key, 0, payments, signed.cancellation, (view.block, now));
    let spend = spends::reserved(keys, &transfer, now)?;
    // In case that the broadcast fails, or this server.
    let check = checks::first(&transfer, now.plus(Duration::from_secs(1)));
    let event = changed(id, spends::sender(&transfer)?, now);
    let after = state::after(TransferState::Quoted, Change::Sign).ok_or(Error::NotFound)?;
    // The audit once more: this statement sees what was committed before the lock was granted.
    let record = format!(
        "update transfers set state = $2, nonce = $3, tx_hash = $4 where id = $5 and state = $6 \
         and not {WAS_SIGNED}"
    );
    let mut writes = Writes::new(connection);
    // One each: diesel caches no insert of several rows.
    for transaction in transactions {
        add_write!(writes, diesel::insert_into(signed_transactions::table).values(transaction));
    }
    add_write!(writes, diesel::insert_into(spends_table::table).values(spend));
    add_write!(writes, diesel::insert_into(transfer_checks::table).values(check));
    add_write!(writes, diesel::insert_into(events::table).values(event));
    add_write!(
        writes,
        cached_query(record)
            .bind::<Nullable<Text>, _>(Action::Send(id).subject())
            .bind::<Text, _>(after.as_str())
            .bind::<BigInt, _>(nonce_column)
            .bind::<Binary, _>(tx_hash.to_vec())
            .bind::<Text, _>(key)
            .bind::<Text, _>(TransferState::Quoted.as_str())
    );
    if writes.finish()? != 1 {
        // It is locked, and was a quote: so the audit has it. Nothing may be signed.
        return Err(Error::RollbackTransaction.into());
    }
    let (state, nonce) = (TransferState::Signed, Some(nonce));
    let signed = Transfer { state, nonce, tx_hash: Some(tx_hash), ..transfer };
    Ok(SignOutcome::Signed(Box::new(signed)))
}

/// Takes the amount from what all accounts together may send, or returns when it fits.
fn take_outflow(
    connection: &mut AnyConnection,
    dialect: Dialect,
    transfer: &Transfer,
    rules: &SpendingRules,
) -> Result<Option<Duration>, Failure> {
    let asset = transfer.asset();
    let Some(part) = rules.part_of_an_hour(asset, transfer.value) else { return Ok(None) };
    let key = format!("outflow:{asset}");
    Ok(rate_limits::take_part_within(connection, dialect, &key, (part, HOUR))?.err())
}

/// A transaction that was signed for a transfer.
#[derive(Insertable)]
#[diesel(table_name = signed_transactions, treat_none_as_default_value = false)]
pub(super) struct SignedRow {
    transfer_id: String,
    step: i32,
    kind: &'static str,
    fees: String,
    tx_hash: Vec<u8>,
    sealed: Vec<u8>,
    sent_at: Option<i64>,
    sent_block: Option<i64>,
}

/// The transactions that were signed for a transfer, from this step on. The first one counts as
/// sent: it is broadcast after the commit.
pub(super) fn signed_rows(
    key: &str,
    first_step: i32,
    payments: impl Iterator<Item = SignedBytes>,
    cancellation: SignedBytes,
    (block, now): (u64, Timestamp),
) -> Vec<SignedRow> {
    let payments = payments.map(|signed| (TransactionKind::Payment, signed));
    let all = payments.chain([(TransactionKind::Cancellation, cancellation)]);
    let row = |(step, (kind, signed)): (i32, (TransactionKind, SignedBytes))| {
        let is_first = step == first_step;
        SignedRow {
            transfer_id: key.to_owned(),
            step,
            kind: kind.as_str(),
            fees: signed.fees.to_string(),
            tx_hash: signed.tx_hash.to_vec(),
            sealed: signed.sealed,
            sent_at: is_first.then_some(now.0),
            sent_block: is_first.then_some(to_i64(block)),
        }
    };
    (first_step..).zip(all).map(row).collect()
}

/// Whether the sender's wallet may still be used.
pub(super) enum SenderCheck {
    Allowed {
        /// When the account was last recovered.
        recovered_at: Option<Timestamp>,
    },
    /// The account is frozen, or has another wallet.
    NotActive,
    /// The password was replaced after the wallet was opened.
    WalletChanged,
}

pub(super) fn check_sender(
    transfer: &Transfer,
    sender: &Account,
    wallet_version: i64,
) -> SenderCheck {
    if sender.wallet.address != transfer.from.address {
        SenderCheck::NotActive
    } else if sender.allows(wallet_version) {
        SenderCheck::Allowed { recovered_at: sender.recovered_at }
    } else if sender.state == AccountState::Active {
        SenderCheck::WalletChanged
    } else {
        SenderCheck::NotActive
    }
}

/// Returns what the balances do not cover, the token first.
pub(super) fn shortfall(
    needed: &Outgoing,
    transfer: &Transfer,
    view: ChainView,
) -> Option<Missing> {
    if let Some(token) = &transfer.token
        && let Some(units) = needed.of(token).checked_sub(view.token)
        && units > Units::default()
    {
        return Some(Missing::Token(TokenAmount { token: token.clone(), units }));
    }
    let wei = needed.wei.checked_sub(view.balance).filter(|wei| *wei > Wei::default())?;
    Some(Missing::Native(wei))
}
