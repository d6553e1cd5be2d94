//! Measures how long a server takes to read the blocks of a day of downtime on a chain of two
//! seconds a block, from a node that takes 50 ms for each answer. The target is minutes.
//!
//! ```text
//! cargo run --release -p kms-chain --example catch_up [BLOCKS [PAYMENTS IN EACH]]
//! ```

#![expect(clippy::unwrap_used, reason = "an example, which may panic")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kms_chain::follower::{Finality, Follower, FollowerConfig};
use kms_chain::{Chain, Tokens};
use kms_core::ServerKeys;
use kms_store::Database;
use kms_testkit::Anvil;
use kms_types::Timestamp;
use serde_json::json;

const A_DAY: u64 = 24 * 60 * 60 / 2;
const LATENCY: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|count| count.parse().unwrap());
    let (blocks, payments) = (arguments.next().unwrap_or(A_DAY), arguments.next().unwrap_or(0));
    let anvil = Anvil::start().unwrap();
    // A file: a database in memory ends when its connection has been idle for long.
    let file = std::env::temp_dir().join(format!("catch-up-{}.db", std::process::id()));
    let url = format!("sqlite:{}", file.display());
    let database = Database::connect(&url, 1, Arc::new(ServerKeys::random())).await.unwrap();
    database.migrate().await.unwrap();
    let chain = Chain::new(&delayed(&anvil.url()), anvil.chain_id()).unwrap();
    let finality = Finality::Blocks(12);
    let config = FollowerConfig {
        finality,
        prove_receipts: true,
        compare_balances: true,
        tokens: Tokens::default(),
    };
    let follower = Follower::new(Arc::new(database), chain, config);
    let now = Timestamp(0);
    follower.round(now).await.unwrap();
    mine(&anvil, blocks, payments);
    let begun = Instant::now();
    while follower.round(now).await.unwrap() {}
    let took = begun.elapsed();
    println!("{blocks} blocks with {payments} payments each in {took:.1?}");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
}

fn mine(anvil: &Anvil, blocks: u64, payments: u64) {
    if payments == 0 {
        for _ in 0..blocks.div_ceil(100) {
            anvil.rpc("anvil_mine", json!(["0x64"])).unwrap();
        }
        return;
    }
    let accounts = anvil.rpc("eth_accounts", json!([])).unwrap();
    let (from, to) = (accounts.get(0).unwrap(), accounts.get(1).unwrap());
    let payment = json!([{ "from": from, "to": to, "value": "0x1" }]);
    anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    for _ in 0..blocks {
        for _ in 0..payments {
            anvil.rpc("eth_sendTransaction", payment.clone()).unwrap();
        }
        anvil.rpc("anvil_mine", json!([1])).unwrap();
    }
}

/// A proxy that takes a while for each request.
fn delayed(node: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let node = node.trim_start_matches("http://").to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, node) = (client.unwrap(), TcpStream::connect(&node).unwrap());
            let (answers, clients) = (node.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || forward(client, node, LATENCY));
            thread::spawn(move || forward(answers, clients, Duration::ZERO));
        }
    });
    url
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        thread::sleep(delay);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
}
