//! Executes the commands of `docs/operating/runbooks.md`, in their order, with the real program.

use std::path::Path;
use std::time::Duration;

use kms_server_testing::commands::{fails, kms_server, succeeds};
use kms_server_testing::requests::{hash, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_testkit::Postgres;
use kms_types::wire::{ExportKey, RequestRecovery};
use kms_types::{ErrorCode, RecoveryId};

use crate::clocks;
use crate::keys::{opens, recovers};
use crate::recoveries::{failed, request};
use crate::restore::{before_and_after, start};

/// The commands below a heading of a page of `docs/operating`.
pub(crate) fn commands(page: &str, heading: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating");
    let text = std::fs::read_to_string(folder.join(page)).unwrap();
    let (_, below) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let fenced = section.split("```").skip(1).step_by(2);
    let lines = fenced.flat_map(|block| block.lines().skip(1)).map(|line| line.trim().to_owned());
    let commands: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    assert!(!commands.is_empty(), "{heading}");
    commands
}

/// Runs a command, which fails if its comment says so.
fn run(env: &TestEnv, command: &str) -> String {
    let (command, comment) = command.split_once("  # ").unwrap_or((command, ""));
    // A smaller key, which is made sooner.
    let command = command.replace("keys new", "keys new --bits 3072");
    let arguments = command.strip_prefix("kms-server ").unwrap();
    if comment.starts_with("exits 1") { fails(env, arguments) } else { succeeds(env, arguments) }
}

#[actix_web::test]
async fn every_wallet_comes_back_after_the_pepper_was_lost() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let mut env = TestEnv::new(stores).unwrap();
        let small = "1/hour".parse().unwrap();
        (env.limits.all_recoveries, env.limits.recoveries_without_email) = (small, small);
        let test = TestServer::start(env).await;
        for id in 1..=3 {
            test.onboard(id, &format!("name{id}"), "right").await;
        }
        let TestServer { mut env, server, database, .. } = test;
        server.stop().await.unwrap();
        drop(database);
        let commands = commands("runbooks.md", "The pepper is lost");
        let [new, list, waiting] = commands.as_slice() else { panic!("{commands:?}") };
        run(&env, new);
        env.server_keys[0].1 = format!("2:{}", "ee".repeat(32));
        let large = "1000/hour".parse().unwrap();
        (env.limits.all_recoveries, env.limits.recoveries_without_email) = (large, large);
        let test = TestServer::start(env).await;
        for id in 1..=3 {
            assert!(!opens(&test.client, id, "right").await, "{id}");
        }
        let left = run(&test.env, list);
        assert!(left.lines().any(|line| line.contains("pepper")), "{left}");
        run(&test.env, waiting);
        for id in 1..=3 {
            assert!(recovers(&test.client, id).await, "{id}");
            assert!(opens(&test.client, id, "recovered").await, "{id}");
        }
    }
}

#[actix_web::test]
async fn every_password_works_and_repairs_after_the_kms_key_was_lost() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let test = TestServer::start(env).await;
    for id in 1..=3 {
        test.onboard(id, &format!("name{id}"), "right").await;
    }
    let open = request(&test).await.unwrap();
    let TestServer { mut env, server, database, .. } = test;
    server.stop().await.unwrap();
    drop(database);
    let commands = commands("runbooks.md", "The KMS key is lost");
    let [new, verify, list, cancel] = commands.as_slice() else { panic!("{commands:?}") };
    assert!(new.ends_with("--directory newer --id kms-2"), "{new}");
    run(&env, new);
    let newer = env.directory.path().join("newer");
    let passphrase = std::fs::read_to_string(newer.join("kms-key-passphrase")).unwrap();
    env.kms_key_id = "kms-2".parse().unwrap();
    env.kms_key_path = newer.join("kms-key.pem");
    env.kms_key_passphrase = passphrase.trim().to_owned();
    assert!(run(&env, verify).contains("3 of 3 wallets cannot be recovered"));
    run(&env, list);
    let test = TestServer::start(env).await;
    for id in 1..=3 {
        assert!(opens(&test.client, id, "right").await, "{id}");
    }
    run(&test.env, cancel);
    let left = succeeds(&test.env, "recoveries list");
    assert!(!left.contains(&open.id.to_string()), "{left}");
    // Each is repaired after its answer.
    let is_whole = || kms_server(&test.env, "keys verify --decrypt").status().unwrap().success();
    for _ in 0..600 {
        if is_whole() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_whole());
    for id in 1..=3 {
        assert!(recovers(&test.client, id).await, "{id}");
    }
}

/// The token that a command printed.
fn printed(said: &str) -> &str {
    said.lines().find(|line| line.starts_with("kms_")).unwrap()
}

#[actix_web::test]
async fn a_stolen_token_is_worth_nothing_after_its_runbook() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let mut env = TestEnv::new(stores).unwrap();
        env.recovery.wait_without_email = Duration::from_secs(3_600);
        let test = TestServer::start(env).await;
        test.onboard(1, "ann", "right").await;
        let port = test.server.address().port();
        let stolen = succeeds(&test.env, "token new bot --scopes bot");
        let thief = test.env.client(port, printed(&stolen)).unwrap();
        let recovery = RequestRecovery { id: RecoveryId::random() };
        thief.request_recovery(telegram(1), &recovery).await.unwrap();
        let mut said = Vec::new();
        for command in commands("runbooks.md", "A bot's token was stolen") {
            said.push(run(&test.env, &command));
        }
        let cancelled = said.iter().any(|said| said == "1 cancelled\n");
        assert!(cancelled, "{said:?}");
        let bot = test.env.client(port, printed(&said.concat())).unwrap();
        let export = ExportKey { password_hash: hash("right") };
        bot.export(telegram(1), &export).await.unwrap();
        // What was read before is kept for five seconds.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let refused = thief.export(telegram(1), &export).await;
        assert_eq!(failed(refused), Some(ErrorCode::Unauthorized));
    }
}

#[actix_web::test]
async fn a_restored_database_serves_after_its_runbook() {
    let (mut env, token, backup, _) = before_and_after().await;
    env.database = Postgres::shared().unwrap().restore(&backup).unwrap();
    for command in commands("runbooks.md", "A database was restored") {
        run(&env, &command);
    }
    let (server, client) = start(&env, &token);
    for id in [1, 2] {
        assert!(opens(&client, id, "before").await, "{id}");
        assert!(recovers(&client, id).await, "{id}");
    }
    server.terminate();
}

#[actix_web::test]
async fn a_wrong_clock_is_named_until_it_is_set() {
    let test = clocks::start(Duration::from_secs(3_600)).await;
    clocks::shift(&test.env, "40 hours");
    let commands = commands("runbooks.md", "A clock is wrong");
    let [wrong, after @ ..] = commands.as_slice() else { panic!("{commands:?}") };
    assert!(run(&test.env, wrong).contains("clocks of this machine and of the database differ"));
    clocks::shift(&test.env, "0");
    for command in after {
        run(&test.env, command);
    }
}
