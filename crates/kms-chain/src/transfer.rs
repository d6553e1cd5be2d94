//! A transfer as it is stored.

use kms_types::wire::{TransferState, Warning};
use kms_types::{AccountId, EthAddress, Timestamp, TransferId, Username, Wei};

pub use crate::ladder::{Fees, Ladder};

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

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferFailure {
    /// The recipient's contract refused it; the network kept its fee.
    Reverted,
    /// The wallet's key was used elsewhere, and that transaction has the nonce. It cost nothing.
    NonceTaken,
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
    /// What the client asked for, word for word (`to` and `amount`): tells a repeat from a reuse
    /// of the id.
    pub asked: Asked,
    /// How much.
    pub value: Wei,
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
}

impl Transfer {
    /// The most that the network may take: gas limit times the highest step's `maxFeePerGas`.
    #[must_use]
    pub fn max_fee(&self) -> Wei {
        self.ladder.top().max_fee(self.gas_limit)
    }
}
