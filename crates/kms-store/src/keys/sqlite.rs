//! A SQLite file of its own: the embedded key database.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use diesel::SqliteConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use kms_core::audit::Checkpoint;
use kms_core::ports::{SckStore, StoreError, WrappedSck};
use kms_types::SckId;

use super::{KeyDatabase, KeyDatabaseGrants, KeyDatabaseOwner, unavailable};
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
    pause (name) {
        name -> Text,
        line -> Text,
    }
}

diesel::table! {
    owner (id) {
        id -> Integer,
        identity -> Text,
        claim -> Text,
    }
}

/// A key database in one file, for one process.
#[derive(Clone)]
pub struct SqliteKeyDatabase {
    connection: Arc<Mutex<SqliteConnection>>,
}

impl SqliteKeyDatabase {
    /// Opens the file, creating it and its tables if need be. `:memory:` is for tests.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
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

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || {
            // SQLite rolls back the statement of a thread that panicked.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection).map_err(unavailable)
        })
        .await
        .map_err(unavailable)?
    }
}

#[async_trait]
impl SckStore for SqliteKeyDatabase {
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
            // Wrapping is randomized, so equal bytes are the same wrapping.
            let unchanged = wrapped_scks::table
                .filter(wrapped_scks::id.eq(old.id.to_string()))
                .filter(wrapped_scks::master_key.eq(old.master_key.to_string()))
                .filter(wrapped_scks::bytes.eq(old.bytes));
            let replaced = diesel::update(unchanged)
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
        let found: Option<(String, String, String, Vec<u8>)> = self
            .blocking(move |connection| wrapped_scks::table.find(find).first(connection).optional())
            .await?;
        let Some((_id, account, master_key, bytes)) = found else {
            return Ok(None);
        };
        let row = RowRef { table: "wrapped_scks", key: &key };
        let (account, master_key) = (row.parse(&account)?, row.parse(&master_key)?);
        Ok(Some(WrappedSck { id, account, master_key, bytes }))
    }
}

#[async_trait]
impl KeyDatabase for SqliteKeyDatabase {
    async fn ping(&self) -> Result<(), StoreError> {
        self.blocking(|connection| diesel::sql_query("select 1").execute(connection).map(drop))
            .await
    }

    /// A file has no roles, and opening it has written to it.
    async fn grants(&self) -> Result<KeyDatabaseGrants, StoreError> {
        Ok(KeyDatabaseGrants::default())
    }

    async fn put_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::insert_into(audit_checkpoints::table)
                .values(audit_checkpoints::line.eq(checkpoint.to_string()))
                .execute(connection)
                .map(drop)
        })
        .await
    }

    async fn checkpoints(&self) -> Result<Vec<String>, StoreError> {
        self.blocking(|connection| {
            let lines = audit_checkpoints::table.order(audit_checkpoints::id);
            lines.select(audit_checkpoints::line).load(connection)
        })
        .await
    }

    async fn pause_line(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.blocking(move |connection| {
            pause::table.find(name).select(pause::line).first(connection).optional()
        })
        .await
    }

    async fn pause_lines(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.blocking(|connection| pause::table.order(pause::name).load(connection)).await
    }

    async fn put_pause_line(&self, name: &str, line: &str) -> Result<(), StoreError> {
        let (name, line) = (name.to_owned(), line.to_owned());
        self.blocking(move |connection| {
            diesel::replace_into(pause::table)
                .values((pause::name.eq(name), pause::line.eq(line)))
                .execute(connection)
                .map(drop)
        })
        .await
    }

    async fn scks_after(&self, id: &str, limit: u32) -> Result<Vec<(String, String)>, StoreError> {
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

    async fn owner(&self) -> Result<Option<KeyDatabaseOwner>, StoreError> {
        self.blocking(|connection| {
            let found: Option<(String, String)> = owner::table
                .select((owner::identity, owner::claim))
                .first(connection)
                .optional()?;
            Ok(found.map(|(identity, claim)| KeyDatabaseOwner { identity, claim }))
        })
        .await
    }

    async fn replace_owner(
        &self,
        old: Option<&KeyDatabaseOwner>,
        new: &KeyDatabaseOwner,
    ) -> Result<bool, StoreError> {
        let (old, new) = (old.cloned(), new.clone());
        self.blocking(move |connection| {
            let values = (owner::identity.eq(new.identity), owner::claim.eq(new.claim));
            let written = match old {
                Some(old) => diesel::update(owner::table)
                    .filter(owner::identity.eq(old.identity))
                    .filter(owner::claim.eq(old.claim))
                    .set(values)
                    .execute(connection)?,
                None => diesel::insert_or_ignore_into(owner::table)
                    .values((owner::id.eq(1), values.0, values.1))
                    .execute(connection)?,
            };
            Ok(written == 1)
        })
        .await
    }
}

impl fmt::Debug for SqliteKeyDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SqliteKeyDatabase(..)")
    }
}
