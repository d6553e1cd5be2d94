//! Whether an endpoint answers what transfers need, before money depends on it.

use kms_types::{EthAddress, Symbol, Token, Units};

use super::blocks::BlockRef;
use super::endpoint::{Endpoint, no_latest_block};
use super::error::ChainError;
use super::finality::Finality;
use super::gas::PlannedPayment;

/// An address whose key is unknown, and which is no contract.
const UNUSED: [u8; 20] = [0xde; 20];

/// How many of the newest blocks are searched for one with transactions.
const SEARCHED: u64 = 20;

/// How many blocks below the newest one the state is asked for.
const DEPTHS: [u64; 4] = [16, 128, 1_024, 16_384];

/// What transfers need of an endpoint, beyond the newest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// What transactions in the latest blocks paid.
    Prices,
    /// An estimate of the gas of a payment.
    Gas,
    /// The logs of a block by its hash, for deposits of tokens.
    Logs,
    /// All receipts of a block, which have the root in its header.
    Receipts,
    /// Balances at the newest final block.
    FinalBalances,
}

impl Endpoint {
    /// Tries one thing that transfers need.
    ///
    /// # Errors
    /// When the endpoint does not answer it.
    pub async fn probe(&self, need: Need, finality: Finality) -> Result<(), ChainError> {
        let unused = EthAddress::from(UNUSED);
        match need {
            Need::Prices => self.market().await.map(drop),
            Need::Gas => {
                let (token, value) = (None, Units::default());
                let payment = PlannedPayment { from: unused, to: unused, token, value };
                self.gas_limit(&payment).await.map(drop)
            }
            Need::Logs => {
                let head = self.head().await?;
                let newest = BlockRef { number: head.block, hash: head.hash };
                // Of an address that logs nothing.
                let token = Token { symbol: Symbol::ether(), address: unused, decimals: 18 };
                self.token_payments(newest, &[token]).await.map(drop)
            }
            Need::Receipts => self.probe_receipts().await,
            Need::FinalBalances => {
                let head = self.head().await?;
                let number = self.final_block(head, finality).await?;
                let number = number.ok_or(ChainError::NoFinality)?;
                let header = self.header(number).await?.ok_or(ChainError::NoFinality)?;
                self.balances_at(&[unused], header.at(number)).await.map(drop)
            }
        }
    }

    /// Proves the receipts of the newest block with transactions.
    async fn probe_receipts(&self) -> Result<(), ChainError> {
        let newest = self.head().await?.block;
        let mut found = None;
        for number in (newest.saturating_sub(SEARCHED)..=newest).rev() {
            let Some(block) = self.block(number).await? else { continue };
            let has_transactions = !block.transactions.is_empty();
            // One without any is better than none: it shows whether the method exists.
            if has_transactions || found.is_none() {
                found = Some(block);
            }
            if has_transactions {
                break;
            }
        }
        let block = found.ok_or_else(no_latest_block)?;
        if block.number == 0 {
            // Of a chain without blocks: the first one is never read.
            return Ok(());
        }
        self.proved_receipts(&block).await?.map(drop).ok_or(ChainError::NoReceipts)
    }

    /// Returns how many blocks below the newest one the endpoint has a state, of the depths that
    /// are tried. A missed block is searched for in the states that there are.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn state_depth(&self) -> Result<u64, ChainError> {
        let newest = self.head().await?.block;
        let mut kept = 0;
        for depth in DEPTHS.map(|depth| depth.min(newest)) {
            let at = newest.saturating_sub(depth);
            if self.mined_count_at(UNUSED.into(), at).await.is_err() {
                break;
            }
            kept = depth;
        }
        Ok(kept)
    }
}
