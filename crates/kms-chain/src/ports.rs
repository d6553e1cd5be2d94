//! The port of the transfer engine to a database, implemented by `kms-store`. Each method is one
//! whole transaction.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use kms_core::ports::StoreError;
use kms_types::{AccountId, AssetId, EthAddress, ReplacementId, Timestamp, TransferId, Units, Wei};

use crate::spending::{OverLimit, OwnLimit, SpendingRules};
use crate::state::Change;
use crate::transfer::{Fees, Ladder, Missing, Outgoing, TransactionKind, Transfer, WaitReason};

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
    /// Its prices.
    pub fees: Fees,
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
    /// The cancellation, priced above all of them.
    pub cancellation: SignedBytes,
}

/// A wallet that was opened, and signs for a nonce.
pub struct Sign {
    /// The version of the wallet that was opened.
    pub wallet_version: i64,
    /// Signs for this nonce. Called at most once, inside the transaction that commits the result.
    pub ladder: Box<dyn FnOnce(u64) -> SignedLadder + Send>,
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sign").field("wallet_version", &self.wallet_version).finish_non_exhaustive()
    }
}

/// Chooses prices that replace a transaction at these. `None` if they exceed what the sender
/// agreed to.
pub type ChoosePrices = Box<dyn FnOnce(Fees) -> Option<Ladder> + Send>;

/// Signs a transfer for a nonce that it has.
pub type LadderAgain = Box<dyn FnOnce(&Transfer, u64) -> SignedLadder + Send>;

/// A wallet that was opened, and signs a transfer again for its nonce.
pub struct SignAgain {
    /// The version of the wallet that was opened.
    pub wallet_version: i64,
    /// Signs the transfer, with its new ladder, for its nonce. Called at most once, inside the
    /// transaction that commits the result.
    pub ladder: LadderAgain,
}

impl fmt::Debug for SignAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignAgain")
            .field("wallet_version", &self.wallet_version)
            .finish_non_exhaustive()
    }
}

/// The result of signing a pending transfer again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplaceOutcome {
    /// The transfer with its new prices.
    Replaced(Box<Transfer>),
    /// The request was handled before.
    Repeated(Box<Transfer>),
    /// The id belongs to a replacement of another transfer. Nothing was signed.
    IdReused,
    /// The transfer is not pending. Nothing was signed.
    NotPending,
    /// The account is frozen, or has another wallet. Nothing was signed.
    NotActive,
    /// The password of the wallet was replaced after the wallet was opened. Nothing was signed.
    WalletChanged,
    /// The prices exceed what the sender agreed to. Nothing was signed.
    Outdated,
    /// A spending limit refuses the higher fee. Nothing was signed.
    OverLimit(OverLimit),
    /// The balance does not cover it. Nothing was signed.
    Insufficient {
        /// The missing amount.
        missing: Missing,
    },
}

/// The state of a sender on the chain shortly before a transfer is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainView {
    /// A block that is not newer than the balances.
    pub block: u64,
    /// The sender's balance of the native coin.
    pub balance: Wei,
    /// The sender's balance of the token that is paid; zero for the native coin.
    pub token: Units,
    /// The sender's transaction count, pending transactions included. Too low rather than too
    /// high.
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
    /// The audit has that it was signed: an old copy of its row was put back. Nothing was signed.
    RolledBack,
    /// The quote expired, which is now recorded. Nothing was signed.
    Expired,
    /// The account is frozen, or has another wallet. Nothing was signed.
    NotActive,
    /// The password of the wallet was replaced after the wallet was opened. Nothing was signed.
    WalletChanged,
    /// [`MAX_IN_FLIGHT`](crate::transfer::MAX_IN_FLIGHT) transfers of the wallet are in flight.
    /// Nothing was signed.
    TooManyInFlight,
    /// The chain does not count the nonce of a transfer that has ended: the endpoint is far behind,
    /// or a reorganisation removed a final block, which the follower finds. Nothing was signed, for
    /// it would wait behind that nonce.
    Contradicted {
        /// The nonce.
        nonce: u64,
    },
    /// A spending limit refuses it. Nothing was signed.
    OverLimit(OverLimit),
    /// All accounts together sent so much of the asset that it fits only later. Nothing was signed.
    OverOutflow {
        /// When it fits, if nothing else is sent.
        after: Duration,
    },
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
    Broadcast {
        /// When it is checked, unless a block settled it before.
        check_at: Timestamp,
    },
    /// This transaction is about to be broadcast in place of the one before: a replacement or the
    /// cancellation. Recorded before, so that the hash of every transaction that a node may have
    /// is known. Notifies the sender, once for each.
    Replaced {
        /// Its hash.
        tx_hash: [u8; 32],
        /// The latest block.
        block: u64,
    },
    /// It is not mined, for this reason. Notifies the sender when the reason changes.
    Waiting(WaitReason),
    /// It no longer waits for a known reason. Notifies the sender if it did.
    Resumed,
    /// The cancellation is to be sent. Notifies the sender, once.
    CancellationRequested,
}

