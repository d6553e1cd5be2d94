//! What a wallet and a payment cost PostgreSQL: exact numbers of statements, of round trips and of
//! commits, of the real server in this process. What its workers issue while nothing is asked is
//! left out.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};
use kms_server_testing::requests::{confirm, quote};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::wire::TransferState;

/// Statements of an onboarding, `begin` and `commit` included.
const ONBOARDING: Cost = Cost { statements: 10, round_trips: 10, commits: 3, unsynced: 1 };
/// Statements from the request for a quote to the answer that the payment was sent.
const SEND: Cost = Cost { statements: 20, round_trips: 20, commits: 3, unsynced: 5 };

#[derive(Debug, PartialEq, Eq)]
struct Cost {
    statements: usize,
    /// One more for each statement that is prepared anew at each execution.
    round_trips: usize,
    /// Commits that wait for the disk.
    commits: usize,
    /// Those that do not.
    unsynced: usize,
}

/// The statements of one transaction, or one statement outside of any.
type Unit = Vec<String>;

/// The statements that a connection prepared to keep them.
static KEPT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The name of the recorded database, and what was recorded.
static RECORDED: Mutex<(String, Vec<Unit>)> = Mutex::new((String::new(), Vec::new()));

/// The instrumentation of one connection.
#[derive(Default)]
struct Recorder {
    url: String,
    unit: Unit,
}

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartEstablishConnection { url, .. } => self.url = url.to_owned(),
            InstrumentationEvent::CacheQuery { sql, .. } => {
                let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
                kept.insert(sql.to_lowercase());
            }
            InstrumentationEvent::StartQuery { query, .. } => {
                let text = query.to_string();
                self.unit.push(text.split(" -- binds").next().unwrap_or_default().to_lowercase());
                let last = self.unit.last().unwrap();
                let ends = ["commit", "rollback"].contains(&last.as_str());
                if ends || self.unit[0] != "begin" {
                    let unit = std::mem::take(&mut self.unit);
                    let mut recorded = RECORDED.lock().unwrap_or_else(PoisonError::into_inner);
                    let path = self.url.split('?').next().unwrap_or_default();
                    let is_recorded =
                        !recorded.0.is_empty() && path.ends_with(&format!("/{}", recorded.0));
                    if is_recorded {
                        recorded.1.push(unit);
                    }
                }
            }
            _ => {}
        }
    }
}

fn taken() -> Vec<Unit> {
    std::mem::take(&mut RECORDED.lock().unwrap_or_else(PoisonError::into_inner).1)
}

fn cost(units: &[Unit]) -> Cost {
    let is_write = |statement: &String| {
        // The audit is appended by a `with`.
        ["insert", "update", "delete", "with"].iter().any(|verb| statement.starts_with(verb))
    };
    let is_unsynced = |statement: &String| statement.contains("'synchronous_commit', 'off'");
    let writing: Vec<_> = units.iter().filter(|unit| unit.iter().any(is_write)).collect();
    let unsynced = writing.iter().filter(|unit| unit.iter().any(is_unsynced)).count();
    let statements: usize = units.iter().map(Vec::len).sum();
    let prepared = units.iter().flatten().filter(|statement| is_prepared_anew(statement)).count();
    let (round_trips, commits) = (statements + prepared, writing.len() - unsynced);
    Cost { statements, round_trips, commits, unsynced }
}

/// Whether the statement is not one of those that connections keep.
fn is_prepared_anew(statement: &String) -> bool {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    !["begin", "commit"].contains(&statement.as_str()) && !kept.contains(statement)
}

/// What `work` costs, less what is also issued while nothing is asked. What a worker does meanwhile
/// can only add to it, so the cheapest of several looks decides.
async fn cost_of(
    idle: &BTreeSet<String>,
    name: &str,
    limit: Cost,
    before: impl AsyncFn(),
    work: impl AsyncFn(i64),
) {
    let mut seen = Vec::new();
    for attempt in 0..8 {
        before().await;
        taken();
        work(attempt).await;
        let mut units = taken();
        // A token is read once in some seconds, not for each request.
        units.retain(|unit| !unit.iter().any(|it| idle.contains(it) || it.contains("api_tokens")));
        let found = cost(&units);
        println!("{name}: {found:?}");
        let within = found.statements <= limit.statements
            && found.round_trips <= limit.round_trips
            && found.commits <= limit.commits
            && found.unsynced <= limit.unsynced;
        if within {
            return;
        }
        let mark =
            |it: &String| format!("{}{it}", if is_prepared_anew(it) { "anew: " } else { "" });
        let listed: Vec<Vec<_>> =
            units.iter().map(|unit| unit.iter().map(mark).collect()).collect();
        let listed: Vec<_> = listed.iter().map(|unit| unit.join("\n    ")).collect();
        seen.push(format!("{found:?}:\n{}", listed.join("\n")));
    }
    panic!("{name}: at most {limit:?}, but\n{}", seen.join("\n\n"));
}

#[actix_web::test]
async fn a_wallet_and_a_payment_cost_few_statements_and_commits() {
    set_default_instrumentation(|| Some(Box::<Recorder>::default())).unwrap();
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    // The follower must not find the payment while it is counted.
    env.chain.poll_interval = Duration::from_secs(5);
    let database = env.database_name().to_owned();
    let test = TestServer::start(env).await;
    let (_ann, bob) = test.ann_and_bob().await;
    // The first use of everything that is cached.
    let first = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let sent = test.client.confirm(first.id, &confirm(&first, "ann's password")).await.unwrap();
    test.until(sent.id, TransferState::Mined).await;

    RECORDED.lock().unwrap().0 = database;
    tokio::time::sleep(Duration::from_secs(16)).await;
    let of_requests = ["\"accounts\"", "password_attempts", "\"audit\""];
    let idle: BTreeSet<String> = taken()
        .into_iter()
        .flatten()
        .filter(|text| !["begin", "commit"].contains(&text.as_str()))
        .filter(|text| !of_requests.iter().any(|part| text.contains(part)))
        .collect();
    assert!(!idle.is_empty(), "nothing was recorded");

    let onboarding = async |attempt| {
        let name = format!("carol{attempt}");
        test.onboard(3 + attempt, &name, "carol's password").await;
    };
    cost_of(&idle, "onboarding", ONBOARDING, async || {}, onboarding).await;
    let sent = Cell::new(sent.id);
    // A payment that no block has settled costs the next one more.
    let settled = async || drop(test.until(sent.get(), TransferState::Mined).await);
    let send = async |_| {
        let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        let paid = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await;
        let paid = paid.unwrap();
        assert_eq!(paid.to.account, Some(bob.id));
        sent.set(paid.id);
    };
    cost_of(&idle, "send", SEND, settled, send).await;
}
