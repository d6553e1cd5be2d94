//! The schema: embedded migrations, and whether they have run.

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use kms_core::ports::StoreError;

use super::fence::{self, OLDEST_WRITER};
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

/// What the role of a server may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Whether it may change or delete rows of the audit.
    pub changes_audit: bool,
    /// The tables that it may not read.
    pub missing: Vec<String>,
}

impl Database {
    /// Runs the pending migrations, one `migrate` at a time, when no server of a release that
    /// must not write to the new schema is connected.
    ///
    /// # Errors
    /// When the database does not answer, an older server is still connected, or a migration fails.
    pub async fn migrate(&self) -> Result<(), ConnectError> {
        self.check_writer().await?;
        self.without_deadline(move |connection| Ok(migrate(connection)?)).await?
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
             revoke insert, update, delete on writer_fence from {role};
             revoke update, delete on audit from {role};
             revoke insert, delete on audit_head from {role}"
        );
        self.without_deadline(move |connection| match connection {
            // Grants on one table at the same time would refuse each other.
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(_) => {
                let granted = fence::alone(connection, |alone| alone.batch_execute(&grants));
                Ok(granted??)
            }
            #[cfg(feature = "sqlite")]
            AnyConnection::Sqlite(_) => Ok(()),
        })
        .await
    }

    /// Returns what the role of this connection may do. In SQLite there are no roles.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn grants(&self) -> Result<Grants, StoreError> {
        self.blocking(|connection| match connection {
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(_) => {
                let mut names = |query: &str| -> QueryResult<Vec<String>> {
                    let rows: Vec<Text> = diesel::sql_query(query).load(connection)?;
                    Ok(rows.into_iter().map(|row| row.text).collect())
                };
                let changes = "select 'audit' as text \
                               where has_table_privilege('audit', 'update, delete, truncate')";
                let missing = "select relname::text as text from pg_class \
                               where relkind = 'r' and relnamespace = 'public'::regnamespace \
                               and not has_table_privilege(oid, 'select')";
                let changes_audit = !names(changes)?.is_empty();
                Ok(Grants { changes_audit, missing: names(missing)? })
            }
            #[cfg(feature = "sqlite")]
            AnyConnection::Sqlite(_) => Ok(Grants::default()),
        })
        .await
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
        let run = self.migrations_run().await?;
        Ok(known.iter().all(|known| run.contains(&known.name().version().to_string())))
    }

    /// The versions of the migrations that have run.
    pub(super) async fn migrations_run(&self) -> Result<Vec<String>, StoreError> {
        let table = find_migrations_table(self.dialect);
        self.blocking(move |connection| {
            let found: Vec<Text> = diesel::sql_query(table).load(connection)?;
            if found.is_empty() {
                return Ok(Vec::new());
            }
            let run = "select version as text from __diesel_schema_migrations";
            let run: Vec<Text> = diesel::sql_query(run).load(connection)?;
            Ok(run.into_iter().map(|run| run.text).collect())
        })
        .await
    }
}

/// Migrates while no other process does.
fn migrate(connection: &mut AnyConnection) -> QueryResult<Result<(), ConnectError>> {
    match connection {
        #[cfg(feature = "postgres")]
        AnyConnection::Postgres(_) => fence::alone(connection, |connection| {
            fence::raise(connection, OLDEST_WRITER)?;
            if let Err(older) = fence::shut_out(connection, OLDEST_WRITER) {
                return Ok(Err(older));
            }
            // An index on a large table may take long; waiting for a lock must not.
            diesel::sql_query("set statement_timeout = 0").execute(connection)?;
            diesel::sql_query("set lock_timeout = '10s'").execute(connection)?;
            let run = connection.run_pending_migrations(POSTGRES).map(drop);
            fence::raise(connection, OLDEST_WRITER)?;
            Ok(run.map_err(ConnectError::Migrate))
        })?,
        #[cfg(feature = "sqlite")]
        AnyConnection::Sqlite(sqlite) => sqlite.exclusive_transaction(|sqlite| {
            let run = sqlite.run_pending_migrations(SQLITE).map(drop);
            Ok::<_, diesel::result::Error>(run.map_err(ConnectError::Migrate))
        }),
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
