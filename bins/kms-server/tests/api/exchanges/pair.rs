//! Two rows of a table, and what another program does to one column of them.

use kms_server_testing::TestEnv;

/// Two rows of a table, each by a condition on its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) table: &'static str,
    rows: [String; 2],
}

pub(crate) fn is_sqlite(env: &TestEnv) -> bool {
    env.database.starts_with("sqlite:")
}

/// The names and types of the columns of a table.
pub(crate) fn columns(env: &TestEnv, table: &str) -> Vec<(String, String)> {
    let query = if is_sqlite(env) {
        format!("select name, lower(type) from pragma_table_info('{table}') order by cid")
    } else {
        format!(
            "select column_name, data_type from information_schema.columns \
             where table_schema = 'public' and table_name = '{table}' order by ordinal_position"
        )
    };
    let lines = env.sql(&query).unwrap();
    let pair = |line: &str| {
        let (name, kind) = line.split_once('|').unwrap();
        (name.to_owned(), kind.to_owned())
    };
    lines.lines().map(pair).collect()
}

impl Pair {
    pub(crate) fn new(table: &'static str, key: &str, rows: [&str; 2]) -> Self {
        Self { table, rows: rows.map(|row| format!("{key} = '{row}'")) }
    }

    /// Runs statements in one transaction, without the checks of references.
    fn run(&self, env: &TestEnv, sql: &str) {
        let sql = if is_sqlite(env) {
            format!("begin immediate; {sql} commit;")
        } else {
            format!("set session_replication_role = replica; begin; {sql} commit;")
        };
        env.sql(&sql).unwrap();
    }

    /// Keeps both rows, and exchanges the column, or changes it where both have the same value.
    /// Returns whether it was exchanged.
    pub(crate) fn exchange(&self, env: &TestEnv, column: &str, kind: &str) -> bool {
        let (Self { table, rows: [one, other] }, is_sqlite) = (self, is_sqlite(env));
        self.run(
            env,
            &format!(
                "drop table if exists kept_one; drop table if exists kept_other; \
             create table kept_one as select * from {table} where {one}; \
             create table kept_other as select * from {table} where {other};"
            ),
        );
        let same = if is_sqlite { "is" } else { "is not distinct from" };
        let found = env.sql(&format!(
            "select count(*), count(case when a.{column} {same} b.{column} then 1 end) \
             from kept_one a, kept_other b"
        ));
        let found = found.unwrap();
        if found == "1|1" {
            let value = match kind {
                "bytea" => format!("coalesce({column}, '\\x00') || '\\x01'::bytea"),
                "blob" => format!("cast(coalesce({column}, x'00') || x'01' as blob)"),
                "text" => format!("coalesce({column}, '') || '1'"),
                "boolean" => format!("not coalesce({column}, false)"),
                _ => format!("coalesce({column}, 0) + 1000"),
            };
            let change = format!("update {table} set {column} = {value} where {one} or {other};");
            self.run(env, &change);
            return false;
        }
        assert_eq!(found, "1|0", "{table}: there are two rows");
        let names: Vec<_> = columns(env, table).into_iter().map(|(name, _kind)| name).collect();
        let row = |own: &str, others: &str| {
            let value = |name: &String| {
                let from = if name == column { others } else { own };
                format!("{from}.{name}")
            };
            let values: Vec<_> = names.iter().map(value).collect();
            let overriding = if is_sqlite { "" } else { "overriding system value" };
            format!(
                "insert into {table} ({}) {overriding} select {} from kept_one a, kept_other b;",
                names.join(", "),
                values.join(", ")
            )
        };
        let (first, second) = (row("a", "b"), row("b", "a"));
        self.run(env, &format!("delete from {table} where {one} or {other}; {first} {second}"));
        true
    }

    /// Puts the column back.
    pub(crate) fn undo(&self, env: &TestEnv, column: &str, kind: &str, was_exchanged: bool) {
        let Self { table, rows: [one, other] } = self;
        if *table == "transfers" {
            // Quotes are made anew each time; what was signed stays.
            let signed = "select transfer_id from signed_transactions";
            let rest = format!("delete from transfers where ({one} or {other}) and id not in");
            self.run(env, &format!("{rest} ({signed});"));
            return;
        }
        if was_exchanged {
            assert!(self.exchange(env, column, kind), "{table}.{column}");
            return;
        }
        let back = |row: &str, kept: &str| {
            format!("update {table} set {column} = (select {column} from {kept}) where {row};")
        };
        self.run(env, &format!("{} {}", back(one, "kept_one"), back(other, "kept_other")));
    }
}
