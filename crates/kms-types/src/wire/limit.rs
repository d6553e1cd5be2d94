//! How much an account may spend in a day.

use serde::{Deserialize, Serialize};

use crate::{Amount, AmountError, Asset, Timestamp, Token, Units};

/// `GET /v1/accounts/{account}/limits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpendingLimits {
    /// The native coin first, then every token.
    pub limits: Vec<SpendingLimit>,
}

/// What may be spent of one asset in 24 hours, in its smallest unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpendingLimit {
    /// Which token; nothing for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// At most, now: the lowest of what the operator, the owner and a recent recovery allow.
    /// Nothing, if there is no limit.
    pub limit: Option<Units>,
    /// What was spent in the last 24 hours; of the native coin with the fees, the highest of what
    /// is not final yet.
    pub spent: Units,
    /// What the owner asked for and is in force.
    pub own: Option<Units>,
    /// A higher limit that its owner asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<LaterLimit>,
}

/// A limit that is not in force yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaterLimit {
    /// How much; nothing for no limit.
    pub units: Option<Units>,
    /// From when on.
    pub from: Timestamp,
}

/// `PUT /v1/accounts/{account}/limits`: what the owner wants. A lower limit is in force at once, a
/// higher one after 24 hours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetLimit {
    /// Of what.
    #[serde(default, skip_serializing_if = "Asset::is_native")]
    pub asset: Asset,
    /// Coins in 24 hours, or `none`.
    pub amount: LimitAmount,
}

/// How much may be spent: coins, or `none` for no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitAmount {
    /// This much.
    AtMost(Amount),
    /// As much as there is.
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
