//! Accounts, wallets, usernames, and rows that were tampered with.

use std::time::Duration;

use kms_core::account::{
    Account, AccountState, ContactChange, EmailChange, NewAccount, SwapReason, WalletSwap,
};
use kms_core::freeze::FreezeChange;
use kms_core::ports::{
    AccountStore, EmailChangeStore, ExportLog, FreezeStore, PasswordGate, PasswordGateDecision,
    RecoveryStore, StoreError,
};
use kms_core::recovery::RecoveryStage;
use kms_types::{
    AccountEvent, AccountId, AccountRef, EventCursor, EventKind, SckId, SecurityEvent, Timestamp,
};

use crate::fixtures::{Subject, account, events, insert, on_every_database, open, saw};
use crate::recoveries;

on_every_database!(
    accounts_are_read_back,
    a_tampered_account_does_not_end_a_listing,
    a_tampered_wallet_is_refused,
    a_changed_state_is_read_back,
    a_freeze_of_the_owner_cancels_the_open_recovery,
    changed_contacts_are_read_back,
    a_former_address_is_read_back,
    an_export_is_notified,
    what_was_opened_before_a_freeze_or_a_new_password_writes_nothing,
    a_requested_email_change_counts_attempts,
    one_telegram_user_has_one_account,
    a_wallet_is_swapped_from_the_version_that_was_read,
    a_wallet_is_resealed_under_the_sck_that_was_read,
    a_recovery_resets_the_password_lockout,
    names_are_claimed_and_reassigned,
    every_username_of_a_person_is_claimed,
    people_who_swap_usernames_do_not_deadlock,
    of_concurrent_claims_the_newest_wins,
);

async fn accounts_are_read_back(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "Ann").await;
    for by in [AccountRef::Id(ann.id), AccountRef::Telegram(ann.telegram_id)] {
        assert_eq!(database.account(by).await.unwrap().unwrap(), ann);
    }
    let found = database.account_by_address(ann.wallet.address).await.unwrap();
    assert_eq!(found.unwrap(), ann);
    let unknown = AccountRef::Telegram(2.try_into().unwrap());
    assert_eq!(database.account(unknown).await.unwrap(), None);
}

async fn a_tampered_account_does_not_end_a_listing(subject: Subject) {
    let database = &subject.database;
    let mut made = Vec::new();
    for id in 1..=3 {
        made.push(insert(database, id, &format!("name{id}")).await);
    }
    made.sort_by_key(|account| account.id.to_string());
    let first = database.accounts_after("", 2).await.unwrap();
    let second = database.accounts_after(&first[1].id, 2).await.unwrap();
    let listed: Vec<_> =
        first.into_iter().chain(second).map(|listed| listed.account.unwrap()).collect();
    assert_eq!(listed, made);
    assert!(database.accounts_after(&made[2].id.to_string(), 2).await.unwrap().is_empty());
    if subject.url.ends_with(":memory:") {
        return;
    }
    subject.tamper(&format!("update accounts set telegram_id = 9 where id = '{}'", made[1].id));
    let all = database.accounts_after("", 9).await.unwrap();
    let sound: Vec<_> = all.iter().map(|listed| listed.account.is_ok()).collect();
    assert_eq!(sound, [true, false, true]);
    assert_eq!(all[1].id, made[1].id.to_string());
}

