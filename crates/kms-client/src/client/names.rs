//! Usernames and the network.

use kms_types::Username;
use kms_types::wire::{NameRecord, Networks};

use super::{Client, found};
use crate::error::ClientError;

impl Client {
    /// Returns the holder of a username; `None` if no user with this name has a wallet.
    ///
    /// `GET /v1/names/{username}`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn name(&self, name: &Username) -> Result<Option<NameRecord>, ClientError> {
        found(self.get(&["names", name.as_str()], &[]).await)
    }

    /// Returns the chains and their tokens.
    ///
    /// `GET /v1/networks`.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn networks(&self) -> Result<Networks, ClientError> {
        self.get(&["networks"], &[]).await
    }
}
