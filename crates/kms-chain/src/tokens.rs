//! The configured tokens of a chain, and which of them are disabled.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kms_types::{EthAddress, Token};

use crate::chain::{Chain, CheckedToken, Endpoint, TokenError, TokenFault};

/// The configured tokens of a chain. One that fails its check is disabled until it passes: a token
/// is a third party's program, and its issuer can change it at any time. Clones share the results.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    configured: Arc<[Token]>,
    found: Arc<Mutex<HashMap<EthAddress, Found>>>,
    was_checked: Arc<AtomicBool>,
}

/// What the last check of a token found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    fault: Option<TokenFault>,
    other_symbol: Option<String>,
    has_logged: bool,
}

impl Tokens {
    /// Returns why a token is disabled, if it is.
    #[must_use]
    pub fn fault(&self, token: &Token) -> Option<TokenFault> {
        self.found().get(&token.address).and_then(|found| found.fault)
    }

    /// Returns whether the amounts that a token's contract reports can be relied on.
    #[must_use]
    pub fn is_readable(&self, token: &Token) -> bool {
        !self.fault(token).is_some_and(TokenFault::hides_amounts)
    }

    /// Returns whether every token was compared with its contract, as far as that could be asked,
    /// while the chain answered.
    #[must_use]
    pub fn were_checked(&self) -> bool {
        self.configured.is_empty() || self.was_checked.load(Ordering::Relaxed)
    }

    /// Compares every token with its contract. One whose contract cannot be asked stays as it is.
    pub async fn check(&self, chain: &Chain) {
        let chain_id = chain.chain_id();
        for token in self.configured.iter() {
            let before = self.found().get(&token.address).cloned().unwrap_or_default();
            let found = match chain.check_token(token, before.has_logged).await {
                Ok(CheckedToken { other_symbol, has_logged }) => {
                    Found { fault: None, other_symbol, has_logged }
                }
                Err(TokenError::Fault(fault)) => Found { fault: Some(fault), ..before.clone() },
                Err(TokenError::Chain(error)) => {
                    let event = "token_check_failed";
                    let symbol = &token.symbol;
                    tracing::warn!(
                        event, chain_id, %symbol, %error,
                        "token not compared with its contract"
                    );
                    continue;
                }
            };
            if found != before {
                report((chain_id, token), &before, &found);
            }
            self.found().insert(token.address, found);
        }
        if !self.were_checked() && chain.first(Endpoint::block_number).await.is_ok() {
            self.was_checked.store(true, Ordering::Relaxed);
        }
    }

    fn found(&self) -> MutexGuard<'_, HashMap<EthAddress, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Vec<Token>> for Tokens {
    fn from(configured: Vec<Token>) -> Self {
        Self { configured: configured.into(), ..Self::default() }
    }
}

impl Deref for Tokens {
    type Target = [Token];

    fn deref(&self) -> &[Token] {
        &self.configured
    }
}

/// Logs what changed.
fn report((chain_id, token): (u64, &Token), before: &Found, found: &Found) {
    let symbol = &token.symbol;
    match found.fault {
        Some(fault) if before.fault != found.fault => {
            let event = "token_disabled";
            let contract = token.address;
            tracing::error!(event, chain_id, %symbol, %contract, %fault, "token disabled");
        }
        None if before.fault.is_some() => tracing::info!(chain_id, %symbol, "token enabled"),
        Some(_) | None => {}
    }
    if let Some(reported) =
        found.other_symbol.as_ref().filter(|_| before.other_symbol != found.other_symbol)
    {
        let event = "token_symbol_differs";
        tracing::warn!(
            event, chain_id, %symbol, reported,
            "the contract of a token reports another symbol"
        );
    }
}
