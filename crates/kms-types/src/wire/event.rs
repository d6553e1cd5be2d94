//! Events, for a client that notifies users.

use serde::{Deserialize, Serialize};

use super::{Recovery, Transfer};
use crate::{
    AccountEvent, AccountId, DepositEvent, EthAddress, EventCursor, EventKind, RecoveryStep,
    SecurityEvent, TelegramId, Timestamp, Token, TransferEvent, Units,
};

/// What happened. The kind decides which data the event has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum EventBody {
    /// About the account itself.
    Account {
        /// What happened.
        kind: AccountEvent,
    },
    /// About the security of the wallet.
    Security {
        /// What happened.
        kind: SecurityEvent,
    },
    /// About a recovery.
    Recovery {
        /// What happened.
        kind: RecoveryStep,
        /// The recovery as it is when the event is read.
        recovery: Recovery,
    },
    /// About a transfer of this system.
    Transfer {
        /// What happened.
        kind: TransferEvent,
        /// The transfer as it is when the event is read.
        transfer: Box<Transfer>,
    },
    /// About a payment that this system did not send.
    Deposit {
        /// What happened.
        kind: DepositEvent,
        /// The payment.
        deposit: ExternalDeposit,
    },
    /// An event of a newer server.
    Unknown {
        /// What happened.
        kind: UnknownEvent,
    },
}

/// The kind of an event of a newer server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String")]
pub struct UnknownEvent(String);

impl TryFrom<String> for UnknownEvent {
    type Error = &'static str;

    /// Refuses the kinds that have a type, so that one without its data is not read as unknown.
    fn try_from(kind: String) -> Result<Self, Self::Error> {
        match kind.parse::<EventKind>() {
            Ok(_known) => Err("the data of an event is missing"),
            Err(_unknown) => Ok(Self(kind)),
        }
    }
}

/// A payment to an account that this system did not send, or the digest of small ones. Coin that
/// arrived inside a contract call has neither a sender nor a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExternalDeposit {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The transaction's hash, `0x` and 64 hex digits, if it is known; absent for a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_hash: Option<String>,
    /// Who paid, if it is known; absent for a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<EthAddress>,
    /// The token; absent for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// How much, in the asset's smallest unit; of a digest, the sum.
    pub value: Units,
    /// The number of the block that includes it, or at which it was found; of a digest, that of the
    /// newest deposit.
    pub block: u64,
    /// How many small deposits a digest sums up; 1 for a single deposit.
    pub count: u64,
}

/// One event. Delivered at least once, in commit order within its stream.
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
    pub what: EventBody,
}

/// `GET /v1/events?stream=&after=&acknowledge=&wait=`: events after a position in a stream. Without
/// `after` the page begins after the last acknowledged event.
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

    fn read(mut body: serde_json::Value) -> Result<Event, serde_json::Error> {
        let head = serde_json::json!({
            "cursor": "0-1", "account": AccountId::random(), "telegram_id": 1, "at": 5
        });
        body.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
        serde_json::from_value(body)
    }

    #[test]
    fn an_event_of_a_newer_server_is_still_read() {
        let event = read(serde_json::json!({"kind": "from_the_future", "more": [1]})).unwrap();
        assert!(matches!(event.what, EventBody::Unknown { .. }));
        let event = read(serde_json::json!({"kind": "key_exported", "more": [1]})).unwrap();
        assert_eq!(event.what, EventBody::Security { kind: SecurityEvent::KeyExported });
    }

    #[test]
    fn a_known_event_without_its_data_is_an_error() {
        for kind in ["received", "deposit_received", "recovered"] {
            assert!(read(serde_json::json!({ "kind": kind })).is_err(), "{kind}");
        }
    }

    #[test]
    fn a_deposit_survives_a_round_trip() {
        let event = Event {
            cursor: EventCursor::default(),
            account: AccountId::random(),
            telegram_id: 1.try_into().unwrap(),
            at: Timestamp(5),
            what: EventBody::Deposit {
                kind: DepositEvent::Received,
                deposit: ExternalDeposit {
                    chain_id: 1,
                    tx_hash: Some("0xab".to_owned()),
                    from: Some(EthAddress::from([7; 20])),
                    token: None,
                    value: Units(crate::U256::MAX),
                    block: u64::MAX,
                    count: 1,
                },
            },
        };
        let json = serde_json::to_string(&event).unwrap();
        assert!(json.contains(r#""kind":"deposit_received""#), "{json}");
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
