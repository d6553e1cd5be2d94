//! Accounts for which something is due, found past rows that cannot be changed.

use std::sync::{Mutex, PoisonError};

use diesel::prelude::*;
use kms_core::ServerKeys;
use kms_types::{AccountId, Timestamp};

use super::rows::{Row, is_older_than_audit, parse};
use super::searches::After;
use crate::database::{AnyConnection, Failure};

/// Pages that one search reads, so that it ends in time however many rows cannot be changed.
const PAGES: usize = 10;

/// Returns the ids of a page of rows that can be changed. Passes over pages in which no row can be,
/// and logs them; after [`PAGES`] of them, the next search goes on there. `read` returns the rows
/// after a position, and `time` what they are ordered by.
pub(super) fn changeable(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    now: Timestamp,
    next: &Mutex<Option<After>>,
    time: impl Fn(&Row) -> Option<i64>,
    read: impl Fn(&mut AnyConnection, &After) -> QueryResult<Vec<Row>>,
) -> Result<Vec<AccountId>, Failure> {
    let kept = next.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut after = kept.unwrap_or_else(|| After { time: now.0, id: String::new() });
    for _ in 0..PAGES {
        let rows = read(connection, &after)?;
        let Some(last) = rows.last() else { return Ok(Vec::new()) };
        after = After { time: time(last).unwrap_or(i64::MIN), id: last.0.id.clone() };
        let (mut ids, mut unreadable) = (Vec::new(), Vec::new());
        for row in rows {
            match parse(row, keys) {
                Ok(account) if is_older_than_audit(connection, &account)? => {
                    unreadable.push(format!("account {} older than its audit", account.id));
                }
                Ok(account) => ids.push(account.id),
                Err(error) => unreadable.push(error.to_string()),
            }
        }
        if let Some(error) = unreadable.first() {
            let (event, rows) = ("row_unreadable", unreadable.len());
            tracing::error!(event, rows, %error, "accounts unreadable; the error is of the first");
        }
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    *next.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
    Ok(Vec::new())
}
