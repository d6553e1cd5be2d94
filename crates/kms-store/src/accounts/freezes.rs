//! Frozen accounts.

use async_trait::async_trait;
use diesel::prelude::*;
use kms_core::freeze::FreezeChange;
use kms_core::ports::{FreezeStore, FreezeWritten, StoreError};
use kms_types::{AccountId, EventKind, Timestamp};

use super::rows::{self, joined};
use crate::database::Database;
use crate::events::{self, About};
use crate::recoveries;
use crate::schema::{accounts, wallets};

#[async_trait]
impl FreezeStore for Database {
    async fn change_freeze(
        &self,
        account: AccountId,
        change: FreezeChange,
        at: Timestamp,
    ) -> Result<Option<FreezeWritten>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let mut event = None;
                rows::update(connection, account, &keys, |account| {
                    event = change.apply(account);
                    event.is_some()
                })?;
                let mut cancelled_recovery = None;
                if let Some(event) = event {
                    let kind = EventKind::Security(event);
                    events::append(connection, account, at, kind, About::Nothing)?;
                    if change == FreezeChange::ByOwner {
                        cancelled_recovery =
                            recoveries::cancel_readable(connection, account, at, &keys)?;
                    }
                }
                let account = rows::find(connection, account.into(), &keys)?;
                Ok(account.map(|account| FreezeWritten { account, cancelled_recovery }))
            })
        })
        .await
    }

    async fn due_unfreezes(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<AccountId>, StoreError> {
        let (keys, searches) = (self.keys.clone(), self.searches.clone());
        self.blocking(move |connection| {
            let time = |row: &rows::Row| row.0.unfreezes_at;
            let next = &searches.unfreezes;
            super::due::changeable(connection, &keys, now, next, time, |connection, after| {
                joined!()
                    .filter(accounts::unfreezes_at.le(after.time))
                    .filter(accounts::unfreezes_at.lt(after.time).or(accounts::id.gt(&after.id)))
                    .order((accounts::unfreezes_at.desc(), accounts::id))
                    .limit(limit.into())
                    .load(connection)
            })
        })
        .await
    }
}
