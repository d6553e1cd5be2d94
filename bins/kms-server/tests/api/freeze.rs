//! Freezes: at once and without the password, by the owner in chat or by a link in an e-mail;
//! lifted with the password after a wait, or by an operator.

use std::time::Duration;

use kms_client::ClientError;
use kms_server_testing::commands::{fails, kms_server, output_text, succeeds};
use kms_server_testing::requests::{confirm, hash, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_testkit::Postgres;
use kms_types::wire::{
    Account, AccountState, ChangePassword, EventBody, ExportKey, TransferState, Unfreeze,
};
use kms_types::{AccountId, ErrorCode, SecurityEvent};

use crate::recoveries::{
    ADDRESS, ann_with_email, code, complete, failed, kind, link, mails, request, with_mail,
};

const BOTH: [Stores; 2] = [Stores::Embedded, Stores::Servers];

const WORDS: &str = "ann's password";

async fn unfreeze(test: &TestServer, words: &str) -> Result<Account, ClientError> {
    test.client.unfreeze(telegram(1), &Unfreeze { password_hash: hash(words) }).await
}

async fn state(test: &TestServer) -> AccountState {
    test.client.account(telegram(1)).await.unwrap().unwrap().state
}

/// Waits until the account is in this state.
async fn until(test: &TestServer, wanted: AccountState) {
    for _ in 0..1_200 {
        if state(test).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the account is not {wanted:?}");
}

async fn security_events(test: &TestServer, count: usize) -> Vec<SecurityEvent> {
    let events = test.events(count).await;
    let kinds = events.into_iter().filter_map(|event| match event.what {
        EventBody::Security { kind } => Some(kind),
        _ => None,
    });
    kinds.collect()
}

#[actix_web::test]
async fn an_owner_freezes_at_once_and_unfreezes_after_the_wait() {
    for stores in BOTH {
        let mut env = TestEnv::new(stores).unwrap();
        env.recovery.unfreeze_wait = Duration::from_secs(12);
        let test = TestServer::start(env).await;
        test.ann_and_bob().await;
        let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        assert_eq!(failed(unfreeze(&test, WORDS).await), Some(ErrorCode::WrongState));
        let recovery = request(&test).await.unwrap();
        for _ in 0..2 {
            let frozen = test.client.freeze(telegram(1)).await.unwrap();
            assert_eq!((frozen.state, frozen.unfreezes_at), (AccountState::FrozenByOwner, None));
        }
        // Nothing that uses the key, and no recovery.
        let sent = test.client.confirm(quoted.id, &confirm(&quoted, WORDS)).await.map(drop);
        let body = ChangePassword { old_password_hash: hash(WORDS), new_password_hash: hash("x") };
        let changed = test.client.change_password(telegram(1), &body).await;
        let body = ExportKey { password_hash: hash(WORDS) };
        let exported = test.client.export(telegram(1), &body).await.map(drop);
        let asked = request(&test).await.map(drop);
        for refused in
            [sent, changed, exported, asked, complete(&test, recovery.id).await.map(drop)]
        {
            assert_eq!(failed(refused), Some(ErrorCode::AccountFrozen));
        }
        assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), None);

        assert_eq!(failed(unfreeze(&test, "guess").await), Some(ErrorCode::WrongPassword));
        let asked = unfreeze(&test, WORDS).await.unwrap();
        assert_eq!(asked.state, AccountState::FrozenByOwner);
        // A repeat does not move the time, and nothing works before it.
        assert_eq!(unfreeze(&test, WORDS).await.unwrap().unfreezes_at, asked.unfreezes_at);
        let early = test.client.confirm(quoted.id, &confirm(&quoted, WORDS)).await;
        assert_eq!(failed(early), Some(ErrorCode::AccountFrozen));
        // Another freeze cancels it.
        assert_eq!(test.client.freeze(telegram(1)).await.unwrap().unfreezes_at, None);
        unfreeze(&test, WORDS).await.unwrap();
        until(&test, AccountState::Active).await;
        test.client.confirm(quoted.id, &confirm(&quoted, WORDS)).await.unwrap();
        test.until(quoted.id, TransferState::Mined).await;

        let rows = test.database.audit_after(0, 200).await.unwrap();
        let count = |action: &str, outcome: &str| {
            let is = |row: &&kms_store::AuditRow| {
                row.action == action && row.outcome.as_deref() == Some(outcome)
            };
            rows.iter().filter(is).count()
        };
        assert_eq!(count("cancel_recovery", "ok"), 1);
        assert!(count("freeze", "ok") >= 2 && count("request_unfreeze", "ok") >= 2);
        assert_eq!(count("unfreeze", "ok"), 1);
    }
}

