//! What an operator does to wallets without their owners.

use kms_core::ports::{SckStore, WrappedSck};
use kms_core::{Custody, CustodyError, KdfParams, Rewrapped};
use kms_types::RecoveryId;

use crate::world::{NOW, World, caller, hash, recover, telegram};

const KDF: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };

async fn rewraps(custody: &Custody) -> Result<Rewrapped, CustodyError> {
    custody.rewrap(telegram(1), &caller(), NOW).await
}

async fn recovers(custody: &Custody) -> bool {
    recover(custody, 1, RecoveryId::random(), "recovered").await.is_ok()
}

#[tokio::test]
async fn a_key_is_moved_once_and_audited() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    let before = world.account(1).await;
    let rows = world.audit().await.len();
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    let said: Vec<_> = world.audit().await.split_off(rows);
    assert_eq!(said, [("intent", ""), ("outcome", "ok")].map(|(a, b)| (a.into(), b.into())));
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::AlreadyActive);
    assert_eq!(world.audit().await.len(), rows + 2, "nothing was opened");
    assert_eq!(world.account(1).await, before);
    let moved = world.scks.sck(before.wallet.sck_id).await.unwrap().unwrap();
    assert_eq!(moved.master_key.to_string(), "kms-newer");
    custody.verify(telegram(1), &caller(), NOW).await.unwrap();
    assert!(recovers(&custody).await);
}

#[tokio::test]
async fn only_what_no_wallet_needs_is_swept() {
    let world = World::new(KDF).await;
    world.create(1, "old").await.unwrap();
    let custody = &world.custody;
    let before = world.account(1).await;
    let (old, new) = (hash("old"), hash("new"));
    custody.change_password(telegram(1), old, new, &caller(), NOW).await.unwrap();
    let now = world.account(1).await;
    let sweep = async |sck| custody.sweep(sck, now.id, &caller(), NOW).await;
    // What the wallet refers to, whatever somebody noted.
    let sck = now.wallet.sck_id;
    assert!(matches!(sweep(sck).await, Err(CustodyError::Conflict)));
    // Nothing of an account that could not be recovered by what it refers to.
    let sound = world.scks.sck(sck).await.unwrap().unwrap();
    world.scks.remove_sck(sck).await.unwrap();
    let superseded = before.wallet.sck_id;
    assert!(matches!(sweep(superseded).await, Err(CustodyError::Integrity(_))));
    assert_eq!(world.audit().await.pop().unwrap().0, "alarm");
    world.scks.put_sck(sound).await.unwrap();
    // Nothing without an INTENT.
    *world.forger.audit_fails.lock().await = true;
    assert!(matches!(sweep(superseded).await, Err(CustodyError::Store(_))));
    *world.forger.audit_fails.lock().await = false;
    assert!(world.scks.sck(superseded).await.unwrap().is_some());
    sweep(superseded).await.unwrap();
    assert!(world.scks.sck(superseded).await.unwrap().is_none());
    assert!(recovers(custody).await);
}

#[tokio::test]
async fn without_an_intent_nothing_is_moved() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    let sck_id = world.account(1).await.wallet.sck_id;
    *world.forger.audit_fails.lock().await = true;
    assert!(matches!(rewraps(&custody).await, Err(CustodyError::Store(_))));
    assert!(custody.verify(telegram(1), &caller(), NOW).await.is_err());
    assert!(custody.freeze(telegram(1), &caller(), NOW).await.is_err());
    let stands = world.scks.sck(sck_id).await.unwrap().unwrap();
    assert_eq!(stands.master_key.to_string(), "kms-test");
}

#[tokio::test]
async fn a_wrapped_key_of_another_is_not_moved() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    world.create(2, "bob's").await.unwrap();
    let custody = world.rotated(KDF);
    let (ann, bob) = (world.account(1).await, world.account(2).await);
    let anns = world.scks.sck(ann.wallet.sck_id).await.unwrap().unwrap();
    let bobs = world.scks.sck(bob.wallet.sck_id).await.unwrap().unwrap();
    *world.forger.sck.lock().await = Some(WrappedSck { bytes: bobs.bytes, ..anns.clone() });
    assert!(matches!(rewraps(&custody).await, Err(CustodyError::Integrity(_))));
    let verified = custody.verify(telegram(1), &caller(), NOW).await;
    assert!(matches!(verified, Err(CustodyError::Integrity(_))), "{verified:?}");
    let last = world.audit().await.pop().unwrap();
    assert_eq!(last, ("alarm".to_owned(), "integrity".to_owned()));
    assert_eq!(world.scks.sck(ann.wallet.sck_id).await.unwrap(), Some(anns));
}

#[tokio::test]
async fn a_password_that_was_changed_meanwhile_wins() {
    let world = World::new(KDF).await;
    world.create(1, "old").await.unwrap();
    let custody = world.rotated(KDF);
    let read = world.account(1).await;
    let (old, new) = (hash("old"), hash("new"));
    world.custody.change_password(telegram(1), old, new, &caller(), NOW).await.unwrap();
    let changed = world.account(1).await;
    // As if the wallet had been read before the change.
    *world.forger.account.lock().await = Some(read);
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    *world.forger.account.lock().await = None;
    assert_eq!(world.account(1).await, changed);
    world.create(1, "new").await.unwrap();
    assert!(matches!(world.create(1, "old").await, Err(CustodyError::AccountExists)));
    // The new password's key is another one, and is moved as any other.
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    assert!(recovers(&custody).await);
}

#[tokio::test]
async fn of_two_that_move_a_key_at_once_one_does() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    let sck_id = world.account(1).await.wallet.sck_id;
    let read = world.scks.sck(sck_id).await.unwrap();
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    *world.forger.sck.lock().await = read;
    assert!(matches!(rewraps(&custody).await, Err(CustodyError::Conflict)));
    *world.forger.sck.lock().await = None;
    assert!(recovers(&custody).await);
}

#[tokio::test]
async fn a_frozen_account_is_moved_too_and_goes_on_when_it_may() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    custody.freeze(telegram(1), &caller(), NOW).await.unwrap();
    assert!(matches!(world.create(1, "ann's").await, Err(CustodyError::Frozen)));
    assert!(!recovers(&custody).await);
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    custody.unfreeze(telegram(1), &caller(), NOW).await.unwrap();
    assert!(recovers(&custody).await);
    let nobody = custody.freeze(telegram(9), &caller(), NOW).await;
    assert!(matches!(nobody, Err(CustodyError::NoAccount)));
}
