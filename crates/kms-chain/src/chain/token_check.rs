//! Compares configured tokens with their contracts.

use kms_types::Token;

use super::Chain;
use super::error::{ChainError, cleaned};
use super::tokens::TokenMetadata;

/// How many characters of a contract's symbol are kept.
const SYMBOL_CHARACTERS: usize = 32;

/// Why a token cannot be used as it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// The address has no contract, or one that is not an ERC-20 token.
    #[error("no ERC-20 token with decimals at its address")]
    NoToken,
    /// The decimals differ: amounts would be wrong by powers of ten.
    #[error("configured with {expected} decimals, but its contract has {found}")]
    Decimals {
        /// The configured decimals.
        expected: u8,
        /// The decimals that the contract reports.
        found: u8,
    },
    /// The contract does not log transfers as ERC-20 does: payments would not be seen.
    #[error("its contract does not log transfers as ERC-20 does")]
    ForeignLogs,
    /// The issuer paused it.
    #[error("its contract is paused")]
    Paused,
}

/// Why the check of a token failed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be used.
    #[error(transparent)]
    Fault(#[from] TokenFault),
    /// The chain cannot be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A token that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedToken {
    /// The symbol that the contract reports, if it is not the configured one: untrusted text, at
    /// most 32 characters.
    pub other_symbol: Option<String>,
    /// Whether a transfer in its log was found and decoded.
    pub has_logged: bool,
}

impl TokenFault {
    /// Returns whether amounts cannot be derived from what the contract reports.
    pub(crate) fn hides_amounts(self) -> bool {
        match self {
            Self::Decimals { .. } => true,
            Self::NoToken | Self::ForeignLogs | Self::Paused => false,
        }
    }
}

impl Chain {
    /// Compares a token with its contract, and decodes the transfers in its newest logs unless that
    /// was done before. The symbol is the operator's: that of the contract may differ.
    ///
    /// # Errors
    /// When it cannot be used, or no endpoint answers.
    pub async fn check_token(
        &self,
        token: &Token,
        has_logged: bool,
    ) -> Result<CheckedToken, TokenError> {
        let (address, ask) = (token.address, !has_logged);
        let (reported, is_paused) = self.first(|endpoint| endpoint.token_status(address)).await?;
        compare(token, &reported)?;
        let logs = match ask {
            true => self.first(|endpoint| endpoint.decodes_logs(address)).await?,
            false => Some(true),
        };
        match logs {
            Some(false) => return Err(TokenFault::ForeignLogs.into()),
            _ if is_paused => return Err(TokenFault::Paused.into()),
            Some(true) | None => {}
        }
        let other = reported.symbol.filter(|found| found != token.symbol.as_str());
        let other_symbol = other.map(|found| cleaned(&found, SYMBOL_CHARACTERS));
        Ok(CheckedToken { other_symbol, has_logged: logs.is_some() })
    }
}

/// Compares a configured token with what its contract reports.
pub(crate) fn compare(token: &Token, reported: &TokenMetadata) -> Result<(), TokenFault> {
    let found = reported.decimals.ok_or(TokenFault::NoToken)?;
    let expected = token.decimals;
    if found == expected { Ok(()) } else { Err(TokenFault::Decimals { expected, found }) }
}
