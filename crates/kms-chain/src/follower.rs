//! Follows the blocks of the chain: settles the transfers whose nonces they use, and finds external
//! deposits, in the native coin and in the configured tokens.
//!
//! Every block is read once, as soon as it is the head, by one server at a time. A payment in it is
//! `mined`; every other statement, that a transfer is final or failed and that a deposit arrived,
//! waits until the block is final. The stored cursor is the last final block: a server that takes
//! over reads the blocks above it again, which changes nothing twice. The cursor never moves past a
//! block whose deposits are not recorded.
//!
//! Where two endpoints or more are configured, a block is final only when a second one returns it
//! as well, and reports it as final. Native coin that arrives inside a contract call is found by
//! comparing balances.

mod backfill;
mod balances;
mod found;
mod recent;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use kms_core::ports::StoreError;
use kms_types::{AccountId, EthAddress, Timestamp, Token, Units};
use tokio::sync::Mutex;

use self::found::{Found, nonce_uses};
use self::recent::{ReadBlock, Recent};
use crate::chain::{Block, Chain, ChainError, Claim, Endpoint, FinalHeight, Head, Header, Receipt};
use crate::settlement::{ReadBlocks, SettlementStore};
use crate::tokens::Tokens;

pub use self::backfill::UsedNonce;
pub use self::balances::{DueBalance, ReadBalance};
pub use crate::chain::{BlockRef, Finality, FinalityError, Payment};

/// How many blocks one round reads.
const ROUND: u64 = 256;

/// How many blocks are requested at once: a day of blocks of 2 s takes about two minutes.
const CONCURRENCY: usize = 32;

/// How many blocks are read again if the block at the cursor was removed. The fork point is
/// unknown, and deposits that were reported before are not repeated.
const STEP_BACK: u64 = 1_024;

/// How long signed bytes are kept after finality, in case the chain contradicts itself.
const KEEP_BYTES: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A payment to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// The account that is paid.
    pub account: AccountId,
    /// The payment.
    pub payment: Payment,
}

/// A payment to an account that this system did not send, or the digest of small ones. Coin that
/// arrived inside a contract call has neither a transaction nor a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalDeposit {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The hash of the transaction, if it is known.
    pub tx_hash: Option<[u8; 32]>,
    /// The sender, if it is known.
    pub from: Option<EthAddress>,
    /// The token; `None` for the native coin.
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit; of a digest, the sum.
    pub value: Units,
    /// The number of its block; of a digest, that of the newest deposit.
    pub block: u64,
    /// How many deposits a digest sums up; 1 for a single one.
    pub count: u64,
}

/// Stores the cursor and the deposits. Each method is one whole transaction.
#[async_trait]
pub trait DepositStore: Send + Sync {
    /// Returns the last final block of the chain that was followed.
    async fn cursor(&self, chain_id: u64) -> Result<Option<BlockRef>, StoreError>;

    /// Sets the first cursor of a chain, unless there is one.
    async fn start_at(&self, chain_id: u64, at: BlockRef) -> Result<(), StoreError>;

    /// Records that the head of the chain was read.
    async fn note_read(&self, chain_id: u64, now: Timestamp) -> Result<(), StoreError>;

    /// Returns the payments to wallets, with their accounts.
    async fn payments_to_wallets(&self, payments: Vec<Payment>)
    -> Result<Vec<Deposit>, StoreError>;

    /// Moves the cursor, if it is still at `from`, and records and reports the deposits that are
    /// new. Returns `false`, and changes nothing, if another server moved the cursor.
    async fn record_deposits(
        &self,
        chain_id: u64,
        from: BlockRef,
        to: BlockRef,
        deposits: Vec<Deposit>,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Returns up to `limit` wallets whose balance is to be compared at the final block `at`.
    async fn due_balances(
        &self,
        chain_id: u64,
        at: BlockRef,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueBalance>, StoreError>;

    /// Records balances at `at`, if the cursor is still there, and reports what no known payment
    /// explains as a deposit without a sender. Returns how many there are.
    async fn record_balances(
        &self,
        chain_id: u64,
        at: BlockRef,
        read: Vec<ReadBalance>,
        now: Timestamp,
    ) -> Result<u32, StoreError>;
}

/// Why a round failed. The next one starts from the same block.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The chain failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The endpoint returned a transaction in a block without its receipt.
    #[error("the endpoint has no receipt of a transaction in block {block}")]
    NoReceipt {
        /// The block.
        block: u64,
    },
}

/// What a follower follows, and by which rules.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// When a block is final.
    pub finality: Finality,
    /// Whether receipts are proved against the receipts root of their block.
    pub prove_receipts: bool,
    /// Whether balances are compared, to find coin that arrives inside contract calls.
    pub compare_balances: bool,
    /// The tokens whose payments are found.
    pub tokens: Tokens,
}

