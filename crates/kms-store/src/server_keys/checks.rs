//! Check values of the server keys: a database is used only with the keys that wrote it.

use diesel::prelude::*;
use diesel::result::Error;
use kms_core::ports::StoreError;

use crate::database::{AnyConnection, ConnectError, Database, Failure, execute_on_either};
use crate::schema::server_key_checks;

/// Of one version of a key of this kind.
type CheckValue = (&'static str, u8, Vec<u8>);

/// The values that are not stored yet, or the first key that differs from what is stored.
fn unknown(
    connection: &mut AnyConnection,
    checks: &[CheckValue],
) -> QueryResult<Result<Vec<CheckValue>, ConnectError>> {
    let mut new = Vec::new();
    for (kind, id, check) in checks {
        let known: Option<Vec<u8>> = server_key_checks::table
            .find((*kind, i32::from(*id)))
            .select(server_key_checks::check_value)
            .first(connection)
            .optional()?;
        match known {
            Some(known) if known == *check => {}
            Some(_) => return Ok(Err(ConnectError::WrongKey { kind, id: *id })),
            None => new.push((*kind, *id, check.clone())),
        }
    }
    Ok(Ok(new))
}

impl Database {
    /// Compares the configured server keys with those that the data was written with, and stores
    /// the check values of new ones. Several servers may start at once with a new key.
    ///
    /// # Errors
    /// `WrongKey` names the first key that differs.
    pub async fn check_server_keys(&self) -> Result<(), ConnectError> {
        let checks = self.check_values();
        self.blocking(move |connection| {
            let stored = connection.transaction(|connection| {
                let new = match unknown(connection, &checks)? {
                    Ok(new) if new.is_empty() => return Ok(Ok(())),
                    Ok(new) => new,
                    Err(wrong) => return Ok(Err(wrong)),
                };
                for (kind, id, check) in new {
                    let insert = diesel::insert_into(server_key_checks::table)
                        .values((
                            server_key_checks::kind.eq(kind),
                            server_key_checks::key_id.eq(i32::from(id)),
                            server_key_checks::check_value.eq(check),
                        ))
                        .on_conflict_do_nothing();
                    execute_on_either!(connection, insert)?;
                }
                // What another one has stored meanwhile may be of another key; then nothing of
                // this one is stored.
                match unknown(connection, &checks)? {
                    Ok(_) => Ok(Ok(())),
                    Err(_) => Err(Failure::Diesel(Error::RollbackTransaction)),
                }
            });
            match stored {
                Err(Failure::Diesel(Error::RollbackTransaction)) => {
                    Ok(unknown(connection, &checks)?.map(drop))
                }
                stored => stored,
            }
        })
        .await?
    }

    /// Compares the keys as [`Self::check_server_keys`] does, and stores nothing.
    ///
    /// # Errors
    /// As [`Self::check_server_keys`].
    pub async fn compare_server_keys(&self) -> Result<(), ConnectError> {
        let checks = self.check_values();
        let compared = self.blocking(move |connection| Ok(unknown(connection, &checks)?));
        compared.await?.map(drop)
    }

    fn check_values(&self) -> Vec<CheckValue> {
        self.keys
            .iter()
            .map(|(kind, id, key)| (kind.as_str(), id.as_u8(), key.check_value().to_vec()))
            .collect()
    }

    /// Returns what identifies this database, and every restored backup of it: the check value of
    /// the first row key that it was used with; `None` before its first use by a server.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn identity(&self) -> Result<Option<String>, StoreError> {
        self.blocking(|connection| {
            let first: Option<Vec<u8>> = server_key_checks::table
                .filter(server_key_checks::kind.eq("row"))
                .order(server_key_checks::key_id)
                .select(server_key_checks::check_value)
                .first(connection)
                .optional()?;
            Ok(first.map(hex::encode))
        })
        .await
    }
}
