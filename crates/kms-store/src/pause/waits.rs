//! The waits that a pause stops.

use std::time::Duration;

use diesel::prelude::*;
use kms_core::{AlarmContext, ServerKeys, integrity_alarm};
use kms_types::{AccountId, Timestamp};

use crate::accounts::rows;
use crate::database::{AnyConnection, Failure};
use crate::recoveries;
use crate::schema::accounts;

/// Makes each open wait longer by the time that it was paused, since this time.
pub(super) fn extend(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    since: Timestamp,
    owner_wait: Duration,
    now: Timestamp,
) -> Result<(), Failure> {
    for recovery in recoveries::open(connection, keys)? {
        let longer = recovery.longer(now.since(recovery.requested_at.max(since)));
        // Else it ended meanwhile.
        recoveries::update(connection, &longer, None, now, keys)?;
    }
    let waiting: Vec<String> = accounts::table
        .filter(accounts::unfreezes_at.is_not_null().or(accounts::page_only_until.is_not_null()))
        .order(accounts::id)
        .select(accounts::id)
        .load(connection)?;
    let later = |end: Timestamp| end.plus(now.since(since)).min(end.max(now.plus(owner_wait)));
    for id in waiting {
        let Ok(account) = id.parse::<AccountId>() else { continue };
        let extended = rows::update(connection, account, keys, |account| {
            account.unfreezes_at = account.unfreezes_at.map(later);
            account.page_only_until = account.page_only_until.map(later);
            true
        });
        match extended {
            // Its wait does not end while it fails its check.
            Err(Failure::Store(error)) => {
                let context = AlarmContext { account: Some(account), ..AlarmContext::default() };
                integrity_alarm(error, context);
            }
            other => drop(other?),
        }
    }
    Ok(())
}
