//! What an account paid and received, from outside too, in pages that turn both ways.

use std::fmt;
use std::str::FromStr;

use diesel::prelude::*;
use kms_chain::follower::ExternalDeposit;
use kms_chain::transfer::Transfer;
use kms_core::ports::StoreError;
use kms_types::{AccountId, IncomingId, Timestamp, TransferId};

use super::row::Row;
use super::with_raises;
use crate::database::{AnyConnection, Database, Failure};
use crate::deposits;
use crate::schema::transfers;

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryEntry {
    /// A transfer of this system.
    Transfer(Box<Transfer>),
    /// A payment that this system did not send.
    Deposit {
        /// Its id.
        id: IncomingId,
        /// When it was recorded.
        at: Timestamp,
        /// The payment.
        deposit: ExternalDeposit,
    },
}

/// A place between lines. Its text is for whoever was given it, and means nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryPlace {
    at: Timestamp,
    id: String,
}

/// The text is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a place that a page of the history gave")]
pub struct NotAPlace;

/// Which part of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The newest lines.
    Newest,
    /// The newest that are older than this.
    Before(HistoryPlace),
    /// The oldest that are newer than this.
    After(HistoryPlace),
}

impl HistoryEntry {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> HistoryPlace {
        match self {
            Self::Transfer(transfer) => {
                HistoryPlace { at: transfer.created_at, id: transfer.id.to_string() }
            }
            Self::Deposit { id, at, .. } => HistoryPlace { at: *at, id: id.to_string() },
        }
    }
}

impl fmt::Display for HistoryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.0, self.id)
    }
}

impl FromStr for HistoryPlace {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (at, id) = text.split_once('.').ok_or(NotAPlace)?;
        // Every id in a history has the form of a transfer's.
        let id: TransferId = id.parse().map_err(|_other| NotAPlace)?;
        let at = at.parse().map_err(|_other| NotAPlace)?;
        Ok(Self { at: Timestamp(at), id: id.to_string() })
    }
}

impl Database {
    /// The account's transfers that are at least signed, those that paid it, and payments from
    /// outside: at most `limit` of them, newest first.
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
                // Those next to the place are the oldest.
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
        Page::Before(HistoryPlace { at, id }) => all
            .filter(
                transfers::created_at
                    .lt(at.0)
                    .or(transfers::created_at.eq(at.0).and(transfers::id.lt(id))),
            )
            .order((transfers::created_at.desc(), transfers::id.desc()))
            .select(Row::as_select())
            .load(connection)?,
        Page::After(HistoryPlace { at, id }) => all
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
    with_raises(connection, &mut found)?;
    Ok(found)
}

impl HistoryPlace {
    pub(crate) fn at(&self) -> i64 {
        self.at.0
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}
