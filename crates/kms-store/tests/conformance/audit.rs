//! The audit chain, and how tampering with its table is reported.

use kms_core::audit::{
    Action, AuditRecord, Break, Caller, Chaining, Details, Leniency, Phase, Verified,
};
use kms_core::freeze::FreezeChange;
use kms_core::ports::{AuditLog, AuditedAccount, FreezeStore, StoreError};
use kms_store::{AuditError, Database};
use kms_types::{AccountId, Timestamp, TransferId};

use crate::fixtures::{Subject, insert, on_every_database, open};

on_every_database!(
    audit_records_are_read_back,
    concurrent_records_form_one_chain,
    an_intent_without_an_outcome_is_reported,
    a_refusal_is_written_once_a_minute,
    the_newest_revision_and_the_wrong_passwords_of_an_account_are_kept,
);

fn record(request: i64, phase: Phase) -> AuditRecord {
    AuditRecord {
        at: Timestamp(request),
        caller: Caller::new("bot", request.to_string()),
        action: Action::Send(TransferId::from_bytes([7; 16])),
        phase,
        account: None,
        telegram_id: Some(5.try_into().unwrap()),
        details: Details::default().with("to", "0xab"),
    }
}

async fn append(database: &Database, requests: impl IntoIterator<Item = i64>) {
    for request in requests {
        database.append(record(request, Phase::Intent)).await.unwrap();
    }
}

async fn verify(database: &Database) -> Result<Verified, Break> {
    database.verify_audit(&[], Leniency::default()).await.map_err(broken)
}

fn broken(error: AuditError) -> Break {
    match error {
        AuditError::Break(found) => found,
        other => panic!("the chain could not be read: {other}"),
    }
}

async fn audit_records_are_read_back(subject: Subject) {
    let database = &subject.database;
    for phase in [Phase::Intent, Phase::Outcome("ok"), Phase::Alarm("integrity")] {
        database.append(record(3, phase)).await.unwrap();
    }
    let rows = database.audit_after(0, 10).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (&*row.phase, row.outcome.as_deref())).collect();
    let expected = [("intent", None), ("outcome", Some("ok")), ("alarm", Some("integrity"))];
    assert_eq!(seen, expected);
    assert!(rows.iter().all(|row| row.details == "to=0xab"));
    assert_eq!(database.audit_after(rows[0].sequence, 10).await.unwrap(), rows[1..]);
    let holder = Some(5.try_into().unwrap());
    assert_eq!(database.audit_of(None, holder, rows[0].sequence, 10).await.unwrap(), rows[1..]);
    assert_eq!(database.audit_of(None, Some(6.try_into().unwrap()), 0, 10).await.unwrap(), []);
    assert_eq!(database.audit_of(None, None, 0, 10).await.unwrap(), []);
    let newest = async |user: i64, limit| {
        let user = user.try_into().unwrap();
        database.newest_audit_of(AccountId::random(), user, limit).await.unwrap()
    };
    assert_eq!(newest(5, 10).await, rows);
    assert_eq!(newest(5, 2).await, rows[1..]);
    assert_eq!(newest(6, 2).await, []);
}

