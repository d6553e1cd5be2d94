//! Transfers: quote, confirm, read.

use serde::{Deserialize, Serialize};

use super::ExternalDeposit;
use crate::{
    AccountId, AccountRef, Asset, EthAddress, PasswordHash, QuoteAmount, Recipient, Timestamp,
    Token, TransferId, Units, Username, Wei,
};

/// `POST /v1/transfers`: what would it cost to send this? Repeating it with the same id and the
/// same fields answers with the same transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuoteTransfer {
    /// Chosen by the client.
    pub id: TransferId,
    /// Who pays.
    pub from: AccountRef,
    /// Who is paid: `@username` or `0x` address.
    pub to: Recipient,
    /// Coins, or `all`.
    pub amount: QuoteAmount,
    /// Of what: `native`, or a token's symbol. The native coin, if nothing is said.
    #[serde(default, skip_serializing_if = "Asset::is_native")]
    pub asset: Asset,
    /// Anything the client wants to find again with the transfer: at most 200 bytes, without
    /// control characters.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "client_ref")]
    pub client_ref: Option<String>,
}

fn client_ref<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    match &text {
        Some(text) if text.len() > 200 || text.chars().any(char::is_control) => {
            Err(serde::de::Error::custom("expected at most 200 bytes without control characters"))
        }
        _ => Ok(text),
    }
}

/// `POST /v1/transfers/{id}/confirm`: the sender saw the quote, and gives the password. Repeats
/// what was shown, so that nothing else can be signed.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmTransfer {
    /// The sender's.
    pub password_hash: PasswordHash,
    /// The address that was shown.
    pub to_address: EthAddress,
    /// The token that was shown, as the quote has it; nothing for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The amount that was shown, in the asset's smallest unit.
    pub value: Units,
    /// The highest fee that was shown, in wei.
    pub max_fee: Wei,
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Priced, waiting for the password.
    Quoted,
    /// Signed and stored; about to be sent, or to be sent again.
    Signed,
    /// A node of the chain took it.
    Broadcast,
    /// In a block.
    Mined,
    /// So deep in the chain that it stays.
    Final,
    /// It was not paid; `failure` says why.
    Failed,
    /// Given up by the sender before it was signed.
    Cancelled,
    /// Not confirmed in time.
    Expired,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TransferFailure {
    /// The recipient's or the token's contract refused it; the fee is gone.
    Reverted,
    /// The wallet's key was used elsewhere, and that transaction has the nonce. It cost nothing.
    NonceTaken,
    /// The token's contract took the transaction, but its log has no such payment. The fee is
    /// gone.
    NothingMoved,
    /// A reason that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One side of a transfer, as it was when it was quoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Party {
    /// The account, if it is one of ours.
    pub account: Option<AccountId>,
    /// The name by which it was paid, or which the sender holds.
    pub username: Option<Username>,
    /// The address.
    pub address: EthAddress,
    /// Since when the account exists, if it is one of ours.
    pub since: Option<Timestamp>,
}

/// What the sender should know before confirming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// The sender never paid this recipient before.
    FirstPayment,
    /// The recipient is a contract.
    Contract,
    /// More than nine tenths of the balance of the asset go.
    MostOfBalance,
    /// The name came from somebody else less than 30 days ago.
    NameMoved,
    /// A warning that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A transfer, from quote to finality.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Transfer {
    /// As the client chose it.
    pub id: TransferId,
    /// Where it stands.
    pub state: TransferState,
    /// Who pays.
    pub from: Party,
    /// Who is paid.
    pub to: Party,
    /// The token that is paid; nothing for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// How much, in the asset's smallest unit.
    pub value: Units,
    /// How much of it came, if the token kept a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Units>,
    /// The most that the network may take for it, in wei of the native coin.
    pub max_fee: Wei,
    /// What the network took, in wei, once it is mined.
    pub fee: Option<Wei>,
    /// The chain it moves on (EIP-155).
    pub chain_id: u64,
    /// The transaction's hash, `0x` and 64 hex digits, once it is signed. Until it is mined it may
    /// change: the same payment is sent again with a higher fee when it waits too long.
    pub tx_hash: Option<String>,
    /// The block it is in.
    pub block: Option<u64>,
    /// How often it was sent again with a higher fee, while it is on its way.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub raised: u32,
    /// Since when it waits for the network at the highest fee that its sender agreed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_since: Option<Timestamp>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<TransferFailure>,
    /// What to know before confirming.
    pub warnings: Vec<Warning>,
    /// The client's own note.
    pub client_ref: Option<String>,
    /// When it was quoted.
    pub created_at: Timestamp,
    /// Until when the quote can be confirmed.
    pub expires_at: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Whether an account paid or was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It paid.
    Out,
    /// It was paid.
    In,
}

/// One line of an account's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HistoryEntry {
    /// A transfer of this system: one that the account sends and that was at least signed, or one
    /// that paid it.
    Transfer {
        /// As it stands.
        transfer: Box<Transfer>,
    },
    /// A payment to the account that this system did not send.
    Deposit {
        /// When the server recorded it.
        at: Timestamp,
        /// The payment.
        deposit: ExternalDeposit,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// `GET /v1/accounts/{account}/transfers?before=&after=&limit=`: newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryPage {
    /// What was paid and received, newest first.
    pub entries: Vec<HistoryEntry>,
    /// Give this as `before` for what is older; absent when nothing is.
    pub next: Option<String>,
    /// Give this as `after` for what is newer; absent when nothing is.
    pub prev: Option<String>,
}

impl Transfer {
    /// Whether `account` paid in it or was paid.
    #[must_use]
    pub fn direction(&self, account: AccountId) -> Direction {
        if self.from.account == Some(account) { Direction::Out } else { Direction::In }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_names_the_field_that_is_wrong() {
        let quote = |field: &str, value: &str| {
            let mut body = serde_json::json!({
                "id": TransferId::random(), "from": "telegram:1", "to": "@bob", "amount": "0.5"
            });
            body[field] = value.into();
            serde_json::from_value::<QuoteTransfer>(body)
        };
        assert!(quote("amount", "all").is_ok());
        assert!(quote("amount", "1").unwrap().asset.is_native());
        assert!(quote("asset", "native").is_ok() && quote("asset", "USDC").is_ok());
        for (field, bad) in [
            ("amount", "ALL"),
            ("amount", "-1"),
            ("amount", "0.0"),
            ("to", "bob.eth"),
            ("from", "1"),
            ("id", "x"),
            ("asset", "US DC"),
            ("amout", "1"),
            ("client_ref", "a\u{0}b"),
            ("client_ref", &"x".repeat(201)),
        ] {
            assert!(quote(field, bad).is_err(), "{field} {bad}");
        }
    }
}
