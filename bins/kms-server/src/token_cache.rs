//! Recently used API tokens, so that not every request reads the database.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_core::HashedToken;
use kms_core::ports::StoreError;
use kms_store::{ApiToken, Database};

/// How long a revoked token may still be accepted.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Tokens that were read within the last seconds, by their hashes.
#[derive(Debug, Default)]
pub(crate) struct TokenCache(Mutex<HashMap<HashedToken, (Instant, ApiToken)>>);

impl TokenCache {
    /// Returns the token with this hash, from memory or from the database.
    pub(crate) async fn find(
        &self,
        hash: HashedToken,
        database: &Database,
    ) -> Result<Option<ApiToken>, StoreError> {
        let found = self.lock().get(&hash).cloned();
        if let Some((since, token)) = found
            && since.elapsed() < FRESH_FOR
        {
            return Ok(Some(token));
        }
        let token = database.api_token_by_hash(hash).await?;
        let mut cache = self.lock();
        cache.retain(|_, (since, _)| since.elapsed() < FRESH_FOR);
        // Unknown tokens are not cached: an attacker who tries many must not fill the memory.
        if let Some(token) = &token {
            cache.insert(hash, (Instant::now(), token.clone()));
        }
        Ok(token)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HashedToken, (Instant, ApiToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
