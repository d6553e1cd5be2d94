//! The waits that a pause stops.

use std::time::Duration;

use diesel::prelude::*;
use kms_core::account::Account;
use kms_core::audit::{Action, AuditRecord, Caller, Details, Phase};
use kms_core::{AlarmContext, ServerKeys, integrity_alarm};
use kms_types::{AccountId, Timestamp};

use crate::accounts::rows;
use crate::database::{AnyConnection, Failure};
use crate::recoveries;
use crate::schema::accounts;

/// Makes each open wait longer by the time that it was paused, since this time. An owner's wait
/// becomes no longer than `owner_wait` from now. Returns a record of each.
pub(super) fn extend(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    (since, owner_wait): (Timestamp, Duration),
    caller: &Caller,
    now: Timestamp,
) -> Result<Vec<AuditRecord>, Failure> {
    let record = |action, account, details: Details| {
        let mut known = caller.details();
        known.merge(details);
        let phase = Phase::Outcome("ok");
        let (account, caller) = (Some(account), caller.clone());
        AuditRecord { at: now, caller, action, phase, account, telegram_id: None, details: known }
    };
    let mut records = Vec::new();
    for recovery in recoveries::open(connection, keys)? {
        let longer = recovery.longer(now.since(recovery.requested_at.max(since)));
        // Else it ended meanwhile.
        if recoveries::update(connection, &longer, None, now, keys)? {
            let action = Action::ExtendRecovery(longer.id);
            records.push(record(action, longer.account, longer.details()));
        }
    }
    let waiting: Vec<String> = accounts::table
        .filter(accounts::unfreezes_at.is_not_null().or(accounts::page_only_until.is_not_null()))
        .order(accounts::id)
        .select(accounts::id)
        .load(connection)?;
    let later = |end: Timestamp| end.plus(now.since(since)).min(end.max(now.plus(owner_wait)));
    for id in waiting {
        let Ok(account) = id.parse::<AccountId>() else { continue };
        let mut details = Details::default();
        let extended = rows::update(connection, account, keys, |account| {
            account.unfreezes_at = account.unfreezes_at.map(later);
            account.page_only_until = account.page_only_until.map(later);
            details = ends(account);
            true
        });
        match extended {
            Ok(true) => records.push(record(Action::ExtendWait, account, details)),
            // There is no such account any more.
            Ok(false) => {}
            // Its wait does not end while it fails its check.
            Err(Failure::Store(error)) => {
                let context = AlarmContext { account: Some(account), ..AlarmContext::default() };
                integrity_alarm(error, context);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

/// When the waits of an account end.
fn ends(account: &Account) -> Details {
    Details::default()
        .with_some("page_only_until", account.page_only_until.map(|at| at.0))
        .with_some("unfreezes_at", account.unfreezes_at.map(|at| at.0))
}
