//! The KMS key is changed, and what an operator does about single accounts.

use std::process::{Child, Command, Output, Stdio};

use kms_client::Client;
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TEST_KMS_KEY_PASSPHRASE, TestEnv, TestServer};
use kms_types::ErrorCode;
use kms_types::wire::{ChangePassword, TransferState};

const BOTH: [Stores; 2] = [Stores::Embedded, Stores::Servers];

pub(crate) fn command(env: &TestEnv, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kms-server"));
    command
        .args(arguments.split(' '))
        .envs(env.environment("127.0.0.1:0"))
        .current_dir(env.directory.path());
    command
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

pub(crate) fn works(env: &TestEnv, arguments: &str) -> String {
    let output = command(env, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", said(&output));
    said(&output)
}

pub(crate) fn fails(env: &TestEnv, arguments: &str) -> String {
    let output = command(env, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments}: {}", said(&output));
    said(&output)
}

/// Makes a second key and makes it the active one.
pub(crate) fn rotate(env: &mut TestEnv) {
    works(env, "keys new --directory newer --id kms-2 --bits 3072");
    let newer = env.directory.path().join("newer");
    let older = env.directory.path().join("kms-key.pem");
    for (key, value) in [
        ("KMS_KEY__ID", "kms-2".to_owned()),
        ("KMS_KEY__PATH", newer.join("kms-key.pem").display().to_string()),
        ("KMS_KEY__PASSPHRASE", String::new()),
        ("KMS_KEY__PASSPHRASE_FILE", newer.join("kms-key-passphrase").display().to_string()),
        ("OLDER_KMS_KEYS__A__ID", "kms-test".to_owned()),
        ("OLDER_KMS_KEYS__A__PROVIDER", "local".to_owned()),
        ("OLDER_KMS_KEYS__A__PATH", older.display().to_string()),
        ("OLDER_KMS_KEYS__A__PASSPHRASE", TEST_KMS_KEY_PASSPHRASE.to_owned()),
    ] {
        env.variables.push((format!("KMS_SERVER__{key}"), value));
    }
}

/// An environment with this many wallets, whose SCKs are wrapped under `kms-test`, and a bearer token.
pub(crate) async fn wallets(stores: Stores, count: i64) -> (TestEnv, String) {
    let env = TestEnv::new(stores).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    for id in 1..=count {
        client.create_account(&create(id, &format!("name{id}"), "right")).await.unwrap();
    }
    server.terminate();
    (env, token)
}

pub(crate) async fn opens(client: &Client, id: i64, words: &str) -> bool {
    client.create_account(&create(id, &format!("name{id}"), words)).await.is_ok()
}

pub(crate) async fn recovers(client: &Client, id: i64) -> bool {
    recover(client, id, "recovered").await.is_ok()
}

#[actix_web::test]
async fn every_wallet_moves_to_the_active_key_once() {
    for stores in BOTH {
        let (mut env, token) = wallets(stores, 3).await;
        assert_eq!(works(&env, "keys list"), "kms-test\tlocal\tactive\t3\n");
        let before = env.variables.clone();
        rotate(&mut env);
        let listed = works(&env, "keys list");
        assert_eq!(listed, "kms-2\tlocal\tactive\t0\nkms-test\tlocal\tonly unwraps\t3\n");
        let refused = fails(&env, "keys retire kms-test");
        assert!(refused.contains("3 wallets' keys are under kms-test"), "{refused}");
        assert!(fails(&env, "keys retire kms-2").contains("is the active key"));

        assert!(works(&env, "keys activate kms-2").contains("is the active key"));
        let told = works(&env, "keys activate kms-test");
        assert!(told.contains("make it kms_key, move kms-2 to older_kms_keys"), "{told}");
        assert!(fails(&env, "keys activate kms-9").contains("no KMS key kms-9 is configured"));
        let moved = works(&env, "keys rewrap");
        assert!(moved.ends_with("3 moved to kms-2, 0 left\n"), "{moved}");
        let again = works(&env, "keys rewrap");
        assert!(again.ends_with("0 moved to kms-2, 0 left\n"), "{again}");
        assert!(works(&env, "keys verify --decrypt").contains("all 3 wallets"));
        let shown = works(&env, "audit show --account telegram:1");
        assert_eq!(shown.matches("\trewrap\t").count(), 2, "{shown}");
        assert_eq!(shown.matches("\tverify\t").count(), 2, "{shown}");
        let audit = works(&env, "audit verify");
        assert!(!audit.contains("without an outcome"), "{audit}");
        assert!(works(&env, "keys retire kms-test").contains("no wallet's key is under"));

        // Who goes back to the old configuration is told what is missing.
        let rotated = std::mem::replace(&mut env.variables, before);
        let listed = works(&env, "keys list");
        assert_eq!(listed, "kms-test\tlocal\tactive\t0\nkms-2\t-\tnot configured\t3\n");
        assert!(fails(&env, "keys verify").contains("3 of 3 wallets would not be recovered"));
        assert!(fails(&env, "keys rewrap").contains("0 moved to kms-test, 3 left"));

        // Without the old key everything works.
        env.variables = rotated;
        env.variables.retain(|(key, _)| !key.contains("OLDER"));
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        for id in 1..=3 {
            assert!(opens(&client, id, "right").await && recovers(&client, id).await);
        }
        server.terminate();
    }
}

#[actix_web::test]
async fn a_rewrap_that_dies_leaves_every_wallet_open() {
    for stores in BOTH {
        let (mut env, token) = wallets(stores, 2).await;
        rotate(&mut env);
        for failpoint in ["rewrap-before-replace", "rewrap-after-replace"] {
            let died = command(&env, "keys rewrap").env("KMS_FAILPOINT", failpoint).output();
            assert_eq!(died.unwrap().status.code(), None, "{failpoint}");
            assert!(works(&env, "keys verify --decrypt").contains("all 2 wallets"));
            let server = ServerProcess::start(&env, None, "info");
            let client = server.client(&env, &token);
            assert!(opens(&client, 1, "right").await && opens(&client, 2, "right").await);
            server.terminate();
        }
        // It went on where it died: one was moved just before.
        let rest = works(&env, "keys rewrap");
        assert!(rest.ends_with("1 moved to kms-2, 0 left\n"), "{rest}");
        let audit = works(&env, "audit verify");
        // Of each that died: the command, and the wallet that it was at.
        assert_eq!(audit.matches("without an outcome").count(), 4, "{audit}");
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        assert!(recovers(&client, 1).await && recovers(&client, 2).await);
        server.terminate();
    }
}

/// To a key in AWS and back, with AWS failing on the way.
#[actix_web::test]
async fn wallets_move_to_aws_and_back() {
    let (aws, _arn, in_aws) = crate::aws::env_with_aws();
    let (mut env, token) = wallets(Stores::Servers, 3).await;
    let local = env.directory.path().join("kms-key.pem").display().to_string();
    let variable = |key: &str, value: &str| (format!("KMS_SERVER__{key}"), value.to_owned());
    // The stand-in has the key of the tests; its public half is what the server wraps with.
    let aws_key = |prefix: &str| {
        let of_aws = ["PROVIDER", "KEY", "PUBLIC_KEY", "ENDPOINT"].map(|name| {
            let from = format!("KMS_SERVER__KMS_KEY__{name}");
            let value = in_aws.variables.iter().find(|(key, _)| *key == from).unwrap().1.clone();
            variable(&format!("{prefix}__{name}"), &value)
        });
        let mut variables = vec![variable(&format!("{prefix}__ID"), "aws-1")];
        variables.extend(of_aws);
        variables
            .extend(in_aws.variables.iter().filter(|(key, _)| key.starts_with("AWS")).cloned());
        variables
    };
    let to_aws = [
        vec![variable("KMS_KEY__PATH", ""), variable("KMS_KEY__PASSPHRASE", "")],
        aws_key("KMS_KEY"),
        vec![
            variable("OLDER_KMS_KEYS__A__ID", "kms-test"),
            variable("OLDER_KMS_KEYS__A__PROVIDER", "local"),
            variable("OLDER_KMS_KEYS__A__PATH", &local),
            variable("OLDER_KMS_KEYS__A__PASSPHRASE", TEST_KMS_KEY_PASSPHRASE),
        ],
    ];
    env.variables = to_aws.concat();
    aws.break_next(vec![kms_testkit::AwsFault::AccessDenied; 3]);
    // The first is its look at the key, which it can do without; then a wallet can not be opened.
    let broken = fails(&env, "keys rewrap");
    assert!(broken.contains("run it again"), "{broken}");
    aws.mend();
    for failpoint in ["rewrap-before-replace", "rewrap-after-replace"] {
        let died = command(&env, "keys rewrap").env("KMS_FAILPOINT", failpoint).output();
        assert_eq!(died.unwrap().status.code(), None, "{failpoint}");
        assert!(works(&env, "keys verify --decrypt").contains("all 3 wallets"));
    }
    assert!(works(&env, "keys rewrap").ends_with("to aws-1, 0 left\n"));
    assert!(works(&env, "keys verify --decrypt").contains("all 3 wallets"));
    assert!(works(&env, "keys retire kms-test").contains("no wallet's key is under"));
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    assert!(opens(&client, 1, "right").await && recovers(&client, 1).await);
    server.terminate();

    env.variables = aws_key("OLDER_KMS_KEYS__A");
    assert!(works(&env, "keys rewrap").ends_with("3 moved to kms-test, 0 left\n"));
    env.variables.clear();
    aws.stop().await;
    assert!(works(&env, "keys verify --decrypt").contains("all 3 wallets"));
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    assert!(opens(&client, 1, "recovered").await && recovers(&client, 2).await);
    assert!(opens(&client, 3, "right").await);
    server.terminate();
}

#[actix_web::test]
async fn passwords_that_change_during_a_rewrap_win() {
    for stores in BOTH {
        let (mut env, token) = wallets(stores, 6).await;
        rotate(&mut env);
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        let rewrap: Child = command(&env, "keys rewrap")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        for id in 1..=6 {
            let (old_password_hash, new_password_hash) = (hash("right"), hash("new"));
            let body = ChangePassword { old_password_hash, new_password_hash };
            client.change_password(telegram(id), &body).await.unwrap();
        }
        let rewrap = rewrap.wait_with_output().unwrap();
        assert!(said(&rewrap).ends_with("to kms-2, 0 left\n"), "{}", said(&rewrap));
        assert!(works(&env, "keys verify --decrypt").contains("all 6 wallets"));
        for id in 1..=6 {
            assert!(opens(&client, id, "new").await && !opens(&client, id, "right").await);
        }
        server.terminate();
    }
}

#[actix_web::test]
async fn a_wallet_whose_wrapped_key_is_gone_is_named() {
    for stores in BOTH {
        let (env, token) = wallets(stores, 1).await;
        assert!(works(&env, "keys verify").contains("all 1 wallets"));
        match stores {
            Stores::Embedded => {
                for file in ["keys.db", "keys.db-wal", "keys.db-shm"] {
                    let _ = std::fs::remove_file(env.directory.path().join(file));
                }
            }
            Stores::Servers => {
                let mongo = mongodb::Client::with_uri_str(&env.key_database).await.unwrap();
                mongo.database(&env.key_database_name).drop().await.unwrap();
            }
        }
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        client.create_account(&create(2, "bob", "right")).await.unwrap();
        let ann = client.account(telegram(1)).await.unwrap().unwrap();
        for arguments in ["keys verify", "keys verify --decrypt"] {
            let named = fails(&env, arguments);
            assert!(named.contains(&format!("{}\tthe wrapped key is missing", ann.id)), "{named}");
            assert!(named.contains("1 of 2 wallets would not be recovered"), "{named}");
        }
        assert!(works(&env, "keys list").contains("1 wallets have no key"));
        // It is put right by its owner's next right password.
        client.create_account(&create(1, "name1", "right")).await.unwrap();
        let verifies = || command(&env, "keys verify --decrypt").output().unwrap();
        let mut verified = verifies();
        for _ in 0..50 {
            if verified.status.success() {
                break;
            }
            verified = verifies();
        }
        assert!(said(&verified).contains("all 2 wallets"), "{}", said(&verified));
        server.terminate();
    }
}

#[actix_web::test]
async fn a_frozen_account_can_not_pay_and_is_told_why() {
    for stores in BOTH {
        let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
        let (ann, bob) = test.ann_and_bob().await;
        let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        assert_eq!(works(&test.env, &format!("account freeze {}", ann.id)), "frozen\n");
        let words = "ann's password";
        let sent = test.client.confirm(quoted.id, &confirm(&quoted, words)).await.map(drop);
        let body = ChangePassword { old_password_hash: hash(words), new_password_hash: hash("x") };
        let changed = test.client.change_password(telegram(1), &body).await;
        let recovered = recover(&test.client, 1, "x").await.map(drop);
        for refused in [sent, changed, recovered] {
            assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::AccountFrozen));
        }
        // Others pay it as before.
        test.env.fund(&bob, COIN).unwrap();
        let back = test.client.quote(&quote(2, "@ann", "0.1")).await.unwrap();
        test.client.confirm(back.id, &confirm(&back, "bob's password")).await.unwrap();

        assert_eq!(works(&test.env, "account unfreeze telegram:1"), "active\n");
        test.client.confirm(quoted.id, &confirm(&quoted, words)).await.unwrap();
        test.until(quoted.id, TransferState::Mined).await;
        let nobody = fails(&test.env, "account freeze telegram:9");
        assert!(nobody.contains("no such account"), "{nobody}");
        let shown = works(&test.env, "audit show --account telegram:1");
        for action in ["freeze", "unfreeze"] {
            assert_eq!(shown.matches(&format!("\t{action}\t")).count(), 2, "{shown}");
        }
    }
}
