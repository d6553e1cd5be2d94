//! The work queue of the watcher: transfers that are signed and in no block, each with the time of
//! its next check. A table of its own, so that a check writes one small row.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_chain::transfer::Transfer;
use kms_types::Timestamp;

use super::row::to_i64;
use crate::database::{AnyConnection, Failure, cached_query};
use crate::dialect::Dialect;
use crate::schema::transfer_checks;

/// The longest time between two checks. It doubles from a second.
const LONGEST_DELAY: Duration = Duration::from_secs(5 * 60);

/// The number of doublings after which the delay is the longest.
const DOUBLINGS: u32 = 9;

/// A check of a transfer that is inserted.
#[derive(Insertable)]
#[diesel(table_name = transfer_checks, treat_none_as_default_value = false)]
pub(super) struct NewCheck {
    transfer_id: String,
    chain_id: i64,
    next_at: i64,
    done: i32,
}

/// The first check of a transfer that is being signed, which no block can have settled.
pub(super) fn first(transfer: &Transfer, at: Timestamp) -> NewCheck {
    let (transfer_id, chain_id) = (transfer.id.to_string(), to_i64(transfer.chain_id));
    NewCheck { transfer_id, chain_id, next_at: at.0, done: 0 }
}

/// Makes a check due at a time, and the delays after it short again. A transfer that a block
/// settled is not checked.
pub(super) fn schedule(
    connection: &mut AnyConnection,
    transfer: &Transfer,
    at: Timestamp,
) -> Result<(), Failure> {
    let schedule = "insert into transfer_checks (transfer_id, chain_id, next_at, done) \
         select $1, $2, $3, 0 where not exists \
         (select 1 from settlements where transfer_id = $1) \
         on conflict (transfer_id) do update set next_at = excluded.next_at, done = 0";
    diesel::sql_query(schedule)
        .bind::<Text, _>(transfer.id.to_string())
        .bind::<BigInt, _>(to_i64(transfer.chain_id))
        .bind::<BigInt, _>(at.0)
        .execute(connection)?;
    Ok(())
}

/// Makes the checks due of the wallet's later transfers that wait, because a block settled this one
/// for which they wait, or whose amount or place a node counted.
pub(super) fn bring_forward(
    connection: &mut AnyConnection,
    settled: &Transfer,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(nonce) = settled.nonce else { return Ok(()) };
    let forward = "update transfer_checks set next_at = $1, done = 0 where next_at > $1 \
         and transfer_id in (select id from transfers where chain_id = $2 and from_address = $3 \
         and nonce is not null and nonce > $4 and exists (select 1 from transfer_waits \
         where transfer_id = transfers.id))";
    cached_query(forward)
        .bind::<BigInt, _>(now.0)
        .bind::<BigInt, _>(to_i64(settled.chain_id))
        .bind::<Text, _>(settled.from.address.to_lower_hex())
        .bind::<BigInt, _>(to_i64(nonce))
        .execute(connection)?;
    Ok(())
}

/// Ends the checks of a transfer, because a block settled it.
pub(super) fn remove(connection: &mut AnyConnection, transfer: &str) -> Result<(), Failure> {
    diesel::delete(transfer_checks::table.find(transfer)).execute(connection)?;
    Ok(())
}

/// Claims checks that are due, by scheduling the next ones: one update of one row each. A server
/// that dies during a check leaves it to the next one.
pub(super) fn claim(
    connection: &mut AnyConnection,
    dialect: Dialect,
    chain_id: u64,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<String>, Failure> {
    #[derive(QueryableByName)]
    struct Claimed {
        #[diesel(sql_type = Text)]
        transfer_id: String,
    }
    let (least, skip_locked) = (dialect.least(), dialect.skip_locked());
    let longest = LONGEST_DELAY.as_millis();
    let claim = format!(
        "with due as materialized (select transfer_id from transfer_checks \
         where chain_id = $1 and next_at <= $2 order by next_at limit $3 {skip_locked}) \
         update transfer_checks set done = done + 1, \
         next_at = $2 + {least}(1000 * (1 << {least}(done, {DOUBLINGS})), {longest}) \
         where transfer_id in (select transfer_id from due) returning transfer_id"
    );
    let claimed: Vec<Claimed> = diesel::sql_query(claim)
        .bind::<BigInt, _>(to_i64(chain_id))
        .bind::<BigInt, _>(now.0)
        .bind::<BigInt, _>(i64::from(limit))
        .load(connection)?;
    Ok(claimed.into_iter().map(|claimed| claimed.transfer_id).collect())
}
