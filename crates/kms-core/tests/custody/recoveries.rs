//! Recoveries: waits, codes, cancellation, and concurrent changes.

use kms_core::account::Account;
use kms_core::ports::RecoveryStore;
use kms_core::recovery::{Recovery, RecoveryError, RecoveryStage};
use kms_core::{CustodyError, KdfParams};
use kms_types::{AccountId, Email, OneTimeCode, RecoveryId, Timestamp};

use crate::world::{NOW, RULES, World, caller, change_password, hash, telegram};

const KDF: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };

async fn asks(world: &World, at: Timestamp) -> Result<Recovery, CustodyError> {
    world.custody.request_recovery(telegram(1), RecoveryId::random(), &caller(), at).await
}

async fn completes(world: &World, id: RecoveryId, at: Timestamp) -> Result<Recovery, CustodyError> {
    world.custody.complete_recovery(telegram(1), id, hash("new"), &caller(), at).await
}

async fn cancels(world: &World, id: RecoveryId, at: Timestamp) -> Result<Recovery, CustodyError> {
    world.custody.cancel_recovery(telegram(1), id, &caller(), at).await
}

async fn stage(world: &World, id: RecoveryId) -> RecoveryStage {
    world.database.recovery(id).await.unwrap().unwrap().written
}

fn wrong(code: &OneTimeCode) -> OneTimeCode {
    let digits: u64 = code.expose().parse().unwrap();
    OneTimeCode::from_bits(digits + 1)
}

/// Creates Ann's account with an e-mail address that is trusted from `NOW` on.
async fn with_email() -> (World, Account) {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let before = NOW.minus(RULES.email_trusted_after);
    change_email(&world, before).await.unwrap();
    let ann = world.account(1).await;
    let asked = kms_core::ports::EmailChangeStore::email_change(&world.database, ann.id).await;
    let code = asked.unwrap().unwrap().code(&world.keys().codes).unwrap();
    let confirm = |code| async {
        let code: OneTimeCode = code;
        world.custody.confirm_email(telegram(1), &code, &caller(), before).await
    };
    assert!(matches!(confirm(wrong(&code)).await, Err(CustodyError::WrongCode)));
    confirm(code.clone()).await.unwrap();
    let no_code = CustodyError::Recovery(RecoveryError::NoCode).to_string();
    assert_eq!(confirm(code).await.unwrap_err().to_string(), no_code);
    let ann = world.account(1).await;
    assert_eq!(ann.email_verified_at, Some(before));
    (world, ann)
}

async fn change_email(world: &World, at: Timestamp) -> Result<(), CustodyError> {
    let email: Email = "ann@example.org".parse().unwrap();
    world.custody.change_email(telegram(1), Some(&email), hash("ann's"), &caller(), at, admit).await
}

async fn admit(_: AccountId) -> Result<(), CustodyError> {
    Ok(())
}

#[tokio::test]
async fn completes_only_after_the_wait() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let asked = asks(&world, NOW).await.unwrap();
    assert_eq!(asked.ready_at, NOW.plus(RULES.wait_without_email));
    let before = Timestamp(asked.ready_at.0 - 1);
    let early = completes(&world, asked.id, before).await.unwrap_err();
    let until = asked.ready_at;
    let CustodyError::Recovery(RecoveryError::NotReady { until: at }) = early else {
        panic!("{early}")
    };
    assert_eq!(at, until);
    assert!(matches!(asks(&world, before).await, Err(CustodyError::RecoveryOpen)));
    completes(&world, asked.id, asked.ready_at).await.unwrap();
    assert_eq!(world.account(1).await.recovered_at, Some(asked.ready_at));
    assert_eq!(stage(&world, asked.id).await, RecoveryStage::Completed);
}

#[tokio::test]
async fn expires_and_allows_the_next_recovery() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let asked = asks(&world, NOW).await.unwrap();
    let late = completes(&world, asked.id, asked.expires_at).await.unwrap_err();
    assert!(matches!(late, CustodyError::Recovery(RecoveryError::Ended)));
    let next = asks(&world, asked.expires_at).await.unwrap();
    assert_eq!(stage(&world, asked.id).await, RecoveryStage::Expired);
    for (now, stage_then) in
        [(next.ready_at, RecoveryStage::Ready), (next.expires_at, RecoveryStage::Expired)]
    {
        world.custody.advance_due_recoveries(&caller(), Timestamp(now.0 - 1)).await.unwrap();
        assert_ne!(stage(&world, next.id).await, stage_then);
        world.custody.advance_due_recoveries(&caller(), now).await.unwrap();
        assert_eq!(stage(&world, next.id).await, stage_then);
    }
}

