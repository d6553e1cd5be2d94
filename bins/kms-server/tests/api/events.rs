//! Long polls for events: they end with an event, with their time, or with the server.

use std::time::{Duration, Instant};

use kms_client::Client;
use kms_server_testing::{TestServer, on_both_stores};
use kms_types::wire::EventPage;
use kms_types::{EventCursor, EventStream};
use tokio::task::JoinHandle;

on_both_stores!(
    a_poll_ends_when_an_event_arrives,
    a_poll_without_events_waits_for_its_whole_time,
    a_stopping_server_ends_its_polls,
);

const STREAM: EventStream = EventStream::Security;
const WAIT: Duration = Duration::from_secs(60);

/// Begins a poll, and returns when the server handles it, which acknowledges `after`.
async fn begin(test: &TestServer, after: EventCursor) -> JoinHandle<EventPage> {
    let client: Client = test.client.clone();
    let acknowledged = Some(after);
    let poll =
        async move { client.events(STREAM, acknowledged, acknowledged, WAIT).await.unwrap() };
    let poll = tokio::spawn(poll);
    while test.database.acknowledged_events("bot-security").await.unwrap() != after {
        tokio::task::yield_now().await;
    }
    poll
}

async fn a_poll_ends_when_an_event_arrives(test: TestServer) {
    test.onboard(1, "ann", "a").await;
    let after = test.events(1).await[0].cursor;
    let started = Instant::now();
    let poll = begin(&test, after).await;
    let bob = test.onboard(2, "bob", "b").await;
    let page = poll.await.unwrap();
    assert!(started.elapsed() < WAIT / 2, "{:?}", started.elapsed());
    let whose: Vec<_> = page.events.iter().map(|event| event.account).collect();
    assert_eq!(whose, [bob.id]);
    assert!(page.next > after);
}

async fn a_poll_without_events_waits_for_its_whole_time(test: TestServer) {
    let wait = Duration::from_secs(1);
    let started = Instant::now();
    let page = test.client.events(STREAM, None, None, wait).await.unwrap();
    assert!(started.elapsed() >= wait, "{:?}", started.elapsed());
    assert_eq!((page.events.len(), page.next), (0, EventCursor::default()));
}

async fn a_stopping_server_ends_its_polls(test: TestServer) {
    test.onboard(1, "ann", "a").await;
    let after = test.events(1).await[0].cursor;
    let started = Instant::now();
    let poll = begin(&test, after).await;
    test.server.stop().await.unwrap();
    let page = poll.await.unwrap();
    assert!(started.elapsed() < WAIT / 2, "{:?}", started.elapsed());
    assert_eq!((page.events.len(), page.next), (0, after));
}
