//! The transfer engine: takes a transfer from quote to finality.
//!
//! Nothing is broadcast before its bytes and its nonce are committed. After any unclear answer of
//! a node the engine looks for the hashes and sends the same bytes again. It never signs a
//! transfer for a second nonce, and never ends a transfer whose bytes may still be mined.

mod confirm;
mod push;
mod quote;
mod replace;
mod watch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_core::Sealer;
use kms_core::ports::StoreError;
use kms_types::{EthAddress, Timestamp, TransferId};

use crate::chain::Chain;
use crate::follower::UsedNonce;
use crate::ports::{Progress, TransferStore};
use crate::prices::PricePolicy;
use crate::spending::SpendingRules;
use crate::tokens::Tokens;
use crate::transfer::Transfer;

pub use self::confirm::{Checked, ConfirmError, Ready, Shown, TooManyInFlight};
pub use self::quote::{QuoteError, QuoteRequest};
pub use self::replace::{ReadyReplacement, ReplacementFee};

/// Settings of the transfer engine.
#[derive(Clone, Debug)]
pub struct TransferConfig {
    /// How long a quote can be confirmed.
    pub quote_lifetime: Duration,
    /// The number of blocks with other transactions after which the next step of the ladder is
    /// broadcast.
    pub replace_after: u64,
    /// How long after a node accepted a transaction it is checked first: longer than most
    /// transactions wait for their block, which settles them without a check.
    pub check_after: Duration,
    /// What the operator allows for fees.
    pub prices: PricePolicy,
    /// Addresses that are never recipients, beside the contracts of this chain's tokens.
    pub never_paid: Arc<[EthAddress]>,
}

/// The transfer engine. Several processes may run it over one database.
pub struct Transfers {
    store: Arc<dyn TransferStore>,
    chain: Chain,
    sealer: Sealer,
    config: TransferConfig,
    tokens: Tokens,
    spending: SpendingRules,
    /// Since when every round lacked an endpoint.
    no_endpoint_since: Mutex<Option<Timestamp>>,
    /// The pending transfers whose nonces the last round found used.
    used_nonces: Mutex<Vec<UsedNonce>>,
}

impl Transfers {
    /// Creates the engine for the native coin and these tokens. `sealer` seals the signed bytes at
    /// rest.
    #[must_use]
    pub fn new(
        store: Arc<dyn TransferStore>,
        chain: Chain,
        sealer: Sealer,
        config: TransferConfig,
        tokens: impl Into<Tokens>,
        spending: SpendingRules,
    ) -> Self {
        let tokens = tokens.into();
        let (no_endpoint_since, used_nonces) = (Mutex::default(), Mutex::default());
        Self { store, chain, sealer, config, tokens, spending, no_endpoint_since, used_nonces }
    }

    /// A node accepted a transaction now.
    fn broadcast_at(&self, now: Timestamp) -> Progress {
        Progress::Broadcast { check_at: now.plus(self.config.check_after) }
    }

    /// The spending limits of the operator.
    #[must_use]
    pub fn spending(&self) -> &SpendingRules {
        &self.spending
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The configured tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Returns a transfer.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn transfer(&self, id: TransferId) -> Result<Option<Transfer>, StoreError> {
        self.store.transfer(id).await
    }

    /// Cancels a quote, and returns the transfer in its state afterwards. For a signed transfer
    /// that is not mined, [`Transfers::tick`] sends the cancellation at once, and whichever is
    /// mined decides.
    ///
    /// # Errors
    /// When the store fails.
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

    /// Servers run these futures on their own tasks, so that a client that disconnects stops none.
    #[expect(dead_code, reason = "checked by the compiler")]
    fn futures_are_send(
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
