//! A transfer as it is stored.

use std::collections::HashMap;

use kms_types::{
    AccountId, Asset, EthAddress, Timestamp, Token, TokenAmount, TransferId, U256, Units, Username,
    Wei, text_table,
};

pub use crate::ladder::{Fees, Ladder};

/// Where a transfer stands.
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
    /// Not paid; its [`TransferFailure`] says why.
    Failed,
    /// Cancelled by the sender before it was signed.
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
    NonceTaken,
    /// The token's contract accepted the transaction, but its log has no such payment. The fee was
    /// charged.
    NothingMoved,
}

text_table! {
    TransferFailure {
        Reverted = "reverted",
        NonceTaken = "nonce_taken",
        NothingMoved = "nothing_moved",
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
    NameMoved,
}

text_table! {
    Warning {
        FirstPayment = "first_payment",
        Contract = "contract",
        MostOfBalance = "most_of_balance",
        NameMoved = "name_moved",
    }
}

/// One side of a transfer, frozen when it was quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The account, if it is one of ours. A sender always is.
    pub account: Option<AccountId>,
    /// The name it was paid by, or holds.
    pub username: Option<Username>,
    /// The address.
    pub address: EthAddress,
    /// Since when the account exists, if it is one of ours.
    pub since: Option<Timestamp>,
}

/// What is missing of a balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The native coin, fee included.
    Native(Wei),
    /// A token.
    Token(TokenAmount),
}

/// What transfers that are on their way may still take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The native coin, fees included.
    pub wei: Wei,
    /// Tokens, by their contracts.
    pub tokens: HashMap<EthAddress, Units>,
}

/// A transfer, from quote to finality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// As the client chose it.
    pub id: TransferId,
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// Who pays.
    pub from: Party,
    /// Who is paid.
    pub to: Party,
    /// What the client asked for, word for word: tells a repeat from a reuse of the id.
    pub asked: Asked,
    /// The token that is paid, as it was configured when it was quoted; `None` for the native
    /// coin.
    pub token: Option<Token>,
    /// How much, in the asset's smallest unit.
    pub value: Units,
    /// How much of it came, if the token kept a part of it.
    pub arrived: Option<Units>,
    /// Gas that the transaction may use.
    pub gas_limit: u64,
    /// What a unit of it may cost, from the first step to the highest.
    pub ladder: Ladder,
    /// Known risks that were shown.
    pub warnings: Vec<Warning>,
    /// The client's note, with the transfer.
    pub client_ref: Option<String>,
    /// Where it stands.
    pub state: TransferState,
    /// The account nonce it was signed for.
    pub nonce: Option<u64>,
    /// The hash of the transaction that is mined, or else of the step that was sent last.
    pub tx_hash: Option<[u8; 32]>,
    /// How many steps of the ladder above the first were sent, while it is on its way.
    pub raised: u32,
    /// Since when it waits at the top of the ladder, and its sender knows, while it is on its way.
    pub waits_since: Option<Timestamp>,
    /// The block that has it.
    pub block: Option<u64>,
    /// What the network took.
    pub fee: Option<Wei>,
    /// Why it failed, if it did.
    pub failure: Option<TransferFailure>,
    /// When it was quoted.
    pub created_at: Timestamp,
    /// Until when it can be confirmed.
    pub expires_at: Timestamp,
}

/// A quote's request as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `to`.
    pub to: String,
    /// `amount`.
    pub amount: String,
    /// `asset`.
    pub asset: Asset,
}

impl Transfer {
    /// The most that the network may take: gas limit times the highest step's `maxFeePerGas`.
    #[must_use]
    pub fn max_fee(&self) -> Wei {
        self.ladder.top().max_fee(self.gas_limit)
    }
    /// The most of the native coin that it can take out of the wallet.
    #[must_use]
    pub fn most_wei(&self) -> Wei {
        let value = if self.token.is_none() { self.value.0 } else { U256::ZERO };
        Wei(value.saturating_add(self.max_fee().0))
    }
}

impl Outgoing {
    /// Counts a transfer.
    pub fn add(&mut self, transfer: &Transfer) {
        self.wei = Wei(self.wei.0.saturating_add(transfer.most_wei().0));
        if let Some(token) = &transfer.token {
            let sum = self.tokens.entry(token.address).or_default();
            *sum = Units(sum.0.saturating_add(transfer.value.0));
        }
    }

    /// What is counted of a token.
    #[must_use]
    pub fn of(&self, token: &Token) -> Units {
        self.tokens.get(&token.address).copied().unwrap_or_default()
    }
}
