//! Accounts whose rows fail their integrity check, and what a rescue writes in their place.

use async_trait::async_trait;
use diesel::prelude::*;
use kms_core::ServerKeys;
use kms_core::account::Account;
use kms_core::ports::{RescueStore, StoreError};
use kms_core::rescue::{ACCOUNTS, DamagedAccount};
use kms_types::{AccountId, AccountRef, EventKind, SecurityEvent, Timestamp};

use super::{contacts, rows};
use crate::database::{AnyConnection, Database, Failure, all_or_nothing};
use crate::events::{self, About};
use crate::recoveries;
use crate::schema::email_changes;

#[async_trait]
impl RescueStore for Database {
    async fn damaged_account(
        &self,
        account: AccountRef,
    ) -> Result<Option<DamagedAccount>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| damaged(connection, account, &keys)).await
    }

    async fn rescue_account(
        &self,
        stored: &DamagedAccount,
        rescued: Account,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let (keys, stored) = (self.keys.clone(), stored.clone());
        self.blocking(move |connection| {
            all_or_nothing(connection, |connection| {
                rows::lock(connection, rescued.id)?;
                if damaged(connection, rescued.id.into(), &keys)?.as_ref() != Some(&stored) {
                    return Ok(false);
                }
                rows::write(connection, &rescued, &keys)?;
                rows::write_wallet(connection, &rescued)?;
                // Its row may be damaged too, and its code is void with the old state.
                diesel::delete(email_changes::table.find(rescued.id.to_string()))
                    .execute(connection)?;
                recoveries::end_unreadable(connection, rescued.id, &keys)?;
                recoveries::cancel_readable(connection, rescued.id, at, &keys)?;
                #[cfg(feature = "transfers")]
                crate::transfers::spending_limits::remove_unreadable(
                    connection, rescued.id, &keys,
                )?;
                let kind = EventKind::Security(SecurityEvent::AccountFrozen);
                events::append(connection, rescued.id, at, kind, About::Nothing)?;
                Ok(true)
            })
        })
        .await
    }
}

/// Whether a row of the account in one table fails its check.
type IsDamaged = fn(&mut AnyConnection, AccountId, &ServerKeys) -> Result<bool, Failure>;

fn damaged(
    connection: &mut AnyConnection,
    account: AccountRef,
    keys: &ServerKeys,
) -> Result<Option<DamagedAccount>, Failure> {
    let Some(row) = rows::row(connection, account)? else { return Ok(None) };
    let mut damage = Vec::new();
    let account = match rows::parse(row.clone(), keys) {
        Ok(account) => {
            // An older copy of the row was put back.
            if rows::is_older_than_audit(connection, &account)? {
                damage.push(ACCOUNTS);
            }
            account
        }
        Err(_fails) => {
            damage.push(ACCOUNTS);
            rows::without_mac(row)?
        }
    };
    let others: [(&'static str, IsDamaged); 3] = [
        ("email_changes", contacts::is_unreadable),
        ("recoveries", recoveries::has_unreadable),
        #[cfg(feature = "transfers")]
        ("spending_limits", crate::transfers::spending_limits::has_unreadable),
        #[cfg(not(feature = "transfers"))]
        ("spending_limits", |_, _, _| Ok(false)),
    ];
    for (table, is_damaged) in others {
        if is_damaged(connection, account.id, keys)? {
            damage.push(table);
        }
    }
    Ok(Some(DamagedAccount { account, damage }))
}
