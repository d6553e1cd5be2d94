//! Recoveries: one open at a time, one step after another, and rows that were tampered with.

use std::time::Duration;

use kms_core::account::{SwapReason, Wallet, WalletSwap};
use kms_core::audit::Caller;
use kms_core::freeze::FreezeChange;
use kms_core::page_only::PageChange;
use kms_core::ports::{AccountStore, FreezeStore, PasswordGate, RecoveryStore, StoreError};
use kms_core::recovery::{Recovery, RecoveryCode, RecoveryStage};
use kms_store::{Database, KeyDatabase, Pausable, Paused, open_key_database};
use kms_types::{
    AccountId, EventCursor, EventKind, EventStream, RecoveryId, RecoveryStep, TelegramId, Timestamp,
};

use crate::fixtures::{Subject, events, insert, on_every_database};

on_every_database!(
    an_account_has_one_open_recovery,
    of_two_concurrent_steps_one_is_written,
    due_recoveries_are_found,
    a_correct_password_cancels,
    a_move_gives_the_account_to_a_user_without_one,
    recoveries_and_payments_are_paused_and_resumed,
    a_pause_makes_every_wait_longer,
    a_lease_has_one_holder,
);

/// A recovery requested at 100, ready from 1,100 to 1,300.
pub(crate) fn ready(account: AccountId) -> Recovery {
    Recovery {
        id: RecoveryId::random(),
        account,
        written: RecoveryStage::Waiting,
        code: RecoveryCode::Sent { until: Timestamp(500), tries: 0 },
        codes_key: 1.try_into().unwrap(),
        moves_to: None,
        requested_at: Timestamp(100),
        ready_at: Timestamp(1_100),
        expires_at: Timestamp(1_300),
        version: 1,
    }
}

async fn steps(database: &Database, count: usize) -> Vec<(RecoveryStep, Option<RecoveryId>)> {
    let found = events(database, EventCursor::default(), count).await;
    let step = |kind| match kind {
        EventKind::Recovery(step) => Some(step),
        _ => None,
    };
    found.into_iter().filter_map(|event| Some((step(event.kind)?, event.recovery))).collect()
}

async fn an_account_has_one_open_recovery(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let first = ready(ann.id);
    assert!(database.insert_recovery(first).await.unwrap());
    assert!(!database.insert_recovery(first).await.unwrap());
    assert!(!database.insert_recovery(ready(ann.id)).await.unwrap());
    assert_eq!(database.recovery(first.id).await.unwrap(), Some(first));
    assert_eq!(database.open_recovery(ann.id).await.unwrap(), Some(first));
    let stopped = first.cancelled(Timestamp(200)).unwrap();
    let step = Some(RecoveryStep::Cancelled);
    assert!(database.update_recovery(stopped, step, Timestamp(200)).await.unwrap());
    assert_eq!(database.open_recovery(ann.id).await.unwrap(), None);
    assert!(database.insert_recovery(ready(ann.id)).await.unwrap());
    let notified = steps(database, 4).await;
    let kinds: Vec<_> = notified.iter().map(|(step, _)| *step).collect();
    use RecoveryStep::{Cancelled, Requested};
    assert_eq!(kinds, [Requested, Cancelled, Requested]);
    assert_eq!(notified[1].1, Some(first.id));
}

async fn of_two_concurrent_steps_one_is_written(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let first = ready(ann.id);
    assert!(database.insert_recovery(first).await.unwrap());
    let tried = first.code_tried(Timestamp(200)).unwrap();
    let tries = (0..8).map(|_| {
        let database = database.clone();
        tokio::spawn(async move { database.update_recovery(tried, None, Timestamp(200)).await })
    });
    let mut taken = 0;
    for attempt in tries.collect::<Vec<_>>() {
        taken += usize::from(attempt.await.unwrap().unwrap());
    }
    assert_eq!(taken, 1);
    assert_eq!(database.recovery(first.id).await.unwrap(), Some(tried));
    let confirmed = tried.code_confirmed(&Default::default(), Timestamp(200)).unwrap();
    assert!(database.update_recovery(confirmed, None, Timestamp(200)).await.unwrap());
    assert_eq!(database.recovery(first.id).await.unwrap(), Some(confirmed));
}

