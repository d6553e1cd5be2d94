//! Recoveries of forgotten passwords, and the contacts that help with them.

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Email, Mobile, OneTimeCode, PasswordHash, RecoveryId, TelegramId, Timestamp,
};

/// `POST /v1/accounts/{account}/recoveries`: requests a recovery of a forgotten password. The
/// new password is set with [`CompleteRecovery`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RequestRecovery {
    /// Chosen by the client. A repeat with the same id has no second effect.
    pub id: RecoveryId,
}

/// The state of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecoveryState {
    /// It waits, and a code was sent by e-mail that shortens the wait.
    CodeSent,
    /// It waits, so that the owner has time to cancel it.
    Waiting,
    /// The new password can be set.
    Ready,
    /// The new password was set.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// The new password was not set in time.
    Expired,
    /// A state of a newer server.
    #[serde(other)]
    Unknown,
}

/// A recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recovery {
    /// The id that the client chose.
    pub id: RecoveryId,
    /// The account.
    pub account: AccountId,
    /// Its state now.
    pub state: RecoveryState,
    /// The Telegram account to which operators move the wallet. Without it, the recovery sets a new
    /// password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_to: Option<TelegramId>,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// The masked address that a code was sent to, while the code can be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_sent_to: Option<String>,
    /// When the code expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_until: Option<Timestamp>,
    /// When the new password can be set.
    pub ready_at: Timestamp,
    /// When the recovery expires.
    pub expires_at: Timestamp,
}

/// `POST /v1/accounts/{account}/recoveries/{id}/code`, and
/// `POST /v1/accounts/{account}/email/code`: the code of an e-mail.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmCode {
    /// Eight digits.
    pub code: OneTimeCode,
}

/// `POST /v1/accounts/{account}/recoveries/{id}/complete`: sets the new password of a recovery
/// that is ready.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompleteRecovery {
    /// The new password. A repeat with the same one has no second effect.
    pub new_password_hash: PasswordHash,
}

/// `PUT /v1/accounts/{account}/mobile`: stores or deletes the mobile number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeMobile {
    /// The number that Telegram showed for the account's own user; `null` deletes it. It is not an
    /// authentication factor.
    pub mobile: Option<Mobile>,
}

/// `PUT /v1/accounts/{account}/email`: sends a code to the address, which becomes the account's
/// once the code is confirmed. `null` deletes the account's address at once.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeEmail {
    /// The address; `null` deletes the current one.
    pub email: Option<Email>,
    /// The password, because the address can speed up a recovery.
    pub password_hash: PasswordHash,
}
