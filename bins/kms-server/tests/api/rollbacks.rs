//! An attacker who can write to the account database puts old copies of rows back, whose MACs are
//! valid: the audit, which is only appended to, has what they ended with.

use std::time::{Duration, Instant};

use kms_server_testing::commands::{fails, succeeds};
use kms_server_testing::requests::{COIN, confirm, hash, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_store::Scope;
use kms_types::wire::{
    AccountState, ChangeEmail, ChangeMobile, ChangePassword, CompleteRecovery, ExportKey,
    LimitAmount, SeenUsernames, SetLimit, TransferState, Unfreeze,
};
use kms_types::{Asset, ErrorCode, RecoveryId, Timestamp};

use crate::recoveries::{
    ADDRESS, ann_with_email, code, complete, failed, mails, request, with_mail, wrong,
};

/// Runs each test with SQLite and with PostgreSQL.
macro_rules! on_each_store {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[actix_web::test]
            async fn $test() {
                super::$test(super::Stores::Embedded).await;
            })+
        }
        mod servers {
            $(#[actix_web::test]
            async fn $test() {
                super::$test(super::Stores::Servers).await;
            })+
        }
    };
}

pub(crate) use on_each_store;

on_each_store!(
    a_cancelled_recovery_that_is_put_back_is_not_completed,
    a_recovery_is_not_completed_twice,
    a_correct_password_ends_a_recovery_whose_row_is_broken,
    tries_of_a_code_are_not_forgotten,
    an_address_is_not_confirmed_twice,
    a_quote_that_was_signed_is_not_signed_again,
    an_account_that_is_put_back_is_refused,
    an_account_that_is_put_back_is_not_written_anew,
    a_freeze_whose_end_is_put_back_stays,
    waits_are_not_put_back_to_before_a_pause,
    an_emptied_lockout_leaves_the_limit_of_the_audit,
    a_spend_that_is_removed_raises_no_limit,
    a_revoked_token_that_is_put_back_is_refused,
    a_spending_limit_that_is_put_back_is_refused,
    a_username_that_is_put_back_resolves_to_no_account,
);

const INTERNAL: Option<ErrorCode> = Some(ErrorCode::Internal);

fn keep(test: &TestServer, table: &str) {
    let sql = format!("drop table if exists kept; create table kept as select * from {table}");
    test.env.sql(&sql).unwrap();
}

/// Puts the kept rows back over what they became, or where they were deleted.
fn put_back(test: &TestServer, table: &str, key: &str) {
    let is_sqlite = test.env.database.starts_with("sqlite:");
    let columns = if is_sqlite {
        format!("select name from pragma_table_info('{table}')")
    } else {
        format!(
            "select column_name from information_schema.columns where table_schema = 'public' \
             and table_name = '{table}' and is_generated = 'NEVER'"
        )
    };
    let columns = test.env.sql(&columns).unwrap();
    let others = columns.lines().filter(|column| !key.split(", ").any(|part| part == *column));
    let set: Vec<_> =
        others.map(|column| format!("\"{column}\" = excluded.\"{column}\"")).collect();
    let columns: Vec<_> = columns.lines().map(|column| format!("\"{column}\"")).collect();
    let (columns, set) = (columns.join(","), set.join(","));
    // Also where PostgreSQL numbers the rows.
    let overriding = if is_sqlite { "" } else { "overriding system value" };
    let sql = format!(
        "insert into {table} ({columns}) {overriding} select {columns} from kept where true \
         on conflict ({key}) do update set {set}"
    );
    test.env.sql(&sql).unwrap();
}

/// Keeps an account with its wallet, and puts them back.
pub(crate) fn keep_account(test: &TestServer) {
    for table in ["accounts", "wallets"] {
        let sql = format!(
            "drop table if exists kept_{table}; create table kept_{table} as select * from {table}"
        );
        test.env.sql(&sql).unwrap();
    }
}

pub(crate) fn put_account_back(test: &TestServer) {
    for (table, key) in [("accounts", "id"), ("wallets", "account_id")] {
        test.env.sql("drop table if exists kept").unwrap();
        test.env.sql(&format!("alter table kept_{table} rename to kept")).unwrap();
        put_back(test, table, key);
    }
}

fn alarms(test: &TestServer) -> String {
    test.env.sql("select count(*) from audit where outcome = 'rolled_back'").unwrap()
}

