//! The connection to PostgreSQL or SQLite: a pool, and threads on which queries may block.

mod cached_sql;
mod durability;
mod fence;
mod manager;
mod migrations;
mod plan;
mod together;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use diesel::r2d2::{CustomizeConnection, Pool, R2D2Connection};
use diesel::result::{DatabaseErrorKind, Error};
use kms_core::ServerKeys;
use kms_core::failpoint;
use kms_core::ports::StoreError;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::manager::ConnectionManager;
use crate::accounts::searches::Searches;
use crate::audit_queue::AuditQueue;
use crate::dialect::Dialect;

pub(crate) use self::cached_sql::{
    AnyBackend, CachedSql, cached_query, cached_sql, identified_sql,
};
pub use self::fence::{Fenced, WRITER};
pub use self::manager::{UrlSource, UrlSourceError};
pub use self::migrations::Grants;
pub use self::plan::{Lock, Step};
pub(crate) use self::together::{Writes, add_write};

/// How long a query waits for a free connection, or for a new one to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a caller waits for a query in all. PostgreSQL's own timeout is shorter, but a server
/// that hangs does not enforce it.
const DEADLINE: Duration = Duration::from_secs(8);

#[cfg(feature = "postgres")]
const STATEMENT_TIMEOUT: &str = "set statement_timeout = '7s'";

/// Parameters of libpq that notice a lost server: of a new connection, of one with unacknowledged
/// data (in milliseconds), and of an idle one. The URL may override them.
#[cfg(feature = "postgres")]
const LIBPQ_DEFAULTS: &str = "connect_timeout=5&tcp_user_timeout=8000\
    &keepalives_idle=10&keepalives_interval=5&keepalives_count=3";

/// A connection to either database.
#[derive(diesel::MultiConnection)]
pub(crate) enum AnyConnection {
    #[cfg(feature = "postgres")]
    Postgres(diesel::PgConnection),
    #[cfg(feature = "sqlite")]
    Sqlite(diesel::SqliteConnection),
}

/// Executes a query with the database's own connection. With [`AnyConnection`], diesel builds the
/// text of every query each time, to find the prepared statement by it.
macro_rules! on_own {
    ($connection:ident, $query:expr) => {
        match $connection {
            #[cfg(feature = "postgres")]
            $crate::database::AnyConnection::Postgres($connection) => $query,
            #[cfg(feature = "sqlite")]
            $crate::database::AnyConnection::Sqlite($connection) => $query,
        }
    };
}
pub(crate) use on_own;

impl AnyConnection {
    /// Runs `work` in a transaction, or at a savepoint of the open one, and rolls back if it fails.
    ///
    /// In SQLite a transaction has the lock for writing from its start. One that reads first would
    /// be refused at its first write, without waiting, if another process wrote in between.
    pub(crate) fn transaction<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        #[cfg(feature = "sqlite")]
        if let Self::Sqlite(sqlite) = self {
            use diesel::connection::{AnsiTransactionManager, TransactionManager};
            type Manager = <AnyConnection as Connection>::TransactionManager;

            match AnsiTransactionManager::begin_transaction_sql(sqlite, "begin immediate") {
                Err(Error::AlreadyInTransaction) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    let done = work(self);
                    match &done {
                        Ok(_) => Manager::commit_transaction(self)?,
                        Err(_) => Manager::rollback_transaction(self)?,
                    }
                    return done;
                }
            }
        }
        Connection::transaction(self, work)
    }
}

/// The account database. It implements the ports of `kms-core` and `kms-chain`. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: Pool<ConnectionManager>,
    /// One permit a connection: without a free one, no thread is occupied.
    permits: Arc<Semaphore>,
    pub(crate) audit_queue: Arc<AuditQueue>,
    fence: Arc<fence::Seen>,
    pub(crate) searches: Arc<Searches>,
    pub(crate) keys: Arc<ServerKeys>,
    pub(crate) dialect: Dialect,
    #[cfg(feature = "transfers")]
    pub(crate) notice_from: Arc<NoticeFrom>,
}