#[tokio::test]
async fn steps_by_time_alone_are_audited_once_and_before_their_notice() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let ann = world.account(1).await.id.to_string();
    let asked = asks(&world, NOW).await.unwrap();
    let advance = async |at| world.custody.advance_due_recoveries(&caller(), at).await;
    *world.forger.audit_fails.lock().await = true;
    assert!(matches!(advance(asked.ready_at).await, Err(CustodyError::Store(_))));
    assert_eq!(stage(&world, asked.id).await, RecoveryStage::Waiting);
    *world.forger.audit_fails.lock().await = false;
    let before = world.audit().await.len();
    for at in [asked.ready_at, asked.ready_at, asked.expires_at, asked.expires_at] {
        advance(at).await.unwrap();
    }
    // A request that comes before the worker stores the step.
    let next = asks(&world, asked.expires_at).await.unwrap();
    completes(&world, next.id, next.expires_at).await.unwrap_err();
    let rows = world.database.audit_after(0, 1_000).await.unwrap();
    let found = rows[before..].iter().filter(|row| row.action.starts_with("recovery_"));
    let found: Vec<_> = found
        .map(|row| {
            assert_eq!(row.account.as_deref(), Some(&*ann));
            let came = row.outcome.as_deref().unwrap_or(&row.phase);
            (row.subject.clone().unwrap(), format!("{} {came}", row.action))
        })
        .collect();
    let expected = [
        (asked.id, "recovery_ready intent"),
        (asked.id, "recovery_ready ok"),
        (asked.id, "recovery_expired intent"),
        (asked.id, "recovery_expired ok"),
        (next.id, "recovery_expired intent"),
        (next.id, "recovery_expired ok"),
    ];
    assert_eq!(found, expected.map(|(id, step)| (id.to_string(), step.to_owned())));
}

#[tokio::test]
async fn a_cancelled_recovery_cannot_be_completed() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    world.create(2, "bob's").await.unwrap();
    let asked = asks(&world, NOW).await.unwrap();
    let caller = caller();
    let others = world.custody.cancel_recovery(telegram(2), asked.id, &caller, NOW).await;
    assert!(matches!(others, Err(CustodyError::NoRecovery)));
    for _ in 0..2 {
        let cancelled = cancels(&world, asked.id, NOW).await.unwrap();
        assert_eq!(cancelled.written, RecoveryStage::Cancelled);
    }
    let done = completes(&world, asked.id, asked.ready_at).await.unwrap_err();
    assert!(matches!(done, CustodyError::Recovery(RecoveryError::Ended)));
    let again = asks(&world, NOW).await.unwrap();
    completes(&world, again.id, again.ready_at).await.unwrap();
    let late = cancels(&world, again.id, again.ready_at).await.unwrap_err();
    assert!(matches!(late, CustodyError::Recovery(RecoveryError::Ended)));
}

#[tokio::test]
async fn a_link_cancels_its_own_recovery_only() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    world.create(2, "bob's").await.unwrap();
    let asked = asks(&world, NOW).await.unwrap();
    let (custody, caller) = (&world.custody, caller());
    let id = RecoveryId::random();
    let bobs = custody.request_recovery(telegram(2), id, &caller, NOW).await.unwrap();
    let link = bobs.cancel_mac(&world.keys().codes).unwrap();
    let wrong = custody.cancel_recovery_by_link(asked.id, &link, &caller, NOW).await;
    assert!(matches!(wrong, Err(CustodyError::NoRecovery)));
    custody.cancel_recovery_by_link(bobs.id, &link, &caller, NOW).await.unwrap();
    assert_eq!(stage(&world, bobs.id).await, RecoveryStage::Cancelled);
    assert_eq!(stage(&world, asked.id).await, RecoveryStage::Waiting);
}