async fn complete_as_eve(test: &TestServer, id: RecoveryId) -> Option<ErrorCode> {
    let body = CompleteRecovery { new_password_hash: hash("eve") };
    failed(test.client.complete_recovery(telegram(1), id, &body).await)
}

async fn a_cancelled_recovery_that_is_put_back_is_not_completed(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.onboard(1, "ann", "known").await;
    let id = request(&test).await.unwrap().id;
    keep(&test, "recoveries");
    test.client.cancel_recovery(telegram(1), id).await.unwrap();
    put_back(&test, "recoveries", "id");
    assert_eq!(complete_as_eve(&test, id).await, INTERNAL);
    assert_eq!(alarms(&test), "1");
    test.onboard(1, "ann", "known").await;
}

async fn a_recovery_is_not_completed_twice(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.onboard(1, "ann", "forgotten").await;
    let id = request(&test).await.unwrap().id;
    keep(&test, "recoveries");
    complete(&test, id).await.unwrap();
    put_back(&test, "recoveries", "id");
    assert_eq!(complete_as_eve(&test, id).await, INTERNAL);
    assert_eq!(alarms(&test), "1");
    // The password is the one that Ann set.
    test.onboard(1, "ann", "new").await;
}

/// An attacker breaks the row of their own recovery, so that a correct password cannot cancel it,
/// and mends it afterwards.
async fn a_correct_password_ends_a_recovery_whose_row_is_broken(stores: Stores) {
    let mut env = TestEnv::new(stores).unwrap();
    env.recovery.wait_without_email = Duration::from_secs(2);
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "known").await;
    let id = request(&test).await.unwrap().id;
    keep(&test, "recoveries");
    test.env.sql("update recoveries set ready_at = 1").unwrap();
    test.onboard(1, "ann", "known").await;
    put_back(&test, "recoveries", "id");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(complete_as_eve(&test, id).await, INTERNAL);
    test.onboard(1, "ann", "known").await;
}

async fn tries_of_a_code_are_not_forgotten(stores: Stores) {
    let (env, mailbox) = with_mail(stores);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    let id = request(&test).await.unwrap().id;
    let right = code(mails(&mailbox, 3).await.last().unwrap());
    keep(&test, "recoveries");
    let tried = test.client.confirm_recovery(telegram(1), id, &wrong(&right)).await;
    assert_eq!(failed(tried), Some(ErrorCode::WrongCode));
    put_back(&test, "recoveries", "id");
    assert_eq!(failed(test.client.confirm_recovery(telegram(1), id, &right).await), INTERNAL);
    assert_eq!(alarms(&test), "1");
}

async fn an_address_is_not_confirmed_twice(stores: Stores) {
    let (env, mailbox) = with_mail(stores);
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "known").await;
    let password_hash = hash("known");
    let change = ChangeEmail { email: Some(ADDRESS.parse().unwrap()), password_hash };
    test.client.change_email(telegram(1), &change).await.unwrap();
    let right = code(&mails(&mailbox, 1).await[0]);
    keep(&test, "email_changes");
    test.client.confirm_email(telegram(1), &right).await.unwrap();
    put_back(&test, "email_changes", "account_id");
    assert_eq!(failed(test.client.confirm_email(telegram(1), &right).await), INTERNAL);
    assert_eq!(alarms(&test), "1");
}

async fn a_quote_that_was_signed_is_not_signed_again(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    let (ann, _) = test.ann_and_bob().await;
    test.env.fund(&ann, 10 * COIN).unwrap();
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    keep(&test, "transfers");
    let body = confirm(&quoted, "ann's password");
    test.client.confirm(quoted.id, &body).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    for table in ["settlements", "transfer_checks", "signed_transactions", "spends"] {
        test.env.sql(&format!("delete from {table}")).unwrap();
    }
    put_back(&test, "transfers", "id");
    // Before the password is tried, and although the account may not pay.
    test.client.freeze(telegram(1)).await.unwrap();
    let guess = confirm(&quoted, "a guess");
    assert_eq!(failed(test.client.confirm(quoted.id, &guess).await), INTERNAL);
    assert_eq!(alarms(&test), "1");
    let sql = "select count(*) from password_attempts";
    assert_eq!(test.env.sql(sql).unwrap(), "0");
    succeeds(&test.env, "account unfreeze telegram:1 --reason ticket-1");
    assert_eq!(failed(test.client.confirm(quoted.id, &body).await), INTERNAL);
    assert_eq!(test.env.sql("select count(*) from signed_transactions").unwrap(), "0");
    // Nor does it look as if nothing was paid: it neither expires nor is cancelled.
    test.env.sql("update transfers set expires_at = 1").unwrap();
    assert_eq!(failed(test.client.transfer(quoted.id).await), INTERNAL);
    assert_eq!(failed(test.client.cancel(quoted.id).await), INTERNAL);
    assert_eq!(failed(test.client.confirm(quoted.id, &body).await), INTERNAL);
    assert_eq!(test.env.sql("select state from transfers").unwrap(), "quoted");
    assert_eq!(alarms(&test), "3");
}

