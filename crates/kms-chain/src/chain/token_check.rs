//! Compares configured tokens with their contracts.

use kms_types::{EthAddress, Symbol, Token};

use super::error::ChainError;
use super::tokens::TokenMetadata;

/// How many characters of a contract's symbol are kept.
const SYMBOL_CHARACTERS: usize = 32;

/// Why a token cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The address has no contract, or one that is not an ERC-20 token.
    #[error("{symbol}: no ERC-20 token with decimals at {address}")]
    NoToken {
        /// The configured symbol.
        symbol: Symbol,
        /// The configured address.
        address: EthAddress,
    },
    /// The decimals differ: amounts would be wrong by powers of ten.
    #[error("{symbol}: configured with {expected} decimals, but its contract has {found}")]
    Decimals {
        /// The configured symbol.
        symbol: Symbol,
        /// The configured decimals.
        expected: u8,
        /// The decimals that the contract reports.
        found: u8,
    },
    /// The symbols differ.
    #[error("{symbol}: the symbol of its contract is {found:?}")]
    Symbol {
        /// The configured symbol.
        symbol: Symbol,
        /// The symbol that the contract reports: untrusted text, at most 32 characters.
        found: String,
    },
    /// The chain cannot be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Compares a configured token with what its contract reports.
pub(crate) fn compare(token: &Token, reported: &TokenMetadata) -> Result<(), TokenError> {
    let symbol = || token.symbol.clone();
    let Some(decimals) = reported.decimals else {
        return Err(TokenError::NoToken { symbol: symbol(), address: token.address });
    };
    if decimals != token.decimals {
        let (expected, found) = (token.decimals, decimals);
        return Err(TokenError::Decimals { symbol: symbol(), expected, found });
    }
    // Some old contracts do not return a string; then the decimals have to suffice.
    match &reported.symbol {
        Some(found) if found != token.symbol.as_str() => {
            let found = found.chars().take(SYMBOL_CHARACTERS).collect();
            Err(TokenError::Symbol { symbol: symbol(), found })
        }
        _ => Ok(()),
    }
}
