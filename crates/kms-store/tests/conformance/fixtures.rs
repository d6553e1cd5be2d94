//! Databases under test, and rows to insert.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, RunQueryDsl};
use kms_chain::transfer::{Asked, Fees, Ladder, Party, Quote, Transfer, Warning};
use kms_core::account::{Account, AccountState, NewAccount, SeenNames, Wallet};
use kms_core::ports::AccountStore;
use kms_core::{KdfParams, Salt, ServerKeys};
use kms_store::{Database, StoredEvent};
use kms_types::{
    AccountId, Asset, EthAddress, EventCursor, EventStream, NameOrigin, SckId, Timestamp,
    TransferId, U256, Units,
};

/// A migrated database, with direct access for tampering.
pub(crate) struct Subject {
    pub(crate) database: Database,
    pub(crate) url: String,
    pub(crate) keys: [String; 6],
    _directory: Option<tempfile::TempDir>,
}

impl Subject {
    pub(crate) async fn memory() -> Self {
        Self::at("sqlite::memory:".to_owned(), None).await
    }

    pub(crate) async fn file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("kms.db").display());
        Self::at(url, Some(directory)).await
    }

    #[cfg(feature = "postgres")]
    pub(crate) async fn postgres() -> Self {
        let url = kms_testkit::Postgres::shared().unwrap().create_database().unwrap();
        Self::at(url, None).await
    }

    pub(crate) async fn at(url: String, directory: Option<tempfile::TempDir>) -> Self {
        let keys =
            ["11", "22", "33", "44", "55", "66"].map(|byte| format!("1:{}", byte.repeat(32)));
        let database = open(&url, &keys).await;
        assert!(!database.schema_is_current().await.unwrap());
        database.migrate().await.unwrap();
        database.migrate().await.unwrap();
        assert!(database.schema_is_current().await.unwrap());
        Self { database, url, keys, _directory: directory }
    }

    /// A copy at another place, with the same keys.
    pub(crate) async fn copy(url: String, of: &Self) -> Self {
        let database = open(&url, &of.keys).await;
        Self { database, url, keys: of.keys.clone(), _directory: None }
    }

    /// The number of statements that wait for a lock.
    #[cfg(feature = "postgres")]
    pub(crate) fn waiting_for_locks(&self) -> u32 {
        let name = self.url.rsplit('/').next().unwrap();
        let waiting = format!(
            "select count(*) from pg_stat_activity \
             where datname = '{name}' and wait_event_type = 'Lock'"
        );
        let count = kms_testkit::Postgres::shared().unwrap().execute(name, &waiting).unwrap();
        count.parse().unwrap()
    }

    /// Counts the rows of a table, with an optional condition: `TABLE [where …]`.
    pub(crate) fn count(&self, of: &str) -> i64 {
        let count = self.texts(&format!("select cast(count(*) as text) as text from {of}"));
        count[0].parse().unwrap()
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// Reads the column `text` of a query.
    pub(crate) fn texts(&self, sql: &str) -> Vec<String> {
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            text: String,
        }
        let query = diesel::sql_query(sql);
        #[cfg(feature = "postgres")]
        if self.is_postgres() {
            let rows = query.load::<Row>(&mut self.postgres_connection()).unwrap();
            return rows.into_iter().map(|row| row.text).collect();
        }
        let rows = query.load::<Row>(&mut self.sqlite_connection()).unwrap();
        rows.into_iter().map(|row| row.text).collect()
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn postgres_connection(&self) -> diesel::PgConnection {
        diesel::PgConnection::establish(&self.url).unwrap()
    }

    pub(crate) fn sqlite_connection(&self) -> diesel::SqliteConnection {
        let path = self.url.strip_prefix("sqlite:").unwrap();
        let mut connection = diesel::SqliteConnection::establish(path).unwrap();
        // An alarm may be written in the background.
        connection.batch_execute("pragma busy_timeout = 5000").unwrap();
        connection
    }

    /// Runs SQL like an attacker who can write to the database.
    pub(crate) fn tamper(&self, sql: &str) {
        self.run(&[sql.to_owned()]);
    }

    /// Runs statements over one connection.
    pub(crate) fn run(&self, statements: &[String]) {
        #[cfg(feature = "postgres")]
        if self.is_postgres() {
            let mut connection = self.postgres_connection();
            return statements.iter().for_each(|sql| connection.batch_execute(sql).unwrap());
        }
        let mut connection = self.sqlite_connection();
        statements.iter().for_each(|sql| connection.batch_execute(sql).unwrap());
    }
}

pub(crate) async fn open(url: &str, keys: &[String; 6]) -> Database {
    Database::connect(url, 8, Arc::new(parse(keys))).await.unwrap()
}

