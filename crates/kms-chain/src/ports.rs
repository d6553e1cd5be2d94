//! The port of the transfer engine to a database, implemented by `kms-store`. Each method is one
//! whole transaction.

use async_trait::async_trait;
use kms_core::ports::StoreError;
use kms_types::{AccountId, EthAddress, Timestamp, TransferId, Units, Wei};

use crate::spending::{OverLimit, SpendingRules};
use crate::state::Change;
use crate::transfer::{Missing, Outgoing, Transfer};

/// The result of inserting a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The quote was inserted.
    New,
    /// The id is taken by this transfer.
    Existing(Box<Transfer>),
}

/// A signed transaction before it is committed.
#[derive(Clone, Debug)]
pub struct SignedBytes {
    /// Its hash.
    pub tx_hash: [u8; 32],
    /// Its bytes (EIP-2718), sealed: in plaintext they would move the money.
    pub sealed: Vec<u8>,
}

/// All signed transactions of one transfer, for one nonce.
#[derive(Clone, Debug)]
pub struct SignedLadder {
    /// The transaction that is broadcast first.
    pub first: SignedBytes,
    /// The replacements, in the order in which they are broadcast while none is mined.
    pub replacements: Vec<SignedBytes>,
}

/// Signs for a nonce. Called at most once, inside the transaction that commits the result.
pub type Sign = Box<dyn FnOnce(u64) -> SignedLadder + Send>;

/// The state of a sender on the chain shortly before a transfer is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainView {
    /// A block that is not newer than the balances.
    pub block: u64,
    /// The sender's balance of the native coin.
    pub balance: Wei,
    /// The sender's balance of the token that is paid; zero for the native coin.
    pub token: Units,
    /// The sender's transaction count, pending transactions included. Too low rather than too high.
    pub nonce: u64,
    /// The sender's count of mined transactions on the branch that the balance is of. A transfer
    /// that was recorded as mined and has this nonce or a higher one was removed by a
    /// reorganisation.
    pub mined: u64,
}

/// The result of signing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignOutcome {
    /// The signed transfer, with its nonce and hash.
    Signed(Box<Transfer>),
    /// The transfer is not `quoted` any more. Nothing was signed.
    NotQuoted(Box<Transfer>),
    /// The quote expired, which is now recorded. Nothing was signed.
    Expired,
    /// A spending limit refuses it. Nothing was signed.
    OverLimit(OverLimit),
    /// The balance, less what other signed transfers may still take, does not cover it. Nothing
    /// was signed.
    Insufficient {
        /// The missing amount.
        missing: Missing,
    },
}

/// An event of a signed transfer. [`after`](crate::state::after) defines the states in which it is
/// allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A node accepted the transaction.
    Broadcast,
    /// This replacement is about to be broadcast. Recorded before, so that the hash of every
    /// transaction that a node may have is known. Notifies the sender, once per step.
    Replaced {
        /// The step of the ladder, at least 1.
        step: u32,
    },
    /// No replacement is left, and it is still not mined. Notifies the sender, once.
    Waiting,
    /// It is mined. Notifies the sender, and the recipient unless that was done before.
    Mined {
        /// The transaction that is mined.
        tx_hash: [u8; 32],
        /// Its block.
        block: u64,
        /// The fee that the network took.
        fee: Wei,
        /// The amount that reached the recipient, if the token kept a part of it.
        arrived: Option<Units>,
    },
    /// In a finalized block, but the token logged no such payment. Erases the signed bytes, and
    /// notifies the sender.
    NothingMoved {
        /// The transaction that is mined.
        tx_hash: [u8; 32],
        /// Its block.
        block: u64,
        /// The fee that the network took.
        fee: Wei,
    },
    /// In a finalized block, but reverted. Erases the signed bytes, and notifies the sender.
    Reverted {
        /// The transaction that is mined.
        tx_hash: [u8; 32],
        /// Its block.
        block: u64,
        /// The fee that the network took.
        fee: Wei,
    },
    /// A finalized block contains another transaction with its nonce, which was not made by this
    /// system. Erases the signed bytes, releases what was reserved, and notifies the sender.
    Superseded,
    /// Its block was removed by a reorganisation. Notifies the sender.
    Reorged,
    /// Its block is finalized. Erases the signed bytes.
    Final,
}

