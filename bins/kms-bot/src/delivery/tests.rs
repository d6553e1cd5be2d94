use serde_json::json;

use super::*;

fn waiting(what: &serde_json::Value) -> Waiting {
    let mut event = json!({
        "cursor": "1-1", "account": uuid(1), "telegram_id": 1, "at": 0,
    });
    event.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    let event = serde_json::from_value(event).unwrap();
    Waiting { event, since: Instant::now(), undelivered: Arc::default() }
}

fn uuid(last: u8) -> String {
    format!("00000000-0000-4000-8000-{last:012}")
}

fn deposit() -> Waiting {
    let deposit = json!({ "chain_id": 1, "value": "1", "block": 1, "count": 1 });
    waiting(&json!({ "kind": "deposit_received", "deposit": deposit }))
}

#[test]
fn security_comes_first_and_deposits_last() {
    let mut queue = Queue::default();
    for _ in 0..5 {
        queue.add_payment(deposit());
    }
    queue.retry = Some(Digest::of(deposit()));
    for _ in 0..2 {
        queue.alerts.push_back(waiting(&json!({ "kind": "key_exported" })));
    }
    assert!(matches!(queue.next(), Some(Next::Alert(_))));
    queue.add_payment(deposit());
    assert!(matches!(queue.next(), Some(Next::Alert(_))));
    for count in [1, 6] {
        let Some(Next::Digest(digest)) = queue.next() else { panic!("{count} deposits") };
        assert_eq!(digest.received.iter().map(Received::count).sum::<u64>(), count);
    }
    assert!(queue.next().is_none() && queue.is_empty());
}

fn alert() -> Waiting {
    let event = serde_json::json!({
        "cursor": "1-1", "account": "0b5ae8e2-1f0b-4c3d-9a57-0f9f7a3c2b11", "telegram_id": 1,
        "at": 1, "kind": "key_exported",
    });
    let event: Event = serde_json::from_value(event).unwrap();
    Waiting { event, since: Instant::now(), undelivered: Arc::default() }
}

#[test]
fn a_notice_that_has_to_wait_is_put_back() {
    let mut queue = Queue::default();
    queue.wait(Next::Alert(alert()), Duration::from_secs(3_600));
    assert!(queue.not_before.unwrap() > Instant::now() + Duration::from_secs(3_500));
    assert!(matches!(queue.next(), Some(Next::Alert(_))));
}

#[test]
fn a_security_notice_holds_up_its_acknowledgement_for_any_time() {
    let progress = Progress::default();
    let event = progress.begin("1-1".parse().unwrap());
    progress.lock()[0].since = Instant::now().checked_sub(2 * HELD_UP).unwrap();
    assert_eq!(progress.delivered(EventStream::Security, true), None);
    assert!(progress.delivered(EventStream::Payments, true).is_some());
    drop(event);
}

#[test]
fn a_page_is_acknowledged_after_its_events_only() {
    let (progress, cursors) = (Progress::default(), ["1-1", "1-2"].map(|it| it.parse().unwrap()));
    let event = progress.begin(cursors[0]);
    drop(progress.begin(cursors[1]));
    assert_eq!(progress.delivered(EventStream::Payments, true), None);
    drop(event);
    assert_eq!(progress.delivered(EventStream::Payments, true), Some(cursors[1]));
    let _undelivered = progress.begin(cursors[1]);
    assert_eq!(progress.delivered(EventStream::Payments, false), None);
}