async fn concurrent_records_form_one_chain(subject: Subject) {
    let appends = (0..600).map(|request| {
        let database = subject.database.clone();
        tokio::spawn(async move { database.append(record(request, Phase::Intent)).await })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap().unwrap();
    }
    assert_eq!(verify(&subject.database).await.unwrap().tip.sequence, 600);
}

async fn an_intent_without_an_outcome_is_reported(subject: Subject) {
    let database = &subject.database;
    append(database, [1, 2]).await;
    database.append(record(1, Phase::Outcome("ok"))).await.unwrap();
    let open = verify(database).await.unwrap().open;
    let requests: Vec<_> = open.iter().map(|open| (&*open.request_id, &*open.action)).collect();
    assert_eq!(requests, [("2", "send")]);
}

async fn the_newest_revision_and_the_wrong_passwords_of_an_account_are_kept(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let append = async |action, phase, at| {
        let record = AuditRecord { action, account: Some(ann.id), ..record(at, phase) };
        database.append(record).await.unwrap();
    };
    let read = async |since, at_most| {
        database.audited_account(ann.id, Timestamp(since), at_most).await.unwrap()
    };
    assert_eq!(read(0, 5).await, AuditedAccount::default());
    append(Action::Create, Phase::Outcome("ok"), 1).await;
    assert_eq!(read(0, 5).await.revision, 1);
    // What does not change the account, or failed, states no revision.
    database.change_freeze(ann.id, FreezeChange::ByOwner, Timestamp(2)).await.unwrap().unwrap();
    let send = Action::Send(TransferId::from_bytes([7; 16]));
    for (action, phase) in [
        (Action::Freeze, Phase::Intent),
        (Action::Freeze, Phase::Outcome("conflict")),
        (send, Phase::Outcome("ok")),
    ] {
        append(action, phase, 2).await;
        assert_eq!(read(0, 5).await.revision, 1);
    }
    append(Action::Freeze, Phase::Outcome("ok"), 3).await;
    assert_eq!(read(0, 5).await.revision, 2);
    // A later record with less does not hide the newest.
    let details = Details::default().with("revision", 1);
    let (action, phase) = (Action::Operate("freeze"), Phase::Outcome("ok"));
    let older = AuditRecord { action, account: Some(ann.id), details, ..record(4, phase) };
    database.append(older).await.unwrap();
    assert_eq!(read(0, 5).await.revision, 2);
    for (action, code, at) in
        [(send, "wrong_password", 10), (Action::Create, "account_exists", 30), (send, "busy", 40)]
    {
        append(action, Phase::Outcome(code), at).await;
    }
    append(Action::Export, Phase::Outcome("wrong_password"), 20).await;
    let at = |times: &[i64]| times.iter().copied().map(Timestamp).collect::<Vec<_>>();
    assert_eq!(read(0, 5).await.guesses, at(&[30, 20, 10]));
    assert_eq!(read(0, 2).await.guesses, at(&[30, 20]));
    assert_eq!(read(20, 5).await.guesses, at(&[30]));
    let bobs = database.audited_account(bob.id, Timestamp(0), 5).await.unwrap();
    assert_eq!(bobs, AuditedAccount::default());
}

async fn a_refusal_is_written_once_a_minute(subject: Subject) {
    let database = &subject.database;
    let refusal = |code, holder: i64| {
        let telegram_id = Some(holder.try_into().unwrap());
        AuditRecord { telegram_id, ..record(1, Phase::Outcome(code)) }
    };
    for _ in 0..5 {
        for (code, holder) in [("locked", 5), ("busy", 5), ("locked", 6)] {
            database.append_refusal(refusal(code, holder)).await.unwrap();
        }
    }
    assert_eq!(database.audit_after(0, 100).await.unwrap().len(), 3);
}

/// Like two servers that share a database.
async fn two_handles_build_one_chain(subject: Subject) {
    let other = open(&subject.url, &subject.keys).await;
    let appends = (0..200).map(|request| {
        let database = if request % 2 == 0 { &subject.database } else { &other };
        let database = database.clone();
        tokio::spawn(async move { database.append(record(request, Phase::Intent)).await })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap().unwrap();
    }
    assert_eq!(verify(&other).await.unwrap().tip.sequence, 200);
}

async fn tampering_with_a_row_is_reported(subject: Subject) {
    let database = &subject.database;
    append(database, 1..=6).await;
    let whole = verify(database).await.unwrap();
    let all = database.audit_after(0, 10).await.unwrap();
    let seq = |number: usize| all[number - 1].sequence;
    let checkpoint = database.audit_checkpoint(Timestamp(9)).await.unwrap().unwrap();
    assert_eq!((whole.tip.sequence, checkpoint.tip), (6, whole.tip));
    subject.tamper("create table kept as select * from audit");
    let columns = "seq, at, actor, request_id, action, subject, account_id, telegram_id, phase, \
                   outcome, details, chain_seq, prev_hash, hash, key_id, keyed_hash";
    let (two, three, four) = (seq(2), seq(3), seq(4));
    let swapped = |columns: &str| {
        let set = columns
            .split(", ")
            .map(|column| {
                format!(
                    "{column} = (select {column} from kept \
                     where kept.seq = {two} + {three} - audit.seq)"
                )
            })
            .collect::<Vec<_>>()
            .join(", ");
        format!("update audit set {set} where seq in ({two}, {three})")
    };
    let changed = |sequence| Break::Changed { sequence };
    for (sql, expected) in [
        (format!("update audit set actor = 'eve' where seq = {three}"), changed(3)),
        (format!("update audit set outcome = '' where seq = {four}"), changed(4)),
        (format!("update audit set details = '' where seq = {four}"), changed(4)),
        (format!("update audit set hash = prev_hash where seq = {two}"), changed(2)),
        (format!("update audit set keyed_hash = hash where seq = {two}"), changed(2)),
        (format!("update audit set telegram_id = null where seq >= {three}"), changed(3)),
        (format!("update audit set prev_hash = hash where seq = {two}"), changed(2)),
        (
            format!("update audit set key_id = 9 where seq = {two}"),
            Break::NoKey { sequence: 2, version: 9.try_into().unwrap() },
        ),
        (format!("update audit set key_id = 0 where seq = {two}"), Break::Malformed { place: two }),
        (swapped("at, request_id"), changed(2)),
        (format!("delete from audit where seq = {three}"), Break::Removed { sequence: 3 }),
        (format!("delete from audit where seq <= {two}"), Break::Removed { sequence: 1 }),
        (
            format!("delete from audit where seq >= {four}"),
            Break::Cut { sequence: 4, checkpoint: 6 },
        ),
        ("delete from audit".to_owned(), Break::Cut { sequence: 1, checkpoint: 6 }),
    ] {
        subject.tamper(&sql);
        let found = database.verify_audit(&[checkpoint], Leniency::default()).await.map_err(broken);
        assert_eq!(found, Err(expected), "{sql}");
        subject.tamper("delete from audit");
        // PostgreSQL generates the positions itself unless they are overridden.
        let overriding =
            if subject.url.starts_with("postgres") { "overriding system value" } else { "" };
        subject.tamper(&format!(
            "insert into audit ({columns}) {overriding} select {columns} from kept"
        ));
        let restored = database.verify_audit(&[checkpoint], Leniency::default()).await.unwrap();
        assert_eq!(restored.tip, whole.tip, "{sql}");
    }
}

/// Swaps two whole rows, so that the columns of each are consistent.
async fn swapped_rows_are_reported(subject: Subject) {
    let database = &subject.database;
    append(database, 1..=4).await;
    let rows = database.audit_after(0, 10).await.unwrap();
    let (two, three) = (rows[1].sequence, rows[2].sequence);
    for (from, to) in [(two, -two), (three, two), (-two, three)] {
        let identity =
            if subject.url.starts_with("postgres") { "overriding system value" } else { "" };
        let columns = "at, actor, request_id, action, subject, account_id, telegram_id, phase, \
                       outcome, details, prev_hash, hash, key_id, keyed_hash";
        subject.tamper(&format!(
            "insert into audit (seq, {columns}, chain_seq) {identity} \
             select {to}, {columns}, -chain_seq from audit where seq = {from}"
        ));
        subject.tamper(&format!("delete from audit where seq = {from}"));
        subject.tamper(&format!("update audit set chain_seq = -chain_seq where seq = {to}"));
    }
    let found = verify(database).await;
    assert_eq!(found, Err(Break::Misplaced { sequence: 2, found: 3 }));
}

/// The head of the chain alone shows that its end was cut off, unless it was changed as well.
async fn the_head_shows_a_truncation(subject: Subject) {
    let database = &subject.database;
    append(database, 1..=3).await;
    subject.tamper("delete from audit where chain_seq = 3");
    assert_eq!(verify(database).await, Err(Break::Head { sequence: 3 }));
    subject.tamper("delete from audit_head");
    let unreadable = database.verify_audit(&[], Leniency::default()).await.unwrap_err();
    assert!(matches!(unreadable, AuditError::Store(StoreError::Corrupt { .. })), "{unreadable}");
    let refused = database.append(record(4, Phase::Intent)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

/// A running server finds at its next record that the chain lost what it wrote.
async fn a_chain_that_lost_this_servers_row_is_not_continued(subject: Subject) {
    let database = &subject.database;
    let other = open(&subject.url, &subject.keys).await;
    append(database, 1..=2).await;
    append(&other, 3..=3).await;
    append(database, 4..=4).await;
    append(&other, 5..=5).await;
    subject.tamper("create table kept as select * from audit where chain_seq >= 4");
    subject.tamper("delete from audit where chain_seq >= 4");
    subject.tamper(
        "update audit_head set chain_seq = 3, hash = (select hash from audit where chain_seq = 3)",
    );
    for server in [database, &other] {
        let refused = server.append(record(6, Phase::Intent)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Tampered { .. }), "{refused}");
    }
    assert_eq!(verify(database).await.unwrap().tip.sequence, 3);
    // A server that starts after a restore continues; the older ones find another row in place of
    // theirs.
    let restarted = open(&subject.url, &subject.keys).await;
    append(&restarted, 6..=7).await;
    for server in [database, &other] {
        let refused = server.append(record(8, Phase::Intent)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Tampered { .. }), "{refused}");
    }
    assert_eq!(verify(&restarted).await.unwrap().tip.sequence, 5);
}

/// As the role of an auditor that may read everything: it cannot hold up the appends.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_role_that_may_only_read_does_not_stop_appends() {
    use diesel::connection::SimpleConnection;
    let subject = Subject::postgres().await;
    let role = format!("auditor_{}", TransferId::random().to_string().replace('-', ""));
    let mut auditor = subject.postgres_connection();
    let create = format!("create role {role}; grant pg_read_all_data to {role}; set role {role}");
    auditor.batch_execute(&create).unwrap();
    auditor.batch_execute("begin; select * from audit_head; select * from audit").unwrap();
    append(&subject.database, 1..=2).await;
    let refused = auditor.batch_execute("select * from audit_head for update").unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    append(&subject.database, 3..=3).await;
    auditor.batch_execute("rollback").unwrap();
    auditor.batch_execute(&format!("reset role; drop role {role}")).unwrap();
}

/// A checkpoint must not vouch for a row that was changed.
async fn a_tampered_end_is_not_signed(subject: Subject) {
    let database = &subject.database;
    append(database, 1..=2).await;
    let last = database.audit_after(0, 10).await.unwrap().pop().unwrap();
    assert!(matches!(last.chaining, Chaining::Linked(link) if link.sequence == 2));
    subject.tamper(&format!("update audit set at = 0 where seq = {}", last.sequence));
    let refused = database.audit_checkpoint(Timestamp(1)).await.unwrap_err();
    assert_eq!(broken(refused), Break::Changed { sequence: 2 });
}

/// Runs functions that tamper with rows through a connection of their own, which an in-memory
/// database does not allow.
macro_rules! on_files_and_servers {
    ($($check:ident),* $(,)?) => {
        mod changed_file {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check(super::Subject::file().await).await;
                }
            )*
        }
        #[cfg(feature = "postgres")]
        mod changed_postgres {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check(super::Subject::postgres().await).await;
                }
            )*
        }
    };
}

on_files_and_servers!(
    two_handles_build_one_chain,
    tampering_with_a_row_is_reported,
    swapped_rows_are_reported,
    a_tampered_end_is_not_signed,
    the_head_shows_a_truncation,
    a_chain_that_lost_this_servers_row_is_not_continued,
);
