//! What `migrate` would do, and which locks it would take.

use std::collections::HashSet;
use std::fmt;

use super::{ConnectError, Database};
use crate::dialect::Dialect;

/// The migrations of each dialect, by their version. A test compares them with the folders.
#[cfg(feature = "postgres")]
const POSTGRES: [(&str, &str); 1] =
    [("0001", include_str!("../../../../migrations/postgres/0001_initial/up.sql"))];
#[cfg(feature = "sqlite")]
const SQLITE: [(&str, &str); 1] =
    [("0001", include_str!("../../../../migrations/sqlite/0001_initial/up.sql"))];

/// A statement of a pending migration that takes a lock, or the number of those that take none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The version of the migration.
    pub migration: &'static str,
    /// What it does.
    pub what: String,
    /// What waits meanwhile.
    pub lock: Lock,
}

/// What a statement locks in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nothing that existed before.
    Nothing,
    /// Rows that it writes.
    Rows,
    /// Writes to the table wait.
    Writes,
    /// Reads and writes of the table wait.
    Table,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "locks nothing that exists",
            Self::Rows => "locks the rows that it writes",
            Self::Writes => "writes to the table wait until it is done",
            Self::Table => "reads and writes of the table wait until it is done",
        })
    }
}

impl Database {
    /// The steps of the pending migrations, in order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn migration_plan(&self) -> Result<Vec<Step>, ConnectError> {
        let run = self.migrations_run().await?;
        let all: &[(&'static str, &str)] = match self.dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => &POSTGRES,
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => &SQLITE,
        };
        let pending = all.iter().filter(|(version, _)| !run.iter().any(|run| run == version));
        Ok(pending.flat_map(|(version, sql)| steps(version, sql)).collect())
    }
}

fn steps(migration: &'static str, sql: &str) -> Vec<Step> {
    let code: Vec<&str> =
        sql.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code)).collect();
    let code = code.join(" ");
    let statements = code.split(';').map(|text| text.split_whitespace().collect::<Vec<_>>());
    let (mut made, mut harmless, mut steps) = (HashSet::new(), 0_u32, Vec::new());
    for words in statements.filter(|words| !words.is_empty()) {
        let (table, lock) = locked(&words);
        if lock == Lock::Nothing || table.is_some_and(|table| made.contains(table)) {
            made.extend(table);
            harmless += 1;
        } else {
            let what = words.iter().take(8).copied().collect::<Vec<_>>().join(" ");
            steps.push(Step { migration, what, lock });
        }
    }
    if harmless > 0 {
        let what = format!("{harmless} statements that create tables, or are about new tables");
        steps.insert(0, Step { migration, what, lock: Lock::Nothing });
    }
    steps
}

/// The table of a statement, and what it locks there. An unknown statement counts as one that
/// locks all of it.
fn locked<'a>(words: &[&'a str]) -> (Option<&'a str>, Lock) {
    let after = |word: &str| {
        let at = words.iter().position(|other| other.eq_ignore_ascii_case(word))?;
        words.get(at + 1).map(|table| table.split('(').next().unwrap_or_default())
    };
    let lower: Vec<_> = words.iter().take(4).map(|word| word.to_ascii_lowercase()).collect();
    let lower: Vec<_> = lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        ["create", "table", ..] => (after("table"), Lock::Nothing),
        ["create", "index", "concurrently", ..]
        | ["create", "unique", "index", "concurrently", ..] => (None, Lock::Nothing),
        ["create", "index", ..] | ["create", "unique", "index", ..] => (after("on"), Lock::Writes),
        ["insert", "into", ..] => (after("into"), Lock::Rows),
        ["update", ..] => (after("update"), Lock::Rows),
        ["delete", "from", ..] => (after("from"), Lock::Rows),
        ["alter", "table", ..] => (after("table"), Lock::Table),
        _ => (None, Lock::Table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_has_its_lock() {
        let sql = "-- A comment; with a semicolon.\n\
                   create table fees (id text);\ncreate index fees_by_id on fees (id);\n\
                   alter table transfers add column fee text; -- nullable\n\
                   create index concurrently transfers_by_fee on transfers (fee);\n\
                   create unique index transfers_one on transfers (fee);\n\
                   update transfers set fee = '0';\nvacuum full transfers;";
        let steps: Vec<_> = steps("0002", sql)
            .into_iter()
            .map(|step| format!("{}: {}", step.what, step.lock))
            .collect();
        assert_eq!(
            steps,
            [
                "3 statements that create tables, or are about new tables: locks nothing that \
                 exists",
                "alter table transfers add column fee text: reads and writes of the table wait \
                 until it is done",
                "create unique index transfers_one on transfers (fee): writes to the table wait \
                 until it is done",
                "update transfers set fee = '0': locks the rows that it writes",
                "vacuum full transfers: reads and writes of the table wait until it is done",
            ]
        );
    }

    #[cfg(all(feature = "postgres", feature = "sqlite"))]
    #[test]
    fn every_migration_is_planned() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        for (dialect, known) in [("postgres", POSTGRES), ("sqlite", SQLITE)] {
            let mut found: Vec<_> = std::fs::read_dir(folder.join(dialect))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .map(|name| name.split_once('_').unwrap().0.to_owned())
                .collect();
            found.sort();
            assert_eq!(found, known.map(|(version, _)| version), "{dialect}");
        }
    }
}
