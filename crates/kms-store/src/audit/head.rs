//! The row that holds the end of the chain. An append locks it.

use std::cmp::Ordering;

use diesel::prelude::*;
use kms_core::audit::Tip;
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, integrity_alarm};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure};
use crate::dialect::Dialect;
use crate::schema::{audit, audit_head};

const ROW: RowRef<'_> = RowRef { table: "audit_head", key: "1" };

#[derive(Queryable, Selectable, QueryableByName)]
#[diesel(table_name = audit_head)]
struct Head {
    chain_seq: i64,
    hash: Option<Vec<u8>>,
}

impl Head {
    fn tip(self) -> Result<Tip, StoreError> {
        let hash = self.hash.map(|hash| ROW.array(&hash)).transpose()?;
        Ok(Tip { sequence: self.chain_seq, hash: hash.unwrap_or_default() })
    }
}

/// Reads the end of the chain.
pub(super) fn read(connection: &mut AnyConnection) -> Result<Tip, Failure> {
    let head = audit_head::table.select(Head::as_select()).first(connection).optional()?;
    Ok(head.ok_or_else(|| ROW.corrupt("it is missing"))?.tip()?)
}

/// Reads the end of the chain, and lets no other transaction append before this one ends.
pub(super) fn lock(connection: &mut AnyConnection, dialect: Dialect) -> Result<Tip, Failure> {
    let select = match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => "select chain_seq, hash from audit_head where id = 1 for update",
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            // An update without effect: a transaction that starts with a read cannot become the
            // writer after another transaction has written.
            diesel::sql_query("update audit_head set id = id").execute(connection)?;
            "select chain_seq, hash from audit_head where id = 1"
        }
    };
    let head: Option<Head> = diesel::sql_query(select).get_result(connection).optional()?;
    Ok(head.ok_or_else(|| ROW.corrupt("it is missing"))?.tip()?)
}

/// Stores the end of the chain.
pub(super) fn advance(connection: &mut AnyConnection, tip: Tip) -> Result<(), Failure> {
    let end = (audit_head::chain_seq.eq(tip.sequence), audit_head::hash.eq(tip.hash.to_vec()));
    diesel::update(audit_head::table).set(end).execute(connection)?;
    Ok(())
}

/// Refuses to continue a chain without the row that this process wrote last: the end was cut off or
/// replaced, by another program or by a restore beneath running servers.
pub(super) fn check_continues(
    connection: &mut AnyConnection,
    head: Tip,
    last: Tip,
) -> Result<(), Failure> {
    if last == Tip::default() {
        return Ok(());
    }
    let known = match head.sequence.cmp(&last.sequence) {
        Ordering::Less => None,
        Ordering::Equal => Some(head.hash.to_vec()),
        // Another server has appended since.
        Ordering::Greater => audit::table
            .filter(audit::chain_seq.eq(last.sequence))
            .select(audit::hash)
            .first::<Vec<u8>>(connection)
            .optional()?,
    };
    if known.is_some_and(|known| known == last.hash) {
        return Ok(());
    }
    let what = format_args!("row {} of the audit chain is gone", last.sequence);
    integrity_alarm(what, AlarmContext::default());
    Err(StoreError::Tampered { table: ROW.table, key: ROW.key.to_owned() }.into())
}
