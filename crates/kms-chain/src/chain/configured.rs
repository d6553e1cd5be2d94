//! Whether the configured tokens are what the chain says.

use kms_types::{EthAddress, Symbol, Token};

use super::{Chain, ChainError};

/// Why a token can not be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// There is no contract, or it is no ERC-20.
    #[error("{symbol}: at {address} is no contract that says how many decimals its token has")]
    NoToken {
        /// As configured.
        symbol: Symbol,
        /// As configured.
        address: EthAddress,
    },
    /// The contract has other decimals: amounts would be off by powers of ten.
    #[error("{symbol}: configured with {expected} decimals, but its contract says {found}")]
    Decimals {
        /// As configured.
        symbol: Symbol,
        /// As configured.
        expected: u8,
        /// As the contract says.
        found: u8,
    },
    /// The contract calls itself otherwise.
    #[error("{symbol}: its contract calls itself {found:?}")]
    Symbol {
        /// As configured.
        symbol: Symbol,
        /// As the contract says: a stranger's text, at most 32 characters of it.
        found: String,
    },
    /// The chain does not answer.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Chain {
    /// Compares every configured token with its contract.
    ///
    /// # Errors
    /// For the first that is not what it is configured as, or when the chain does not answer.
    pub async fn check_tokens(&self, tokens: &[Token]) -> Result<(), TokenError> {
        for token in tokens {
            self.check_token(token).await?;
        }
        Ok(())
    }

    /// Compares one with its contract. Also before each quote: a contract may change its mind.
    pub(crate) async fn check_token(&self, token: &Token) -> Result<(), TokenError> {
        let Token { symbol, address, decimals: expected } = token;
        let (decimals, name) = self.token_words(*address).await?;
        let symbol = || symbol.clone();
        match decimals {
            None => return Err(TokenError::NoToken { symbol: symbol(), address: *address }),
            Some(found) if found != *expected => {
                return Err(TokenError::Decimals { symbol: symbol(), expected: *expected, found });
            }
            Some(_) => {}
        }
        // Old contracts answer in another form than the standard's; then the decimals must do.
        match name {
            Some(found) if found != token.symbol.as_str() => {
                let found = found.chars().take(32).collect();
                Err(TokenError::Symbol { symbol: symbol(), found })
            }
            _ => Ok(()),
        }
    }
}
