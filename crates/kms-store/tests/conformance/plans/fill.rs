//! Copies a row of each table 200,000 times.

use kms_core::account::Account;

use crate::fixtures::Subject;

const ROWS: u32 = 200_000;
/// Rows per statement.
const BATCH: u32 = 20_000;

/// Tables that have few rows however many transfers there are, or that no transfer touches.
const SMALL: [&str; 16] = [
    "api_tokens",
    "audit_head",
    "chain_cursors",
    "email_changes",
    "event_cursors",
    "leases",
    "launches",
    "orphaned_scks",
    "recoveries",
    "server_key_checks",
    "switches",
    "sqlite_sequence",
    "__diesel_schema_migrations",
    "password_attempts",
    "spending_limits",
    "writer_fence",
];

/// Fills every table that has a row and is not small, and returns the names of these tables.
pub(super) fn fill(subject: &Subject, ann: &Account) -> Vec<String> {
    let (tables, columns) = if subject.is_postgres() {
        (
            "select tablename::text as text from pg_tables where schemaname = 'public'",
            "select column_name::text as text from information_schema.columns \
             where table_schema = 'public' and is_identity = 'NO' and table_name = ",
        )
    } else {
        (
            "select name as text from sqlite_master where type = 'table'",
            "select name as text from pragma_table_info where not (pk = 1 and type = 'INTEGER') \
             and arg = ",
        )
    };
    let tables = subject.texts(tables);
    let tables = tables.into_iter().filter(|table| !SMALL.contains(&table.as_str()));
    let tables: Vec<_> = tables
        .filter(|table| subject.count(&format!("(select 1 from {table} limit 1) t")) > 0)
        .collect();
    let mut statements = Vec::new();
    for table in &tables {
        let columns = subject.texts(&format!("{columns}'{table}'"));
        let values: Vec<_> =
            columns.iter().map(|column| value(subject, ann, table, column)).collect();
        let columns = columns.join(", ");
        let values = values.join(", ");
        // Long transactions would withhold the events of other tests.
        for batch in 0..ROWS / BATCH {
            let (first, last) = (batch * BATCH + 1, (batch + 1) * BATCH);
            let rows = if subject.is_postgres() {
                format!("generate_series({first}, {last}) as n")
            } else {
                format!(
                    "(with recursive s(n) as \
                     (select {first} union all select n + 1 from s where n < {last}) \
                     select n from s)"
                )
            };
            statements.push(format!(
                "insert into {table} ({columns}) select {values} from {rows}, \
                 (select * from {table} limit 1) as copied"
            ));
        }
    }
    if subject.is_postgres() {
        // Without foreign keys.
        statements.insert(0, "set session_replication_role = replica".to_owned());
    }
    statements.push("analyze".to_owned());
    subject.run(&statements);
    tables
}

/// The value of a column in the copy number `n`: another one where it identifies a row.
fn value(subject: &Subject, ann: &Account, table: &str, column: &str) -> String {
    let digits = if subject.is_postgres() {
        "lpad(to_hex(n), 8, '0')".to_owned()
    } else {
        "printf('%08x', n)".to_owned()
    };
    let uuid = format!("{digits} || '-0000-4000-8000-000000000000'");
    let address = format!("'0x' || '{}' || {digits}", "0".repeat(32));
    let bytes = if subject.is_postgres() {
        format!("decode('{}' || {digits}, 'hex')", "0".repeat(56))
    } else {
        format!("cast('{}' || {digits} as blob)", "0".repeat(24))
    };
    // Every second row is Ann's.
    let anns =
        |own: String, other: String| format!("case when n % 2 = 0 then '{own}' else {other} end");
    match column {
        "id" | "transfer_id" | "sck_id" | "deposit_id" => uuid,
        // An account has one wallet.
        "account_id" if table == "wallets" || table == "wallet_balances" => uuid,
        "account_id" | "from_account" => anns(ann.id.to_string(), uuid),
        "to_account" => format!("case when n % 3 = 0 then copied.to_account else {uuid} end"),
        "from_address" => anns(ann.wallet.address.to_lower_hex(), address),
        "address" | "to_address" => address,
        "tx_hash" => bytes,
        "telegram_id" => "1000000 + n".to_owned(),
        "canonical" | "key" => digits,
        // More than a day ago.
        "at" if table == "spends" || table == "audit" => "n - 1000000000".to_owned(),
        "subject" => uuid,
        "chain_seq" => "n + 1000000".to_owned(),
        "block" => "n".to_owned(),
        "next_at" if table == "wallet_balances" => "n".to_owned(),
        "nonce" => "n + 10".to_owned(),
        "created_at" | "recorded_at" | "at" => "n".to_owned(),
        // One in a thousand is in flight.
        "state" => "case when n % 1000 = 1 then 'broadcast' else 'final' end".to_owned(),
        other => format!("copied.{other}"),
    }
}
