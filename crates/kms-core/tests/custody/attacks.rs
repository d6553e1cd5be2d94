//! An attacker who writes to the databases puts values of one account into the row of another.

use kms_core::account::{Account, AccountState, Wallet};
use kms_core::audit::Action;
use kms_core::ports::{PasswordGate, RecoveryStore, SckStore, WrappedSck};
use kms_core::recovery::Recovery;
use kms_core::{CustodyError, KdfParams};
use kms_types::{RecoveryId, TransferId};

use crate::world::{NOW, World, caller, change_password, hash, telegram};

const KDF: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };

async fn opens(world: &World, words: &str) -> Result<(), CustodyError> {
    let caller = caller();
    let send = Action::Send(TransferId::random());
    let work = |_wallet| async { Ok::<_, CustodyError>(()) };
    world.custody.with_wallet(telegram(1), hash(words), send, &caller, NOW, work).await
}

async fn recovers(world: &World) -> Result<Recovery, CustodyError> {
    // A recovery that was refused before is continued.
    let open = world.database.open_recovery(world.account(1).await.id).await.unwrap();
    let id = open.map_or_else(RecoveryId::random, |open| open.id);
    world.recover(1, id, "new").await
}

/// Copies one field, or several that belong together, of Bob's wallet into Ann's.
type Exchange = fn(&mut Wallet, &Wallet);

const EXCHANGES: [(&str, Exchange); 8] = [
    ("sealed key", |ann, bob| ann.sealed_key.clone_from(&bob.sealed_key)),
    ("commitment", |ann, bob| ann.commitment = bob.commitment),
    ("salt", |ann, bob| ann.salt = bob.salt),
    ("sck id", |ann, bob| ann.sck_id = bob.sck_id),
    ("address", |ann, bob| ann.address = bob.address),
    ("key and address", |ann, bob| {
        ann.sealed_key.clone_from(&bob.sealed_key);
        ann.address = bob.address;
    }),
    ("all but the address", |ann, bob| {
        let address = ann.address;
        ann.clone_from(bob);
        ann.address = address;
    }),
    ("all", |ann, bob| ann.clone_from(bob)),
];

#[tokio::test]
async fn a_wallet_with_values_of_another_account_does_not_open() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    world.create(2, "bob's").await.unwrap();
    let (ann, bob) = (world.account(1).await, world.account(2).await);
    for (what, exchange) in EXCHANGES {
        let mut forged = ann.clone();
        exchange(&mut forged.wallet, &bob.wallet);
        *world.forger.account.lock().await = Some(forged);
        // Bob is the attacker and knows his own password.
        for words in ["ann's", "bob's"] {
            let refused = opens(&world, words).await.expect_err(what);
            assert!(
                matches!(refused, CustodyError::Integrity(_) | CustodyError::WrongPassword),
                "{what}: {refused}"
            );
            PasswordGate::accept(&world.database, ann.id, NOW).await.unwrap();
        }
        if what != "salt" {
            let refused = recovers(&world).await.expect_err(what);
            assert!(matches!(refused, CustodyError::Integrity(_)), "{what}: {refused}");
        }
    }
    let alarms = world.audit().await.into_iter().filter(|(phase, _)| phase == "alarm").count();
    assert!(alarms >= EXCHANGES.len(), "{alarms}");
    *world.forger.account.lock().await = None;
    assert!(opens(&world, "ann's").await.is_ok());
    assert!(recovers(&world).await.is_ok());
}

#[tokio::test]
async fn a_wrapped_sck_of_another_account_recovers_nothing() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    world.create(2, "bob's").await.unwrap();
    let (ann, bob) = (world.account(1).await, world.account(2).await);
    let anns = world.scks.sck(ann.wallet.sck_id).await.unwrap().unwrap();
    let bobs = world.scks.sck(bob.wallet.sck_id).await.unwrap().unwrap();
    for forged in [
        bobs.clone(),
        WrappedSck { bytes: bobs.bytes.clone(), ..anns.clone() },
        WrappedSck { bytes: anns.bytes.iter().rev().copied().collect(), ..anns.clone() },
        WrappedSck { master_key: "kms-other".parse().unwrap(), ..anns.clone() },
    ] {
        *world.forger.sck.lock().await = Some(forged);
        let refused = recovers(&world).await.unwrap_err();
        assert!(matches!(refused, CustodyError::Integrity(_)), "{refused}");
        let last = world.audit().await.pop().unwrap();
        assert_eq!(last, ("alarm".to_owned(), "integrity".to_owned()));
    }
    *world.forger.sck.lock().await = None;
    assert!(opens(&world, "ann's").await.is_ok());
    assert!(recovers(&world).await.is_ok());
}

#[tokio::test]
async fn a_frozen_account_signs_nothing() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let frozen = Account { state: AccountState::Frozen, ..world.account(1).await };
    *world.forger.account.lock().await = Some(frozen);
    assert!(matches!(opens(&world, "ann's").await, Err(CustodyError::Frozen)));
    assert!(matches!(recovers(&world).await, Err(CustodyError::Frozen)));
    assert!(matches!(world.create(1, "ann's").await, Err(CustodyError::Frozen)));
}

/// An older copy of an account has a valid MAC; the audit has its newest revision.
#[tokio::test]
async fn an_older_copy_of_an_account_opens_nothing() {
    let world = World::new(KDF).await;
    world.create(1, "first").await.unwrap();
    let created = world.account(1).await;
    change_password(&world.custody, 1, ("first", "second"), NOW).await.unwrap();
    *world.forger.account.lock().await = Some(created);
    for words in ["first", "second"] {
        assert!(matches!(opens(&world, words).await, Err(CustodyError::RolledBack)), "{words}");
    }
    assert!(matches!(recovers(&world).await, Err(CustodyError::RolledBack)));
    let alarms = world.audit().await.into_iter().filter(|row| row.1 == "rolled_back").count();
    assert_eq!(alarms, 3);
    *world.forger.account.lock().await = None;
    opens(&world, "second").await.unwrap();
}

/// Each guess comes after the count of the lockout was deleted.
#[tokio::test]
async fn guesses_that_the_lockout_forgets_are_counted_in_the_audit() {
    let world = World::new(KDF).await;
    world.create(1, "right").await.unwrap();
    let id = world.account(1).await.id;
    for _ in 0..30 {
        assert!(matches!(opens(&world, "guess").await, Err(CustodyError::WrongPassword)));
        world.database.accept(id, NOW).await.unwrap();
    }
    for words in ["guess", "right"] {
        assert!(matches!(opens(&world, words).await, Err(CustodyError::Locked { .. })), "{words}");
    }
}