async fn due_recoveries_are_found(subject: Subject) {
    let database = &subject.database;
    let mut made = Vec::new();
    for id in 1..=3 {
        let account = insert(database, id, &format!("name{id}")).await;
        let recovery = ready(account.id);
        assert!(database.insert_recovery(recovery).await.unwrap());
        made.push(recovery);
    }
    let due = async |now| {
        let due = database.due_recoveries(Timestamp(now), 10).await.unwrap();
        due.into_iter().map(|recovery| recovery.id).collect::<Vec<_>>()
    };
    assert!(due(1_099).await.is_empty());
    assert_eq!(due(1_100).await.len(), 3);
    let stopped = made[0].cancelled(Timestamp(200)).unwrap();
    assert!(database.update_recovery(stopped, None, Timestamp(200)).await.unwrap());
    let advanced = made[1].due(Timestamp(1_100)).unwrap();
    assert!(database.update_recovery(advanced, None, Timestamp(1_100)).await.unwrap());
    assert_eq!(due(1_200).await, [made[2].id]);
    assert_eq!(due(1_300).await.len(), 2);
    let open = database.open_recoveries().await.unwrap();
    assert_eq!(open.len(), 2);
}

async fn a_move_gives_the_account_to_a_user_without_one(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    insert(database, 2, "bob").await;
    let user = |id: i64| TelegramId::try_from(id).unwrap();
    let swap = |recovery| WalletSwap {
        account: ann.id,
        replaces: 1,
        wallet: Wallet { version: 2, sealed_key: vec![9; 61], ..ann.wallet.clone() },
        reason: SwapReason::Move(recovery),
        at: Timestamp(1_200),
    };
    for (to, is_moved) in [(None, false), (Some(user(2)), false), (Some(user(9)), true)] {
        let requested = Recovery { code: RecoveryCode::None, moves_to: to, ..ready(ann.id) };
        assert!(database.insert_recovery(requested).await.unwrap());
        let done = requested.completed(Timestamp(1_200)).unwrap();
        assert_eq!(database.swap_wallet(swap(done)).await.unwrap(), is_moved, "{to:?}");
        if is_moved {
            assert_eq!(database.recovery(done.id).await.unwrap(), Some(done));
            assert!(!database.swap_wallet(swap(done)).await.unwrap(), "once");
            continue;
        }
        // Nothing was written.
        assert_eq!(database.account(user(1).into()).await.unwrap().as_ref(), Some(&ann));
        assert_eq!(database.recovery(done.id).await.unwrap(), Some(requested));
        let cancelled = requested.cancelled(Timestamp(200)).unwrap();
        assert!(database.update_recovery(cancelled, None, Timestamp(200)).await.unwrap());
    }
    assert_eq!(database.account(user(1).into()).await.unwrap(), None);
    let moved = database.account(user(9).into()).await.unwrap().unwrap();
    assert_eq!((moved.id, moved.wallet.version, moved.recovered_at), (ann.id, 2, None));
    let found = database.events_after(EventStream::Security, EventCursor::default(), 100).await;
    let notified = found.unwrap().events.into_iter().filter(|it| it.telegram_id == user(1));
    let kinds: Vec<_> = notified.map(|event| event.kind).collect();
    let [requested, moved] =
        [RecoveryStep::MoveRequested, RecoveryStep::Moved].map(EventKind::Recovery);
    // Also what was not read before the move.
    assert_eq!(kinds, [requested, requested, moved]);
}

#[tokio::test]
async fn a_page_of_unreadable_recoveries_hides_no_other() {
    let subject = Subject::file().await;
    let database = &subject.database;
    let mut ids = Vec::new();
    for id in 1..=5 {
        let account = insert(database, id, &format!("name{id}")).await;
        let recovery = ready(account.id);
        assert!(database.insert_recovery(recovery).await.unwrap());
        ids.push(recovery.id);
    }
    // Its wait is the first to be over, so it is on the last page.
    let last = ids[2];
    subject.tamper(&format!("update recoveries set ready_at = ready_at + 1 where id <> '{last}'"));
    let due = database.due_recoveries(Timestamp(1_200), 2).await.unwrap();
    assert_eq!(due.into_iter().map(|recovery| recovery.id).collect::<Vec<_>>(), [last]);
}

