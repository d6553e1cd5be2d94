//! Spending limits and rate limits.

use std::time::Duration;

use kms_client::ClientError;
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, recover, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::wire::{ExportKey, LimitAmount, SetLimit, TransferState};
use kms_types::{Asset, ErrorCode, Problem, U256, Units};
use reqwest::Method;

const ANNS: &str = "ann's password";

async fn limited(stores: Stores) -> TestServer {
    let mut env = TestEnv::new(stores).unwrap();
    env.limits.spend_a_day.insert("eth".to_owned(), "1".parse().unwrap());
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    test
}

fn units(coins: u128) -> Units {
    Units(U256::from(coins))
}

fn problem<T: std::fmt::Debug>(refused: Result<T, ClientError>) -> Problem {
    match refused {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("{other:?}"),
    }
}

async fn set(test: &TestServer, amount: &str) -> kms_types::wire::SpendingLimit {
    let amount = LimitAmount::try_from(amount.to_owned()).unwrap();
    let body = SetLimit { asset: Asset::Native, chain_id: None, amount };
    test.client.set_limit(telegram(1), &body).await.unwrap().limits.remove(0)
}

async fn concurrent_transfers_do_not_exceed_the_limit(stores: Stores) {
    let test = limited(stores).await;
    let (one, two) =
        tokio::join!(async { test.client.quote(&quote(1, "@bob", "0.6")).await.unwrap() }, async {
            test.client.quote(&quote(1, "@bob", "0.6")).await.unwrap()
        },);
    let (first, second) = (confirm(&one, ANNS), confirm(&two, ANNS));
    let both =
        tokio::join!(test.client.confirm(one.id, &first), test.client.confirm(two.id, &second),);
    let (passed, refused) = match both {
        (Ok(passed), refused) => (passed, refused),
        (refused, Ok(passed)) => (passed, refused),
        neither => panic!("{neither:?}"),
    };
    let refused = problem(refused);
    assert_eq!((refused.code, refused.status), (ErrorCode::LimitReached, 429));
    let reached = refused.limit.unwrap();
    let left = COIN / 10 * 4;
    let left = Units(units(left).0 - one.max_fee.0.min(two.max_fee.0));
    assert!(reached.limit == units(COIN) && reached.left <= left, "{reached:?}");
    assert!(reached.left > units(COIN / 100 * 39), "{reached:?}");
    assert!(reached.possible_at.is_some() && refused.retry_after.unwrap() > 23 * 3_600);
    test.until(passed.id, TransferState::Mined).await;
    let again = problem(test.client.quote(&quote(1, "@bob", "2")).await);
    assert_eq!((again.code, again.retry_after), (ErrorCode::LimitReached, None));
    assert!(again.limit.unwrap().possible_at.is_none());
    let over = problem(test.client.quote(&quote(1, "@bob", "0.4")).await);
    assert_eq!(over.code, ErrorCode::LimitReached);
    test.client.quote(&quote(1, "@bob", "0.399")).await.unwrap();
}

#[actix_web::test]
async fn concurrent_transfers_do_not_exceed_the_limit_on_embedded_stores() {
    concurrent_transfers_do_not_exceed_the_limit(Stores::Embedded).await;
}

#[actix_web::test]
async fn concurrent_transfers_do_not_exceed_the_limit_on_servers() {
    concurrent_transfers_do_not_exceed_the_limit(Stores::Servers).await;
}

#[actix_web::test]
async fn the_limit_is_lower_for_some_time_after_a_recovery() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.limits.spend_a_day.insert("eth".to_owned(), "1".parse().unwrap());
    env.limits.spend_a_day_after_recovery.insert("eth".to_owned(), "0.1".parse().unwrap());
    env.recovery.hold = Duration::from_secs(15);
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    recover(&test.client, 1, "new").await.unwrap();
    let limits = test.client.limits(telegram(1)).await.unwrap().limits;
    assert_eq!(limits[0].limit, Some(units(COIN / 10)));
    let refused = problem(test.client.quote(&quote(1, "@bob", "0.2")).await);
    let reached = refused.limit.unwrap();
    assert_eq!((reached.limit, reached.left), (units(COIN / 10), units(COIN / 10)));
    assert!(refused.retry_after.unwrap() <= 15);
    let bobs = test.client.limits(telegram(2)).await.unwrap().limits;
    assert_eq!(bobs[0].limit, Some(units(COIN)));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let quoted = test.client.quote(&quote(1, "@bob", "0.2")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "new")).await.unwrap();
}

#[actix_web::test]
async fn after_a_recovery_only_addresses_paid_before_can_be_paid() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
        test.ann_and_bob().await;
        test.onboard(3, "carl", "carl's").await;
        let paid = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        test.client.confirm(paid.id, &confirm(&paid, ANNS)).await.unwrap();
        test.until(paid.id, TransferState::Mined).await;
        let earlier = test.client.quote(&quote(1, "@carl", "0.1")).await.unwrap();
        recover(&test.client, 1, "new").await.unwrap();
        let again = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        test.client.confirm(again.id, &confirm(&again, "new")).await.unwrap();
        for held in [
            problem(test.client.quote(&quote(1, "@carl", "0.1")).await),
            problem(test.client.confirm(earlier.id, &confirm(&earlier, "new")).await),
        ] {
            assert_eq!((held.code, held.status), (ErrorCode::OnHold, 403));
            assert!((500..=600).contains(&held.retry_after.unwrap()), "{held:?}");
        }
    }
}

