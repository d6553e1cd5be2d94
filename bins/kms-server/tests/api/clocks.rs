//! A database whose clock jumps, or a server whose clock does: waits are neither shortened nor
//! begun by a wrong clock.

use std::time::Duration;

use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::ErrorCode;

use crate::operations::until_ready;
use crate::recoveries::{complete, failed, request};

const PAUSED: Option<ErrorCode> = Some(ErrorCode::RecoveriesPaused);

/// Puts a clock of the test's own before that of PostgreSQL.
pub(crate) fn shift(env: &TestEnv, by: &str) {
    env.sql(&format!(
        "create or replace function public.clock_timestamp() returns timestamptz \
         language sql volatile as $$ select pg_catalog.clock_timestamp() + interval '{by}' $$"
    ))
    .unwrap();
}

pub(crate) async fn start(wait: Duration) -> TestServer {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    env.recovery.wait_without_email = wait;
    env.migrate().await.unwrap();
    shift(&env, "0");
    let name = env.database_name().to_owned();
    env.sql(&format!("alter database \"{name}\" set search_path = public, pg_catalog")).unwrap();
    TestServer::start(env).await
}

#[actix_web::test]
async fn recoveries_stop_while_the_clocks_differ() {
    let test = start(Duration::from_secs(3_600)).await;
    test.onboard(1, "ann", "ann").await;
    for jump in ["40 hours", "-40 hours", "1 year", "-1 year", "6 seconds", "-6 seconds"] {
        shift(&test.env, jump);
        assert_eq!(failed(request(&test).await), PAUSED, "{jump}");
        let ready = until_ready(503, async || test.ops("/readyz").await).await;
        assert_eq!(ready["clock"], "down", "{jump}");
        shift(&test.env, "0");
        until_ready(200, async || test.ops("/readyz").await).await;
    }
    let id = request(&test).await.unwrap().id;
    // A wait is not over because one clock says so.
    shift(&test.env, "1 year");
    assert_eq!(failed(complete(&test, id).await), PAUSED);
    shift(&test.env, "0");
    assert_eq!(failed(complete(&test, id).await), Some(ErrorCode::RecoveryNotReady));
    // What was counted while the clock was ahead does not lock anyone out.
    test.onboard(2, "bob", "bob").await;
}

#[actix_web::test]
async fn a_wait_begins_by_the_later_clock_and_ends_by_the_earlier() {
    let test = start(Duration::from_secs(6)).await;
    test.onboard(1, "ann", "ann").await;
    shift(&test.env, "3 seconds");
    let asked = std::time::Instant::now();
    let recovery = request(&test).await.unwrap();
    assert!(recovery.ready_at.since(recovery.requested_at) == Duration::from_secs(6));
    shift(&test.env, "-3 seconds");
    while failed_not_ready(&test, recovery.id).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Six seconds of each clock, and the six that they were apart.
    assert!(asked.elapsed() >= Duration::from_secs(12), "{:?}", asked.elapsed());
}

async fn failed_not_ready(test: &TestServer, id: kms_types::RecoveryId) -> bool {
    match complete(test, id).await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.code(), Some(ErrorCode::RecoveryNotReady));
            true
        }
    }
}