/// From which amount on a deposit is notified by itself. Those below are summed up once a day.
#[cfg(feature = "transfers")]
pub type NoticeFrom = std::collections::HashMap<kms_types::AssetId, kms_types::Units>;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// This build supports no database with such a URL.
    #[error("expected a URL that begins with {expected}")]
    Scheme {
        /// The supported schemes.
        expected: &'static str,
    },
    /// The URL cannot be parsed.
    #[error("the URL cannot be parsed; percent-encode special characters of its password")]
    Url,
    /// The pool or the file could not be opened.
    #[error("the database cannot be opened")]
    Open(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A query failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database permits newer releases only.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// A server of an older release did not disconnect.
    #[error(
        "a server of an older release (writer version {older}) is still connected and would not \
         know the new schema; nothing was migrated, and older servers are refused. Stop it, and \
         run `kms-server migrate` again"
    )]
    OlderServer {
        /// Its writer version.
        older: i32,
        /// The lock that was not granted.
        #[source]
        error: diesel::result::Error,
    },
    /// A migration failed and was rolled back.
    #[error("a migration failed: {0}")]
    Migrate(Box<dyn std::error::Error + Send + Sync>),
    /// Commits would not survive a crash: an INTENT of the audit has to, before a key is used.
    #[error(
        "synchronous_commit is {synchronous_commit} although the server sets it to on: a pooler \
         drops the settings of a session; connect to PostgreSQL directly, or run `alter role … set \
         synchronous_commit = on`"
    )]
    NotDurable {
        /// The setting of PostgreSQL.
        synchronous_commit: String,
    },
    /// A configured server key is not the one that the data was written with.
    #[error("server_keys.{kind}: version {id} is not the key that the data was written with")]
    WrongKey {
        /// Which key.
        kind: &'static str,
        /// Which version.
        id: u8,
    },
}

/// Why a transaction failed.
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

impl Database {
    /// Configures a pool for `postgres://…` or `sqlite:PATH` (`sqlite::memory:` for tests). It
    /// connects when it is used.
    ///
    /// # Errors
    /// When the URL has another scheme, or a SQLite file cannot be opened.
    pub async fn connect(
        url: &str,
        connections: u32,
        keys: Arc<ServerKeys>,
    ) -> Result<Self, ConnectError> {
        let url = url.to_owned();
        Self::connect_by(Arc::new(move || Ok(url.clone())), connections, keys).await
    }

    /// Configures a pool as [`Self::connect`] does. The URL is asked for whenever a connection is
    /// opened, on a thread that may block; only its password may differ.
    ///
    /// # Errors
    /// As [`Self::connect`], and when there is no URL.
    pub async fn connect_by(
        url: UrlSource,
        connections: u32,
        keys: Arc<ServerKeys>,
    ) -> Result<Self, ConnectError> {
        let source = Arc::clone(&url);
        let first = tokio::task::spawn_blocking(move || source())
            .await
            .map_err(|stopped| ConnectError::Open(Box::new(stopped)))?
            .map_err(ConnectError::Open)?;
        let (dialect, _, size) = parse(&first, connections)?;
        let fence = Arc::<fence::Seen>::default();
        let prepare = Prepare { fence: Arc::clone(&fence) };
        let open = move || {
            Pool::builder()
                .max_size(size.max(1))
                .min_idle(Some(0))
                .connection_timeout(CONNECT_TIMEOUT)
                .connection_customizer(Box::new(prepare))
                .test_on_check_out(false)
                .build(ConnectionManager { dialect, url })
        };
        let pool = tokio::task::spawn_blocking(open)
            .await
            .map_err(|stopped| ConnectError::Open(Box::new(stopped)))?
            .map_err(|error| ConnectError::Open(Box::new(error)))?;
        let permits = Semaphore::new(usize::try_from(pool.max_size()).unwrap_or(1));
        Ok(Self {
            pool,
            permits: Arc::new(permits),
            audit_queue: Arc::default(),
            fence,
            searches: Arc::default(),
            keys,
            dialect,
            #[cfg(feature = "transfers")]
            notice_from: Arc::default(),
        })
    }

    /// Sums up the external deposits below these amounts, instead of notifying each.
    #[cfg(feature = "transfers")]
    #[must_use]
    pub fn with_notice_from(self, notice_from: NoticeFrom) -> Self {
        Self { notice_from: Arc::new(notice_from), ..self }
    }

    /// Checks that the database answers.
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

    /// Runs `work` with a connection, on a thread that may block, in a span that names the calling
    /// function.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after [`DEADLINE`] at the latest. The work may then still
    /// complete, as after a lost connection.
    pub(crate) async fn blocking<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut AnyConnection) -> Result<T, Failure> + Send + 'static,
    {
        timeout(DEADLINE, self.without_deadline(work)).await.map_err(unavailable)?
    }

    /// Runs `work` as [`Self::blocking`] does, for as long as it takes.
    pub(crate) async fn without_deadline<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut AnyConnection) -> Result<T, Failure> + Send + 'static,
    {
        let span = tracing::debug_span!("database", operation = std::any::type_name::<W>());
        let permit = timeout(CONNECT_TIMEOUT, Arc::clone(&self.permits).acquire_owned());
        let permit = permit.await.map_err(unavailable)?.map_err(unavailable)?;
        let pool = self.pool.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            let _permit = permit;
            let mut connection = pool.get().map_err(unavailable)?;
            failpoint::reach("store-before");
            let done = work(&mut connection);
            if done.is_err() && connection.is_broken() {
                drop(connection);
                drop_broken(&pool);
            }
            let done = done?;
            failpoint::reach("store-after");
            Ok(done)
        });
        let done = done.await.map_err(unavailable)?;
        if let Err(error) = &done {
            self.alarm_of_row(error);
        }
        done
    }
}

