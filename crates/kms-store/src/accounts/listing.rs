//! Accounts in pages, and by the address of their wallet.

use diesel::prelude::*;
use kms_core::account::Account;
use kms_core::ports::StoreError;
use kms_types::EthAddress;

use super::rows::{Row, joined, parse};
use crate::database::Database;
use crate::schema::{accounts, wallets};

/// An account of a page, which may be unreadable.
#[derive(Debug)]
pub struct ListedAccount {
    /// The id as stored, unparsed.
    pub id: String,
    /// The account, or why its row cannot be read.
    pub account: Result<Account, StoreError>,
}

impl Database {
    /// Counts the accounts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accounts_count(&self) -> Result<u64, StoreError> {
        self.blocking(|connection| {
            let count: i64 = accounts::table.count().get_result(connection)?;
            Ok(u64::try_from(count).unwrap_or_default())
        })
        .await
    }

    /// Lists accounts in the order of their ids, after `id`, which is empty for the first page. An
    /// unreadable row does not fail the page.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accounts_after(
        &self,
        id: &str,
        limit: u32,
    ) -> Result<Vec<ListedAccount>, StoreError> {
        let (keys, after) = (self.keys.clone(), id.to_owned());
        self.blocking(move |connection| {
            let rows: Vec<Row> = joined!()
                .filter(accounts::id.gt(after))
                .order(accounts::id)
                .limit(limit.into())
                .load(connection)?;
            let list =
                |row: Row| ListedAccount { id: row.0.id.clone(), account: parse(row, &keys) };
            Ok(rows.into_iter().map(list).collect())
        })
        .await
    }

    /// Returns the account whose wallet has this address.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check.
    pub async fn account_by_address(
        &self,
        address: EthAddress,
    ) -> Result<Option<Account>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let row: Option<Row> = joined!()
                .filter(wallets::address.eq(address.to_lower_hex()))
                .first(connection)
                .optional()?;
            Ok(row.map(|row| parse(row, &keys)).transpose()?)
        })
        .await
    }
}
