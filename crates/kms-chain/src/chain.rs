//! An EVM chain, over one JSON-RPC endpoint or several.
//!
//! Answers that belong together are requested from one endpoint: two endpoints may be at different
//! blocks, and the answer of one must not be interpreted with the state of the other.

mod address;
mod agreement;
mod balances;
mod batch;
mod blocks;
mod data_fee;
mod endpoint;
mod error;
mod family;
mod finality;
mod gas;
mod probe;
mod proofs;
mod receipts;
mod refusals;
mod requests;
mod state;
mod token_check;
mod tokens;
mod transport;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use kms_types::{EthAddress, Wei};

use self::agreement::LastAgreed;
use self::endpoint::HEALTH_CHECK_INTERVAL;

pub use self::address::{EndpointAddress, HttpHeader, HttpHeaderError};
pub(crate) use self::agreement::Surveyed;
pub use self::balances::Balances;
pub(crate) use self::blocks::{Block, BlockTransaction, Header};
pub use self::blocks::{BlockRef, Payment};
pub use self::endpoint::Endpoint;
pub use self::error::ChainError;
pub use self::family::Family;
pub(crate) use self::finality::{Claim, FinalHeight};
pub use self::finality::{Finality, FinalityError};
pub(crate) use self::gas::PLAIN_TRANSFER_GAS;
pub use self::gas::PlannedPayment;
pub use self::probe::Need;
pub use self::receipts::Receipt;
pub(crate) use self::requests::MARKET_BLOCKS;
pub use self::requests::{Code, Head};
pub(crate) use self::state::Question;
pub(crate) use self::token_check::compare as compare_token;
pub use self::token_check::{CheckedToken, TokenError, TokenFault};
pub use self::tokens::TokenMove;
pub(crate) use self::tokens::{TokenMetadata, transfer_call};

/// How long an endpoint may take to answer by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One chain. Clones share the health of its endpoints.
#[derive(Clone)]
pub struct Chain {
    chain_id: u64,
    /// In order of preference. Never empty.
    endpoints: Vec<Arc<Endpoint>>,
    /// The prices that two endpoints agreed on last.
    last_agreed: Arc<Mutex<Option<LastAgreed>>>,
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
        let addresses = urls.into_iter().map(EndpointAddress::from);
        Self::over_addresses(addresses, chain_id, timeout, stalled_after)
    }

    /// Like [`Chain::over`], with endpoints that may need a header.
    ///
    /// # Errors
    /// As [`Chain::over`].
    pub fn over_addresses<'a>(
        addresses: impl IntoIterator<Item = EndpointAddress<'a>>,
        chain_id: u64,
        timeout: Duration,
        stalled_after: Option<Duration>,
    ) -> Result<Self, ChainError> {
        let endpoint = |(index, address)| {
            Endpoint::new(address, index + 1, chain_id, timeout, stalled_after).map(Arc::new)
        };
        let endpoints =
            addresses.into_iter().enumerate().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(ChainError::NoEndpoint);
        }
        let (last_agreed, checked_at) = (Arc::default(), Arc::default());
        Ok(Self { chain_id, endpoints, last_agreed, checked_at })
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
    /// `WrongChain` when an endpoint serves another chain and none serves this one, `Unsupported`
    /// when the chain is of a family that is refused.
    pub async fn check(&self) -> Result<(), ChainError> {
        let answers = join_all(self.endpoints.iter().map(|endpoint| endpoint.verify())).await;
        if answers.iter().any(Result::is_ok) {
            return Ok(());
        }
        let is_wrong = |error: &ChainError| {
            matches!(error, ChainError::WrongChain { .. } | ChainError::Unsupported { .. })
        };
        answers.into_iter().filter_map(Result::err).find(is_wrong).map_or(Ok(()), Err)
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
                // An endpoint that answers nothing of a token says less than one that is down.
                Err(error) if error.may_pass_elsewhere() => {
                    if matches!(failed, None | Some(ChainError::NotAToken)) {
                        failed = Some(error);
                    }
                }
                Err(verdict) => return Err(verdict),
            }
        }
        Err(failed.unwrap_or(ChainError::NoEndpoint))
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
            if other.has_block(number, header, transactions).await {
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

    /// Returns the balances at a block that other endpoints than this one report, for the caller to
    /// compare; `None` if only one endpoint is configured.
    pub(crate) async fn confirm_balances(
        &self,
        by: &Endpoint,
        owners: &[EthAddress],
        at: BlockRef,
    ) -> Option<HashSet<(EthAddress, Wei)>> {
        if self.endpoints.len() < 2 {
            return None;
        }
        let mut confirmed = HashSet::new();
        for other in self.others(by) {
            let balances = other.balances_at(owners, at).await.unwrap_or_default();
            confirmed.extend(owners.iter().copied().zip(balances));
        }
        Some(confirmed)
    }

    fn others(&self, than: &Endpoint) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(move |endpoint| !std::ptr::eq(Arc::as_ptr(endpoint), than))
    }

    /// The endpoints in the order in which they are asked: those that cool down, are behind or
    /// are contradicted by others come last.
    fn by_preference(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.check_health_in_background();
        let newest = self.endpoints.iter().filter_map(|endpoint| endpoint.newest_block()).max();
        let (last, first): (Vec<_>, Vec<_>) =
            self.endpoints.iter().partition(|endpoint| endpoint.is_asked_last(newest));
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