async fn a_tampered_wallet_is_refused(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let read = async || database.account(ann.id.into()).await;
    let change = |column: &str, value: &str| {
        let wallets = format!("update wallets set {column} = {value}");
        subject.tamper(&format!("{wallets} where account_id = '{}'", ann.id));
    };
    let bytes = |byte: &str, length: usize| match subject.url.starts_with("postgres") {
        true => format!("decode('{}', 'hex')", byte.repeat(length)),
        false => format!("x'{}'", byte.repeat(length)),
    };
    for (column, other, own) in [
        ("public_key", &*bytes("02", 33), &*bytes("01", 33)),
        ("sealed_key", &bytes("02", 61), &bytes("01", 61)),
        ("salt", &bytes("02", 16), &bytes("01", 16)),
        ("commitment", &bytes("02", 32), &bytes("01", 32)),
        ("kdf", "'argon2id:m=8192,t=1,p=1'", "'argon2id:m=19456,t=2,p=1'"),
        ("password_version", "2", "1"),
        ("pepper_id", "2", "1"),
        ("version", "2", "1"),
    ] {
        change(column, other);
        assert!(matches!(read().await, Err(StoreError::Tampered { .. })), "{column}");
        change(column, own);
        assert_eq!(read().await.unwrap().unwrap(), ann, "{column}");
    }
}

async fn a_changed_state_is_read_back(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let at = Timestamp(7);
    for (change, state, unfreezes_at) in [
        (FreezeChange::ByOwner, AccountState::FrozenByOwner, None),
        (
            FreezeChange::RequestLift { wallet_version: 1, until: at },
            AccountState::FrozenByOwner,
            Some(at),
        ),
        (FreezeChange::LiftDue { now: at }, AccountState::Active, None),
        (FreezeChange::ByOperator, AccountState::Frozen, None),
        // Not allowed.
        (FreezeChange::LiftDue { now: at }, AccountState::Frozen, None),
        (FreezeChange::LiftByOperator, AccountState::Active, None),
    ] {
        let written = database.change_freeze(ann.id, change, at).await.unwrap().unwrap();
        assert_eq!((written.account.state, written.account.unfreezes_at), (state, unfreezes_at));
        assert_eq!(database.account(ann.id.into()).await.unwrap(), Some(written.account));
    }
    let unknown = database.change_freeze(AccountId::random(), FreezeChange::ByOwner, at).await;
    assert_eq!(unknown.unwrap(), None);
    let kinds = events(database, EventCursor::default(), 6).await;
    let kinds: Vec<_> = kinds.iter().skip(1).map(|event| event.kind).collect();
    let (frozen, unfrozen) = (SecurityEvent::AccountFrozen, SecurityEvent::AccountUnfrozen);
    let expected = [frozen, SecurityEvent::UnfreezeRequested, unfrozen, frozen, unfrozen];
    assert_eq!(kinds, expected.map(EventKind::Security));
}

async fn a_freeze_of_the_owner_cancels_the_open_recovery(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let recovery = recoveries::ready(ann.id);
    assert!(database.insert_recovery(recovery).await.unwrap());
    let at = Timestamp(1_200);
    for cancelled in [Some(recovery.id), None] {
        let written = database.change_freeze(ann.id, FreezeChange::ByOwner, at).await.unwrap();
        assert_eq!(written.unwrap().cancelled_recovery, cancelled);
    }
    let stored = database.recovery(recovery.id).await.unwrap().unwrap();
    assert_eq!(stored.written, RecoveryStage::Cancelled);
}

async fn changed_contacts_are_read_back(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let set = async |change| database.set_contact(ann.id, 1, change, Timestamp(7)).await.unwrap();
    let now = async || database.account(ann.id.into()).await.unwrap().unwrap();
    assert!(set(ContactChange::Mobile(None)).await);
    assert!(set(email_change(Some(vec![5; 40]))).await);
    let email = now().await;
    assert_eq!((email.mobile, email.email), (None, Some(vec![5; 40])));
    assert_eq!(email.email_verified_at, Some(Timestamp(7)));
    assert!(set(email_change(None)).await);
    assert_eq!((now().await.email, now().await.email_verified_at), (None, None));
    let removed = ContactChange::Mobile(None);
    assert!(!database.set_contact(AccountId::random(), 1, removed, Timestamp(7)).await.unwrap());
    let kinds = events(database, EventCursor::default(), 3).await;
    assert_eq!(kinds.len(), 3);
    let changed = EventKind::Account(AccountEvent::EmailChanged);
    assert!(kinds[1..].iter().all(|event| event.kind == changed));
}

