//! Quotes expire by the database's clock, and a transfer is locked before it is signed.

use diesel::prelude::*;
use diesel::query_builder::QueryId;
use diesel::result::Error;
use diesel::sql_types::BigInt;
use kms_chain::state::{self, Change};
use kms_chain::transfer::{Transfer, TransferState};
use kms_core::ServerKeys;
use kms_core::account::Account;
use kms_core::ports::StoreError;
use kms_types::TransferId;

use super::row::Row;
use super::{find, with_progress, with_proofs};
use crate::accounts::rows as account_rows;
use crate::audit;
use crate::database::{AnyConnection, Failure, identified_sql, on_own};
use crate::dialect::Dialect;
use crate::schema::{accounts, transfers, wallets};

/// The text of the database's clock.
#[derive(QueryId)]
struct Clock;

/// Whether a transfer is past the lifetime of a quote by the database's clock.
macro_rules! is_past {
    ($dialect:expr) => {
        transfers::expires_at.le(identified_sql::<_, BigInt, Clock>($dialect.clock()))
    };
}

/// A transfer and the account of its sender, whose rows are locked until the transaction ends: one
/// transfer of a wallet is signed at a time; and a freeze, a change of password or a recovery that
/// is committed before the signature is seen, and every other one waits.
pub(super) struct Locked {
    pub(super) transfer: Transfer,
    /// Whether it is past the lifetime of a quote by the database's clock.
    pub(super) is_past: bool,
    /// Whether the audit had that it was signed, when this began to wait for the lock.
    pub(super) was_signed: bool,
    pub(super) sender: Account,
}

/// Reads and locks a transfer, then the account of its sender.
pub(super) fn lock(
    connection: &mut AnyConnection,
    (dialect, keys): (Dialect, &ServerKeys),
    id: TransferId,
) -> Result<Option<Locked>, Failure> {
    macro_rules! with_sender {
        () => {{
            let wallet = wallets::account_id.eq(transfers::from_account);
            transfers::table
                .inner_join(accounts::table.on(accounts::id.eq(transfers::from_account)))
                .inner_join(wallets::table.on(wallet))
                .filter(transfers::id.eq(id.to_string()))
                .select((
                    Row::as_select(),
                    is_past!(dialect),
                    audit::was_signed(id),
                    account_rows::columns!(),
                ))
        }};
    }
    let found: Option<(Row, bool, bool, account_rows::Row)> = match &mut *connection {
        #[cfg(feature = "postgres")]
        AnyConnection::Postgres(connection) => {
            with_sender!().for_no_key_update().get_result(connection).optional()?
        }
        #[cfg(feature = "sqlite")]
        AnyConnection::Sqlite(connection) => {
            // An update without effect: a transaction that starts with a read cannot become the
            // writer after another transaction has written.
            diesel::update(transfers::table.find(id.to_string()))
                .set(transfers::state.eq(transfers::state))
                .execute(connection)?;
            with_sender!().first(connection).optional()?
        }
    };
    let Some((row, is_past, was_signed, sender)) = found else { return Ok(None) };
    let sender = account_rows::parse(sender, keys)?;
    Ok(Some(Locked { transfer: whole(connection, row)?, is_past, was_signed, sender }))
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
        .filter(is_past!(dialect));
    let changed = diesel::update(row).set(transfers::state.eq(expired.as_str()));
    Ok(changed.execute(connection)? == 1)
}

/// Returns a transfer, after a quote that is past its lifetime has expired.
///
/// Fails for a quote that the audit has as signed: it would look as if nothing was paid.
pub(super) fn find_current(
    connection: &mut AnyConnection,
    dialect: Dialect,
    id: TransferId,
) -> Result<Option<Transfer>, Failure> {
    let found = find_to_sign(connection, dialect, id)?;
    if let Some((Transfer { state: TransferState::Quoted, .. }, true)) = found {
        return Err(StoreError::Tampered { table: "transfers", key: id.to_string() }.into());
    }
    Ok(found.map(|(transfer, _)| transfer))
}

/// Like [`find_current`], with whether the audit has that the transfer was signed. A quote that was
/// does not expire.
pub(super) fn find_to_sign(
    connection: &mut AnyConnection,
    dialect: Dialect,
    id: TransferId,
) -> Result<Option<(Transfer, bool)>, Failure> {
    macro_rules! with_signature {
        () => {
            transfers::table.find(id.to_string()).select((
                Row::as_select(),
                is_past!(dialect),
                audit::was_signed(id),
            ))
        };
    }
    let found: Result<(Row, bool, bool), _> =
        on_own!(connection, with_signature!().first(connection));
    let Some((row, is_past, was_signed)) = found.optional()? else { return Ok(None) };
    let transfer = whole(connection, row)?;
    if transfer.state == TransferState::Quoted && is_past && !was_signed {
        expire(connection, dialect, id)?;
        return Ok(find(connection, id)?.map(|transfer| (transfer, was_signed)));
    }
    Ok(Some((transfer, was_signed)))
}
