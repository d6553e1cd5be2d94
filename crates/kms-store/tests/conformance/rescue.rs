//! Accounts whose rows fail their integrity check: they are read as damaged, and a rescue writes
//! rows that pass it.

use std::time::Duration;

use kms_chain::spending::Caps;
use kms_core::account::{Account, AccountState, EmailChange};
use kms_core::ports::{AccountStore, EmailChangeStore, RecoveryStore, RescueStore};
use kms_core::recovery::RecoveryStage;
use kms_core::rescue::DamagedAccount;
use kms_store::{Proposal, Raises};
use kms_types::{EventCursor, EventKind, SecurityEvent, Timestamp, U256, Units};

use crate::fixtures::{Subject, events, insert, on_every_database};
use crate::recoveries;
use crate::transfers::COIN;

on_every_database!(
    what_is_damaged_is_named_and_written_again,
    a_sound_account_keeps_what_it_has,
    a_proposal_is_replaced_read_and_deleted,
);

const NOW: Timestamp = Timestamp(9_000);

async fn what_is_damaged_is_named_and_written_again(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let recovery = recoveries::ready(ann.id);
    assert!(database.insert_recovery(recovery).await.unwrap());
    let change = EmailChange {
        account: ann.id,
        email: vec![5; 40],
        requested_at: Timestamp(5),
        tries: 0,
        codes_key: 1.try_into().unwrap(),
    };
    assert!(database.request_email_change(change, 1).await.unwrap());
    let (five, day) = (Some(Units(U256::from(5))), Duration::from_secs(60));
    database
        .set_spending_limit(ann.id, COIN, five, (day, Raises::Always), NOW)
        .await
        .unwrap()
        .unwrap();
    let damaged = async || database.damaged_account(ann.id.into()).await.unwrap().unwrap();
    assert_eq!(damaged().await, DamagedAccount { account: ann.clone(), damage: Vec::new() });
    for (table, change) in [
        ("accounts", "update accounts set state = 'nonsense', created_at = 1"),
        ("email_changes", "update email_changes set requested_at = 6"),
        ("recoveries", "update recoveries set ready_at = 1"),
        ("spending_limits", "update spending_limits set units = 'none'"),
    ] {
        subject.tamper(change);
        assert_eq!(damaged().await.damage.last(), Some(&table));
    }
    subject.tamper("update wallets set commitment = mac, public_key = mac from accounts");
    let stored = damaged().await;
    assert_eq!(stored.damage, ["accounts", "email_changes", "recoveries", "spending_limits"]);
    let rescued = Account { wallet: ann.wallet.clone(), ..stored.clone().rescued(NOW) };
    // Not what changed since it was read.
    let other = DamagedAccount { damage: Vec::new(), ..stored.clone() };
    assert!(!database.rescue_account(&other, rescued.clone(), NOW).await.unwrap());
    assert!(database.account(ann.id.into()).await.is_err());
    assert!(database.rescue_account(&stored, rescued.clone(), NOW).await.unwrap());
    assert!(!database.rescue_account(&stored, rescued, NOW).await.unwrap());

    let after = database.account(ann.id.into()).await.unwrap().unwrap();
    assert_eq!((after.state, &after.wallet), (AccountState::FrozenByOwner, &ann.wallet));
    assert_eq!((after.created_at, after.recovered_at), (NOW, Some(NOW)));
    assert_eq!(damaged().await.damage, Vec::<&str>::new());
    assert_eq!(database.email_change(ann.id).await.unwrap(), None);
    let ended = database.recovery(recovery.id).await.unwrap().unwrap();
    assert_eq!(ended.written, RecoveryStage::Cancelled);
    assert_eq!(database.open_recovery(ann.id).await.unwrap(), None);
    let spending = database.spending(ann.id, COIN, Caps::default(), NOW).await.unwrap();
    assert_eq!(spending.own.units, None);
    let frozen = EventKind::Security(SecurityEvent::AccountFrozen);
    let events = events(database, EventCursor::default(), 4).await;
    assert_eq!(events.iter().filter(|event| event.kind == frozen).count(), 1);
}

async fn a_sound_account_keeps_what_it_has(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    assert!(database.insert_recovery(recoveries::ready(ann.id)).await.unwrap());
    subject.tamper("update recoveries set ready_at = 1");
    let stored = database.damaged_account(ann.id.into()).await.unwrap().unwrap();
    assert_eq!(stored.damage, ["recoveries"]);
    let rescued = stored.clone().rescued(NOW);
    assert!(database.rescue_account(&stored, rescued, NOW).await.unwrap());
    let after = database.account(ann.id.into()).await.unwrap().unwrap();
    assert_eq!(after, Account { state: AccountState::FrozenByOwner, ..ann });
}

async fn a_proposal_is_replaced_read_and_deleted(subject: Subject) {
    let database = &subject.database;
    let proposal = |person: &str| Proposal {
        action: "rescue".to_owned(),
        subject: "1".to_owned(),
        digest: [7; 32],
        person: person.to_owned(),
        reason: "ticket".to_owned(),
        proposed_at: NOW,
    };
    for person in ["pat", "kim"] {
        database.propose(proposal(person)).await.unwrap();
    }
    let found = async || database.proposal("rescue", "1".to_owned()).await;
    assert_eq!(found().await.unwrap(), Some(proposal("kim")));
    assert_eq!(database.proposal("rescue", "2".to_owned()).await.unwrap(), None);
    if !subject.url.ends_with(":memory:") {
        subject.tamper("update proposals set digest = mac");
        assert!(found().await.is_err());
    }
    database.delete_proposal("rescue", "1".to_owned()).await.unwrap();
    assert_eq!(found().await.unwrap(), None);
}
