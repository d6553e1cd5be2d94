//! What a crash of PostgreSQL leaves of commits that did not wait for the disk.

use kms_core::audit::{Action, AuditRecord, Caller, Details, Phase};
use kms_core::ports::{AuditLog, PasswordGate};
use kms_testkit::Postgres;
use kms_types::{Timestamp, TransferId};

use crate::fixtures::{Subject, insert, open};

/// Fewer than lock the account.
const ATTEMPTS: usize = 4;

/// The INTENT is the last thing that precedes the KDF: whatever a crash leaves of it, a password
/// that was tried is counted.
#[tokio::test]
async fn an_intent_makes_the_attempt_that_was_counted_before_it_durable() {
    let mut server = Postgres::start().unwrap();
    let subject = Subject::at(server.create_database().unwrap(), None).await;
    // Nothing else is to flush the log.
    for setting in ["wal_writer_delay = '10s'", "autovacuum = off"] {
        subject.tamper(&format!("alter system set {setting}"));
    }
    subject.tamper("select pg_reload_conf()");
    let ann = insert(&subject.database, 1, "ann").await.id;
    let mut waited = 0;
    for _ in 0..ATTEMPTS {
        subject.database.count_attempt(ann, Timestamp(1_000)).await.unwrap();
        let counted = subject.texts("select pg_current_wal_insert_lsn()::text as text").remove(0);
        waited += usize::from(is_flushed(&subject, &counted));
        let intent = AuditRecord {
            at: Timestamp(1_000),
            caller: Caller::new("bot", "1"),
            action: Action::Send(TransferId::random()),
            phase: Phase::Intent,
            account: Some(ann),
            telegram_id: None,
            details: Details::default(),
        };
        subject.database.append(intent).await.unwrap();
        assert!(is_flushed(&subject, &counted));
    }
    assert!(waited < ATTEMPTS, "each count waited for the disk itself");
    let before = subject.count("audit");
    subject.database.count_attempt(ann, Timestamp(1_000)).await.unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    open(&subject.url, &subject.keys).await.ping().await.unwrap();
    assert_eq!(subject.count("audit"), before);
    let failures = format!("password_attempts where failures >= {ATTEMPTS}");
    assert_eq!(subject.count(&failures), 1);
}

/// Whether the log is on disk up to this position.
fn is_flushed(subject: &Subject, position: &str) -> bool {
    let flushed = format!("select (pg_current_wal_flush_lsn() >= '{position}')::text as text");
    subject.texts(&flushed)[0] == "true"
}