#[tokio::test]
async fn a_correct_password_cancels_and_a_wrong_one_does_not() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let asked = asks(&world, NOW).await.unwrap();
    world.create(1, "not ann's").await.unwrap_err();
    assert_eq!(stage(&world, asked.id).await, RecoveryStage::Waiting);
    world.create(1, "ann's").await.unwrap();
    assert_eq!(stage(&world, asked.id).await, RecoveryStage::Cancelled);
    let rows = world.database.audit_after(0, 1_000).await.unwrap();
    let cancelled = rows.iter().find(|row| row.action == "cancel_recovery").unwrap();
    assert_eq!(cancelled.subject, Some(asked.id.to_string()));
}

#[tokio::test]
async fn a_confirmed_code_shortens_the_wait() {
    let (world, _) = with_email().await;
    let asked = asks(&world, NOW).await.unwrap();
    assert_eq!(asked.ready_at, NOW.plus(RULES.wait_without_code));
    let code = asked.code(&world.keys().codes).unwrap();
    let (custody, caller, later) = (&world.custody, caller(), Timestamp(NOW.0 + 1));
    let confirm = |code: OneTimeCode, at| async move {
        custody.confirm_recovery(telegram(1), asked.id, &code, &super::world::caller(), at).await
    };
    for _ in 0..4 {
        assert!(matches!(confirm(wrong(&code), later).await, Err(CustodyError::WrongCode)));
    }
    let confirmed = confirm(code.clone(), later).await.unwrap();
    assert_eq!(confirmed.ready_at, later.plus(RULES.wait_with_code));
    // Only once.
    let again = confirm(code, later).await.unwrap_err();
    assert!(matches!(again, CustodyError::Recovery(RecoveryError::NoCode)));
    let ready = confirmed.ready_at;
    custody.complete_recovery(telegram(1), asked.id, hash("new"), &caller, ready).await.unwrap();
}

#[tokio::test]
async fn five_wrong_codes_or_its_lifetime_void_a_code_but_not_the_recovery() {
    let (world, _) = with_email().await;
    let asked = asks(&world, NOW).await.unwrap();
    let code = asked.code(&world.keys().codes).unwrap();
    let custody = &world.custody;
    let confirm = |code: OneTimeCode, at| async move {
        custody.confirm_recovery(telegram(1), asked.id, &code, &caller(), at).await
    };
    let late = confirm(code.clone(), NOW.plus(RULES.code_lifetime)).await.unwrap_err();
    assert!(matches!(late, CustodyError::Recovery(RecoveryError::NoCode)));
    for _ in 0..5 {
        assert!(matches!(confirm(wrong(&code), NOW).await, Err(CustodyError::WrongCode)));
    }
    let over = confirm(code, NOW).await.unwrap_err();
    assert!(matches!(over, CustodyError::Recovery(RecoveryError::NoCode)));
    completes(&world, asked.id, asked.ready_at).await.unwrap();
}

/// Each attempt is counted before the code is compared.
#[tokio::test]
async fn concurrent_guesses_are_limited_to_five() {
    let (world, _) = with_email().await;
    let asked = asks(&world, NOW).await.unwrap();
    let bad = wrong(&asked.code(&world.keys().codes).unwrap());
    let tries = (0..40).map(|_| {
        let (custody, bad) = (world.custody.clone(), bad.clone());
        tokio::spawn(async move {
            custody.confirm_recovery(telegram(1), asked.id, &bad, &caller(), NOW).await
        })
    });
    let mut compared = 0;
    for attempt in tries.collect::<Vec<_>>() {
        match attempt.await.unwrap().unwrap_err() {
            CustodyError::WrongCode => compared += 1,
            CustodyError::Conflict | CustodyError::Recovery(RecoveryError::NoCode) => {}
            other => panic!("{other}"),
        }
    }
    assert!((1..=5).contains(&compared), "{compared}");
}

#[tokio::test]
async fn a_newly_verified_address_does_not_shorten_the_wait() {
    let (world, ann) = with_email().await;
    let just_before = Timestamp(NOW.0 - 1);
    let asked = asks(&world, just_before).await.unwrap();
    assert_eq!(asked.ready_at, just_before.plus(RULES.wait_without_email));
    assert_eq!(asked.code_until(just_before), None);
    assert!(ann.email.is_some());
}

