//! What needs a password: the server's CPU against the sum of the cryptography that it can not do
//! without.

use crate::measure::{cpu, own_cpu};
use crate::row::Row;
use crate::stage::{Stage, WORDS};
use argon2::{Algorithm, Argon2, Params, Version};
use futures::future::join_all;
use k256::ecdsa::SigningKey;
use kms_core::MasterKey;
use kms_key_local::LocalMasterKey;
use kms_server_testing::requests::{COIN, confirm, quote, telegram};
use kms_server_testing::{TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE};
use kms_types::wire::Transfer;
use sha2::Sha256;

const TIMES: i64 = 300;
/// Fewer than the attempts at one password that may be under way.
const AT_ONCE: i64 = 4;
/// The first of the people that are made here.
const FIRST: i64 = 1_000;

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    let (wrap, make, sign) = (wrap(), make(), sign());
    // The first request of a kind is not counted.
    stage.account(FIRST).await;
    let (create, kdf) =
        beside_kdf(stage, async |id| drop(stage.account(FIRST + 1 + id).await)).await;
    let parts = kdf + wrap + make;
    let create = row("create a wallet: server CPU, of KDF, wrap and key", create, parts, 1.10);

    // Each from a wallet of its own, as people do.
    let mut quoted = Vec::new();
    for id in FIRST + 1..=FIRST + TIMES {
        let from = stage.client.account(telegram(id)).await.unwrap().unwrap();
        stage.env.fund(&from, COIN).unwrap();
        let request = quote(id, &format!("@person{FIRST}"), "0.001");
        quoted.push(stage.client.quote(&request).await.unwrap());
    }
    let confirm = async |id: i64| confirmed(stage, &quoted[usize::try_from(id).unwrap()]).await;
    let (send, kdf) = beside_kdf(stage, confirm).await;
    let parts = kdf + 4.0 * sign;
    let send = row("confirm a send: server CPU, of KDF and four signatures", send, parts, 1.12);
    vec![create, send]
}

/// Milliseconds of the server's CPU for one request, and of a thread for a KDF. The server has
/// something to do all the time, for a machine that falls asleep between two requests counts its
/// waking as work. The two take turns, as many at once as the server checks passwords: a machine that
/// is slower for a while, and memory that others use too, are so for both.
async fn beside_kdf(stage: &Stage, request: impl AsyncFn(i64)) -> (f64, f64) {
    let params = Params::new(19 * 1024, 2, 1, Some(32)).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let kdfs = || {
        let before = own_cpu();
        for _ in 0..AT_ONCE {
            argon2.hash_password_into(&[7; 32], &[8; 16], &mut [0; 32]).unwrap();
        }
        (own_cpu() - before) / AT_ONCE as f64
    };
    let threads = std::thread::available_parallelism().unwrap().get();
    let (server, mut alone) = (stage.server.id(), 0.0);
    let before = cpu(server);
    let turns = TIMES / AT_ONCE;
    for turn in 0..turns {
        join_all((0..AT_ONCE).map(|index| request(turn * AT_ONCE + index))).await;
        let each: Vec<f64> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(kdfs)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        alone += each.iter().sum::<f64>() / threads as f64;
    }
    ((cpu(server) - before) / TIMES as f64, alone / turns as f64)
}

fn row(name: &str, measured: f64, limit: f64, target: f64) -> Row {
    Row { name: name.to_owned(), measured, limit, unit: "ms", target }
}

async fn confirmed(stage: &Stage, quote: &Transfer) {
    stage.client.confirm(quote.id, &confirm(quote, WORDS)).await.unwrap();
}

/// Milliseconds of CPU that one takes in this process, alone on its thread.
fn one(times: u32, mut work: impl FnMut()) -> f64 {
    let before = own_cpu();
    for _ in 0..times {
        work();
    }
    (own_cpu() - before) / f64::from(times)
}

fn wrap() -> f64 {
    let id = "bench".parse().unwrap();
    let key = LocalMasterKey::from_pem(id, TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE).unwrap();
    one(1_000, || drop(key.public_key().oaep_encrypt::<Sha256>(&[7; 100]).unwrap()))
}

fn make() -> f64 {
    let mut number = 1_u64;
    one(3_000, || {
        number += 1;
        let mut bytes = [7; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_slice(&bytes).unwrap();
        std::hint::black_box(key.verifying_key().to_encoded_point(false));
    })
}

fn sign() -> f64 {
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    one(3_000, || {
        std::hint::black_box(key.sign_prehash_recoverable(&[9; 32]).unwrap());
    })
}
