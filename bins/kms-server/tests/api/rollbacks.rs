//! An attacker who can write to PostgreSQL puts old copies of rows back, whose MACs are valid: the
//! audit, which is only appended to, has what they ended with.

use kms_server_testing::requests::{COIN, confirm, hash, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::wire::{ChangeEmail, CompleteRecovery, TransferState};
use kms_types::{ErrorCode, RecoveryId};

use crate::recoveries::{
    ADDRESS, ann_with_email, code, complete, failed, mails, request, with_mail, wrong,
};

const INTERNAL: Option<ErrorCode> = Some(ErrorCode::Internal);

fn keep(test: &TestServer, table: &str) {
    let sql = format!("drop table if exists kept; create table kept as select * from {table}");
    test.env.sql(&sql).unwrap();
}

/// Puts the kept rows back over what they became, or where they were deleted.
fn put_back(test: &TestServer, table: &str, key: &str) {
    let list = |format: &str| {
        test.env
            .sql(&format!(
                "select string_agg(format('{format}', column_name), ',') \
                 from information_schema.columns where table_schema = 'public' \
                 and table_name = '{table}' and is_generated = 'NEVER'"
            ))
            .unwrap()
    };
    let (columns, set) = (list("%1$I"), list("%1$I = excluded.%1$I"));
    let sql = format!(
        "insert into {table} ({columns}) select {columns} from kept \
         on conflict ({key}) do update set {set}"
    );
    test.env.sql(&sql).unwrap();
}

fn alarms(test: &TestServer) -> String {
    test.env.sql("select count(*) from audit where outcome = 'rolled_back'").unwrap()
}

async fn complete_as_eve(test: &TestServer, id: RecoveryId) -> Option<ErrorCode> {
    let body = CompleteRecovery { new_password_hash: hash("eve") };
    failed(test.client.complete_recovery(telegram(1), id, &body).await)
}

#[actix_web::test]
async fn a_cancelled_recovery_that_is_put_back_is_not_completed() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
    test.onboard(1, "ann", "known").await;
    let id = request(&test).await.unwrap().id;
    keep(&test, "recoveries");
    test.client.cancel_recovery(telegram(1), id).await.unwrap();
    put_back(&test, "recoveries", "id");
    assert_eq!(complete_as_eve(&test, id).await, INTERNAL);
    assert_eq!(alarms(&test), "1");
    test.onboard(1, "ann", "known").await;
}

#[actix_web::test]
async fn a_recovery_is_not_completed_twice() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
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
#[actix_web::test]
async fn a_correct_password_ends_a_recovery_whose_row_is_broken() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    env.recovery.wait_without_email = std::time::Duration::from_secs(2);
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "known").await;
    let id = request(&test).await.unwrap().id;
    keep(&test, "recoveries");
    test.env.sql("update recoveries set ready_at = 1").unwrap();
    test.onboard(1, "ann", "known").await;
    put_back(&test, "recoveries", "id");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(complete_as_eve(&test, id).await, INTERNAL);
    test.onboard(1, "ann", "known").await;
}

#[actix_web::test]
async fn tries_of_a_code_are_not_forgotten() {
    let (env, mailbox) = with_mail(Stores::Servers);
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

#[actix_web::test]
async fn an_address_is_not_confirmed_twice() {
    let (env, mailbox) = with_mail(Stores::Servers);
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

#[actix_web::test]
async fn a_quote_that_was_signed_is_not_signed_again() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
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
    assert_eq!(failed(test.client.confirm(quoted.id, &body).await), INTERNAL);
    assert_eq!(alarms(&test), "1");
    assert_eq!(test.env.sql("select count(*) from signed_transactions").unwrap(), "0");
}