fn email_change(email: Option<Vec<u8>>) -> ContactChange {
    ContactChange::Email { email, trusted_after: Duration::from_millis(100) }
}

async fn a_former_address_is_read_back(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let mut expected = ann.clone();
    for (email, at) in [(Some(vec![5; 40]), 7), (Some(vec![6; 40]), 200), (None, 400)] {
        let (change, at) = (email_change(email.clone()), Timestamp(at));
        assert!(database.set_contact(ann.id, 1, change, at).await.unwrap());
        expected.change_email(email, at, Duration::from_millis(100));
        expected.revision += 1;
        assert_eq!(database.account(ann.id.into()).await.unwrap().unwrap(), expected);
    }
    let former = expected.former_email.unwrap();
    assert_eq!((former.email, former.until), (vec![6; 40], Timestamp(500)));
}

async fn an_export_is_notified(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    assert!(database.record_export(ann.id, 1, Timestamp(7)).await.unwrap());
    let notified = events(database, EventCursor::default(), 2).await.remove(1);
    let exported = EventKind::Security(SecurityEvent::KeyExported);
    assert_eq!((notified.kind, notified.account), (exported, ann.id));
    assert_eq!(notified.at, Timestamp(7));
}

async fn what_was_opened_before_a_freeze_or_a_new_password_writes_nothing(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let (id, at) = (ann.id, Timestamp(7));
    let refuses_all = async || {
        let email = || Some(vec![5; 40]);
        let change = EmailChange {
            account: id,
            email: vec![5; 40],
            requested_at: at,
            tries: 0,
            codes_key: 1.try_into().unwrap(),
        };
        assert!(!database.record_export(id, 1, at).await.unwrap());
        assert!(!database.request_email_change(change, 1).await.unwrap());
        assert!(!database.set_contact(id, 1, email_change(email()), at).await.unwrap());
        assert!(!database.set_contact(id, 1, ContactChange::Mobile(email()), at).await.unwrap());
        let wallet =
            kms_core::account::Wallet { version: 2, sck_id: SckId::random(), ..ann.wallet.clone() };
        let reason = SwapReason::PasswordChange;
        let swap = WalletSwap { account: id, replaces: 1, wallet, reason, at };
        assert!(!database.swap_wallet(swap).await.unwrap());
    };
    database.change_freeze(id, FreezeChange::ByOwner, at).await.unwrap();
    refuses_all().await;
    database.change_freeze(id, FreezeChange::LiftByOperator, at).await.unwrap();
    let wallet =
        kms_core::account::Wallet { version: 2, sck_id: SckId::random(), ..ann.wallet.clone() };
    let reason = SwapReason::PasswordChange;
    let swap = WalletSwap { account: id, replaces: 1, wallet: wallet.clone(), reason, at };
    assert!(database.swap_wallet(swap).await.unwrap());
    refuses_all().await;
    let now = database.account(id.into()).await.unwrap().unwrap();
    assert_eq!((now.wallet, now.email, now.mobile), (wallet, ann.email, ann.mobile));
    assert_eq!(database.email_change(id).await.unwrap(), None);
}

async fn a_requested_email_change_counts_attempts(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let asked = |at| EmailChange {
        account: ann.id,
        email: vec![5; 40],
        requested_at: Timestamp(at),
        tries: 0,
        codes_key: 1.try_into().unwrap(),
    };
    assert!(database.request_email_change(asked(5), 1).await.unwrap());
    assert!(database.request_email_change(asked(6), 1).await.unwrap());
    assert!(!database.count_email_code_attempt(asked(5)).await.unwrap());
    assert!(database.count_email_code_attempt(asked(6)).await.unwrap());
    assert!(!database.count_email_code_attempt(asked(6)).await.unwrap());
    let tried = EmailChange { tries: 1, ..asked(6) };
    assert_eq!(database.email_change(ann.id).await.unwrap(), Some(tried));
    database.set_contact(ann.id, 1, email_change(Some(vec![5; 40])), Timestamp(7)).await.unwrap();
    assert_eq!(database.email_change(ann.id).await.unwrap(), None);
}

