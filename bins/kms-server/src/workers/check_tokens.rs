//! Compares the configured tokens with their contracts, and disables those that differ.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kms_chain::Transfers;
use kms_process::{Next, Worker};
use metrics::gauge;

/// How often each token is compared. Its decimals are compared with every quote as well.
const INTERVAL: Duration = Duration::from_secs(60);

/// The same while the chain has not answered yet: its blocks are read after the first comparison.
const FIRST_INTERVAL: Duration = Duration::from_secs(3);

/// Compares the configured tokens with their contracts.
pub(crate) struct CheckTokens {
    pub(crate) transfers: Arc<Transfers>,
}

impl Worker for CheckTokens {
    const NAME: &'static str = "check_tokens";
    type Error = Infallible;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn round(&mut self) -> Result<Next, Infallible> {
        let (tokens, chain) = (self.transfers.tokens(), self.transfers.chain());
        tokens.check(chain).await;
        for token in tokens.iter() {
            let labels =
                [("chain", chain.chain_id().to_string()), ("token", token.symbol.to_string())];
            let is_enabled = tokens.fault(token).is_none();
            gauge!("kms_token_enabled", &labels).set(if is_enabled { 1.0 } else { 0.0 });
        }
        Ok(if tokens.were_checked() { Next::AfterInterval } else { Next::After(FIRST_INTERVAL) })
    }
}
