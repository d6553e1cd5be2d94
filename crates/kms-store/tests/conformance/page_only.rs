//! Accounts that are used on the vault page alone.

use kms_core::freeze::FreezeChange;
use kms_core::page_only::PageChange;
use kms_core::ports::{AccountStore, FreezeStore, StoreError};
use kms_types::{AccountId, EventCursor, EventKind, SecurityEvent, Timestamp};

use crate::fixtures::{Subject, events, insert, on_every_database};

on_every_database!(
    an_account_is_page_only_from_the_first_time_on,
    an_account_leaves_the_page_after_the_wait,
    due_leaves_are_found_past_unreadable_rows,
    due_unfreezes_are_found_past_unreadable_rows,
);

async fn an_account_is_page_only_from_the_first_time_on(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let read = async || database.account(ann.id.into()).await.unwrap().unwrap().page_only_since;
    let enter = |at| PageChange::Enter { now: Timestamp(at) };
    assert_eq!(read().await, None);
    for at in [7, 8] {
        let entered = database.change_page(ann.id, enter(at), Timestamp(at)).await.unwrap();
        assert_eq!(entered.unwrap().page_only_since, Some(Timestamp(7)));
        assert_eq!(read().await, Some(Timestamp(7)));
    }
    // A change of the same row keeps it.
    database.change_freeze(ann.id, FreezeChange::ByOwner, Timestamp(9)).await.unwrap();
    assert_eq!(read().await, Some(Timestamp(7)));
    let unknown = database.change_page(AccountId::random(), enter(1), Timestamp(1)).await;
    assert_eq!(unknown.unwrap(), None);
    if !subject.url.ends_with(":memory:") {
        subject.tamper("update accounts set page_only_since = null");
        let found = database.account(ann.id.into()).await;
        assert!(matches!(found, Err(StoreError::Tampered { .. })), "{found:?}");
    }
}

async fn an_account_leaves_the_page_after_the_wait(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let leave = |until| PageChange::RequestLeave { wallet_version: 1, until: Timestamp(until) };
    let due = |now| PageChange::LeaveDue { now: Timestamp(now) };
    let (since, none) = (Some(Timestamp(5)), None);
    for (change, dates) in [
        (PageChange::Enter { now: Timestamp(5) }, (since, none)),
        (leave(20), (since, Some(Timestamp(20)))),
        (leave(10), (since, Some(Timestamp(20)))),
        (PageChange::Keep, (since, none)),
        (PageChange::Keep, (since, none)),
        (leave(30), (since, Some(Timestamp(30)))),
        (due(29), (since, Some(Timestamp(30)))),
        (due(30), (none, none)),
    ] {
        let written = database.change_page(ann.id, change, Timestamp(6)).await.unwrap().unwrap();
        assert_eq!((written.page_only_since, written.page_only_until), dates, "{change:?}");
        assert_eq!(database.account(ann.id.into()).await.unwrap(), Some(written));
    }
    let kinds = events(database, EventCursor::default(), 5).await;
    let kinds: Vec<_> = kinds.iter().skip(1).map(|event| event.kind).collect();
    let asked = SecurityEvent::PageLeaveRequested;
    let expected = [asked, SecurityEvent::PageLeaveCancelled, asked, SecurityEvent::PageLeft];
    assert_eq!(kinds, expected.map(EventKind::Security));
}

async fn due_unfreezes_are_found_past_unreadable_rows(subject: Subject) {
    let database = &subject.database;
    let mut ids = Vec::new();
    for id in 1..=13 {
        let account = insert(database, id, &format!("name{id}")).await;
        let lift = FreezeChange::RequestLift { wallet_version: 1, until: Timestamp(10 + id) };
        for change in [FreezeChange::ByOwner, lift] {
            database.change_freeze(account.id, change, Timestamp(5)).await.unwrap().unwrap();
        }
        ids.push(account.id);
    }
    let due = async |now, limit| database.due_unfreezes(Timestamp(now), limit).await.unwrap();
    assert_eq!((due(10, 10).await, due(12, 10).await), (vec![], vec![ids[1], ids[0]]));
    assert_eq!(due(12, 0).await, []);
    if subject.url.ends_with(":memory:") {
        return;
    }
    let spoil = |id: AccountId| {
        subject.tamper(&format!("update accounts set created_at = 1 where id = '{id}'"));
    };
    spoil(ids[2]);
    assert_eq!(due(13, 10).await, [ids[1], ids[0]]);
    // Also if they fill the first page.
    assert_eq!(due(13, 1).await, [ids[1]]);
    // However many they are: a search ends after some pages, and the next goes on there.
    for id in &ids[3..] {
        spoil(*id);
    }
    for _ in 0..2 {
        assert_eq!((due(23, 1).await, due(23, 1).await), (vec![], vec![ids[1]]));
    }
}

async fn due_leaves_are_found_past_unreadable_rows(subject: Subject) {
    let database = &subject.database;
    let mut ids = Vec::new();
    for id in 1..=3 {
        let account = insert(database, id, &format!("name{id}")).await;
        let until = Timestamp(10 + id);
        let leave = PageChange::RequestLeave { wallet_version: 1, until };
        for change in [PageChange::Enter { now: Timestamp(5) }, leave] {
            database.change_page(account.id, change, Timestamp(5)).await.unwrap().unwrap();
        }
        ids.push(account.id);
    }
    let due = async |now, limit| database.due_page_leaves(Timestamp(now), limit).await.unwrap();
    assert_eq!((due(10, 10).await, due(12, 10).await), (vec![], vec![ids[1], ids[0]]));
    if !subject.url.ends_with(":memory:") {
        subject.tamper(&format!("update accounts set page_only_since = 1 where id = '{}'", ids[2]));
        assert_eq!(due(13, 10).await, [ids[1], ids[0]]);
        // Also if they fill the first page.
        assert_eq!(due(13, 1).await, [ids[1]]);
    }
}
