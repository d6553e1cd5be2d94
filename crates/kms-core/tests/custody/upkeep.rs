//! Operator actions on wallets, without their owners' passwords.

use kms_core::account::{Account, Wallet};
use kms_core::ports::{AccountStore, SckStore, WrappedSck};
use kms_core::{Custody, CustodyError, KdfParams, Rewrapped};
use kms_types::RecoveryId;

use crate::world::{NOW, World, caller, change_password, recover, telegram};

const KDF: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };

async fn rewraps(custody: &Custody) -> Result<Rewrapped, CustodyError> {
    custody.rewrap(telegram(1), &caller(), NOW).await
}

async fn recovers(custody: &Custody) -> bool {
    recover(custody, 1, RecoveryId::random(), "recovered").await.is_ok()
}

#[tokio::test]
async fn rewraps_an_sck_once_and_audits_it() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    let before = world.account(1).await;
    let rows = world.audit().await.len();
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    let records: Vec<_> = world.audit().await.split_off(rows);
    assert_eq!(records, [("intent", ""), ("outcome", "ok")].map(|(a, b)| (a.into(), b.into())));
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::AlreadyActive);
    assert_eq!(world.audit().await.len(), rows + 2, "nothing was opened");
    let moved = world.scks.sck(before.wallet.sck_id).await.unwrap().unwrap();
    assert_eq!(moved.master_key.to_string(), "kms-newer");
    // Only the record of what is wrapped changes.
    let wallet = Wallet { wrapped_hash: moved.hash(), ..before.wallet.clone() };
    assert_eq!(world.account(1).await, Account { wallet, revision: 2, ..before });
    custody.verify(telegram(1), &caller(), NOW).await.unwrap();
    assert!(recovers(&custody).await);
}

#[tokio::test]
async fn sweeps_orphaned_scks_only() {
    let world = World::new(KDF).await;
    world.create(1, "old").await.unwrap();
    let custody = &world.custody;
    let before = world.account(1).await;
    change_password(custody, 1, ("old", "new"), NOW).await.unwrap();
    let now = world.account(1).await;
    let sweep = async |sck| custody.sweep(sck, now.id, &caller(), NOW).await;
    // Not the SCK that the wallet refers to.
    let sck = now.wallet.sck_id;
    assert!(matches!(sweep(sck).await, Err(CustodyError::Conflict)));
    // No SCK of an account whose own SCK is missing.
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
async fn nothing_is_rewrapped_without_an_intent() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    let sck_id = world.account(1).await.wallet.sck_id;
    *world.forger.audit_fails.lock().await = true;
    assert!(matches!(rewraps(&custody).await, Err(CustodyError::Store(_))));
    assert!(custody.verify(telegram(1), &caller(), NOW).await.is_err());
    assert!(custody.freeze(telegram(1), &caller(), NOW).await.is_err());
    let stored = world.scks.sck(sck_id).await.unwrap().unwrap();
    assert_eq!(stored.master_key.to_string(), "kms-test");
}

#[tokio::test]
async fn a_wrapped_sck_of_another_account_is_not_rewrapped() {
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
async fn a_concurrent_change_of_password_wins() {
    let world = World::new(KDF).await;
    world.create(1, "old").await.unwrap();
    let custody = world.rotated(KDF);
    let read = world.account(1).await;
    change_password(&world.custody, 1, ("old", "new"), NOW).await.unwrap();
    let changed = world.account(1).await;
    // The rewrap has read the wallet before the change.
    *world.forger.account.lock().await = Some(read);
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    *world.forger.account.lock().await = None;
    assert_eq!(world.account(1).await, changed);
    world.create(1, "new").await.unwrap();
    assert!(matches!(world.create(1, "old").await, Err(CustodyError::AccountExists)));
    // The SCK of the new password is rewrapped like any other.
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    assert!(recovers(&custody).await);
}

#[tokio::test]
async fn of_two_concurrent_rewraps_one_succeeds() {
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

/// The replaced SCK and its hash are in two databases; a crash in between is put right by the next
/// run, and recovery works meanwhile.
#[tokio::test]
async fn a_rewrap_that_ended_between_its_two_writes_is_completed() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    let before = world.account(1).await.wallet;
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    let (sck, new) = (before.sck_id, world.account(1).await.wallet.wrapped_hash);
    let record = async |old, new| {
        let id = world.account(1).await.id;
        world.database.record_wrapped_sck(id, sck, old, new).await.unwrap()
    };
    assert!(record(new, before.wrapped_hash).await && !record(new, [0; 32]).await);
    let damaged = custody.find_wrapped_sck(&world.account(1).await).await;
    assert!(matches!(damaged, Err(CustodyError::Integrity(_))), "{damaged:?}");
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::AlreadyActive);
    assert_eq!(world.account(1).await.wallet.wrapped_hash, new);
    assert!(record(new, before.wrapped_hash).await);
    assert!(recovers(&custody).await);
}

#[tokio::test]
async fn a_frozen_account_is_rewrapped_and_works_after_unfreezing() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let custody = world.rotated(KDF);
    custody.freeze(telegram(1), &caller(), NOW).await.unwrap();
    assert!(matches!(world.create(1, "ann's").await, Err(CustodyError::Frozen)));
    assert!(!recovers(&custody).await);
    assert_eq!(rewraps(&custody).await.unwrap(), Rewrapped::Moved);
    custody.unfreeze(telegram(1), &caller(), NOW).await.unwrap();
    assert!(recovers(&custody).await);
    let unknown = custody.freeze(telegram(9), &caller(), NOW).await;
    assert!(matches!(unknown, Err(CustodyError::NoAccount)));
}