/// What an owner, an operator or time changed about an account is not undone by an old copy of its
/// rows.
async fn an_account_that_is_put_back_is_refused(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.onboard(1, "ann", "first").await;
    test.onboard(2, "bob", "bob's").await;
    let ann = test.client.account(telegram(1)).await.unwrap().unwrap();
    test.env.fund(&ann, 10 * COIN).unwrap();
    let mut words = "first";
    for what in ["frozen", "frozen by an operator", "new password", "recovered"] {
        let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        keep_account(&test);
        let before = words;
        let command = |command: &str| succeeds(&test.env, command);
        match what {
            "frozen" => drop(test.client.freeze(telegram(1)).await.unwrap()),
            "frozen by an operator" => {
                drop(command("account freeze telegram:1 --reason ticket-1"));
            }
            "new password" => {
                let change = ChangePassword {
                    old_password_hash: hash(words),
                    new_password_hash: hash("second"),
                };
                test.client.change_password(telegram(1), &change).await.unwrap();
                words = "second";
            }
            _ => {
                let id = request(&test).await.unwrap().id;
                complete(&test, id).await.unwrap();
                words = "new";
            }
        }
        let newest = test.env.sql("select revision from accounts where telegram_id = 1").unwrap();
        let alarms_before: u32 = alarms(&test).parse().unwrap();
        for table in ["aside_accounts", "aside_wallets"] {
            test.env.sql(&format!("drop table if exists {table}")).unwrap();
        }
        test.env.sql("create table aside_accounts as select * from accounts").unwrap();
        test.env.sql("create table aside_wallets as select * from wallets").unwrap();
        put_account_back(&test);
        // Neither the password of then nor that of now, neither a payment nor an export, nor a
        // recovery.
        for words in [before, words] {
            let sent = test.client.confirm(quoted.id, &confirm(&quoted, words)).await;
            assert_eq!(failed(sent), INTERNAL, "{what}");
            let export = ExportKey { password_hash: hash(words) };
            let exported = test.client.export(telegram(1), &export).await;
            assert!(exported.is_err(), "{what}");
        }
        let recovered = async {
            let id = request(&test).await?.id;
            complete(&test, id).await
        };
        assert!(recovered.await.is_err(), "{what}");
        assert!(alarms(&test).parse::<u32>().unwrap() >= alarms_before + 2, "{what}");
        let signed = test.env.sql("select count(*) from signed_transactions").unwrap();
        assert_eq!(signed, "0", "{what}");
        let listed = fails(&test.env, "audit verify --against-state --without-checkpoints");
        assert!(listed.contains("an old copy of its row was put back"), "{what}: {listed}");
        for table in ["accounts", "wallets"] {
            let sql = format!("alter table aside_{table} rename to kept_{table}");
            test.env.sql(&sql).unwrap();
        }
        test.env.sql("update recoveries set stage = 'cancelled'").unwrap();
        put_account_back(&test);
        let now = test.env.sql("select revision from accounts where telegram_id = 1").unwrap();
        assert_eq!(now, newest);
        succeeds(&test.env, "account unfreeze telegram:1 --reason ticket-2");
        test.env.sql("delete from rate_limits").unwrap();
    }
    succeeds(&test.env, "audit verify --against-state --without-checkpoints");
}

