//! Accounts: onboarding, passwords, recovery, export, usernames and bearer tokens.

use std::time::Duration;

use kms_server_testing::requests::{create, hash, recover, recover_as, telegram};
use kms_server_testing::{TestServer, on_both_stores};
use kms_store::Scope;
use kms_types::wire::{ChangePassword, EventBody, ExportKey, SeenUsernames};
use kms_types::{
    AccountEvent, ErrorCode, EventStream, RecoveryId, RecoveryStep, SecurityEvent, Timestamp,
};

on_both_stores!(
    a_wallet_is_created_once,
    contacts_are_sealed_and_shown_masked,
    a_password_is_changed,
    password_guesses_are_limited,
    a_forgotten_password_is_recovered,
    only_its_owner_exports_a_key,
    names_follow_telegram,
    tokens_have_scopes_and_can_be_revoked,
    nothing_is_lost_in_a_restart,
    concurrent_requests_create_one_wallet,
);

fn change(old: &str, new: &str) -> ChangePassword {
    ChangePassword { old_password_hash: hash(old), new_password_hash: hash(new) }
}

async fn a_wallet_is_created_once(test: TestServer) {
    let first = test.onboard(1, "ann", "right").await;
    let again = test.onboard(1, "ann", "right").await;
    assert_eq!(first, again);
    assert_eq!(first.username.as_ref().unwrap().as_str(), "ann");
    let wrong = test.client.create_account(&create(1, "ann", "wrong")).await.unwrap_err();
    assert_eq!(wrong.code(), Some(ErrorCode::AccountExists));
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap(), first);
    assert_eq!(test.client.account(first.id.into()).await.unwrap().unwrap(), first);
    assert_eq!(test.client.account(telegram(2)).await.unwrap(), None);
    let events = test.events(1).await;
    assert_eq!(events.len(), 1);
    let created = EventBody::Account { kind: AccountEvent::Created };
    assert_eq!(events[0].what, created);
    let audit = test.database.audit_after(0, 100).await.unwrap();
    let rows: Vec<_> = audit
        .iter()
        .map(|row| (row.action.as_str(), row.phase.as_str(), row.outcome.as_deref()))
        .collect();
    assert_eq!(
        rows,
        [
            ("create", "intent", None),
            ("create", "outcome", Some("ok")),
            ("create", "intent", None),
            ("create", "outcome", Some("ok")),
            ("create", "intent", None),
            ("create", "outcome", Some("account_exists")),
        ]
    );
}

async fn contacts_are_sealed_and_shown_masked(test: TestServer) {
    let mut body = create(1, "ann", "right");
    body.mobile = Some("+4915112345678".parse().unwrap());
    body.email = Some("ann@example.org".parse().unwrap());
    let account = test.client.create_account(&body).await.unwrap();
    assert_eq!(account.mobile.as_deref(), Some("+…78"));
    assert_eq!(account.email.as_deref(), Some("a…@example.org"));
}

async fn a_password_is_changed(test: TestServer) {
    let account = test.onboard(1, "ann", "old").await;
    test.client.change_password(telegram(1), &change("old", "new")).await.unwrap();
    let refused = test.client.change_password(telegram(1), &change("old", "x")).await;
    assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::WrongPassword));
    assert_eq!(test.onboard(1, "ann", "new").await.address, account.address);
    // An account that does not exist is refused like a wrong password.
    let unknown = test.client.change_password(telegram(9), &change("old", "x")).await;
    assert_eq!(unknown.unwrap_err().code(), Some(ErrorCode::WrongPassword));
}

async fn password_guesses_are_limited(test: TestServer) {
    test.onboard(1, "ann", "right").await;
    let guesses = (0..12).map(|n| {
        let client = test.client.clone();
        async move {
            let body = change(&format!("guess {n}"), "x");
            client.change_password(telegram(1), &body).await.unwrap_err()
        }
    });
    let answers = futures::future::join_all(guesses).await;
    let count = |code| answers.iter().filter(|error| error.code() == Some(code)).count();
    assert_eq!(count(ErrorCode::WrongPassword), 5);
    assert_eq!(count(ErrorCode::PasswordLocked), 7);
    let locked = test.client.change_password(telegram(1), &change("right", "new")).await;
    let Err(kms_client::ClientError::Problem(problem)) = locked else { panic!("not locked") };
    assert_eq!(problem.status, 429);
    assert!((600..=900).contains(&problem.retry_after.unwrap()), "{problem:?}");
    // A recovery clears the lock.
    recover(&test.client, 1, "new").await.unwrap();
    test.client.change_password(telegram(1), &change("new", "newer")).await.unwrap();
}

