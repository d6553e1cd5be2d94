//! One JSON-RPC endpoint of a chain, and its health.
//!
//! Before an endpoint is used it reports its chain id and the age of its newest block. It does so
//! again after every failure, because another node may then be behind the same URL, and whenever
//! the last report is too old.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use alloy::consensus::BlockHeader;
use alloy::eips::BlockNumberOrTag;
use alloy::network::Ethereum;
use alloy::providers::{Provider, ProviderBuilder, RootProvider};
use alloy::rpc::client::RpcClient;
use alloy::transports::http::Http;
use alloy::transports::{RpcError, TransportError};
use kms_core::failpoint;
use kms_types::Timestamp;
use serde_json::Value;

use super::address::{EndpointAddress, HttpHeader};
use super::error::ChainError;
use super::family::Family;
use super::transport::Measured;

/// How long an endpoint that failed is asked last.
const COOLDOWN: Duration = Duration::from_secs(10);

/// The longest time that an endpoint rests.
const MAX_REST: Duration = Duration::from_secs(5 * 60);

/// The JSON-RPC codes of providers whose limit of requests is used up. The second one is also that
/// of a request for too much at once, unless it says when to ask again.
const TOO_MANY_REQUESTS: i64 = 429;
const LIMIT_EXCEEDED: i64 = -32_005;

/// How long a health check is valid, unless the endpoint would count as stalled sooner.
pub(super) const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// An endpoint is behind if its newest block is this much older than that of another endpoint:
/// longer than the time between two health checks and a few blocks.
const MAX_LAG: Duration = Duration::from_secs(120);

/// One JSON-RPC endpoint of a [`Chain`](crate::Chain). Its methods ask this endpoint and no other,
/// and fail if it is unavailable, serves another chain or has stalled.
pub struct Endpoint {
    pub(super) provider: RootProvider<Ethereum>,
    chain_id: u64,
    /// Its position in the configuration, counted from 1. Log lines name it by this number, for
    /// its URL may contain an API key.
    pub(super) number: usize,
    /// The age of its newest block from which on it counts as stalled.
    stalled_after: Option<Duration>,
    /// The last successful health check since the last failure.
    health: Mutex<Option<Health>>,
    /// When it failed last, unless a health check succeeded since.
    failed_at: Mutex<Option<Instant>>,
    /// Until when it is not asked, as it requested.
    rests_until: Mutex<Option<Instant>>,
    /// Whether Multicall3 was found on the chain.
    pub(super) has_multicall: AtomicBool,
    /// Whether it was found to lack EIP-1898, so that it reads a block by its number alone.
    pub(super) lacks_block_hashes: AtomicBool,
    /// Whether it was found to refuse JSON-RPC batches.
    pub(super) refuses_batches: AtomicBool,
    /// Whether two others have another final block than this one.
    pub(super) is_contradicted: AtomicBool,
    /// Whether it was asked for what only chains of refused families answer.
    is_known_family: AtomicBool,
}

/// The result of a health check.
#[derive(Clone, Copy)]
struct Health {
    checked_at: Instant,
    /// The timestamp of its newest block, if the endpoint is checked for stalling.
    newest_block: Option<Timestamp>,
}