async fn a_correct_password_cancels(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let bob = insert(database, 2, "bob").await;
    let (anns, bobs) = (ready(ann.id), ready(bob.id));
    for recovery in [anns, bobs] {
        assert!(database.insert_recovery(recovery).await.unwrap());
    }
    assert_eq!(database.accept(ann.id, Timestamp(200)).await.unwrap(), Some(anns.id));
    assert_eq!(database.accept(ann.id, Timestamp(200)).await.unwrap(), None);
    let stage = async |id| database.recovery(id).await.unwrap().unwrap().written;
    assert_eq!(stage(anns.id).await, RecoveryStage::Cancelled);
    assert_eq!(stage(bobs.id).await, RecoveryStage::Waiting);
    assert_eq!(steps(database, 5).await.last(), Some(&(RecoveryStep::Cancelled, Some(anns.id))));
}

async fn recoveries_and_payments_are_paused_and_resumed(subject: Subject) {
    let keys = open_key_database("sqlite::memory:", "").await.unwrap();
    pause_and_resume(&subject, &*keys, Pausable::Recoveries).await;
    pause_and_resume(&subject, &*keys, Pausable::Payments { chain_id: 8453 }).await;
    pause_and_resume(&subject, &*keys, Pausable::AllPayments).await;
    let chains = subject.database.chains_ever_paused(&*keys).await.unwrap();
    assert_eq!(chains.into_iter().collect::<Vec<_>>(), [8453]);
    // One pause is none of another.
    for other in [Pausable::Payments { chain_id: 1 }, Pausable::Payments { chain_id: 845 }] {
        assert!(subject.database.paused(other, &*keys).await.unwrap().is_none());
        let line = keys.pause_line("payments/8453").await.unwrap().unwrap();
        keys.put_pause_line(&other.to_string(), &line).await.unwrap();
        let paused = subject.database.paused(other, &*keys).await.unwrap();
        assert!(matches!(paused, Some(Paused::Unreadable(_))));
    }
}

fn operator() -> Caller {
    Caller::new("resume", "")
}

async fn resume(database: &Database, what: Pausable, keys: &dyn KeyDatabase, now: i64) -> bool {
    let now = Timestamp(now);
    let resumed = match what {
        Pausable::Recoveries => {
            database.resume_recoveries(keys, Duration::ZERO, &operator(), now).await
        }
        Pausable::AllPayments => database.resume_payments(None, keys, now).await,
        Pausable::Payments { chain_id } => {
            database.resume_payments(Some(chain_id), keys, now).await
        }
    };
    resumed.unwrap()
}

/// Leaves it paused.
async fn pause_and_resume(subject: &Subject, keys: &dyn KeyDatabase, what: Pausable) {
    let database = &subject.database;
    let name = what.to_string();
    let paused = async || database.paused(what, keys).await.unwrap();
    let since = async || match paused().await {
        Some(Paused::Since(since)) => Some(since),
        Some(Paused::Unreadable(error)) => panic!("{error}"),
        None => None,
    };
    assert_eq!(since().await, None);
    assert!(!resume(database, what, keys, 6).await);
    database.pause(what, keys, Timestamp(7)).await.unwrap();
    database.pause(what, keys, Timestamp(8)).await.unwrap();
    assert_eq!(since().await, Some(Timestamp(7)));
    let line = keys.pause_line(&name).await.unwrap().unwrap();
    assert!(resume(database, what, keys, 9).await);
    assert_eq!(since().await, None);
    // Either of the two holds it: put back, or not believed.
    let resumed = keys.pause_line(&name).await.unwrap().unwrap();
    keys.put_pause_line(&name, &line).await.unwrap();
    assert_eq!(since().await, Some(Timestamp(7)));
    for forged in [resumed.replacen('9', "8", 1), line.replacen('1', "0", 1), String::new()] {
        keys.put_pause_line(&name, &forged).await.unwrap();
        assert!(matches!(paused().await, Some(Paused::Unreadable(_))), "{forged}");
    }
    assert!(resume(database, what, keys, 9).await);
    database.pause(what, keys, Timestamp(10)).await.unwrap();
    if subject.url.ends_with(":memory:") {
        return;
    }
    subject.tamper("update switches set paused = false");
    assert!(matches!(paused().await, Some(Paused::Unreadable(_))));
    subject.tamper("delete from switches");
    assert_eq!(since().await, Some(Timestamp(10)));
}

