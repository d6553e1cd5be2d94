//! A database whose clock jumps, or a server whose clock is wrong: waits are neither shortened nor
//! begun by a wrong clock, limits are not wider, and nothing waits longer once it is right.

use std::time::Duration;

use kms_client::Client;
use kms_server_testing::commands::{kms_server, output_text, succeeds};
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_store::Scope;
use kms_types::wire::{
    AccountState, CompleteRecovery, ExportKey, LimitAmount, RecoveryState, RequestRecovery,
    SetLimit, Transfer, TransferState, Unfreeze,
};
use kms_types::{Asset, ErrorCode, RecoveryId};

use crate::operations::until_ready;
use crate::recoveries::{ann_with_email, complete, failed, kind, mails, request, with_mail};

const PAUSED: Option<ErrorCode> = Some(ErrorCode::RecoveriesPaused);
/// How what the clock decides is refused.
const REFUSED: Option<ErrorCode> = Some(ErrorCode::StoreUnavailable);
const HOUR: Duration = Duration::from_secs(60 * 60);

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

async fn set_limit(client: &Client, amount: &str) -> Option<ErrorCode> {
    let amount = LimitAmount::try_from(amount.to_owned()).unwrap();
    let body = SetLimit { asset: Asset::Native, chain_id: None, amount };
    client.set_limit(telegram(1), &body).await.err().map(|error| error.code().unwrap())
}

async fn export(client: &Client, words: &str) -> Option<ErrorCode> {
    failed(client.export(telegram(1), &ExportKey { password_hash: hash(words) }).await)
}

/// One of two servers has a clock that is 40 hours ahead or behind.
#[actix_web::test]
async fn a_server_whose_clock_is_wrong_does_nothing_by_it() {
    for ahead in [HOUR.as_millis() * 40, HOUR.as_millis()] {
        for sign in ["", "-"] {
            one_of_two_servers_is_wrong(&format!("{sign}{ahead}")).await;
        }
    }
}

