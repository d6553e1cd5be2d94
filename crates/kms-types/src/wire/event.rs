//! Events, for a client that notifies users.

use serde::{Deserialize, Serialize};

use super::{Recovery, Transfer};
use crate::{AccountId, EthAddress, EventCursor, TelegramId, Timestamp, Token, Units};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A wallet was created.
    AccountCreated,
    /// The password was changed by its owner.
    PasswordChanged,
    /// The wallet's key was exported with the password.
    KeyExported,
    /// A step of a recovery.
    Recovery {
        /// What happened.
        step: RecoveryStep,
        /// The recovery as it is when the event is read.
        recovery: Recovery,
    },
    /// A change of the e-mail address was requested with the password.
    EmailChangeRequested,
    /// The e-mail address was replaced or deleted.
    EmailChanged,
    /// A higher spending limit was requested. It waits, and setting a lower one cancels it.
    LimitRaiseRequested,
    /// The state of a transfer that this account sends has changed.
    TransferChanged {
        /// The transfer as it is when the event is read.
        transfer: Box<Transfer>,
    },
    /// A transfer to this account was mined.
    Received {
        /// The transfer as it is when the event is read.
        transfer: Box<Transfer>,
    },
    /// The account received a payment that this system did not send, in a finalized block.
    DepositReceived {
        /// The payment.
        deposit: ExternalDeposit,
    },
    /// An event of a newer server.
    #[serde(other)]
    Unknown,
}

/// What happened to a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecoveryStep {
    /// It was requested.
    Requested,
    /// The code that was sent by e-mail was confirmed; the wait is shorter now.
    CodeConfirmed,
    /// The new password can be set.
    Ready,
    /// The new password was set.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// The new password was not set in time.
    Expired,
    /// A step of a newer server.
    #[serde(other)]
    Unknown,
}

/// A payment to an account that this system did not send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExternalDeposit {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The transaction's hash, `0x` and 64 hex digits.
    pub tx_hash: String,
    /// Who paid.
    pub from: EthAddress,
    /// The token; absent for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// How much, in the asset's smallest unit.
    pub value: Units,
    /// The number of the block that includes it.
    pub block: u64,
}

/// One event. Delivered at least once, in commit order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its position in the stream.
    pub cursor: EventCursor,
    /// The account that it concerns.
    pub account: AccountId,
    /// The Telegram user id of the owner.
    pub telegram_id: TelegramId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// `GET /v1/events?after=&wait=`: events after a position in the stream. Passing `after`
/// acknowledges all events up to it; without `after` the page begins after the last acknowledged
/// event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPage {
    /// The events, in commit order; empty if none happened within `wait`.
    pub events: Vec<Event>,
    /// Pass this as `after` with the next request.
    pub next: EventCursor,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_newer_server_is_still_read() {
        let event: Event = serde_json::from_value(serde_json::json!({
            "cursor": "0-1", "account": AccountId::random(), "telegram_id": 1, "at": 5,
            "kind": "from_the_future", "more": [1]
        }))
        .unwrap();
        assert_eq!(event.what, EventKind::Unknown);
    }

    #[test]
    fn a_deposit_survives_a_round_trip() {
        let event = Event {
            cursor: EventCursor::default(),
            account: AccountId::random(),
            telegram_id: 1.try_into().unwrap(),
            at: Timestamp(5),
            what: EventKind::DepositReceived {
                deposit: ExternalDeposit {
                    chain_id: 1,
                    tx_hash: "0xab".to_owned(),
                    from: EthAddress::from([7; 20]),
                    token: None,
                    value: Units(crate::U256::MAX),
                    block: u64::MAX,
                },
            },
        };
        let json = serde_json::to_string(&event).unwrap();
        assert!(json.contains(r#""kind":"deposit_received""#), "{json}");
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
