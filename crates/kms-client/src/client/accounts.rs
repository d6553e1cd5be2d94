//! Accounts: create, read, password, usernames, key export, balance.

use kms_types::AccountRef;
use kms_types::wire::{
    Account, Balances, ChangePassword, CreateAccount, ExportKey, ExportedKey, Passwords,
    SeenUsernames, Unfreeze,
};
use reqwest::Method;

use super::{Client, found};
use crate::error::ClientError;

impl Client {
    /// Creates a wallet for a Telegram user, or returns the one that the user has with this
    /// password.
    ///
    /// `POST /v1/accounts`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn create_account(&self, body: &CreateAccount) -> Result<Account, ClientError> {
        self.send(Method::POST, &["accounts"], body).await
    }

    /// Returns an account; `None` if it does not exist.
    ///
    /// `GET /v1/accounts/{account}`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn account(&self, account: AccountRef) -> Result<Option<Account>, ClientError> {
        found(self.get(&["accounts", &account.to_string()], &[]).await)
    }

    /// Replaces the password.
    ///
    /// `PUT /v1/accounts/{account}/password`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn change_password(
        &self,
        account: AccountRef,
        body: &ChangePassword,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "password"];
        self.send_without_response(Method::PUT, &path, body).await
    }

    /// Reports all usernames that an authenticated Telegram update showed for the account's user.
    ///
    /// `PUT /v1/accounts/{account}/usernames`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn seen_usernames(
        &self,
        account: AccountRef,
        body: &SeenUsernames,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "usernames"];
        self.send_without_response(Method::PUT, &path, body).await
    }

    /// Freezes the account: nothing is signed, exported or changed, and an open recovery is
    /// cancelled. Requires no password.
    ///
    /// `POST /v1/accounts/{account}/freeze`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn freeze(&self, account: AccountRef) -> Result<Account, ClientError> {
        self.send(Method::POST, &["accounts", &account.to_string(), "freeze"], &()).await
    }

    /// Cancels the owner's request that bearer tokens may act for the account again.
    ///
    /// `DELETE /v1/accounts/{account}/leave-page`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn keep_page_only(&self, account: AccountRef) -> Result<Account, ClientError> {
        self.send(Method::DELETE, &["accounts", &account.to_string(), "leave-page"], &()).await
    }

    /// Returns where owners type their passwords.
    ///
    /// `GET /v1/passwords`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn passwords(&self) -> Result<Passwords, ClientError> {
        self.get(&["passwords"], &[]).await
    }

    /// Requests that the owner's freeze is lifted after a wait.
    ///
    /// `POST /v1/accounts/{account}/unfreeze`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn unfreeze(
        &self,
        account: AccountRef,
        body: &Unfreeze,
    ) -> Result<Account, ClientError> {
        self.send(Method::POST, &["accounts", &account.to_string(), "unfreeze"], body).await
    }

    /// Returns the wallet's key as a Web3 Secret Storage file under a new passphrase.
    ///
    /// `POST /v1/accounts/{account}/export`. Keep file and passphrase apart, and log neither.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn export(
        &self,
        account: AccountRef,
        body: &ExportKey,
    ) -> Result<ExportedKey, ClientError> {
        self.send(Method::POST, &["accounts", &account.to_string(), "export"], body).await
    }

    /// Returns the wallet's balance of the native coin and of every configured token, by chain.
    ///
    /// `GET /v1/accounts/{account}/balance`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn balances(&self, account: AccountRef) -> Result<Balances, ClientError> {
        self.get(&["accounts", &account.to_string(), "balance"], &[]).await
    }
}
