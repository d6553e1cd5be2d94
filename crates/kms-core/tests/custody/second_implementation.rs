//! A program that shares no code with kms-core verifies what it stores from `FORMAT.md` alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kms_core::ports::SckStore;
use kms_core::{CustodyError, KdfParams};
use kms_types::PasswordHash;
use serde_json::Value;

use crate::world::{NOW, PASSPHRASE, PEM, World, caller};

const ROWS: &str = include_str!("../../vectors/rows.json");

/// Creates a Python environment with these packages, once for all runs.
pub(crate) fn python(name: &str, packages: &[&str]) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = home.join("bin/python");
    if !home.join("ready").exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let done = Command::new(program).args(arguments).status();
            let advice = "python3 with venv and pip is required; run: apt-get install python3-venv";
            assert!(done.is_ok_and(|status| status.success()), "{advice}");
        };
        let folder = home.to_str().unwrap();
        run(Path::new("python3"), &["-m", "venv", "--clear", folder]);
        run(&python, &[&["-m", "pip", "install", "-q"], packages].concat());
        std::fs::write(home.join("ready"), "").unwrap();
    }
    python
}

fn second_implementation(arguments: &[&str], input: &str) -> Output {
    use std::sync::Mutex;
    static INSTALLING: Mutex<()> = Mutex::new(());
    let python = {
        let _one_at_a_time = INSTALLING.lock();
        python("second-implementation", &["cryptography>=42", "argon2-cffi>=23"])
    };
    let mut child = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/second_implementation.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn assert_verifies(output: &Output) {
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout == "ok\n", "{stdout}{stderr}");
}

#[test]
fn verifies_the_vectors() {
    assert_verifies(&second_implementation(&["vectors"], ""));
}

#[test]
fn verifies_every_row_mac_the_audit_chain_and_its_checkpoint() {
    assert_verifies(&second_implementation(&["rows"], ""));
}

/// Replaces one value of the rows, and returns whether they still verify.
fn verifies_with(pointer: &str, value: &Value) -> bool {
    let mut rows: Value = serde_json::from_str(ROWS).unwrap();
    let old = std::mem::replace(rows.pointer_mut(pointer).unwrap(), value.clone());
    assert_ne!(old, *value, "{pointer}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rows.to_string()).unwrap();
    second_implementation(&["rows", file.path().to_str().unwrap()], "").status.success()
}

#[test]
fn rejects_modified_rows_chains_and_checkpoints() {
    for (pointer, value) in [
        ("/tables/accounts/0/state", "frozen".into()),
        ("/tables/accounts/1/email_verified_at", Value::Null),
        ("/tables/accounts/7/unfreezes_at", Value::Null),
        ("/tables/accounts/8/former_email_until", 0.into()),
        ("/tables/accounts/9/page_only_since", Value::Null),
        ("/tables/accounts/9/page_only_until", Value::Null),
        ("/tables/accounts/9/created_by", Value::Null),
        ("/tables/launches/0/opened_at", 0.into()),
        ("/tables/spending_limits/0/units", "none".into()),
        ("/tables/spending_limits/0/revision", 9.into()),
        ("/tables/names/0/revision", 9.into()),
        ("/tables/spends/0/units", "0".into()),
        ("/tables/spends/1/unpaid_fee", Value::Null),
        ("/tables/api_tokens/0/scopes", "admin".into()),
        ("/tables/recoveries/0/ready_at", 0.into()),
        ("/tables/recoveries/3/moves_to", 12.into()),
        ("/tables/recoveries/3/moves_to", Value::Null),
        ("/tables/accounts/0/created_at", 0.into()),
        ("/tables/accounts/0/revision", 0.into()),
        ("/tables/switches/0/paused", 0.into()),
        ("/pause_lines/0", "0 1800000000000 01".into()),
        ("/tables/names/0/telegram_id", 3.into()),
        ("/tables/names/1/reassigned", 0.into()),
        ("/tables/names/1/proved_at", 0.into()),
        ("/tables/names/1/previous", "00".repeat(32).into()),
        ("/tables/proposals/0/person", "bob".into()),
        ("/wallets/0/version", 9.into()),
        ("/wallets/0/wrapped_hash", "00".repeat(32).into()),
        ("/audit/1/outcome", Value::Null),
        ("/audit/0/details", "chain=2\nto=0xab".into()),
        ("/audit/0/keyed_hash", "00".repeat(32).into()),
        ("/audit/2/chain_seq", 4.into()),
        ("/checkpoint_public_key", format!("1:{}", "11".repeat(32)).into()),
        ("/checkpoints/0", ROWS.lines().next().unwrap().into()),
    ] {
        assert!(!verifies_with(pointer, &value), "{pointer}");
    }
    // Sealed for its account instead.
    assert!(verifies_with("/tables/accounts/0/mobile", &Value::Null));
}

#[tokio::test]
async fn opens_a_live_wallet_and_its_wrapped_sck() {
    for kdf in [KdfParams::ARGON2ID, KdfParams::PBKDF2] {
        let world = World::new(kdf).await;
        let words = "correct horse battery";
        let salt = b"wallet-kms/v1/password-hash:4711";
        let hash = || {
            PasswordHash::fill(|bytes| {
                pbkdf2::pbkdf2_hmac::<sha2::Sha256>(words.as_bytes(), salt, 600_000, bytes);
            })
        };
        let request = kms_core::CreateWallet {
            telegram_id: 4711.try_into().unwrap(),
            password: hash(),
            names: None,
            mobile: None,
            email: None,
        };
        let admit = || async { Ok::<_, CustodyError>(()) };
        world.custody.create(request, &caller(), NOW, admit).await.unwrap();
        let account = world.account(4711).await;
        let wallet = &account.wallet;
        let wrapped = world.scks.sck(wallet.sck_id).await.unwrap().unwrap();
        let row = serde_json::json!({
            "password": words,
            "password_hash": hex::encode(hash().expose()),
            "telegram_id": 4711,
            "account_id": hex::encode(account.id.as_bytes()),
            "address": hex::encode(wallet.address.as_bytes()),
            "public_key": hex::encode(wallet.public_key),
            "kdf": wallet.kdf.to_string(),
            "salt": hex::encode(wallet.salt.0),
            "pepper": "a1".repeat(32),
            "commitment": hex::encode(wallet.commitment),
            "sealed_key": hex::encode(&wallet.sealed_key),
            "sck_id": hex::encode(wallet.sck_id.as_bytes()),
            "wrapped_sck": hex::encode(wrapped.bytes),
            "kms_key": PEM,
            "kms_passphrase": PASSPHRASE,
        });
        assert_verifies(&second_implementation(&["wallet"], &row.to_string()));
    }
}