/// Server keys of a database that no other test uses.
pub(crate) fn server_keys() -> ServerKeys {
    parse(&["11", "22", "33", "44", "55", "66"].map(|byte| format!("1:{}", byte.repeat(32))))
}

fn parse(keys: &[String; 6]) -> ServerKeys {
    let [pepper, contact, row, audit, codes, checkpoint] =
        keys.clone().map(|key| key.parse().unwrap());
    ServerKeys { pepper, contact, row, audit, codes, checkpoint }
}

/// Runs functions on every database.
macro_rules! on_every_database {
    ($($check:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check($crate::fixtures::Subject::memory().await).await;
                }
            )*
        }
        mod file {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check($crate::fixtures::Subject::file().await).await;
                }
            )*
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check($crate::fixtures::Subject::postgres().await).await;
                }
            )*
        }
    };
}
pub(crate) use on_every_database;

/// Runs functions on every database that another program can write to.
macro_rules! on_every_shared_database {
    ($($check:ident),* $(,)?) => {
        mod shared_file {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check($crate::fixtures::Subject::file().await).await;
                }
            )*
        }
        #[cfg(feature = "postgres")]
        mod shared_postgres {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check($crate::fixtures::Subject::postgres().await).await;
                }
            )*
        }
    };
}
pub(crate) use on_every_shared_database;

pub(crate) fn account(telegram_id: i64) -> Account {
    let byte = u8::try_from(telegram_id).unwrap();
    Account {
        id: AccountId::random(),
        telegram_id: telegram_id.try_into().unwrap(),
        username: None,
        state: AccountState::Active,
        unfreezes_at: None,
        mobile: Some(vec![byte; 40]),
        email: None,
        email_verified_at: None,
        former_email: None,
        recovered_at: None,
        page_only_since: None,
        page_only_until: None,
        created_by: None,
        created_at: Timestamp(1_000 + telegram_id),
        revision: 1,
        wallet: Wallet {
            address: EthAddress::from([byte; 20]),
            public_key: [byte; 33],
            sealed_key: vec![byte; 61],
            kdf: KdfParams::ARGON2ID,
            salt: Salt([byte; 16]),
            password_version: 1,
            pepper_id: 1.try_into().unwrap(),
            commitment: [byte; 32],
            sck_id: SckId::random(),
            wrapped_hash: [byte; 32],
            version: 1,
        },
    }
}

/// Reads the events of both streams after a cursor, once there are this many: PostgreSQL withholds
/// events until the older transactions of the whole cluster have ended, those of other tests
/// included.
pub(crate) async fn events(
    database: &Database,
    after: EventCursor,
    count: usize,
) -> Vec<StoredEvent> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let mut found = Vec::new();
        for stream in [EventStream::Security, EventStream::Payments] {
            found.extend(database.events_after(stream, after, 100).await.unwrap().events);
        }
        found.sort_by_key(|event| event.cursor);
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "{} events of {count}", found.len());
    }
}

pub(crate) async fn insert(database: &Database, telegram_id: i64, name: &str) -> Account {
    let account = account(telegram_id);
    let new = NewAccount { account: account.clone(), names: Some(saw(&[name], telegram_id)) };
    assert!(database.create_account(new).await.unwrap().is_some());
    Account { username: Some(name.parse().unwrap()), ..account }
}

/// The usernames of a user, as Telegram showed them at a time.
pub(crate) fn saw(names: &[&str], at: i64) -> SeenNames {
    let usernames = names.iter().map(|name| name.parse().unwrap()).collect();
    let at = Timestamp(at);
    SeenNames { usernames, seen_at: at, received_at: at, origin: NameOrigin::Token }
}

/// A ladder of one step.
pub(crate) fn ladder(price: u128) -> Ladder {
    Ladder::new(price, Fees::Legacy { price }, Vec::new()).unwrap()
}

pub(crate) fn transfer(from: &Account, to: &Account, wei: u64, now: Timestamp) -> Transfer {
    let party = |account: &Account| Party {
        account: Some(account.id),
        username: account.username.clone(),
        address: account.wallet.address,
        since: Some(account.created_at),
    };
    Transfer::from(Quote {
        id: TransferId::random(),
        chain_id: 31_337,
        from: party(from),
        to: party(to),
        asked: Asked { to: "@bob".to_owned(), amount: "1".to_owned(), asset: Asset::Native },
        token: None,
        value: Units(U256::from(wei)),
        gas_limit: 10,
        ladder: ladder(1),
        warnings: vec![Warning::FirstPayment, Warning::NameReassigned],
        client_ref: Some("a note".to_owned()),
        created_at: now,
        // By the database's clock, unlike the other times of these tests.
        expires_at: Timestamp(i64::MAX),
    })
}
