//! The writer fence: which releases may write to the database.
//!
//! Each release has a writer version, and the database holds the oldest that may write. In
//! PostgreSQL every connection holds a shared advisory lock of its writer version. `migrate` raises
//! the stored version and then waits for the exclusive locks of all older ones, so that no server
//! of an older release is connected when the schema changes, not even one that hangs.

use std::sync::atomic::{AtomicI32, Ordering};

use diesel::prelude::*;
use diesel::result::Error;

use super::{AnyConnection, ConnectError, Database};

/// The writer version of this program. Raise it with a schema that an older program must not write
/// to, and set `OLDEST_WRITER` to it.
pub const WRITER: i32 = 1;

/// The oldest writer version that may write beside this program.
pub(super) const OLDEST_WRITER: i32 = 1;

/// The first key of all advisory locks of this program.
#[cfg(feature = "postgres")]
const LOCKS: i32 = 0x006b_6d73;
/// The second key of the lock that one `migrate` holds at a time; the others are writer versions.
#[cfg(feature = "postgres")]
const MIGRATION: i32 = 0;

/// The database permits newer releases only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database was migrated for a newer release: it permits writer version {oldest} or newer, \
     and this program has {WRITER}; start the newer release"
)]
pub struct Fenced {
    oldest: i32,
}

/// The highest writer version that a new connection found to be required.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicI32);

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    oldest: i32,
}

impl Database {
    /// Checks that this program may write.
    ///
    /// # Errors
    /// [`ConnectError::Fenced`] if it may not.
    pub async fn check_writer(&self) -> Result<(), ConnectError> {
        let found = self.blocking(|connection| Ok(oldest(connection)?)).await;
        // A new connection that was refused has stored why.
        let seen = self.fence.0.load(Ordering::Relaxed);
        fenced(found.as_ref().ok().copied().flatten().unwrap_or_default().max(seen))?;
        Ok(found.map(drop)?)
    }

    /// Permits only this writer version and newer ones, and waits until no server of an older
    /// release is connected. `migrate` does so for the version that its schema needs.
    ///
    /// # Errors
    /// [`ConnectError::OlderServer`] after ten seconds; the older servers stay refused.
    pub async fn require_writer(&self, version: i32) -> Result<(), ConnectError> {
        self.without_deadline(move |connection| {
            raise(connection, version)?;
            Ok(shut_out(connection, version))
        })
        .await?
    }
}

impl From<Fenced> for Error {
    fn from(fenced: Fenced) -> Self {
        Self::QueryBuilderError(Box::new(fenced))
    }
}

/// Enters a new connection as one of this writer version.
pub(super) fn enter(connection: &mut AnyConnection, seen: &Seen) -> QueryResult<()> {
    // Before the version is read, so that `migrate` waits for what reads the one before.
    #[cfg(feature = "postgres")]
    if matches!(connection, AnyConnection::Postgres(_)) {
        lock(connection, "pg_advisory_lock_shared", WRITER)?;
    }
    let oldest = oldest(connection)?.unwrap_or_default();
    seen.0.fetch_max(oldest, Ordering::Relaxed);
    Ok(fenced(oldest)?)
}

fn fenced(oldest: i32) -> Result<(), Fenced> {
    if oldest > WRITER { Err(Fenced { oldest }) } else { Ok(()) }
}

/// The oldest writer version that the database permits; `None` before the first migration.
fn oldest(connection: &mut AnyConnection) -> QueryResult<Option<i32>> {
    let table = match connection {
        #[cfg(feature = "postgres")]
        AnyConnection::Postgres(_) => {
            // A role that is granted nothing yet cannot write, either.
            "select 1 as oldest from pg_class \
             where oid = to_regclass('writer_fence') and has_table_privilege(oid, 'select')"
        }
        #[cfg(feature = "sqlite")]
        AnyConnection::Sqlite(_) => {
            "select 1 as oldest from sqlite_master where name = 'writer_fence'"
        }
    };
    let exists: Option<Version> = diesel::sql_query(table).get_result(connection).optional()?;
    if exists.is_none() {
        return Ok(None);
    }
    let found = diesel::sql_query("select oldest from writer_fence");
    Ok(found.get_result(connection).optional()?.map(|Version { oldest }| oldest))
}

/// Stores the version, unless a newer one is stored.
pub(super) fn raise(connection: &mut AnyConnection, version: i32) -> QueryResult<()> {
    if oldest(connection)?.is_none_or(|oldest| oldest >= version) {
        return Ok(());
    }
    let raise = diesel::sql_query("update writer_fence set oldest = $1 where oldest < $1");
    raise.bind::<diesel::sql_types::Integer, _>(version).execute(connection).map(drop)
}

/// Waits until no connection of a version before this one is open. New ones are refused.
pub(super) fn shut_out(connection: &mut AnyConnection, version: i32) -> Result<(), ConnectError> {
    #[cfg(feature = "postgres")]
    if matches!(connection, AnyConnection::Postgres(_)) {
        for older in 1..version {
            let waited = exclusively(connection, older, "'10s'", |_| ());
            waited.map_err(|error| ConnectError::OlderServer { older, error })?;
        }
    }
    let _ = (connection, version);
    Ok(())
}

/// Runs `work` while no other `migrate` runs in PostgreSQL.
#[cfg(feature = "postgres")]
pub(super) fn alone<T>(
    connection: &mut AnyConnection,
    work: impl FnOnce(&mut AnyConnection) -> T,
) -> QueryResult<T> {
    exclusively(connection, MIGRATION, "0", work)
}

#[cfg(feature = "postgres")]
fn exclusively<T>(
    connection: &mut AnyConnection,
    key: i32,
    timeout: &str,
    work: impl FnOnce(&mut AnyConnection) -> T,
) -> QueryResult<T> {
    diesel::sql_query("set statement_timeout = 0").execute(connection)?;
    diesel::sql_query(format!("set lock_timeout = {timeout}")).execute(connection)?;
    lock(connection, "pg_advisory_lock", key)?;
    let done = work(connection);
    lock(connection, "pg_advisory_unlock", key)?;
    diesel::sql_query("set lock_timeout = 0").execute(connection)?;
    diesel::sql_query(super::STATEMENT_TIMEOUT).execute(connection)?;
    Ok(done)
}

#[cfg(feature = "postgres")]
fn lock(connection: &mut AnyConnection, function: &str, key: i32) -> QueryResult<()> {
    diesel::sql_query(format!("select {function}({LOCKS}, {key})")).execute(connection).map(drop)
}