/// No act that needs no password raises the revision of an old copy, which then would pass for the
/// newest one.
async fn an_account_that_is_put_back_is_not_written_anew(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.onboard(1, "ann", "first").await;
    keep_account(&test);
    let change =
        ChangePassword { old_password_hash: hash("first"), new_password_hash: hash("second") };
    test.client.change_password(telegram(1), &change).await.unwrap();
    put_account_back(&test);
    let mobile = ChangeMobile { mobile: Some("+4915112345678".parse().unwrap()) };
    for _ in 0..3 {
        assert_eq!(failed(test.client.change_mobile(telegram(1), &mobile).await), INTERNAL);
        assert_eq!(failed(test.client.freeze(telegram(1)).await), INTERNAL);
    }
    let export = ExportKey { password_hash: hash("first") };
    assert_eq!(failed(test.client.export(telegram(1), &export).await), INTERNAL);
    assert_ne!(alarms(&test), "0");
}

/// The owner requested to lift a freeze, and froze the account again, which cancelled that. The
/// wait of the request is over by then, and does not lift the second freeze.
async fn a_freeze_whose_end_is_put_back_stays(stores: Stores) {
    let mut env = TestEnv::new(stores).unwrap();
    env.recovery.unfreeze_wait = Duration::from_secs(8);
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "ann's").await;
    test.onboard(2, "bob", "bob's").await;
    let lift = async |id: i64, words: &str| {
        test.client.freeze(telegram(id)).await.unwrap();
        let body = Unfreeze { password_hash: hash(words) };
        test.client.unfreeze(telegram(id), &body).await.unwrap();
    };
    lift(1, "ann's").await;
    keep_account(&test);
    test.client.freeze(telegram(1)).await.unwrap();
    put_account_back(&test);
    // Later than hers: that hers fails does not keep others from being lifted.
    lift(2, "bob's").await;
    let state = async |id| test.client.account(telegram(id)).await.unwrap().unwrap().state;
    while state(2).await != AccountState::Active {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(1).await, AccountState::FrozenByOwner);
}

/// `recoveries resume` made the waits longer.
async fn waits_are_not_put_back_to_before_a_pause(stores: Stores) {
    let wait = Duration::from_secs(12);
    let mut env = TestEnv::new(stores).unwrap();
    (env.recovery.wait_without_email, env.recovery.unfreeze_wait) = (wait, wait);
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "ann's").await;
    test.onboard(2, "bob", "bob's").await;
    test.client.freeze(telegram(2)).await.unwrap();
    let began = Instant::now();
    let id = request(&test).await.unwrap().id;
    let body = Unfreeze { password_hash: hash("bob's") };
    test.client.unfreeze(telegram(2), &body).await.unwrap();
    keep_account(&test);
    keep(&test, "recoveries");
    succeeds(&test.env, "recoveries pause");
    tokio::time::sleep_until((began + wait).into()).await;
    succeeds(&test.env, "recoveries resume --reason ticket-9");
    put_back(&test, "recoveries", "id");
    put_account_back(&test);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(complete_as_eve(&test, id).await, INTERNAL);
    let bob = test.client.account(telegram(2)).await.unwrap().unwrap();
    assert_eq!(bob.state, AccountState::FrozenByOwner);
    assert_eq!(alarms(&test), "1");
}

