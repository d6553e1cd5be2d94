//! Transfers and the history of an account.

use kms_types::wire::{
    ConfirmTransfer, HistoryPage, QuoteTransfer, ReplaceTransfer, Replacement, Transfer,
};
use kms_types::{AccountRef, TransferId};
use reqwest::Method;

use super::{Client, found};
use crate::error::ClientError;

/// Which page of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page<'a> {
    /// The newest entries.
    Newest,
    /// Entries older than a page: its `next`.
    Older(&'a str),
    /// Entries newer than a page: its `prev`.
    Newer(&'a str),
}

impl Client {
    /// Prices a transfer. Nothing is signed.
    ///
    /// `POST /v1/transfers`. May be repeated with the same id and fields.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn quote(&self, body: &QuoteTransfer) -> Result<Transfer, ClientError> {
        self.send(Method::POST, &["transfers"], body).await
    }

    /// Signs and broadcasts a transfer.
    ///
    /// `POST /v1/transfers/{id}/confirm`. May be repeated: a transfer is paid at most once.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn confirm(
        &self,
        id: TransferId,
        body: &ConfirmTransfer,
    ) -> Result<Transfer, ClientError> {
        self.send(Method::POST, &["transfers", &id.to_string(), "confirm"], body).await
    }

    /// Returns the network fee of a replacement of a pending transfer.
    ///
    /// `GET /v1/transfers/{id}/replacement`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn replacement(&self, id: TransferId) -> Result<Replacement, ClientError> {
        self.send(Method::GET, &["transfers", &id.to_string(), "replacement"], &()).await
    }

    /// Signs a pending transfer again, above the prices at which it was broadcast.
    ///
    /// `POST /v1/transfers/{id}/replace`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn replace(
        &self,
        id: TransferId,
        body: &ReplaceTransfer,
    ) -> Result<Transfer, ClientError> {
        self.send(Method::POST, &["transfers", &id.to_string(), "replace"], body).await
    }

    /// Cancels a quote. For a signed transfer that is not mined, its cancellation is broadcast, and
    /// whichever is mined decides. Returns the transfer in its state afterwards.
    ///
    /// `POST /v1/transfers/{id}/cancel`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn cancel(&self, id: TransferId) -> Result<Transfer, ClientError> {
        self.send(Method::POST, &["transfers", &id.to_string(), "cancel"], &()).await
    }

    /// Returns a transfer; `None` if it does not exist.
    ///
    /// `GET /v1/transfers/{id}`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn transfer(&self, id: TransferId) -> Result<Option<Transfer>, ClientError> {
        found(self.get(&["transfers", &id.to_string()], &[]).await)
    }

    /// Returns a page of the account's history, newest first: 1 to 100 entries.
    ///
    /// `GET /v1/accounts/{account}/transfers`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn transfers(
        &self,
        account: AccountRef,
        page: Page<'_>,
        limit: u32,
    ) -> Result<HistoryPage, ClientError> {
        let mut query = vec![("limit", limit.to_string())];
        let (cursor, direction) = match page {
            Page::Newest => (None, "older"),
            Page::Older(cursor) => (Some(cursor), "older"),
            Page::Newer(cursor) => (Some(cursor), "newer"),
        };
        query.push(("direction", direction.to_owned()));
        query.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.get(&["accounts", &account.to_string(), "transfers"], &query).await
    }
}
