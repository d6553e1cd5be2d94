//! What the audit holds of the payments that an account signed: rows that another program wrote or
//! removed are distinguished by it.

use std::time::Duration;

use diesel::prelude::*;
use kms_core::ServerKeys;
use kms_core::audit::Chaining;
use kms_types::{AccountId, Timestamp};

use super::{AuditRow, Columns};
use crate::database::{AnyConnection, Failure};
use crate::schema::audit;

/// Records that one query reads.
const PAGE: i64 = 100;

/// How much later than its time a record may be appended: it is repeated in the background, and
/// clocks differ.
const LATE: Duration = Duration::from_secs(10 * 60);

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit)]
struct Line {
    seq: i64,
    at: i64,
    action: String,
    phase: String,
    outcome: Option<String>,
    subject: Option<String>,
}

/// Returns the transfers that the account signed since a time. Reads back from its newest record,
/// because most of them are payments.
pub(crate) fn sent_since(
    connection: &mut AnyConnection,
    account: AccountId,
    since: Timestamp,
) -> Result<Vec<String>, Failure> {
    let (mut sent, mut before) = (Vec::new(), i64::MAX);
    loop {
        let page: Vec<Line> = audit::table
            .filter(audit::account_id.eq(account.to_string()))
            .filter(audit::seq.lt(before))
            .order(audit::seq.desc())
            .limit(PAGE)
            .select(Line::as_select())
            .load(connection)?;
        let Some(last) = page.last() else { return Ok(sent) };
        before = last.seq;
        for line in page {
            if line.at <= since.minus(LATE).0 {
                return Ok(sent);
            }
            let done = (&*line.action, &*line.phase, line.outcome.as_deref());
            if done == ("send", "outcome", Some("ok")) && line.at > since.0 {
                sent.extend(line.subject);
            }
        }
    }
}

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
