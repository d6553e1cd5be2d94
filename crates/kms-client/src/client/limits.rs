//! Spending limits.

use kms_types::AccountRef;
use kms_types::wire::{SetLimit, SpendingLimits};
use reqwest::Method;

use super::Client;
use crate::error::ClientError;

impl Client {
    /// Returns what the account may spend of each asset in 24 hours, and what it spent.
    ///
    /// `GET /v1/accounts/{account}/limits`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn limits(&self, account: AccountRef) -> Result<SpendingLimits, ClientError> {
        self.get(&["accounts", &account.to_string(), "limits"], &[]).await
    }

    /// Sets the owner's own spending limit. An increase is in force after 24 hours.
    ///
    /// `PUT /v1/accounts/{account}/limits`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn set_limit(
        &self,
        account: AccountRef,
        body: &SetLimit,
    ) -> Result<SpendingLimits, ClientError> {
        self.send(Method::PUT, &["accounts", &account.to_string(), "limits"], body).await
    }
}
