//! Every column of every table is protected against another program that writes to the database, or
//! listed here with the reason why it need not be. Generated from the schema: a new column that is
//! neither fails.

use std::collections::BTreeSet;

use kms_store::Database;

use crate::fixtures::{Subject, open};
use crate::format;

/// Tables without a MAC, with all their columns, and why they need none.
const TABLES: &[(&str, &str, &str)] = &[
    (
        "name_observations",
        "telegram_id seen_at proved_at",
        "decides only whether an update is too old; what is claimed carries a MAC",
    ),
    (
        "transfers",
        "id chain_id from_account from_username from_address from_since to_account to_username \
         to_address to_since asked_to asked_amount token value gas_limit ladder warnings \
         client_ref state failure nonce nonce_held tx_hash block fee arrived created_at \
         expires_at cancel_requested_at",
        "the confirmation repeats what was shown; a signed quote is in the audit \
         (rollbacks::a_quote_that_was_signed_is_not_signed_again)",
    ),
    (
        "settlements",
        "transfer_id chain_id block block_hash tx_hash outcome fee final_at bytes_until \
         has_attempts",
        "releases no spend (spending_limits::a_forged_settlement_releases_nothing)",
    ),
    ("transfer_checks", "transfer_id chain_id next_at done", "decides only when to look"),
    (
        "signed_transactions",
        "transfer_id step kind fees tx_hash sealed sent_at sent_block",
        "the bytes are sealed for their transfer and kind, and signed by its wallet",
    ),
    ("transfer_waits", "transfer_id reason since", "is shown only"),
    ("replacements", "id transfer_id at", "a replacement is signed with the password"),
    (
        "chain_cursors",
        "chain_id block block_hash tip_hash read_at rewinds",
        "it is read from the chain again",
    ),
    (
        "wallet_balances",
        "chain_id account_id block balance rewinds active_at next_at",
        "decides notices only",
    ),
    (
        "external_deposits",
        "id chain_id tx_hash account_id from_address value block count digest_id digest_day \
         digest_due_at token symbol decimals recorded_at",
        "is shown only",
    ),
    (
        "events",
        "seq tx account_id at stream kind transfer_id deposit_id recovery_id contact \
         telegram_id",
        "notices can be stopped by a database writer: docs/security.md; contacts are sealed",
    ),
    ("event_cursors", "consumer tx seq", "as events"),
    (
        "password_attempts",
        "account_id failures locked_until",
        "the audit counts as well (rollbacks::an_emptied_lockout_leaves_the_limit_of_the_audit)",
    ),
    ("rate_limits", "key tat", "deleting a row gains what changing it would: ADR 66"),
    ("leases", "name holder until", "stops background work: docs/security.md"),
    (
        "audit",
        "seq at actor request_id action subject account_id telegram_id phase outcome details \
         chain_seq prev_hash hash key_id keyed_hash",
        "a chain under a MAC (audit::tests::the_hash_covers_every_field_at_its_position); \
         seq is only the place",
    ),
    ("audit_head", "id chain_seq hash", "compared with the chain by each append"),
    ("signs", "account_id sign", "decides nothing"),
    ("server_key_checks", "kind key_id check_value", "a false one refuses the start"),
    ("key_database_claim", "id current next", "a false one refuses the start"),
    ("writer_fence", "id oldest", "a false one refuses the start, or the fence is the schema's"),
];

/// Columns that no MAC covers, and why.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("accounts", "mobile", "sealed for its account, and only shown"),
    ("names", "id", "the place in the table; a username's claims are chained"),
    ("api_tokens", "created_at", "is shown only"),
    ("api_tokens", "last_used_at", "is shown only"),
    ("launches", "is_proof", "decides only for how long the row is kept"),
];

/// What refuses an older copy of a row, whose MAC is valid.
const ROLLED_BACK: &[(&str, &str)] = &[
    ("accounts", "the revision: rollbacks::an_account_that_is_put_back_is_refused"),
    ("recoveries", "ends and tries in the audit: rollbacks::a_recovery_is_not_completed_twice"),
    ("email_changes", "its end in the audit: rollbacks::an_address_is_not_confirmed_twice"),
    ("api_tokens", "its end in the audit: rollbacks::a_revoked_token_that_is_put_back_is_refused"),
    (
        "switches",
        "the other database: attacks::a_pause_of_recoveries_cannot_be_removed_from_one_database",
    ),
    (
        "spends",
        "amounts only fall; a missing row: rollbacks::a_spend_that_is_removed_raises_no_limit",
    ),
    ("proposals", "a second person approves again, and what is rescued must still be damaged"),
    (
        "orphaned_scks",
        "the time it gains is that since the row: a wrapped SCK in use is never removed",
    ),
    ("launches", "an opening is too old after minutes, and a proof decides by its own time"),
    (
        "spending_limits",
        "the revision in the audit: \
         limit_rollbacks::a_limit_that_was_put_back_or_deleted_is_refused_until_a_rescue",
    ),
    (
        "names",
        "the revision in the audit: \
         names::a_claim_that_was_removed_or_put_back_is_refused_until_telegram_reports_it_again",
    ),
];

