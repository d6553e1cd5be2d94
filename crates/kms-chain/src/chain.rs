//! An EVM chain, over one JSON-RPC endpoint or several.
//!
//! Answers that belong together are requested from one endpoint: two endpoints may be at different
//! blocks, and the answer of one must not be interpreted with the state of the other.

mod balances;
mod blocks;
mod endpoint;
mod error;
mod proofs;
mod receipts;
mod requests;
mod token_check;
mod tokens;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use kms_types::{EthAddress, Token};

use self::endpoint::HEALTH_CHECK_INTERVAL;
use crate::ports::ChainView;
use crate::prices::Market;

pub use self::balances::Balances;
pub(crate) use self::blocks::{Block, BlockTransaction, Header};
pub use self::blocks::{BlockRef, Finality, FinalityError, Payment};
pub use self::endpoint::Endpoint;
pub use self::error::ChainError;
pub use self::receipts::Receipt;
pub use self::requests::{Code, Head};
pub(crate) use self::requests::{MARKET_BLOCKS, PLAIN_TRANSFER_GAS};
pub use self::token_check::TokenError;
pub use self::tokens::TokenMove;
pub(crate) use self::tokens::transfer_call;

/// How long an endpoint may take to answer by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One chain. Clones share the health of its endpoints.
#[derive(Clone)]
pub struct Chain {
    chain_id: u64,
    /// In order of preference. Never empty.
    endpoints: Vec<Arc<Endpoint>>,
    /// When the health of all endpoints was checked last.
    checked_at: Arc<Mutex<Option<Instant>>>,
}

impl Chain {
    /// Uses one endpoint, with a timeout of five seconds. Sends nothing yet, so that a server
    /// starts while its chain is down. The endpoint's chain id is compared before the first
    /// request, after every failure, and every 30 seconds.
    ///
    /// # Errors
    /// When the URL is invalid.
    pub fn new(url: &str, chain_id: u64) -> Result<Self, ChainError> {
        Self::over([url], chain_id, TIMEOUT, None)
    }