/// Deleting the count of wrong passwords gains no more than the limit of the audit in a day.
async fn an_emptied_lockout_leaves_the_limit_of_the_audit(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.onboard(1, "ann", "ann's").await;
    let (mut wrong, mut locked) = (0, 0);
    for round in 0..40 {
        test.env.sql("delete from password_attempts").unwrap();
        test.env.sql("delete from rate_limits").unwrap();
        let body = ExportKey { password_hash: hash(&format!("guess {round}")) };
        match failed(test.client.export(telegram(1), &body).await) {
            Some(ErrorCode::WrongPassword) => wrong += 1,
            Some(ErrorCode::PasswordLocked) => locked += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((wrong, locked), (30, 10));
    // A day later the right password opens it.
    test.env.sql("update audit set at = at - 86400000").unwrap();
    test.env.sql("delete from password_attempts").unwrap();
    test.client.export(telegram(1), &ExportKey { password_hash: hash("ann's") }).await.unwrap();
}

/// Deleting what was spent, or setting it to less, does not let more leave in a day.
async fn a_spend_that_is_removed_raises_no_limit(stores: Stores) {
    let mut env = TestEnv::new(stores).unwrap();
    env.limits.spend_a_day.insert("eth".to_owned(), "2".parse().unwrap());
    let test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    test.env.fund(&ann, 10 * COIN).unwrap();
    let next = test.client.quote(&quote(1, "@bob", "1.5")).await.unwrap();
    let first = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let body = confirm(&first, "ann's password");
    test.client.confirm(first.id, &body).await.unwrap();
    test.until(first.id, TransferState::Mined).await;
    let tampered =
        || test.env.sql("select count(*) from audit where outcome = 'tampered'").unwrap();
    keep(&test, "spends");
    let body = confirm(&next, "ann's password");
    for (alarms, change) in [(1, "update spends set units = '0'"), (2, "delete from spends")] {
        test.env.sql(change).unwrap();
        assert_eq!(failed(test.client.confirm(next.id, &body).await), INTERNAL, "{change}");
        assert!(tampered().parse::<u32>().unwrap() >= alarms, "{change}");
        put_back(&test, "spends", "transfer_id");
    }
    let over = failed(test.client.confirm(next.id, &body).await);
    assert_eq!(over, Some(ErrorCode::LimitReached));
}

async fn a_revoked_token_that_is_put_back_is_refused(stores: Stores) {
    let env = TestEnv::new(stores).unwrap();
    let database = env.migrate().await.unwrap();
    let stolen = env.issue_token(&database, Scope::Bot).await.unwrap();
    let test = TestServer::start(env).await;
    let client = test.env.client(test.server.address().port(), &stolen).unwrap();
    client.networks().await.unwrap();
    keep(&test, "api_tokens");
    let name = "select name from api_tokens where scopes = 'bot' order by created_at limit 1";
    let name = test.env.sql(name).unwrap();
    succeeds(&test.env, &format!("token revoke {name}"));
    put_back(&test, "api_tokens", "id");
    // What was read before is kept for five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(failed(client.networks().await), INTERNAL);
    let alarm = "select count(*) from audit where action = 'authenticate' and phase = 'alarm'";
    assert_eq!(test.env.sql(alarm).unwrap(), "1");
}

/// Neither an older limit nor none is applied instead of the owner's newest.
async fn a_spending_limit_that_is_put_back_is_refused(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    let (ann, _) = test.ann_and_bob().await;
    test.env.fund(&ann, 10 * COIN).unwrap();
    let limit = async |amount: &str| {
        let amount = LimitAmount::try_from(amount.to_owned()).unwrap();
        let body = SetLimit { asset: Asset::Native, chain_id: None, amount };
        test.client.set_limit(telegram(1), &body).await.unwrap();
    };
    limit("5").await;
    let quoted = test.client.quote(&quote(1, "@bob", "2")).await.unwrap();
    keep(&test, "spending_limits");
    limit("1").await;
    let body = confirm(&quoted, "ann's password");
    let sent = async || failed(test.client.confirm(quoted.id, &body).await);
    assert_eq!(sent().await, Some(ErrorCode::LimitReached));
    test.env.sql("delete from spending_limits").unwrap();
    assert_eq!(sent().await, INTERNAL);
    put_back(&test, "spending_limits", "account_id, asset");
    assert_eq!(sent().await, INTERNAL);
    let tampered = "select count(*) from audit where outcome = 'tampered'";
    assert_ne!(test.env.sql(tampered).unwrap(), "0");
    assert_eq!(test.env.sql("select count(*) from signed_transactions").unwrap(), "0");
}

/// The former holder of a username is not paid instead of its current holder.
async fn a_username_that_is_put_back_resolves_to_no_account(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    let (ann, _) = test.ann_and_bob().await;
    test.env.fund(&ann, 10 * COIN).unwrap();
    test.onboard(3, "carl", "carl").await;
    keep(&test, "names");
    let seen = SeenUsernames {
        usernames: vec!["bob".parse().unwrap()].try_into().unwrap(),
        seen_at: Timestamp(4_000_000_000_000),
    };
    test.client.seen_usernames(telegram(3), &seen).await.unwrap();
    test.env.sql("delete from names where telegram_id = 3").unwrap();
    put_back(&test, "names", "id");
    assert_eq!(failed(test.client.name(&"bob".parse().unwrap()).await), INTERNAL);
    assert_eq!(failed(test.client.quote(&quote(1, "@bob", "1")).await), INTERNAL);
    let tampered = "select count(*) from audit where outcome = 'tampered'";
    // It may be recorded after the answer.
    let mut found = "0".to_owned();
    for _ in 0..600 {
        found = test.env.sql(tampered).unwrap();
        if found != "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(found, "0");
}
