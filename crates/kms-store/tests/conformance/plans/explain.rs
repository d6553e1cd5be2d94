//! The plan of a recorded statement.

#[cfg(feature = "postgres")]
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl, sql_query};

#[cfg(feature = "postgres")]
use super::recorder;
use crate::fixtures::Subject;

/// How PostgreSQL appends to the audit in one statement.
#[cfg(feature = "postgres")]
const APPEND: &str = "with head as (update audit_head";

/// The highest cost that PostgreSQL may estimate: some hundred rows by an index.
const MOST_COST: f64 = 2_500.0;

/// More than what PostgreSQL estimates that planning costs.
#[cfg(feature = "postgres")]
const PLANNING: f64 = 50.0;

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
        if sql.starts_with(APPEND) {
            return for_any_value(subject, sql);
        }
        let explain = format!("explain {}", with_literals(sql, values));
        return steps(sql_query(explain).load(&mut subject.postgres_connection()).unwrap());
    }
    // SQLite plans without knowing the values.
    let explain = sql_query(format!("explain query plan {sql}"));
    let plan: Vec<SqliteStep> = explain.load(&mut subject.sqlite_connection()).unwrap();
    plan.into_iter().map(|line| line.detail + "\n").collect()
}

/// Returns the plan for any value of a statement that connections keep, if PostgreSQL may use it
/// instead of the one for these values.
pub(super) fn generic(subject: &Subject, statement: &str, plan: &str) -> Option<String> {
    #[cfg(feature = "postgres")]
    if subject.is_postgres() {
        let sql = statement.split(" -- binds: ").next().unwrap_or_default();
        let generic = recorder::is_kept(sql).then(|| for_any_value(subject, sql));
        return generic.filter(|generic| cost(generic) <= cost(plan).map(|cost| cost + PLANNING));
    }
    None
}

#[cfg(feature = "postgres")]
fn for_any_value(subject: &Subject, sql: &str) -> String {
    let count = (1..).take_while(|number| sql.contains(&format!("${number}"))).count();
    // PostgreSQL cannot derive the types of what the append unnests.
    let types = if sql.starts_with(APPEND) {
        "(bigint, bytea, bigint, bytea, bigint[], text[], text[], text[], text[], text[], \
         bigint[], text[], text[], text[], bigint[], bytea[], bytea[], int[], bytea[])"
    } else {
        ""
    };
    let mut connection = subject.postgres_connection();
    let prepare = format!("prepare planned {types} as {sql}");
    connection.batch_execute("set plan_cache_mode = force_generic_plan").unwrap();
    connection.batch_execute(&prepare).unwrap_or_else(|error| panic!("{error}: {sql}"));
    let nulls = vec!["null"; count].join(", ");
    let values = if count == 0 { String::new() } else { format!("({nulls})") };
    let explain = sql_query(format!("explain execute planned {values}"));
    steps(explain.load(&mut connection).unwrap())
}

#[cfg(feature = "postgres")]
fn steps(plan: Vec<PostgresStep>) -> String {
    plan.into_iter().map(|line| line.step + "\n").collect()
}

/// What PostgreSQL estimates that the plan costs.
fn cost(plan: &str) -> Option<f64> {
    plan.split_once("..")?.1.split_once(' ')?.0.parse().ok()
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
    let cost = cost(plan)?;
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
