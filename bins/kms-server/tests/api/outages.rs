//! Outages of a dependency: requests that need it report it, the others succeed, and none is left
//! half done.

use std::time::Duration;

use kms_server_testing::commands::{fails, succeeds};
use kms_server_testing::requests::{confirm, create, quote, recover, recover_as, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_testkit::{Anvil, AnvilOptions, Mongod, Postgres};
use kms_types::wire::{AccountState, TransferState};
use kms_types::{ErrorCode, RecoveryId};

use crate::chains::{add, on, until_refused};

const OTHER: u64 = 1_026;

#[actix_web::test]
async fn without_mongodb_no_account_is_created_but_sends_still_work() {
    let mongod = Mongod::start().unwrap();
    let database = Postgres::shared().unwrap().create_database().unwrap();
    let directory = kms_testkit::Scratch::new("server").unwrap();
    let mut env = TestEnv::on(directory, database, mongod.url(), "kms".to_owned()).unwrap();
    let _other = add(&mut env, "other", OTHER);
    let test = TestServer::start(env).await;
    let (_, bob) = test.ann_and_bob().await;
    mongod.pause().unwrap();
    let refused = test.client.create_account(&create(3, "carl", "c")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable));
    assert_eq!(test.client.account(telegram(3)).await.unwrap(), None);
    let first = RecoveryId::random();
    let refused = recover_as(&test.client, 2, first, "new").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable));
    assert_eq!(test.ops("/readyz").await.status(), 503);
    // A send does not wait for MongoDB.
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    let mined = test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(mined.to.address, bob.address);
    // Neither does a freeze, by the owner or by an operator.
    let by_owner = test.client.freeze(telegram(2)).await.unwrap();
    assert_eq!(by_owner.state, AccountState::FrozenByOwner);
    succeeds(&test.env, "account freeze telegram:1 --reason ticket-8");
    let by_operator = test.client.account(telegram(1)).await.unwrap().unwrap();
    assert_eq!(by_operator.state, AccountState::Frozen);
    for id in [1, 2] {
        succeeds(&test.env, &format!("account unfreeze telegram:{id} --reason ticket-8"));
    }
    // An operator's pause holds although the key database cannot have it, also that of one chain
    // while nothing is known of another one.
    let output = fails(&test.env, "payments pause --chain other");
    assert!(output.contains("the pause holds if one has it"), "{output}");
    until_refused(&test, || on(OTHER, "1"), ErrorCode::PaymentsPaused).await;
    test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let status = fails(&test.env, "payments status");
    assert!(status.contains(&format!("chain {OTHER}: paused since")), "{status}");
    let output = fails(&test.env, "payments pause");
    assert!(output.contains("the pause holds if one has it"), "{output}");
    let paused = async || {
        let refused = test.client.quote(&quote(1, "@bob", "1")).await.err();
        refused.and_then(|error| error.code()) == Some(ErrorCode::PaymentsPaused)
    };
    for _ in 0..1_200 {
        if paused().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(paused().await);
    mongod.resume().unwrap();
    succeeds(&test.env, "payments resume --all --reason ticket-9");
    test.onboard(3, "carl", "c").await;
    // The failed recovery counts once against the limit of three a day, also when it is repeated.
    for id in [first, RecoveryId::random(), RecoveryId::random()] {
        recover_as(&test.client, 2, id, "new").await.unwrap();
    }
    let limited = recover(&test.client, 2, "new").await.unwrap_err();
    assert_eq!(limited.code(), Some(ErrorCode::RateLimited));
    crate::operations::until_ready(200, async || test.ops("/readyz").await).await;
}

#[actix_web::test]
async fn without_the_chain_nothing_is_signed_but_reads_still_work() {
    let test = TestServer::start(TestEnv::new(Stores::Embedded).unwrap()).await;
    let (ann, _) = test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.env.anvil.pause().unwrap();
    let refused = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await;
    assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::ChainUnavailable));
    let refused = test.client.quote(&quote(1, "@bob", "1")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ChainUnavailable));
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap(), ann);
    assert!(test.client.name(&"bob".parse().unwrap()).await.unwrap().is_some());
    let still = test.client.transfer(quoted.id).await.unwrap().unwrap();
    assert_eq!((still.state, still.tx_hash), (TransferState::Quoted, None));
    test.env.anvil.resume().unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
}

#[actix_web::test]
async fn a_server_with_other_keys_does_not_start() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    kms_server::Server::start(env.settings().unwrap()).await.unwrap().stop().await.unwrap();
    env.server_keys[0].1 = format!("1:{}", "ee".repeat(32));
    let refused = kms_server::Server::start(env.settings().unwrap()).await.unwrap_err();
    insta::assert_snapshot!("start_with_another_pepper", refused.to_string());
}

/// An operator removed an old key version too early.
#[actix_web::test]
async fn rows_under_a_missing_key_version_are_unavailable_not_tampered() {
    for (index, kind) in [(1, "contact"), (2, "row-MAC")] {
        let mut env = TestEnv::new(Stores::Embedded).unwrap();
        let old = env.server_keys[index].1.clone();
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
        let serve = |env: &TestEnv| ServerProcess::start(env, None, "info");
        let server = serve(&env);
        let mut body = create(1, "ann", "a");
        body.email = Some("ann@example.org".parse().unwrap());
        let ann = server.client(&env, &token).create_account(&body).await.unwrap();
        server.terminate();

        env.server_keys[index].1 = format!("2:{}", "ee".repeat(32));
        let server = serve(&env);
        let refused = server.client(&env, &token).account(telegram(1)).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable), "{kind}");
        let log = server.terminate();
        assert!(log.contains("request_failed"), "{log}");
        assert!(!log.contains("integrity_alarm"), "{log}");

        env.server_keys[index].1.push_str(&format!(",{old}"));
        let server = serve(&env);
        let found = server.client(&env, &token).account(telegram(1)).await.unwrap();
        assert_eq!(found, Some(ann), "{kind}");
    }
}

#[actix_web::test]
async fn a_server_without_a_schema_names_the_migrate_command() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let refused = kms_server::Server::start(env.settings().unwrap()).await.unwrap_err();
    assert!(matches!(refused, kms_server::StartError::Schema), "{refused}");
}

#[actix_web::test]
async fn an_endpoint_of_another_chain_is_not_used() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let wrong = AnvilOptions { chain_id: 5, ..AnvilOptions::default() };
    let wrong = Anvil::start_with(wrong).unwrap();
    env.rpc_urls = wrong.url();
    env.migrate().await.unwrap();
    // It does not keep the server from starting: what needs no chain works.
    let mut test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let error = test.client.balances(telegram(1)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ChainUnavailable));
    // An endpoint that is down, one of another chain, and two right ones, which agree on prices.
    let right = test.env.anvil.url();
    let again = right.replace("127.0.0.1", "localhost");
    test.env.rpc_urls = format!("http://127.0.0.1:1 {} {right} {again}", wrong.url());
    let test = test.restart().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(wrong.rpc("eth_blockNumber", serde_json::json!([])).unwrap(), "0x0");
}
