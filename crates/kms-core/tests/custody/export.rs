//! Exporting a key requires the password, an audit record and a notice.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use kms_core::{CustodyError, ExportedKey, KdfParams};
use kms_types::{EventCursor, EventKind, EventStream, RecoveryId, SecurityEvent, Timestamp};

use crate::second_implementation::python;
use crate::world::{NOW, RULES, World, caller, change_password, hash, telegram};

const KDF: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };

async fn export(
    world: &World,
    id: i64,
    words: &str,
    now: Timestamp,
) -> Result<ExportedKey, CustodyError> {
    let admit = |_| async { Ok(()) };
    world.custody.export(telegram(id), hash(words), &caller(), now, admit).await
}

/// `eth-account` is the library of Ethereum's own documentation.
#[tokio::test]
async fn eth_account_opens_an_exported_key() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let exported = export(&world, 1, "ann's", NOW).await.unwrap();
    assert_eq!(exported.address, world.account(1).await.wallet.address);
    let script = "import sys\n\
        from eth_account import Account\n\
        print(Account.from_key(Account.decrypt(sys.argv[1], sys.argv[2])).address)";
    let python = python("eth-account", &["eth-account>=0.13"]);
    let open = |passphrase: &str| {
        let arguments = ["-c", script, &exported.keystore, passphrase];
        Command::new(&python).args(arguments).output().unwrap()
    };
    let opened = open(exported.passphrase.expose());
    let output = String::from_utf8([opened.stdout, opened.stderr].concat()).unwrap();
    assert_eq!(output.trim(), exported.address.to_string());
    assert!(!open(&exported.passphrase.expose().to_uppercase()).status.success());
    let records = world.audit().await.split_off(2);
    assert_eq!(records, [("intent", ""), ("outcome", "ok")].map(|(a, b)| (a.into(), b.into())));
}

#[tokio::test]
async fn an_export_requires_the_password_and_an_audit_record() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    *world.forger.audit_fails.lock().await = true;
    assert!(matches!(export(&world, 1, "ann's", NOW).await, Err(CustodyError::Store(_))));
    *world.forger.audit_fails.lock().await = false;
    for (id, words) in [(1, "guess"), (9, "guess")] {
        let wrong = export(&world, id, words, NOW).await;
        assert!(matches!(wrong, Err(CustodyError::WrongPassword)));
    }
    for _ in 0..4 {
        export(&world, 1, "guess", NOW).await.unwrap_err();
    }
    assert!(matches!(export(&world, 1, "ann's", NOW).await, Err(CustodyError::Locked { .. })));
}

#[tokio::test]
async fn a_limit_is_checked_after_the_password_and_before_the_key_is_returned() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let ann = world.account(1).await.id;
    let asked = AtomicU32::new(0);
    let refuse = |id| {
        assert_eq!(id, ann);
        asked.fetch_add(1, Ordering::Relaxed);
        async { Err(CustodyError::Frozen) }
    };
    let custody = &world.custody;
    let wrong = custody.export(telegram(1), hash("guess"), &caller(), NOW, refuse).await;
    assert!(matches!(wrong, Err(CustodyError::WrongPassword)));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let refused = custody.export(telegram(1), hash("ann's"), &caller(), NOW, refuse).await;
    assert!(matches!(refused, Err(CustodyError::Frozen)));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(world.audit().await.last().unwrap().1, "frozen");
}

/// The key was opened: what the owner does until it is returned still stops it.
#[tokio::test]
async fn a_freeze_or_a_new_password_stops_an_export_that_has_opened_the_key() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let (custody, ann) = (&world.custody, telegram(1));
    let freeze = |_| async { custody.freeze(ann, &caller(), NOW).await.map(drop) };
    let refused = custody.export(ann, hash("ann's"), &caller(), NOW, freeze).await;
    assert!(matches!(refused, Err(CustodyError::Frozen)));
    assert_eq!(world.audit().await.last().unwrap().1, "frozen");
    custody.unfreeze(ann, &caller(), NOW).await.unwrap();
    let change = |_| change_password(custody, 1, ("ann's", "new"), NOW);
    let refused = custody.export(ann, hash("ann's"), &caller(), NOW, change).await;
    assert!(matches!(refused, Err(CustodyError::Conflict)));
    export(&world, 1, "new", NOW).await.unwrap();
}

#[tokio::test]
async fn an_export_without_a_notice_does_not_happen() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    let notices = async || {
        let all = world
            .database
            .events_after(EventStream::Security, EventCursor::default(), 10)
            .await
            .unwrap()
            .events;
        let exported = EventKind::Security(SecurityEvent::KeyExported);
        all.into_iter().filter(|event| event.kind == exported).count()
    };
    *world.forger.events_fail.lock().await = true;
    assert!(matches!(export(&world, 1, "ann's", NOW).await, Err(CustodyError::Store(_))));
    *world.forger.events_fail.lock().await = false;
    export(&world, 1, "guess", NOW).await.unwrap_err();
    assert_eq!(notices().await, 0);
    export(&world, 1, "ann's", NOW).await.unwrap();
    assert_eq!(notices().await, 1);
}

#[tokio::test]
async fn exports_are_on_hold_after_a_recovery() {
    let world = World::new(KDF).await;
    world.create(1, "ann's").await.unwrap();
    world.create(2, "bob's").await.unwrap();
    let id = RecoveryId::random();
    let recovered = world.recover(1, id, "new").await.unwrap().ready_at;
    let until = recovered.plus(RULES.hold);
    for now in [recovered, Timestamp(until.0 - 1)] {
        let refused = export(&world, 1, "new", now).await;
        let Err(CustodyError::OnHold { until: end }) = refused else { panic!("out") };
        assert_eq!(end, until);
    }
    export(&world, 2, "bob's", NOW).await.unwrap();
    export(&world, 1, "new", until).await.unwrap();
}