#[actix_web::test]
async fn only_an_operator_lifts_the_freeze_of_an_operator() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.recovery.unfreeze_wait = Duration::ZERO;
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    test.client.freeze(telegram(1)).await.unwrap();
    let run = |arguments: &str| succeeds(&test.env, &format!("account {arguments}"));
    assert_eq!(run("freeze telegram:1 --reason ticket-1"), "frozen\n");
    assert_eq!(failed(unfreeze(&test, WORDS).await), Some(ErrorCode::AccountFrozen));
    assert_eq!(test.client.freeze(telegram(1)).await.unwrap().state, AccountState::Frozen);
    // The reason is missing, or cannot be printed.
    for arguments in ["", " --reason \u{202e}"] {
        let arguments = format!("account unfreeze telegram:1{arguments}");
        let refused = kms_server(&test.env, &arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{}", output_text(&refused));
    }
    assert_eq!(run("unfreeze telegram:1 --reason ticket-2"), "active\n");
    let shown = succeeds(&test.env, "audit show --account telegram:1");
    for reason in ["account freeze: ticket-1", "account unfreeze: ticket-2"] {
        assert!(shown.contains(reason), "{shown}");
    }
    // An owner's freeze is lifted by an operator at once.
    test.client.freeze(telegram(1)).await.unwrap();
    run("unfreeze telegram:1 --reason ticket-3");
    assert_eq!(state(&test).await, AccountState::Active);
    let (frozen, unfrozen) = (SecurityEvent::AccountFrozen, SecurityEvent::AccountUnfrozen);
    let notified = security_events(&test, 7).await;
    assert_eq!(notified, [frozen, frozen, unfrozen, frozen, unfrozen]);
}

/// An operator needs no right to decrypt for that, and an outage of the KMS key delays none of it.
#[actix_web::test]
async fn an_operator_freezes_and_cancels_without_the_kms_key() {
    let test = TestServer::start(TestEnv::new(Stores::Embedded).unwrap()).await;
    test.ann_and_bob().await;
    std::fs::remove_file(&test.env.kms_key_path).unwrap();
    request(&test).await.unwrap();
    assert_eq!(succeeds(&test.env, "recoveries cancel --all"), "1 cancelled\n");
    assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), None);
    succeeds(&test.env, "account freeze telegram:1 --reason ticket-1");
    assert_eq!(state(&test).await, AccountState::Frozen);
    // What opens a wallet, or loosens something, needs it.
    for command in ["account unfreeze telegram:1 --reason ticket-1", "keys verify --decrypt"] {
        let refused = fails(&test.env, command);
        assert!(refused.contains("kms-key.pem"), "{refused}");
    }
    assert_eq!(state(&test).await, AccountState::Frozen);
}

/// The password was right, and the key is open: the signing transaction waits for a lock meanwhile.
#[actix_web::test]
async fn a_freeze_between_the_password_and_the_signature_refuses_the_payment() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let sql = |sql: &str| test.env.sql(sql).unwrap();
    let database = test.env.database_name().to_owned();
    let activity = format!("from pg_stat_activity where datname = '{database}' and");
    let holds = "begin; select * from transfers for update; select pg_sleep(120)";
    let holder = std::thread::spawn(move || Postgres::shared().unwrap().execute(&database, holds));
    let until = async |what: &str| {
        while sql(&format!("select count(*) {activity} {what}")) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until("wait_event = 'PgSleep'").await;
    let body = confirm(&quoted, WORDS);
    let (sent, ()) = tokio::join!(test.client.confirm(quoted.id, &body), async {
        until("wait_event_type = 'Lock'").await;
        test.client.freeze(telegram(1)).await.unwrap();
        sql(&format!("select pg_terminate_backend(pid) {activity} wait_event = 'PgSleep'"));
    });
    assert_eq!(failed(sent), Some(ErrorCode::AccountFrozen));
    assert!(holder.join().unwrap().is_err(), "it was terminated");
    for table in ["signed_transactions", "spends", "transfers where nonce is not null"] {
        assert_eq!(sql(&format!("select count(*) from {table}")), "0", "{table}");
    }
}

