//! Planted secrets appear in no log, no error and no database.

use argon2::Argon2;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use kms_client::ClientError;
use kms_core::account::Account;
use kms_core::ports::AccountStore;
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::{Database, Scope};
use kms_testkit::Mongod;
use kms_types::PasswordHash;
use kms_types::wire::{ChangePassword, CreateAccount, ExportKey, TransferState};
use mongodb::bson::Document;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::json;
use sha2::Sha256;

/// Opens a wallet as `FORMAT.md` specifies, without the code of `kms-core`. Returns the SCK and the
/// private key.
pub(crate) fn open(account: &Account, password: &PasswordHash, pepper: &[u8; 32]) -> [[u8; 32]; 2] {
    let wallet = &account.wallet;
    let mut stretched = [0; 32];
    let params = argon2::Params::new(19_456, 2, 1, Some(32)).unwrap();
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(password.expose(), &wallet.salt.0, &mut stretched)
        .unwrap();
    let (mut sck, mut seal) = ([0; 32], [0; 32]);
    Hkdf::<Sha256>::new(Some(pepper), &stretched).expand(b"wallet-kms/v1/sck", &mut sck).unwrap();
    Hkdf::<Sha256>::new(None, &sck).expand(b"wallet-kms/v1/seal", &mut seal).unwrap();
    let aad = [
        b"wallet-kms/v1/private-key".as_slice(),
        account.id.as_bytes(),
        &account.telegram_id.as_i64().to_be_bytes(),
        wallet.address.as_bytes(),
        wallet.sck_id.as_bytes(),
    ]
    .concat();
    let (nonce, sealed) = wallet.sealed_key[1..].split_first_chunk::<12>().unwrap();
    let mut plain = sealed.to_vec();
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &seal).unwrap())
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut plain)
        .unwrap();
    [sck, plain[..32].try_into().unwrap()]
}

/// Whether the bytes contain the secret, raw, in hex or in base64.
fn finds(haystack: &[u8], secret: &[u8]) -> bool {
    let hex = hex::encode(secret);
    let needles = [
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        STANDARD.encode(secret).trim_end_matches('=').as_bytes().to_vec(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
    ];
    needles.iter().any(|needle| haystack.windows(needle.len()).any(|window| window == needle))
}

/// Everything that the stores hold.
async fn dump(env: &TestEnv, stores: Stores) -> Vec<u8> {
    let mut found = Vec::new();
    match stores {
        Stores::Embedded => {
            for entry in std::fs::read_dir(env.directory.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.to_string_lossy().contains(".db") {
                    found.extend(std::fs::read(path).unwrap());
                }
            }
        }
        Stores::Servers => {
            let tables = "select tablename from pg_tables where schemaname = 'public'";
            for table in env.sql(tables).unwrap().lines() {
                let rows = format!("select t::text from {table} t");
                found.extend(env.sql(&rows).unwrap().into_bytes());
            }
            let client =
                mongodb::Client::with_uri_str(Mongod::shared().unwrap().url()).await.unwrap();
            let scks =
                client.database(&env.key_database_name).collection::<Document>("wrapped_scks");
            let mut cursor = scks.find(Document::new()).await.unwrap();
            while cursor.advance().await.unwrap() {
                found.extend(cursor.current().as_bytes());
            }
        }
    }
    found
}

async fn secrets_do_not_leak(stores: Stores) {
    let env = TestEnv::new(stores).unwrap();
    let database: Database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    // At this level everything that can be logged is logged.
    let server = ServerProcess::start(&env, None, "trace");
    let client = server.client(&env, &token);
    let words =
        ["the first password", "the second password", "the third password", "a wrong password"];
    let [first, second, third, wrong] = words;
    let mut errors = String::new();
    let mut refused = |error: ClientError| errors.push_str(&format!("{error:?}"));

    let ann = client.create_account(&create(1, "ann", first)).await.unwrap();
    client.create_account(&create(2, "bob", "bob's")).await.unwrap();
    env.fund(&ann, 10 * COIN).unwrap();
    let mut secrets: Vec<Vec<u8>> =
        words.iter().map(|words| hash(words).expose().to_vec()).collect();
    secrets.push(token.clone().into_bytes());
    let mut remember = async |words: &str| {
        let account = database.account(telegram(1)).await.unwrap().unwrap();
        let opened = open(&account, &hash(words), &[0xa1; 32]);
        secrets.extend(opened.map(|secret| secret.to_vec()));
    };
    remember(first).await;
    refused(client.create_account(&create(1, "ann", wrong)).await.unwrap_err());
    let quoted = client.quote(&quote(1, "@bob", "1")).await.unwrap();
    refused(client.confirm(quoted.id, &confirm(&quoted, wrong)).await.unwrap_err());
    client.confirm(quoted.id, &confirm(&quoted, first)).await.unwrap();
    let export = |words| ExportKey { password_hash: hash(words) };
    refused(client.export(telegram(1), &export(wrong)).await.unwrap_err());
    let exported = client.export(telegram(1), &export(first)).await.unwrap();
    let change =
        |old, new| ChangePassword { old_password_hash: hash(old), new_password_hash: hash(new) };
    refused(client.change_password(telegram(1), &change(wrong, second)).await.unwrap_err());
    client.change_password(telegram(1), &change(first, second)).await.unwrap();
    remember(second).await;
    recover(&client, 1, third).await.unwrap();
    remember(third).await;
    secrets.push(exported.passphrase.expose().to_owned().into_bytes());
    secrets.push(exported.keystore.into_bytes());
    // A secret in the wrong field is not quoted in the error.
    let text = serde_json::to_value(create(3, "carl", first)).unwrap();
    let secret = text["password_hash"].clone();
    let raw = reqwest::Client::builder()
        .add_root_certificate(reqwest::Certificate::from_pem(env.certificate.as_bytes()).unwrap())
        .build()
        .unwrap();
    let mut bodies = vec![json!([3, secret]), json!([secret]), secret.clone()];
    for field in ["telegram_id", "usernames", "seen_at", "mobile", "email", "password_hash"] {
        let mut body = text.clone();
        body[field] = match field {
            "password_hash" => json!([secret]),
            _ => secret.clone(),
        };
        assert!(serde_json::from_value::<CreateAccount>(body.clone()).is_err());
        bodies.push(body);
    }
    let mut body = text.clone();
    body[secret.as_str().unwrap()] = json!(1);
    bodies.push(body);
    for body in bodies {
        let request = raw.post(format!("https://localhost:{}/v1/accounts", server.port));
        let answer = request.bearer_auth(&token).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        errors.push_str(&answer.text().await.unwrap());
    }
    let mut state = TransferState::Broadcast;
    while state != TransferState::Mined {
        state = client.transfer(quoted.id).await.unwrap().unwrap().state;
    }
    let log = server.terminate();
    assert!(log.contains("TRACE") && log.contains("/v1/accounts"), "the log is incomplete");
    let stored = dump(&env, stores).await;
    assert!(finds(&stored, ann.address.as_bytes()), "the dump is incomplete");
    for (index, secret) in secrets.iter().enumerate() {
        assert!(!finds(log.as_bytes(), secret), "secret {index} is in the log");
        assert!(!finds(errors.as_bytes(), secret), "secret {index} is in an error");
        assert!(!finds(&stored, secret), "secret {index} is in a store");
    }
}

#[actix_web::test]
async fn secrets_are_not_in_the_embedded_stores() {
    secrets_do_not_leak(Stores::Embedded).await;
}

#[actix_web::test]
async fn secrets_are_not_in_postgresql_or_mongodb() {
    secrets_do_not_leak(Stores::Servers).await;
}
