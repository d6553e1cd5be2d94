//! Leaving the page: on the page, with the password, after a wait.

use std::time::Duration;

use kms_server_testing::requests::{hash, telegram};
use kms_store::Scope;
use kms_types::wire::{EventBody, ExportKey, LeavePage};
use kms_types::{ErrorCode, SecurityEvent};

use crate::page::{World, code, on_both_stores};

on_both_stores!(an_account_leaves_the_page_after_a_wait_that_the_chat_cancels);

async fn an_account_leaves_the_page_after_a_wait_that_the_chat_cancels(world: World) {
    world.onboard().await;
    let (chat, _) = world.client(Scope::Chat).await;
    let body = |words| LeavePage { password_hash: hash(words) };
    let export = ExportKey { password_hash: hash("ann's") };
    let shown = chat.account(telegram(1)).await.unwrap().unwrap();
    assert_eq!((shown.page_only, shown.leaves_page_at, shown.created_by), (true, None, None));
    let page = world.open(1, "l").await;
    assert_eq!(code(page.leave_page(&body("guess")).await), Some(ErrorCode::WrongPassword));
    let asked = page.leave_page(&body("ann's")).await.unwrap();
    assert!(asked.page_only && asked.leaves_page_at.is_some());
    let again = page.leave_page(&body("ann's")).await.unwrap();
    assert_eq!(again.leaves_page_at, asked.leaves_page_at, "a repeat does not move it");
    // The chat, the page and a freeze cancel it.
    for _ in 0..2 {
        let kept = chat.keep_page_only(telegram(1)).await.unwrap();
        assert_eq!((kept.page_only, kept.leaves_page_at), (true, None));
    }
    page.leave_page(&body("ann's")).await.unwrap();
    assert_eq!(page.keep_page_only().await.unwrap().leaves_page_at, None);
    let refused = world.test.client.export(telegram(1), &export).await;
    assert_eq!(code(refused), Some(ErrorCode::PageRequired));

    page.leave_page(&body("ann's")).await.unwrap();
    let left = async || !chat.account(telegram(1)).await.unwrap().unwrap().page_only;
    for _ in 0..1_200 {
        if left().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.test.client.export(telegram(1), &export).await.unwrap();
    // On the channel of the chat; e-mails are sent from the same events.
    let events = world.test.events(8).await.into_iter().filter_map(|event| match event.what {
        EventBody::Security { kind } => Some(kind),
        _ => None,
    });
    let (asked, cancelled) = (SecurityEvent::PageLeaveRequested, SecurityEvent::PageLeaveCancelled);
    let all = [asked, cancelled, asked, cancelled, asked, SecurityEvent::PageLeft];
    assert_eq!(events.take(6).collect::<Vec<_>>(), all);
    let early = world.open(1, "l").await.leave_page(&body("ann's")).await;
    assert_eq!(code(early), Some(ErrorCode::WrongState));
    // The token that makes a wallet is named.
    world.test.onboard(3, "eve", "eve's").await;
    let eve = chat.account(telegram(3)).await.unwrap().unwrap();
    assert!(eve.created_by.is_some() && !eve.page_only, "{eve:?}");
}
