//! An append in one statement, if no other process has appended since: PostgreSQL locks the head of
//! the chain, compares it, and writes both, without a transaction of several round trips.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, Text};
use kms_core::audit::Tip;

use super::NewRow;
use crate::database::cached_query;

/// Rows as arrays of columns, so that the text of the statement does not depend on their number.
const APPEND: &str = "with head as (update audit_head set chain_seq = $1, hash = $2 \
     where id = 1 and chain_seq = $3 and hash = $4 returning id) \
     insert into audit (at, actor, request_id, action, subject, account_id, telegram_id, phase, \
     outcome, details, chain_seq, prev_hash, hash, key_id, keyed_hash) \
     select r.* from head, unnest($5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
     $18, $19) as r (at, actor, request_id, action, subject, account_id, telegram_id, phase, \
     outcome, details, chain_seq, prev_hash, hash, key_id, keyed_hash) order by r.chain_seq";

/// Appends rows that end at `tip`, if the chain ends at `last`. Returns whether it did.
pub(super) fn append(
    connection: &mut PgConnection,
    last: Tip,
    tip: Tip,
    rows: &[NewRow],
) -> Result<bool, Error> {
    fn column<T>(rows: &[NewRow], of: impl Fn(&NewRow) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }
    let appended = cached_query(APPEND)
        .bind::<BigInt, _>(tip.sequence)
        .bind::<Binary, _>(tip.hash.to_vec())
        .bind::<BigInt, _>(last.sequence)
        .bind::<Binary, _>(last.hash.to_vec())
        .bind::<Array<BigInt>, _>(column(rows, |row| row.at))
        .bind::<Array<Text>, _>(column(rows, |row| row.actor.clone()))
        .bind::<Array<Text>, _>(column(rows, |row| row.request_id.clone()))
        .bind::<Array<Text>, _>(column(rows, |row| row.action))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.subject.clone()))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.account_id.clone()))
        .bind::<Array<Nullable<BigInt>>, _>(column(rows, |row| row.telegram_id))
        .bind::<Array<Text>, _>(column(rows, |row| row.phase))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.outcome))
        .bind::<Array<Text>, _>(column(rows, |row| row.details.clone()))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.chain_seq))
        .bind::<Array<Binary>, _>(column(rows, |row| row.prev_hash.clone()))
        .bind::<Array<Binary>, _>(column(rows, |row| row.hash.clone()))
        .bind::<Array<Integer>, _>(column(rows, |row| row.key_id))
        .bind::<Array<Binary>, _>(column(rows, |row| row.keyed_hash.clone()))
        .execute(connection)?;
    Ok(appended == rows.len())
}