/// Follows one chain. One server at a time should.
pub struct Follower {
    deposits: Arc<dyn DepositStore>,
    settlements: Arc<dyn SettlementStore>,
    chain: Chain,
    config: FollowerConfig,
    recent: Mutex<Recent>,
}

/// A block as one endpoint returned it, with the token payments that it logged.
struct Fetched {
    block: Block,
    token_payments: Vec<Payment>,
}

impl Follower {
    /// Creates a follower over a store.
    #[must_use]
    pub fn new<S>(store: Arc<S>, chain: Chain, config: FollowerConfig) -> Self
    where
        S: DepositStore + SettlementStore + 'static,
    {
        let (deposits, settlements) = (Arc::clone(&store) as _, store as _);
        Self { deposits, settlements, chain, config, recent: Mutex::default() }
    }

    /// The tokens whose deposits it reports.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.config.tokens
    }

    /// Reads the next blocks. Returns `true` if more are left, so that the next round need not
    /// wait. Starts a new chain at its newest final block.
    ///
    /// # Errors
    /// When the chain or the store fails. Nothing is lost.
    pub async fn round(&self, now: Timestamp) -> Result<bool, FollowError> {
        let mut recent = self.recent.lock().await;
        let chain_id = self.chain.chain_id();
        // One endpoint for the whole round: another may be on another branch.
        let (endpoint, head) = self.chain.endpoint().await?;
        let Some(cursor) = self.deposits.cursor(chain_id).await? else {
            self.start(&endpoint, head).await?;
            return Ok(false);
        };
        recent.start_from(cursor);
        let tip = recent.tip().unwrap_or(cursor);
        let last = head.block.min(tip.number.saturating_add(ROUND));
        let fetched = self.fetch(&endpoint, tip, last).await?;
        let is_removed = match fetched.first() {
            Some(first) => first.block.header.parent_hash.0 != tip.hash,
            None => recent.hash_at(head.block).is_some_and(|hash| hash != head.hash),
        };
        if is_removed {
            return self.step_back(&endpoint, head, &mut recent, now).await;
        }
        if !fetched.is_empty() {
            let fetched = connected(tip, fetched);
            let Some(settled) = self.settle(&endpoint, fetched, &recent, now).await? else {
                // Another server took over: everything above the cursor is read again.
                *recent = Recent::default();
                return Ok(true);
            };
            recent.extend(settled.read);
            if let Some((number, header)) = settled.unconfirmed {
                self.unconfirmed(&endpoint, number, &header, &mut recent).await;
            }
        }
        self.finalize(&endpoint, head, &mut recent, now).await?;
        if recent.is_read_due(now) {
            self.deposits.note_read(chain_id, now).await?;
        }
        self.compare_balances(&endpoint, &mut recent, now).await?;
        Ok(recent.tip().is_some_and(|new| new.number > tip.number && new.number < head.block))
    }

    async fn start(&self, endpoint: &Endpoint, head: Head) -> Result<(), FollowError> {
        let finality = self.config.finality;
        let own = endpoint.final_block(head, finality).await?.ok_or(ChainError::NoFinality)?;
        let height = self.chain.final_height(endpoint, own, finality).await;
        let unconfirmed = ChainError::Unconfirmed { block: own };
        let Some(newest) = height.agreed else { return Err(unconfirmed.into()) };
        if let Some(header) = endpoint.header(newest).await? {
            if !height.is_confirmed(newest, &header, &[]).await {
                return Err(unconfirmed.into());
            }
            self.deposits.start_at(self.chain.chain_id(), header.at(newest)).await?;
        }
        Ok(())
    }

    /// Reads the blocks above `tip` up to `last`, as far as the endpoint has them.
    async fn fetch(
        &self,
        endpoint: &Endpoint,
        tip: BlockRef,
        last: u64,
    ) -> Result<Vec<Fetched>, FollowError> {
        // A deposit of a token that hides its amounts would be reported with a wrong one.
        let tokens =
            self.config.tokens.iter().filter(|token| self.config.tokens.is_readable(token));
        let tokens: &[_] = &tokens.cloned().collect::<Vec<_>>();
        let fetch = |number| async move {
            let Some(block) = endpoint.block(number).await? else { return Ok(None) };
            let token_payments = match tokens.is_empty() {
                true => Vec::new(),
                false => endpoint.token_payments(block.at(), tokens).await?,
            };
            Ok::<_, FollowError>(Some(Fetched { block, token_payments }))
        };
        let blocks = stream::iter(tip.number.saturating_add(1)..=last).map(fetch);
        let blocks: Vec<_> = blocks.buffered(CONCURRENCY).try_collect().await?;
        Ok(blocks.into_iter().map_while(|block| block).collect())
    }

    /// Settles the transfers whose nonces these blocks use, and returns the blocks with their
    /// external deposits; `None` if another server settled blocks meanwhile. What settles a
    /// transfer waits until a second endpoint has the block, and so do the blocks above it.
    async fn settle(
        &self,
        endpoint: &Endpoint,
        fetched: Vec<Fetched>,
        recent: &Recent,
        now: Timestamp,
    ) -> Result<Option<Settled>, FollowError> {
        let Some(position) = recent.position() else { return Ok(None) };
        let uses = fetched.iter().flat_map(|it| nonce_uses(&it.block)).collect();
        let matches = self.settlements.match_nonces(self.chain.chain_id(), uses).await?;
        // The recipient of a transfer is notified of it by the transfer. Other payments in the same
        // transaction are external deposits.
        let own: HashSet<_> = matches
            .iter()
            .filter(|found| found.signed_as.is_some())
            .map(|found| (found.tx_hash, found.transfer.to.address))
            .collect();
        let payments = fetched
            .iter()
            .flat_map(|it| it.block.payments().chain(it.token_payments.iter().cloned()))
            .filter(|payment| !own.contains(&(payment.tx_hash, payment.to)));
        let deposits = self.deposits.payments_to_wallets(payments.collect()).await?;
        let mut found: Vec<_> =
            fetched.iter().map(|it| Found::in_block(&it.block, &deposits, &matches)).collect();
        let unconfirmed = self.first_unconfirmed(endpoint, &fetched, &found).await;
        found.truncate(unconfirmed.unwrap_or(found.len()));
        let unconfirmed = unconfirmed.and_then(|first| fetched.get(first));
        let unconfirmed = unconfirmed.map(|it| (it.block.number, it.block.header));
        let wanted: Vec<_> = fetched
            .into_iter()
            .zip(&found)
            .map(|(fetched, found)| (fetched.block, found.hashes()))
            .collect();
        let receipts = stream::iter(wanted)
            .map(|(block, wanted)| self.receipts(endpoint, block, wanted))
            .buffered(CONCURRENCY);
        let receipts: Vec<_> = receipts.try_collect().await?;
        let is_fork = recent.is_forked;
        let (mut read, mut blocks) = (Vec::new(), ReadBlocks { is_fork, ..ReadBlocks::default() });
        for (found, (block, receipts)) in found.iter().zip(&receipts) {
            blocks.blocks.push(block.at());
            blocks.settlements.extend(found.settlements(block, receipts)?);
            read.push(found.read(block, receipts)?);
        }
        let chain_id = self.chain.chain_id();
        let reopened = self.settlements.settle(chain_id, position, blocks, now).await?;
        let Some(reopened) = reopened else { return Ok(None) };
        for transfer in reopened {
            let event = "final_transfer_reopened";
            tracing::error!(event, chain_id, %transfer, "final transfer contradicted by the chain");
        }
        Ok(Some(Settled { read, unconfirmed }))
    }

    /// The place of the first of these blocks that settles a transfer and that no second endpoint
    /// has.
    async fn first_unconfirmed(
        &self,
        endpoint: &Endpoint,
        fetched: &[Fetched],
        found: &[Found<'_>],
    ) -> Option<usize> {
        let settling = fetched.iter().zip(found).map(|(fetched, found)| {
            let Block { number, header, .. } = fetched.block;
            (number, header, found.settling(&fetched.block))
        });
        let settling: Vec<_> = settling.collect();
        let compare = |(number, header, settling): (u64, Header, Vec<_>)| async move {
            settling.is_empty()
                || self.chain.is_confirmed(endpoint, number, &header, &settling).await
        };
        let compared = stream::iter(settling).map(compare).buffered(CONCURRENCY);
        let compared: Vec<bool> = compared.collect().await;
        compared.iter().position(|is_confirmed| !is_confirmed)
    }

    /// Returns a block with the receipts of these transactions in it.
    async fn receipts(
        &self,
        endpoint: &Endpoint,
        block: Block,
        wanted: HashSet<[u8; 32]>,
    ) -> Result<(Block, HashMap<[u8; 32], Receipt>), FollowError> {
        if wanted.is_empty() {
            return Ok((block, HashMap::new()));
        }
        let prove = self.config.prove_receipts;
        let receipts = self.chain.receipts(endpoint, &block, &wanted, prove).await?;
        Ok((block, receipts))
    }

    /// Makes final what is in blocks that the chain calls final, and that a second endpoint
    /// confirms.
    async fn finalize(
        &self,
        endpoint: &Endpoint,
        head: Head,
        recent: &mut Recent,
        now: Timestamp,
    ) -> Result<(), FollowError> {
        let Some(position) = recent.position() else { return Ok(()) };
        let cursor = position.cursor;
        if recent.tip() == Some(cursor) {
            return Ok(());
        }
        let chain_id = self.chain.chain_id();
        let own = endpoint.final_block(head, self.config.finality).await?;
        if own.is_none() && recent.count_unconfirmed() {
            let (event, error) = ("no_finalized_block", ChainError::NoFinality);
            tracing::error!(event, chain_id, %error, "nothing becomes final");
        }
        let Some(own) = own.filter(|own| *own > cursor.number) else { return Ok(()) };
        let height = self.chain.final_height(endpoint, own, self.config.finality).await;
        let Some(agreed) = height.agreed else {
            report_unconfirmed(chain_id, own, recent);
            return Ok(());
        };
        if let Some(Claim { block, endpoint }) = recent.overdue_claim(height.highest, agreed, now) {
            let event = "finality_contradicted";
            tracing::error!(
                event,
                chain_id,
                endpoint,
                block,
                agreed,
                "final at one endpoint alone"
            );
        }
        let Some(last) = recent.up_to(agreed).last() else { return Ok(()) };
        let (end, header) = (last.at, last.header);
        if !is_confirmed(&height, recent.up_to(agreed)).await {
            self.unconfirmed(endpoint, end.number, &header, recent).await;
            return Ok(());
        }
        self.chain.reconsider(end.number, &header).await;
        let store = &self.settlements;
        let keep_until = now.plus(KEEP_BYTES);
        let superseded = store.finalize(chain_id, position, end.number, now, keep_until).await?;
        let Some(superseded) = superseded else {
            *recent = Recent::default();
            return Ok(());
        };
        for transfer in superseded {
            let event = "transfer_superseded";
            tracing::warn!(event, chain_id, %transfer, "nonce used by an external transaction");
        }
        let deposits = recent.deposits_up_to(end.number);
        if self.deposits.record_deposits(chain_id, cursor, end, deposits, now).await? {
            recent.move_cursor(end);
        } else {
            // Another server moved it.
            *recent = Recent::default();
        }
        Ok(())
    }

    /// Leaves an endpoint that two others contradict; reports a block that none confirms.
    async fn unconfirmed(
        &self,
        endpoint: &Endpoint,
        number: u64,
        header: &Header,
        recent: &mut Recent,
    ) {
        if self.chain.is_outvoted(endpoint, number, header).await {
            // Everything above the cursor is read again, from another endpoint.
            *recent = Recent::default();
        } else {
            report_unconfirmed(self.chain.chain_id(), number, recent);
        }
    }

    /// Drops the blocks that a reorganisation removed, down to the fork. If the block at the cursor
    /// itself was removed, moves the cursor back; deposits that were reported before are not
    /// repeated. Returns whether there are other blocks to read.
    async fn step_back(
        &self,
        endpoint: &Endpoint,
        head: Head,
        recent: &mut Recent,
        now: Timestamp,
    ) -> Result<bool, FollowError> {
        let removed = recent.blocks_from(head.block);
        let cursor = recent.cursor();
        for (dropped, block) in (1..).zip(removed) {
            match self.replacement(endpoint, block).await? {
                Replacement::Found => {}
                // What was reported of it was not called final, and is corrected (ADR 89).
                Replacement::Unconfirmed(_) if Some(block) != cursor => {}
                Replacement::None if dropped > 1 => {
                    recent.drop_above(block.number);
                    return Ok(true);
                }
                Replacement::None => return Ok(false),
                Replacement::Unconfirmed(header) => {
                    self.unconfirmed(endpoint, block.number, &header, recent).await;
                    return Ok(false);
                }
            }
        }
        // The cursor is the last of them.
        let Some(cursor) = cursor else { return Ok(false) };
        let number = cursor.number.saturating_sub(STEP_BACK);
        tracing::error!(
            event = "finalized_block_removed",
            chain_id = self.chain.chain_id(),
            block = cursor.number,
            continued_after = number,
            "finalized block removed from the chain"
        );
        if let Some(header) = endpoint.header(number).await? {
            let (chain_id, at) = (self.chain.chain_id(), header.at(number));
            self.deposits.record_deposits(chain_id, cursor, at, Vec::new(), now).await?;
            *recent = Recent::default();
        }
        Ok(true)
    }

    /// Whether the chain has another block in the place of this one. One answer does not suffice:
    /// people were notified of what is in the block.
    async fn replacement(
        &self,
        endpoint: &Endpoint,
        block: BlockRef,
    ) -> Result<Replacement, FollowError> {
        let is_other = |header: &Header| header.hash.0 != block.hash;
        let Some(header) = endpoint.header(block.number).await?.filter(is_other) else {
            return Ok(Replacement::None);
        };
        if endpoint.header(block.number).await? != Some(header) {
            return Ok(Replacement::None);
        }
        let is_confirmed = self.chain.is_confirmed(endpoint, block.number, &header, &[]).await;
        Ok(if is_confirmed { Replacement::Found } else { Replacement::Unconfirmed(header) })
    }
}

