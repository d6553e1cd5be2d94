//! Transfers: quote, confirm, read, list.

use serde::{Deserialize, Serialize};

use super::ExternalDeposit;
use crate::{
    AccountId, AccountRef, Asset, EthAddress, PasswordHash, QuoteAmount, Recipient, ReplacementId,
    Timestamp, Token, TransferId, Units, Username, Wei,
};

/// `POST /v1/transfers`: prices a transfer. A repeat with the same id and fields returns the same
/// transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuoteTransfer {
    /// Chosen by the client.
    pub id: TransferId,
    /// The sender.
    pub from: AccountRef,
    /// The recipient: `@username` or `0x` address.
    pub to: Recipient,
    /// Coins, or `all` for the balance that the network fee leaves.
    pub amount: QuoteAmount,
    /// The asset: `native`, or a token's symbol. The native coin if absent.
    #[serde(default, skip_serializing_if = "Asset::is_native")]
    pub asset: Asset,
    /// The chain (EIP-155); the primary one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// A note of the client's own, returned with the transfer: at most 200 characters, without
    /// control characters.
    #[cfg_attr(
        feature = "openapi",
        schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "client_ref")]
    pub client_ref: Option<String>,
}

fn client_ref<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    match &text {
        Some(text) if text.chars().count() > 200 || text.chars().any(char::is_control) => Err(
            serde::de::Error::custom("expected at most 200 characters without control characters"),
        ),
        _ => Ok(text),
    }
}

/// `POST /v1/transfers/{id}/confirm`: confirms a quote with the sender's password. It repeats what
/// the sender was shown, so that nothing else can be signed.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmTransfer {
    /// The sender's password.
    pub password_hash: PasswordHash,
    /// The chain that was shown (EIP-155).
    pub chain_id: u64,
    /// The address that was shown.
    pub to_address: EthAddress,
    /// The token that was shown, as in the quote; absent for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The amount that was shown, in the asset's smallest unit.
    pub value: Units,
    /// The maximum network fee that was shown, in wei.
    pub max_fee: Wei,
}

/// `GET /v1/transfers/{id}/replacement`: the network fee of a replacement of a pending transfer, at
/// the prices of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replacement {
    /// The network fee that is expected, in wei.
    pub usual_fee: Wei,
    /// The maximum network fee, in wei: also of a cancellation that is replaced.
    pub max_fee: Wei,
}

/// `POST /v1/transfers/{id}/replace`: signs a pending transfer again, above the prices at which it
/// was broadcast, and broadcasts it. Only one of its transactions can be mined.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplaceTransfer {
    /// Chosen by the client: a repeat with the same id signs nothing more.
    pub id: ReplacementId,
    /// The sender's password.
    pub password_hash: PasswordHash,
    /// The maximum network fee that was shown, in wei.
    pub max_fee: Wei,
}

/// The state of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Priced; waiting for the sender's password.
    Quoted,
    /// Signed and stored; about to be broadcast, or to be broadcast again.
    Signed,
    /// Accepted by a node of the chain.
    Broadcast,
    /// Included in a block.
    Mined,
    /// Included in a finalized block.
    Final,
    /// Not paid; `failure` says why.
    Failed,
    /// Cancelled before it was signed, or by the cancellation in a finalized block.
    Cancelled,
    /// Not confirmed in time.
    Expired,
    /// A state of a newer server.
    #[serde(other)]
    Unknown,
}

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TransferFailure {
    /// The recipient's or the token's contract reverted it. The fee was charged.
    Reverted,
    /// Another transaction of the wallet's key, not made by this system, used the nonce. No fee was
    /// charged.
    Superseded,
    /// The token's contract accepted the transaction, but its log has no such payment. The fee was
    /// charged.
    NothingMoved,
    /// A reason of a newer server.
    #[serde(other)]
    Unknown,
}

/// Why a signed transfer is not mined yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// The network asks for more than the maximum fee that the sender confirmed.
    Fee,
    /// The balance no longer covers it.
    Funds,
    /// An earlier transfer of the wallet is not mined.
    EarlierTransfer,
    /// The chain makes no blocks, or no endpoint follows it.
    ChainStalled,
    /// The endpoints refuse its gas limit.
    RefusedGasLimit,
    /// The endpoints refuse its tip as too low.
    RefusedTipTooLow,
    /// The endpoints refuse its fee as too high.
    RefusedFeeTooHigh,
    /// The endpoints refuse it for another reason.
    RefusedOther,
    /// A reason of a newer server.
    #[serde(other)]
    Unknown,
}

