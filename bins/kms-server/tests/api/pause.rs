//! A pause of recoveries stops every wait.

use std::time::{Duration, Instant};

use kms_server_testing::commands::succeeds;
use kms_server_testing::requests::{hash, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::wire::{AccountState, Unfreeze};
use kms_types::{ErrorCode, RecoveryId};

use crate::recoveries::{complete, failed, request};

const WAIT: Duration = Duration::from_secs(15);

async fn is_frozen(test: &TestServer, id: i64) -> bool {
    let account = test.client.account(telegram(id)).await.unwrap().unwrap();
    account.state == AccountState::FrozenByOwner
}

async fn is_early(test: &TestServer, id: RecoveryId) -> bool {
    match complete(test, id).await {
        Ok(_) => false,
        refused => {
            assert_eq!(failed(refused), Some(ErrorCode::RecoveryNotReady));
            true
        }
    }
}

#[actix_web::test]
async fn waits_do_not_end_in_a_pause_and_go_on_after_it() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    (env.recovery.wait_without_email, env.recovery.unfreeze_wait) = (WAIT, WAIT);
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "ann").await;
    test.onboard(2, "bob", "bob").await;
    test.client.freeze(telegram(2)).await.unwrap();
    let body = Unfreeze { password_hash: hash("bob") };
    let began = Instant::now();
    test.client.unfreeze(telegram(2), &body).await.unwrap();
    let id = request(&test).await.unwrap().id;
    succeeds(&test.env, "recoveries pause");
    let pause = Instant::now();
    tokio::time::sleep(WAIT + Duration::from_secs(2)).await;
    assert_eq!(failed(complete(&test, id).await), Some(ErrorCode::RecoveriesPaused));
    assert!(is_frozen(&test, 2).await);
    let paused = pause.elapsed();
    succeeds(&test.env, "recoveries resume --reason ticket-9");
    assert!(is_early(&test, id).await);
    assert!(is_frozen(&test, 2).await);
    while is_early(&test, id).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let recovered = began.elapsed();
    assert!(recovered >= WAIT + paused, "{recovered:?}");
    while is_frozen(&test, 2).await {
        assert!(began.elapsed() < Duration::from_secs(180), "still frozen");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
