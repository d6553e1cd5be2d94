//! A transfer's way from quote to finality.
//!
//! Nothing is broadcast before its bytes and its nonce are committed; after that, every unclear
//! answer is met by looking for the hashes and by sending the same bytes again. This module must
//! never sign for one transfer after its first nonce, nor end one whose bytes may still be mined.

mod confirm;
mod quote;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_core::Sealer;
use kms_core::ports::StoreError;
use kms_types::{Timestamp, Token, TransferId};

use crate::chain::Chain;
use crate::ports::TransferStore;
use crate::spending::SpendingRules;
use crate::transfer::Transfer;

pub use self::confirm::{Checked, ConfirmError, Ready, Shown};
pub use self::quote::{QuoteError, QuoteRequest};

/// How transfers are handled.
#[derive(Clone, Copy, Debug)]
pub struct TransferConfig {
    /// How long a quote can be confirmed.
    pub quote_lifetime: Duration,
    /// Blocks after which a transfer is final.
    pub confirmations: u64,
    /// How often the chain is asked about a transfer that is on its way; also how long a claim on
    /// it lasts.
    pub poll: Duration,
    /// How long a step of the ladder may take to be mined before the next one is sent.
    pub replace: Duration,
}

/// The transfer engine. Several processes may run it on one database.
pub struct Transfers {
    store: Arc<dyn TransferStore>,
    chain: Chain,
    sealer: Sealer,
    config: TransferConfig,
    tokens: Vec<Token>,
    spending: SpendingRules,
    /// Whose nonce another transaction seemed to have at the last look, and at which block the first
    /// time.
    suspected: Mutex<HashMap<TransferId, u64>>,
}

impl Transfers {
    /// The engine over a store and a chain, for the native coin and these tokens; signed bytes are
    /// sealed at rest.
    #[must_use]
    pub fn new(
        store: Arc<dyn TransferStore>,
        chain: Chain,
        sealer: Sealer,
        config: TransferConfig,
        tokens: Vec<Token>,
        spending: SpendingRules,
    ) -> Self {
        let suspected = Mutex::default();
        Self { store, chain, sealer, config, tokens, spending, suspected }
    }

    /// What the operator allows.
    #[must_use]
    pub fn spending(&self) -> &SpendingRules {
        &self.spending
    }

    /// The chain it works on.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The tokens that it pays with.
    #[must_use]
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// A transfer as it stands.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn transfer(
        &self,
        id: TransferId,
        now: Timestamp,
    ) -> Result<Option<Transfer>, StoreError> {
        self.store.transfer(id, now).await
    }

    /// Gives up a quote, and answers how it stands then: what is signed already goes on. `None`
    /// if there is no such transfer.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn cancel(
        &self,
        id: TransferId,
        now: Timestamp,
    ) -> Result<Option<Transfer>, StoreError> {
        self.store.cancel(id, now).await
    }
}

impl std::fmt::Debug for Transfers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfers").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use kms_core::OpenWallet;

    use super::*;

    /// Servers run these on tasks of their own, so that a client that hangs up stops nothing.
    #[expect(dead_code, reason = "it is enough that it compiles")]
    fn futures_may_move_between_threads(
        transfers: &Transfers,
        request: QuoteRequest,
        ready: Ready,
        wallet: OpenWallet,
    ) {
        fn assert_send<T: Send>(_: T) {}
        let now = Timestamp(0);
        assert_send(transfers.quote(request, now));
        assert_send(transfers.sign_and_send(ready, wallet, now));
        assert_send(transfers.tick(now));
    }
}
