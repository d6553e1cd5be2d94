//! Compares the native balances of wallets with what is known to have moved, at final blocks: coin
//! that arrives inside a contract call shows in no transaction of a block.
//!
//! Wallets that were active a short time ago are compared at every final block that is reached, the
//! others in turn. One round reads the balances of so many wallets, in a few requests.

use kms_core::ports::StoreError;
use kms_types::{AccountId, EthAddress, Timestamp, Wei};

use super::recent::Recent;
use super::{BlockRef, Follower};
use crate::chain::{ChainError, Endpoint};

/// How many wallets one round compares.
const WALLETS: u32 = 128;

/// A wallet whose balance is to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueBalance {
    /// Its account.
    pub account: AccountId,
    /// Its address.
    pub address: EthAddress,
    /// What it should have by the balance that was read last and the movements since; `None` if
    /// there is nothing to compare with.
    pub expected: Option<Wei>,
}

/// The balance of a wallet at a block; `None` if a second endpoint does not confirm a change.
pub type ReadBalance = (AccountId, Option<Wei>);

impl Follower {
    /// Compares balances at the last final block, until no wallet is due at it.
    pub(super) async fn compare_balances(
        &self,
        endpoint: &Endpoint,
        recent: &mut Recent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(at) = recent.block_to_compare().filter(|_| self.config.compare_balances) else {
            return Ok(());
        };
        let chain_id = self.chain.chain_id();
        let due = self.deposits.due_balances(chain_id, at, now, WALLETS).await?;
        let is_last = due.len() < usize::try_from(WALLETS).unwrap_or_default();
        match self.read_balances(endpoint, &due, at).await {
            Ok(read) => {
                let found = self.deposits.record_balances(chain_id, at, read, now).await?;
                if found > 0 {
                    tracing::info!(
                        chain_id,
                        block = at.number,
                        found,
                        "unexplained balances reported"
                    );
                }
                recent.compared = is_last.then_some(at).or(recent.compared);
            }
            // Nothing is lost: the balances are compared at a later block.
            Err(error) => {
                let event = "balances_not_read";
                tracing::warn!(event, chain_id, block = at.number, %error, "balances not read");
                recent.compared = Some(at);
            }
        }
        Ok(())
    }

    async fn read_balances(
        &self,
        endpoint: &Endpoint,
        due: &[DueBalance],
        at: BlockRef,
    ) -> Result<Vec<ReadBalance>, ChainError> {
        let owners: Vec<_> = due.iter().map(|due| due.address).collect();
        let balances = endpoint.balances_at(&owners, at).await?;
        let read: Vec<_> = due.iter().zip(balances).collect();
        let is_changed = |(due, balance): &&(&DueBalance, Wei)| due.expected != Some(*balance);
        let changed = read.iter().filter(is_changed).map(|(due, _)| due.address);
        let changed: Vec<_> = changed.collect();
        let confirmed = self.chain.confirm_balances(endpoint, &changed, at).await;
        let read = read.into_iter().map(|(due, balance)| {
            let is_confirmed = due.expected == Some(balance)
                || confirmed.as_ref().is_none_or(|them| them.contains(&(due.address, balance)));
            (due.account, is_confirmed.then_some(balance))
        });
        Ok(read.collect())
    }
}