/// The tables and columns of the schema, without those of diesel.
fn columns(subject: &Subject) -> Vec<(String, Vec<(String, String)>)> {
    let tables = subject.texts(
        "select name as text from sqlite_master where type = 'table' and name not like 'sqlite%' \
         and name not like '\\_\\_diesel%' escape '\\' order by name",
    );
    let of = |table: String| {
        let query = format!(
            "select name || ' ' || lower(type) as text from pragma_table_info('{table}') \
             order by cid"
        );
        let columns = subject.texts(&query).into_iter().map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            (name.to_owned(), kind.to_owned())
        });
        (table, columns.collect())
    };
    tables.into_iter().map(of).collect()
}

/// Another value than the one that is stored.
fn other_value(column: &str, kind: &str) -> String {
    match kind {
        "blob" => format!("randomblob(max(1, length(ifnull({column}, x'00'))))"),
        "text" => format!("ifnull({column}, '') || '1'"),
        "boolean" => format!("1 - {column}"),
        // Beyond the ids of the rows, which are unique.
        _ => format!("ifnull({column}, 0) + 1000"),
    }
}

/// Counts the rows of a table whose MACs verify: they are those that another version moves to.
async fn verified(database: &Database, table: &'static str) -> u64 {
    let (mut moved, mut cursor) = (0, Some(String::new()));
    while let Some(after) = cursor {
        let batch = database.remac(table, &after).await.unwrap();
        (moved, cursor) = (moved + batch.moved, batch.next);
    }
    moved
}

/// Copies the database, lets another program change it, and counts the rows that still verify.
async fn verified_after(subject: &Subject, change: Option<&str>, table: &'static str) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.db");
    std::fs::copy(subject.url.strip_prefix("sqlite:").unwrap(), &path).unwrap();
    let copy = Subject::copy(format!("sqlite:{}", path.display()), subject).await;
    if let Some(change) = change {
        copy.tamper(&format!("pragma foreign_keys = off; {change}"));
    }
    let mut keys = copy.keys.clone();
    keys[2] = format!("2:{},{}", "99".repeat(32), keys[2]);
    verified(&open(&copy.url, &keys).await, table).await
}

#[tokio::test]
async fn every_column_is_protected_or_listed_with_the_reason() {
    let subject = Subject::file().await;
    format::fill(&subject).await;
    subject.tamper("pragma wal_checkpoint(truncate)");
    let tables = columns(&subject);
    let exists = |name: &str| tables.iter().any(|(table, _)| table == name);
    assert!(TABLES.iter().all(|(table, ..)| exists(table)), "a table of the list is no more");
    let with_mac: BTreeSet<&str> = Database::mac_tables().into_iter().collect();
    let (mut attacked, mut unprotected) = (0, BTreeSet::new());
    for (table, columns) in tables {
        let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
        if let Some((_, listed, _)) = TABLES.iter().find(|(name, ..)| *name == table) {
            assert_eq!(names, listed.split_whitespace().collect::<Vec<_>>(), "{table}");
            assert!(!with_mac.contains(&*table), "{table} has a MAC");
            continue;
        }
        // Covered by the MAC of the account.
        let covering = if table == "wallets" { "accounts" } else { &table };
        let covering = *with_mac.get(covering).unwrap_or_else(|| panic!("{table} is not listed"));
        let intact = verified_after(&subject, None, covering).await;
        assert_ne!(intact, 0, "{table}");
        for (column, kind) in &columns {
            let rows = subject.texts(&format!("select cast(rowid as text) as text from {table}"));
            let mut is_protected = false;
            for row in rows {
                let value = other_value(column, kind);
                let change = format!("update {table} set {column} = {value} where rowid = {row}");
                attacked += 1;
                if verified_after(&subject, Some(&change), covering).await < intact {
                    is_protected = true;
                    break;
                }
            }
            if !is_protected {
                unprotected.insert(format!("{table}.{column}"));
            }
        }
    }
    let listed = COLUMNS.iter().map(|(table, column, _)| format!("{table}.{column}"));
    assert_eq!(unprotected, listed.collect(), "columns that no MAC covers");
    assert!(attacked > 80, "{attacked}");
}

#[test]
fn every_table_with_a_mac_says_what_refuses_an_older_copy() {
    let listed: BTreeSet<_> = ROLLED_BACK.iter().map(|(table, _)| *table).collect();
    assert_eq!(listed, Database::mac_tables().into_iter().collect());
}
