//! The connection to PostgreSQL or SQLite: a pool, threads that may block, and migrations.

use std::sync::Arc;
use std::time::Duration;

use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::result::{DatabaseErrorKind, Error};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use kms_core::ServerKeys;
use kms_core::failpoint;
use kms_core::ports::StoreError;

use crate::audit::AuditQueue;
use crate::schema::server_key_checks;

/// How long a request waits for a connection, or for the server to answer a new one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(feature = "postgres")]
const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
#[cfg(feature = "sqlite")]
const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// One connection, of whichever database.
#[derive(diesel::MultiConnection)]
pub(crate) enum AnyConnection {
    #[cfg(feature = "postgres")]
    Postgres(diesel::PgConnection),
    #[cfg(feature = "sqlite")]
    Sqlite(diesel::SqliteConnection),
}

/// Accounts, wallets, names, transfers, events, audit, tokens and limits. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: Pool<ConnectionManager<AnyConnection>>,
    pub(crate) audit_queue: Arc<AuditQueue>,
    pub(crate) keys: Arc<ServerKeys>,
    pub(crate) dialect: Dialect,
}

/// What the two databases say differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// Why a database can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is of no database that this program was built for.
    #[error("expected a URL that begins with {expected}")]
    Scheme {
        /// What it may begin with.
        expected: &'static str,
    },
    /// The pool could not be made.
    #[error("the database can not be opened")]
    Open(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers, but with an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A migration failed. Nothing of it was kept.
    #[error("a migration failed: {0}")]
    Migrate(Box<dyn std::error::Error + Send + Sync>),
    /// The data was written with another key.
    #[error("server_keys.{kind}: version {id} is not the key that the data was written with")]
    WrongKey {
        /// Which of the four.
        kind: &'static str,
        /// Which version.
        id: u8,
    },
}

#[derive(QueryableByName)]
struct Text {
    #[diesel(sql_type = diesel::sql_types::Text)]
    text: String,
}

/// What a transaction fails with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Diesel(#[from] diesel::result::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Diesel(error) => unavailable(error),
            Failure::Store(error) => error,
        }
    }
}

pub(crate) fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { store: "account", source: Box::new(source) }
}

impl Dialect {
    /// The larger of its arguments, as a scalar function.
    pub(crate) fn greatest(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "greatest",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "max",
        }
    }

    /// The smaller of its arguments, as a scalar function.
    pub(crate) fn least(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "least",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "min",
        }
    }

    /// One row if any migration was ever run.
    fn has_migrations(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => {
                "select relname::text as text from pg_class \
                 where oid = to_regclass('__diesel_schema_migrations')"
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite => {
                "select name as text from sqlite_master where name = '__diesel_schema_migrations'"
            }
        }
    }

    /// What the one who appends to the audit runs first: it lets no other append before the
    /// transaction ends, and reads what the last one wrote.
    pub(crate) fn lock_audit(self) -> &'static str {
        match self {
            // The number is ours alone: the first bytes of SHA-256 of `wallet-kms/v1/audit`.
            #[cfg(feature = "postgres")]
            Self::Postgres => "select pg_advisory_xact_lock(-3855145189506829152)",
            // A write, though of nothing: a transaction that begins by reading can not become the
            // file's writer once another one was.
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "update audit set seq = seq where false",
        }
    }

    /// What a select of rows that are to be removed ends with: it waits for no row that another
    /// transaction has, which may wait for one of these.
    pub(crate) fn skip_locked(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "for update skip locked",
            // One writes at a time.
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "",
        }
    }

    /// The database's own clock, in milliseconds since 1970; it does not stand still within a
    /// transaction.
    pub(crate) fn clock(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "cast(extract(epoch from clock_timestamp()) * 1000 as bigint)",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "cast(unixepoch('subsec') * 1000 as integer)",
        }
    }
}

impl Database {
    /// Opens `postgres://…` or `sqlite:PATH` (`sqlite::memory:` for tests), without asking yet
    /// whether it answers.
    ///
    /// # Errors
    /// When the URL is of another kind, or a SQLite file can not be opened.
    pub async fn connect(
        url: &str,
        connections: u32,
        keys: Arc<ServerKeys>,
    ) -> Result<Self, ConnectError> {
        let (dialect, target, size) = parse(url, connections)?;
        let open = move || {
            Pool::builder()
                .max_size(size.max(1))
                .min_idle(Some(0))
                .connection_timeout(CONNECT_TIMEOUT)
                .connection_customizer(Box::new(Prepare))
                .test_on_check_out(false)
                .build(ConnectionManager::<AnyConnection>::new(target))
        };
        let pool = tokio::task::spawn_blocking(open)
            .await
            .map_err(|stopped| ConnectError::Open(Box::new(stopped)))?
            .map_err(|error| ConnectError::Open(Box::new(error)))?;
        Ok(Self { pool, audit_queue: Arc::default(), keys, dialect })
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// When the database does not answer, or a step fails.
    pub async fn migrate(&self) -> Result<(), ConnectError> {
        let migrations = self.migrations();
        self.blocking(move |connection| {
            #[cfg(feature = "postgres")]
            if matches!(connection, AnyConnection::Postgres(_)) {
                // An index on a large table takes its time; a lock that is not to be had does not.
                diesel::sql_query("set statement_timeout = 0").execute(connection)?;
                diesel::sql_query("set lock_timeout = '10s'").execute(connection)?;
            }
            let run = connection.run_pending_migrations(migrations).map(drop);
            #[cfg(feature = "postgres")]
            if matches!(connection, AnyConnection::Postgres(_)) {
                diesel::sql_query("set statement_timeout = '10s'").execute(connection)?;
                diesel::sql_query("set lock_timeout = 0").execute(connection)?;
            }
            Ok(run.map_err(ConnectError::Migrate))
        })
        .await?
    }

    /// Whether every migration that this program knows was run. Changes nothing: the role that
    /// serves may have no right to.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schema_is_current(&self) -> Result<bool, ConnectError> {
        let known: Vec<Box<dyn Migration<<AnyConnection as Connection>::Backend>>> =
            self.migrations().migrations().map_err(ConnectError::Migrate)?;
        let known: Vec<_> =
            known.iter().map(|migration| migration.name().version().to_string()).collect();
        let has_migrations = self.dialect.has_migrations();
        let run = self.blocking(move |connection| {
            let found: Vec<Text> = diesel::sql_query(has_migrations).load(connection)?;
            if found.is_empty() {
                return Ok(Vec::new());
            }
            let run = "select version as text from __diesel_schema_migrations";
            Ok(diesel::sql_query(run).load::<Text>(connection)?)
        });
        let run = run.await?;
        Ok(known.iter().all(|version| run.iter().any(|run| run.text == *version)))
    }

