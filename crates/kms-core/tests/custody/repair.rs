//! Repairs after unlock, and that they never overwrite a change of password.

use std::time::Duration;

use kms_core::account::{Account, Wallet};
use kms_core::audit::Action;
use kms_core::ports::{SckStore, WrappedSck};
use kms_core::{Custody, CustodyError, KdfParams};
use kms_types::{RecoveryId, TransferId};

use crate::world::{NOW, World, caller, change_password, hash, recover, telegram};

const OLD: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };
const CURRENT: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 2, lanes: 1 };

async fn opens(custody: &Custody, words: &str) -> Result<(), CustodyError> {
    let action = Action::Send(TransferId::random());
    let work = async |_wallet| Ok(());
    custody.with_wallet(telegram(1), hash(words), action, &caller(), NOW, work).await
}

async fn recovers(custody: &Custody) {
    recover(custody, 1, RecoveryId::random(), "recovered").await.unwrap();
}

/// Waits until a repair in the background is done.
async fn until(world: &World, done: impl AsyncFn() -> bool) {
    for _ in 0..300 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("timeout; the audit has {:?}", world.audit().await);
}

async fn until_audited(world: &World, rows: usize) {
    until(world, async || world.audit().await.len() >= rows).await;
}

#[tokio::test]
async fn restores_a_lost_or_unusable_wrapped_sck() {
    for what in ["gone", "damaged", "under a retired key"] {
        let world = World::new(OLD).await;
        world.create(1, "ann's").await.unwrap();
        let ann = world.account(1).await;
        let sound = world.scks.sck(ann.wallet.sck_id).await.unwrap().unwrap();
        let replace = async |other| world.scks.replace_sck(&sound, other).await.unwrap();
        match what {
            "gone" => world.scks.remove_sck(sound.id).await.unwrap(),
            "damaged" => {
                let mut bytes = sound.bytes.clone();
                bytes[0] ^= 1;
                assert!(replace(WrappedSck { bytes, ..sound.clone() }).await);
            }
            _ => {
                let master_key = "gone".parse().unwrap();
                assert!(replace(WrappedSck { master_key, ..sound.clone() }).await);
            }
        }
        let found = world.custody.find_wrapped_sck(&ann).await;
        assert!(matches!(found, Err(CustodyError::Integrity(_))), "{what}");
        let rows = world.audit().await.len();
        assert!(opens(&world.custody, "a guess").await.is_err());
        opens(&world.custody, "ann's").await.unwrap();
        until_audited(&world, rows + 6).await;
        let records = world.audit().await.split_off(rows + 4);
        assert_eq!(records, [("intent", ""), ("outcome", "ok")].map(|(a, b)| (a.into(), b.into())));
        let after = world.account(1).await;
        assert_eq!(world.custody.find_wrapped_sck(&ann).await.unwrap().hash(), {
            after.wallet.wrapped_hash
        });
        let wallet = Wallet { wrapped_hash: ann.wallet.wrapped_hash, ..after.wallet.clone() };
        assert_eq!(wallet, ann.wallet, "the wallet itself does not change");
        recovers(&world.custody).await;
    }
}

#[tokio::test]
async fn does_not_replace_a_usable_wrapped_sck() {
    let world = World::new(OLD).await;
    world.create(1, "ann's").await.unwrap();
    // Under an older key that still unwraps it; `rewrap` moves such an SCK.
    let custody = world.rotated(OLD);
    let ann = world.account(1).await;
    let sound = world.scks.sck(ann.wallet.sck_id).await.unwrap();
    let rows = world.audit().await.len();
    opens(&custody, "ann's").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.audit().await.len(), rows + 2);
    assert_eq!(world.scks.sck(ann.wallet.sck_id).await.unwrap(), sound);
    // It was found: for an hour the key database is not asked again, and another server asks it.
    world.scks.remove_sck(ann.wallet.sck_id).await.unwrap();
    opens(&custody, "ann's").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.scks.sck(ann.wallet.sck_id).await.unwrap(), None);
    opens(&world.rotated(OLD), "ann's").await.unwrap();
    until(&world, async || world.scks.sck(ann.wallet.sck_id).await.unwrap().is_some()).await;
}

async fn resealed(world: &World, before: &Account) -> Account {
    until(world, async || world.account(1).await != *before).await;
    world.account(1).await
}

#[tokio::test]
async fn reseals_a_wallet_under_the_current_kdf_and_pepper() {
    let first = format!("1:{}", "a1".repeat(32));
    let second = format!("2:{},{first}", "a2".repeat(32));
    for (kdf, pepper) in [(CURRENT, &first), (OLD, &second), (CURRENT, &second)] {
        let world = World::new(OLD).await;
        world.create(1, "ann's").await.unwrap();
        let before = world.account(1).await;
        let rows = world.audit().await.len();
        let custody = world.upgraded(kdf, pepper);
        opens(&custody, "ann's").await.unwrap();
        let after = resealed(&world, &before).await;
        until_audited(&world, rows + 4).await;
        assert_eq!(after.wallet.kdf, kdf);
        assert_eq!(after.wallet.pepper_id.to_string(), &pepper[..1]);
        assert_eq!(after.wallet.version, before.wallet.version);
        assert_ne!(after.wallet.sck_id, before.wallet.sck_id);
        // Only once.
        opens(&custody, "ann's").await.unwrap();
        assert!(matches!(opens(&custody, "guess").await, Err(CustodyError::WrongPassword)));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.audit().await.len(), rows + 8);
        assert_eq!(world.account(1).await, after);
        custody.find_wrapped_sck(&after).await.unwrap();
        custody.verify(telegram(1), &caller(), NOW).await.unwrap();
        recovers(&custody).await;
        opens(&custody, "recovered").await.unwrap();
    }
}

#[tokio::test]
async fn a_concurrent_change_of_password_wins() {
    let pepper = format!("1:{}", "a1".repeat(32));
    let change = async |custody: &Custody| change_password(custody, 1, ("old", "new"), NOW).await;
    // The change reads before the repair, and commits after it.
    let world = World::new(OLD).await;
    world.create(1, "old").await.unwrap();
    let read = world.account(1).await;
    let current = world.upgraded(CURRENT, &pepper);
    opens(&current, "old").await.unwrap();
    resealed(&world, &read).await;
    *world.forger.stale.lock().await = Some(read.clone());
    change(&world.custody).await.unwrap();
    opens(&current, "new").await.unwrap();
    assert!(matches!(opens(&current, "old").await, Err(CustodyError::WrongPassword)));
    recovers(&current).await;

    // The unlock reads before the change, and its repair commits after it.
    let world = World::new(OLD).await;
    world.create(1, "old").await.unwrap();
    let read = world.account(1).await;
    change(&world.custody).await.unwrap();
    let changed = world.account(1).await;
    let rows = world.audit().await.len();
    let current = world.upgraded(CURRENT, &pepper);
    *world.forger.stale.lock().await = Some(read);
    opens(&current, "old").await.unwrap();
    until_audited(&world, rows + 4).await;
    assert_eq!(world.audit().await.pop().unwrap().1, "conflict");
    assert_eq!(world.account(1).await, changed);
    recovers(&current).await;
}
