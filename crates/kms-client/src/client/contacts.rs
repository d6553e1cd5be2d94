//! Contacts of an account's owner.

use kms_types::AccountRef;
use kms_types::wire::{ChangeEmail, ChangeMobile, ConfirmCode};
use reqwest::Method;

use super::Client;
use crate::error::ClientError;

impl Client {
    /// Stores the mobile number that Telegram showed for the account's own user, or deletes it.
    ///
    /// `PUT /v1/accounts/{account}/mobile`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn change_mobile(
        &self,
        account: AccountRef,
        body: &ChangeMobile,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "mobile"];
        self.send_without_response(Method::PUT, &path, body).await
    }

    /// Requests a code to a new e-mail address, or deletes the account's address.
    ///
    /// `PUT /v1/accounts/{account}/email`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn change_email(
        &self,
        account: AccountRef,
        body: &ChangeEmail,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "email"];
        self.send_without_response(Method::PUT, &path, body).await
    }

    /// Confirms the code that was sent to a new e-mail address.
    ///
    /// `POST /v1/accounts/{account}/email/code`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn confirm_email(
        &self,
        account: AccountRef,
        body: &ConfirmCode,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "email", "code"];
        self.send_without_response(Method::POST, &path, body).await
    }
}