/// Why a transfer waits, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Wait {
    /// The reason.
    pub reason: WaitReason,
    /// Since when.
    pub since: Timestamp,
}

/// One side of a transfer, as it was when it was quoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Party {
    /// The account; `null` for an external address.
    pub account: Option<AccountId>,
    /// The username it was paid by, or that the sender holds.
    pub username: Option<Username>,
    /// The address.
    pub address: EthAddress,
    /// When the account was created; `null` for an external address.
    pub since: Option<Timestamp>,
}

/// What the sender should know before confirming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// The sender has never paid this recipient.
    FirstPayment,
    /// The recipient is a contract.
    Contract,
    /// More than nine tenths of the balance of the asset are spent.
    MostOfBalance,
    /// The username was reassigned from another user less than 30 days ago.
    NameReassigned,
    /// The sender has paid another address that has the same first four and last four digits as the
    /// recipient's, but never this one.
    LooksLikeAnother,
    /// The network fee that is expected is more than a tenth of the amount.
    FeeHigh,
    /// The network fee that is expected is more than the amount.
    FeeAboveAmount,
    /// A warning of a newer server.
    #[serde(other)]
    Unknown,
}

/// A transfer, from quote to finality.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Transfer {
    /// The id that the client chose.
    pub id: TransferId,
    /// Its state.
    pub state: TransferState,
    /// The sender.
    pub from: Party,
    /// The recipient.
    pub to: Party,
    /// The token; absent for the native coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit.
    pub value: Units,
    /// The amount that the recipient received, if the token deducted a fee from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Units>,
    /// The network fee that is expected, in wei.
    pub usual_fee: Wei,
    /// The maximum network fee, in wei.
    pub max_fee: Wei,
    /// The network fee that was paid, in wei, once it is mined.
    pub fee: Option<Wei>,
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The transaction's hash, `0x` and 64 hex digits, once it is signed. It changes until the
    /// transfer is mined: a stalled transaction is replaced by one with a higher fee.
    pub tx_hash: Option<String>,
    /// The number of the block that includes it.
    pub block: Option<u64>,
    /// How many replacement transactions with a higher fee were broadcast while it is pending.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replacements_sent: u32,
    /// Why it is not mined yet, once there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Since when its cancellation replaces it: whichever is mined decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<TransferFailure>,
    /// The hash of the transaction that used its nonce, if it failed because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
    /// What the sender should know before confirming.
    pub warnings: Vec<Warning>,
    /// The client's own note.
    pub client_ref: Option<String>,
    /// When it was quoted.
    pub created_at: Timestamp,
    /// When the quote expires.
    pub expires_at: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Whether an account sent or received a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It sent the payment.
    Out,
    /// It received the payment.
    In,
}

/// An entry of an account's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HistoryEntry {
    /// A transfer of this system: sent by the account and at least signed, or received by it.
    Transfer {
        /// The transfer as it is now.
        transfer: Box<Transfer>,
    },
    /// A payment to the account that this system did not send.
    Deposit {
        /// When the server recorded it.
        at: Timestamp,
        /// The payment.
        deposit: ExternalDeposit,
    },
    /// An entry of a newer server.
    #[serde(other)]
    Unknown,
}

/// `GET /v1/accounts/{account}/transfers?cursor=&direction=&limit=`: the history of an account,
/// newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryPage {
    /// The entries, newest first.
    pub entries: Vec<HistoryEntry>,
    /// Pass this as `cursor` for older entries; `null` if there are none.
    pub next: Option<String>,
    /// Pass this as `cursor`, with `direction=newer`, for newer entries; `null` if there are none.
    pub prev: Option<String>,
}

impl Transfer {
    /// Returns whether `account` sent or received the transfer.
    #[must_use]
    pub fn direction(&self, account: AccountId) -> Direction {
        if self.from.account == Some(account) { Direction::Out } else { Direction::In }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_refuses_invalid_fields() {
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
