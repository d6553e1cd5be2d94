//! The schema: embedded migrations, and whether they have run.

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use kms_core::ports::StoreError;

use super::{AnyConnection, ConnectError, Database};
use crate::dialect::Dialect;

#[cfg(feature = "postgres")]
const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
#[cfg(feature = "sqlite")]
const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

#[derive(QueryableByName)]
struct Text {
    #[diesel(sql_type = diesel::sql_types::Text)]
    text: String,
}

impl Database {
    /// Runs the pending migrations.
    ///
    /// # Errors
    /// When the database does not answer, or a migration fails.
    pub async fn migrate(&self) -> Result<(), ConnectError> {
        let migrations = migrations(self.dialect);
        self.without_deadline(move |connection| {
            #[cfg(feature = "postgres")]
            if matches!(connection, AnyConnection::Postgres(_)) {
                // An index on a large table may take long; waiting for a lock must not.
                diesel::sql_query("set statement_timeout = 0").execute(connection)?;
                diesel::sql_query("set lock_timeout = '10s'").execute(connection)?;
            }
            let run = connection.run_pending_migrations(migrations).map(drop);
            #[cfg(feature = "postgres")]
            if matches!(connection, AnyConnection::Postgres(_)) {
                diesel::sql_query(super::STATEMENT_TIMEOUT).execute(connection)?;
                diesel::sql_query("set lock_timeout = 0").execute(connection)?;
            }
            Ok(run.map_err(ConnectError::Migrate))
        })
        .await?
    }

    /// Grants the role that `serving` connects as what a server needs: to read and write rows, and
    /// only to add to the audit. Does nothing if it is this connection's own role, or in SQLite.
    ///
    /// # Errors
    /// When the database does not answer, or this role does not own the tables.
    pub async fn grant_serving_role(&self, serving: &Self) -> Result<(), StoreError> {
        let (owner, role) = (self.role().await?, serving.role().await?);
        if owner == role {
            return Ok(());
        }
        // Several statements in one message are one transaction.
        let grants = format!(
            "grant select, insert, update, delete on all tables in schema public to {role};
             revoke insert, update, delete on __diesel_schema_migrations from {role};
             revoke update, delete on audit from {role};
             revoke insert, delete on audit_head from {role}"
        );
        self.blocking(move |connection| Ok(connection.batch_execute(&grants)?)).await
    }

    /// The role of this connection, quoted as in SQL; empty in SQLite.
    async fn role(&self) -> Result<String, StoreError> {
        let query = self.dialect.current_role();
        self.blocking(move |connection| {
            Ok(diesel::sql_query(query).get_result::<Text>(connection)?.text)
        })
        .await
    }

    /// Whether all migrations of this program have run. Writes nothing: the role of a server may
    /// have no right to change the schema.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schema_is_current(&self) -> Result<bool, ConnectError> {
        let known: Vec<Box<dyn Migration<<AnyConnection as Connection>::Backend>>> =
            migrations(self.dialect).migrations().map_err(ConnectError::Migrate)?;
        let known: Vec<_> =
            known.iter().map(|migration| migration.name().version().to_string()).collect();
        let table = find_migrations_table(self.dialect);
        let run = self.blocking(move |connection| {
            let found: Vec<Text> = diesel::sql_query(table).load(connection)?;
            if found.is_empty() {
                return Ok(Vec::new());
            }
            let run = "select version as text from __diesel_schema_migrations";
            Ok(diesel::sql_query(run).load::<Text>(connection)?)
        });
        let run = run.await?;
        Ok(known.iter().all(|version| run.iter().any(|run| run.text == *version)))
    }
}

fn migrations(dialect: Dialect) -> EmbeddedMigrations {
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => POSTGRES,
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => SQLITE,
    }
}

/// A query that returns one row if diesel's table of migrations exists.
fn find_migrations_table(dialect: Dialect) -> &'static str {
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            "select relname::text as text from pg_class \
             where oid = to_regclass('__diesel_schema_migrations')"
        }
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => {
            "select name as text from sqlite_master where name = '__diesel_schema_migrations'"
        }
    }
}
