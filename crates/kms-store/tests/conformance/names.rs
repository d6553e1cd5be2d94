//! Claims on usernames that were modified: nothing resolves by them, and the next update from
//! Telegram puts them right.

use kms_core::account::{Account, NewAccount, SeenNames, Wallet};
use kms_core::audit::{AuditRecord, Caller, Phase, Purpose};
use kms_core::ports::{AccountStore, AuditLog, StoreError};
use kms_types::{AccountId, NameOrigin, Timestamp};

use crate::fixtures::{Subject, account, insert, on_every_database, saw};

on_every_database!(
    a_modified_claim_is_refused_until_telegram_reports_it_again,
    a_claim_between_two_others_cannot_be_removed,
    a_claim_that_was_removed_or_put_back_is_refused_until_telegram_reports_it_again,
    a_proved_name_moves_by_proof_only,
    a_claim_that_a_new_account_makes_after_damage_is_recorded,
    a_creation_fails_at_once_that_no_race_refuses,
);

async fn holder(subject: &Subject, name: &str) -> Result<Option<AccountId>, StoreError> {
    let found = subject.database.resolve(&name.parse().unwrap(), Timestamp(2_000)).await?;
    Ok(found.map(|found| found.account.id))
}

/// Records what the audit has to state, as a server does.
async fn record(subject: &Subject, account: &Account, purposes: Vec<Purpose>, at: Timestamp) {
    for Purpose { action, details } in purposes {
        let (caller, phase) = (Caller::new("bot", "r-1"), Phase::Outcome("ok"));
        let (account, telegram_id) = (Some(account.id), Some(account.telegram_id));
        let record = AuditRecord { at, caller, action, phase, account, telegram_id, details };
        subject.database.append(record).await.unwrap();
    }
}

/// Puts the claims of `kept` back, as they were.
const PUT_BACK: &str = "insert into names (telegram_id, canonical, shown, position, claimed_at, \
     seen_at, proved_at, reassigned, ended_at, previous, revision, mac_key, mac) \
     select telegram_id, canonical, shown, position, claimed_at, seen_at, proved_at, \
     reassigned, ended_at, previous, revision, mac_key, mac from kept";

async fn a_modified_claim_is_refused_until_telegram_reports_it_again(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    let (ann, eve) = (insert(database, 1, "ann").await, insert(database, 2, "eve").await);
    database.seen_usernames(ann.telegram_id, saw(&["ann"], 1_500)).await.unwrap();
    let set = |change: &str, name: &str| {
        subject.tamper(&format!("update names set {change} where canonical = '{name}'"));
    };
    for (change, back) in [
        ("telegram_id = 2", "telegram_id = 1"),
        ("shown = 'Ann'", "shown = 'ann'"),
        ("position = 1", "position = 0"),
        ("seen_at = 1501", "seen_at = 1500"),
        ("proved_at = 1500", "proved_at = null"),
        ("claimed_at = claimed_at - 1", "claimed_at = claimed_at + 1"),
        ("reassigned = true", "reassigned = false"),
        ("ended_at = 1600", "ended_at = null"),
        ("mac_key = 2", "mac_key = 1"),
    ] {
        set(change, "ann");
        let refused = holder(&subject, "ann").await;
        assert!(refused.is_err(), "{change}: {refused:?}");
        set(back, "ann");
        assert_eq!(holder(&subject, "ann").await.unwrap(), Some(ann.id), "{back}");
    }
    // Another name's claim in the place of this one.
    set("canonical = 'ann2', shown = 'ann2'", "ann");
    set("canonical = 'ann', shown = 'ann'", "eve");
    assert!(matches!(holder(&subject, "ann").await, Err(StoreError::Tampered { .. })));
    database.seen_usernames(ann.telegram_id, saw(&["ann"], 1_700)).await.unwrap();
    database.seen_usernames(eve.telegram_id, saw(&["eve"], 1_700)).await.unwrap();
    for (name, account) in [("ann", &ann), ("eve", &eve)] {
        let found = database.resolve(&name.parse().unwrap(), Timestamp(2_000)).await.unwrap();
        assert_eq!(found.unwrap().account.id, account.id);
    }
    // What was known of the name is lost, so senders are warned.
    let found = database.resolve(&"ann".parse().unwrap(), Timestamp(2_000)).await.unwrap();
    assert_eq!(found.unwrap().reassigned_at, Some(Timestamp(1_700)));
}

/// Another program ends the newest claim on a name, so that its former holder is paid.
async fn a_claim_that_was_removed_or_put_back_is_refused_until_telegram_reports_it_again(
    subject: Subject,
) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    let (ann, eve) = (insert(database, 1, "ann").await, insert(database, 2, "eve").await);
    let report = async |account: &Account, at| {
        let seen = database.seen_usernames(account.telegram_id, saw(&["gold"], at));
        record(&subject, account, seen.await.unwrap(), Timestamp(at)).await;
    };
    report(&eve, 1_000).await;
    subject.tamper("create table kept as select * from names where canonical = 'gold'");
    report(&ann, 1_500).await;
    assert_eq!(holder(&subject, "gold").await.unwrap(), Some(ann.id));
    for change in [
        "delete from names where canonical = 'gold' and telegram_id = 1",
        "delete from names where canonical = 'gold'",
        PUT_BACK,
    ] {
        subject.tamper(change);
        let refused = holder(&subject, "gold").await;
        assert!(matches!(refused, Err(StoreError::Tampered { .. })), "{change}: {refused:?}");
    }
    report(&ann, 1_700).await;
    assert_eq!(holder(&subject, "gold").await.unwrap(), Some(ann.id));
    subject.tamper("delete from names where canonical = 'gold'");
    assert!(holder(&subject, "gold").await.is_err());
}

