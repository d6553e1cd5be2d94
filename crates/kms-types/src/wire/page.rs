//! The vault page: its openings, and what it shows and confirms.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Transfer;
use crate::{AppLink, LaunchKey, PasswordHash, TelegramId, Timestamp, Username};

/// `POST /app/v1/launches`: opens the page. A repeat with the same key returns the same.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OpenLaunch {
    /// What Telegram gave the page (`tgWebAppData`), decoded once.
    #[cfg_attr(feature = "openapi", schema(max_length = 4096))]
    pub init_data: String,
    /// 32 random bytes that the page made, in hex. The page keeps them in its memory and sends them
    /// as `Authorization: Launch <key>`.
    pub key: LaunchKey,
}

/// An opened page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenedLaunch {
    /// What the page was opened for: the start parameter of its link, empty to look.
    pub purpose: String,
    /// Who opened it: the salt of the password hash is made of it.
    pub telegram_id: TelegramId,
    /// All usernames that the user is known to hold: a new password must not be made of them.
    pub usernames: Vec<Username>,
    /// For how many more seconds the key authorizes this purpose: the page has no clock that it
    /// can compare with the server's.
    pub expires_in: u64,
}

/// The sign by which the owner knows the page. Bearer tokens cannot read it, so no look-alike shows
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OwnSign {
    /// Three emoji. They do not change.
    pub sign: String,
}

/// `POST /app/v1/wallet`: creates the wallet of the user who opened the page, or returns the one
/// that has this password.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewWallet {
    /// The password, as the page stretched it.
    pub password_hash: PasswordHash,
}

/// `GET /v1/passwords`: where owners type their passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Passwords {
    /// Whether the caller's token may pass on what owners typed elsewhere, for accounts that are
    /// not page-only.
    pub by_token: bool,
    /// The link of the vault page at Telegram, if the operator has configured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<AppLink>,
}

/// A transfer to confirm, from the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TransferView {
    /// The transfer.
    pub transfer: Transfer,
    /// SHA-256 of what is shown, in hex. The confirmation repeats it.
    pub view: String,
}

/// `POST /app/v1/transfer/confirm`: confirms the transfer that was shown.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmShown {
    /// The password, as the page stretched it.
    pub password_hash: PasswordHash,
    /// `view` of what was shown.
    #[cfg_attr(feature = "openapi", schema(max_length = 64))]
    pub view: String,
}

/// The audit's records of an account, newest last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyUses {
    /// The last ones.
    pub uses: Vec<KeyUse>,
}

/// What was done with an account or its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyUse {
    /// When.
    pub at: Timestamp,
    /// What, as the audit names it.
    pub action: String,
    /// What came of it; absent if it has not ended, or if its server stopped meanwhile.
    pub outcome: Option<String>,
    /// Whether the owner did it on this page.
    pub on_page: bool,
}

/// Omits both, which together open the page.
impl fmt::Debug for OpenLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenLaunch(..)")
    }
}