async fn a_pause_makes_every_wait_longer(subject: Subject) {
    let database = &subject.database;
    let keys = open_key_database("sqlite::memory:", "").await.unwrap();
    let keys = &*keys;
    let mut accounts = Vec::new();
    for id in 1..=4 {
        accounts.push(insert(database, id, &format!("name{id}")).await.id);
    }
    let [ann, bob, carl, dora] = accounts[..] else { panic!() };
    // Requested at 100, ready at 1,100; and one that was requested and cancelled.
    let (anns, bobs) = (ready(ann), ready(bob));
    for recovery in [anns, bobs] {
        assert!(database.insert_recovery(recovery).await.unwrap());
    }
    let cancelled = bobs.cancelled(Timestamp(200)).unwrap();
    assert!(database.update_recovery(cancelled, None, Timestamp(200)).await.unwrap());
    let lift = |until| FreezeChange::RequestLift { wallet_version: 1, until: Timestamp(until) };
    let leave = PageChange::RequestLeave { wallet_version: 1, until: Timestamp(900) };
    database.change_freeze(carl, FreezeChange::ByOwner, Timestamp(1)).await.unwrap();
    database.change_freeze(carl, lift(700), Timestamp(1)).await.unwrap();
    database
        .change_page(dora, PageChange::Enter { now: Timestamp(1) }, Timestamp(1))
        .await
        .unwrap();
    database.change_page(dora, leave, Timestamp(1)).await.unwrap();
    database.pause(Pausable::Recoveries, keys, Timestamp(500)).await.unwrap();
    let wait = Duration::from_millis(1_000);
    let line = keys.pause_line("recoveries").await.unwrap().unwrap();
    assert!(database.resume_recoveries(keys, wait, &operator(), Timestamp(2_500)).await.unwrap());
    let found = async || {
        let recovery = database.recovery(anns.id).await.unwrap().unwrap();
        let unfreezes = database.account(carl.into()).await.unwrap().unwrap().unfreezes_at;
        let leaves = database.account(dora.into()).await.unwrap().unwrap().page_only_until;
        let ends = [Some(recovery.ready_at), Some(recovery.expires_at), unfreezes, leaves];
        ends.map(|end| end.unwrap().0)
    };
    assert_eq!(found().await, [3_100, 3_300, 2_700, 2_900]);
    assert_eq!(database.recovery(bobs.id).await.unwrap(), Some(cancelled));
    assert_eq!(database.due_recoveries(Timestamp(3_099), 10).await.unwrap(), []);
    // Resumed in one database alone, as after a crash: the pause before that is not added again.
    keys.put_pause_line("recoveries", &line).await.unwrap();
    assert!(database.resume_recoveries(keys, wait, &operator(), Timestamp(2_600)).await.unwrap());
    assert_eq!(found().await, [3_200, 3_400, 2_800, 3_000]);
    // Of a pause whose time is not known, every wait begins again.
    keys.put_pause_line("recoveries", "forged").await.unwrap();
    assert!(database.resume_recoveries(keys, wait, &operator(), Timestamp(2_700)).await.unwrap());
    assert_eq!(found().await, [5_800, 6_000, 3_700, 3_700]);
}

async fn a_lease_has_one_holder(subject: Subject) {
    let database = &subject.database;
    let acquire = async |holder| {
        database.acquire_lease("mail", holder, Duration::from_secs(60)).await.unwrap()
    };
    let release = async |holder| database.release_lease("mail", holder).await.unwrap();
    assert!(acquire("one").await);
    assert!(!acquire("other").await);
    assert!(acquire("one").await, "renewed");
    release("other").await;
    assert!(!acquire("other").await, "released by a server that does not hold it");
    release("one").await;
    assert!(acquire("other").await);
    assert!(!acquire("one").await);
}

/// An attacker who can write to the table can neither shorten a wait nor reopen a recovery.
#[tokio::test]
async fn a_tampered_row_is_refused() {
    for change in [
        "ready_at = 100",
        "expires_at = 9000",
        "stage = 'ready'",
        "code = 'confirmed', code_until = null",
        "code_tries = 3",
        "account_id = (select max(id) from accounts)",
        "version = 7",
    ] {
        let subject = Subject::file().await;
        let (database, mut accounts) = (&subject.database, Vec::new());
        for id in 1..=2 {
            accounts.push(insert(database, id, &format!("name{id}")).await);
        }
        accounts.sort_by_key(|account| account.id.to_string());
        let recovery = ready(accounts[0].id);
        assert!(database.insert_recovery(recovery).await.unwrap());
        subject.tamper(&format!("update recoveries set {change}"));
        let found = database.recovery(recovery.id).await;
        assert!(matches!(found, Err(StoreError::Tampered { .. })), "{change}: {found:?}");
    }
}