impl Progress {
    /// The change of state that it causes.
    #[must_use]
    pub fn change(&self) -> Change {
        match self {
            Self::Broadcast => Change::Broadcast,
            Self::Replaced { .. } => Change::Replace,
            Self::Waiting => Change::Wait,
            Self::Mined { .. } => Change::Mine,
            Self::Reverted { .. } | Self::NothingMoved { .. } => Change::Revert,
            Self::Superseded => Change::Supersede,
            Self::Reorged => Change::Reorg,
            Self::Final => Change::Finish,
        }
    }
}

/// A signed transaction of a transfer: one step of its ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTx {
    /// The step, counted from 0.
    pub step: u32,
    /// Its hash.
    pub tx_hash: [u8; 32],
    /// Its sealed bytes.
    pub sealed: Vec<u8>,
    /// When it was broadcast first: for a replacement recorded before the broadcast, for the first
    /// step when a node accepted it.
    pub sent_at: Option<Timestamp>,
}

/// A pending transfer that was claimed for processing.
#[derive(Clone, Debug)]
pub struct Due {
    /// The transfer: `signed`, `broadcast` or `mined`.
    pub transfer: Transfer,
    /// Its first transaction.
    pub first: SignedTx,
    /// The replacements, lowest step first.
    pub replacements: Vec<SignedTx>,
    /// Whether the sender was notified that it waits.
    pub waiting_notified: bool,
}

/// The addresses that an account has paid, compared with one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaidBefore {
    /// It has paid this address.
    pub same: bool,
    /// It has paid another address with the same first four and last four digits, which are those
    /// that people compare.
    pub lookalike: bool,
}

/// Stores transfers, their signed bytes and their nonces.
#[async_trait]
pub trait TransferStore: Send + Sync {
    /// Inserts a `quoted` transfer, or returns the one that has its id.
    async fn insert_quote(&self, quote: Transfer) -> Result<Inserted, StoreError>;

    /// Returns a transfer. A `quoted` one past its lifetime is returned as `expired`.
    async fn transfer(
        &self,
        id: TransferId,
        now: Timestamp,
    ) -> Result<Option<Transfer>, StoreError>;

    /// Changes `quoted` to `cancelled`, and returns the transfer in its state afterwards.
    async fn cancel(&self, id: TransferId, now: Timestamp) -> Result<Option<Transfer>, StoreError>;

    /// Changes `quoted` to `signed`, in one transaction: locks the nonce row of the wallet, checks
    /// the state, the expiry, the spending limits, and that the balances cover all signed transfers
    /// of the wallet and this one; chooses the nonce, calls `sign`, stores all signed transactions,
    /// reserves the spend at its highest fee, and inserts the event `TransferChanged`.
    ///
    /// The nonce is the first one from `view.nonce` on that no transfer of the wallet has. The view
    /// may be older than the last signature; gaps are filled first. Transfers mined after
    /// `view.block` count as pending, because the balance may not include them.
    async fn sign(
        &self,
        id: TransferId,
        view: ChainView,
        rules: SpendingRules,
        now: Timestamp,
        sign: Sign,
    ) -> Result<SignOutcome, StoreError>;

    /// Records an event if the state of the transfer allows it, and inserts its notices. Returns
    /// `false` if nothing was recorded.
    async fn advance(
        &self,
        id: TransferId,
        progress: Progress,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Claims up to `limit` transfers of the chain that are `signed`, `broadcast` or `mined` and
    /// whose lease has ended, until `lease_until`. Returns the lowest nonces first. Logs and skips
    /// rows that cannot be read.
    async fn claim_due(
        &self,
        chain_id: u64,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError>;

    /// Returns what the account's `signed` and `broadcast` transfers on the chain may still take,
    /// fees included.
    async fn pending_spend(
        &self,
        chain_id: u64,
        account: AccountId,
    ) -> Result<Outgoing, StoreError>;

    /// Returns the limit that refuses the transfer at its highest fee, if any.
    async fn over_limit(
        &self,
        transfer: Transfer,
        rules: SpendingRules,
        now: Timestamp,
    ) -> Result<Option<OverLimit>, StoreError>;

    /// Returns whether the account has `mined` or `final` transfers to the address, or to another
    /// one that looks like it.
    async fn paid_before(
        &self,
        account: AccountId,
        to: EthAddress,
    ) -> Result<PaidBefore, StoreError>;
}
