//! What transfers need of a database: a trait that `kms-store` implements. One method is one
//! whole transaction.

use async_trait::async_trait;
use kms_core::ports::StoreError;
use kms_types::{AccountId, EthAddress, Timestamp, TransferId, Units, Wei};

use crate::spending::{OverLimit, SpendingRules};
use crate::state::Change;
use crate::transfer::{Missing, Outgoing, Transfer};

/// What came of inserting a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    New,
    /// The id was there: this is what it stands for.
    Existing(Box<Transfer>),
}

/// A signed transaction, before it is committed.
#[derive(Clone, Debug)]
pub struct SignedBytes {
    /// Its hash.
    pub tx_hash: [u8; 32],
    /// Its bytes (EIP-2718), sealed: whoever has them in clear can move the money.
    pub sealed: Vec<u8>,
}

/// Everything that is signed for one transfer, all for one nonce.
#[derive(Clone, Debug)]
pub struct SignedLadder {
    /// Sent first.
    pub first: SignedBytes,
    /// Sent one after the other, should those before not be mined in time.
    pub replacements: Vec<SignedBytes>,
}

/// Signs for a nonce. Called at most once, inside the transaction that commits its result.
pub type Sign = Box<dyn FnOnce(u64) -> SignedLadder + Send>;

/// What the chain said shortly before a transfer is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainView {
    /// A block that is not newer than the balance.
    pub block: u64,
    /// The sender's balance.
    pub balance: Wei,
    /// The sender's balance of the token that is paid; nothing, if none is.
    pub token: Units,
    /// The sender's transaction count, pending ones included. Rather too low than too high.
    pub nonce: u64,
    /// How many of the sender's transactions are in blocks of the chain that the balance is of. One
    /// that was noted in a block, and has a nonce from here on, was taken out by a reorg.
    pub mined: u64,
}

/// What came of signing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignOutcome {
    /// It is signed, with this nonce, hash and state.
    Signed(Box<Transfer>),
    /// It is not `quoted` (any more): this is how it stands. Nothing was signed.
    NotQuoted(Box<Transfer>),
    /// Its time is over, and it is `expired` now. Nothing was signed.
    Expired,
    /// It is more than may be spent now. Nothing was signed.
    OverLimit(OverLimit),
    /// The balance, less what other signed transfers may still take, does not cover it. Nothing
    /// was signed.
    Insufficient {
        /// How much is missing, of what.
        missing: Missing,
    },
}

/// What happens to a signed transfer. [`after`](crate::state::after) says in which states it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A node took it.
    Broadcast,
    /// This step of the ladder is about to be sent: noted first, so that every hash that a node
    /// may have is known. Tells the sender. Nothing, if it was noted before.
    Raised {
        /// Counted from 0, so 1 or more.
        step: u32,
    },
    /// No step is left, and it still waits for the network. Tells the sender, once.
    Waiting,
    /// A block has it. Tells the sender, and the recipient that money came, unless they know.
    Mined {
        /// Which of the attempts it is.
        tx_hash: [u8; 32],
        /// The block that has it.
        block: u64,
        /// What the network took.
        fee: Wei,
        /// How much came, if the token kept a part of it.
        arrived: Option<Units>,
    },
    /// In a block that stays, and the token's log has no such payment. Erases the signed bytes,
    /// tells the sender.
    NothingMoved {
        /// Which of the attempts it is.
        tx_hash: [u8; 32],
        /// The block that has it.
        block: u64,
        /// What the network took.
        fee: Wei,
    },
    /// In a block that stays, but reverted. Erases the signed bytes, tells the sender.
    Reverted {
        /// Which of the attempts it is.
        tx_hash: [u8; 32],
        /// The block that has it.
        block: u64,
        /// What the network took.
        fee: Wei,
    },
    /// A transaction from elsewhere has its nonce, in a block that stays. Erases the signed bytes,
    /// frees what was reserved, tells the sender.
    NonceTaken,
    /// The block is not in the chain any more. Tells the sender.
    Reorged,
    /// The block stays. Erases the signed bytes.
    Final,
}

