//! Recently used API tokens, so that not every request reads the database, and the hashes of all
//! tokens, so that a flood of forged ones does not either. Tokens that the configuration declares
//! are here alone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_core::HashedToken;
use kms_core::ports::StoreError;
use kms_store::{ApiToken, Database};
use kms_types::Timestamp;

use crate::clock;
use crate::config::DeclaredToken;

/// How long a revoked token may still be accepted.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Most reads of the hashes in a second. A new token is accepted at once unless a flood of forged
/// ones uses them up, and then within a second.
const READS: usize = 5;
const SECOND: Duration = Duration::from_secs(1);
/// How long before a token expires its use is reported.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// API tokens in memory.
#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    /// Tokens that the configuration declares.
    declared: HashMap<HashedToken, ApiToken>,
    /// Tokens that were read within the last seconds.
    recent: Mutex<HashMap<HashedToken, (Instant, ApiToken)>>,
    known: tokio::sync::Mutex<Known>,
}

/// The hashes of all tokens.
#[derive(Debug, Default)]
struct Known {
    hashes: HashSet<HashedToken>,
    /// The starts of the last reads.
    reads: VecDeque<Instant>,
}

/// Reports, once an hour while it is used, that a token expires soon.
fn warn_of_expiry(token: &ApiToken, now: Timestamp) {
    if token.expires_at.is_some_and(|at| at > now && at.since(now) < EXPIRES_SOON) {
        tracing::warn!(
            token = token.name,
            event = "token_expires_soon",
            "an API token that is in use expires within 30 days"
        );
    }
}

impl TokenCache {
    pub(crate) fn new(declared: &[DeclaredToken]) -> Self {
        let declared = declared.iter().map(|token| (token.hash, token.api_token())).collect();
        Self { declared, ..Self::default() }
    }

    /// Returns the token with this hash, from the configuration, from memory or from the database.
    pub(crate) async fn find(
        &self,
        hash: HashedToken,
        database: &Database,
    ) -> Result<Option<ApiToken>, StoreError> {
        if let Some(token) = self.declared.get(&hash) {
            return Ok(Some(token.clone()));
        }
        let found = self.lock().get(&hash).cloned();
        if let Some((since, token)) = found
            && since.elapsed() < FRESH_FOR
        {
            return Ok(Some(token));
        }
        if !self.exists(hash, database).await? {
            return Ok(None);
        }
        let token = database.api_token_by_hash(hash).await?;
        if let Some(token) = token.clone() {
            let database = database.clone();
            tokio::spawn(async move {
                match database.record_token_use(hash).await {
                    Ok(true) => warn_of_expiry(&token, clock::now()),
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "use of a token not recorded"),
                }
            });
        }
        let mut recent = self.lock();
        recent.retain(|_, (since, _)| since.elapsed() < FRESH_FOR);
        if let Some(token) = &token {
            recent.insert(hash, (Instant::now(), token.clone()));
        }
        Ok(token)
    }

    /// Whether the database has a token with this hash.
    async fn exists(&self, hash: HashedToken, database: &Database) -> Result<bool, StoreError> {
        let asked = Instant::now();
        let mut known = self.known.lock().await;
        if known.hashes.contains(&hash) {
            return Ok(true);
        }
        known.reads.retain(|read| read.elapsed() < SECOND);
        // A read that began after the question answers it.
        let is_answered = known.reads.back().is_some_and(|read| *read >= asked);
        if !is_answered && known.reads.len() < READS {
            known.reads.push_back(Instant::now());
            known.hashes = database.api_token_hashes().await?.into_iter().collect();
        }
        Ok(known.hashes.contains(&hash))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HashedToken, (Instant, ApiToken)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
