//! `tokens`: API tokens that are declared by their hashes, so that no command has to print them
//! where its output is kept.

use std::collections::BTreeSet;

use kms_config::ConfigError;
use kms_core::HashedToken;
use kms_store::{ApiToken, Scope, ScopeError};
use kms_types::Timestamp;
use serde::Deserialize;

/// The greatest length of a token's name.
pub(crate) const MAX_NAME: usize = 64;

/// A token that `kms-server token generate` made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredToken {
    /// The operator's name for it, which no stored token has.
    pub name: String,
    /// Its SHA-256, in hex.
    #[serde(deserialize_with = "kms_config::text")]
    pub hash: HashedToken,
    /// What it allows.
    pub scopes: Vec<DeclaredScope>,
}

/// A scope by its name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct DeclaredScope(pub Scope);

impl TryFrom<String> for DeclaredScope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse().map(Self)
    }
}

impl DeclaredToken {
    /// The token as if it were stored: it neither expires nor can be revoked, except by removing
    /// it from the configuration.
    pub(crate) fn api_token(&self) -> ApiToken {
        ApiToken {
            id: self.name.clone(),
            name: self.name.clone(),
            scopes: self.scopes.iter().map(|scope| scope.0).collect(),
            created_at: Timestamp(0),
            expires_at: None,
            revoked_at: None,
        }
    }
}

/// Each has a name and a hash of its own, and a scope.
pub(super) fn validate(tokens: &[DeclaredToken]) -> Result<(), ConfigError> {
    let names: BTreeSet<_> = tokens.iter().map(|token| &token.name).collect();
    let hashes: BTreeSet<_> = tokens.iter().map(|token| token.hash.as_bytes()).collect();
    let are_right = |token: &DeclaredToken| {
        (1..=MAX_NAME).contains(&token.name.len()) && !token.scopes.is_empty()
    };
    if names.len() == tokens.len() && hashes.len() == tokens.len() && tokens.iter().all(are_right) {
        return Ok(());
    }
    let expected = "names of 1 to 64 characters and hashes that differ, and at least one scope";
    Err(ConfigError::expected("tokens", expected))
}
