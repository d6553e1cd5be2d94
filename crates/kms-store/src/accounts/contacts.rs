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
use crate::server_keys::{BATCH, StaleMac};

/// Returns the sealed address of the account, if it was confirmed.
pub(super) fn verified_email(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<Option<Vec<u8>>, Failure> {
    let account = rows::find(connection, account.into(), keys)?;
    Ok(account.and_then(|account| account.email_verified_at.and(account.email)))
}

/// All columns, in the order of the table.
type Row = (String, Vec<u8>, i64, i32, i32, i32, Vec<u8>);

fn parse(row: Row, keys: &ServerKeys) -> Result<EmailChange, StoreError> {
    let (account, email, requested_at, tries, codes_key, mac_key, mac) = row;
    let row = RowRef { table: "email_changes", key: &account };
    let change = EmailChange {
        account: row.parse(&account)?,
        email,
        requested_at: Timestamp(requested_at),
        tries: row.convert(tries)?,
        codes_key: row.key_id(codes_key)?,
    };
    let mac = row.mac(mac_key, &mac)?;
    let verified = with_email_change_fields(&change, |fields| keys.row.verify(&mac, fields));
    verified.map_err(|error| row.not_verified(error))?;
    Ok(change)
}

/// Whether the requested change of the account fails its integrity check.
pub(super) fn is_unreadable(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    let found: Option<Row> =
        email_changes::table.find(account.to_string()).first(connection).optional()?;
    Ok(found.is_some_and(|row| parse(row, keys).is_err()))
}

/// Returns the next changes whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Row> = email_changes::table
        .filter(email_changes::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(email_changes::account_id.gt(after))
        .order(email_changes::account_id)
        .limit(BATCH)
        .load(connection)?;
    let stale = |row: Row| {
        let (key, old) = (row.0.clone(), row.6.clone());
        let new = parse(row, keys)
            .map(|change| with_email_change_fields(&change, |fields| keys.row.mac(fields)));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
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
                        email_changes::codes_key.eq(i32::from(change.codes_key.as_u8())),
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
            let found: Option<Row> =
                email_changes::table.find(account.to_string()).first(connection).optional()?;
            Ok(found.map(|row| parse(row, &keys)).transpose()?)
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
