//! Wrapped SCKs in a SQLite file of their own: the embedded stand-in for MongoDB. Beside them the
//! audit's checkpoints, because it is not the file that the audit is in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use diesel::SqliteConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use kms_core::audit::Checkpoint;
use kms_core::ports::{SckStore, StoreError, WrappedSck};
use kms_types::SckId;

use crate::convert::RowRef;
use crate::database::ConnectError;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite-keys");

diesel::table! {
    wrapped_scks (id) {
        id -> Text,
        account_id -> Text,
        master_key -> Text,
        bytes -> Binary,
    }
}

diesel::table! {
    audit_checkpoints (id) {
        id -> BigInt,
        line -> Text,
    }
}

diesel::table! {
    owner (id) {
        id -> Integer,
        identity -> Text,
    }
}

/// The key database in one file, for one process.
#[derive(Clone)]
pub struct SqliteScks {
    connection: Arc<Mutex<SqliteConnection>>,
}

impl SqliteScks {
    /// Opens the file, making it and its table if need be. `:memory:` for tests.
    ///
    /// # Errors
    /// When the file can not be opened or written.
    pub async fn open(path: &str) -> Result<Self, ConnectError> {
        let path = path.to_owned();
        let open = move || {
            let mut connection = SqliteConnection::establish(&path)
                .map_err(|error| ConnectError::Open(Box::new(error)))?;
            for setting in [
                "pragma busy_timeout = 5000",
                "pragma journal_mode = wal",
                "pragma synchronous = full",
            ] {
                diesel::sql_query(setting)
                    .execute(&mut connection)
                    .map_err(|error| ConnectError::Open(Box::new(error)))?;
            }
            connection.run_pending_migrations(MIGRATIONS).map_err(ConnectError::Migrate)?;
            Ok(Self { connection: Arc::new(Mutex::new(connection)) })
        };
        tokio::task::spawn_blocking(open)
            .await
            .map_err(|stopped| ConnectError::Open(Box::new(stopped)))?
    }

    /// Whether the file can be read.
    ///
    /// # Errors
    /// When it can not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.blocking(|connection| diesel::sql_query("select 1").execute(connection).map(drop))
            .await
    }

    /// Keeps a checkpoint of the audit.
    ///
    /// # Errors
    /// When the file can not be written.
    pub async fn put_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::insert_into(audit_checkpoints::table)
                .values(audit_checkpoints::line.eq(checkpoint.to_string()))
                .execute(connection)
                .map(drop)
        })
        .await
    }

    /// All checkpoints as they stand there, signed or not.
    ///
    /// # Errors
    /// When the file can not be read.
    pub async fn checkpoints(&self) -> Result<Vec<String>, StoreError> {
        self.blocking(|connection| {
            let lines = audit_checkpoints::table.order(audit_checkpoints::id);
            lines.select(audit_checkpoints::line).load(connection)
        })
        .await
    }

    /// SCKs and whose they are, as the rows say it, in the order of their ids.
    ///
    /// # Errors
    /// When the file can not be read.
    pub async fn scks_after(
        &self,
        id: &str,
        limit: u32,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let after = id.to_owned();
        self.blocking(move |connection| {
            wrapped_scks::table
                .filter(wrapped_scks::id.gt(after))
                .order(wrapped_scks::id)
                .limit(limit.into())
                .select((wrapped_scks::id, wrapped_scks::account_id))
                .load(connection)
        })
        .await
    }

    /// Whether these are the keys of this account database; of the first that asks, they are.
    ///
    /// # Errors
    /// When the file can not be read.
    pub async fn belongs_to(&self, identity: &str) -> Result<bool, StoreError> {
        let identity = identity.to_owned();
        self.blocking(move |connection| {
            diesel::insert_or_ignore_into(owner::table)
                .values((owner::id.eq(1), owner::identity.eq(&identity)))
                .execute(connection)?;
            let found: String = owner::table.select(owner::identity).first(connection)?;
            Ok(found == identity)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || {
            // A panic elsewhere leaves no statement half done.
            let mut connection: MutexGuard<'_, _> =
                connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection).map_err(unavailable)
        })
        .await
        .map_err(unavailable)?
    }
}

fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { store: "key", source: Box::new(source) }
}

#[async_trait]
impl SckStore for SqliteScks {
    async fn put_sck(&self, sck: WrappedSck) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::insert_into(wrapped_scks::table)
                .values((
                    wrapped_scks::id.eq(sck.id.to_string()),
                    wrapped_scks::account_id.eq(sck.account.to_string()),
                    wrapped_scks::master_key.eq(sck.master_key.to_string()),
                    wrapped_scks::bytes.eq(sck.bytes),
                ))
                .execute(connection)
                .map(drop)
        })
        .await
    }

    async fn replace_sck(&self, old: &WrappedSck, new: WrappedSck) -> Result<bool, StoreError> {
        let old = old.clone();
        self.blocking(move |connection| {
            // No two wrappings have the same bytes.
            let stands = wrapped_scks::table
                .filter(wrapped_scks::id.eq(old.id.to_string()))
                .filter(wrapped_scks::master_key.eq(old.master_key.to_string()))
                .filter(wrapped_scks::bytes.eq(old.bytes));
            let replaced = diesel::update(stands)
                .set((
                    wrapped_scks::master_key.eq(new.master_key.to_string()),
                    wrapped_scks::bytes.eq(new.bytes),
                ))
                .execute(connection)?;
            Ok(replaced == 1)
        })
        .await
    }

    async fn remove_sck(&self, id: SckId) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::delete(wrapped_scks::table.find(id.to_string())).execute(connection).map(drop)
        })
        .await
    }

    async fn sck(&self, id: SckId) -> Result<Option<WrappedSck>, StoreError> {
        let key = id.to_string();
        let find = key.clone();
        let row: Option<(String, String, String, Vec<u8>)> = self
            .blocking(move |connection| wrapped_scks::table.find(find).first(connection).optional())
            .await?;
        let Some((_id, account, master_key, bytes)) = row else {
            return Ok(None);
        };
        let at = RowRef { table: "wrapped_scks", key: &key };
        let (account, master_key) = (at.parse(&account)?, at.parse(&master_key)?);
        Ok(Some(WrappedSck { id, account, master_key, bytes }))
    }
}

impl std::fmt::Debug for SqliteScks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqliteScks(..)")
    }
}
