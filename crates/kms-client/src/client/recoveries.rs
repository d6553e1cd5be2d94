//! Recoveries of forgotten passwords.

use kms_types::wire::{CompleteRecovery, ConfirmCode, Recovery, RequestRecovery};
use kms_types::{AccountRef, RecoveryId};
use reqwest::{Method, StatusCode};
use serde::Serialize;

use super::{Client, found, json, response};
use crate::error::ClientError;

impl Client {
    /// Requests a recovery of a forgotten password.
    ///
    /// `POST /v1/accounts/{account}/recoveries`. May be repeated with the same id.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn request_recovery(
        &self,
        account: AccountRef,
        body: &RequestRecovery,
    ) -> Result<Recovery, ClientError> {
        self.send(Method::POST, &["accounts", &account.to_string(), "recoveries"], body).await
    }

    /// Returns the account's open recovery; `None` if it has none, or if there is no such account.
    ///
    /// `GET /v1/accounts/{account}/recovery`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn recovery(&self, account: AccountRef) -> Result<Option<Recovery>, ClientError> {
        let path = ["accounts", &account.to_string(), "recovery"];
        let answer = response(self.request(Method::GET, &path, &[])?).await;
        match found(answer)? {
            Some(recovery) if recovery.status() != StatusCode::NO_CONTENT => {
                json(recovery).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Confirms the code that was sent by e-mail, which shortens the wait.
    ///
    /// `POST /v1/accounts/{account}/recoveries/{id}/code`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn confirm_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        body: &ConfirmCode,
    ) -> Result<Recovery, ClientError> {
        self.send_to_recovery(account, id, "code", body).await
    }

    /// Cancels a recovery.
    ///
    /// `POST /v1/accounts/{account}/recoveries/{id}/cancel`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn cancel_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
    ) -> Result<Recovery, ClientError> {
        self.send_to_recovery(account, id, "cancel", &()).await
    }

    /// Sets the new password of a recovery that is ready.
    ///
    /// `POST /v1/accounts/{account}/recoveries/{id}/complete`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn complete_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        body: &CompleteRecovery,
    ) -> Result<Recovery, ClientError> {
        self.send_to_recovery(account, id, "complete", body).await
    }

    async fn send_to_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        what: &str,
        body: &impl Serialize,
    ) -> Result<Recovery, ClientError> {
        let (account, id) = (account.to_string(), id.to_string());
        self.send(Method::POST, &["accounts", &account, "recoveries", &id, what], body).await
    }
}