/// What was settled.
struct Settled {
    read: Vec<ReadBlock>,
    /// The block after them, which no second endpoint has.
    unconfirmed: Option<(u64, Header)>,
}

/// Whether a block was replaced by another one of the same number.
enum Replacement {
    /// It is still there, or the endpoint has not reached it.
    None,
    /// One endpoint reports this one, and no other endpoint does.
    Unconfirmed(Header),
    Found,
}

/// Whether a second endpoint that reports these blocks as final confirms them, and everything in
/// them that concerns a wallet.
async fn is_confirmed(height: &FinalHeight, blocks: &[ReadBlock]) -> bool {
    // The hash of the last one confirms those before it; the others are compared only if something
    // in them is to be reported.
    let to_report = blocks.iter().filter(|block| block.concerns_wallets);
    let to_compare = to_report.chain(blocks.last()).map(|block| {
        let ReadBlock { at, header, transactions, .. } = block;
        (at.number, *header, transactions.clone())
    });
    let to_compare: Vec<_> = to_compare.collect();
    let compare = |(number, header, transactions): (u64, Header, Vec<_>)| async move {
        height.is_confirmed(number, &header, &transactions).await
    };
    let mut compared = stream::iter(to_compare).map(compare).buffered(CONCURRENCY);
    while let Some(is_confirmed) = compared.next().await {
        if !is_confirmed {
            return false;
        }
    }
    true
}

fn report_unconfirmed(chain_id: u64, block: u64, recent: &mut Recent) {
    if recent.count_unconfirmed() {
        let event = "finality_unconfirmed";
        tracing::warn!(event, chain_id, block, "block not confirmed by a second endpoint");
    }
}

/// Returns the blocks after the tip as long as each is the child of the one before it: a node may
/// have switched branches between two answers.
fn connected(tip: BlockRef, blocks: Vec<Fetched>) -> Vec<Fetched> {
    let mut end = tip.hash;
    let is_child = |fetched: &Fetched| {
        let is_child = fetched.block.header.parent_hash.0 == end;
        end = fetched.block.header.hash.0;
        is_child
    };
    blocks.into_iter().take_while(is_child).collect()
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("chain", &self.chain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers run this future on its own task.
    #[expect(dead_code, reason = "checked by the compiler")]
    fn futures_are_send(follower: &Follower) {
        fn assert_send<T: Send>(_: T) {}
        assert_send(follower.round(Timestamp(0)));
    }
}
