//! `just bench-express`: the server beside the stack that it replaces (`benches/express`), on the
//! same machine, PostgreSQL, mongod and chain, under the same load, by turns.
//!
//! The other one does less: it has no audit, no limits, no repeats, no ladder of prices, looks
//! after no payment, and erases nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::measure::{cpu_of_all, memory_of_all, p99, postgres_cpu, since};
use crate::row::Row;
use crate::stage::{Stage, WORDS};
use futures::future::{join, join_all};
use kms_client::Client;
use kms_core::MasterKey;
use kms_key_local::LocalMasterKey;
use kms_server_testing::requests::{COIN, confirm, create, quote, telegram};
use kms_server_testing::{TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE};
use kms_testkit::free_port;
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const ROUNDS: i64 = 3;
/// The first account of either product, and how many of them pay.
const FIRST: i64 = 300_000;
const PAYERS: i64 = 320;
const TOKEN: &str = "express";
const TABLES: &str = "create table express_wallets (telegram_id bigint primary key, \
    username text not null unique, address text not null, salt bytea not null, \
    sealed bytea not null, sck_id uuid not null, created_at timestamptz not null default now()); \
    create table express_payments (hash text primary key, telegram_id bigint not null, \
    recipient text not null, wei numeric not null, nonce bigint not null, raw text not null, \
    created_at timestamptz not null default now())";

/// What is asked: how it is called, over how many connections, how often, and the highest ratio of
/// the time that a request takes.
#[derive(Clone, Copy)]
enum Work {
    Name,
    Account,
    Create,
    Pay,
}

impl Work {
    const ALL: [(Self, &'static str, i64, i64, f64); 4] = [
        (Self::Name, "look up a name", 64, 20_480, 0.5),
        (Self::Account, "look up an account", 64, 20_480, 0.5),
        (Self::Create, "create a wallet", 16, 480, 1.0),
        (Self::Pay, "pay", 16, 320, 1.0),
    ];
}

#[derive(Clone, Copy)]
enum Side<'a> {
    Ours(&'a Stage),
    Express(&'a Express),
}

/// Milliseconds for each request: by the clock, of the server's CPU, and of PostgreSQL's.
struct Cost {
    time: f64,
    server: f64,
    postgres: f64,
}

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    let express = Express::start(stage).await;
    let both = [Side::Express(&express), Side::Ours(stage)];
    stage.mine_every(Some(2));
    for side in both {
        side.run(Work::Create, 8, 0, PAYERS).await;
        side.fund(stage).await;
        side.run(Work::Pay, 8, 0, 64).await;
    }
    let mut costs = BTreeMap::<_, [Vec<Cost>; 2]>::new();
    let mut beside = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (order, (work, name, connections, count, _)) in Work::ALL.into_iter().enumerate() {
            for (index, side) in both.into_iter().enumerate() {
                stage.settle().await;
                let first = (round + 1) * 10_000;
                let cost = side.cost(work, connections, first, count).await;
                println!("{name}, {}: {:.0} a second", side.label(), 1_000.0 / cost.time);
                costs.entry(order).or_default()[index].push(cost);
            }
        }
        for (index, side) in both.into_iter().enumerate() {
            stage.settle().await;
            let took = side.reads_beside_passwords((round + 1) * 10_000 + 5_000).await;
            println!("reads beside passwords, {}: p99 {took:.1} ms", side.label());
            beside[index].push(took);
        }
    }
    let mut rows = Vec::new();
    for (order, (_, name, connections, _, target)) in Work::ALL.into_iter().enumerate() {
        let [theirs, ours] = &costs[&order];
        let mut row = |what: &str, of: fn(&Cost) -> f64, target| {
            let name = format!("{name} over {connections} connections: {what} / Express");
            rows.push(versus(
                name,
                median(ours.iter().map(of)),
                median(theirs.iter().map(of)),
                target,
            ));
        };
        row("time for each", |cost| cost.time, target);
        row("server CPU", |cost| cost.server, 1.0);
        row("PostgreSQL CPU", |cost| cost.postgres, 1.0);
    }
    let [theirs, ours] = beside.map(|all| median(all.into_iter()));
    rows.push(versus("reads beside 32 passwords: p99 / Express".to_owned(), ours, theirs, 1.0));
    let [theirs, ours] = [express.0.id(), stage.server.id()].map(memory_of_all);
    let name = "memory afterwards / Express".to_owned();
    rows.push(Row { name, measured: ours, limit: theirs, unit: "MiB", target: 1.0 });
    rows
}

