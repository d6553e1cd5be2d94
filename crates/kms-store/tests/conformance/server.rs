//! Password lockout, rate limits, events, API tokens and checks of the server keys.

use std::time::Duration;

use kms_core::ports::{PasswordGate, PasswordGateDecision, StoreError};
use kms_store::{ApiToken, ConnectError, Database, RateLimit, RateLimitExceeded, Scope};
use kms_types::{
    AccountEvent, EventCursor, EventKind, EventStream, RecoveryStep, SecurityEvent, Timestamp,
};

use crate::fixtures::{Subject, events, insert, on_every_database, on_every_shared_database, open};

const SECURITY: EventStream = EventStream::Security;

on_every_database!(
    the_fifth_attempt_locks_and_the_lockout_doubles,
    a_clock_that_was_ahead_locks_no_password,
    three_attempts_a_day_are_made_while_locked,
    a_refunded_attempt_leaves_no_lockout_and_no_count,
    a_limit_allows_exactly_its_burst,
    a_burst_of_zero_allows_nothing,
    a_repeat_takes_no_second_token,
    a_refusal_of_one_limit_takes_nothing_from_another,
    a_limit_is_taken_after_those_before_it,
    only_refilled_rate_limits_are_deleted,
    a_clock_that_was_ahead_locks_no_limit,
    events_are_read_in_order_and_acknowledged,
    future_events_cannot_be_acknowledged,
    tokens_are_found_by_their_hash,
);

on_every_shared_database!(processes_that_write_at_once_wait_for_each_other,);

/// Whatever PostgreSQL is set to, a commit waits for the disk.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn commits_are_durable_or_refused() {
    let subject = Subject::postgres().await;
    let name = subject.url.rsplit('/').next().unwrap();
    let set = |setting: &str| subject.run(&[format!("alter database {name} set {setting}")]);
    for weak in ["off", "local", "remote_write"] {
        set(&format!("synchronous_commit = {weak}"));
        open(&subject.url, &subject.keys).await.check_durability().await.unwrap();
    }
    // Like a pooler, which drops the setting of the session.
    subject.tamper(
        "create function public.set_config(text, text, boolean) returns text \
         language sql as $$ select $2 $$",
    );
    set("search_path = public, pg_catalog");
    let refused = open(&subject.url, &subject.keys).await.check_durability().await.unwrap_err();
    let ConnectError::NotDurable { synchronous_commit } = refused else { panic!("{refused}") };
    assert_eq!(synchronous_commit, "remote_write");
    set("synchronous_commit = remote_apply");
    open(&subject.url, &subject.keys).await.check_durability().await.unwrap();
}

async fn the_fifth_attempt_locks_and_the_lockout_doubles(subject: Subject) {
    let ann = insert(&subject.database, 1, "ann").await.id;
    let attempts = (0..64).map(|_| {
        let database = subject.database.clone();
        tokio::spawn(async move { database.count_attempt(ann, Timestamp(1_000)).await.unwrap() })
    });
    let mut counted = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        counted += usize::from(attempt.await.unwrap() == PasswordGateDecision::Counted);
    }
    assert_eq!(counted, 5);
    let database = &subject.database;
    let (minute, mut now) = (60_000, Timestamp(1_000));
    for minutes in [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440] {
        let until = Timestamp(now.0 + minutes * minute);
        let refused = database.count_attempt(ann, Timestamp(until.0 - 1)).await.unwrap();
        assert_eq!(refused, PasswordGateDecision::LockedUntil(until));
        assert_eq!(
            database.count_attempt(ann, until).await.unwrap(),
            PasswordGateDecision::Counted
        );
        now = until;
    }
    database.accept(ann, Timestamp(5)).await.unwrap();
    assert_eq!(database.count_attempt(ann, now).await.unwrap(), PasswordGateDecision::Counted);
}

async fn a_clock_that_was_ahead_locks_no_password(subject: Subject) {
    let ann = insert(&subject.database, 1, "ann").await.id;
    let year = 365 * 24 * 60 * 60 * 1_000;
    let count = async |now| subject.database.count_attempt(ann, Timestamp(now)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(count(year).await, PasswordGateDecision::Counted);
    }
    assert!(matches!(count(year).await, PasswordGateDecision::LockedUntil(_)));
    // The clock is right again. The attempts still count, so that the next one locks.
    assert_eq!(count(1_000).await, PasswordGateDecision::Counted);
    let until = Timestamp(1_000 + 30 * 60_000);
    assert_eq!(count(1_000).await, PasswordGateDecision::LockedUntil(until));
}