#[actix_web::test]
async fn owners_lower_their_limit_at_once_and_raise_it_later() {
    let test = limited(Stores::Embedded).await;
    let limits = test.client.limits(telegram(1)).await.unwrap().limits;
    let [coins] = limits.as_slice() else { panic!("{limits:?}") };
    assert_eq!((coins.limit, coins.spent, coins.own), (Some(units(COIN)), units(0), None));
    let quoted = test.client.quote(&quote(1, "@bob", "0.5")).await.unwrap();
    let lowered = set(&test, "0.25").await;
    assert_eq!((lowered.limit, lowered.later), (Some(units(COIN / 4)), None));
    // The limit is checked again when an older quote is confirmed.
    let refused = problem(test.client.confirm(quoted.id, &confirm(&quoted, ANNS)).await);
    assert_eq!(refused.code, ErrorCode::LimitReached);
    let raised = set(&test, "none").await;
    assert_eq!(raised.limit, Some(units(COIN / 4)));
    assert_eq!(raised.later.unwrap().units, None);
    let again = set(&test, "0.25").await;
    assert_eq!(again.later, None);
    for (body, status) in [
        (r#"{"amount":"x"}"#, 400),
        (r#"{"amount":"0"}"#, 400),
        (r#"{"amount":"1","asset":"DAI"}"#, 422),
        (r#"{"amount":"0.0000000000000000001"}"#, 400),
    ] {
        let request = test.raw().request(Method::PUT, test.url("/v1/accounts/telegram:1/limits"));
        let request = request.bearer_auth(&test.token).header("Content-Type", "application/json");
        assert_eq!(request.body(body).send().await.unwrap().status(), status, "{body}");
    }
}

#[actix_web::test]
async fn quotes_are_limited_per_day_too() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.limits.quotes_a_day = "2/day".parse().unwrap();
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    for _ in 0..2 {
        test.client.quote(&quote(1, "@bob", "0.1")).await.unwrap();
    }
    let refused = problem(test.client.quote(&quote(1, "@bob", "0.1")).await);
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.retry_after.unwrap() > 11 * 3_600, "{:?}", refused.retry_after);
}

/// Rate limits are shared by all servers, and survive a restart.
async fn quotes_and_onboardings_are_limited(stores: Stores) {
    let mut env = TestEnv::new(stores).unwrap();
    env.limits.quotes = "3/hour".parse().unwrap();
    env.limits.onboardings = "3/hour".parse().unwrap();
    let settings = env.settings().unwrap();
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    // Only PostgreSQL serves several servers.
    let other = match stores {
        Stores::Servers => Some(kms_server::Server::start(settings).await.unwrap()),
        Stores::Embedded => None,
    };
    let port = other.as_ref().map_or(test.server.address().port(), |other| other.address().port());
    let elsewhere = test.env.client(port, &test.token).unwrap();
    let first = quote(1, "@bob", "0.1");
    test.client.quote(&first).await.unwrap();
    elsewhere.quote(&quote(1, "@bob", "0.1")).await.unwrap();
    test.client.quote(&quote(1, "@bob", "0.1")).await.unwrap();
    // A repeat does not count, nor does a quote of another account.
    test.client.quote(&first).await.unwrap();
    elsewhere.quote(&quote(2, "@ann", "0.1")).await.map(drop).unwrap_err();
    for client in [&test.client, &elsewhere] {
        let refused = problem(client.quote(&quote(1, "@bob", "0.1")).await);
        assert_eq!((refused.code, refused.status), (ErrorCode::RateLimited, 429));
        assert!((1..=1_200).contains(&refused.retry_after.unwrap()), "{:?}", refused.retry_after);
    }
    // Only those of users who have no wallet count.
    let again = create(1, "ann", "ann's password");
    test.client.create_account(&again).await.unwrap();
    elsewhere.create_account(&create(3, "carl", "c")).await.unwrap();
    let refused = problem(test.client.create_account(&create(4, "dora", "d")).await);
    assert_eq!(refused.code, ErrorCode::RateLimited);
    test.client.create_account(&again).await.unwrap();
    assert_eq!(test.client.account(telegram(4)).await.unwrap(), None);
    if let Some(other) = other {
        other.stop().await.unwrap();
    }
    let test = test.restart().await;
    let refused = problem(test.client.quote(&quote(1, "@bob", "0.1")).await);
    assert_eq!(refused.code, ErrorCode::RateLimited);
}

#[actix_web::test]
async fn quotes_and_onboardings_are_limited_on_embedded_stores() {
    quotes_and_onboardings_are_limited(Stores::Embedded).await;
}

#[actix_web::test]
async fn quotes_and_onboardings_are_limited_on_servers() {
    quotes_and_onboardings_are_limited(Stores::Servers).await;
}

#[actix_web::test]
async fn reads_of_one_account_do_not_limit_another() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.limits.account_reads = "5/minute".parse().unwrap();
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(test.client.account(telegram(1)).await.is_err());
    }
    assert!((1..=15).contains(&refused), "{refused}");
    test.client.account(telegram(2)).await.unwrap();
}

/// The password is not tried, and no key is opened for it.
#[actix_web::test]
async fn no_key_is_opened_where_no_export_is_allowed() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.limits.exports = "0/day".parse().unwrap();
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let body = ExportKey { password_hash: hash(ANNS) };
    let refused = problem(test.client.export(telegram(1), &body).await);
    assert_eq!(refused.code, ErrorCode::RateLimited);
    let opened = "select count(*) from audit where action = 'export' and phase = 'intent'";
    assert_eq!(test.env.sql(opened).unwrap(), "0");
}
