//! Creating and opening a wallet, changing and recovering its password, and the audit of it all.

use std::sync::Arc;

use kms_core::audit::Action;
use kms_core::{Created, CustodyError, KdfParams, KdfPool, PoolError};
use kms_types::{RecoveryId, Timestamp, TransferId};

use crate::world::{NOW, World, caller, change_password, hash, telegram};

const KDF: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };

async fn opens(world: &World, id: i64, words: &str) -> Result<kms_types::EthAddress, CustodyError> {
    let send = Action::Send(TransferId::random());
    let caller = caller();
    let opened = world.custody.with_wallet(
        telegram(id),
        hash(words),
        send,
        &caller,
        NOW,
        |wallet| async move { Ok::<_, CustodyError>(wallet.address()) },
    );
    opened.await
}

#[tokio::test]
async fn a_wallet_opens_with_its_password_only() {
    let world = World::new(KDF).await;
    let Created::New(ann) = world.create(1, "right").await.unwrap() else { panic!("not new") };
    assert_eq!(world.create(1, "right").await.unwrap(), Created::Existing(ann.clone()));
    let wrong = world.create(1, "wrong").await.unwrap_err();
    assert!(matches!(wrong, CustodyError::AccountExists));
    assert_eq!(opens(&world, 1, "right").await.unwrap(), ann.wallet.address);
    assert!(matches!(opens(&world, 1, "wrong").await, Err(CustodyError::WrongPassword)));
    assert!(matches!(opens(&world, 9, "right").await, Err(CustodyError::WrongPassword)));
}

#[tokio::test]
async fn a_changed_password_replaces_the_old_one() {
    let world = World::new(KDF).await;
    world.create(1, "old").await.unwrap();
    let before = world.account(1).await.wallet;
    change_password(&world.custody, 1, ("old", "new"), NOW).await.unwrap();
    let after = world.account(1).await.wallet;
    assert_eq!((after.address, after.version), (before.address, before.version + 1));
    assert_ne!((after.salt, after.sck_id), (before.salt, before.sck_id));
    assert!(matches!(opens(&world, 1, "old").await, Err(CustodyError::WrongPassword)));
    assert_eq!(opens(&world, 1, "new").await.unwrap(), before.address);
}

#[tokio::test]
async fn two_concurrent_changes_have_one_winner() {
    let world = World::new(KDF).await;
    world.create(1, "old").await.unwrap();
    let change = |new: &'static str| {
        let custody = world.custody.clone();
        async move { change_password(&custody, 1, ("old", new), NOW).await }
    };
    let (one, two) = tokio::join!(change("one"), change("two"));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let winner = if one.is_ok() { "one" } else { "two" };
    let lost = one.err().or(two.err()).unwrap();
    assert!(matches!(lost, CustodyError::Conflict | CustodyError::WrongPassword), "{lost}");
    assert!(opens(&world, 1, winner).await.is_ok());
    world.recover(1, RecoveryId::random(), "new").await.unwrap();
    assert!(opens(&world, 1, "new").await.is_ok());
}