async fn one_telegram_user_has_one_account(subject: Subject) {
    let tries = (1..=8).map(|wallet| {
        let database = subject.database.clone();
        let account = Account { telegram_id: 1.try_into().unwrap(), ..account(wallet) };
        let new = NewAccount { account, names: None };
        tokio::spawn(async move { database.create_account(new).await.unwrap() })
    });
    let mut made = 0;
    for attempt in tries.collect::<Vec<_>>() {
        made += usize::from(attempt.await.unwrap().is_some());
    }
    assert_eq!(made, 1);
    assert_eq!(events(&subject.database, EventCursor::default(), 1).await.len(), 1);
}

async fn a_wallet_is_swapped_from_the_version_that_was_read(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let recovery = recoveries::ready(ann.id);
    assert!(database.insert_recovery(recovery).await.unwrap());
    let done = recovery.completed(Timestamp(1_200)).unwrap();
    let swap = |replaces: i64, reason| WalletSwap {
        account: ann.id,
        replaces,
        wallet: kms_core::account::Wallet {
            version: replaces + 1,
            sealed_key: vec![9; 61],
            sck_id: kms_types::SckId::random(),
            ..ann.wallet.clone()
        },
        reason,
        at: Timestamp(5),
    };
    assert!(!database.swap_wallet(swap(2, SwapReason::PasswordChange)).await.unwrap());
    assert!(database.swap_wallet(swap(1, SwapReason::PasswordChange)).await.unwrap());
    assert!(!database.swap_wallet(swap(1, SwapReason::PasswordChange)).await.unwrap());
    assert!(database.swap_wallet(swap(2, SwapReason::Recovery(done))).await.unwrap());
    // A recovery swaps the wallet once: the second attempt is rolled back.
    assert!(!database.swap_wallet(swap(3, SwapReason::Recovery(done))).await.unwrap());
    let now = database.account(ann.id.into()).await.unwrap().unwrap();
    assert_eq!((now.wallet.version, now.wallet.sealed_key), (3, vec![9; 61]));
    assert_eq!(now.recovered_at, Some(Timestamp(5)));
    assert_eq!(database.recovery(done.id).await.unwrap(), Some(done));
    // So is the recovery of another account.
    let bob = insert(database, 2, "bob").await;
    let bobs = recoveries::ready(bob.id);
    assert!(database.insert_recovery(bobs).await.unwrap());
    let bobs = bobs.completed(Timestamp(1_200)).unwrap();
    assert!(!database.swap_wallet(swap(3, SwapReason::Recovery(bobs))).await.unwrap());
    let stage = database.recovery(bobs.id).await.unwrap().unwrap().written;
    assert_eq!(stage, RecoveryStage::Waiting);
    // A wallet with another address is refused.
    let mut other = swap(3, SwapReason::PasswordChange);
    other.wallet.address = [7; 20].into();
    assert!(!database.swap_wallet(other).await.unwrap());
}

async fn a_wallet_is_resealed_under_the_sck_that_was_read(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let old = ann.wallet.sck_id;
    let newer = || kms_core::account::Wallet { sck_id: SckId::random(), ..ann.wallet.clone() };
    let wallet = newer();
    let reseal = async |wallet| database.reseal_wallet(ann.id, old, wallet).await;
    assert!(reseal(wallet.clone()).await.unwrap());
    let found = database.account(ann.id.into()).await.unwrap().unwrap();
    assert_eq!(found.wallet, wallet);
    // Refused with a stale SCK, and after a change of password.
    assert!(!reseal(newer()).await.unwrap());
    let later = kms_core::account::Wallet { version: 2, ..newer() };
    let from = wallet.sck_id;
    assert!(!database.reseal_wallet(ann.id, from, later).await.unwrap());
    assert_eq!(database.account(ann.id.into()).await.unwrap().unwrap().wallet, wallet);
    // The owner is not notified.
    insert(database, 2, "bob").await;
    let notified = events(database, EventCursor::default(), 2).await;
    let kinds: Vec<_> = notified.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Account(AccountEvent::Created); 2]);
}

