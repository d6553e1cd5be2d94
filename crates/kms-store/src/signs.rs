//! The signs by which owners know the vault page.

use diesel::prelude::*;
use kms_core::ports::StoreError;
use kms_types::AccountId;

use crate::database::{Database, inserted};
use crate::schema::signs;

impl Database {
    /// Returns the stored sign of an account, if it has one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn known_sign(&self, account: AccountId) -> Result<Option<String>, StoreError> {
        self.blocking(move |connection| {
            let stored = signs::table.find(account.to_string()).select(signs::sign);
            Ok(stored.first(connection).optional()?)
        })
        .await
    }

    /// Returns the sign of an account: the stored one, or `proposed`, which is stored then.
    ///
    /// # Errors
    /// When the database does not answer, or has no such account.
    pub async fn sign_of(
        &self,
        account: AccountId,
        proposed: String,
    ) -> Result<String, StoreError> {
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let id = account.to_string();
                let stored = signs::table.find(&id).select(signs::sign);
                if let Some(sign) = stored.first(connection).optional()? {
                    return Ok(sign);
                }
                // A savepoint, so that a unique violation does not abort the transaction.
                let insert = connection.transaction(|connection| {
                    diesel::insert_into(signs::table)
                        .values((signs::account_id.eq(&id), signs::sign.eq(&proposed)))
                        .execute(connection)?;
                    Ok(())
                });
                if inserted(insert)? {
                    return Ok(proposed);
                }
                Ok(signs::table.find(&id).select(signs::sign).first(connection)?)
            })
        })
        .await
    }
}
