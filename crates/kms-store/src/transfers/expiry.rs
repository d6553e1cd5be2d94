//! Quotes expire by the database's clock, and a transfer is locked before it is signed.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::BigInt;
use kms_chain::state::{self, Change};
use kms_chain::transfer::{Transfer, TransferState};
use kms_types::TransferId;

use super::row::Row;
use super::{find, with_progress, with_proofs};
use crate::database::{AnyConnection, Failure};
use crate::dialect::Dialect;
use crate::schema::transfers;

/// A transfer, and whether it is past the lifetime of a quote by the database's clock.
macro_rules! with_expiry {
    ($dialect:expr, $id:expr) => {{
        let is_past = transfers::expires_at.le(sql::<BigInt>($dialect.clock()));
        transfers::table.find($id.to_string()).select((Row::as_select(), is_past))
    }};
}

/// Reads a transfer, and whether it is past the lifetime of a quote by the database's clock.
fn find_with_expiry(
    connection: &mut AnyConnection,
    dialect: Dialect,
    id: TransferId,
) -> Result<Option<(Transfer, bool)>, Failure> {
    let found: Option<(Row, bool)> = with_expiry!(dialect, id).first(connection).optional()?;
    found.map(|(row, is_past)| Ok((whole(connection, row)?, is_past))).transpose()
}

/// Reads a transfer as [`find_with_expiry`] does, and locks its row until the transaction ends.
pub(super) fn lock(
    connection: &mut AnyConnection,
    dialect: Dialect,
    id: TransferId,
) -> Result<Option<(Transfer, bool)>, Failure> {
    let found: Option<(Row, bool)> = match &mut *connection {
        #[cfg(feature = "postgres")]
        AnyConnection::Postgres(connection) => {
            with_expiry!(dialect, id).for_no_key_update().get_result(connection).optional()?
        }
        #[cfg(feature = "sqlite")]
        AnyConnection::Sqlite(connection) => {
            // An update without effect: a transaction that starts with a read cannot become the
            // writer after another transaction has written.
            diesel::update(transfers::table.find(id.to_string()))
                .set(transfers::state.eq(transfers::state))
                .execute(connection)?;
            with_expiry!(dialect, id).first(connection).optional()?
        }
    };
    found.map(|(row, is_past)| Ok((whole(connection, row)?, is_past))).transpose()
}

/// A transfer with what other tables have of it.
fn whole(connection: &mut AnyConnection, row: Row) -> Result<Transfer, Failure> {
    let mut transfer = row.parse()?;
    with_progress(connection, std::slice::from_mut(&mut transfer))?;
    with_proofs(connection, std::slice::from_mut(&mut transfer))?;
    Ok(transfer)
}

/// Changes a quote to `expired` that is past its lifetime by the database's clock. Returns whether
/// it did.
pub(super) fn expire(
    connection: &mut AnyConnection,
    dialect: Dialect,
    id: TransferId,
) -> Result<bool, Error> {
    let Some(expired) = state::after(TransferState::Quoted, Change::Expire) else {
        return Ok(false);
    };
    let row = transfers::table
        .filter(transfers::id.eq(id.to_string()))
        .filter(transfers::state.eq(TransferState::Quoted.as_str()))
        .filter(transfers::expires_at.le(sql::<BigInt>(dialect.clock())));
    let changed = diesel::update(row).set(transfers::state.eq(expired.as_str()));
    Ok(changed.execute(connection)? == 1)
}

/// Returns a transfer, after a quote that is past its lifetime has expired.
pub(super) fn find_current(
    connection: &mut AnyConnection,
    dialect: Dialect,
    id: TransferId,
) -> Result<Option<Transfer>, Failure> {
    let found = find_with_expiry(connection, dialect, id)?;
    let Some((transfer, is_past)) = found else { return Ok(None) };
    if transfer.state == TransferState::Quoted && is_past {
        expire(connection, dialect, id)?;
        return find(connection, id);
    }
    Ok(Some(transfer))
}