impl Endpoint {
    pub(super) fn new(
        address: EndpointAddress<'_>,
        number: usize,
        chain_id: u64,
        timeout: Duration,
        stalled_after: Option<Duration>,
    ) -> Result<Self, ChainError> {
        let EndpointAddress { url, header } = address;
        let url: reqwest::Url = url.parse().map_err(|_secret| ChainError::InvalidUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ChainError::InvalidUrl);
        }
        // Fails only if a provider is installed already, which is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .default_headers(header.map(HttpHeader::into_map).unwrap_or_default())
            .timeout(timeout)
            .connect_timeout(timeout)
            // Signed bytes are sent to the configured endpoint and to no other host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_cause| ChainError::HttpClient)?;
        let http = Http::with_client(client, url);
        let is_local = http.guess_local();
        let labels = [("chain", chain_id.to_string()), ("endpoint", number.to_string())];
        let client = RpcClient::new(Measured { http, labels }, is_local);
        let provider = ProviderBuilder::<_, _, Ethereum>::default().connect_client(client);
        Ok(Self {
            provider,
            chain_id,
            number,
            stalled_after,
            health: Mutex::default(),
            failed_at: Mutex::default(),
            rests_until: Mutex::default(),
            has_multicall: AtomicBool::new(false),
            lacks_block_hashes: AtomicBool::new(false),
            refuses_batches: AtomicBool::new(false),
            is_contradicted: AtomicBool::new(false),
            is_known_family: AtomicBool::new(false),
        })
    }

    /// Runs a health check unless the last one is still valid. Every request begins with this.
    pub(super) async fn verify(&self) -> Result<(), ChainError> {
        failpoint::reach("rpc-before");
        let valid_for = match self.stalled_after {
            Some(stalled_after) => stalled_after.min(HEALTH_CHECK_INTERVAL),
            None => HEALTH_CHECK_INTERVAL,
        };
        if self.health().is_some_and(|health| health.checked_at.elapsed() < valid_for) {
            return Ok(());
        }
        self.health_check().await
    }

    /// Asks for the chain id and for the age of the newest block.
    pub(super) async fn health_check(&self) -> Result<(), ChainError> {
        if let Some(rest) = self.remaining_rest() {
            return Err(rate_limited(rest));
        }
        if let Some(family) = Family::of(self.chain_id) {
            return Err(self.mark_failed(self.unsupported(family)));
        }
        let checked_at = Instant::now();
        let (found, newest_block) =
            tokio::join!(self.provider.get_chain_id().into_future(), self.check_newest_block());
        let found = self.record_outcome(found)?;
        if found != self.chain_id {
            let wrong = ChainError::WrongChain { expected: self.chain_id, found };
            return Err(self.mark_failed(wrong));
        }
        if !self.is_known_family.load(Ordering::Relaxed) {
            self.is_known_family.store(self.check_family().await?, Ordering::Relaxed);
        }
        *self.health() = Some(Health { checked_at, newest_block: newest_block? });
        if self.failed_at().take().is_some() {
            let (chain_id, endpoint) = (self.chain_id, self.number);
            tracing::info!(chain_id, endpoint, "chain endpoint recovered");
        }
        Ok(())
    }

    /// The error of a chain that is refused.
    pub(super) fn unsupported(&self, family: Family) -> ChainError {
        ChainError::Unsupported { chain_id: self.chain_id, family }
    }

    /// Returns the timestamp of the newest block, at most the current time.
    async fn check_newest_block(&self) -> Result<Option<Timestamp>, ChainError> {
        let Some(stalled_after) = self.stalled_after else { return Ok(None) };
        let latest = self.provider.get_block_by_number(BlockNumberOrTag::Latest).await;
        let made = self.record_outcome(latest)?.ok_or_else(no_latest_block)?.header.timestamp();
        let (now, made) = (now(), Timestamp(0).plus(Duration::from_secs(made)));
        let age = now.since(made);
        if age > stalled_after {
            return Err(self.mark_failed(ChainError::Stalled { seconds: age.as_secs() }));
        }
        Ok(Some(made.min(now)))
    }

    /// The timestamp of its newest block at the last health check.
    pub(super) fn newest_block(&self) -> Option<Timestamp> {
        self.health().and_then(|health| health.newest_block)
    }

    /// Whether others are asked first: it failed a short time ago, others contradict it, or its
    /// newest block is much older than `newest`.
    pub(super) fn is_asked_last(&self, newest: Option<Timestamp>) -> bool {
        self.is_cooling_down()
            || self.is_contradicted.load(Ordering::Relaxed)
            || self.is_behind(newest)
    }

    /// Whether its newest block is much older than `newest`.
    fn is_behind(&self, newest: Option<Timestamp>) -> bool {
        let both = self.newest_block().zip(newest);
        both.is_some_and(|(own, newest)| own.plus(MAX_LAG) < newest)
    }

    /// Whether it failed a short time ago, so that others are asked first.
    pub(super) fn is_cooling_down(&self) -> bool {
        self.failed_at().is_some_and(|failed_at| failed_at.elapsed() < COOLDOWN)
            || self.remaining_rest().is_some()
    }

    /// For how long it is not asked, as it requested.
    fn remaining_rest(&self) -> Option<Duration> {
        let rests_until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = rests_until?.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    /// Converts the result of a request, and marks the endpoint as failed if the error is its own.
    pub(super) fn record_outcome<T>(
        &self,
        outcome: Result<T, TransportError>,
    ) -> Result<T, ChainError> {
        failpoint::reach("rpc-after");
        outcome.map_err(|error| self.fail(error))
    }

    /// Converts an error, and marks the endpoint as failed if the error is its own.
    fn fail(&self, error: TransportError) -> ChainError {
        let error = match requested_rest(&error) {
            Some(rest) => {
                let until = Instant::now().checked_add(rest);
                *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
                rate_limited(rest)
            }
            None => ChainError::from(error),
        };
        if error.is_endpoint_failure() { self.mark_failed(error) } else { error }
    }

    /// Converts the result of a broadcast. A node that refuses the bytes has not failed.
    pub(super) fn record_broadcast<T>(
        &self,
        outcome: Result<T, TransportError>,
    ) -> Result<(), ChainError> {
        outcome.map(drop).map_err(|error| match &error {
            RpcError::ErrorResp(payload) if requested_rest(&error).is_none() => {
                ChainError::refused(payload)
            }
            _ => self.fail(error),
        })
    }

    /// Like [`Endpoint::record_outcome`], for a request that executes a contract's code. An error
    /// response may then be the contract's doing: the next endpoint is asked, and this one is not
    /// marked as failed.
    pub(super) fn record_call_outcome<T>(
        &self,
        outcome: Result<T, TransportError>,
    ) -> Result<T, ChainError> {
        match outcome {
            Err(error @ RpcError::ErrorResp(_)) if requested_rest(&error).is_none() => {
                failpoint::reach("rpc-after");
                Err(error.into())
            }
            outcome => self.record_outcome(outcome),
        }
    }

    /// Starts the cooldown, and invalidates the last health check. Returns the error.
    pub(super) fn mark_failed(&self, error: ChainError) -> ChainError {
        *self.health() = None;
        if self.failed_at().replace(Instant::now()).is_none() {
            let event = "chain_endpoint_failed";
            let (chain_id, endpoint) = (self.chain_id, self.number);
            tracing::error!(event, chain_id, endpoint, %error, "chain endpoint failed");
        }
        error
    }

    fn failed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Option<Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Written by hand: the provider's own output contains the URL.
impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Returns for how long an endpoint requests a pause, because its limit of requests is used up: at
/// most five minutes, whatever it requests.
fn requested_rest(error: &TransportError) -> Option<Duration> {
    let requested = match error {
        RpcError::Transport(kind) => {
            let is_limited = kind.as_http_error().is_some_and(|http| http.status == 429);
            kind.retry_after().or_else(|| is_limited.then_some(COOLDOWN))
        }
        RpcError::ErrorResp(payload) => {
            let data = payload.try_data_as::<Value>().and_then(Result::ok);
            let seconds = data.and_then(|data| data.pointer("/rate/backoff_seconds")?.as_f64());
            let rest = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            match payload.code {
                TOO_MANY_REQUESTS => rest.or(Some(COOLDOWN)),
                LIMIT_EXCEEDED => rest,
                _ => None,
            }
        }
        _ => None,
    };
    requested.map(|rest| rest.min(MAX_REST))
}

fn rate_limited(rest: Duration) -> ChainError {
    ChainError::RateLimited {
        seconds: rest.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX),
    }
}

/// The error for an endpoint that has no latest block.
pub(super) fn no_latest_block() -> ChainError {
    ChainError::Unavailable("no latest block".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the age of a block is measured by the wall clock")]
fn now() -> Timestamp {
    SystemTime::now().into()
}
