//! When a block is final, and up to which block two endpoints report so.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::U64;
use alloy::providers::Provider;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;

use super::Chain;
use super::blocks::{BlockTransaction, GET_BLOCK, Header};
use super::endpoint::Endpoint;
use super::error::ChainError;
use super::requests::Head;

/// The block tag.
const FINALIZED: &str = "finalized";

/// When a block is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// When the chain itself says so: at the block tag `finalized`.
    Tag,
    /// When this many blocks are above it, on a chain without the tag.
    Blocks(u64),
}

#[derive(Debug, Deserialize)]
struct Number {
    number: Option<U64>,
}

/// The newest block that one endpoint reports as final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) block: u64,
    /// The number of the endpoint.
    pub(crate) endpoint: usize,
}

/// Up to which block the chain is final.
#[derive(Debug)]
pub(crate) struct FinalHeight {
    /// The newest block that the endpoint and another one report as final; that of the endpoint if
    /// it is the only one that is configured. `None` if no other one reports any.
    pub(crate) agreed: Option<u64>,
    /// The highest of the reports.
    pub(crate) highest: Claim,
    /// The other endpoints that report the agreed block as final; `None` if none is configured.
    confirming: Option<Vec<Arc<Endpoint>>>,
}

impl FinalHeight {
    /// Whether one of the others that report it as final has this block, with these transactions in
    /// it.
    pub(crate) async fn is_confirmed(
        &self,
        number: u64,
        header: &Header,
        transactions: &[BlockTransaction],
    ) -> bool {
        let Some(confirming) = &self.confirming else { return true };
        for other in confirming {
            if other.has_block(number, header, transactions).await {
                return true;
            }
        }
        false
    }
}

impl fmt::Display for Finality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag => f.write_str(FINALIZED),
            Self::Blocks(above) => write!(f, "{above}"),
        }
    }
}

/// The text is neither the tag nor a number of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `finalized` or a number of blocks")]
pub struct FinalityError;

impl FromStr for Finality {
    type Err = FinalityError;

    fn from_str(text: &str) -> Result<Self, FinalityError> {
        if text == FINALIZED {
            return Ok(Self::Tag);
        }
        text.parse().map(Self::Blocks).map_err(|_not_a_number| FinalityError)
    }
}

impl Endpoint {
    /// Returns the number of the newest final block; `None` on a chain without the block tag. On a
    /// new chain that has none yet it is the first block.
    pub(crate) async fn final_block(
        &self,
        head: Head,
        finality: Finality,
    ) -> Result<Option<u64>, ChainError> {
        match finality {
            Finality::Blocks(above) => Ok(Some(head.block.saturating_sub(above))),
            Finality::Tag => {
                self.verify().await?;
                let params = (BlockNumberOrTag::Finalized, false);
                let block = self.provider.raw_request(GET_BLOCK.into(), params).await;
                let block: Option<Number> = match self.record_call_outcome(block) {
                    // It has no final block yet, or does not know the tag.
                    Err(ChainError::Refused { .. } | ChainError::NoBlock { .. }) => None,
                    block => block?,
                };
                let number = block.and_then(|block| block.number).map(|number| number.to());
                Ok(number.or(head.is_of_a_new_chain().then_some(0)))
            }
        }
    }
}

impl Chain {
    /// Compares with the chain when a block is final. An endpoint that is down, and a chain that is
    /// new, is not an error.
    ///
    /// # Errors
    /// `NoFinality` when an endpoint does not have the block tag that decides.
    pub async fn check_finality(&self, finality: Finality) -> Result<(), ChainError> {
        for endpoint in &self.endpoints {
            let Ok(head) = endpoint.head().await else { continue };
            if let Ok(None) = endpoint.final_block(head, finality).await {
                return Err(ChainError::NoFinality);
            }
        }
        Ok(())
    }

    /// Returns up to which block the chain is final if this endpoint reports it up to `own`: the
    /// lower of its own and of the highest report of the others, so that none alone makes a block
    /// final early.
    pub(crate) async fn final_height(
        &self,
        by: &Endpoint,
        own: u64,
        finality: Finality,
    ) -> FinalHeight {
        let own_claim = Claim { block: own, endpoint: by.number };
        if self.endpoints.len() < 2 {
            return FinalHeight { agreed: Some(own), highest: own_claim, confirming: None };
        }
        let ask = |other: &Arc<Endpoint>| {
            let other = Arc::clone(other);
            async move {
                let head = other.head().await?;
                let block = other.final_block(head, finality).await?;
                Ok::<_, ChainError>(block.map(|block| (block, other)))
            }
        };
        let mut asked: FuturesUnordered<_> = self.others(by).map(ask).collect();
        let mut reports: Vec<(u64, Arc<Endpoint>)> = Vec::new();
        // A slower one cannot raise it above its own.
        while reports.iter().all(|(block, _)| *block < own)
            && let Some(answer) = asked.next().await
        {
            reports.extend(answer.ok().flatten());
        }
        let claim =
            |(block, other): &(u64, Arc<Endpoint>)| Claim { block: *block, endpoint: other.number };
        let highest_other = reports.iter().map(claim).max();
        let agreed = highest_other.map(|other| other.block.min(own));
        reports.retain(|(block, _)| Some(*block) >= agreed);
        let confirming = Some(reports.into_iter().map(|(_, other)| other).collect());
        FinalHeight {
            agreed,
            highest: highest_other.max(Some(own_claim)).unwrap_or(own_claim),
            confirming,
        }
    }
}
