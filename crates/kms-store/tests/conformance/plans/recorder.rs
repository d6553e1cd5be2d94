//! Records the statements that diesel sends to a database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};

/// By URL, of the databases that are recorded.
static RECORDED: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// The statements that a connection prepared to keep them.
static KEPT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The instrumentation of one connection.
struct Recorder {
    url: String,
}

/// Lets every connection that is opened from now on record its statements.
pub(super) fn install() {
    set_default_instrumentation(|| Some(Box::new(Recorder { url: String::new() }))).unwrap();
}

/// Begins to record the statements for this database.
pub(super) fn record(url: &str) {
    recorded(url);
    with(|all| drop(all.insert(bare(url), BTreeSet::new())));
}

/// The statements that were recorded, each with its values, one per text of SQL.
pub(super) fn recorded(url: &str) -> Vec<String> {
    let all = with(|all| all.remove(&bare(url))).unwrap_or_default();
    let by_sql: BTreeMap<_, _> = all
        .into_iter()
        .map(|statement| {
            let sql = statement.split(" -- binds: ").next().unwrap_or_default().to_owned();
            (sql, statement)
        })
        .collect();
    by_sql.into_values().collect()
}

/// Whether connections keep the prepared statement.
pub(super) fn is_kept(sql: &str) -> bool {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).contains(sql)
}

fn with<T>(work: impl FnOnce(&mut BTreeMap<String, BTreeSet<String>>) -> T) -> T {
    work(&mut RECORDED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The URL without its scheme for SQLite, which diesel does not get, and without parameters.
fn bare(url: &str) -> String {
    let url = url.strip_prefix("sqlite:").unwrap_or(url);
    url.split('?').next().unwrap_or(url).to_owned()
}

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartEstablishConnection { url, .. } => {
                self.url = bare(url);
            }
            InstrumentationEvent::CacheQuery { sql, .. } => {
                KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned());
            }
            InstrumentationEvent::StartQuery { query, .. } => with(|all| {
                if let Some(statements) = all.get_mut(&self.url) {
                    let statement = query.to_string();
                    let verb = statement.split_whitespace().next().unwrap_or_default();
                    let verb = verb.to_lowercase();
                    if ["select", "insert", "update", "delete", "with"].contains(&verb.as_str()) {
                        statements.insert(statement);
                    }
                }
            }),
            _ => {}
        }
    }
}
