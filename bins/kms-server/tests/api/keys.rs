//! Rotation of the KMS key, and freezing of accounts.

use std::process::{Child, Stdio};

use insta::assert_snapshot;
use kms_client::Client;
use kms_server_testing::commands::{fails, kms_server, masked, output_text, succeeds};
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TEST_KMS_KEY_PASSPHRASE, TestEnv, TestServer};
use kms_types::ErrorCode;
use kms_types::wire::{ChangePassword, TransferState};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, doc};

const BOTH: [Stores; 2] = [Stores::Embedded, Stores::Servers];

/// Creates a second KMS key and configures it as the active one.
pub(crate) fn rotate(env: &mut TestEnv) {
    succeeds(env, "keys new --directory newer --id kms-2 --bits 3072");
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

/// An environment with this many wallets, whose SCKs are wrapped under `kms-test`, and a bearer
/// token.
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

/// The KMS keys of `keys list`.
fn listed(env: &TestEnv) -> String {
    let all = succeeds(env, "keys list");
    all.split_inclusive('\n').filter(|line| !line.contains("\tserver key\t")).collect()
}

/// How many wallets' keys are under a KMS key.
fn wallets_under(env: &TestEnv, key: &str) -> Option<u32> {
    let listed = listed(env);
    let mut lines = listed.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    lines.find(|line| line[0] == key).and_then(|line| line[3].parse().ok())
}

#[actix_web::test]
async fn rewrap_moves_every_wallet_to_the_active_key_once() {
    for stores in BOTH {
        let (mut env, token) = wallets(stores, 3).await;
        assert_eq!(listed(&env), "kms-test\tlocal\tactive\t3\twallets 3\n");
        let before = env.variables.clone();
        rotate(&mut env);
        let both =
            "kms-2\tlocal\tactive\t0\twallets 0\nkms-test\tlocal\tonly unwraps\t3\twallets 3\n";
        assert_eq!(listed(&env), both);
        assert_snapshot!("retire_a_needed_key", fails(&env, "keys retire kms-test"));
        assert_snapshot!("retire_the_active_key", fails(&env, "keys retire kms-2"));
        assert_snapshot!("activate_the_active_key", succeeds(&env, "keys activate kms-2"));
        assert_snapshot!("activate_an_older_key", succeeds(&env, "keys activate kms-test"));
        assert_snapshot!("activate_an_unknown_key", fails(&env, "keys activate kms-9"));
        assert_snapshot!("rewrap_three_wallets", masked(&succeeds(&env, "keys rewrap")));
        assert_eq!(wallets_under(&env, "kms-2"), Some(3));
        assert_snapshot!("rewrap_nothing", masked(&succeeds(&env, "keys rewrap")));
        assert_snapshot!("three_wallets_decrypted", succeeds(&env, "keys verify --decrypt"));
        let shown = succeeds(&env, "audit show --account telegram:1");
        assert_eq!(shown.matches("\trewrap\t").count(), 2, "{shown}");
        assert_eq!(shown.matches("\tverify\t").count(), 2, "{shown}");
        let audit = succeeds(&env, "audit verify");
        assert!(!audit.contains("without an outcome"), "{audit}");
        assert_snapshot!("retire_an_unneeded_key", succeeds(&env, "keys retire kms-test"));

        // With the old configuration, the commands name what is missing.
        let rotated = std::mem::replace(&mut env.variables, before);
        let other =
            "kms-test\tlocal\tactive\t0\twallets 0\nkms-2\t-\tnot configured\t3\twallets 3\n";
        assert_eq!(listed(&env), other);
        assert_snapshot!("newer_key_not_configured", masked(&fails(&env, "keys verify")));
        fails(&env, "keys rewrap");
        assert_eq!(listed(&env), other);

        // The old key is not needed any more.
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
async fn a_crash_of_rewrap_breaks_no_wallet() {
    for stores in BOTH {
        let (mut env, token) = wallets(stores, 2).await;
        rotate(&mut env);
        for failpoint in ["rewrap-before-replace", "rewrap-after-replace"] {
            let died = kms_server(&env, "keys rewrap").env("KMS_FAILPOINT", failpoint).output();
            assert_eq!(died.unwrap().status.code(), None, "{failpoint}");
            succeeds(&env, "keys verify --decrypt");
            let server = ServerProcess::start(&env, None, "info");
            let client = server.client(&env, &token);
            assert!(opens(&client, 1, "right").await && opens(&client, 2, "right").await);
            server.terminate();
        }
        // It continues where it crashed: one wallet was rewrapped just before.
        assert_eq!(wallets_under(&env, "kms-test"), Some(1));
        succeeds(&env, "keys rewrap");
        assert_eq!(wallets_under(&env, "kms-2"), Some(2));
        let audit = succeeds(&env, "audit verify");
        // For each crash: the command, and the wallet that it was rewrapping. The stop of a server
        // may have cut off a repair, too.
        assert_eq!(audit.matches("rewrap in request").count(), 4, "{audit}");
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        assert!(recovers(&client, 1).await && recovers(&client, 2).await);
        server.terminate();
    }
}

/// Rewraps to a key in AWS and back, while AWS fails.
#[actix_web::test]
async fn rewrap_moves_wallets_to_aws_and_back() {
    let (aws, _arn, in_aws) = crate::aws::env_with_aws();
    let (mut env, token) = wallets(Stores::Servers, 3).await;
    let local = env.directory.path().join("kms-key.pem").display().to_string();
    let variable = |key: &str, value: &str| (format!("KMS_SERVER__{key}"), value.to_owned());
    // The stand-in holds the test key; servers wrap under its public key.
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
    aws.fail_next(vec![kms_testkit::AwsFault::AccessDenied; 3]);
    // The first call, which checks the key, may fail; the next ones are needed to open a wallet.
    fails(&env, "keys rewrap");
    aws.clear_faults();
    for failpoint in ["rewrap-before-replace", "rewrap-after-replace"] {
        let died = kms_server(&env, "keys rewrap").env("KMS_FAILPOINT", failpoint).output();
        assert_eq!(died.unwrap().status.code(), None, "{failpoint}");
        succeeds(&env, "keys verify --decrypt");
    }
    succeeds(&env, "keys rewrap");
    assert_eq!(wallets_under(&env, "aws-1"), Some(3));
    succeeds(&env, "keys verify --decrypt");
    succeeds(&env, "keys retire kms-test");
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    assert!(opens(&client, 1, "right").await && recovers(&client, 1).await);
    server.terminate();

    env.variables = aws_key("OLDER_KMS_KEYS__A");
    succeeds(&env, "keys rewrap");
    assert_eq!(wallets_under(&env, "kms-test"), Some(3));
    env.variables.clear();
    aws.stop().await;
    succeeds(&env, "keys verify --decrypt");
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    assert!(opens(&client, 1, "recovered").await && recovers(&client, 2).await);
    assert!(opens(&client, 3, "right").await);
    server.terminate();
}

#[actix_web::test]
async fn passwords_may_change_during_a_rewrap() {
    for stores in BOTH {
        let (mut env, token) = wallets(stores, 6).await;
        rotate(&mut env);
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        let rewrap: Child = kms_server(&env, "keys rewrap")
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
        assert!(rewrap.status.success(), "{}", output_text(&rewrap));
        assert_eq!(wallets_under(&env, "kms-2"), Some(6));
        succeeds(&env, "keys verify --decrypt");
        for id in 1..=6 {
            assert!(opens(&client, id, "new").await && !opens(&client, id, "right").await);
        }
        server.terminate();
    }
}

#[actix_web::test]
async fn verify_reports_a_wallet_whose_wrapped_key_is_missing() {
    for stores in BOTH {
        let (env, token) = wallets(stores, 1).await;
        assert!(succeeds(&env, "keys verify").contains("all 1 wallets"));
        match stores {
            Stores::Embedded => {
                for file in ["keys.db", "keys.db-wal", "keys.db-shm"] {
                    let _ = std::fs::remove_file(env.directory.path().join(file));
                }
            }
            Stores::Servers => {
                let mongo = mongodb::Client::with_uri_str(env.key_database_of_admin().unwrap())
                    .await
                    .unwrap();
                mongo.database(&env.key_database_name).drop().await.unwrap();
            }
        }
        succeeds(&env, "keys adopt --reason the-key-database-was-lost");
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        client.create_account(&create(2, "bob", "right")).await.unwrap();
        let ann = client.account(telegram(1)).await.unwrap().unwrap();
        for arguments in ["keys verify", "keys verify --decrypt"] {
            let named = fails(&env, arguments);
            assert!(named.contains(&format!("{}\tthe wrapped key is missing", ann.id)), "{named}");
            assert!(named.contains("1 of 2 wallets cannot be recovered"), "{named}");
        }
        assert!(succeeds(&env, "keys list").contains("1 wallets have no usable wrapped key"));
        // The owner's next correct password repairs it.
        client.create_account(&create(1, "name1", "right")).await.unwrap();
        assert!(until_verified(&env).contains("all 2 wallets"));
        server.terminate();
    }
}

/// Waits until a repair in the background is done.
fn until_verified(env: &TestEnv) -> String {
    let verifies = || kms_server(env, "keys verify --decrypt").output().unwrap();
    let mut verified = verifies();
    for _ in 0..50 {
        if verified.status.success() {
            break;
        }
        verified = verifies();
    }
    output_text(&verified)
}

#[actix_web::test]
async fn a_damaged_wrapped_key_is_found_without_unwrapping_and_repaired() {
    let (env, token) = wallets(Stores::Servers, 2).await;
    let mongo = mongodb::Client::with_uri_str(env.key_database_of_admin().unwrap()).await.unwrap();
    let scks = mongo.database(&env.key_database_name).collection::<Document>("wrapped_scks");
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    let ann = client.account(telegram(1)).await.unwrap().unwrap().id.to_string();
    let stored = scks.find_one(doc! { "account": &ann }).await.unwrap().unwrap();
    let mut bytes = stored.get_binary_generic("bytes").unwrap().clone();
    bytes[100] ^= 1;
    let damaged = Binary { subtype: BinarySubtype::Generic, bytes };
    let set = doc! { "$set": { "bytes": damaged } };
    scks.update_one(doc! { "account": &ann }, set).await.unwrap();
    let named = fails(&env, "keys verify");
    let what = format!("{ann}\tthe wrapped key is not the one that was written");
    assert!(named.contains(&what) && named.contains("1 of 2 wallets"), "{named}");
    assert!(succeeds(&env, "keys list").contains("1 wallets have no usable wrapped key"));
    assert!(fails(&env, "keys rewrap").contains("1 left"));
    assert!(opens(&client, 1, "right").await);
    assert!(until_verified(&env).contains("all 2 wallets"));
    assert!(recovers(&client, 1).await && opens(&client, 1, "recovered").await);
    server.terminate();
}

#[actix_web::test]
async fn a_frozen_account_cannot_use_its_key() {
    for stores in BOTH {
        let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
        let (ann, bob) = test.ann_and_bob().await;
        let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        assert_eq!(
            succeeds(&test.env, &format!("account freeze {} --reason stolen", ann.id)),
            "frozen\n"
        );
        let words = "ann's password";
        let sent = test.client.confirm(quoted.id, &confirm(&quoted, words)).await.map(drop);
        let body = ChangePassword { old_password_hash: hash(words), new_password_hash: hash("x") };
        let changed = test.client.change_password(telegram(1), &body).await;
        let recovered = recover(&test.client, 1, "x").await.map(drop);
        for refused in [sent, changed, recovered] {
            assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::AccountFrozen));
        }
        // Others can still pay it.
        test.env.fund(&bob, COIN).unwrap();
        let back = test.client.quote(&quote(2, "@ann", "0.1")).await.unwrap();
        test.client.confirm(back.id, &confirm(&back, "bob's password")).await.unwrap();

        assert_eq!(
            succeeds(&test.env, "account unfreeze telegram:1 --reason ticket-7"),
            "active\n"
        );
        test.client.confirm(quoted.id, &confirm(&quoted, words)).await.unwrap();
        test.until(quoted.id, TransferState::Mined).await;
        let unknown = fails(&test.env, "account freeze telegram:9 --reason stolen");
        assert_snapshot!("freeze_an_unknown_account", unknown);
        let shown = succeeds(&test.env, "audit show --account telegram:1");
        for action in ["freeze", "unfreeze"] {
            assert_eq!(shown.matches(&format!("\t{action}\t")).count(), 2, "{shown}");
        }
    }
}