async fn three_attempts_a_day_are_made_while_locked(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await.id, insert(database, 2, "bob").await.id);
    for allowed in [true, true, true, false] {
        assert_eq!(database.count_attempt_while_locked(ann).await.unwrap(), allowed);
    }
    assert!(database.count_attempt_while_locked(bob).await.unwrap());
    assert_eq!(
        database.count_attempt(ann, Timestamp(1)).await.unwrap(),
        PasswordGateDecision::Counted
    );
}

async fn a_refunded_attempt_leaves_no_lockout_and_no_count(subject: Subject) {
    let ann = insert(&subject.database, 1, "ann").await.id;
    let database = &subject.database;
    let count = async |now| database.count_attempt(ann, now).await.unwrap();
    // A refund without an attempt is no credit.
    database.refund_attempt(ann).await.unwrap();
    let mut now = Timestamp(1_000);
    for _ in 0..9 {
        assert_eq!(count(now).await, PasswordGateDecision::Counted);
        database.refund_attempt(ann).await.unwrap();
    }
    for _ in 0..5 {
        assert_eq!(count(now).await, PasswordGateDecision::Counted);
    }
    let minute = 60_000;
    for minutes in [15, 30, 60] {
        now = Timestamp(now.0 + minutes * minute);
        // An attempt after the lockout, which would have doubled it.
        assert_eq!(count(now).await, PasswordGateDecision::Counted);
        database.refund_attempt(ann).await.unwrap();
        assert_eq!(count(now).await, PasswordGateDecision::Counted);
        let until = Timestamp(now.0 + 2 * minutes * minute);
        assert_eq!(count(now).await, PasswordGateDecision::LockedUntil(until));
    }
}

async fn a_limit_allows_exactly_its_burst(subject: Subject) {
    let limit = RateLimit { burst: 5, period: Duration::from_secs(3_600) };
    let takes = (0..64).map(|_| {
        let database = subject.database.clone();
        tokio::spawn(async move { database.take("ann", limit).await.unwrap() })
    });
    let mut taken = 0;
    for take in takes.collect::<Vec<_>>() {
        match take.await.unwrap() {
            Ok(()) => taken += 1,
            Err(wait) => assert!(wait > Duration::from_secs(3_500) && wait <= limit.period),
        }
    }
    assert_eq!(taken, 5);
    assert_eq!(subject.database.take("bob", limit).await.unwrap(), Ok(()));
    // A token is refilled after its period.
    let short = RateLimit { burst: 1, period: Duration::from_millis(1) };
    assert_eq!(subject.database.take("carl", short).await.unwrap(), Ok(()));
    while subject.database.take("carl", short).await.unwrap().is_err() {}
}

async fn a_burst_of_zero_allows_nothing(subject: Subject) {
    let limit = RateLimit { burst: 0, period: Duration::from_secs(5) };
    for _ in 0..2 {
        assert_eq!(subject.database.take("ann", limit).await.unwrap(), Err(limit.period));
        let refused = subject.database.take_once(1, &[("ann", limit)]).await.unwrap();
        assert_eq!(refused, Err(RateLimitExceeded { index: 0, wait: limit.period }));
    }
}

async fn a_repeat_takes_no_second_token(subject: Subject) {
    let limit = RateLimit { burst: 2, period: Duration::from_secs(3_600) };
    let takes = (0..32).map(|index| {
        let database = subject.database.clone();
        tokio::spawn(async move { database.take_once(index % 2, &[("ann", limit)]).await.unwrap() })
    });
    for take in takes.collect::<Vec<_>>() {
        assert_eq!(take.await.unwrap(), Ok(()));
    }
    // Another id is refused each time; repeats of the first two still pass.
    for _ in 0..2 {
        assert!(subject.database.take_once(2, &[("ann", limit)]).await.unwrap().is_err());
        assert_eq!(subject.database.take_once(1, &[("ann", limit)]).await.unwrap(), Ok(()));
    }
    assert_eq!(subject.database.take_once(2, &[("bob", limit)]).await.unwrap(), Ok(()));
}

