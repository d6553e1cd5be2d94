//! What depends on a version of the row key or the contact key, and how it is moved.

use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use kms_core::account::{ContactChange, EmailChange};
use kms_core::ports::{AccountStore, EmailChangeStore, RecoveryStore, StoreError};
use kms_core::{Sealer, ServerKeyId, ServerKeyKind, ServerKeys};
use kms_store::{
    ApiToken, Database, MovedBatch, Pausable, Proposal, Raises, Scope, Sealed, open_key_database,
};
use kms_types::{AccountRef, AssetId, EthAddress, SckId, Timestamp, U256, Units};

use crate::fixtures::{Subject, insert, open};
use crate::recoveries::ready;

#[tokio::test]
async fn remac_moves_every_row_that_verifies_in_a_file() {
    remac_moves_every_row_that_verifies(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn remac_moves_every_row_that_verifies_in_postgresql() {
    remac_moves_every_row_that_verifies(Subject::postgres().await).await;
}

#[tokio::test]
async fn reseal_moves_every_contact_that_opens_in_a_file() {
    reseal_moves_every_contact_that_opens(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn reseal_moves_every_contact_that_opens_in_postgresql() {
    reseal_moves_every_contact_that_opens(Subject::postgres().await).await;
}

fn version(id: u8) -> Option<ServerKeyId> {
    Some(id.try_into().unwrap())
}

fn with_new(subject: &Subject, index: usize, old: bool) -> [String; 6] {
    let mut keys = subject.keys.clone();
    let newest = format!("2:{}", "ee".repeat(32));
    keys[index] = if old { format!("{newest},{}", keys[index]) } else { newest };
    keys
}

async fn count(database: &Database, kind: ServerKeyKind, id: u8) -> Vec<(String, u64)> {
    let found = database.server_key_dependants().await.unwrap();
    let of = found.into_iter().filter(|row| row.kind == kind && row.version == version(id));
    of.map(|row| (row.what, row.count)).collect()
}

async fn all(batch: impl AsyncFn(String) -> Result<MovedBatch, StoreError>) -> MovedBatch {
    let mut all = MovedBatch::default();
    loop {
        let done = batch(all.next.take().unwrap_or_default()).await.unwrap();
        all.moved += done.moved;
        all.failed.extend(done.failed);
        let Some(next) = done.next else { return all };
        all.next = Some(next);
    }
}

async fn remac(database: &Database) -> MovedBatch {
    let mut sum = MovedBatch::default();
    for table in Database::mac_tables() {
        let done = all(async |cursor| database.remac(table, &cursor).await).await;
        sum.moved += done.moved;
        sum.failed.extend(done.failed);
    }
    sum
}

/// More accounts than one batch, and a row of every other table.
async fn fill(database: &Database) {
    for id in 1..=120 {
        insert(database, id, &format!("name{id}")).await;
    }
    let ann = database.account(telegram(1)).await.unwrap().unwrap().id;
    assert!(database.insert_recovery(ready(ann)).await.unwrap());
    let change = EmailChange {
        account: ann,
        email: vec![5; 40],
        requested_at: Timestamp(5),
        tries: 0,
        codes_key: 1.try_into().unwrap(),
    };
    assert!(database.request_email_change(change, 1).await.unwrap());
    for name in ["bot", "other"] {
        let token = ApiToken {
            id: name.to_owned(),
            name: name.to_owned(),
            scopes: vec![Scope::Bot],
            created_at: Timestamp(1),
            expires_at: None,
            revoked_at: None,
        };
        let byte = u8::try_from(name.len()).unwrap();
        database.insert_api_token(token, [byte; 32].into()).await.unwrap();
    }
    let proposal = Proposal {
        action: "rescue".to_owned(),
        subject: ann.to_string(),
        digest: [1; 32],
        person: "pat".to_owned(),
        reason: "ticket".to_owned(),
        proposed_at: Timestamp(1),
    };
    database.propose(proposal).await.unwrap();
    let keys = open_key_database("sqlite::memory:", "").await.unwrap();
    database.pause(Pausable::Recoveries, &*keys, Timestamp(1)).await.unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    for contract in [None, Some(EthAddress::from([7; 20]))] {
        let asset = AssetId { chain_id: 1, contract };
        let units = Some(Units(U256::from(5)));
        let set = database
            .set_spending_limit(ann, asset, units, (day, Raises::Always), Timestamp(1))
            .await;
        set.unwrap().unwrap();
    }
    let far = Timestamp(4_000_000_000_000);
    database.orphaned_for(day, vec![SckId::random()], far).await.unwrap();
    database.open_launch(crate::launches::launch("ann", 1), true).await.unwrap();
}

fn telegram(id: i64) -> AccountRef {
    AccountRef::Telegram(id.try_into().unwrap())
}

async fn remac_moves_every_row_that_verifies(subject: Subject) {
    fill(&subject.database).await;
    subject.tamper("update api_tokens set scopes = 'admin' where id = 'other'");
    let both = open(&subject.url, &with_new(&subject, 2, true)).await;
    let total: u64 = count(&both, ServerKeyKind::Row, 1).await.iter().map(|(_, rows)| rows).sum();
    assert_eq!(total, 250);
    let done = remac(&both).await;
    assert_eq!(done.moved, 249);
    let [StoreError::Tampered { table: "api_tokens", key }] = &done.failed[..] else {
        panic!("{:?}", done.failed);
    };
    assert_eq!(key, "other");
    // Again: only the modified row is left, and is not moved.
    let again = remac(&both).await;
    assert_eq!((again.moved, again.failed.len()), (0, 1));
    assert_eq!(count(&both, ServerKeyKind::Row, 1).await, [("api_tokens".to_owned(), 1)]);

    let newest = open(&subject.url, &with_new(&subject, 2, false)).await;
    for id in 1..=120 {
        newest.account(telegram(id)).await.unwrap().unwrap();
    }
    assert!(newest.api_token_by_hash([3; 32].into()).await.unwrap().is_some());
    assert_eq!(newest.open_recoveries().await.unwrap().len(), 1);
    let missing = newest.api_token_by_hash([5; 32].into()).await.unwrap_err();
    assert!(matches!(missing, StoreError::NoRowKey { .. }), "{missing}");
    let mut retired = with_new(&subject, 2, true);
    retired[2] = retired[2].replace(",1:", ",retired-1:");
    let refused = open(&subject.url, &retired).await.api_token_by_hash([5; 32].into()).await;
    assert!(matches!(refused, Err(StoreError::RetiredRowKey { .. })), "{refused:?}");
    // An older server writes under the version that it knows, and the next run moves that too.
    insert(&subject.database, 121, "name121").await;
    assert_eq!(remac(&both).await.moved, 2);
}

async fn reseal_moves_every_contact_that_opens(subject: Subject) {
    let database = &subject.database;
    let keys = |keys: &[String; 6]| {
        let [pepper, contact, row, audit, codes, checkpoint] =
            keys.clone().map(|key| key.parse().unwrap());
        Sealer::new(Arc::new(ServerKeys { pepper, contact, row, audit, codes, checkpoint }))
    };
    let (old, both) = (keys(&subject.keys), with_new(&subject, 1, true));
    let mut ids = Vec::new();
    for id in 1..=3 {
        let account = insert(database, id, &format!("name{id}")).await.id;
        // The third holds what was sealed for another account.
        let owner = if id == 3 { ids[0] } else { account };
        for address in ["one@example.org", "two@example.org"] {
            let sealed = old.seal_contact(owner, "email", address);
            let trusted_after = Duration::from_secs(1);
            let change = ContactChange::Email { email: Some(sealed), trusted_after };
            assert!(database.set_contact(account, 1, change, Timestamp(7)).await.unwrap());
        }
        let sealed = old.seal_contact(owner, "mobile", "+491511234567");
        let change = ContactChange::Mobile(Some(sealed));
        assert!(database.set_contact(account, 1, change, Timestamp(8)).await.unwrap());
        ids.push(account);
    }
    let both = open(&subject.url, &both).await;
    let mut failed = 0;
    let mut moved = Vec::new();
    for what in Sealed::ALL {
        let done = all(async |cursor| both.reseal(what, &cursor).await).await;
        failed += done.failed.len();
        moved.push(done.moved);
    }
    assert_eq!((moved, failed), (vec![2, 2, 0], 2));
    let newest = with_new(&subject, 1, false);
    let (database, sealer) = (open(&subject.url, &newest).await, keys(&newest));
    for id in &ids[..2] {
        let account = database.account((*id).into()).await.unwrap().unwrap();
        let email = sealer.open_contact(*id, "email", account.email.as_deref().unwrap());
        assert_eq!(email.unwrap(), "two@example.org");
        let mobile = sealer.open_contact(*id, "mobile", account.mobile.as_deref().unwrap());
        assert_eq!(mobile.unwrap(), "+491511234567");
    }
    let left = count(&database, ServerKeyKind::Contact, 1).await;
    let expected = [("accounts.mobile", 1), ("accounts.email", 1), ("events.contact", 1)];
    assert_eq!(left, expected.map(|(what, rows)| (what.to_owned(), rows)));
}

/// A table with a MAC that `remac` does not know would keep an old key in use for ever.
#[tokio::test]
async fn every_table_with_a_mac_can_be_moved() {
    #[derive(QueryableByName)]
    struct Name {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let subject = Subject::file().await;
    let path = subject.url.strip_prefix("sqlite:").unwrap();
    let mut connection = SqliteConnection::establish(path).unwrap();
    let with_mac = "select m.name from sqlite_master m join pragma_table_info(m.name) c \
                    where m.type = 'table' and c.name = 'mac' order by m.name";
    let tables: Vec<Name> = diesel::sql_query(with_mac).load(&mut connection).unwrap();
    let mut known = Database::mac_tables();
    known.sort_unstable();
    assert_eq!(tables.into_iter().map(|table| table.name).collect::<Vec<_>>(), known);
}
