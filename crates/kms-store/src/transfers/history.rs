//! The history of an account: transfers and external deposits, in pages of both directions.

use std::fmt;
use std::str::FromStr;

use diesel::prelude::*;
use kms_chain::follower::ExternalDeposit;
use kms_chain::transfer::Transfer;
use kms_core::ports::StoreError;
use kms_types::{AccountId, DepositId, Timestamp, TransferId};

use super::row::Row;
use super::with_replacements;
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
            let transfers = transfers_of(connection, account, &page, limit)?;
            let outside = deposits::received(connection, account, &page, limit)?;
            let mut found: Vec<_> = transfers
                .into_iter()
                .map(|transfer| HistoryEntry::Transfer(Box::new(transfer)))
                .chain(outside)
                .map(|entry| (entry.place(), entry))
                .collect();
            found.sort_by(|(one, _), (other, _)| other.cmp(one));
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            if matches!(page, Page::After(_)) {
                // The oldest entries are adjacent to the position.
                found.drain(..found.len().saturating_sub(limit));
            }
            found.truncate(limit);
            Ok(found.into_iter().map(|(_, entry)| entry).collect())
        })
        .await
    }
}

fn transfers_of(
    connection: &mut AnyConnection,
    account: AccountId,
    page: &Page,
    limit: u32,
) -> Result<Vec<Transfer>, Failure> {
    let key = account.to_string();
    let sent = transfers::from_account.eq(key.clone()).and(transfers::state.eq_any([
        "signed",
        "broadcast",
        "mined",
        "final",
        "failed",
    ]));
    let received = transfers::to_account
        .assume_not_null()
        .eq(key)
        .and(transfers::state.eq_any(["mined", "final"]))
        .and(transfers::to_account.is_not_null());
    let all = transfers::table.filter(sent.or(received)).limit(limit.into());
    let rows: Vec<Row> = match page {
        Page::Newest => all
            .order((transfers::created_at.desc(), transfers::id.desc()))
            .select(Row::as_select())
            .load(connection)?,
        Page::Before(HistoryCursor { at, id }) => all
            .filter(
                transfers::created_at
                    .lt(at.0)
                    .or(transfers::created_at.eq(at.0).and(transfers::id.lt(id))),
            )
            .order((transfers::created_at.desc(), transfers::id.desc()))
            .select(Row::as_select())
            .load(connection)?,
        Page::After(HistoryCursor { at, id }) => all
            .filter(
                transfers::created_at
                    .gt(at.0)
                    .or(transfers::created_at.eq(at.0).and(transfers::id.gt(id))),
            )
            .order((transfers::created_at.asc(), transfers::id.asc()))
            .select(Row::as_select())
            .load(connection)?,
    };
    let mut found = rows.into_iter().map(Row::parse).collect::<Result<Vec<_>, _>>()?;
    with_replacements(connection, &mut found)?;
    Ok(found)
}

impl HistoryCursor {
    pub(crate) fn at(&self) -> i64 {
        self.at.0
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}
