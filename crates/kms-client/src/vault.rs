//! The client of the vault page's API: what the page does in a browser, from Rust.

use kms_types::LaunchKey;
use kms_types::wire::{
    Account, Balances, ChangeEmail, ChangePassword, CompleteRecovery, ConfirmCode, ConfirmShown,
    ExportKey, ExportedKey, HistoryPage, KeyUses, LeavePage, Networks, NewWallet, OpenLaunch,
    OpenedLaunch, OwnSign, Recovery, ReplaceTransfer, Replacement, RequestRecovery,
    SetLimitByPassword, SpendingLimits, Transfer, TransferView, Unfreeze,
};
use reqwest::Method;
use zeroize::Zeroizing;

use crate::client::{Client, Trust};
use crate::error::ClientError;

const PREFIX: &[&str] = &["app", "v1"];

/// An opened page: it acts for the user who opened it, for one purpose, for 15 minutes.
#[derive(Clone, Debug)]
pub struct Vault {
    client: Client,
    opened: OpenedLaunch,
}

impl Vault {
    /// Opens the page of the server at `https://host:port` with what Telegram gave it.
    ///
    /// `POST /app/v1/launches`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive. A repeat needs the same
    /// key: [`Vault::open_with`].
    pub async fn open(url: &str, init_data: &str, trust: Trust) -> Result<Self, ClientError> {
        Self::open_with(url, init_data, &LaunchKey::random(), trust).await
    }