impl Progress {
    /// The change of state that it causes.
    #[must_use]
    pub fn change(&self) -> Change {
        match self {
            Self::Broadcast { .. } => Change::Broadcast,
            Self::Replaced { .. } => Change::Replace,
            Self::Waiting(_) | Self::Resumed => Change::Wait,
            Self::CancellationRequested => Change::RequestCancellation,
        }
    }
}

/// A signed transaction of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTx {
    /// Its place, counted from 0. Prices rise with it.
    pub step: u32,
    /// What it does.
    pub kind: TransactionKind,
    /// Its prices.
    pub fees: Fees,
    /// Its hash.
    pub tx_hash: [u8; 32],
    /// Its sealed bytes.
    pub sealed: Vec<u8>,
    /// When it was handed to the endpoints first. Recorded before that: for the first step with
    /// the signature.
    pub sent: Option<Sent>,
}

/// When a transaction was handed to the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The time.
    pub at: Timestamp,
    /// The latest block.
    pub block: u64,
}

/// A pending transfer that was claimed for processing.
#[derive(Clone, Debug)]
pub struct Due {
    /// The transfer: `signed` or `broadcast`, and in no block.
    pub transfer: Transfer,
    /// Its first transaction.
    pub first: SignedTx,
    /// The transactions that can replace it, lowest step first.
    pub replacements: Vec<SignedTx>,
    /// Whether the account of the sender is frozen.
    pub sender_frozen: bool,
}

/// The addresses that an account has paid, compared with one that it is about to pay on a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaidBefore {
    /// It has paid this address on this chain. On another one, the same address may belong to
    /// another party: that of a contract does not say who controls it there.
    pub same: bool,
    /// It has paid, on any chain, another address with the same first four and last four digits,
    /// which are those that people compare.
    pub lookalike: bool,
}

/// What is compared before a payment is quoted.
#[derive(Clone, Debug)]
pub struct BeforeQuote {
    /// What the wallet's transfers may take, as [`TransferStore::reserved_spend`] returns it.
    pub pending: Outgoing,
    /// What the account has paid, `mined` or `final`.
    pub paid_before: PaidBefore,
    /// The limit that its owner set for the asset.
    pub own: OwnLimit,
}

/// Stores transfers, their signed bytes and their nonces.
#[async_trait]
pub trait TransferStore: Send + Sync {
    /// Inserts a `quoted` transfer, or returns the one that has its id.
    async fn insert_quote(&self, quote: Transfer) -> Result<Inserted, StoreError>;

    /// Returns a transfer. A `quoted` one that is past its lifetime by the database's clock is
    /// changed to `expired` first.
    async fn transfer(&self, id: TransferId) -> Result<Option<Transfer>, StoreError>;

    /// Returns a transfer as [`Self::transfer`] does, and whether the audit has that it was signed,
    /// of one moment: an old copy of a row that is `quoted` then was put back.
    async fn transfer_to_sign(
        &self,
        id: TransferId,
    ) -> Result<Option<(Transfer, bool)>, StoreError>;

    /// Changes `quoted` to `cancelled`, or to `expired` past its lifetime; records for a `signed`
    /// or `broadcast` transfer that its cancellation is to be sent. Returns the transfer in its
    /// state afterwards.
    async fn cancel(&self, id: TransferId, now: Timestamp) -> Result<Option<Transfer>, StoreError>;

