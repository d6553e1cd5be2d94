//! Requests with a password: the server's CPU time compared with that of the cryptography they
//! require.

use crate::measure::{cpu, own_cpu, postgres_cpu};
use crate::row::Row;
use crate::stage::{Stage, WORDS};
use argon2_rust::params::Memory;
use argon2_rust::{Algorithm, Argon2, Hasher, Params, Version};
use futures::future::join_all;
use k256::ecdsa::SigningKey;
use kms_core::MasterKey;
use kms_key_local::LocalMasterKey;
use kms_server_testing::requests::{COIN, confirm, quote, telegram};
use kms_server_testing::{TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE};
use kms_store::RateLimit;
use kms_types::wire::Transfer;
use sha2::Sha256;

pub(crate) const TIMES: i64 = 300;
/// Below the limit of concurrent attempts at one password.
const AT_ONCE: i64 = 4;
/// The accounts that are created, and pay, before anything is measured: connections then have
/// prepared and planned each statement, which PostgreSQL does anew five times.
const WARM_UP: i64 = 64;
/// The first of the accounts that are created here.
const FIRST: i64 = 1_000;

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    let (wrap, make, sign) = (wrap(), generate(), sign());
    // Blocks are mined afterwards: what they cost is a row of its own.
    stage.mine_every(Some(0));
    stage.account(FIRST).await;
    let warm = FIRST + 1 + TIMES;
    for first in (warm..warm + WARM_UP).step_by(4) {
        join_all((first..first + AT_ONCE).map(async |id| {
            stage.account(id).await;
            confirmed(stage, &quoted(stage, id).await).await;
        }))
        .await;
    }
    stage.settle().await;
    let (create, kdf) =
        beside_kdf(stage, async |id| drop(stage.account(FIRST + 1 + id).await)).await;
    let parts = kdf + wrap + make;
    let mut rows = vec![
        of_rustcrypto(),
        row("create a wallet: server CPU / KDF + wrap + key generation", create, parts, 1.10),
    ];
    let around = around(stage).await;
    let floor = parts + around.request + 10.0 * around.statement;
    rows.push(row("the same at least, with 10 of the cheapest statements", floor, parts, 1.10));

    let before = postgres_cpu();
    // Each transfer is sent from another wallet.
    let mut quotes = Vec::new();
    for id in FIRST + 1..=FIRST + TIMES {
        quotes.push(quoted(stage, id).await);
    }
    let confirm = async |id: i64| confirmed(stage, &quotes[usize::try_from(id).unwrap()]).await;
    let (send, kdf) = beside_kdf(stage, confirm).await;
    let postgres = (postgres_cpu() - before) / TIMES as f64;
    let before = (cpu(stage.server.id()), postgres_cpu());
    stage.settle().await;
    let after = (cpu(stage.server.id()) - before.0, postgres_cpu() - before.1);
    let settled = |total: f64, of: &str| {
        let name = format!("settle a payment, of {TIMES} in a block: {of} CPU");
        row(&name, total / TIMES as f64, 1.0, 1.0)
    };
    stage.mine_every(None);
    let parts = kdf + 4.0 * sign;
    rows.push(row("confirm a transfer: server CPU / KDF + four signatures", send, parts, 1.15));
    let floor = parts + around.request + 14.0 * around.statement + 2.0 * around.call;
    rows.push(row("the same at least, with 14 of the cheapest statements", floor, parts, 1.15));
    let name = "quote and confirm: PostgreSQL CPU / of one insert and commit";
    rows.push(row(name, postgres, around.insert, 3.0));
    let floor = 20.0 * around.insert;
    rows.push(row("the same at least, with 20 of the cheapest writes", floor, around.insert, 3.0));
    rows.extend([settled(after.0, "server"), settled(after.1, "PostgreSQL")]);
    rows
}

/// Milliseconds of CPU of what every request needs around its cryptography.
struct Around {
    /// Of the server, for a request over TLS that it refuses at once.
    request: f64,
    /// Of a client of PostgreSQL as the server is one, for a statement that is one row's insert.
    statement: f64,
    /// Of PostgreSQL for that statement and its commit.
    insert: f64,
    /// Of an HTTP client, for a JSON-RPC call.
    call: f64,
}

async fn around(stage: &Stage) -> Around {
    let url = format!("https://localhost:{}/app/v1/nothing", stage.server.page_port);
    let certificate = reqwest::Certificate::from_pem(stage.env.certificate.as_bytes()).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(certificate).build().unwrap();
    let ask = async |_| {
        client.get(&url).send().await.unwrap().bytes().await.unwrap();
    };
    let server = stage.server.id();
    let request = each(ask, || cpu(server)).await;
    let insert = async |index: i64| {
        let key = format!("bench:{index}");
        stage.database.take(&key, RateLimit::a_day(1)).await.unwrap().unwrap();
    };
    let before = postgres_cpu();
    let own = std::process::id();
    let statement = each(insert, || cpu(own)).await;
    let insert = (postgres_cpu() - before) / (10 * TIMES) as f64;
    let call = async |_| {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;
        let call = client.post(stage.env.anvil.url()).body(body);
        let call = call.header("content-type", "application/json").send();
        call.await.unwrap().bytes().await.unwrap();
    };
    let call = each(call, || cpu(own)).await;
    Around { request, statement, insert, call }
}