    /// Compares the configured server keys with those that the data was written with, and
    /// remembers new ones.
    ///
    /// # Errors
    /// `WrongKey` names the first that differs.
    pub async fn check_server_keys(&self) -> Result<(), ConnectError> {
        let checks: Vec<_> = self
            .keys
            .iter()
            .map(|(kind, id, key)| (kind, id.as_u8(), key.check_value().to_vec()))
            .collect();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                for (kind, id, check) in checks {
                    let known: Option<Vec<u8>> = server_key_checks::table
                        .find((kind, i32::from(id)))
                        .select(server_key_checks::check_value)
                        .first(connection)
                        .optional()?;
                    match known {
                        Some(known) if known == check => {}
                        Some(_) => return Ok(Err(ConnectError::WrongKey { kind, id })),
                        None => {
                            diesel::insert_into(server_key_checks::table)
                                .values((
                                    server_key_checks::kind.eq(kind),
                                    server_key_checks::key_id.eq(i32::from(id)),
                                    server_key_checks::check_value.eq(check),
                                ))
                                .execute(connection)?;
                        }
                    }
                }
                Ok(Ok(()))
            })
        })
        .await?
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not, within seconds.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.blocking(|connection| {
            diesel::sql_query("select 1").execute(connection)?;
            Ok(())
        })
        .await
    }

    /// Runs `work` with a connection, on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AnyConnection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pool = self.pool.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = pool.get().map_err(unavailable)?;
            failpoint::reach("store-before");
            let done = work(&mut connection)?;
            failpoint::reach("store-after");
            Ok(done)
        });
        done.await.map_err(unavailable)?
    }

    fn migrations(&self) -> EmbeddedMigrations {
        match self.dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => POSTGRES,
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => SQLITE,
        }
    }
}

/// Runs what is not to be had of both databases at once: many rows in one statement.
macro_rules! execute_on_either {
    ($connection:expr, $statement:expr) => {{
        let statement = $statement;
        match $connection {
            #[cfg(feature = "postgres")]
            $crate::database::AnyConnection::Postgres(connection) => statement.execute(connection),
            #[cfg(feature = "sqlite")]
            $crate::database::AnyConnection::Sqlite(connection) => statement.execute(connection),
        }
    }};
}
pub(crate) use execute_on_either;

/// `false` for a row that was there first.
pub(crate) fn inserted(result: Result<(), Failure>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(Failure::Diesel(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Runs `work` in a transaction, and undoes it if `work` answers `false`.
pub(crate) fn all_or_nothing(
    connection: &mut AnyConnection,
    work: impl FnOnce(&mut AnyConnection) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    let done = connection.transaction(|connection| match work(connection) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Diesel(Error::RollbackTransaction)),
        Err(error) => Err(error),
    });
    match done {
        Ok(()) => Ok(true),
        Err(Failure::Diesel(Error::RollbackTransaction)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The dialect, diesel's own spelling of the URL, and how many connections make sense.
fn parse(url: &str, connections: u32) -> Result<(Dialect, String, u32), ConnectError> {
    #[cfg(feature = "postgres")]
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok((Dialect::Postgres, url.to_owned(), connections));
    }
    #[cfg(feature = "sqlite")]
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok((Dialect::Sqlite, path.to_owned(), 1));
    }
    let _ = connections;
    Err(ConnectError::Scheme {
        expected: match (cfg!(feature = "postgres"), cfg!(feature = "sqlite")) {
            (true, true) => "postgres:// or sqlite:",
            (true, false) => "postgres://",
            _ => "sqlite:",
        },
    })
}

/// What every new connection is told.
#[derive(Debug)]
struct Prepare;

impl CustomizeConnection<AnyConnection, diesel::r2d2::Error> for Prepare {
    fn on_acquire(&self, connection: &mut AnyConnection) -> Result<(), diesel::r2d2::Error> {
        let settings = match connection {
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(_) => [
                "set statement_timeout = '10s'",
                // A server that died in a transaction must not hold everybody's lock.
                "set idle_in_transaction_session_timeout = '5s'",
            ]
            .as_slice(),
            #[cfg(feature = "sqlite")]
            AnyConnection::Sqlite(_) => [
                "pragma busy_timeout = 5000",
                "pragma journal_mode = wal",
                "pragma synchronous = full",
                "pragma foreign_keys = on",
            ]
            .as_slice(),
        };
        for setting in settings {
            diesel::sql_query(*setting)
                .execute(connection)
                .map_err(diesel::r2d2::Error::QueryError)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}
