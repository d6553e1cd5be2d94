//! A transfer, from quote to finality.

use std::collections::HashMap;

use kms_types::{
    AccountId, Asset, AssetId, EthAddress, Timestamp, Token, TokenAmount, TransferId, U256, Units,
    Username, Wei, text_table,
};

pub use crate::ladder::{Fees, Ladder};

/// The state of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Not paid; see its [`TransferFailure`].
    Failed,
    /// Cancelled before it was signed, or by the cancellation in a finalized block.
    Cancelled,
    /// Not confirmed in time.
    Expired,
}

text_table! {
    TransferState {
        Quoted = "quoted",
        Signed = "signed",
        Broadcast = "broadcast",
        Mined = "mined",
        Final = "final",
        Failed = "failed",
        Cancelled = "cancelled",
        Expired = "expired",
    }
}

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferFailure {
    /// The recipient's or the token's contract reverted it. The fee was charged.
    Reverted,
    /// Another transaction of the wallet's key, not made by this system, used the nonce. No fee
    /// was charged.
    Superseded,
    /// The token's contract accepted the transaction, but its log has no such payment. The fee was
    /// charged.
    NothingMoved,
}

text_table! {
    TransferFailure {
        Reverted = "reverted",
        Superseded = "superseded",
        NothingMoved = "nothing_moved",
    }
}

/// Why a signed transfer is not mined yet. For display, metrics and alarms: nothing is decided by
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitReason {
    /// The network asks for more than the maximum fee that was signed.
    Fee,
    /// The balance no longer covers it.
    Funds,
    /// An earlier transfer of the wallet is not mined.
    EarlierTransfer,
    /// The chain makes no blocks, or no endpoint follows it.
    ChainStalled,
    /// The endpoints refuse it.
    Refused(Refusal),
}

/// Why an endpoint refuses a signed transaction, by its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The gas limit is below what the chain charges before execution, or above what it allows.
    GasLimit,
    /// The tip is below the minimum of the endpoint or of the chain.
    TipTooLow,
    /// The fee is above the maximum of the endpoint.
    FeeTooHigh,
    /// Another reason.
    Other,
}

text_table! {
    WaitReason {
        Fee = "fee",
        Funds = "funds",
        EarlierTransfer = "earlier_transfer",
        ChainStalled = "chain_stalled",
        Refused(Refusal::GasLimit) = "refused_gas_limit",
        Refused(Refusal::TipTooLow) = "refused_tip_too_low",
        Refused(Refusal::FeeTooHigh) = "refused_fee_too_high",
        Refused(Refusal::Other) = "refused_other",
    }
}

/// Why a transfer waits, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The reason.
    pub reason: WaitReason,
    /// When this reason was recorded first.
    pub since: Timestamp,
}

/// What a signed transaction of a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionKind {
    /// It pays.
    Payment,
    /// It pays nothing to the sender itself, so that the nonce is used and nothing else happens.
    Cancellation,
}

text_table! {
    TransactionKind {
        Payment = "payment",
        Cancellation = "cancellation",
    }
}

/// What the sender should know before confirming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// The sender has never paid this recipient.
    FirstPayment,
    /// The recipient is a contract.
    Contract,
    /// More than nine tenths of the balance of the asset are spent.
    MostOfBalance,
    /// The username was reassigned from another user less than 30 days ago.
    NameReassigned,
    /// The fee that is expected is more than a tenth of the amount.
    FeeHigh,
    /// The fee that is expected is more than the amount.
    FeeAboveAmount,
    /// The sender has paid another address that looks like the recipient's, but never this one.
    LooksLikeAnother,
}

text_table! {
    Warning {
        FirstPayment = "first_payment",
        Contract = "contract",
        MostOfBalance = "most_of_balance",
        NameReassigned = "name_reassigned",
        FeeHigh = "fee_high",
        FeeAboveAmount = "fee_above_amount",
        LooksLikeAnother = "looks_like_another",
    }
}

/// One side of a transfer, frozen when it was quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The account, if there is one for the address. A sender always has one.
    pub account: Option<AccountId>,
    /// The username that the sender entered, or the sender's own.
    pub username: Option<Username>,
    /// The address.
    pub address: EthAddress,
    /// When the account was created.
    pub since: Option<Timestamp>,
}

/// The amount by which a balance is too low.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Of the native coin, the fee included.
    Native(Wei),
    /// Of a token.
    Token(TokenAmount),
}

/// How many transfers of one wallet may be in flight. Nodes keep only so many transactions of one
/// sender.
pub const MAX_IN_FLIGHT: u32 = 16;

/// What pending transfers may still take out of a wallet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Native coin, fees included.
    pub wei: Wei,
    /// Tokens, by contract.
    pub tokens: HashMap<EthAddress, Units>,
    /// The number of transfers with a nonce below that of the next transfer.
    pub in_flight: u32,
}

