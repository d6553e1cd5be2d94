//! A transfer as it is stored, and the steps it may take.

use kms_types::wire::{TransferState, Warning};
use kms_types::{AccountId, EthAddress, Timestamp, TransferId, Username, Wei};

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

/// Prices of an EIP-1559 transaction, in wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// `maxFeePerGas`.
    pub max_fee_per_gas: u128,
    /// `maxPriorityFeePerGas`.
    pub max_priority_fee_per_gas: u128,
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
    /// What a unit of it may cost.
    pub fees: Fees,
    /// Known risks that were shown.
    pub warnings: Vec<Warning>,
    /// The client's note, with the transfer.
    pub client_ref: Option<String>,
    /// Where it stands.
    pub state: TransferState,
    /// The account nonce it was signed for.
    pub nonce: Option<u64>,
    /// The hash of the signed transaction.
    pub tx_hash: Option<[u8; 32]>,
    /// The block that has it.
    pub block: Option<u64>,
    /// What the network took.
    pub fee: Option<Wei>,
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
    /// The most that the network may take: gas limit times `maxFeePerGas`.
    #[must_use]
    pub fn max_fee(&self) -> Wei {
        self.fees.max_fee(self.gas_limit)
    }
}

impl Fees {
    /// The most that the network may take for this much gas.
    #[must_use]
    pub fn max_fee(&self, gas_limit: u64) -> Wei {
        use kms_types::U256;
        Wei(U256::from(self.max_fee_per_gas).saturating_mul(U256::from(gas_limit)))
    }
}
