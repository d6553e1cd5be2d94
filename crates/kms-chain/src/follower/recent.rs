//! The blocks that were read and are not final yet.

use std::collections::VecDeque;
use std::time::Duration;

use kms_types::Timestamp;

use super::{BlockRef, Deposit};
use crate::chain::{BlockTransaction, Claim, Header};
use crate::settlement::Position;

/// How often it is recorded that the chain was read: well within the time after which senders are
/// notified that it was not.
const NOTE_EVERY: Duration = Duration::from_secs(15);

/// After how long an endpoint is reported whose final block no second one reports as final: more
/// than two epochs of Ethereum, at whose end alone blocks become final.
const OVERDUE: Duration = Duration::from_secs(15 * 60);

/// A block that was read and settled.
#[derive(Debug)]
pub(super) struct ReadBlock {
    pub(super) at: BlockRef,
    pub(super) header: Header,
    /// The transactions that concern a wallet.
    pub(super) transactions: Vec<BlockTransaction>,
    pub(super) deposits: Vec<Deposit>,
    pub(super) concerns_wallets: bool,
}

/// The blocks above the cursor, each the child of the one before.
#[derive(Debug, Default)]
pub(super) struct Recent {
    cursor: Option<BlockRef>,
    /// The last block that was settled, which may be removed since.
    settled: Option<[u8; 32]>,
    blocks: VecDeque<ReadBlock>,
    /// Whether the next block replaces one that was dropped.
    pub(super) is_forked: bool,
    /// What one endpoint reports as final, and no second one yet, since when.
    claim: Option<(Claim, Timestamp)>,
    /// When the last round was recorded.
    noted_at: Option<Timestamp>,
    /// How many rounds in a row no second endpoint confirmed it.
    unconfirmed: u32,
    /// The final block at which all balances that were due are compared.
    pub(super) compared: Option<BlockRef>,
}

impl Recent {
    /// Begins at this cursor, unless the blocks begin there already.
    pub(super) fn start_from(&mut self, cursor: BlockRef) {
        if self.cursor != Some(cursor) {
            *self = Self { cursor: Some(cursor), ..Self::default() };
        }
    }

    /// The position in the chain, for the store.
    pub(super) fn position(&self) -> Option<Position> {
        self.cursor.map(|cursor| Position { cursor, tip: self.settled })
    }

    pub(super) fn cursor(&self) -> Option<BlockRef> {
        self.cursor
    }

    /// The last final block, if balances are left to be compared at it.
    pub(super) fn block_to_compare(&self) -> Option<BlockRef> {
        self.cursor.filter(|cursor| self.compared != Some(*cursor))
    }

    /// The newest block: the cursor if there is none above it.
    pub(super) fn tip(&self) -> Option<BlockRef> {
        self.blocks.back().map(|block| block.at).or(self.cursor)
    }

    pub(super) fn extend(&mut self, blocks: Vec<ReadBlock>) {
        self.is_forked = self.is_forked && blocks.is_empty();
        self.settled = blocks.last().map(|block| block.at.hash).or(self.settled);
        self.blocks.extend(blocks);
    }

    /// Keeps the highest block that one endpoint reports as final, until a second one does.
    /// Returns it when that has not happened for so long that the endpoint is likely to be false,
    /// and again each time as much has passed.
    pub(super) fn overdue_claim(
        &mut self,
        highest: Claim,
        agreed: u64,
        now: Timestamp,
    ) -> Option<Claim> {
        let kept = self.claim.filter(|(claim, _)| claim.block > agreed);
        let (claim, since) = kept.unwrap_or((highest, now));
        let is_overdue = now.since(since) >= OVERDUE;
        self.claim = Some((claim, if is_overdue { now } else { since }));
        is_overdue.then_some(claim)
    }

    /// Counts a round without a confirmation. Returns whether to report it: the third one, because
    /// endpoints are not equally fast, and then one of many.
    pub(super) fn count_unconfirmed(&mut self) -> bool {
        self.unconfirmed = self.unconfirmed.saturating_add(1);
        self.unconfirmed % 300 == 3
    }

    /// Whether to record that the chain was read: not in each round.
    pub(super) fn is_read_due(&mut self, now: Timestamp) -> bool {
        let is_due = self.noted_at.is_none_or(|noted| now.since(noted) >= NOTE_EVERY);
        if is_due {
            self.noted_at = Some(now);
        }
        is_due
    }

    /// The hash of the block with this number, if it was read.
    pub(super) fn hash_at(&self, number: u64) -> Option<[u8; 32]> {
        let all = self.blocks.iter().map(|block| block.at).chain(self.cursor);
        all.filter(|at| at.number == number).map(|at| at.hash).next()
    }

    /// The blocks from this number down to the cursor.
    pub(super) fn blocks_from(&self, number: u64) -> Vec<BlockRef> {
        let all = self.blocks.iter().rev().map(|block| block.at).chain(self.cursor);
        all.filter(|at| at.number <= number).collect()
    }

    /// Drops the blocks above this number: other ones are in their place.
    pub(super) fn drop_above(&mut self, number: u64) {
        self.blocks.retain(|block| block.at.number <= number);
        self.is_forked = true;
    }

    /// The blocks up to this number.
    pub(super) fn up_to(&mut self, number: u64) -> &[ReadBlock] {
        let end = self.blocks.partition_point(|block| block.at.number <= number);
        self.blocks.make_contiguous().get(..end).unwrap_or_default()
    }

    pub(super) fn deposits_up_to(&mut self, number: u64) -> Vec<Deposit> {
        self.up_to(number).iter().flat_map(|block| block.deposits.iter().cloned()).collect()
    }

    pub(super) fn move_cursor(&mut self, to: BlockRef) {
        self.cursor = Some(to);
        self.unconfirmed = 0;
        while self.blocks.front().is_some_and(|block| block.at.number <= to.number) {
            self.blocks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_overdue_only_if_no_second_endpoint_makes_it_for_long() {
        let at = |minutes: u64| Timestamp(0).plus(Duration::from_secs(minutes * 60));
        let claim = |block| Claim { block, endpoint: 2 };
        // Endpoints of which one is always some blocks behind, a minute a block.
        let mut recent = Recent::default();
        for minute in 0..100 {
            assert_eq!(recent.overdue_claim(claim(minute + 5), minute, at(minute)), None);
        }
        // One that is a thousand blocks ahead.
        let mut recent = Recent::default();
        let overdue = |minute| {
            recent.overdue_claim(claim(minute + 1_000), minute, at(minute)).map(|it| (minute, it))
        };
        let overdue: Vec<_> = (0..45).filter_map(overdue).collect();
        assert_eq!(overdue, [(15, claim(1_000)), (30, claim(1_000))]);
    }
}
