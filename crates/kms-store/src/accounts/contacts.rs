//! Requested changes of e-mail addresses, until they are confirmed.

use async_trait::async_trait;
use diesel::prelude::*;
use kms_core::ServerKeys;
use kms_core::account::EmailChange;
use kms_core::ports::{EmailChangeStore, StoreError};
use kms_types::{AccountEvent, AccountId, EventKind, Timestamp};

use super::mac::with_email_change_fields;
use super::rows;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::events::{self, About};
use crate::schema::email_changes;

/// Returns the sealed address of the account, if it was confirmed.
pub(super) fn verified_email(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<Option<Vec<u8>>, Failure> {
    let account = rows::find(connection, account.into(), keys)?;
    Ok(account.and_then(|account| account.email_verified_at.and(account.email)))
}

#[async_trait]
impl EmailChangeStore for Database {
    async fn request_email_change(
        &self,
        change: EmailChange,
        wallet_version: i64,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                if !rows::lock_if_allowed(connection, change.account, wallet_version, &keys)? {
                    return Ok(false);
                }
                let row = || email_changes::table.find(change.account.to_string());
                diesel::delete(row()).execute(connection)?;
                let mac = with_email_change_fields(&change, |fields| keys.row.mac(fields));
                diesel::insert_into(email_changes::table)
                    .values((
                        email_changes::account_id.eq(change.account.to_string()),
                        email_changes::email.eq(&change.email),
                        email_changes::requested_at.eq(change.requested_at.0),
                        email_changes::tries.eq(i32::from(change.tries)),
                        email_changes::mac_key.eq(i32::from(mac.key.as_u8())),
                        email_changes::mac.eq(mac.tag.to_vec()),
                    ))
                    .execute(connection)?;
                let kind = EventKind::Account(AccountEvent::EmailChangeRequested);
                let current = verified_email(connection, change.account, &keys)?;
                let about = About::Contact(current);
                events::append(connection, change.account, change.requested_at, kind, about)?;
                Ok(true)
            })
        })
        .await
    }

    async fn email_change(&self, account: AccountId) -> Result<Option<EmailChange>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let key = account.to_string();
            let found: Option<(Vec<u8>, i64, i32, i32, Vec<u8>)> = email_changes::table
                .find(&key)
                .select((
                    email_changes::email,
                    email_changes::requested_at,
                    email_changes::tries,
                    email_changes::mac_key,
                    email_changes::mac,
                ))
                .first(connection)
                .optional()?;
            let Some((email, requested_at, tries, mac_key, mac)) = found else { return Ok(None) };
            let row = RowRef { table: "email_changes", key: &key };
            let (requested_at, tries) = (Timestamp(requested_at), row.convert(tries)?);
            let change = EmailChange { account, email, requested_at, tries };
            let mac = row.mac(mac_key, &mac)?;
            let verified =
                with_email_change_fields(&change, |fields| keys.row.verify(&mac, fields));
            verified.map_err(|error| row.not_verified(error))?;
            Ok(Some(change))
        })
        .await
    }

    async fn count_email_code_attempt(&self, change: EmailChange) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let unchanged = email_changes::table
                .find(change.account.to_string())
                .filter(email_changes::requested_at.eq(change.requested_at.0))
                .filter(email_changes::tries.eq(i32::from(change.tries)));
            let tried = EmailChange { tries: change.tries.saturating_add(1), ..change };
            let mac = with_email_change_fields(&tried, |fields| keys.row.mac(fields));
            let counted = diesel::update(unchanged)
                .set((
                    email_changes::tries.eq(i32::from(tried.tries)),
                    email_changes::mac_key.eq(i32::from(mac.key.as_u8())),
                    email_changes::mac.eq(mac.tag.to_vec()),
                ))
                .execute(connection)?;
            Ok(counted == 1)
        })
        .await
    }
}
