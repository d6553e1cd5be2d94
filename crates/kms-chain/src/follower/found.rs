//! What concerns wallets in a block, and what follows from it.

use std::collections::{HashMap, HashSet};

use kms_types::{Units, Wei};

use super::recent::ReadBlock;
use super::{Deposit, FollowError, Payment};
use crate::chain::{Block, BlockTransaction, Receipt};
use crate::settlement::{NonceMatch, NonceUse, Outcome, Settlement};

/// What concerns wallets in a block.
pub(super) struct Found<'a> {
    deposits: Vec<&'a Deposit>,
    matches: Vec<&'a NonceMatch>,
}

impl<'a> Found<'a> {
    pub(super) fn in_block(
        block: &Block,
        deposits: &'a [Deposit],
        matches: &'a [NonceMatch],
    ) -> Self {
        let hashes: HashSet<_> = block.transactions.iter().map(|it| it.hash.0).collect();
        let is_here = |deposit: &&Deposit| {
            deposit.payment.block == block.number && hashes.contains(&deposit.payment.tx_hash)
        };
        Self {
            deposits: deposits.iter().filter(is_here).collect(),
            matches: matches.iter().filter(|found| hashes.contains(&found.tx_hash)).collect(),
        }
    }

    /// The transactions whose receipts decide something.
    pub(super) fn hashes(&self) -> HashSet<[u8; 32]> {
        let own = self.matches.iter().filter(|found| found.signed_as.is_some());
        let deposits = self.deposits.iter().map(|deposit| deposit.payment.tx_hash);
        own.map(|found| found.tx_hash).chain(deposits).collect()
    }

    /// The transactions that settle transfers.
    pub(super) fn settling(&self, block: &Block) -> Vec<BlockTransaction> {
        let settles =
            |it: &&BlockTransaction| self.matches.iter().any(|found| found.tx_hash == it.hash.0);
        block.transactions.iter().filter(settles).cloned().collect()
    }

    /// The transactions that concern wallets.
    pub(super) fn transactions(&self, block: &Block) -> Vec<BlockTransaction> {
        let concerned: HashSet<_> = self
            .matches
            .iter()
            .map(|found| found.tx_hash)
            .chain(self.deposits.iter().map(|deposit| deposit.payment.tx_hash))
            .collect();
        let transactions = block.transactions.iter();
        transactions.filter(|it| concerned.contains(&it.hash.0)).cloned().collect()
    }

    pub(super) fn settlements(
        &self,
        block: &Block,
        receipts: &HashMap<[u8; 32], Receipt>,
    ) -> Result<Vec<Settlement>, FollowError> {
        let settlement = |found: &&NonceMatch| {
            let NonceMatch { transfer, tx_hash, signed_as } = found;
            let (outcome, fee) = match signed_as {
                None => (Outcome::Superseded, Wei::default()),
                Some(kind) => {
                    let receipt = receipts.get(tx_hash);
                    let receipt = receipt.ok_or(FollowError::NoReceipt { block: block.number })?;
                    (Outcome::of(*kind, transfer, receipt), receipt.fee)
                }
            };
            let (transfer, tx_hash, block) = (transfer.id, *tx_hash, block.at());
            Ok(Settlement { transfer, block, tx_hash, outcome, fee })
        };
        self.matches.iter().map(settlement).collect()
    }

    pub(super) fn read(
        &self,
        block: &Block,
        receipts: &HashMap<[u8; 32], Receipt>,
    ) -> Result<ReadBlock, FollowError> {
        let mut deposits = Vec::new();
        for deposit in &self.deposits {
            let receipt = receipts.get(&deposit.payment.tx_hash);
            let receipt = receipt.ok_or(FollowError::NoReceipt { block: block.number })?;
            if is_in(&deposit.payment, receipt) {
                deposits.push(Deposit::clone(deposit));
            }
        }
        let transactions = self.transactions(block);
        Ok(ReadBlock {
            at: block.at(),
            header: block.header,
            concerns_wallets: !transactions.is_empty(),
            transactions,
            deposits,
        })
    }
}

/// Whether a payment took place by the receipt of its transaction: it succeeded, and the receipt
/// has the token's log.
fn is_in(payment: &Payment, receipt: &Receipt) -> bool {
    let Some(token) = &payment.token else { return receipt.success };
    let moves = receipt.moves.iter().filter(|moved| {
        moved.token == token.address && moved.to == payment.to && moved.from != moved.to
    });
    let logged =
        moves.fold(Units::default(), |sum, moved| Units(sum.0.saturating_add(moved.units.0)));
    receipt.success && logged == payment.value
}

pub(super) fn nonce_uses(block: &Block) -> impl Iterator<Item = NonceUse> {
    block.transactions.iter().filter_map(|transaction| {
        let (from, tx_hash) = (transaction.from(), transaction.hash.0);
        Some(NonceUse { from, nonce: transaction.nonce()?, tx_hash })
    })
}
