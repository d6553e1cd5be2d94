//! Counts what depends on each version of each server key.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;
use kms_core::{ServerKeyId, ServerKeyKind};
use kms_types::Timestamp;

use super::remac::MAC_TABLES;
use crate::database::{AnyConnection, Database, Failure};
use crate::dialect::Dialect;
use crate::schema::email_changes;

/// Columns that the server seals under the contact key.
const SEALED: &[(&str, &str)] = &[
    ("accounts", "mobile"),
    ("accounts", "email"),
    ("accounts", "former_email"),
    ("email_changes", "email"),
    ("events", "contact"),
    ("signed_transactions", "sealed"),
];

/// The rows of one table that depend on one version of a server key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependants {
    /// The key.
    pub kind: ServerKeyKind,
    /// The version; `None` for rows that are malformed.
    pub version: Option<ServerKeyId>,
    /// The table, with the column where it has several.
    pub what: String,
    /// How many rows.
    pub count: u64,
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// A query for the numbers of rows by version.
struct Count {
    kind: ServerKeyKind,
    what: String,
    /// An SQL expression of the version, and the condition of the rows that count.
    version: String,
    from: String,
    radix: u32,
}

impl Count {
    fn run(self, connection: &mut AnyConnection) -> Result<Vec<Dependants>, Failure> {
        let Self { kind, what, version, from, radix } = self;
        let sql = format!("select {version} as version, count(*) as count from {from} group by 1");
        let counted: Vec<Counted> = diesel::sql_query(sql).load(connection)?;
        let dependants = |row: Counted| Dependants {
            kind,
            version: parse(&row.version, radix),
            what: what.clone(),
            count: row.count.unsigned_abs(),
        };
        Ok(counted.into_iter().map(dependants).collect())
    }
}

impl Database {
    /// Counts the rows that depend on each version of each server key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn server_key_dependants(&self) -> Result<Vec<Dependants>, StoreError> {
        let dialect = self.dialect;
        self.without_deadline(move |connection| {
            // Whole tables are counted: SQLite's lock for writing is not held meanwhile.
            Connection::transaction(connection, |connection| {
                #[cfg(feature = "postgres")]
                if matches!(connection, AnyConnection::Postgres(_)) {
                    diesel::sql_query("set local statement_timeout = 0").execute(connection)?;
                }
                let mut found = Vec::new();
                for count in counts(dialect) {
                    found.extend(count.run(connection)?);
                }
                Ok(found)
            })
        })
        .await
    }

    /// Deletes requested changes of e-mail addresses whose code has expired, and which still hold a
    /// sealed address. Returns their number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_expired_email_changes(
        &self,
        requested_before: Timestamp,
    ) -> Result<usize, StoreError> {
        self.blocking(move |connection| {
            let expired =
                email_changes::table.filter(email_changes::requested_at.le(requested_before.0));
            Ok(diesel::delete(expired).execute(connection)?)
        })
        .await
    }
}

fn parse(version: &str, radix: u32) -> Option<ServerKeyId> {
    u8::from_str_radix(version, radix).ok()?.try_into().ok()
}

fn counts(dialect: Dialect) -> Vec<Count> {
    let number = |kind, table: &str, column: &str, only: &str| Count {
        kind,
        what: table.to_owned(),
        version: format!("cast({column} as text)"),
        from: format!("{table}{only}"),
        radix: 10,
    };
    let sealed = |(table, column): &(&str, &str)| Count {
        kind: ServerKeyKind::Contact,
        what: format!("{table}.{column}"),
        version: dialect.sealed_under(column),
        from: format!("{table} where {column} is not null"),
        radix: 16,
    };
    let mut counts = vec![number(ServerKeyKind::Pepper, "wallets", "pepper_id", "")];
    counts.extend(SEALED.iter().map(sealed));
    let macs = MAC_TABLES.iter();
    counts.extend(macs.map(|table| number(ServerKeyKind::Row, table.name, "mac_key", "")));
    let open = " where stage in ('waiting', 'ready')";
    counts.push(number(ServerKeyKind::Audit, "audit", "key_id", ""));
    counts.push(number(ServerKeyKind::Codes, "recoveries", "codes_key", open));
    counts.push(number(ServerKeyKind::Codes, "email_changes", "codes_key", ""));
    counts
}