async fn a_refusal_of_one_limit_takes_nothing_from_another(subject: Subject) {
    let limit = |burst| RateLimit { burst, period: Duration::from_secs(3_600) };
    let (few, some) = (limit(2), limit(5));
    // Ann has two tokens, Bob has two, and the shared bucket has five.
    let take = |who: &'static str, id: u32| {
        let database = subject.database.clone();
        async move { database.take_once(id, &[(who, few), ("all", some)]).await.unwrap() }
    };
    let many = (0..20).map(|id| tokio::spawn(take("ann", id)));
    let mut taken = 0;
    for one in many.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(()) => taken += 1,
            Err(refused) => assert_eq!(refused.index, 0),
        }
    }
    // Her refusals took none from the shared bucket, which has three left.
    assert_eq!(taken, 2);
    for id in [30, 31, 30] {
        assert_eq!(take("bob", id).await, Ok(()));
    }
    assert_eq!(take("carl", 40).await, Ok(()));
    // Nor do refusals of the shared bucket take from Carl's, which has one left.
    for id in 41..50 {
        assert_eq!(take("carl", id).await.unwrap_err().index, 1);
    }
    let own = subject.database.take_once(50, &[("carl", few)]).await.unwrap();
    assert_eq!(own, Ok(()));
    let none = subject.database.take_once(51, &[("carl", few)]).await.unwrap();
    assert!(none.is_err());
}