fn versus(name: String, measured: f64, limit: f64, target: f64) -> Row {
    Row { name, measured, limit, unit: "ms", target }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Side<'_> {
    fn label(self) -> &'static str {
        match self {
            Self::Ours(_) => "kms-server",
            Self::Express(_) => "Express",
        }
    }

    fn process(self) -> u32 {
        match self {
            Self::Ours(stage) => stage.server.id(),
            Self::Express(express) => express.0.id(),
        }
    }

    async fn cost(self, work: Work, connections: i64, first: i64, count: i64) -> Cost {
        let (server, postgres, begun) =
            (cpu_of_all(self.process()), postgres_cpu(), Instant::now());
        self.run(work, connections, first, count).await;
        let each = |total: f64| total / count as f64;
        Cost {
            time: each(since(begun)),
            server: each(cpu_of_all(self.process()) - server),
            postgres: each(postgres_cpu() - postgres),
        }
    }

    /// Sends this many requests over the connections, and returns their latencies.
    async fn run(self, work: Work, connections: i64, first: i64, count: i64) -> Vec<f64> {
        let one = |connection: i64| async move {
            let caller = self.caller();
            let mut took = Vec::new();
            for index in 0..count / connections {
                let begun = Instant::now();
                caller.request(work, first + index * connections + connection).await;
                took.push(since(begun));
            }
            took
        };
        join_all((0..connections).map(one)).await.into_iter().flatten().collect()
    }

    /// The p99 of reads over eight connections while 32 people create wallets.
    async fn reads_beside_passwords(self, first: i64) -> f64 {
        let stop = &AtomicBool::new(false);
        let person = |person: i64| async move {
            let caller = self.caller();
            for index in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                caller.request(Work::Create, first + index * 32 + person).await;
            }
        };
        let reads = async {
            let took = self.run(Work::Name, 8, 0, 8_000).await;
            stop.store(true, Ordering::SeqCst);
            took
        };
        let (_, mut took) = join(join_all((0..32).map(person)), reads).await;
        p99(&mut took)
    }

    fn caller(self) -> Caller {
        match self {
            Self::Ours(stage) => Caller::Ours(stage.server.client(&stage.env, &stage.token)),
            Self::Express(Express(_, url, certificate)) => {
                let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
                let client = reqwest::Client::builder().add_root_certificate(certificate);
                Caller::Express(client.build().unwrap(), url.clone())
            }
        }
    }

    async fn fund(self, stage: &Stage) {
        let caller = self.caller();
        for id in 0..PAYERS {
            let address = caller.address(id).await;
            stage.env.anvil.set_balance(&address, COIN).unwrap();
        }
    }
}

/// One connection.
enum Caller {
    Ours(Client),
    Express(reqwest::Client, String),
}

impl Caller {
    async fn request(&self, work: Work, index: i64) {
        let (payer, id) = (FIRST + index % PAYERS, FIRST + index);
        let to = format!("express{}", FIRST + (index + 1) % PAYERS);
        match (self, work) {
            (Self::Ours(client), Work::Name) => {
                client.name(&to.parse().unwrap()).await.unwrap().unwrap();
            }
            (Self::Ours(client), Work::Account) => {
                client.account(telegram(payer)).await.unwrap().unwrap();
            }
            (Self::Ours(client), Work::Create) => {
                let body = create(id, &format!("express{id}"), WORDS);
                client.create_account(&body).await.unwrap();
            }
            (Self::Ours(client), Work::Pay) => {
                let quoted =
                    client.quote(&quote(payer, &format!("@{to}"), "0.0001")).await.unwrap();
                client.confirm(quoted.id, &confirm(&quoted, WORDS)).await.unwrap();
            }
            (Self::Express(..), Work::Name) => drop(self.get(&format!("names/{to}")).await),
            (Self::Express(..), Work::Account) => drop(self.get(&format!("wallets/{payer}")).await),
            (Self::Express(..), Work::Create) => {
                let username = format!("express{id}");
                let body = json!({ "telegramId": id, "username": username, "password": WORDS });
                self.post("wallets", &body).await;
            }
            (Self::Express(..), Work::Pay) => {
                let body = json!({
                    "telegramId": payer, "to": to, "wei": "100000000000000", "password": WORDS,
                });
                self.post("payments", &body).await;
            }
        }
    }

