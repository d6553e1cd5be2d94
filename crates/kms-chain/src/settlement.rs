//! Settlement: what the blocks of the chain say about transfers.
//!
//! Every transaction from one of our wallets in a block settles the transfer with its nonce. If it
//! was signed for the transfer, the block decides what became of it; if not, the nonce is gone, and
//! the transaction is the proof. Nothing follows from the absence of a transaction.

use async_trait::async_trait;
use kms_core::ports::StoreError;
use kms_types::{EthAddress, Timestamp, TransferId, Units, Wei};

use crate::chain::{BlockRef, Receipt};
use crate::transfer::{TransactionKind, Transfer};

/// A transaction in a block, as far as it settles a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceUse {
    /// The sender.
    pub from: EthAddress,
    /// Its nonce.
    pub nonce: u64,
    /// The hash of the transaction.
    pub tx_hash: [u8; 32],
}

/// A transfer whose nonce a transaction used.
#[derive(Clone, Debug)]
pub struct NonceMatch {
    /// The transfer.
    pub transfer: Transfer,
    /// The hash of the transaction.
    pub tx_hash: [u8; 32],
    /// What the transaction was signed for; `None` if this system did not sign it for the transfer.
    pub signed_as: Option<TransactionKind>,
}

/// What the transaction in a block means for the transfer with its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The recipient was paid.
    Paid {
        /// The amount that reached the recipient, if the token kept a part of it.
        arrived: Option<Units>,
    },
    /// It reverted.
    Reverted,
    /// It succeeded, but the token logged no such payment.
    NothingMoved,
    /// It is the cancellation.
    Cancelled,
    /// It was not signed by this system.
    Superseded,
}

/// The settlement of one transfer by a transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The transfer.
    pub transfer: TransferId,
    /// The block.
    pub block: BlockRef,
    /// The hash of the transaction.
    pub tx_hash: [u8; 32],
    /// What it means.
    pub outcome: Outcome,
    /// The fee that the network took from the wallet for it; zero if it is not ours.
    pub fee: Wei,
}

/// Consecutive blocks that were read, and what they settle.
#[derive(Clone, Debug, Default)]
pub struct ReadBlocks {
    /// The blocks, lowest first.
    pub blocks: Vec<BlockRef>,
    /// The transfers that they settle.
    pub settlements: Vec<Settlement>,
    /// Whether the first block replaces another one: then every settlement in a higher block
    /// belongs to the removed branch, too.
    pub is_fork: bool,
}

/// What a server knows of the blocks that were read. Another server may have read blocks of another
/// branch meanwhile, if a lease expired: then this one must not change what that one recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last final block.
    pub cursor: BlockRef,
    /// The hash of the last block that this server settled; `None` before its first one, which
    /// takes over from any other server.
    pub tip: Option<[u8; 32]>,
}

/// Stores settlements. Each method is one whole transaction.
#[async_trait]
pub trait SettlementStore: Send + Sync {
    /// Returns the transfers of the chain whose nonce one of these transactions used.
    async fn match_nonces(
        &self,
        chain_id: u64,
        uses: Vec<NonceUse>,
    ) -> Result<Vec<NonceMatch>, StoreError>;

    /// Reopens the transfers that were settled by blocks which these blocks replace, and records
    /// the new settlements, with their notices. A payment is `mined` at once; every other outcome
    /// changes the state at finality only. Returns the reopened transfers whose settlement was
    /// final; `None`, and changes nothing, if another server is at another position.
    async fn settle(
        &self,
        chain_id: u64,
        at: Position,
        read: ReadBlocks,
        now: Timestamp,
    ) -> Result<Option<Vec<TransferId>>, StoreError>;

    /// Records settlements of a final block that the cursor is past, and makes them final, with
    /// their notices. A transfer that is settled already is not changed.
    async fn settle_final(
        &self,
        chain_id: u64,
        block: BlockRef,
        settlements: Vec<Settlement>,
        now: Timestamp,
        keep_until: Timestamp,
    ) -> Result<(), StoreError>;

    /// Makes every settlement in a block up to this one final, with its notices: the blocks below
    /// the tip of the position, which its hash identifies. The signed bytes are kept until
    /// `keep_until`. Returns the superseded transfers; `None`, and changes nothing, if another
    /// server is at another position.
    async fn finalize(
        &self,
        chain_id: u64,
        at: Position,
        up_to: u64,
        now: Timestamp,
        keep_until: Timestamp,
    ) -> Result<Option<Vec<TransferId>>, StoreError>;
}

impl Outcome {
    /// What a transaction that was signed for a transfer did, by its receipt.
    #[must_use]
    pub fn of(kind: TransactionKind, transfer: &Transfer, receipt: &Receipt) -> Self {
        match kind {
            // Also if it reverted: its nonce is used, and nothing was paid.
            TransactionKind::Cancellation => return Self::Cancelled,
            TransactionKind::Payment => {}
        }
        if !receipt.success {
            return Self::Reverted;
        }
        let Some(token) = &transfer.token else {
            return Self::Paid { arrived: None };
        };
        let arrived = receipt.arrived(token, transfer.from.address, transfer.to.address);
        if arrived == Units::default() {
            return Self::NothingMoved;
        }
        // A logged amount above the amount that was sent counts as the full amount.
        Self::Paid { arrived: (arrived < transfer.value).then_some(arrived) }
    }
}