async fn a_recovery_resets_the_password_lockout(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let swap = |replaces: i64, reason| WalletSwap {
        account: ann.id,
        replaces,
        wallet: kms_core::account::Wallet {
            version: replaces + 1,
            sck_id: kms_types::SckId::random(),
            ..ann.wallet.clone()
        },
        reason,
        at: Timestamp(5),
    };
    for _ in 0..5 {
        database.count_attempt(ann.id, Timestamp(5)).await.unwrap();
    }
    let attempt = async || database.count_attempt(ann.id, Timestamp(6)).await.unwrap();
    // A refused swap does not reset it, nor does a change of password.
    let recovery = recoveries::ready(ann.id);
    assert!(database.insert_recovery(recovery).await.unwrap());
    let done = recovery.completed(Timestamp(1_200)).unwrap();
    assert!(!database.swap_wallet(swap(9, SwapReason::Recovery(done))).await.unwrap());
    assert!(database.swap_wallet(swap(1, SwapReason::PasswordChange)).await.unwrap());
    assert!(matches!(attempt().await, PasswordGateDecision::LockedUntil(_)));
    assert!(database.swap_wallet(swap(2, SwapReason::Recovery(done))).await.unwrap());
    assert_eq!(attempt().await, PasswordGateDecision::Counted);
}

async fn names_are_claimed_and_reassigned(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let bob = insert(database, 2, "bob").await;
    let (name, now) = ("@ANN".parse().unwrap(), Timestamp(200));
    let found = database.resolve(&name, now).await.unwrap().unwrap();
    assert_eq!((found.account.id, found.reassigned_at), (ann.id, None));
    database.seen_usernames(bob.telegram_id, saw(&["Ann"], 100)).await.unwrap();
    let found = database.resolve(&name, now).await.unwrap().unwrap();
    assert_eq!((found.account.id, found.reassigned_at), (bob.id, Some(Timestamp(100))));
    assert_eq!(found.username.as_str(), "Ann");
    database.seen_usernames(ann.telegram_id, saw(&["ann"], 50)).await.unwrap();
    assert_eq!(database.resolve(&name, now).await.unwrap().unwrap().account.id, bob.id);
    database.seen_usernames(bob.telegram_id, saw(&[], 110)).await.unwrap();
    assert_eq!(database.resolve(&name, now).await.unwrap(), None);
    // An update from the time when Bob held the name does not claim it, though it is free.
    let carl = insert(database, 3, "carl").await;
    database.seen_usernames(carl.telegram_id, saw(&["ann"], 105)).await.unwrap();
    assert_eq!(database.resolve(&name, now).await.unwrap(), None);
    database.seen_usernames(carl.telegram_id, saw(&["ann"], 111)).await.unwrap();
    assert_eq!(database.resolve(&name, now).await.unwrap().unwrap().account.id, carl.id);
    // The name of a user without a wallet does not resolve.
    database.seen_usernames(9.try_into().unwrap(), saw(&["ghost"], 10)).await.unwrap();
    assert_eq!(database.resolve(&"ghost".parse().unwrap(), now).await.unwrap(), None);
}