/// The terms of a transfer, as they were shown to the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The id, chosen by the client.
    pub id: TransferId,
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The sender.
    pub from: Party,
    /// The recipient.
    pub to: Party,
    /// The request, word for word: distinguishes a repeated request from a reused id.
    pub asked: Asked,
    /// The token as it was configured at the time; `None` for the native coin.
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit.
    pub value: Units,
    /// The gas limit of the transaction.
    pub gas_limit: u64,
    /// The prices of the transaction and of its replacements.
    pub ladder: Ladder,
    /// The warnings that were shown.
    pub warnings: Vec<Warning>,
    /// A note of the client.
    pub client_ref: Option<String>,
    /// When it was quoted.
    pub created_at: Timestamp,
    /// Until when it can be confirmed.
    pub expires_at: Timestamp,
}

/// A transfer: the terms of its [`Quote`], and its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The id, chosen by the client.
    pub id: TransferId,
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The sender.
    pub from: Party,
    /// The recipient.
    pub to: Party,
    /// The request, word for word.
    pub asked: Asked,
    /// The token as it was configured when it was quoted; `None` for the native coin.
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit.
    pub value: Units,
    /// The amount that reached the recipient, if the token kept a part of it.
    pub arrived: Option<Units>,
    /// The gas limit of the transaction.
    pub gas_limit: u64,
    /// The prices of the transaction and of its replacements.
    pub ladder: Ladder,
    /// The warnings that were shown.
    pub warnings: Vec<Warning>,
    /// A note of the client.
    pub client_ref: Option<String>,
    /// The state.
    pub state: TransferState,
    /// The nonce, once it is signed.
    pub nonce: Option<u64>,
    /// The hash of the mined transaction, or else of the one that was broadcast last.
    pub tx_hash: Option<[u8; 32]>,
    /// How many transactions replaced the first one, while it is pending.
    pub replacements_sent: u32,
    /// Why it waits, while it is pending.
    pub wait: Option<Wait>,
    /// Since when its cancellation replaces it.
    pub cancel_requested_at: Option<Timestamp>,
    /// The block that contains it.
    pub block: Option<u64>,
    /// The fee that the network took.
    pub fee: Option<Wei>,
    /// Why it failed.
    pub failure: Option<TransferFailure>,
    /// The transaction that used its nonce, if that was not made by this system or for another
    /// transfer.
    pub superseded_by: Option<[u8; 32]>,
    /// When it was quoted.
    pub created_at: Timestamp,
    /// Until when it can be confirmed.
    pub expires_at: Timestamp,
}

/// The request for a quote as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The field `to`.
    pub to: String,
    /// The field `amount`.
    pub amount: String,
    /// The field `asset`.
    pub asset: Asset,
}

impl From<Quote> for Transfer {
    fn from(quote: Quote) -> Self {
        Self {
            id: quote.id,
            chain_id: quote.chain_id,
            from: quote.from,
            to: quote.to,
            asked: quote.asked,
            token: quote.token,
            value: quote.value,
            arrived: None,
            gas_limit: quote.gas_limit,
            ladder: quote.ladder,
            warnings: quote.warnings,
            client_ref: quote.client_ref,
            state: TransferState::Quoted,
            nonce: None,
            tx_hash: None,
            replacements_sent: 0,
            wait: None,
            cancel_requested_at: None,
            block: None,
            fee: None,
            failure: None,
            superseded_by: None,
            created_at: quote.created_at,
            expires_at: quote.expires_at,
        }
    }
}

impl Transfer {
    /// The asset that is paid.
    #[must_use]
    pub fn asset(&self) -> AssetId {
        AssetId::of(self.chain_id, self.token.as_ref())
    }

    /// The maximum fee of the payment: the gas limit times the highest price of the ladder, and
    /// what the chain may take in addition to gas.
    #[must_use]
    pub fn max_fee(&self) -> Wei {
        self.ladder.max_fee(self.gas_limit)
    }

    /// The fee that is expected to be paid.
    #[must_use]
    pub fn usual_fee(&self) -> Wei {
        self.ladder.usual_fee(self.gas_limit)
    }

    /// The native coin that the payment takes at most: the amount and the fee.
    #[must_use]
    pub fn max_paid(&self) -> Wei {
        let value = if self.token.is_none() { self.value.0 } else { U256::ZERO };
        Wei(value.saturating_add(self.max_fee().0))
    }

    /// The native coin that must be there: for the payment, or for its cancellation.
    #[must_use]
    pub fn max_wei(&self) -> Wei {
        self.max_paid().max(self.ladder.cancellation_fee(self.gas_limit))
    }
}

impl Outgoing {
    /// Adds a transfer.
    pub fn add(&mut self, transfer: &Transfer) {
        self.wei = Wei(self.wei.0.saturating_add(transfer.max_wei().0));
        if let Some(token) = &transfer.token {
            let sum = self.tokens.entry(token.address).or_default();
            *sum = Units(sum.0.saturating_add(transfer.value.0));
        }
    }

    /// Returns the sum of a token.
    #[must_use]
    pub fn of(&self, token: &Token) -> Units {
        self.tokens.get(&token.address).copied().unwrap_or_default()
    }
}
