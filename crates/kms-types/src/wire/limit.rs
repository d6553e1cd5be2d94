//! Spending limits: how much an account may spend in 24 hours.

use serde::{Deserialize, Serialize};

use crate::{Amount, AmountError, Asset, PasswordHash, Timestamp, Token, Units};

/// `GET /v1/accounts/{account}/limits`: the spending limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpendingLimits {
    /// Of each chain, in the order of `GET /v1/networks`: the native coin first, then every token.
    pub limits: Vec<SpendingLimit>,
}

/// The spending limit of one asset in 24 hours, in its smallest unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpendingLimit {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The token; absent for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The limit in force: the lowest of what the operator, the owner and a recent recovery allow.
    /// `null` if there is no limit.
    pub limit: Option<Units>,
    /// What was spent in the last 24 hours. The native coin includes network fees, at their maximum
    /// until they are final.
    pub spent: Units,
    /// The owner's own limit that is in force; `null` if there is none.
    pub own: Option<Units>,
    /// An increase that the owner requested and that is not in force yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<LaterLimit>,
}

/// A limit that is not in force yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaterLimit {
    /// The limit; `null` for none.
    pub units: Option<Units>,
    /// When it comes into force.
    pub from: Timestamp,
}

/// `PUT /v1/accounts/{account}/limits`: sets the owner's own limit. A lower limit is in force at
/// once, a higher one after 24 hours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetLimit {
    /// The asset; the native coin if absent.
    #[serde(default, skip_serializing_if = "Asset::is_native")]
    pub asset: Asset,
    /// The chain (EIP-155); the primary one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// Coins in 24 hours, or `none`.
    pub amount: LimitAmount,
}

/// `PUT /app/v1/limits`: sets the owner's own limit, as [`SetLimit`] does, with the password.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetLimitByPassword {
    /// The asset; the native coin if absent.
    #[serde(default, skip_serializing_if = "Asset::is_native")]
    pub asset: Asset,
    /// The chain (EIP-155); the primary one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// Coins in 24 hours, or `none`.
    pub amount: LimitAmount,
    /// The password, as the page stretched it.
    pub password_hash: PasswordHash,
}

/// A spending limit in coins, or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitAmount {
    /// This much.
    AtMost(Amount),
    /// No limit.
    NoLimit,
}

impl TryFrom<String> for LimitAmount {
    type Error = AmountError;

    fn try_from(text: String) -> Result<Self, AmountError> {
        if text == "none" { Ok(Self::NoLimit) } else { text.parse().map(Self::AtMost) }
    }
}

impl From<LimitAmount> for String {
    fn from(amount: LimitAmount) -> String {
        match amount {
            LimitAmount::AtMost(amount) => amount.to_string(),
            LimitAmount::NoLimit => "none".to_owned(),
        }
    }
}
