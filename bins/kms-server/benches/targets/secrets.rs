//! What needs a password: the server's CPU against the sum of the cryptography that it can not do
//! without.

use argon2::{Algorithm, Argon2, Params, Version};
use k256::ecdsa::SigningKey;
use kms_core::{LocalMasterKey, MasterKey};
use kms_types::wire::Transfer;
use sha2::Sha256;

use crate::harness::{COIN, MASTER_KEY, PASSPHRASE, confirm, quote};
use crate::measure::cpu;
use crate::row::Row;
use crate::stage::{Stage, WORDS};

const TIMES: i64 = 150;
/// The first of the people that are made here.
const FIRST: i64 = 1_000;

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    let server = stage.server.id();
    let (kdf, wrap, make, sign) = (kdf(), wrap(), make(), sign());
    // The first request of a kind is not counted.
    stage.account(FIRST).await;
    let before = cpu(server);
    for id in 1..=TIMES {
        stage.account(FIRST + id).await;
    }
    let create = (cpu(server) - before) / TIMES as f64;

    let from = stage.account(FIRST).await;
    stage.place.fund(&from, 1_000 * COIN);
    let mut quoted = Vec::new();
    for id in 1..=TIMES {
        let request = quote(FIRST, &format!("@person{}", FIRST + id), "0.001");
        quoted.push(stage.client.quote(&request).await.unwrap());
    }
    let before = cpu(server);
    for quote in &quoted {
        confirmed(stage, quote).await;
    }
    let send = (cpu(server) - before) / TIMES as f64;
    vec![
        row("create a wallet: server CPU, of KDF, wrap and key", create, kdf + wrap + make, 1.10),
        row("confirm a send: server CPU, of KDF and four signatures", send, kdf + 4.0 * sign, 1.12),
    ]
}

fn row(name: &str, measured: f64, limit: f64, target: f64) -> Row {
    Row { name: name.to_owned(), measured, limit, unit: "ms", target }
}

async fn confirmed(stage: &Stage, quote: &Transfer) {
    stage.client.confirm(quote.id, &confirm(quote, WORDS)).await.unwrap();
}

/// Milliseconds of CPU that one takes in this process, alone on its thread.
fn one(times: u32, mut work: impl FnMut()) -> f64 {
    let before = cpu(std::process::id());
    for _ in 0..times {
        work();
    }
    (cpu(std::process::id()) - before) / f64::from(times)
}

fn kdf() -> f64 {
    let params = Params::new(19 * 1024, 2, 1, Some(32)).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    one(80, || argon2.hash_password_into(&[7; 32], &[8; 16], &mut [0; 32]).unwrap())
}

fn wrap() -> f64 {
    let id = "bench".parse().unwrap();
    let key = LocalMasterKey::from_pem(id, MASTER_KEY, PASSPHRASE).unwrap();
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