async fn one_of_two_servers_is_wrong(ahead: &str) {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    for (name, value) in [
        ("RECOVERY__WAIT_WITHOUT_EMAIL", "6s"),
        ("RECOVERY__UNFREEZE_WAIT", "6s"),
        ("LIMITS__SPEND_A_DAY__ETH", "1"),
        ("CHAINS__TEST__QUOTE_LIFETIME", "48h"),
    ] {
        env.variables.push((format!("KMS_SERVER__{name}"), value.to_owned()));
    }
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let right = ServerProcess::start(&env, None, "info");
    env.variables.push(("KMS_CLOCK_AHEAD".to_owned(), ahead.to_owned()));
    let wrong = ServerProcess::start(&env, None, "info");
    let servers = [&right, &wrong];
    let [client, other] = servers.map(|server| server.client(&env, &token));
    until_ready(200, async || right.ops("/readyz").await).await;
    until_ready(503, async || wrong.ops("/readyz").await).await;
    for (id, name) in [(1, "ann"), (2, "bob"), (3, "carl")] {
        let account = client.create_account(&create(id, name, name)).await.unwrap();
        env.fund(&account, 10 * COIN).unwrap();
    }

    // The waits of a recovery and of a freeze.
    let began = std::time::Instant::now();
    let id = RecoveryId::random();
    client.request_recovery(telegram(2), &RequestRecovery { id }).await.unwrap();
    client.freeze(telegram(3)).await.unwrap();
    let body = Unfreeze { password_hash: hash("carl") };
    assert_eq!(failed(other.unfreeze(telegram(3), &body).await), REFUSED, "{ahead}");
    client.unfreeze(telegram(3), &body).await.unwrap();
    let new = RecoveryId::random();
    let asked = other.request_recovery(telegram(1), &RequestRecovery { id: new }).await;
    assert_eq!(failed(asked), PAUSED, "{ahead}");

    // What may be spent in a day.
    let quoted = client.quote(&quote(1, "@bob", "0.7")).await.unwrap();
    let next = client.quote(&quote(1, "@bob", "0.7")).await.unwrap();
    client.confirm(quoted.id, &confirm(&quoted, "ann")).await.unwrap();
    let sent =
        async |client: &Client| failed(client.confirm(next.id, &confirm(&next, "ann")).await);
    assert_eq!(sent(&other).await, REFUSED, "{ahead}");
    assert_eq!(sent(&client).await, Some(ErrorCode::LimitReached), "{ahead}");
    assert_eq!(set_limit(&other, "2").await, REFUSED, "{ahead}");

    // How often a password may be guessed.
    for _ in 0..5 {
        assert_eq!(export(&client, "guess").await, Some(ErrorCode::WrongPassword), "{ahead}");
    }
    assert_eq!(export(&other, "guess").await, REFUSED, "{ahead}");
    assert_eq!(export(&client, "guess").await, Some(ErrorCode::PasswordLocked), "{ahead}");

    // No wait is over for the server that is ahead, and none is longer for the one that is behind.
    let body = || CompleteRecovery { new_password_hash: hash("new") };
    let frozen = AccountState::FrozenByOwner;
    loop {
        let completed = failed(other.complete_recovery(telegram(2), id, &body()).await);
        let open = client.recovery(telegram(2)).await.unwrap().unwrap();
        let carl = client.account(telegram(3)).await.unwrap().unwrap();
        if began.elapsed() > Duration::from_secs(5) {
            break;
        }
        assert_eq!(completed, PAUSED, "{ahead}");
        assert_eq!(open.state, RecoveryState::Waiting, "{ahead}");
        assert_eq!(carl.state, frozen, "{ahead}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    while client.account(telegram(3)).await.unwrap().unwrap().state == frozen {
        assert!(began.elapsed() < Duration::from_secs(90), "{ahead}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.complete_recovery(telegram(2), id, &body()).await.unwrap();

    // What protects an owner is done by either, and nothing is scheduled for another time.
    assert_eq!(other.freeze(telegram(3)).await.unwrap().state, frozen);
    let state = |client: Client| async move { client.transfer(quoted.id).await.unwrap().unwrap() };
    for _ in 0..1_200 {
        if state(client.clone()).await.state == TransferState::Mined {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let far = "select count(*) from transfer_checks \
               where abs(next_at - extract(epoch from now()) * 1000) > 600000";
    assert_eq!(env.sql(far).unwrap(), "0", "{ahead}");
    for server in [right, wrong] {
        let log = server.terminate();
        assert!(!log.contains("integrity_alarm"), "{ahead}: {log}");
    }
}

/// The database's clock jumps a year ahead, or back, and returns.
#[actix_web::test]
async fn nothing_is_wider_or_stuck_after_the_clock_of_the_database_jumped() {
    let test = start(Duration::ZERO).await;
    let (ann, _bob) = test.ann_and_bob().await;
    test.env.fund(&ann, 10 * COIN).unwrap();
    assert_eq!(set_limit(&test.client, "1").await, None);
    let asked = async |amount| test.client.quote(&quote(1, "@bob", amount)).await.unwrap();
    let sent = async |quoted: &Transfer| {
        test.client.confirm(quoted.id, &confirm(quoted, "ann's password")).await
    };
    let (first, next) = (asked("0.7").await, asked("0.7").await);
    sent(&first).await.unwrap();
    test.until(first.id, TransferState::Mined).await;
    for jump in ["1 year", "-1 year"] {
        for _ in 0..3 {
            assert_eq!(export(&test.client, "guess").await, Some(ErrorCode::WrongPassword));
        }
        shift(&test.env, jump);
        until_ready(503, async || test.ops("/readyz").await).await;
        assert_eq!(failed(sent(&next).await), REFUSED, "{jump}");
        assert_eq!(export(&test.client, "guess").await, REFUSED, "{jump}");
        assert_eq!(set_limit(&test.client, "5").await, REFUSED, "{jump}");
        assert_eq!(failed(request(&test).await), PAUSED, "{jump}");
        // Two rounds of every worker.
        tokio::time::sleep(Duration::from_secs(1)).await;
        shift(&test.env, "0");
        until_ready(200, async || test.ops("/readyz").await).await;
        let over = test.client.quote(&quote(1, "@bob", "0.7")).await;
        assert_eq!(failed(over), Some(ErrorCode::LimitReached), "{jump}");
        let small = sent(&asked("0.01").await).await.unwrap();
        test.until(small.id, TransferState::Mined).await;
        assert_eq!(set_limit(&test.client, "0.9").await, None, "{jump}");
        let far = "select count(*) from transfer_checks \
                   where abs(next_at - extract(epoch from now()) * 1000) > 600000";
        assert_eq!(test.env.sql(far).unwrap(), "0", "{jump}");
    }
    let id = request(&test).await.unwrap().id;
    complete(&test, id).await.unwrap();
    test.onboard(3, "carl", "carl").await;
}

/// What an operator loosens begins or ends by the clock of their machine. What protects does not
/// wait for it, and its e-mail is sent whatever its time.
#[actix_web::test]
async fn a_command_on_a_machine_whose_clock_is_wrong_loosens_nothing() {
    let (mut env, mailbox) = with_mail(Stores::Embedded);
    env.recovery.wait_without_email = HOUR;
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    test.onboard(2, "bob", "bob").await;
    let body = RequestRecovery { id: RecoveryId::random() };
    test.client.request_recovery(telegram(2), &body).await.unwrap();
    let ready_at = async || test.client.recovery(telegram(2)).await.unwrap().unwrap().ready_at;
    let run = |ahead: &str, arguments: &str| {
        let ran = kms_server(&test.env, arguments).env("KMS_CLOCK_AHEAD", ahead).output().unwrap();
        (ran.status.success(), output_text(&ran))
    };
    let mut sent = 2;
    let mut next_mail = async || {
        sent += 1;
        kind(&mails(&mailbox, sent).await[sent - 1])
    };
    for ahead in ["144000000", "-144000000"] {
        let before = ready_at().await;
        assert!(run(ahead, "recoveries pause").0, "{ahead}");
        assert!(run(ahead, "account freeze telegram:1 --reason ticket-1").0, "{ahead}");
        assert_eq!(next_mail().await, "notice-account-frozen", "{ahead}");
        for command in [
            "recoveries resume --reason ticket-2",
            "account unfreeze telegram:1 --reason ticket-3",
            "token new another --scopes bot",
        ] {
            let (succeeded, text) = run(ahead, command);
            assert!(!succeeded && text.contains("the clocks of this machine"), "{command}: {text}");
        }
        succeeds(&test.env, "recoveries resume --reason ticket-2");
        assert!(ready_at().await > before, "{ahead}: the wait did not stop");
        assert!(ready_at().await.since(before) < HOUR, "{ahead}: the wait was extended by more");
        succeeds(&test.env, "account unfreeze telegram:1 --reason ticket-3");
        assert_eq!(next_mail().await, "notice-account-unfrozen", "{ahead}");
    }
    assert!(!succeeds(&test.env, "token list").contains("another"));
}