impl Progress {
    /// The change of state that it is.
    #[must_use]
    pub fn change(&self) -> Change {
        match self {
            Self::Broadcast => Change::Broadcast,
            Self::Raised { .. } => Change::Raise,
            Self::Waiting => Change::Wait,
            Self::Mined { .. } => Change::Mine,
            Self::Reverted { .. } | Self::NothingMoved { .. } => Change::Revert,
            Self::NonceTaken => Change::LoseNonce,
            Self::Reorged => Change::Reorg,
            Self::Final => Change::Finish,
        }
    }
}

/// One signed transaction of a transfer: a step of its ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 0.
    pub step: u32,
    /// Its hash.
    pub tx_hash: [u8; 32],
    /// Its sealed bytes.
    pub sealed: Vec<u8>,
    /// When it was first sent, or about to be; of the first step, when a node took it.
    pub sent_at: Option<Timestamp>,
}

/// A transfer that somebody must look after now.
#[derive(Clone, Debug)]
pub struct Due {
    /// The transfer, `signed`, `broadcast` or `mined`.
    pub transfer: Transfer,
    /// The first step.
    pub first: Attempt,
    /// The steps above it, lowest first.
    pub replacements: Vec<Attempt>,
    /// Whether the sender was told that it waits.
    pub told: bool,
}

/// Transfers, their signed bytes and their nonces.
#[async_trait]
pub trait TransferStore: Send + Sync {
    /// Inserts a `quoted` transfer, or answers with the one that has its id.
    async fn insert_quote(&self, quote: Transfer) -> Result<Inserted, StoreError>;

    /// A transfer. A `quoted` one whose time is over reads as `expired`.
    async fn transfer(
        &self,
        id: TransferId,
        now: Timestamp,
    ) -> Result<Option<Transfer>, StoreError>;

    /// `quoted -> cancelled`. Answers with how it stands afterwards.
    async fn cancel(&self, id: TransferId, now: Timestamp) -> Result<Option<Transfer>, StoreError>;

    /// `quoted -> signed`, in one transaction: takes the wallet's nonce row, checks state, expiry
    /// and that the balances cover every signed transfer of the wallet and this one, chooses the
    /// nonce, calls `sign`, stores all of its bytes, writes the event `TransferChanged`.
    ///
    /// The nonce is the first from the chain's on that no transfer of the wallet has: the chain's
    /// may be older than what was signed, and what is missing between is filled first.
    /// Transfers in a block after `view.block` count as on their way, because the balance may not
    /// know of them.
    ///
    /// What the account may spend in a day is looked at here too, and the spend is written with
    /// the highest fee, so that two at once can not both pass.
    async fn sign(
        &self,
        id: TransferId,
        view: ChainView,
        rules: SpendingRules,
        now: Timestamp,
        sign: Sign,
    ) -> Result<SignOutcome, StoreError>;

    /// Writes it down if the transfer's state allows it, with its events; else `false`.
    async fn advance(
        &self,
        id: TransferId,
        progress: Progress,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Claims up to `limit` transfers of the chain that are `signed`, `broadcast` or `mined`, and
    /// that nobody has a lease on at `now`, until `lease_until`. Oldest nonce first. One whose row
    /// can not be read is logged and left out.
    async fn claim_due(
        &self,
        chain_id: u64,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError>;

    /// What the account's `signed` and `broadcast` transfers on the chain may still take, fees
    /// included.
    async fn pending_spend(
        &self,
        chain_id: u64,
        account: AccountId,
    ) -> Result<Outgoing, StoreError>;

    /// Whether the transfer, with the highest fee that it may cost, takes more of an asset than its
    /// sender may spend now.
    async fn over_limit(
        &self,
        transfer: Transfer,
        rules: SpendingRules,
        now: Timestamp,
    ) -> Result<Option<OverLimit>, StoreError>;

    /// Whether the account has a `mined` or `final` transfer to the address.
    async fn has_paid(&self, account: AccountId, to: EthAddress) -> Result<bool, StoreError>;
}