#[tokio::test]
async fn contacts_require_the_password_and_are_on_hold_after_a_recovery() {
    let (world, _) = with_email().await;
    let (custody, caller) = (&world.custody, caller());
    let email: Email = "eve@example.org".parse().unwrap();
    let guess =
        custody.change_email(telegram(1), Some(&email), hash("x"), &caller, NOW, admit).await;
    assert!(matches!(guess, Err(CustodyError::WrongPassword)));
    let asked = asks(&world, NOW).await.unwrap();
    let done = asked.ready_at;
    completes(&world, asked.id, done).await.unwrap();
    let until = done.plus(RULES.hold);
    for at in [done, Timestamp(until.0 - 1)] {
        let change =
            custody.change_email(telegram(1), Some(&email), hash("new"), &caller, at, admit).await;
        assert!(matches!(change, Err(CustodyError::OnHold { until: end }) if end == until));
        let none = custody.change_email(telegram(1), None, hash("new"), &caller, at, admit).await;
        assert!(matches!(none, Err(CustodyError::OnHold { .. })));
        let mobile = custody.change_mobile(telegram(1), None, &caller, at).await;
        assert!(matches!(mobile, Err(CustodyError::OnHold { .. })));
    }
    custody.change_email(telegram(1), None, hash("new"), &caller, until, admit).await.unwrap();
    assert_eq!(world.account(1).await.email, None);
}

#[tokio::test]
async fn a_completion_and_a_concurrent_change_of_password_have_one_winner() {
    for _ in 0..8 {
        let world = World::new(KDF).await;
        world.create(1, "old").await.unwrap();
        let asked = asks(&world, NOW).await.unwrap();
        let (custody, ready) = (world.custody.clone(), asked.ready_at);
        let (changed, completed) = tokio::join!(
            change_password(&custody, 1, ("old", "changed"), ready),
            completes(&world, asked.id, ready),
        );
        let winner = match (&changed, &completed) {
            (Ok(()), Err(CustodyError::Conflict | CustodyError::Recovery(_))) => "changed",
            (Err(CustodyError::Conflict | CustodyError::WrongPassword), Ok(_)) => "new",
            other => panic!("{other:?}"),
        };
        world.create(1, winner).await.unwrap();
        let expected =
            if winner == "new" { RecoveryStage::Completed } else { RecoveryStage::Cancelled };
        assert_eq!(stage(&world, asked.id).await, expected);
    }
}

#[tokio::test]
async fn two_concurrent_completions_have_one_winner() {
    let world = World::new(KDF).await;
    world.create(1, "old").await.unwrap();
    let asked = asks(&world, NOW).await.unwrap();
    let complete = |words: &'static str| {
        let custody = world.custody.clone();
        async move {
            let (caller, ready) = (caller(), asked.ready_at);
            custody.complete_recovery(telegram(1), asked.id, hash(words), &caller, ready).await
        }
    };
    let (one, two) = tokio::join!(complete("one"), complete("two"));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    world.create(1, if one.is_ok() { "one" } else { "two" }).await.unwrap();
}

/// Wrong guesses on purpose do not keep the owner's password from cancelling.
#[tokio::test]
async fn a_correct_password_cancels_a_recovery_while_it_is_locked_and_does_nothing_else() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let id = RecoveryId::random();
    let (custody, ann) = (&world.custody, telegram(1));
    let tries =
        async |words: &str| change_password(custody, 1, (words, "new"), NOW).await.unwrap_err();
    for _ in 0..5 {
        assert!(matches!(tries("guess").await, CustodyError::WrongPassword));
    }
    custody.request_recovery(ann, id, &caller(), NOW).await.unwrap();
    assert!(matches!(tries("guess").await, CustodyError::Locked { .. }));
    let stage = async || world.database.recovery(id).await.unwrap().unwrap().written;
    assert_eq!(stage().await, RecoveryStage::Waiting);
    // Refused like a wrong one: the password is not changed, and the lock stays.
    for _ in 0..2 {
        assert!(matches!(tries("ann's").await, CustodyError::Locked { .. }));
        assert_eq!(stage().await, RecoveryStage::Cancelled);
    }
    // Two attempts of this day were used, and one is left.
    let id = RecoveryId::random();
    custody.request_recovery(ann, id, &caller(), NOW).await.unwrap();
    tries("guess").await;
    tries("ann's").await;
    assert_eq!(world.database.recovery(id).await.unwrap().unwrap().written, RecoveryStage::Waiting);
    let later = Timestamp(NOW.0 + 24 * 60 * 60 * 1_000);
    change_password(custody, 1, ("ann's", "new"), later).await.unwrap();
}
