//! The plan of a recorded statement.

#[cfg(feature = "postgres")]
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl, sql_query};

use crate::fixtures::Subject;

/// How PostgreSQL appends to the audit in one statement.
#[cfg(feature = "postgres")]
const APPEND: &str = "with head as (update audit_head";

/// The highest cost that PostgreSQL may estimate: some hundred rows by an index.
const MOST_COST: f64 = 2_500.0;

#[derive(QueryableByName)]
struct PostgresStep {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    step: String,
}

#[derive(QueryableByName)]
struct SqliteStep {
    #[diesel(sql_type = Text)]
    detail: String,
}

/// Returns the plan, one step a line.
pub(super) fn explain(subject: &Subject, statement: &str) -> String {
    let (sql, values) = statement.split_once(" -- binds: ").unwrap_or((statement, "[]"));
    #[cfg(feature = "postgres")]
    if subject.is_postgres() {
        let mut connection = subject.postgres_connection();
        let explain = if sql.starts_with(APPEND) {
            connection.batch_execute(&prepare(sql)).unwrap();
            "execute append(null, null, null, null, null, null, null, null, null, null, null, \
             null, null, null, null, null, null, null, null)"
                .to_owned()
        } else {
            with_literals(sql, values)
        };
        let plan: Vec<PostgresStep> =
            sql_query(format!("explain {explain}")).load(&mut connection).unwrap();
        return plan.into_iter().map(|line| line.step + "\n").collect();
    }
    // SQLite plans without knowing the values.
    let explain = sql_query(format!("explain query plan {sql}"));
    let plan: Vec<SqliteStep> = explain.load(&mut subject.sqlite_connection()).unwrap();
    plan.into_iter().map(|line| line.detail + "\n").collect()
}

/// Prepares the append, whose plan is to be the same for every value: its rows are arrays, which
/// have no literals here.
#[cfg(feature = "postgres")]
fn prepare(append: &str) -> String {
    format!(
        "set plan_cache_mode = force_generic_plan; \
         prepare append(bigint, bytea, bigint, bytea, bigint[], text[], text[], text[], text[], \
         text[], bigint[], text[], text[], text[], bigint[], bytea[], bytea[], int[], bytea[]) \
         as {append}"
    )
}

/// Why a plan is too expensive, if it is.
pub(super) fn problem(plan: &str, tables: &[String]) -> Option<String> {
    for line in plan.lines() {
        let step = line.trim_start_matches([' ', '-', '>']);
        let scanned = step.strip_prefix("Seq Scan on ").or(step.strip_prefix("SCAN "));
        let scanned = scanned.and_then(|rest| rest.split_whitespace().next());
        if let Some(table) = scanned.filter(|scanned| tables.iter().any(|table| table == scanned)) {
            return Some(format!("reads all of {table}"));
        }
    }
    let cost = plan.split_once("..")?.1.split_once(' ')?.0.parse::<f64>().ok()?;
    (cost > MOST_COST).then(|| format!("costs {cost}"))
}

/// Replaces `$1`, `$2`, ... by the values, so that PostgreSQL plans as for an execution.
fn with_literals(sql: &str, values: &str) -> String {
    let values = match value(values) {
        Value::List(values) => values,
        Value::Literal(_) | Value::Number(_) => Vec::new(),
    };
    let mut sql = sql.to_owned();
    for (index, value) in values.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", index + 1), &value.literal());
    }
    sql
}

/// A bound value, read from its debug text.
#[derive(Debug)]
enum Value {
    Literal(String),
    Number(String),
    List(Vec<Value>),
}

impl Value {
    fn literal(&self) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Number(number) => number.clone(),
            Self::List(bytes) if bytes.iter().all(|byte| matches!(byte, Self::Number(_))) => {
                let digits = bytes.iter().map(|byte| match byte {
                    Self::Number(byte) => format!("{:02x}", byte.parse::<u8>().unwrap()),
                    Self::Literal(_) | Self::List(_) => String::new(),
                });
                format!("'\\x{}'::bytea", digits.collect::<String>())
            }
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::literal).collect();
                format!("array[{}]", items.join(", "))
            }
        }
    }
}

fn value(text: &str) -> Value {
    let text = text.trim();
    let inside = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
    if let Some(text) = inside("Some(", ")") {
        return value(text);
    }
    if let Some(items) = inside("[", "]") {
        return Value::List(split(items).into_iter().map(value).collect());
    }
    if let Some(text) = inside("\"", "\"") {
        return Value::Literal(format!("'{}'", text.replace('\'', "''")));
    }
    match text {
        "None" => Value::Literal("null".to_owned()),
        "true" | "false" => Value::Literal(text.to_owned()),
        number => Value::Number(number.to_owned()),
    }
}

/// Splits a list at its own commas.
fn split(items: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut quoted, mut begin) = (Vec::new(), 0, false, 0);
    for (at, letter) in items.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '[' | '(' if !quoted => depth += 1,
            ']' | ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(&items[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if !items.trim().is_empty() {
        parts.push(&items[begin..]);
    }
    parts
}