/// The INTENT of a creation precedes the count of the attempt, so it does not make it durable.
#[tokio::test]
async fn a_creation_that_another_one_preceded_is_an_attempt_with_its_own_intent() {
    let world = World::new(KDF).await;
    let (one, two) = tokio::join!(world.create(1, "one"), world.create(1, "two"));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let lost = one.err().or(two.err()).unwrap();
    assert!(matches!(lost, CustodyError::AccountExists), "{lost}");
    let audit = world.audit().await;
    assert_eq!(audit.iter().filter(|(phase, _)| phase == "intent").count(), 3, "{audit:?}");
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_by_the_kms_key() {
    let world = World::new(KDF).await;
    world.create(1, "forgotten").await.unwrap();
    world.create(2, "bob's").await.unwrap();
    let address = world.account(1).await.wallet.address;
    let id = RecoveryId::random();
    for _ in 0..2 {
        world.recover(1, id, "new").await.unwrap();
        let wallet = world.account(1).await.wallet;
        assert_eq!((wallet.address, wallet.version), (address, 2));
    }
    // Repeating the request with another password is a guess at the password.
    let guess = world.recover(1, id, "other").await.unwrap_err();
    assert!(matches!(guess, CustodyError::WrongPassword));
    let stolen = world.recover(2, id, "new").await.unwrap_err();
    assert!(matches!(stolen, CustodyError::RecoveryReused));
    assert!(matches!(opens(&world, 1, "forgotten").await, Err(CustodyError::WrongPassword)));
    assert_eq!(opens(&world, 1, "new").await.unwrap(), address);
    let unknown = world.recover(9, RecoveryId::random(), "x").await;
    assert!(matches!(unknown, Err(CustodyError::NoAccount)));
}

#[tokio::test]
async fn the_fifth_wrong_password_locks_and_a_recovery_unlocks() {
    let world = World::new(KDF).await;
    world.create(1, "right").await.unwrap();
    for _ in 0..5 {
        assert!(matches!(opens(&world, 1, "wrong").await, Err(CustodyError::WrongPassword)));
    }
    let locked = opens(&world, 1, "right").await.unwrap_err();
    let until = Timestamp(NOW.0 + 15 * 60 * 1_000);
    assert!(matches!(locked, CustodyError::Locked { until: time } if time == until));
    world.recover(1, RecoveryId::random(), "new").await.unwrap();
    assert!(opens(&world, 1, "new").await.is_ok());
}

/// A shop's wallet has many clients. Each correct password would count until it is accepted.
#[tokio::test]
async fn sixteen_correct_passwords_at_once_lock_nothing() {
    let world = Arc::new(World::new(KDF).await);
    world.create(1, "right").await.unwrap();
    let opened = (0..16).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { opens(&world, 1, "right").await })
    });
    for opened in opened.collect::<Vec<_>>() {
        opened.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_full_pool_refuses_before_the_attempt_is_counted() {
    let pool = KdfPool::new(1.try_into().unwrap(), 0).unwrap();
    let world = World::with_pool(KDF, pool.clone()).await;
    world.create(1, "right").await.unwrap();
    let taken = pool.reserve().unwrap();
    for _ in 0..9 {
        let busy = opens(&world, 1, "right").await.unwrap_err();
        assert!(matches!(busy, CustodyError::Pool(_)), "{busy}");
    }
    drop(taken);
    assert!(opens(&world, 1, "right").await.is_ok());
}

/// A response without the work of the KDF would reveal who has an account.
#[tokio::test]
async fn an_unknown_account_costs_the_same_work_as_a_known_one() {
    let pool = KdfPool::new(1.try_into().unwrap(), 0).unwrap();
    let world = World::with_pool(KDF, pool.clone()).await;
    world.create(1, "right").await.unwrap();
    let taken = pool.reserve().unwrap();
    for id in [1, 9] {
        let busy = opens(&world, id, "guess").await.unwrap_err();
        assert!(matches!(busy, CustodyError::Pool(PoolError::Busy)), "{id}: {busy}");
        let change = change_password(&world.custody, id, ("guess", "x"), NOW);
        let busy = change.await.unwrap_err();
        assert!(matches!(busy, CustodyError::Pool(PoolError::Busy)), "{id}: {busy}");
    }
    drop(taken);
    for id in [1, 9] {
        let wrong = opens(&world, id, "guess").await.unwrap_err();
        assert!(matches!(wrong, CustodyError::WrongPassword), "{id}: {wrong}");
    }
}

#[tokio::test]
async fn without_an_audit_record_nothing_is_opened() {
    let world = World::new(KDF).await;
    world.create(1, "right").await.unwrap();
    let before = world.account(1).await;
    *world.forger.audit_fails.lock().await = true;
    assert!(matches!(opens(&world, 1, "right").await, Err(CustodyError::Store(_))));
    assert!(world.create(2, "x").await.is_err());
    let change = change_password(&world.custody, 1, ("right", "new"), NOW);
    assert!(change.await.is_err());
    let id = RecoveryId::random();
    assert!(world.recover(1, id, "new").await.is_err());
    *world.forger.audit_fails.lock().await = false;
    assert_eq!(world.account(1).await, before);
    assert!(opens(&world, 1, "right").await.is_ok());
}

/// An attacker who can stop the audit must not lock accounts by it.
#[tokio::test]
async fn an_attempt_that_could_not_be_audited_is_not_counted() {
    let world = World::new(KDF).await;
    world.create(1, "right").await.unwrap();
    for _ in 0..4 {
        opens(&world, 1, "wrong").await.unwrap_err();
    }
    *world.forger.audit_fails.lock().await = true;
    for _ in 0..9 {
        assert!(matches!(opens(&world, 1, "right").await, Err(CustodyError::Store(_))));
    }
    *world.forger.audit_fails.lock().await = false;
    // Earlier guesses still count.
    assert!(matches!(opens(&world, 1, "wrong").await, Err(CustodyError::WrongPassword)));
    assert!(matches!(opens(&world, 1, "right").await, Err(CustodyError::Locked { .. })));
}

/// Any caller can repeat a refused request; each would append two rows.
#[tokio::test]
async fn a_flood_of_refusals_is_one_record() {
    let pool = KdfPool::new(1.try_into().unwrap(), 0).unwrap();
    let world = World::with_pool(KDF, pool.clone()).await;
    world.create(1, "right").await.unwrap();
    for _ in 0..5 {
        opens(&world, 1, "wrong").await.unwrap_err();
    }
    let before = world.audit().await.len();
    assert_eq!(before, 2 + 5 * 2);
    for _ in 0..20 {
        assert!(matches!(opens(&world, 1, "right").await, Err(CustodyError::Locked { .. })));
    }
    let taken = pool.reserve().unwrap();
    for _ in 0..20 {
        assert!(matches!(opens(&world, 1, "right").await, Err(CustodyError::Pool(_))));
    }
    drop(taken);
    let refusals = world.audit().await.split_off(before);
    let expected = ["locked", "busy"].map(|code| ("outcome".to_owned(), code.to_owned()));
    assert_eq!(refusals, expected);
}