async fn a_forgotten_password_is_recovered(test: TestServer) {
    let account = test.onboard(1, "ann", "forgotten").await;
    let id = RecoveryId::random();
    let done = recover_as(&test.client, 1, id, "new").await.unwrap();
    // A repeat has no second effect, and does not count against the daily limit.
    for _ in 0..4 {
        assert_eq!(recover_as(&test.client, 1, id, "new").await.unwrap(), done);
    }
    let old = test.client.change_password(telegram(1), &change("forgotten", "x")).await;
    assert_eq!(old.unwrap_err().code(), Some(ErrorCode::WrongPassword));
    assert_eq!(test.onboard(1, "ann", "new").await.address, account.address);
    // The id of one account's recovery is refused for another account.
    test.onboard(2, "bob", "bob's").await;
    let refused = recover_as(&test.client, 2, id, "x").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::IdReused));
    // Three a day.
    recover(&test.client, 1, "b").await.unwrap();
    recover(&test.client, 1, "c").await.unwrap();
    let limited = recover(&test.client, 1, "d").await.unwrap_err();
    assert_eq!(limited.code(), Some(ErrorCode::RateLimited));
    let unknown = recover(&test.client, 9, "d").await.unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::NoSuchAccount));
    let events = test.events(11).await;
    let is_completed = |body: &EventBody| {
        matches!(body, EventBody::Recovery { kind: RecoveryStep::Completed, .. })
    };
    let recovered = events.iter().filter(|event| is_completed(&event.what)).count();
    assert_eq!(recovered, 3);
}

async fn only_its_owner_exports_a_key(test: TestServer) {
    let ann = test.onboard(1, "ann", "ann's").await;
    let body = |words| ExportKey { password_hash: hash(words) };
    let exported = test.client.export(telegram(1), &body("ann's")).await.unwrap();
    assert_eq!(exported.address, ann.address);
    let file: serde_json::Value = serde_json::from_str(&exported.keystore).unwrap();
    assert_eq!(file["address"], ann.address.to_lower_hex()[2..]);
    // Each export has its own passphrase. The limit of three a day is per account, however the
    // request addresses it.
    let again = test.client.export(ann.id.into(), &body("ann's")).await.unwrap();
    assert_ne!(again.passphrase.expose(), exported.passphrase.expose());
    // A wrong password does not count against the limit.
    for _ in 0..3 {
        let wrong = test.client.export(telegram(1), &body("guess")).await.unwrap_err();
        assert_eq!(wrong.code(), Some(ErrorCode::WrongPassword));
    }
    test.client.export(telegram(1), &body("ann's")).await.unwrap();
    let limited = test.client.export(telegram(1), &body("ann's")).await.unwrap_err();
    assert_eq!(limited.code(), Some(ErrorCode::RateLimited));
    let events = test.events(4).await;
    let exported = EventBody::Security { kind: SecurityEvent::KeyExported };
    let exports = events.iter().filter(|event| event.what == exported);
    let exports: Vec<_> = exports.map(|event| event.account).collect();
    assert_eq!(exports, [ann.id; 3]);
    let unknown = test.client.export(telegram(9), &body("x")).await.unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::WrongPassword));
    test.onboard(2, "bob", "bob's").await;
    recover(&test.client, 2, "new").await.unwrap();
    let held = test.client.export(telegram(2), &body("new")).await;
    let Err(kms_client::ClientError::Problem(problem)) = held else { panic!("not held") };
    assert_eq!((problem.status, problem.code), (403, ErrorCode::OnHold));
    assert!((500..=600).contains(&problem.retry_after.unwrap()), "{problem:?}");
    let reader = test.env.issue_token(&test.database, Scope::Read).await.unwrap();
    let reader = test.env.client(test.server.address().port(), &reader).unwrap();
    let refused = reader.export(telegram(1), &body("ann's")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Forbidden));
}