async fn every_username_of_a_person_is_claimed(subject: Subject) {
    let database = &subject.database;
    let bob = insert(database, 2, "bob").await;
    let carl = insert(database, 3, "carl").await;
    let found = async |name: &str| {
        let found = database.resolve(&name.parse().unwrap(), Timestamp(200)).await.unwrap();
        found.map(|found| (found.account.id, found.reassigned_at))
    };
    let shown = async |account: &Account| {
        let account = database.account(account.id.into()).await.unwrap().unwrap();
        account.username.map(String::from)
    };
    database.seen_usernames(bob.telegram_id, saw(&["robert", "bob", "rob"], 100)).await.unwrap();
    for name in ["bob", "Robert", "rob"] {
        assert_eq!(found(name).await, Some((bob.id, None)), "{name}");
    }
    assert_eq!(shown(&bob).await.as_deref(), Some("robert"));
    // The one that is shown is sold, and another one is dropped.
    database.seen_usernames(carl.telegram_id, saw(&["carl", "robert"], 110)).await.unwrap();
    assert_eq!(found("robert").await, Some((carl.id, Some(Timestamp(110)))));
    assert_eq!(shown(&bob).await.as_deref(), Some("bob"));
    assert_eq!(shown(&carl).await.as_deref(), Some("carl"));
    database.seen_usernames(bob.telegram_id, saw(&["robert", "rob", "bob"], 105)).await.unwrap();
    assert_eq!(found("robert").await, Some((carl.id, Some(Timestamp(110)))));
    assert_eq!(shown(&bob).await.as_deref(), Some("rob"));
    database.seen_usernames(bob.telegram_id, saw(&["bob"], 120)).await.unwrap();
    assert_eq!((found("bob").await, found("rob").await), (Some((bob.id, None)), None));
    database.seen_usernames(bob.telegram_id, saw(&[], 130)).await.unwrap();
    assert_eq!((found("bob").await, shown(&bob).await), (None, None));
    if !subject.url.ends_with(":memory:") {
        assert_eq!(subject.count("names"), 5, "the history");
    }
}

/// Each of two people takes what the other one had, both ways round, again and again.
async fn people_who_swap_usernames_do_not_deadlock(subject: Subject) {
    let database = &subject.database;
    let holders = [insert(database, 1, "ann").await, insert(database, 2, "bob").await];
    for round in 0..20 {
        let swaps =
            [(0, ["ann", "gold"]), (1, ["gold", "ann"]), (0, ["bob", "x"]), (1, ["x", "bob"])];
        let swaps: Vec<_> = (0..)
            .zip(swaps)
            .map(|(step, (holder, names))| {
                let (database, holder) = (database.clone(), holders[holder].telegram_id);
                let seen = saw(&names, 1_000 + round * 10 + step);
                tokio::spawn(async move { database.seen_usernames(holder, seen).await })
            })
            .collect();
        for swap in swaps {
            swap.await.unwrap().unwrap();
        }
    }
    if subject.url.ends_with(":memory:") {
        return;
    }
    let active = "(select canonical from names where ended_at is null group by canonical \
                  having count(*) > 1) as doubled";
    assert_eq!(subject.count(active), 0);
}

async fn of_concurrent_claims_the_newest_wins(subject: Subject) {
    let database = &subject.database;
    let claim = |at| saw(&["gold"], at);
    let (mut makes, mut sees) = (Vec::new(), Vec::new());
    for id in 1..=6 {
        insert(database, 10 + id, &format!("old{id}")).await;
    }
    for id in 1..=6 {
        let (one, two) = (database.clone(), database.clone());
        let new = NewAccount { account: account(id), names: Some(claim(100 + id)) };
        makes.push(tokio::spawn(async move { one.create_account(new).await }));
        let holder = (10 + id).try_into().unwrap();
        sees.push(tokio::spawn(async move { two.seen_usernames(holder, claim(200 - id)).await }));
    }
    for make in makes {
        assert!(make.await.unwrap().unwrap().is_some());
    }
    for see in sees {
        see.await.unwrap().unwrap();
    }
    let found = database.resolve(&"gold".parse().unwrap(), Timestamp(300)).await.unwrap().unwrap();
    assert_eq!(found.account.telegram_id.as_i64(), 11);
    for id in 1..=6 {
        let by = AccountRef::Telegram(id.try_into().unwrap());
        assert!(database.account(by).await.unwrap().is_some());
    }
}

