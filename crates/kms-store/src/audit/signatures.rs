//! What the audit holds of the payments that an account signed: rows that another program wrote or
//! removed are distinguished by it.

use diesel::backend::Backend;
use diesel::dsl::AsExprOf;
use diesel::prelude::*;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use kms_core::ServerKeys;
use kms_core::audit::{Action, Chaining};
use kms_types::{AccountId, Timestamp, TransferId};

use super::{AuditRow, Columns};
use crate::database::{AnyConnection, CachedSql, Failure, cached_query, identified_sql};
use crate::schema::audit;

#[derive(QueryableByName)]
struct Sent {
    #[diesel(sql_type = Text)]
    transfer: String,
}

/// Returns the transfers that the account signed since a time, by an index of these records alone:
/// how many there are in a day is bounded by the limit on quotes.
pub(crate) fn sent_since(
    connection: &mut AnyConnection,
    account: AccountId,
    since: Timestamp,
) -> Result<Vec<String>, Failure> {
    // In the wording of the index.
    let sent: Vec<Sent> = cached_query(
        "select subject as transfer from audit where account_id = $1 and action = 'send' \
         and phase = 'outcome' and outcome = 'ok' and at > $2 and subject is not null",
    )
    .bind::<Text, _>(account.to_string())
    .bind::<BigInt, _>(since.0)
    .load(connection)?;
    Ok(sent.into_iter().map(|sent| sent.transfer).collect())
}

/// Whether a transfer was signed. The subject is that of its action.
pub(crate) const WAS_SIGNED: &str = "exists (select 1 from audit where subject = $1 \
     and action = 'send' and phase = 'outcome' and outcome = 'ok')";

/// Whether a transfer was signed, as a column of the statement that reads it.
pub(crate) fn was_signed<DB>(transfer: TransferId) -> CachedSql<DB, Bool, WasSigned>
where
    DB: Backend,
    AsExprOf<Option<String>, Nullable<Text>>: QueryFragment<DB>,
{
    identified_sql(WAS_SIGNED).bind::<Nullable<Text>, _>(Action::Send(transfer).subject())
}

/// [`WAS_SIGNED`].
#[derive(QueryId)]
pub(crate) struct WasSigned;

/// Returns the records that the account signed these transfers, as far as a holder of the audit key
/// wrote them.
pub(crate) fn signatures(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    account: AccountId,
    transfers: Vec<String>,
) -> Result<Vec<AuditRow>, Failure> {
    let rows: Vec<Columns> = audit::table
        .filter(audit::subject.eq_any(transfers))
        .filter(audit::account_id.eq(account.to_string()))
        .filter(audit::action.eq("send"))
        .filter(audit::phase.eq("outcome"))
        .filter(audit::outcome.eq("ok"))
        .select(Columns::as_select())
        .load(connection)?;
    let is_authentic = |row: &AuditRow| match row.chaining {
        Chaining::Linked(link) => link.verify(&row.entry(), &keys.audit).is_ok(),
        Chaining::Malformed => false,
    };
    Ok(rows.into_iter().map(AuditRow::from).filter(is_authentic).collect())
}