async fn names_follow_telegram(test: TestServer) {
    let ann = test.onboard(1, "ann", "a").await;
    let bob = test.onboard(2, "bob", "b").await;
    let saw = |names: &[&str], at| SeenUsernames {
        usernames: names.iter().map(|name| name.parse().unwrap()).collect(),
        seen_at: Timestamp(at),
    };
    let name = "@ANN".parse().unwrap();
    let found = test.client.name(&name).await.unwrap().unwrap();
    assert_eq!((found.address, found.reassigned_at), (ann.address, None));
    // Bob takes over Ann's username; the name is marked as reassigned for some time.
    let now = Timestamp::from(
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(std::time::UNIX_EPOCH, |since| std::time::UNIX_EPOCH + since),
    );
    test.client.seen_usernames(telegram(2), &saw(&["Ann"], now.0)).await.unwrap();
    let found = test.client.name(&name).await.unwrap().unwrap();
    assert_eq!(found.address, bob.address);
    assert!(found.reassigned_at.is_some_and(|at| now <= at), "{found:?}");
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap().username, None);
    // An older observation does not give the name back to Ann.
    test.client.seen_usernames(telegram(1), &saw(&["ann"], now.0 - 5)).await.unwrap();
    assert_eq!(test.client.name(&name).await.unwrap().unwrap().address, bob.address);
    test.client.seen_usernames(telegram(2), &saw(&[], now.0 + 1)).await.unwrap();
    assert_eq!(test.client.name(&name).await.unwrap(), None);
    // Each of several usernames names the wallet; the account shows the first.
    let several = saw(&["Bobsled", "bob", "ann"], now.0 + 2);
    test.client.seen_usernames(telegram(2), &several).await.unwrap();
    for name in ["bob", "bobsled", "ann"] {
        let found = test.client.name(&name.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((found.telegram_id, found.address), (bob.telegram_id, bob.address), "{name}");
    }
    let shown = test.client.account(telegram(2)).await.unwrap().unwrap().username;
    assert_eq!(shown.unwrap().as_str(), "Bobsled");
}

async fn tokens_have_scopes_and_can_be_revoked(test: TestServer) {
    let port = test.server.address().port();
    let reader = test.env.issue_token(&test.database, Scope::Read).await.unwrap();
    let reader = test.env.client(port, &reader).unwrap();
    assert!(reader.networks().await.is_ok());
    // It reads neither contacts nor payments.
    let mut dora = create(4, "dora", "dora");
    dora.mobile = Some("+4915112345678".parse().unwrap());
    dora.email = Some("dora@example.org".parse().unwrap());
    assert!(test.client.create_account(&dora).await.unwrap().mobile.is_some());
    let shown = reader.account(telegram(4)).await.unwrap().unwrap();
    assert_eq!((shown.mobile, shown.email), (None, None));
    let history = reader.transfers(telegram(4), kms_client::Page::Newest, 20).await.unwrap_err();
    assert_eq!(history.code(), Some(ErrorCode::Forbidden));
    let refused = reader.create_account(&create(1, "ann", "a")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Forbidden));
    for bad in [format!("kms_{}", "0".repeat(64)), "nonsense".to_owned(), String::new()] {
        let refused = test.env.client(port, &bad).unwrap().networks().await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Unauthorized));
    }
    let none = test.raw().get(test.url("/v1/networks")).send().await.unwrap();
    assert_eq!(none.status(), 401);
    assert_eq!(none.headers()["www-authenticate"], "Bearer");
    // A revoked token ends within five seconds.
    let name = test.database.api_tokens().await.unwrap()[0].name.clone();
    let now = Timestamp(i64::MAX / 2);
    assert!(test.client.networks().await.is_ok());
    assert!(test.database.revoke_api_token(&name, now).await.unwrap());
    let revoked = std::time::Instant::now();
    loop {
        let asked_after = revoked.elapsed();
        if test.client.networks().await.is_err() {
            break;
        }
        assert!(asked_after.as_secs() < 5, "the revoked token still works");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn nothing_is_lost_in_a_restart(test: TestServer) {
    let account = test.onboard(1, "ann", "a").await;
    let events = test.events(1).await;
    let test = test.restart().await;
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap(), account);
    assert_eq!(test.onboard(1, "ann", "a").await, account);
    // Events are delivered again until they are acknowledged.
    assert_eq!(test.events(1).await, events);
    let read = async |after, acknowledge| {
        let stream = EventStream::Security;
        test.client.events(stream, after, acknowledge, Duration::ZERO).await.unwrap().events
    };
    let last = Some(events[0].cursor);
    assert_eq!(read(last, None).await, []);
    assert_eq!(read(None, None).await, events, "reading on acknowledges nothing");
    assert_eq!(read(None, last).await, []);
    assert_eq!(read(None, None).await, []);
}

async fn concurrent_requests_create_one_wallet(test: TestServer) {
    let tries = (0..8).map(|_| {
        let client = test.client.clone();
        async move { client.create_account(&create(1, "ann", "a")).await }
    });
    let answers = futures::future::join_all(tries).await;
    let accounts: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
    assert!(!accounts.is_empty());
    assert!(accounts.iter().all(|account| *account == accounts[0]));
    let events = test.events(1).await;
    assert_eq!(events.len(), 1);
}
