//! What the audit holds of an account: the newest copy of its row is distinguished by it.

use std::sync::LazyLock;

use diesel::backend::Backend;
use diesel::dsl::AsExprOf;
use diesel::prelude::*;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Nullable, Text};
use kms_core::audit::{Action, AuditRecord, CHANGES_OF_ACCOUNTS, Details, Phase, REVISION};
use kms_core::ports::{AuditedAccount, StoreError};
use kms_types::{AccountId, Timestamp};

use crate::database::{AnyConnection, CachedSql, Database, Failure, cached_query, identified_sql};
use crate::schema::{accounts, audit, spending_limits};

/// More changes than an owner makes. An older copy of a row must be older than all of them to pass.
const CHANGES: u32 = 1_000;

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = BigInt)]
    at: i64,
    /// Null for a wrong password.
    #[diesel(sql_type = Nullable<Text>)]
    details: Option<String>,
}

/// Returns the newest revision of the account that was recorded; 0 if none was.
pub(crate) fn newest_revision(
    connection: &mut AnyConnection,
    account: AccountId,
) -> Result<i64, Failure> {
    Ok(audited(connection, account, Timestamp(0), 0)?.revision)
}

/// Reads both in one statement, in the wording of the indexes.
fn audited(
    connection: &mut AnyConnection,
    account: AccountId,
    since: Timestamp,
    at_most: usize,
) -> Result<AuditedAccount, Failure> {
    let changes = CHANGES_OF_ACCOUNTS.map(|action| format!("'{action}'")).join(", ");
    let lines: Vec<Line> = cached_query(format!(
        "select at, details from (select at, details from audit where account_id = $1 \
         and phase = 'outcome' and outcome = 'ok' and action in ({changes}) \
         order by seq desc limit {CHANGES}) as changes \
         union all select at, null from (select at from audit where account_id = $1 \
         and phase = 'outcome' and outcome in ('wrong_password', 'account_exists') and at > $2 \
         order by at desc limit $3) as guesses"
    ))
    .bind::<Text, _>(account.to_string())
    .bind::<BigInt, _>(since.0)
    .bind::<BigInt, _>(i64::try_from(at_most).unwrap_or(i64::MAX))
    .load(connection)?;
    let mut found = AuditedAccount::default();
    for Line { at, details } in lines {
        match details {
            Some(details) => found.revision = found.revision.max(revision(&details)),
            None => found.guesses.push(Timestamp(at)),
        }
    }
    found.guesses.sort_by_key(|at| std::cmp::Reverse(at.0));
    Ok(found)
}

fn revision(details: &str) -> i64 {
    let details: Option<Details> = details.parse().ok();
    details.and_then(|details| details.get(REVISION)?.parse().ok()).unwrap_or_default()
}

/// Separates records in one text. None of them contains it.
const SEPARATOR: char = '\u{1e}';

/// What the newest records of this action state, as a column of the statement that reads its
/// object: so the object is not older than its records unless an older copy of it was put back.
pub(crate) fn newest_details<DB>(action: Action) -> CachedSql<DB, Nullable<Text>, NewestDetails>
where
    DB: Backend,
    AsExprOf<Option<String>, Nullable<Text>>: QueryFragment<DB>,
    AsExprOf<String, Text>: QueryFragment<DB>,
{
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "(select string_agg(details, '{SEPARATOR}') from (select details from audit \
             where subject = $1 and action = $2 and outcome = 'ok' \
             order by seq desc limit {CHANGES}) as newest)"
        )
    });
    identified_sql(TEXT.as_str())
        .bind::<Nullable<Text>, _>(action.subject())
        .bind::<Text, _>(action.as_str().to_owned())
}

/// The text of [`newest_details`].
#[derive(QueryId)]
pub(crate) struct NewestDetails;

/// Returns the newest revision in a column of [`newest_details`]; 0 if none was recorded.
pub(crate) fn newest_revision_in(details: Option<&str>) -> i64 {
    details.unwrap_or_default().split(SEPARATOR).map(revision).max().unwrap_or_default()
}

/// Returns the newest revision of the object of this action that was recorded; 0 if none was.
pub(crate) fn newest_revision_of(
    connection: &mut AnyConnection,
    action: Action,
) -> Result<i64, Failure> {
    let details: Option<String> = diesel::select(newest_details(action)).get_result(connection)?;
    Ok(newest_revision_in(details.as_deref()))
}

/// Returns the objects of this kind of action that were changed for an account.
#[cfg(feature = "transfers")]
pub(crate) fn changed_subjects(
    connection: &mut AnyConnection,
    account: AccountId,
    action: &str,
) -> Result<Vec<String>, Failure> {
    let subjects: Vec<Option<String>> = audit::table
        .filter(audit::account_id.eq(account.to_string()))
        .filter(audit::action.eq(action))
        .filter(audit::outcome.eq("ok"))
        .select(audit::subject)
        .distinct()
        .load(connection)?;
    Ok(subjects.into_iter().flatten().collect())
}

/// Adds the revision of what was changed to the outcome of a change of an account or a limit,
/// unless the record states it.
pub(super) fn state_revision(
    connection: &mut AnyConnection,
    record: &AuditRecord,
) -> Result<AuditRecord, Failure> {
    let mut record = record.clone();
    if record.phase != Phase::Outcome("ok") || record.details.get(REVISION).is_some() {
        return Ok(record);
    }
    let revision: Option<i64> = match (record.action, record.account) {
        (Action::ChangeLimit(account, asset), _) => {
            let row = spending_limits::table.find((account.to_string(), asset.to_string()));
            row.select(spending_limits::revision).first(connection).optional()?
        }
        (action, Some(account)) if CHANGES_OF_ACCOUNTS.contains(&action.as_str()) => {
            let row = accounts::table.find(account.to_string());
            row.select(accounts::revision).first(connection).optional()?
        }
        _ => None,
    };
    record.details = record.details.with_some(REVISION, revision);
    Ok(record)
}

impl Database {
    pub(super) async fn read_audited_account(
        &self,
        account: AccountId,
        since: Timestamp,
        at_most: usize,
    ) -> Result<AuditedAccount, StoreError> {
        self.blocking(move |connection| audited(connection, account, since, at_most)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another list would not be read by the index, whose condition has to be that of the query.
    #[test]
    fn the_index_is_of_the_actions_that_change_an_account() {
        let schema = include_str!("../../../../migrations/schema.sql");
        let schema: Vec<_> = schema.split_whitespace().collect();
        let actions = CHANGES_OF_ACCOUNTS.map(|action| format!("'{action}'")).join(", ");
        assert!(schema.join(" ").contains(&format!("and action in ({actions})")), "{actions}");
    }
}