    /// Changes `quoted` to `signed`, in one transaction: locks the transfer and the account, checks
    /// the state, the expiry by the database's clock, that the account is active and has this
    /// wallet at the version that was opened, how many of its transfers are in flight, that the
    /// balances cover all signed transfers of the wallet and this one, the spending limits, and
    /// that it fits into what all accounts together may send, and takes it from that; chooses the
    /// nonce, calls `sign`, stores all signed transactions, reserves the spend at its maximum fee,
    /// and inserts the event `TransferChanged`.
    ///
    /// The nonce is the first one from `view.nonce` on that no transfer of the wallet has. The
    /// view may be older than the last signature; gaps are filled first. It is the first one from
    /// `view.mined` on if one of the wallet's transfers waits above it for an earlier transaction.
    /// Transfers below it are in flight. Every transfer with a nonce from `view.mined` on counts
    /// against the balance, whatever its state: what is below is in the balance, unless no block
    /// that was read has settled it.
    async fn sign(
        &self,
        id: TransferId,
        view: ChainView,
        rules: SpendingRules,
        now: Timestamp,
        sign: Sign,
    ) -> Result<SignOutcome, StoreError>;

    /// Signs a pending transfer again, in one transaction: locks the transfer and the account,
    /// checks that the request is new, the transfer pending, the account active and its wallet at
    /// the version that was opened, that the balances cover the new prices and a spending limit the
    /// higher fee; deletes what was signed and never sent, stores what is signed now, and inserts
    /// the event `TransferChanged`. Of a transfer whose cancellation was requested, the
    /// cancellation alone is replaced.
    ///
    /// The first of the new transactions counts as sent.
    async fn replace(
        &self,
        id: TransferId,
        replacement: ReplacementId,
        view: ChainView,
        rules: SpendingRules,
        now: Timestamp,
        again: (ChoosePrices, SignAgain),
    ) -> Result<ReplaceOutcome, StoreError>;

    /// Returns the transfer that was signed again by the replacement with this id.
    async fn replaced_by(&self, id: ReplacementId) -> Result<Option<TransferId>, StoreError>;

    /// Returns the prices of the transaction of a transfer that was sent last.
    async fn last_sent(&self, id: TransferId) -> Result<Option<Fees>, StoreError>;

    /// Records an event if the state of the transfer allows it, and inserts its notices. Returns
    /// `false` if nothing was recorded.
    async fn advance(
        &self,
        id: TransferId,
        progress: Progress,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Claims up to `limit` transfers of the chain that are in no block and whose check is due, and
    /// schedules their next checks: each after twice the time of the one before, from a second to
    /// five minutes. Returns the lowest nonces first. Logs and skips rows that cannot be read.
    async fn claim_due(
        &self,
        chain_id: u64,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError>;

    /// Returns what the wallet's transfers with a nonce from `mined` on may take, fees included,
    /// and how many are in flight for the next transfer.
    async fn pending_spend(
        &self,
        chain_id: u64,
        address: EthAddress,
        mined: u64,
    ) -> Result<Outgoing, StoreError>;

    /// Returns what [`Self::sign`] counts against the balance: also what earlier transfers may take
    /// that no block has settled yet, because the count is one endpoint's word.
    async fn reserved_spend(
        &self,
        chain_id: u64,
        address: EthAddress,
        mined: u64,
    ) -> Result<Outgoing, StoreError>;

    /// Returns what is compared before a payment of an asset by an account is quoted. Of its
    /// wallet's address the chain has mined as many transactions.
    async fn before_quote(
        &self,
        sender: (AccountId, AssetId),
        from: (EthAddress, u64),
        to: EthAddress,
    ) -> Result<BeforeQuote, StoreError>;

    /// Returns the limit that refuses the transfer at its maximum fee, if any, of an account that
    /// was last recovered at this time, and whose owner set this limit for the asset.
    async fn over_limit(
        &self,
        transfer: Transfer,
        recovered: Option<Timestamp>,
        own: OwnLimit,
        rules: SpendingRules,
        now: Timestamp,
    ) -> Result<Option<OverLimit>, StoreError>;

    /// Returns when a server read the head of the chain last.
    async fn chain_read_at(&self, chain_id: u64) -> Result<Option<Timestamp>, StoreError>;
}