/// Removes the idle connections that a failover or a restart of the database has broken, so that
/// no further request has to find them.
fn drop_broken(pool: &Pool<ConnectionManager>) {
    let mut idle: Vec<_> = std::iter::from_fn(|| pool.try_get()).collect();
    for connection in &mut idle {
        // A connection that fails is broken, and does not return to the pool.
        let _ = connection.ping();
    }
}

/// Runs a statement that the query builder supports for each backend but not for both at once, for
/// instance an insert of several rows.
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

/// Returns `false` if a row with the same key exists.
pub(crate) fn inserted(result: Result<(), Failure>) -> Result<bool, Failure> {
    unless_taken(result.map(|()| true))
}

/// Returns `false` instead if another row has a value that must be unique.
pub(crate) fn unless_taken(result: Result<bool, Failure>) -> Result<bool, Failure> {
    match result {
        Err(Failure::Diesel(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))) => {
            Ok(false)
        }
        other => other,
    }
}

/// Runs `work` in a transaction, and rolls it back if `work` returns `false`.
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

/// Returns the dialect, the URL as diesel expects it, and the size of the pool.
fn parse(url: &str, connections: u32) -> Result<(Dialect, String, u32), ConnectError> {
    #[cfg(feature = "postgres")]
    if let Some(rest) =
        url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))
    {
        if !is_unambiguous(rest) {
            return Err(ConnectError::Url);
        }
        return Ok((Dialect::Postgres, with_libpq_defaults(url), connections));
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

/// Puts [`LIBPQ_DEFAULTS`] before the URL's own parameters, of which libpq uses the last.
#[cfg(feature = "postgres")]
fn with_libpq_defaults(url: &str) -> String {
    match url.split_once('?') {
        Some((before, own)) => format!("{before}?{LIBPQ_DEFAULTS}&{own}"),
        None => format!("{url}?{LIBPQ_DEFAULTS}"),
    }
}

/// Whether libpq finds the password of this URL where its author put it. If not, libpq takes a
/// piece of the password for a host or a port, and quotes it in its error.
#[cfg(feature = "postgres")]
fn is_unambiguous(url: &str) -> bool {
    let end = url.find(['/', '?']).unwrap_or(url.len());
    let (authority, rest) = url.split_at(end);
    let hosts = authority.split_once('@').map_or(authority, |(_user, hosts)| hosts);
    let is_port = |host: &str| match host.rsplit_once(':') {
        Some((_, port)) if !host.ends_with(']') => port.bytes().all(|b| b.is_ascii_digit()),
        _ => true,
    };
    let is_encoded = |rest: &str| {
        rest.get(..2).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    !hosts.contains('@')
        && !rest.contains('@')
        && !url.contains(|c: char| c == '#' || c.is_whitespace())
        && hosts.split(',').all(is_port)
        && url.split('%').skip(1).all(is_encoded)
}

/// Sets the timeouts and the durability of every new connection, and passes it the writer fence.
#[derive(Debug)]
struct Prepare {
    fence: Arc<fence::Seen>,
}

impl CustomizeConnection<AnyConnection, diesel::r2d2::Error> for Prepare {
    fn on_acquire(&self, connection: &mut AnyConnection) -> Result<(), diesel::r2d2::Error> {
        let settings = match connection {
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(_) => [
                STATEMENT_TIMEOUT,
                // A server that died during a transaction must not keep its locks.
                "set idle_in_transaction_session_timeout = '5s'",
                // A key is used only after its INTENT is on disk. A stronger default is kept.
                "select set_config('synchronous_commit', 'on', false) \
                 where current_setting('synchronous_commit') <> 'remote_apply'",
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
        fence::enter(connection, &self.fence).map_err(diesel::r2d2::Error::QueryError)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_libpq_would_read_otherwise_is_refused() {
        for url in [
            "postgres://kms:hun@ter2@localhost/kms",
            "postgres://kms:hun/ter2@localhost/kms",
            "postgres://kms:hun?ter2@localhost/kms",
            "postgres://kms:hun#ter2@localhost/kms",
            "postgres://kms:hunter2%zz@localhost/kms",
            "postgres://kms:hunter%2@localhost/kms",
            "postgres://kms:hunter2",
            "postgresql://kms:hunter 2@localhost/kms",
            "postgres://kms:x@a:5432,b:hunter2/kms",
        ] {
            let error = parse(url, 1).unwrap_err();
            assert!(matches!(error, ConnectError::Url), "{url}: {error}");
        }
        for url in [
            "postgres://kms:h%40%2F%23:ter2@localhost:5432/kms?sslmode=verify-full",
            "postgres://kms@[::1]:5432/kms",
            "postgres://kms@[::1]/kms",
            "postgres://a:5432,b:5433/kms",
            "postgres:///kms?host=%2Fvar%2Frun%2Fpostgresql",
            "postgresql://localhost",
        ] {
            parse(url, 1).unwrap();
        }
    }
}
