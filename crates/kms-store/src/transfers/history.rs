//! The history of an account: transfers and external deposits, in pages of both directions.

use std::fmt;
use std::str::FromStr;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_chain::follower::ExternalDeposit;
use kms_chain::transfer::Transfer;
use kms_core::ports::StoreError;
use kms_types::{AccountId, DepositId, Timestamp, TransferId};

use super::row::Row;
use super::{with_progress, with_proofs};
use crate::database::{AnyConnection, Database, Failure};
use crate::deposits;
use crate::schema::transfers;

/// An entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryEntry {
    /// A transfer of this system.
    Transfer(Box<Transfer>),
    /// A payment that this system did not send.
    Deposit {
        /// Its id.
        id: DepositId,
        /// When it was recorded.
        at: Timestamp,
        /// The payment.
        deposit: ExternalDeposit,
    },
}

/// A position between entries. Its text is an opaque cursor for clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryCursor {
    at: Timestamp,
    id: String,
}

/// The text is not a cursor of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a cursor from a page of the history")]
pub struct HistoryCursorError;

/// A page of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The newest entries.
    Newest,
    /// The newest entries before this position.
    Before(HistoryCursor),
    /// The oldest entries after this position.
    After(HistoryCursor),
}

impl HistoryEntry {
    /// Returns the position of the entry.
    #[must_use]
    pub fn place(&self) -> HistoryCursor {
        match self {
            Self::Transfer(transfer) => {
                HistoryCursor { at: transfer.created_at, id: transfer.id.to_string() }
            }
            Self::Deposit { id, at, .. } => HistoryCursor { at: *at, id: id.to_string() },
        }
    }
}

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.0, self.id)
    }
}

impl FromStr for HistoryCursor {
    type Err = HistoryCursorError;

    fn from_str(text: &str) -> Result<Self, HistoryCursorError> {
        let (at, id) = text.split_once('.').ok_or(HistoryCursorError)?;
        // The ids of transfers and of deposits have the same form.
        let id: TransferId = id.parse().map_err(|_other| HistoryCursorError)?;
        let at = at.parse().map_err(|_other| HistoryCursorError)?;
        Ok(Self { at: Timestamp(at), id: id.to_string() })
    }
}

impl Database {
    /// Lists the outgoing transfers of an account that were signed, its incoming transfers that
    /// were mined, and its external deposits, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn history(
        &self,
        account: AccountId,
        page: Page,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        self.blocking(move |connection| {
            let places = places(connection, account, &page, limit)?;
            let of_kind = |kind: &str| {
                let places = places.iter().filter(|place| place.kind == kind);
                places.map(|place| place.id.clone()).collect::<Vec<_>>()
            };
            let transfers = transfers_of(connection, of_kind("transfer"))?;
            let deposits = deposits::entries(connection, of_kind("deposit"))?;
            let transfers =
                transfers.into_iter().map(|found| HistoryEntry::Transfer(Box::new(found)));
            let mut found: Vec<_> =
                transfers.chain(deposits).map(|entry| (entry.place(), entry)).collect();
            found.sort_by(|(one, _), (other, _)| other.cmp(one));
            Ok(found.into_iter().map(|(_, entry)| entry).collect())
        })
        .await
    }
}

/// Where entries come from: what they are, their table, the column of their time, and a condition
/// in the wording of an index.
const SOURCES: [(&str, &str, &str, &str); 3] = [
    ("transfer", "transfers", "created_at", "from_account = $1 and tx_hash is not null"),
    ("transfer", "transfers", "created_at", "to_account = $1 and state in ('mined', 'final')"),
    ("deposit", "external_deposits", "recorded_at", "account_id = $1 and digest_id is null"),
];

/// The place of an entry.
#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    id: String,
}

/// Finds the entries of a page. Reads no more rows of each source than the page has.
fn places(
    connection: &mut AnyConnection,
    account: AccountId,
    page: &Page,
    limit: u32,
) -> Result<Vec<Place>, Failure> {
    let newest = HistoryCursor { at: Timestamp(i64::MAX), id: String::new() };
    let (cursor, side, order) = match page {
        Page::Newest => (&newest, "<", "desc"),
        Page::Before(cursor) => (cursor, "<", "desc"),
        Page::After(cursor) => (cursor, ">", "asc"),
    };
    let sources = SOURCES.map(|(kind, table, at, condition)| {
        format!(
            "select * from (select '{kind}' as kind, id, {at} as at from {table} \
             where {condition} and {at} {side}= $2 and ({at} {side} $2 or id {side} $3) \
             order by {at} {order}, id {order} limit $4) as {kind}_page"
        )
    });
    let query = format!("{} order by at {order}, id {order} limit $4", sources.join(" union all "));
    let places = diesel::sql_query(query)
        .bind::<Text, _>(account.to_string())
        .bind::<BigInt, _>(cursor.at.0)
        .bind::<Text, _>(&cursor.id)
        .bind::<BigInt, _>(i64::from(limit))
        .load(connection)?;
    Ok(places)
}

fn transfers_of(
    connection: &mut AnyConnection,
    ids: Vec<String>,
) -> Result<Vec<Transfer>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = transfers::table
        .filter(transfers::id.eq_any(ids))
        .select(Row::as_select())
        .load(connection)?;
    let mut found = rows.into_iter().map(Row::parse).collect::<Result<Vec<_>, _>>()?;
    with_progress(connection, &mut found)?;
    with_proofs(connection, &mut found)?;
    Ok(found)
}
