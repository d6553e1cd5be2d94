//! Transfers whose check is due, read with their signed transactions.

use diesel::prelude::*;
use kms_chain::ports::{Due, Sent, SignedTx};
use kms_chain::transfer::Transfer;
use kms_core::ServerKeys;
use kms_core::account::AccountState;
use kms_core::ports::StoreError;
use kms_types::Timestamp;

use super::checks;
use super::row::Row;
use crate::accounts::rows as account_rows;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure};
use crate::dialect::Dialect;
use crate::schema::{signed_transactions, transfers};

pub(super) fn claim_due(
    connection: &mut AnyConnection,
    (dialect, keys): (Dialect, &ServerKeys),
    chain_id: u64,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Due>, Failure> {
    let ids = checks::claim(connection, dialect, chain_id, now, limit)?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let claimed: Vec<Row> = transfers::table
        .filter(transfers::id.eq_any(ids.clone()))
        .order((transfers::nonce, transfers::id))
        .select(Row::as_select())
        .load(connection)?;
    let senders = claimed.iter().map(|row| row.from_account.clone()).collect();
    let states = account_rows::states(connection, senders, keys)?;
    let waits = super::waits(connection, &ids)?;
    let steps: Vec<SignedRow> = signed_transactions::table
        .filter(signed_transactions::transfer_id.eq_any(ids))
        .order((signed_transactions::transfer_id, signed_transactions::step))
        .select(SignedRow::as_select())
        .load(connection)?;
    let mut due = Vec::with_capacity(claimed.len());
    for row in claimed {
        let id = row.id.clone();
        // Nothing is sent for an account that fails its integrity check, and nothing is cancelled.
        let Some(state) = states.get(&row.from_account) else { continue };
        let sender_frozen = *state != AccountState::Active;
        match parse(row, steps.iter().filter(|step| step.transfer_id == id)) {
            Ok((mut transfer, first, replacements)) => {
                transfer.wait = waits.get(&id).copied();
                due.push(Due { transfer, first, replacements, sender_frozen });
            }
            // The others proceed even if this row is never repaired.
            Err(error) => {
                tracing::error!(
                    transfer = id,
                    %error,
                    event = "row_unreadable",
                    "unreadable transfer"
                )
            }
        }
    }
    Ok(due)
}

fn parse<'a>(
    row: Row,
    steps: impl Iterator<Item = &'a SignedRow>,
) -> Result<(Transfer, SignedTx, Vec<SignedTx>), StoreError> {
    let key = row.id.clone();
    let transfer = row.parse()?;
    let row = RowRef { table: "signed_transactions", key: &key };
    let mut steps = steps.map(|step| step.parse(row));
    let first = steps.next().ok_or_else(|| row.corrupt("no signed transaction is left"))??;
    Ok((transfer, first, steps.collect::<Result<_, _>>()?))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = signed_transactions)]
struct SignedRow {
    transfer_id: String,
    step: i32,
    kind: String,
    fees: String,
    tx_hash: Vec<u8>,
    sealed: Option<Vec<u8>>,
    sent_at: Option<i64>,
    sent_block: Option<i64>,
}

impl SignedRow {
    fn parse(&self, row: RowRef<'_>) -> Result<SignedTx, StoreError> {
        Ok(SignedTx {
            step: row.convert(self.step)?,
            kind: row.parse(&self.kind)?,
            fees: row.parse(&self.fees)?,
            tx_hash: row.array(&self.tx_hash)?,
            sealed: self
                .sealed
                .clone()
                .ok_or_else(|| row.corrupt("its signed bytes are erased"))?,
            sent: match (self.sent_at, self.sent_block) {
                (Some(at), Some(block)) => {
                    Some(Sent { at: Timestamp(at), block: row.convert(block)? })
                }
                (None, _) | (_, None) => None,
            },
        })
    }
}
