//! What happened, for a client that tells people.

use serde::{Deserialize, Serialize};

use super::{Recovery, Transfer};
use crate::{AccountId, EthAddress, EventCursor, TelegramId, Timestamp, Token, Units};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A wallet was made.
    AccountCreated,
    /// The password was changed by its owner.
    PasswordChanged,
    /// The key was handed out, to somebody with the password.
    KeyExported,
    /// A recovery moved on.
    Recovery {
        /// What happened.
        step: RecoveryStep,
        /// The recovery as it is when the event is read.
        recovery: Recovery,
    },
    /// Somebody with the password asked for another e-mail address.
    EmailChangeRequested,
    /// The account has another e-mail address, or none any more.
    EmailChanged,
    /// A higher spending limit was asked for. It waits, and a lower one takes it back.
    LimitRaiseAsked,
    /// A transfer that this account sends moved on; `transfer` is how it stands now.
    TransferChanged {
        /// The transfer as it is when the event is read.
        transfer: Box<Transfer>,
    },
    /// Money came to this account.
    Received {
        /// The transfer as it is when the event is read.
        transfer: Box<Transfer>,
    },
    /// The account received a payment that this system did not send, in a finalized block.
    DepositReceived {
        /// The payment.
        deposit: ExternalDeposit,
    },
    /// An event that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What happened to a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecoveryStep {
    /// It was asked for.
    Requested,
    /// The code that was sent by e-mail was confirmed; the wait is shorter now.
    CodeConfirmed,
    /// The new password can be given.
    Ready,
    /// The new password works.
    Completed,
    /// It was stopped.
    Cancelled,
    /// Nobody gave the new password in time.
    Expired,
    /// A step that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A payment to an account that this system did not send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExternalDeposit {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The transaction, as `0x` and hex.
    pub tx_hash: String,
    /// Who paid.
    pub from: EthAddress,
    /// The token that came; nothing for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// How much, in the asset's smallest unit.
    pub value: Units,
    /// The block that has it.
    pub block: u64,
}

/// One event. Delivered at least once, in commit order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its place in the stream.
    pub cursor: EventCursor,
    /// Whom it concerns.
    pub account: AccountId,
    /// Whom it concerns, as Telegram knows them.
    pub telegram_id: TelegramId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// `GET /v1/events?after=&wait=`. Giving a cursor in `after` acknowledges everything up to it;
/// without `after` the server goes on where the last acknowledgement left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPage {
    /// The events, in order; empty if none came within `wait`.
    pub events: Vec<Event>,
    /// Give this as `after` next time.
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
