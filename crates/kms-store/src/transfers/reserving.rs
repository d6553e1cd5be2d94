//! What a wallet's transfers reserve: their nonces, and what they may take of its balances.

use std::ops::Range;

use diesel::prelude::*;
use kms_chain::transfer::{Outgoing, WaitReason};
use kms_types::EthAddress;

use super::row::{Row, to_i64};
use crate::database::{AnyConnection, Failure};
use crate::schema::{settlements, transfer_waits, transfers};

/// Whether a transfer of a wallet counts against its balance, unless a block settled it.
macro_rules! is_reserving {
    ($chain_id:expr, $address:expr, $mined:expr) => {{
        use kms_chain::transfer::{MAX_IN_FLIGHT, TransferState};
        let pending = [TransferState::Signed, TransferState::Broadcast].map(TransferState::as_str);
        let earlier = $mined.saturating_sub(MAX_IN_FLIGHT.into());
        let nonce = transfers::nonce.assume_not_null();
        // The partial index is not used unless the nonce is said not to be null.
        transfers::chain_id
            .eq($chain_id)
            .and(transfers::from_address.eq($address))
            .and(transfers::nonce.is_not_null())
            .and(nonce.ge(to_i64(earlier)))
            .and(nonce.ge(to_i64($mined)).or(transfers::state.eq_any(pending)))
    }};
}
pub(super) use is_reserving;

/// Returns every transfer of the wallet with a nonce from `mined` on, whatever its state, in the
/// order of nonces: what is below is in the balance, and what is not below may not be. Also the
/// earlier ones that may be pending although the chain's count says that they are mined: no block
/// that was read has settled them. The count is the word of one endpoint, and one that is too high
/// must not release what they take.
pub(super) fn reserving(
    connection: &mut AnyConnection,
    chain_id: i64,
    address: &str,
    mined: u64,
) -> Result<Vec<Row>, Failure> {
    let reserving = transfers::table
        .filter(is_reserving!(chain_id, address, mined))
        .order(transfers::nonce)
        .select(Row::as_select())
        .load(connection)?;
    unsettled(connection, reserving, mined)
}

/// Leaves out the transfers that the chain's count includes and that a block settled.
pub(super) fn unsettled(
    connection: &mut AnyConnection,
    mut reserving: Vec<Row>,
    mined: u64,
) -> Result<Vec<Row>, Failure> {
    let is_counted = |row: &Row| row.nonce().is_some_and(|nonce| nonce < mined);
    let counted: Vec<_> =
        reserving.iter().filter(|row| is_counted(row)).map(|row| row.id.clone()).collect();
    if counted.is_empty() {
        return Ok(reserving);
    }
    let settled: Vec<String> = settlements::table
        .filter(settlements::transfer_id.eq_any(counted))
        .select(settlements::transfer_id)
        .load(connection)?;
    reserving.retain(|row| !is_counted(row) || !settled.contains(&row.id));
    Ok(reserving)
}

/// Returns the nonce that the chain takes next, if none of these transfers has it and a later one
/// waits for an earlier transaction: a transaction from elsewhere with the wallet's key is not
/// mined, or the nodes dropped it, and only a payment with its nonce ends the wait. A later nonce
/// that no transfer has may be that of a transaction that waits as the transfers do. The transfers
/// are in the order of nonces.
pub(super) fn gap(
    connection: &mut AnyConnection,
    others: &[Row],
    mined: u64,
) -> Result<Option<u64>, Failure> {
    let gap = free_nonce(others, mined);
    if gap != mined {
        return Ok(None);
    }
    let later: Vec<_> = holders(others).filter(|(_, nonce)| *nonce > gap).collect();
    if later.is_empty() {
        return Ok(None);
    }
    let later = later.into_iter().map(|(row, _)| row.id.clone());
    let waiting: i64 = transfer_waits::table
        .filter(transfer_waits::transfer_id.eq_any(later.collect::<Vec<_>>()))
        .filter(transfer_waits::reason.eq(WaitReason::EarlierTransfer.as_str()))
        .count()
        .get_result(connection)?;
    Ok((waiting > 0).then_some(gap))
}

/// Counts the transfers that hold one of these nonces.
pub(super) fn in_flight(others: &[Row], nonces: Range<u64>) -> u32 {
    let held = holders(others).filter(|(_, nonce)| nonces.contains(nonce)).count();
    u32::try_from(held).unwrap_or(u32::MAX)
}

/// What is counted of a wallet's transfers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Those that the chain's count does not include.
    Pending,
    /// Those that a signature counts, too.
    Reserved,
}

/// What the wallet's transfers may take, and how many of them with a nonce from `mined` on are
/// before the next one.
pub(super) fn spend(
    connection: &mut AnyConnection,
    chain_id: u64,
    address: EthAddress,
    mined: u64,
    counted: Counted,
) -> Result<Outgoing, Failure> {
    let mut others = reserving(connection, to_i64(chain_id), &address.to_lower_hex(), mined)?;
    if counted == Counted::Pending {
        others.retain(|row| row.nonce().is_some_and(|nonce| nonce >= mined));
    }
    summed_up(connection, others, mined)
}

pub(super) fn summed_up(
    connection: &mut AnyConnection,
    others: Vec<Row>,
    mined: u64,
) -> Result<Outgoing, Failure> {
    let next = gap(connection, &others, mined)?.unwrap_or(u64::MAX);
    let in_flight = in_flight(&others, mined..next);
    Ok(Outgoing { in_flight, ..super::outgoing(others)? })
}

/// The transfers that hold their nonces, with these.
fn holders(rows: &[Row]) -> impl Iterator<Item = (&Row, u64)> {
    let holders = rows.iter().filter(|row| row.nonce_held.is_some());
    holders.filter_map(|row| row.nonce().map(|nonce| (row, nonce)))
}

/// Returns the first nonce from `floor` on that none of these transfers has. They are in the order
/// of nonces.
pub(super) fn free_nonce(taken: &[Row], floor: u64) -> u64 {
    let mut free = floor;
    for (_, nonce) in holders(taken) {
        if nonce > free {
            break;
        }
        if nonce == free {
            free = nonce.saturating_add(1);
        }
    }
    free
}
