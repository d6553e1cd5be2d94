//! Reads that use no key: their CPU time compared with PostgreSQL's, their latency while the KDF
//! pool is full, and both with a million accounts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::measure::{cpu, p99, postgres_cpu, resident, since};
use crate::row::Row;
use crate::stage::{Stage, WORDS, variable};
use futures::future::join_all;
use kms_server_testing::requests::{create, telegram};
use kms_types::{ErrorCode, Timestamp, Username};

const CONNECTIONS: u32 = 64;
const READS: u32 = 20_000;
/// The accounts that are read, created before the million.
const FIRST: i64 = 1;
const PEOPLE: i64 = 8;
/// The first of the users who keep the KDF pool full.
const FLOOD: i64 = 50_000;
/// The first of the million accounts.
const MILLION: i64 = 200_000_000;
/// The user whose account is copied.
const TEMPLATE: i64 = 60_000;

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    for id in FIRST..FIRST + PEOPLE {
        stage.account(id).await;
    }
    let mut rows = Vec::new();
    rows.push(against_postgresql(stage).await);
    for people in [32, i64::from(CONNECTIONS) + 40] {
        rows.extend(beside_the_kdf(stage, people).await);
    }
    rows.extend(with_a_million(stage).await);
    rows
}

fn name(index: u32) -> Username {
    format!("person{}", FIRST + i64::from(index) % PEOPLE).parse().unwrap()
}

/// Runs this many reads over the connections, and returns their latencies.
async fn reads(stage: &Stage, connections: u32, count: u32) -> Vec<f64> {
    let one = |connection: u32| async move {
        let client = stage.server.client(&stage.env, &stage.token);
        let mut took = Vec::new();
        for index in 0..count / connections {
            let begun = Instant::now();
            if index % 2 == 0 {
                client.name(&name(connection + index)).await.unwrap().unwrap();
            } else {
                let id = FIRST + i64::from(connection + index) % PEOPLE;
                client.account(telegram(id)).await.unwrap().unwrap();
            }
            took.push(since(begun));
        }
        took
    };
    join_all((0..connections).map(one)).await.into_iter().flatten().collect()
}

async fn against_postgresql(stage: &Stage) -> Row {
    let server = stage.server.id();
    reads(stage, CONNECTIONS, READS / 10).await;
    let before = cpu(server);
    reads(stage, CONNECTIONS, READS).await;
    let measured = (cpu(server) - before) / f64::from(READS);
    // The same two queries without the server.
    let before = postgres_cpu();
    for index in 0..READS {
        if index % 2 == 0 {
            let found = stage.database.resolve(&name(index), Timestamp(0)).await;
            found.unwrap().unwrap();
        } else {
            use kms_core::ports::AccountStore;
            let id = FIRST + i64::from(index) % PEOPLE;
            stage.database.account(telegram(id)).await.unwrap().unwrap();
        }
    }
    let limit = (postgres_cpu() - before) / f64::from(READS);
    let name = "read over 64 connections: server CPU / PostgreSQL CPU of the query".to_owned();
    Row { name, measured, limit, unit: "ms", target: 1.5 }
}

/// Beside this many people, each of whom repeats a request with a password: one account each,
/// because attempts at one account wait for each other.
async fn beside_the_kdf(stage: &Stage, people: i64) -> Vec<Row> {
    let mut idle = reads(stage, 4, 4_000).await;
    let limit = p99(&mut idle);
    let stop = Arc::new(AtomicBool::new(false));
    let (refused, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let flood: Vec<_> = (0..people)
        .map(|index| {
            let client = stage.server.client(&stage.env, &stage.token);
            let (stop, refused, lost) = (stop.clone(), refused.clone(), lost.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    // Onboarding an existing account checks its password.
                    let body = create(FLOOD + index, &format!("flood{index}"), WORDS);
                    match client.create_account(&body).await {
                        Ok(_) => {}
                        Err(error) if error.code() == Some(ErrorCode::Busy) => {
                            refused.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                        }
                        Err(error) => {
                            if lost.fetch_add(1, Ordering::SeqCst) == 0 {
                                println!("first unexpected error: {error}");
                            }
                        }
                    }
                }
            })
        })
        .collect();
    let mut busy = reads(stage, 4, 4_000).await;
    let memory = resident(stage.server.id());
    stop.store(true, Ordering::SeqCst);
    join_all(flood).await;
    let (refused, lost) = (refused.load(Ordering::SeqCst), lost.load(Ordering::SeqCst));
    let name = format!(
        "reads beside {people} passwords: p99 / p99 when idle ({refused} refused with 429)"
    );
    vec![
        Row { name, measured: p99(&mut busy), limit, unit: "ms", target: 3.0 },
        Row {
            name: format!("{people} passwords: requests that failed otherwise than by a refusal"),
            measured: lost as f64,
            limit: 1.0,
            unit: "",
            target: 0.0,
        },
        Row {
            name: format!("resident memory with 64 connections and {people} passwords"),
            measured: memory,
            limit: 100.0,
            unit: "MiB",
            target: 1.0,
        },
    ]
}

async fn with_a_million(stage: &Stage) -> Vec<Row> {
    let accounts = variable("BENCH_ACCOUNTS", 1_000_000);
    fill(stage, 100_000_000, 1_000).await;
    let (few, memory) = (mean(stage).await, resident(stage.server.id()));
    fill(stage, MILLION, accounts).await;
    let many = mean(stage).await;
    let row =
        |name: String, measured, limit, unit, target| Row { name, measured, limit, unit, target };
    vec![
        row(format!("read with {accounts} accounts / with 1,000 accounts"), many, few, "ms", 1.2),
        row(
            format!("resident memory with {accounts} accounts / with 1,000 accounts"),
            resident(stage.server.id()),
            memory,
            "MiB",
            1.1,
        ),
    ]
}

async fn mean(stage: &Stage) -> f64 {
    reads(stage, 1, 500).await;
    let took = reads(stage, 1, 3_000).await;
    took.iter().sum::<f64>() / took.len() as f64
}

/// Fills the tables with the million accounts, unless they are there.
pub(crate) async fn fill_million(stage: &Stage) {
    let last = format!("select count(*) from accounts where telegram_id = {MILLION}");
    if stage.sql(&last) == "0" {
        fill(stage, MILLION, variable("BENCH_ACCOUNTS", 1_000_000)).await;
    }
}

/// Fills the tables with copies of an account that are never read, and so need no valid MAC.
async fn fill(stage: &Stage, from: i64, count: u64) {
    let template = stage.account(TEMPLATE).await.id;
    let from = u64::try_from(from).unwrap();
    let (numbers, id) = ((from, from + count - 1), "md5(n::text)::uuid::text");
    let account = [("id", id), ("telegram_id", "n"), ("mac", "''")];
    stage.copy("accounts", &format!("id = '{template}'"), numbers, &account);
    let address = "'0x' || lpad(to_hex(n), 40, '0')";
    let wallet = [("account_id", id), ("address", address), ("sck_id", id)];
    stage.copy("wallets", &format!("account_id = '{template}'"), numbers, &wallet);
    let filler = "'filler' || n";
    let name = [("telegram_id", "n"), ("canonical", filler), ("shown", filler)];
    stage.copy("names", &format!("telegram_id = {TEMPLATE}"), numbers, &name);
    // Autovacuum would do this some time later.
    stage.sql("vacuum analyze");
}