/// Milliseconds of CPU for each of many, several at once.
async fn each(work: impl AsyncFn(i64), cpu: impl Fn() -> f64) -> f64 {
    let before = cpu();
    for first in (0..10 * TIMES).step_by(4) {
        join_all((first..first + AT_ONCE).map(|index| work(index))).await;
    }
    (cpu() - before) / (10 * TIMES) as f64
}

/// Milliseconds of the server's CPU for one request, and of a thread for one KDF.
///
/// Requests are sent several at a time, because with one at a time the CPU enters idle states in
/// between and the wake-up cost is attributed to the server. Requests and KDFs alternate, with the
/// same concurrency, so that a temporarily slower machine affects both.
pub(crate) async fn beside_kdf(stage: &Stage, request: impl AsyncFn(i64)) -> (f64, f64) {
    // As many at once as the server runs, each with memory that is kept.
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut hashers: Vec<_> = (0..threads).map(|_| fastest().hasher()).collect();
    let kdfs = |hasher: &mut Hasher| {
        let before = own_cpu();
        for _ in 0..AT_ONCE {
            hasher.hash_into(&[7; 32], &[8; 16], &mut [0; 32]).unwrap();
        }
        (own_cpu() - before) / AT_ONCE as f64
    };
    // The memory is touched before it counts.
    for hasher in &mut hashers {
        kdfs(hasher);
    }
    let (server, mut alone) = (stage.server.id(), 0.0);
    let before = cpu(server);
    let turns = TIMES / AT_ONCE;
    for turn in 0..turns {
        join_all((0..AT_ONCE).map(|index| request(turn * AT_ONCE + index))).await;
        let each: Vec<f64> = std::thread::scope(|scope| {
            let all: Vec<_> =
                hashers.iter_mut().map(|hasher| scope.spawn(move || kdfs(hasher))).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        alone += each.iter().sum::<f64>() / threads as f64;
    }
    ((cpu(server) - before) / TIMES as f64, alone / turns as f64)
}

/// The fastest maintained Argon2id that is known, whichever the server uses.
fn fastest() -> Argon2 {
    let memory = Memory::kib(19 * 1024);
    let params = Params::builder().memory(memory).passes(2).build().unwrap();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Compares the fastest Argon2id with RustCrypto's, by turns, each with memory that is kept.
fn of_rustcrypto() -> Row {
    let params = argon2::Params::new(19 * 1024, 2, 1, Some(32)).unwrap();
    let mut memory = vec![argon2::Block::default(); params.block_count()];
    let other = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut hasher = fastest().hasher();
    let (mut fast, mut slow) = (0.0, 0.0);
    for _ in 0..TIMES / 10 {
        fast += time_of(1, || hasher.hash_into(&[7; 32], &[8; 16], &mut [0; 32]).unwrap());
        slow += time_of(1, || {
            let hash = &mut [0; 32];
            let memory = &mut memory[..];
            other.hash_password_into_with_memory(&[7; 32], &[8; 16], hash, memory).unwrap();
        });
    }
    let turns = (TIMES / 10) as f64;
    row("Argon2id of the server / of RustCrypto", fast / turns, slow / turns, 1.0)
}

pub(crate) fn row(name: &str, measured: f64, limit: f64, target: f64) -> Row {
    Row { name: name.to_owned(), measured, limit, unit: "ms", target }
}

/// Funds an account, and quotes a payment of it.
async fn quoted(stage: &Stage, from: i64) -> Transfer {
    let account = stage.client.account(telegram(from)).await.unwrap().unwrap();
    stage.env.fund(&account, COIN).unwrap();
    let request = quote(from, &format!("@person{FIRST}"), "0.001");
    stage.client.quote(&request).await.unwrap()
}

async fn confirmed(stage: &Stage, quote: &Transfer) {
    stage.client.confirm(quote.id, &confirm(quote, WORDS)).await.unwrap();
}

/// Milliseconds of CPU of one call, measured on this thread.
fn time_of(times: u32, mut work: impl FnMut()) -> f64 {
    let before = own_cpu();
    for _ in 0..times {
        work();
    }
    (own_cpu() - before) / f64::from(times)
}

fn wrap() -> f64 {
    let id = "bench".parse().unwrap();
    let key = LocalMasterKey::from_pem(id, TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE).unwrap();
    time_of(1_000, || drop(key.public_key().oaep_encrypt::<Sha256>(&[7; 100]).unwrap()))
}

fn generate() -> f64 {
    let mut number = 1_u64;
    time_of(3_000, || {
        number += 1;
        let mut bytes = [7; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_slice(&bytes).unwrap();
        std::hint::black_box(key.verifying_key().to_encoded_point(false));
    })
}

/// Milliseconds of one signature.
pub(crate) fn sign() -> f64 {
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    time_of(3_000, || {
        std::hint::black_box(key.sign_prehash_recoverable(&[9; 32]).unwrap());
    })
}
