//! A part is down: what needs it says so, what does not need it goes on, and nothing is half done.

use kms_server::Server;
use kms_testkit::{Anvil, AnvilOptions, Mongod, Postgres};
use kms_types::wire::TransferState;
use kms_types::{ErrorCode, RecoveryId};

use crate::harness::{
    Place, Stores, TestServer, confirm, create, quote, recover, recover_as, telegram,
};
use crate::process::ServerProcess;

#[actix_web::test]
async fn without_mongodb_nobody_is_onboarded_by_half() {
    let mongod = Mongod::start().unwrap();
    let database = Postgres::shared().unwrap().create_database().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = Place::at(directory, database, mongod.url(), "kms".to_owned());
    let test = TestServer::start(place).await;
    let (_, bob) = test.ann_and_bob().await;
    mongod.pause().unwrap();
    let refused = test.client.create_account(&create(3, "carl", "c")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable));
    assert_eq!(test.client.account(telegram(3)).await.unwrap(), None);
    let first = RecoveryId::random();
    let refused = recover_as(&test.client, 2, first, "new").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable));
    let ready = test.raw().get(test.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    // A send never reads MongoDB.
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    let mined = test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(mined.to.address, bob.address);
    mongod.resume().unwrap();
    test.onboard(3, "carl", "c").await;
    // The recovery that failed keeps its place of three, and takes no other.
    for id in [first, RecoveryId::random(), RecoveryId::random()] {
        recover_as(&test.client, 2, id, "new").await.unwrap();
    }
    let limited = recover(&test.client, 2, "new").await.unwrap_err();
    assert_eq!(limited.code(), Some(ErrorCode::RateLimited));
    assert_eq!(test.raw().get(test.url("/readyz")).send().await.unwrap().status(), 200);
}

#[actix_web::test]
async fn without_the_chain_nothing_is_signed() {
    let test = TestServer::start(Place::new(Stores::Embedded)).await;
    let (ann, _) = test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.place.anvil.pause().unwrap();
    let refused = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await;
    assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::ChainUnavailable));
    let refused = test.client.quote(&quote(1, "@bob", "1")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ChainUnavailable));
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap(), ann);
    assert!(test.client.name(&"bob".parse().unwrap()).await.unwrap().is_some());
    let still = test.client.transfer(quoted.id).await.unwrap().unwrap();
    assert_eq!((still.state, still.tx_hash), (TransferState::Quoted, None));
    test.place.anvil.resume().unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
}

#[actix_web::test]
async fn a_server_with_other_keys_does_not_start() {
    let mut place = Place::new(Stores::Embedded);
    place.migrated().await;
    kms_server::Server::start(place.settings()).await.unwrap().stop().await;
    place.server_keys[0].1 = format!("1:{}", "ee".repeat(32));
    let refused = kms_server::Server::start(place.settings()).await.unwrap_err();
    assert!(refused.to_string().contains("server_keys.pepper"), "{refused}");
}

/// The operator dropped an old version too early.
#[actix_web::test]
async fn without_a_version_of_a_key_what_needs_it_is_unavailable() {
    for (index, kind) in [(1, "contact"), (2, "row")] {
        let mut place = Place::new(Stores::Embedded);
        let old = place.server_keys[index].1.clone();
        let database = place.migrated().await;
        let token = place.token(&database, kms_store::Scope::Bot).await;
        let serve = |place: &Place| ServerProcess::start(place, None, "info");
        let server = serve(&place);
        let mut body = create(1, "ann", "a");
        body.email = Some("ann@example.org".parse().unwrap());
        let ann = server.client(&place, &token).create_account(&body).await.unwrap();
        server.terminate();

        place.server_keys[index].1 = format!("2:{}", "ee".repeat(32));
        let server = serve(&place);
        let refused = server.client(&place, &token).account(telegram(1)).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::StoreUnavailable), "{kind}");
        let log = server.terminate();
        assert!(log.contains(&format!("version 1 of the {kind} key is not configured")), "{log}");
        assert!(!log.contains("changed") && !log.contains("alarm"), "{log}");

        place.server_keys[index].1.push_str(&format!(",{old}"));
        let server = serve(&place);
        let found = server.client(&place, &token).account(telegram(1)).await.unwrap();
        assert_eq!(found, Some(ann), "{kind}");
    }
}

#[actix_web::test]
async fn a_server_without_a_schema_says_what_to_do() {
    let place = Place::new(Stores::Embedded);
    let refused = kms_server::Server::start(place.settings()).await.unwrap_err();
    assert!(refused.to_string().contains("kms-server migrate"), "{refused}");
}

#[actix_web::test]
async fn another_chain_behind_an_endpoint_is_refused_and_passed_over() {
    let mut place = Place::new(Stores::Embedded);
    let wrong = AnvilOptions { chain_id: 5, ..AnvilOptions::default() };
    let wrong = Anvil::start_with(wrong).unwrap();
    place.rpc_urls = Some(wrong.url());
    place.migrated().await;
    let error = Server::start(place.settings()).await.unwrap_err().to_string();
    assert_eq!(error, "chain.rpc_urls: the endpoint is of chain 5, not of chain 31337");
    // One that is down, one of another chain, and the right one.
    place.rpc_urls = Some(format!("http://127.0.0.1:1 {} {}", wrong.url(), place.anvil.url()));
    let test = TestServer::start(place).await;
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(wrong.rpc("eth_blockNumber", serde_json::json!([])).unwrap(), "0x0");
}