    /// Uses several endpoints, the first as long as it works. Each may take `timeout` to answer. An
    /// endpoint whose newest block is older than `stalled_after` is not used, and one that is far
    /// behind the others is asked last; `None` is for chains that make no blocks without
    /// transactions.
    ///
    /// # Errors
    /// When there is no endpoint, or a URL is invalid.
    pub fn over<'a>(
        urls: impl IntoIterator<Item = &'a str>,
        chain_id: u64,
        timeout: Duration,
        stalled_after: Option<Duration>,
    ) -> Result<Self, ChainError> {
        let endpoint = |(index, url)| {
            Endpoint::new(url, index + 1, chain_id, timeout, stalled_after).map(Arc::new)
        };
        let endpoints =
            urls.into_iter().enumerate().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(ChainError::NoEndpoint);
        }
        Ok(Self { chain_id, endpoints, checked_at: Arc::default() })
    }

    /// The chain id (EIP-155).
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Compares the chain id of every endpoint. Endpoints that do not answer are not an error: they
    /// may come back.
    ///
    /// # Errors
    /// `WrongChain` when an endpoint serves another chain and none serves this one.
    pub async fn check(&self) -> Result<(), ChainError> {
        let answers = join_all(self.endpoints.iter().map(|endpoint| endpoint.verify())).await;
        if answers.iter().any(Result::is_ok) {
            return Ok(());
        }
        let is_wrong = |error: &ChainError| matches!(error, ChainError::WrongChain { .. });
        answers.into_iter().filter_map(Result::err).find(is_wrong).map_or(Ok(()), Err)
    }

    /// Compares every configured token with its contract.
    ///
    /// # Errors
    /// For the first token that differs, or when no endpoint answers.
    pub async fn check_tokens(&self, tokens: &[Token]) -> Result<(), TokenError> {
        for token in tokens {
            self.check_token(token).await?;
        }
        Ok(())
    }

    /// Compares a token with its contract. Done before each quote too: a contract may change.
    pub(crate) async fn check_token(&self, token: &Token) -> Result<(), TokenError> {
        let reported = self.first(|endpoint| endpoint.token_metadata(token.address)).await?;
        token_check::compare(token, reported)
    }

    /// Asks one endpoint after the other until one answers:
    /// `chain.first(Endpoint::block_number)`. An endpoint that fails is passed over; an error that
    /// is the chain's verdict on the request is returned at once.
    ///
    /// # Errors
    /// The first endpoint's error if all of them fail, or the chain's verdict.
    pub async fn first<'a, T, Answer>(
        &'a self,
        ask: impl Fn(&'a Endpoint) -> Answer,
    ) -> Result<T, ChainError>
    where
        Answer: Future<Output = Result<T, ChainError>>,
    {
        self.first_with_endpoint(ask).await.map(|(_, answer)| answer)
    }

    /// Returns a working endpoint with its latest block, for requests that belong together.
    ///
    /// # Errors
    /// When every endpoint fails.
    pub async fn endpoint(&self) -> Result<(Arc<Endpoint>, Head), ChainError> {
        self.first_with_endpoint(Endpoint::head).await
    }

    async fn first_with_endpoint<'a, T, Answer>(
        &'a self,
        ask: impl Fn(&'a Endpoint) -> Answer,
    ) -> Result<(Arc<Endpoint>, T), ChainError>
    where
        Answer: Future<Output = Result<T, ChainError>>,
    {
        let mut failed = None;
        for endpoint in self.by_preference() {
            match ask(endpoint).await {
                Ok(answer) => return Ok((Arc::clone(endpoint), answer)),
                Err(error) if error.may_pass_elsewhere() => {
                    failed.get_or_insert(error);
                }
                Err(verdict) => return Err(verdict),
            }
        }
        Err(failed.unwrap_or(ChainError::NoEndpoint))
    }

    /// Returns what has to be known of a sender before a transfer is signed: balances, transaction
    /// counts and a block that is not newer than they are. All of it is the state of one endpoint,
    /// but for the nonce.
    ///
    /// The nonce is the pending transaction count. An endpoint that is behind would choose a used
    /// nonce; therefore the count of mined transactions that at least two endpoints report raises
    /// it. One endpoint alone does not raise it, for a false answer could block every payment.
    ///
    /// # Errors
    /// `NotAToken` when the token's contract reports no balance, or when every endpoint fails.
    pub async fn view(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        let several = self.endpoints.len() > 1;
        let others =
            self.endpoints.iter().filter(|endpoint| several && !endpoint.is_cooling_down());
        let mut counts: FuturesUnordered<_> =
            others.map(|endpoint| endpoint.mined_count(owner)).collect();
        let mut counted: Vec<u64> = Vec::new();
        let mut view = std::pin::pin!(self.first(|endpoint| endpoint.view(owner, token)));
        let view = loop {
            tokio::select! {
                view = &mut view => break view?,
                Some(count) = counts.next() => counted.extend(count.ok()),
            }
        };
        counted.sort_unstable_by(|one, other| other.cmp(one));
        let second_highest = counted.get(1).copied().unwrap_or_default();
        Ok(ChainView { nonce: second_highest.max(view.nonce), ..view })
    }

    /// Returns what transactions in the latest blocks paid. Where several endpoints are configured,
    /// two have to agree on it, so that none alone sets a price; those that failed a short time ago
    /// are asked too if the others do not suffice.
    ///
    /// # Errors
    /// `UnconfirmedPrices` when no two of several endpoints agree, or when every endpoint fails.
    pub async fn market(&self) -> Result<Market, ChainError> {
        let (last, first): (Vec<_>, Vec<_>) =
            self.by_preference().partition(|endpoint| endpoint.is_cooling_down());
        let (mut reported, mut failed) = (Vec::new(), None);
        for endpoints in [first, last] {
            for answer in join_all(endpoints.iter().map(|endpoint| endpoint.market())).await {
                match answer {
                    Ok(market) => reported.push(market),
                    Err(error) => drop(failed.get_or_insert(error)),
                }
            }
            if let Some(market) = Market::agreed(&reported, self.endpoints.len().min(2)) {
                return Ok(market);
            }
        }
        if reported.is_empty() {
            return Err(failed.unwrap_or(ChainError::NoEndpoint));
        }
        tracing::error!(event = "prices_unconfirmed", ?reported, "endpoints agree on no price");
        Err(ChainError::UnconfirmedPrices)
    }

    /// Sends signed bytes to every working endpoint, and returns when the first accepts them. The
    /// same bytes cannot be mined twice, however many nodes have them.
    ///
    /// # Errors
    /// `Refused` also when a node already has the transaction or a later nonce. The caller has to
    /// look for the hash; the node's message proves nothing.
    pub async fn broadcast(&self, signed: &[u8]) -> Result<(), ChainError> {
        let send = |endpoint: &Arc<Endpoint>| {
            let (endpoint, signed) = (Arc::clone(endpoint), signed.to_vec());
            // On its own task, which continues when another endpoint has accepted the bytes.
            tokio::spawn(async move { endpoint.broadcast(&signed).await })
        };
        let all_cool_down = self.endpoints.iter().all(|endpoint| endpoint.is_cooling_down());
        let usable = self.endpoints.iter().filter(|it| all_cool_down || !it.is_cooling_down());
        let mut sent: FuturesUnordered<_> = usable.map(send).collect();
        let mut failed = None;
        while let Some(answer) = sent.next().await {
            match answer {
                Ok(Ok(())) => return Ok(()),
                // An error of a node is more informative than the silence of another one.
                Ok(Err(error @ ChainError::Refused { .. })) => failed = Some(error),
                Ok(Err(error)) => drop(failed.get_or_insert(error)),
                Err(_panic) => {}
            }
        }
        Err(failed.unwrap_or(ChainError::NoEndpoint))
    }

    /// Whether another endpoint than this one has the block, with these transactions in it. True if
    /// only one endpoint is configured: no other one can be asked.
    ///
    /// The roots of the header are compared too, because a false answer may well have the true
    /// hash.
    pub(crate) async fn is_confirmed(
        &self,
        by: &Endpoint,
        number: u64,
        header: &Header,
        transactions: &[BlockTransaction],
    ) -> bool {
        if self.endpoints.len() < 2 {
            return true;
        }
        for other in self.others(by) {
            let found = match transactions {
                [] => other.header(number).await.map(|header| header.map(|it| (it, Vec::new()))),
                _ => other.block(number).await.map(|it| it.map(|it| (it.header, it.transactions))),
            };
            if let Ok(Some((found, in_block))) = found
                && found == *header
                && transactions.iter().all(|transaction| in_block.contains(transaction))
            {
                return true;
            }
        }
        false
    }

    /// Returns the receipts of these transactions of a block, by hash: proved against the receipts
    /// root, or, where that is impossible, as two endpoints return them. One endpoint alone is
    /// believed only if no other one is configured.
    ///
    /// # Errors
    /// When the endpoint fails or returns false receipts, or no other one confirms them.
    pub(crate) async fn receipts(
        &self,
        from: &Endpoint,
        block: &Block,
        wanted: &HashSet<[u8; 32]>,
        prove: bool,
    ) -> Result<HashMap<[u8; 32], Receipt>, ChainError> {
        if prove && let Some(proved) = from.proved_receipts(block).await? {
            let hashes = block.transactions.iter().map(|transaction| transaction.hash.0);
            return Ok(hashes.zip(proved).filter(|(hash, _)| wanted.contains(hash)).collect());
        }
        let mut receipts = HashMap::new();
        for &hash in wanted {
            let unconfirmed = ChainError::Unconfirmed { block: block.number };
            let found = from.receipt(hash).await?;
            let found = found.filter(|receipt| receipt.block_hash == block.header.hash.0);
            let Some(found) = found else { return Err(unconfirmed) };
            let mut is_confirmed = self.endpoints.len() < 2;
            for other in self.others(from) {
                is_confirmed = is_confirmed
                    || other.receipt(hash).await.ok().flatten().as_ref() == Some(&found);
            }
            if !is_confirmed {
                return Err(unconfirmed);
            }
            receipts.insert(hash, found);
        }
        Ok(receipts)
    }

    fn others(&self, than: &Endpoint) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(move |endpoint| !std::ptr::eq(Arc::as_ptr(endpoint), than))
    }

    /// The endpoints in the order in which they are asked: those that cool down or are behind come
    /// last.
    fn by_preference(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.check_health_in_background();
        let newest = self.endpoints.iter().filter_map(|endpoint| endpoint.newest_block()).max();
        let (last, first): (Vec<_>, Vec<_>) = self
            .endpoints
            .iter()
            .partition(|endpoint| endpoint.is_cooling_down() || endpoint.is_behind(newest));
        first.into_iter().chain(last)
    }

    /// Checks the health of all endpoints once per interval, without delaying the request.
    fn check_health_in_background(&self) {
        let mut checked_at = self.checked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = checked_at.is_some_and(|at| at.elapsed() < HEALTH_CHECK_INTERVAL);
        if self.endpoints.len() < 2 || is_recent {
            return;
        }
        *checked_at = Some(Instant::now());
        let endpoints = self.endpoints.clone();
        tokio::spawn(async move {
            join_all(endpoints.iter().map(|endpoint| endpoint.health_check())).await;
        });
    }
}

/// Written by hand: the provider's own output contains the URL.
impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("chain_id", &self.chain_id).finish_non_exhaustive()
    }
}