/// Another program damages the claims on a name, so that the next holder's is the first, and puts
/// the intact ones back, which would be the former holder's.
async fn a_claim_that_a_new_account_makes_after_damage_is_recorded(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    insert(database, 1, "gold").await;
    subject.tamper("create table kept as select * from names where canonical = 'gold'");
    subject.tamper("update names set position = 1 where canonical = 'gold'");
    let ann = account(2);
    let new = NewAccount { account: ann.clone(), names: Some(saw(&["gold"], 1_500)) };
    let created = database.create_account(new).await.unwrap().unwrap();
    assert_eq!(created.to_record.len(), 1);
    // What was lost with a crash is found by the holder.
    let again = database.usernames_taken_over(ann.telegram_id).await.unwrap();
    assert_eq!(again, created.to_record);
    record(&subject, &ann, created.to_record, Timestamp(1_500)).await;
    assert_eq!(holder(&subject, "gold").await.unwrap(), Some(ann.id));
    subject.tamper("delete from names where canonical = 'gold'");
    subject.tamper(PUT_BACK);
    let refused = holder(&subject, "gold").await;
    assert!(matches!(refused, Err(StoreError::Tampered { .. })), "{refused:?}");
}

/// It is not repeated as one that met a concurrent creation is.
async fn a_creation_fails_at_once_that_no_race_refuses(subject: Subject) {
    let database = &subject.database;
    let first = insert(database, 1, "ann").await;
    let bob = account(2);
    let wallet = Wallet { address: first.wallet.address, ..bob.wallet };
    let new = NewAccount { account: Account { wallet, ..bob }, names: Some(saw(&["bob"], 2)) };
    let refused = database.create_account(new).await.unwrap_err();
    let StoreError::Unavailable { source, .. } = refused else { panic!("{refused}") };
    // SQLite does not name the constraint.
    let is_named = subject.url.starts_with("postgres");
    assert_eq!(source.is::<diesel::result::Error>(), is_named, "{source}");
    assert_eq!(holder(&subject, "bob").await.unwrap(), None);
}

async fn a_proved_name_moves_by_proof_only(subject: Subject) {
    let database = &subject.database;
    let (ann, eve) = (insert(database, 1, "ann").await, insert(database, 2, "eve").await);
    let launch = |names: &[&str], at| SeenNames { origin: NameOrigin::Launch, ..saw(names, at) };
    let resolve = async || database.resolve(&"ann".parse().unwrap(), Timestamp(2_000)).await;
    let holder = async || resolve().await.unwrap().map(|found| found.account.id);
    database.seen_usernames(ann.telegram_id, launch(&["ann"], 1_000)).await.unwrap();
    assert_eq!(resolve().await.unwrap().unwrap().proved_at, Some(Timestamp(1_000)));
    // What a thief of the token reports: that the name is Eve's, that Ann has none, both.
    for (who, names, at, expected) in [
        (&eve, vec!["ann"], 1_100, Some(ann.id)),
        (&ann, vec![], 1_200, None),
        (&eve, vec!["ann"], 1_300, None),
        (&ann, vec!["ann"], 1_400, Some(ann.id)),
        (&eve, vec!["ann"], 1_500, Some(ann.id)),
        (&ann, vec![], 1_600, None),
    ] {
        database.seen_usernames(who.telegram_id, saw(&names, at)).await.unwrap();
        assert_eq!(holder().await, expected, "{at}");
    }
    // Ann's launch, signed before the last report, puts it right.
    database.seen_usernames(ann.telegram_id, launch(&["ann"], 1_550)).await.unwrap();
    assert_eq!(holder().await, Some(ann.id));
    // Eve has it since, as Telegram signed. It can be paid at once; a token's word would not do.
    database.seen_usernames(eve.telegram_id, launch(&["ann"], 1_700)).await.unwrap();
    let found = resolve().await.unwrap().unwrap();
    assert_eq!((found.account.id, found.payable_from), (eve.id, None));
    assert_eq!(found.reassigned_at, Some(Timestamp(1_700)));
    database.seen_usernames(ann.telegram_id, saw(&["eve"], 1_800)).await.unwrap();
    let found = database.resolve(&"eve".parse().unwrap(), Timestamp(2_000)).await.unwrap();
    let from = found.unwrap().payable_from;
    assert_eq!(from, Some(Timestamp(1_800).plus(name_service::UNPAYABLE_FOR)));
}

async fn a_claim_between_two_others_cannot_be_removed(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    for id in 1..=3 {
        let account = insert(database, id, &format!("name{id}")).await;
        let at = 2_000 + id;
        database.seen_usernames(account.telegram_id, saw(&["gold"], at)).await.unwrap();
    }
    assert!(holder(&subject, "gold").await.unwrap().is_some());
    subject.tamper("delete from names where canonical = 'gold' and telegram_id = 2");
    assert!(matches!(holder(&subject, "gold").await, Err(StoreError::Tampered { .. })));
}
