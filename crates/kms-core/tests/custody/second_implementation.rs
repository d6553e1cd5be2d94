//! A program that shares no code with kms-core opens a live wallet from `FORMAT.md` alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kms_core::KdfParams;
use kms_core::ports::SckStore;
use kms_types::PasswordHash;

use crate::world::{NOW, PASSPHRASE, PEM, World, caller};

/// A Python with these packages, made once.
pub(crate) fn python(name: &str, packages: &[&str]) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = home.join("bin/python");
    if !home.join("ready").exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let done = Command::new(program).args(arguments).status();
            let advice = "python3 with venv and pip is needed; run: apt-get install python3-venv";
            assert!(done.is_ok_and(|status| status.success()), "{advice}");
        };
        let folder = home.to_str().unwrap();
        run(Path::new("python3"), &["-m", "venv", "--clear", folder]);
        run(&python, &[&["-m", "pip", "install", "-q"], packages].concat());
        std::fs::write(home.join("ready"), "").unwrap();
    }
    python
}

#[tokio::test]
async fn opens_a_wallet_and_a_wrapped_sck() {
    let python = python("second-implementation", &["cryptography>=42", "argon2-cffi>=23"]);
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
            name: None,
            mobile: None,
            email: None,
        };
        world.custody.create(request, &caller(), NOW).await.unwrap();
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
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/second_implementation.py");
        let mut child = Command::new(&python)
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(row.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n", "{kdf}");
    }
}