    /// Opens the page with this key. May be repeated.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub async fn open_with(
        url: &str,
        init_data: &str,
        key: &LaunchKey,
        trust: Trust,
    ) -> Result<Self, ClientError> {
        let digits = key.to_hex();
        let authorization = Zeroizing::new(format!("Launch {}", *digits));
        let client = Client::with(url, PREFIX, &authorization, trust)?;
        let key = LaunchKey::fill(|bytes| bytes.copy_from_slice(key.expose()));
        let body = OpenLaunch { init_data: init_data.to_owned(), key };
        let opened = client.send(Method::POST, &["launches"], &body).await?;
        Ok(Self { client, opened })
    }

    /// What the page was opened for, by whom, and until when it acts.
    #[must_use]
    pub fn opened(&self) -> &OpenedLaunch {
        &self.opened
    }

    /// Creates the user's wallet, or returns the one that has this password. May be repeated.
    ///
    /// `POST /app/v1/wallet`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn create(&self, body: &NewWallet) -> Result<Account, ClientError> {
        self.client.send(Method::POST, &["wallet"], body).await
    }

    /// Returns the account.
    ///
    /// `GET /app/v1/account`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn account(&self) -> Result<Account, ClientError> {
        self.client.get(&["account"], &[]).await
    }

    /// Returns the sign by which the owner knows the page.
    ///
    /// `GET /app/v1/sign`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn sign(&self) -> Result<OwnSign, ClientError> {
        self.client.get(&["sign"], &[]).await
    }

    /// Returns the chains and their tokens.
    ///
    /// `GET /app/v1/networks`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn networks(&self) -> Result<Networks, ClientError> {
        self.client.get(&["networks"], &[]).await
    }

    /// Returns the balances, by chain.
    ///
    /// `GET /app/v1/balance`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn balances(&self) -> Result<Balances, ClientError> {
        self.client.get(&["balance"], &[]).await
    }

    /// Returns what was paid and received lately.
    ///
    /// `GET /app/v1/history`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn history(&self) -> Result<HistoryPage, ClientError> {
        self.client.get(&["history"], &[]).await
    }

    /// Returns the audit's last records of the account and of its key.
    ///
    /// `GET /app/v1/uses`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn uses(&self) -> Result<KeyUses, ClientError> {
        self.client.get(&["uses"], &[]).await
    }

    /// Returns the spending limits.
    ///
    /// `GET /app/v1/limits`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn limits(&self) -> Result<SpendingLimits, ClientError> {
        self.client.get(&["limits"], &[]).await
    }

    /// Returns the transfer that the page was opened for.
    ///
    /// `GET /app/v1/transfer`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn transfer(&self) -> Result<TransferView, ClientError> {
        self.client.get(&["transfer"], &[]).await
    }

    /// Confirms what was shown. May be repeated.
    ///
    /// `POST /app/v1/transfer/confirm`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn confirm(&self, body: &ConfirmShown) -> Result<Transfer, ClientError> {
        self.client.send(Method::POST, &["transfer", "confirm"], body).await
    }

    /// Returns the network fee of a replacement.
    ///
    /// `GET /app/v1/transfer/replacement`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn replacement_fee(&self) -> Result<Replacement, ClientError> {
        self.client.get(&["transfer", "replacement"], &[]).await
    }

    /// Replaces the pending transfer. May be repeated.
    ///
    /// `POST /app/v1/transfer/replace`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn replace(&self, body: &ReplaceTransfer) -> Result<Transfer, ClientError> {
        self.client.send(Method::POST, &["transfer", "replace"], body).await
    }

    /// Replaces the password.
    ///
    /// `PUT /app/v1/password`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn change_password(&self, body: &ChangePassword) -> Result<(), ClientError> {
        self.client.send_without_response(Method::PUT, &["password"], body).await
    }

    /// Requests a recovery. May be repeated.
    ///
    /// `POST /app/v1/recovery`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn request_recovery(&self, body: &RequestRecovery) -> Result<Recovery, ClientError> {
        self.client.send(Method::POST, &["recovery"], body).await
    }

    /// Confirms the recovery's code.
    ///
    /// `POST /app/v1/recovery/code`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn confirm_recovery(&self, body: &ConfirmCode) -> Result<Recovery, ClientError> {
        self.client.send(Method::POST, &["recovery", "code"], body).await
    }

    /// Sets the recovery's new password. May be repeated.
    ///
    /// `POST /app/v1/recovery/complete`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn complete_recovery(
        &self,
        body: &CompleteRecovery,
    ) -> Result<Recovery, ClientError> {
        self.client.send(Method::POST, &["recovery", "complete"], body).await
    }

    /// Cancels the open recovery, if there is one. May be repeated.
    ///
    /// `DELETE /app/v1/recovery`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn stop_recovery(&self) -> Result<(), ClientError> {
        self.client.send_without_response(Method::DELETE, &["recovery"], &()).await
    }

    /// Sends a code to a new e-mail address, or deletes the address.
    ///
    /// `PUT /app/v1/email`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn change_email(&self, body: &ChangeEmail) -> Result<(), ClientError> {
        self.client.send_without_response(Method::PUT, &["email"], body).await
    }

    /// Confirms the code of the new address.
    ///
    /// `POST /app/v1/email/code`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn confirm_email(&self, body: &ConfirmCode) -> Result<(), ClientError> {
        self.client.send_without_response(Method::POST, &["email", "code"], body).await
    }

    /// Exports the key, encrypted.
    ///
    /// `POST /app/v1/export`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn export(&self, body: &ExportKey) -> Result<ExportedKey, ClientError> {
        self.client.send(Method::POST, &["export"], body).await
    }

    /// Sets a spending limit.
    ///
    /// `PUT /app/v1/limits`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn set_limit(
        &self,
        body: &SetLimitByPassword,
    ) -> Result<SpendingLimits, ClientError> {
        self.client.send(Method::PUT, &["limits"], body).await
    }

    /// Requests that the owner's freeze is lifted.
    ///
    /// `POST /app/v1/unfreeze`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn unfreeze(&self, body: &Unfreeze) -> Result<Account, ClientError> {
        self.client.send(Method::POST, &["unfreeze"], body).await
    }

    /// Requests that bearer tokens may act for the account again, after a wait.
    ///
    /// `POST /app/v1/leave-page`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn leave_page(&self, body: &LeavePage) -> Result<Account, ClientError> {
        self.client.send(Method::POST, &["leave-page"], body).await
    }

    /// Cancels such a request.
    ///
    /// `DELETE /app/v1/leave-page`. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn keep_page_only(&self) -> Result<Account, ClientError> {
        self.client.send(Method::DELETE, &["leave-page"], &()).await
    }
}
