//! A forgotten password and how it is replaced, and the contacts that help with it.

use serde::{Deserialize, Serialize};

use crate::{AccountId, Email, Mobile, OneTimeCode, PasswordHash, RecoveryId, Timestamp};

/// `POST /v1/accounts/{account}/recoveries`: a password is forgotten. No new one is taken yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RequestRecovery {
    /// Chosen by the client; a repeat with the same id has no second effect.
    pub id: RecoveryId,
}

/// How a recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecoveryState {
    /// A code was sent by e-mail; confirming it makes the wait shorter.
    CodeSent,
    /// Time has to pass, in which the owner of the wallet can cancel.
    Waiting,
    /// The new password can be given.
    Ready,
    /// The new password works.
    Completed,
    /// Somebody who may has stopped it.
    Cancelled,
    /// Nobody gave the new password in time.
    Expired,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recovery {
    /// As the client chose it.
    pub id: RecoveryId,
    /// Whose wallet.
    pub account: AccountId,
    /// How it stands now.
    pub state: RecoveryState,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Where a code was sent, masked, while it can be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_sent_to: Option<String>,
    /// Until when the code can be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_until: Option<Timestamp>,
    /// From when on the new password can be given.
    pub ready_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// `POST /v1/accounts/{account}/recoveries/{id}/code`, and
/// `POST /v1/accounts/{account}/email/code`: what the e-mail said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmCode {
    /// Eight digits.
    pub code: OneTimeCode,
}

/// `POST /v1/accounts/{account}/recoveries/{id}/complete`, once it is ready.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompleteRecovery {
    /// The password that shall work from now on. A repeat with the same one answers the same.
    pub new_password_hash: PasswordHash,
}

/// `PUT /v1/accounts/{account}/mobile`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeMobile {
    /// The number, as Telegram itself showed it of its owner; or none. It is never a factor of
    /// anything.
    pub mobile: Option<Mobile>,
}

/// `PUT /v1/accounts/{account}/email`: a code is sent to the address, which is the account's once
/// the code is confirmed. Without an address the one there is is forgotten at once.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeEmail {
    /// The address, or none.
    pub email: Option<Email>,
    /// The password: an address helps to recover the wallet.
    pub password_hash: PasswordHash,
}