    async fn address(&self, index: i64) -> String {
        match self {
            Self::Ours(client) => {
                let account = client.account(telegram(FIRST + index)).await.unwrap().unwrap();
                account.address.to_string()
            }
            Self::Express(..) => {
                let wallet = self.get(&format!("wallets/{}", FIRST + index)).await;
                wallet["address"].as_str().unwrap().to_owned()
            }
        }
    }

    async fn get(&self, path: &str) -> Value {
        let Self::Express(client, url) = self else { unreachable!("has a client of its own") };
        read(client.get(format!("{url}/{path}"))).await
    }

    async fn post(&self, path: &str, body: &Value) {
        let Self::Express(client, url) = self else { unreachable!("has a client of its own") };
        let body = serde_json::to_vec(body).unwrap();
        let request = client.post(format!("{url}/{path}")).body(body);
        read(request.header("content-type", "application/json")).await;
    }
}

async fn read(request: reqwest::RequestBuilder) -> Value {
    let response = request.bearer_auth(TOKEN).send().await.unwrap().error_for_status().unwrap();
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The running server, its URL, and its certificate.
struct Express(Child, String, String);

impl Express {
    /// As many workers as cores, as kms-server has threads.
    async fn start(stage: &Stage) -> Self {
        let env = &stage.env;
        stage.sql(TABLES);
        let key = LocalMasterKey::from_pem(
            "bench".parse().unwrap(),
            TEST_KMS_KEY,
            TEST_KMS_KEY_PASSPHRASE,
        );
        let public_key = key.unwrap().public_key().to_public_key_pem(LineEnding::LF).unwrap();
        let cores = std::thread::available_parallelism().unwrap().to_string();
        let port = free_port().unwrap();
        let token_hash = hex::encode(Sha256::digest(TOKEN));
        let child = Command::new("node")
            .arg("server.mjs")
            .current_dir(installed())
            .env("WORKERS", &cores)
            .env("UV_THREADPOOL_SIZE", &cores)
            .env("NODE_ENV", "production")
            .env("DATABASE_URL", &env.database)
            .env("MONGODB_URL", env.key_database_of_admin().unwrap())
            .env("MONGODB_NAME", &env.key_database_name)
            .env("RPC_URL", env.anvil.url())
            .env("CHAIN_ID", env.anvil.chain_id().to_string())
            .env("KMS_PUBLIC_KEY", public_key)
            .env("CERTIFICATE", &env.certificate)
            .env("CERTIFICATE_KEY", &env.certificate_key)
            .env("TOKEN_SHA256", token_hash)
            .env("PORT", port.to_string())
            .spawn()
            .unwrap();
        let express = Self(child, format!("https://localhost:{port}"), env.certificate.clone());
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return express;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("Express does not listen");
    }
}

impl Drop for Express {
    fn drop(&mut self) {
        // Its workers exit when their channel to it closes.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Installs its packages from the lock file into `target/express`, and returns the folder.
fn installed() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("../../target/express");
    fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", "server.mjs"] {
        fs::copy(root.join("benches/express").join(file), folder.join(file)).unwrap();
    }
    let npm = ["ci", "--silent", "--no-audit", "--no-fund"];
    let status = Command::new("npm").args(npm).current_dir(&folder).status().unwrap();
    assert!(status.success(), "npm ci failed");
    folder
}
