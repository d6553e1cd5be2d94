//! Sends with many transfers stored, and the requests to the chain that one payment costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::measure::postgres_cpu;
use crate::row::Row;
use crate::stage::{Stage, WORDS, variable};
use kms_server::config::Finality;
use kms_server_testing::requests::{COIN, confirm, create, quote};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::Scope;
use kms_types::wire::{Account, TransferState};
use serde_json::{Value, json};

/// The wallets of this subject, which pay each other.
const FIRST: i64 = 20_000;
const WALLETS: i64 = 10;
const SENDS: i64 = 200;
/// Above every nonce of the stored transfers.
const NONCE: u64 = 20_000_000;
const BLOCK_TIME: Duration = Duration::from_secs(12);
const CONFIRMATIONS: u64 = 12;

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    vec![with_many_stored(stage).await, requests_of_a_payment().await]
}

/// PostgreSQL's CPU time of a send, quote and settlement included, of wallets that have sent half
/// of all stored transfers, compared with that when there are few.
async fn with_many_stored(stage: &Stage) -> Row {
    stage.env.anvil.rpc("evm_setAutomine", json!([true])).unwrap();
    let mut wallets = Vec::new();
    for id in FIRST..FIRST + WALLETS {
        let wallet = stage.account(id).await;
        stage.env.fund(&wallet, 100 * COIN).unwrap();
        let nonce = json!([wallet.address.to_string(), format!("{NONCE:#x}")]);
        stage.env.anvil.rpc("anvil_setNonce", nonce).unwrap();
        wallets.push(wallet);
    }
    // Warm-up; and a row of each kind, to copy.
    sends(stage).await;
    store(stage, &wallets, 1, 1_000);
    let few = sends(stage).await;
    let stored = variable("BENCH_STORED_TRANSFERS", 1_000_000);
    store(stage, &wallets, 1_001, stored);
    let many = sends(stage).await;
    let name = format!("send with {stored} stored transfers / with 1,000: PostgreSQL CPU");
    Row { name, measured: many, limit: few, unit: "ms", target: 1.2 }
}

/// Sends from each wallet in turn, and returns PostgreSQL's CPU milliseconds for one.
async fn sends(stage: &Stage) -> f64 {
    let before = postgres_cpu();
    for index in 0..SENDS {
        let (from, to) = (FIRST + index % WALLETS, FIRST + (index + 1) % WALLETS);
        let request = quote(from, &format!("@person{to}"), "0.001");
        let shown = stage.client.quote(&request).await.unwrap();
        stage.client.confirm(request.id, &confirm(&shown, WORDS)).await.unwrap();
    }
    (postgres_cpu() - before) / SENDS as f64
}

/// Copies a transfer, with its signed transaction, event and spend, so that the numbers `from` to
/// `to` are stored. Every second one was sent by one of the wallets.
fn store(stage: &Stage, wallets: &[Account], from: u64, to: u64) {
    let list = |of: fn(&Account) -> String| {
        let all: Vec<_> = wallets.iter().map(|wallet| format!("'{}'", of(wallet))).collect();
        format!("(array[{}])[1 + n % {WALLETS}]", all.join(", "))
    };
    let (account, address) =
        (list(|wallet| wallet.id.to_string()), list(|wallet| wallet.address.to_lower_hex()));
    let id = "md5('transfer' || n)::uuid::text";
    let hash = "'\\x' || md5('hash' || n) || md5(n::text)";
    let other = "'0x' || lpad(to_hex(n), 40, '0')";
    let copy = |table: &str, columns: &str| {
        stage.sql(&format!(
            "insert into {table} select copied.* from generate_series({from}, {to}) as n, \
             (select * from {table} limit 1) as template, \
             lateral jsonb_populate_record(template, jsonb_build_object({columns})) as copied"
        ));
    };
    let address = format!("case when n % 2 = 0 then {address} else {other} end");
    copy(
        "transfers",
        &format!(
            "'id', {id}, 'from_account', {account}, 'from_address', {address}, 'nonce', n, \
             'tx_hash', {hash}, 'state', 'final', 'created_at', n, 'to_address', {other}"
        ),
    );
    copy("signed_transactions", &format!("'transfer_id', {id}, 'tx_hash', {hash}, 'sealed', null"));
    copy("spends", &format!("'transfer_id', {id}, 'account_id', {account}, 'at', n"));
    // Autovacuum would do this some time later.
    stage.sql("vacuum analyze");
}

/// JSON-RPC calls for a payment from quote to finality, beyond those that the blocks cost without
/// payments. Takes some minutes, as real blocks do.
async fn requests_of_a_payment() -> Row {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    let proxy = CountingProxy::before(&env.anvil.url());
    env.rpc_urls = proxy.url.clone();
    env.chain.finality = Finality::Blocks(CONFIRMATIONS);
    env.chain.poll_interval = Duration::from_secs(1);
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    for id in 1..=WALLETS {
        let wallet = client.create_account(&create(id, &format!("person{id}"), WORDS)).await;
        env.fund(&wallet.unwrap(), COIN).unwrap();
    }
    let interval = json!([BLOCK_TIME.as_secs()]);
    env.anvil.rpc("evm_setIntervalMining", interval).unwrap();
    tokio::time::sleep(2 * BLOCK_TIME).await;
    let idle_blocks = 4;
    let before = proxy.calls();
    tokio::time::sleep(idle_blocks * BLOCK_TIME).await;
    let idle = (proxy.calls() - before) as f64 / (idle_blocks * BLOCK_TIME).as_secs_f64();

    let (begun, before) = (Instant::now(), proxy.calls());
    let mut sent = Vec::new();
    for id in 1..=WALLETS {
        let request = quote(id, &format!("@person{}", 1 + id % WALLETS), "0.001");
        let shown = client.quote(&request).await.unwrap();
        sent.push(client.confirm(request.id, &confirm(&shown, WORDS)).await.unwrap().id);
    }
    for id in &sent {
        while client.transfer(*id).await.unwrap().unwrap().state != TransferState::Final {
            assert!(begun.elapsed() < 30 * BLOCK_TIME, "a payment is not final");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let calls = (proxy.calls() - before) as f64 - idle * begun.elapsed().as_secs_f64();
    Row {
        name: format!(
            "RPC calls of a payment, 12 s blocks, {CONFIRMATIONS} confirmations ({idle:.1} a second \
             without payments)"
        ),
        measured: calls / WALLETS as f64,
        limit: 20.0,
        unit: "",
        target: 1.0,
    }
}

/// Forwards to a node, and counts the calls.
struct CountingProxy {
    url: String,
    calls: Arc<AtomicU64>,
}

impl CountingProxy {
    fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = node.trim_start_matches("http://").to_owned();
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (node, calls) = (node.clone(), Arc::clone(&counted));
                thread::spawn(move || stream.map(|stream| forward(stream, &node, &calls)));
            }
        });
        Self { url, calls }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

fn forward(mut stream: TcpStream, node: &str, calls: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).ok()? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let count = match serde_json::from_slice(&body).ok()? {
        // Providers count the calls of a batch.
        Value::Array(batch) => batch.len(),
        _ => 1,
    };
    calls.fetch_add(u64::try_from(count).ok()?, Ordering::SeqCst);
    let mut node_stream = TcpStream::connect(node).ok()?;
    write!(
        node_stream,
        "POST / HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    node_stream.write_all(&body).ok()?;
    let mut answer = Vec::new();
    node_stream.read_to_end(&mut answer).ok()?;
    stream.write_all(&answer).ok()
}