/// A thief with the chat and the password cannot unfreeze quicker, and every e-mail stops them.
#[actix_web::test]
async fn the_link_in_an_e_mail_freezes_only_by_its_button() {
    let (mut env, mailbox) = with_mail(Stores::Servers);
    env.recovery.unfreeze_wait = Duration::from_secs(3_600);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    let body =
        ChangePassword { old_password_hash: hash("forgotten"), new_password_hash: hash("b") };
    test.client.change_password(telegram(1), &body).await.unwrap();
    let link = test.page_url(&freeze_link(&mails(&mailbox, 3).await[2].body));
    let http = test.raw();
    for _ in 0..2 {
        let page = http.get(&link).send().await.unwrap();
        assert_eq!(page.headers()["cache-control"], "no-store");
        assert_eq!(page.headers()["referrer-policy"], "no-referrer");
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(page.text().await.unwrap().contains("<form method=\"post\">"));
    }
    assert_eq!(state(&test).await, AccountState::Active);
    // Another account, another time, a truncated and a guessed link do nothing.
    let parts: Vec<_> = link.rsplitn(4, '/').collect();
    let [mac, until, verb, account] = parts.as_slice() else { panic!("{link}") };
    let later = until.parse::<i64>().unwrap() + 1;
    let other = AccountId::random();
    let base = account.rsplit_once('/').unwrap().0;
    let guessed = format!("{}{}", &mac[..mac.len() - 1], if mac.ends_with('0') { 1 } else { 0 });
    for bad in [
        format!("{account}/{verb}/{later}/{mac}"),
        format!("{base}/{other}/{verb}/{until}/{mac}"),
        format!("{account}/{verb}/{until}/{guessed}"),
        link[..link.len() - 2].to_owned(),
    ] {
        assert_eq!(http.post(&bad).send().await.unwrap().status(), 404, "{bad}");
    }
    assert_eq!(state(&test).await, AccountState::Active);
    for _ in 0..2 {
        let page = http.post(&link).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(!page.text().await.unwrap().contains("<form"));
        assert_eq!(state(&test).await, AccountState::FrozenByOwner);
    }
    assert_eq!(kind(&mails(&mailbox, 4).await[3]), "notice-account-frozen");
    // The thief asks to unfreeze; the owner's link keeps it frozen.
    assert!(unfreeze(&test, "b").await.unwrap().unfreezes_at.is_some());
    assert_eq!(kind(&mails(&mailbox, 5).await[4]), "notice-unfreeze-requested");
    assert!(http.get(&link).send().await.unwrap().text().await.unwrap().contains("<form"));
    http.post(&link).send().await.unwrap();
    let kept = test.client.account(telegram(1)).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.unfreezes_at), (AccountState::FrozenByOwner, None));
    assert_eq!(kind(&mails(&mailbox, 6).await[5]), "notice-unfreeze-cancelled");
}

/// Too late to cancel: the e-mail about the new password freezes, and so does the page of the link
/// that would have cancelled.
#[actix_web::test]
async fn after_a_recovery_the_victim_freezes() {
    let (env, mailbox) = with_mail(Stores::Embedded);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    let asked = request(&test).await.unwrap();
    let sent = mails(&mailbox, 3).await;
    let cancel = test.page_url(&link(&sent[2]));
    test.client.confirm_recovery(telegram(1), asked.id, &code(&sent[2])).await.unwrap();
    while let Err(early) = complete(&test, asked.id).await {
        assert_eq!(early.code(), Some(ErrorCode::RecoveryNotReady));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let done = loop {
        let mut sent = mailbox.mails_to(ADDRESS);
        match sent.pop() {
            Some(last) if kind(&last) == "recovery-completed" => break last,
            Some(_) | None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let http = test.raw();
    let page = http.get(&cancel).send().await.unwrap().text().await.unwrap();
    let action = page.split("action=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for path in [freeze_link(&done.body), action] {
        succeeds(&test.env, "account unfreeze telegram:1 --reason test");
        assert_eq!(http.post(test.page_url(&path)).send().await.unwrap().status(), 200);
        assert_eq!(state(&test).await, AccountState::FrozenByOwner);
    }
}

/// The path of the link that freezes.
fn freeze_link(body: &str) -> String {
    let line =
        body.lines().find(|line| line.contains("/freeze/")).unwrap_or_else(|| panic!("{body}"));
    let (_, path) = line.trim().split_once("://").unwrap();
    path.split_once('/').map(|(_, path)| format!("/{path}")).unwrap()
}