/// Another claim on the name commits while the account is created.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_lost_race_for_a_name_still_creates_the_account() {
    use diesel::{Connection, RunQueryDsl};
    let subject = Subject::postgres().await;
    let mut other = diesel::PgConnection::establish(&subject.url).unwrap();
    let mut run = |sql: &str| diesel::sql_query(sql).execute(&mut other).unwrap();
    run("begin");
    run("insert into names (telegram_id, canonical, shown, position, claimed_at, seen_at, \
         reassigned, previous, revision, mac_key, mac) \
         values (9, 'gold', 'gold', 0, 50, 50, false, '', 1, 1, '')");
    let claim = |at| saw(&["gold"], at);
    let making = [(1, 40), (2, 60)].map(|(id, at)| {
        let database = subject.database.clone();
        let new = NewAccount { account: account(id), names: Some(claim(at)) };
        tokio::spawn(async move { database.create_account(new).await.unwrap() })
    });
    while subject.waiting_for_locks() < 2 {
        tokio::task::yield_now().await;
    }
    run("commit");
    for made in making {
        assert!(made.await.unwrap().is_some());
    }
    let name = "gold".parse().unwrap();
    let found = subject.database.resolve(&name, Timestamp(60)).await.unwrap().unwrap();
    assert_eq!(found.account.telegram_id.as_i64(), 2);
}

/// Tampering by an attacker who can write to the database; the seal of the wallet is tested with
/// custody.
async fn tampered_rows_are_refused(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let bob = insert(database, 2, "bob").await;
    let by = AccountRef::Id(ann.id);
    let (one, two) = (ann.id, bob.id);
    let change = |sql: String| subject.tamper(&sql);
    change(format!("update accounts set telegram_id = 3 where id = '{one}'"));
    let refused = database.account(by).await.unwrap_err();
    assert!(matches!(refused, StoreError::Tampered { table: "accounts", .. }), "{refused}");
    change(format!("update accounts set telegram_id = 1, state = 'frozen' where id = '{one}'"));
    assert!(matches!(database.account(by).await, Err(StoreError::Tampered { .. })));
    change(format!("update accounts set state = 'active' where id = '{one}'"));
    assert!(database.account(by).await.unwrap().is_some());
    // Assigns Bob's wallet to Ann.
    change(format!("delete from wallets where account_id = '{one}'"));
    change(format!("update wallets set account_id = '{one}' where account_id = '{two}'"));
    assert!(matches!(database.account(by).await, Err(StoreError::Tampered { .. })));
    change(format!("update wallets set address = 'nonsense' where account_id = '{one}'"));
    let refused = database.account(by).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn tampered_rows_are_refused_in_a_file() {
    tampered_rows_are_refused(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn tampered_rows_are_refused_in_postgresql() {
    tampered_rows_are_refused(Subject::postgres().await).await;
}

#[tokio::test]
async fn a_file_keeps_what_was_written() {
    let subject = Subject::file().await;
    let ann = insert(&subject.database, 1, "ann").await;
    let again = open(&subject.url, &subject.keys).await;
    assert_eq!(again.account(ann.id.into()).await.unwrap().unwrap(), ann);
}

#[tokio::test]
async fn another_row_key_reads_nothing() {
    let subject = Subject::file().await;
    let ann = insert(&subject.database, 1, "ann").await;
    let mut keys = subject.keys.clone();
    keys[2] = format!("1:{}", "ee".repeat(32));
    let other = open(&subject.url, &keys).await;
    assert!(matches!(other.account(ann.id.into()).await, Err(StoreError::Tampered { .. })));
}

#[tokio::test]
async fn a_missing_row_key_is_reported_as_such() {
    let subject = Subject::file().await;
    let ann = insert(&subject.database, 1, "ann").await;
    let mut keys = subject.keys.clone();
    keys[2] = format!("2:{}", "ee".repeat(32));
    let other = open(&subject.url, &keys).await;
    let refused = other.account(ann.id.into()).await.unwrap_err();
    let StoreError::NoRowKey { table: "accounts", version, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(version.as_u8(), 1);
}