async fn a_limit_is_taken_after_those_before_it(subject: Subject) {
    let limit = |burst| RateLimit { burst, period: Duration::from_secs(3_600) };
    let take = |limits: [(&'static str, u32); 2]| {
        let database = subject.database.clone();
        let limits = limits.map(|(key, burst)| (key, limit(burst)));
        async move { database.take_in_turn(&limits).await.unwrap().map_err(|it| it.index) }
    };
    let many = (0..20).map(|_| tokio::spawn(take([("ann", 3), ("ann a day", 4)])));
    let mut taken = 0;
    for one in many.collect::<Vec<_>>() {
        taken += u32::from(one.await.unwrap().is_ok());
    }
    assert_eq!(taken, 3);
    // What the first refused took nothing from the second.
    assert_eq!(take([("ann", 3), ("ann a day", 4)]).await, Err(0));
    assert_eq!(take([("bob", 3), ("ann a day", 4)]).await, Ok(()));
    assert_eq!(take([("bob", 3), ("ann a day", 4)]).await, Err(1));
    // What the second refused took of the first.
    assert_eq!(take([("bob", 3), ("bob a day", 4)]).await, Ok(()));
    assert_eq!(take([("bob", 3), ("bob a day", 4)]).await, Err(0));
    assert_eq!(take([("carl", 3), ("nothing", 0)]).await, Err(1));
    assert_eq!(take([("nothing", 0), ("carl", 3)]).await, Err(0));
    let none = subject.database.take_in_turn(&[]).await.unwrap();
    assert_eq!(none, Ok(()));
}

async fn a_clock_that_was_ahead_locks_no_limit(subject: Subject) {
    if subject.url.ends_with(":memory:") {
        return;
    }
    let limit = RateLimit { burst: 2, period: Duration::from_secs(3_600) };
    let take = async || subject.database.take("ann", limit).await.unwrap();
    assert_eq!(take().await, Ok(()));
    // The clock was a year ahead for one request, then half a minute.
    subject.tamper("update rate_limits set tat = tat + 31536000000");
    assert_eq!((take().await, take().await), (Ok(()), Ok(())));
    assert!(take().await.is_err());
    subject.tamper("update rate_limits set tat = tat + 30000");
    assert!(take().await.unwrap_err() <= limit.period);
}

async fn only_refilled_rate_limits_are_deleted(subject: Subject) {
    let database = &subject.database;
    let hour = RateLimit { burst: 1, period: Duration::from_secs(3_600) };
    let moment = RateLimit { burst: 1, period: Duration::from_millis(1) };
    assert_eq!(database.take("ann", hour).await.unwrap(), Ok(()));
    for id in 0..5 {
        assert_eq!(database.take(&format!("bob {id}"), moment).await.unwrap(), Ok(()));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut forgotten = Vec::new();
    for _ in 0..4 {
        forgotten.push(database.delete_refilled_rate_limits(2).await.unwrap());
    }
    assert_eq!(forgotten, [2, 2, 1, 0]);
    assert!(database.take("ann", hour).await.unwrap().is_err());
    assert_eq!(database.take("bob 0", hour).await.unwrap(), Ok(()));
    // Nor one that is used while others are deleted.
    let forgets = (0..50).map(|id| {
        let database = database.clone();
        tokio::spawn(async move {
            let key = format!("carl {}", id % 5);
            let taken = database.take(&key, hour).await.unwrap().is_ok();
            database.delete_refilled_rate_limits(100).await.unwrap();
            taken
        })
    });
    let mut taken = 0;
    for forget in forgets.collect::<Vec<_>>() {
        taken += usize::from(forget.await.unwrap());
    }
    assert_eq!(taken, 5);
}

async fn events_are_read_in_order_and_acknowledged(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let all = events(database, EventCursor::default(), 2).await;
    let whose: Vec<_> = all.iter().map(|event| event.account).collect();
    assert_eq!(whose, [ann.id, bob.id]);
    let created = EventKind::Account(AccountEvent::Created);
    assert!(all.iter().all(|event| event.kind == created));
    let (first, last) = (all[0].cursor, all[1].cursor);
    let rest = database.events_after(SECURITY, first, 10).await.unwrap();
    assert_eq!((&rest.events[..], rest.end), (&all[1..], last));
    let one = database.events_after(SECURITY, EventCursor::default(), 1).await.unwrap();
    assert_eq!((&one.events[..], one.end), (&all[..1], first));
    let none = database.events_after(SECURITY, last, 10).await.unwrap();
    assert_eq!((none.events.len(), none.end), (0, last));
    assert_eq!(database.acknowledged_events("bot").await.unwrap(), EventCursor::default());
    for cursor in [last, first] {
        assert!(database.acknowledge_events("bot", SECURITY, cursor).await.unwrap());
        // It never moves back.
        assert_eq!(database.acknowledged_events("bot").await.unwrap(), last);
    }
    assert_eq!(database.acknowledged_events("other").await.unwrap(), EventCursor::default());
    assert!(database.acknowledge_events("other", SECURITY, EventCursor::default()).await.unwrap());
}

async fn future_events_cannot_be_acknowledged(subject: Subject) {
    let database = &subject.database;
    let nothing = EventCursor { transaction: 0, sequence: 1 };
    assert!(!database.acknowledge_events("bot", SECURITY, nothing).await.unwrap());
    insert(database, 1, "ann").await;
    let last = events(database, EventCursor::default(), 1).await[0].cursor;
    for beyond in [
        EventCursor { sequence: last.sequence + 1, ..last },
        EventCursor { transaction: last.transaction + 1, ..last },
        EventCursor { transaction: i64::MAX, sequence: i64::MAX },
    ] {
        assert!(!database.acknowledge_events("bot", SECURITY, beyond).await.unwrap());
        assert_eq!(database.acknowledged_events("bot").await.unwrap(), EventCursor::default());
    }
}

async fn a_flood_of_payments_is_before_no_security_event(subject: Subject) {
    let ann = insert(&subject.database, 1, "ann").await;
    let last = events(&subject.database, EventCursor::default(), 1).await[0].cursor;
    subject.tamper(&format!(
        "insert into events (account_id, at, stream, kind) \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) \
         select '{}', 1, 'payments', 'received' from n",
        ann.id
    ));
    let bob = insert(&subject.database, 2, "bob").await;
    events(&subject.database, last, 101).await;
    let page = subject.database.events_after(SECURITY, last, 1).await.unwrap();
    assert_eq!(page.events[0].account, bob.id);
    let reached = subject.database.acknowledge_events("bot", SECURITY, page.end).await.unwrap();
    assert!(reached && subject.database.acknowledged_events("other").await.unwrap() != page.end);
}

async fn an_unreadable_event_blocks_no_other(subject: Subject) {
    let database = &subject.database;
    for (id, name) in [(1, "ann"), (2, "bob"), (3, "carl")] {
        insert(database, id, name).await;
    }
    let all = events(database, EventCursor::default(), 3).await;
    // No client could read the page with a time that JSON cannot hold.
    for (unreadable, change) in [(&all[0], "kind = 'nonsense'"), (&all[2], "at = -1")] {
        let sequence = unreadable.cursor.sequence;
        subject.tamper(&format!("update events set {change} where seq = {sequence}"));
    }
    let found = database.events_after(SECURITY, EventCursor::default(), 10).await.unwrap();
    assert_eq!((&found.events[..], found.end), (&all[1..2], all[2].cursor));
}

#[tokio::test]
async fn a_flood_of_payments_in_a_file_is_before_no_security_event() {
    a_flood_of_payments_is_before_no_security_event(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_flood_of_payments_in_postgresql_is_before_no_security_event() {
    let subject = Subject::postgres().await;
    a_flood_of_payments_is_before_no_security_event(subject).await;
}

#[tokio::test]
async fn an_unreadable_event_in_a_file_blocks_no_other() {
    an_unreadable_event_blocks_no_other(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn an_unreadable_event_in_postgresql_blocks_no_other() {
    let subject = Subject::postgres().await;
    an_unreadable_event_blocks_no_other(subject).await;
}

/// As after `pg_dump` and a restore into another cluster, where transaction ids start again.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_restore_into_another_cluster_does_not_silence_events() {
    let subject = Subject::postgres().await;
    let database = &subject.database;
    let (_, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let first = events(database, EventCursor::default(), 2).await[0].cursor;
    assert!(database.acknowledge_events("bot", SECURITY, first).await.unwrap());
    for table in ["events", "event_cursors"] {
        subject.tamper(&format!("update {table} set tx = tx + 1000000000"));
    }
    // The second call has no effect.
    for _ in 0..2 {
        database.adopt_restored_events().await.unwrap();
    }
    let carl = insert(database, 3, "carl").await;
    let after = database.acknowledged_events("bot").await.unwrap();
    let delivered = events(database, after, 2).await;
    let whose: Vec<_> = delivered.iter().map(|event| event.account).collect();
    assert_eq!(whose, [bob.id, carl.id]);
    assert!(database.acknowledge_events("bot", SECURITY, delivered[1].cursor).await.unwrap());
}

async fn tokens_are_found_by_their_hash(subject: Subject) {
    let database = &subject.database;
    let token = ApiToken {
        id: "a".to_owned(),
        name: "bot".to_owned(),
        scopes: vec![Scope::Bot, Scope::Read],
        created_at: Timestamp(1),
        expires_at: Some(Timestamp(100)),
        revoked_at: None,
    };
    database.insert_api_token(token.clone(), [7; 32].into()).await.unwrap();
    assert!(database.insert_api_token(token.clone(), [8; 32].into()).await.is_err());
    let found = database.api_token_by_hash([7; 32].into()).await.unwrap().unwrap();
    assert_eq!(found, token);
    assert!(found.is_valid(Timestamp(99)) && !found.is_valid(Timestamp(100)));
    assert_eq!(database.api_token_by_hash([8; 32].into()).await.unwrap(), None);
    assert!(database.revoke_api_token("bot", Timestamp(50)).await.unwrap());
    assert!(database.revoke_api_token("bot", Timestamp(51)).await.unwrap());
    assert!(!database.revoke_api_token("other", Timestamp(51)).await.unwrap());
    let revoked = database.api_tokens().await.unwrap().remove(0).token.unwrap();
    assert_eq!(revoked.revoked_at, Some(Timestamp(50)));
    assert!(!revoked.is_valid(Timestamp(10)));
}

/// As a server and a command do: each reads a row before it writes it.
async fn processes_that_write_at_once_wait_for_each_other(subject: Subject) {
    let other = open(&subject.url, &subject.keys).await;
    let revoke_all = async |database: Database, who: u8| {
        for number in 0..100 {
            let name = format!("{who}-{number}");
            let token = ApiToken {
                id: name.clone(),
                name: name.clone(),
                scopes: vec![Scope::Bot],
                created_at: Timestamp(1),
                expires_at: None,
                revoked_at: None,
            };
            let mut hash = [who; 32];
            hash[0] = number;
            database.insert_api_token(token, hash.into()).await.unwrap();
            assert!(database.revoke_api_token(&name, Timestamp(2)).await.unwrap());
        }
    };
    tokio::join!(revoke_all(subject.database.clone(), 1), revoke_all(other, 2));
}

async fn tampered_tokens_are_refused(subject: Subject) {
    let other = ApiToken {
        id: "b".to_owned(),
        name: "other".to_owned(),
        scopes: vec![Scope::Bot],
        created_at: Timestamp(2),
        expires_at: None,
        revoked_at: None,
    };
    subject.database.insert_api_token(other, [9; 32].into()).await.unwrap();
    let token = ApiToken {
        id: "a".to_owned(),
        name: "reader".to_owned(),
        scopes: vec![Scope::Read],
        created_at: Timestamp(1),
        expires_at: Some(Timestamp(100)),
        revoked_at: None,
    };
    subject.database.insert_api_token(token, [7; 32].into()).await.unwrap();
    for change in ["scopes = 'admin'", "expires_at = null", "name = 'bot'"] {
        subject.tamper(&format!("update api_tokens set {change} where id = 'a'"));
        let refused = subject.database.api_token_by_hash([7; 32].into()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Tampered { table: "api_tokens", .. }), "{change}");
        // The others are listed all the same.
        let listed = subject.database.api_tokens().await.unwrap();
        let readable: Vec<_> = listed.iter().map(|listed| listed.token.is_ok()).collect();
        assert_eq!(readable, [false, true], "{change}");
        let back = "scopes = 'read', expires_at = 100, name = 'reader'";
        subject.tamper(&format!("update api_tokens set {back} where id = 'a'"));
        assert!(subject.database.api_token_by_hash([7; 32].into()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn tampered_tokens_are_refused_in_a_file() {
    tampered_tokens_are_refused(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn tampered_tokens_are_refused_in_postgresql() {
    tampered_tokens_are_refused(Subject::postgres().await).await;
}

#[tokio::test]
async fn a_different_server_key_is_reported() {
    let subject = Subject::file().await;
    subject.database.check_server_keys().await.unwrap();
    let kinds = ["pepper", "contact", "row", "audit", "codes", "checkpoint"];
    for (index, kind) in kinds.into_iter().enumerate() {
        let mut keys = subject.keys.clone();
        // A new version beside the old one is allowed; another key under the same id is not.
        keys[index] = format!("2:{},{}", "ee".repeat(32), keys[index]);
        open(&subject.url, &keys).await.check_server_keys().await.unwrap();
        keys[index] = format!("1:{}", "ee".repeat(32));
        let refused = open(&subject.url, &keys).await.check_server_keys().await.unwrap_err();
        assert!(
            matches!(refused, ConnectError::WrongKey { kind: named, id: 1 } if named == kind),
            "{refused}"
        );
    }
}

/// Servers that start together after a rotation.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_new_server_key_is_stored_once_by_servers_that_start_together() {
    let subject = Subject::postgres().await;
    let mut keys = subject.keys.clone();
    for version in 2..=6 {
        keys[0] = format!("{version}:{version}{},{}", "e".repeat(63), keys[0]);
        let mut starting = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let server = open(&subject.url, &keys).await;
            starting.spawn(async move { server.check_server_keys().await });
        }
        for checked in starting.join_all().await {
            checked.unwrap();
        }
    }
}

/// An event that commits later than its successor is not skipped.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn an_event_that_commits_late_is_not_lost() {
    use diesel::{Connection, RunQueryDsl};
    let subject = Subject::postgres().await;
    let ann = insert(&subject.database, 1, "ann").await;
    let start = events(&subject.database, EventCursor::default(), 1).await[0].cursor;
    let write = |connection: &mut diesel::PgConnection, kind: &str| {
        let id = ann.id;
        let sql = format!(
            "insert into events (account_id, at, stream, kind) \
             values ('{id}', 1, 'security', '{kind}')"
        );
        diesel::sql_query(sql).execute(connection).unwrap();
    };
    let mut slow = diesel::PgConnection::establish(&subject.url).unwrap();
    let mut fast = diesel::PgConnection::establish(&subject.url).unwrap();
    diesel::sql_query("begin").execute(&mut slow).unwrap();
    write(&mut slow, "password_changed");
    write(&mut fast, "recovered");
    // The younger event is committed, but an older transaction is open: both are withheld.
    assert_eq!(subject.database.events_after(SECURITY, start, 10).await.unwrap().end, start);
    diesel::sql_query("commit").execute(&mut slow).unwrap();
    let kinds: Vec<_> =
        events(&subject.database, start, 2).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Security(SecurityEvent::PasswordChanged),
            EventKind::Recovery(RecoveryStep::Completed),
        ]
    );
}
