//! The keys that a request used are gone from the server's memory after it.
//!
//! The server runs in its own process, so that the search does not find the test's own copies of
//! the keys.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use kms_core::ports::AccountStore;
use kms_server::Server;
use kms_server::config::Settings;
use kms_store::Scope;
use kms_testkit::writable_memory;
use kms_types::wire::{ChangePassword, ExportKey, TransferState};

use crate::planted_secrets::open;
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, recover, telegram};
use kms_server_testing::{Stores, TestEnv};

const CHILD: &str = "KMS_TEST_MEMORY_SEARCH";

/// The server of the test below, when that test runs it in a process of its own; does nothing
/// otherwise. Unlike `kms-server`, it does not make its memory unreadable.
#[actix_web::test]
async fn serves_for_the_memory_search() {
    #[expect(clippy::disallowed_methods, reason = "the test passes it to its own process")]
    if std::env::var(CHILD).is_err() {
        return;
    }
    let server = Server::start(Settings::load(None).unwrap()).await.unwrap();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nport {}", server.address().port()).unwrap();
    out.flush().unwrap();
    // Until the test is over.
    let ended = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(ended).await.unwrap().unwrap();
    std::process::exit(0);
}

struct Searched(Child, u16);

impl Searched {
    fn start(env: &TestEnv) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["memory::serves_for_the_memory_search", "--exact", "--nocapture"])
            .envs(env.environment("127.0.0.1:0"))
            .env(CHILD, "1")
            .current_dir(env.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("port ")?.parse().ok())
            .expect("the server did not start");
        Self(child, port)
    }
}

impl Drop for Searched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often the secret occurs as bytes, as reversed bytes (as big integers are laid out), and as
/// hex.
fn count(memory: &[u8], secret: &[u8]) -> [usize; 3] {
    let reversed: Vec<u8> = secret.iter().rev().copied().collect();
    let hex = hex::encode(secret).into_bytes();
    [secret, &reversed, &hex].map(|needle| memchr::memmem::find_iter(memory, needle).count())
}

#[actix_web::test]
async fn keys_are_wiped_from_memory_after_each_request() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = Searched::start(&env);
    let client = env.client(server.1, &token).unwrap();
    let mut secrets: Vec<(String, [u8; 32])> = Vec::new();
    let remember = async |secrets: &mut Vec<_>, words: &str| {
        let account = database.account(telegram(1)).await.unwrap().unwrap();
        let [sck, key] = open(&account, &hash(words), &[0xa1; 32]);
        secrets.push((format!("the SCK of {words}"), sck));
        secrets.push(("the private key".to_owned(), key));
    };
    let search = |after: &str, secrets: &[(String, [u8; 32])]| {
        // After an unlock, a thread may still prepare the repair of a copy that took long to check.
        let begun = std::time::Instant::now();
        loop {
            let memory = writable_memory(server.0.id()).unwrap();
            // The pepper is in memory as long as the server runs, so a search that misses it is
            // broken.
            assert_ne!(count(&memory, &[0xa1; 32])[0], 0, "the search does not find the pepper");
            let mut left = secrets.iter().filter(|(_, secret)| count(&memory, secret) != [0; 3]);
            let Some((name, _)) = left.next() else { return };
            let may_repair = matches!(after, "unlock" | "sign");
            let is_patient = may_repair && begun.elapsed().as_secs() < 20;
            assert!(is_patient, "{name} is in memory after {after}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };

    let ann = client.create_account(&create(1, "ann", "first")).await.unwrap();
    client.create_account(&create(2, "bob", "bob's")).await.unwrap();
    env.fund(&ann, 10 * COIN).unwrap();
    remember(&mut secrets, "first").await;
    search("create", &secrets);
    client.create_account(&create(1, "ann", "first")).await.unwrap();
    search("unlock", &secrets);
    let quoted = client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let sent = client.confirm(quoted.id, &confirm(&quoted, "first")).await.unwrap();
    search("sign", &secrets);
    assert_ne!(sent.state, TransferState::Quoted);
    let body =
        ChangePassword { old_password_hash: hash("first"), new_password_hash: hash("second") };
    client.change_password(telegram(1), &body).await.unwrap();
    remember(&mut secrets, "second").await;
    search("a change of password", &secrets);
    client.export(telegram(1), &ExportKey { password_hash: hash("second") }).await.unwrap();
    search("export", &secrets);
    recover(&client, 1, "third").await.unwrap();
    remember(&mut secrets, "third").await;
    search("recover", &secrets);
    let wrong = client.create_account(&create(1, "ann", "a guess")).await;
    assert!(wrong.is_err());
    search("a wrong password", &secrets);
}
