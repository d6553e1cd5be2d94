//! What is asked of several endpoints at once, so that none alone decides it: the nonce,
//! prices, and which of them follows the chain.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use kms_types::{EthAddress, Token};

use super::Chain;
use super::blocks::Header;
use super::endpoint::Endpoint;
use super::error::ChainError;
use super::gas::PlannedPayment;
use super::state::{Question, Survey};
use crate::ports::ChainView;
use crate::prices::Market;

/// How long prices that two endpoints agreed on confirm the similar prices of one.
const RECENT: Duration = Duration::from_secs(60 * 60);

/// What an endpoint, by its position in the configuration, reports of prices.
type Reported = (usize, Result<Market, ChainError>);

impl Chain {
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

    /// Returns everything that a quote depends on: all of it is the state of one block of one
    /// endpoint, but for the prices, on which two of several agree.
    ///
    /// # Errors
    /// As [`Chain::market`].
    pub(crate) async fn survey(&self, question: &Question<'_>) -> Result<Surveyed, ChainError> {
        // The first one is likely to answer.
        let others = self.by_preference().skip(1).filter(|endpoint| !endpoint.is_cooling_down());
        let (found, mut reported) = tokio::join!(
            self.first_with_endpoint(|endpoint| endpoint.survey(question)),
            markets(others),
        );
        let (endpoint, survey) = found?;
        reported.retain(|(number, _)| *number != endpoint.number);
        reported.push((endpoint.number, Ok(survey.market)));
        let market = self.agreed_market(reported).await?;
        Ok(Surveyed { endpoint, survey: Survey { market, ..survey } })
    }

    /// Returns the gas limit of a payment at the block of a survey.
    ///
    /// # Errors
    /// `Reverted` when a contract would revert it, or when every endpoint fails.
    pub(crate) async fn gas_limit(
        &self,
        surveyed: &Surveyed,
        payment: &PlannedPayment,
    ) -> Result<u64, ChainError> {
        match surveyed.endpoint.gas_limit_at(payment, surveyed.survey.at).await {
            Err(error) if error.may_pass_elsewhere() => {
                self.first(|endpoint| endpoint.gas_limit(payment)).await
            }
            gas_limit => gas_limit,
        }
    }

    /// Returns what transactions in the latest blocks paid. Where several endpoints are configured,
    /// two have to agree on it, so that none alone sets a price; those that failed a short time ago
    /// are asked too if the others do not suffice. While only one answers, its price has to be
    /// similar to what two agreed on within the last hour.
    ///
    /// # Errors
    /// `UnconfirmedPrices` when no two of several endpoints agree, or when every endpoint fails.
    pub async fn market(&self) -> Result<Market, ChainError> {
        let usable = self.by_preference().filter(|endpoint| !endpoint.is_cooling_down());
        self.agreed_market(markets(usable).await).await
    }

    /// The prices that these endpoints agree on, or these and those that were not asked.
    async fn agreed_market(&self, mut reported: Vec<Reported>) -> Result<Market, ChainError> {
        if let Some(market) = self.agreed(&reported) {
            return Ok(market);
        }
        let is_new = |endpoint: &&Arc<Endpoint>| {
            reported.iter().all(|(number, _)| *number != endpoint.number)
        };
        let rest: Vec<_> = self.by_preference().filter(is_new).collect();
        reported.extend(markets(rest.into_iter()).await);
        if let Some(market) = self.agreed(&reported) {
            return Ok(market);
        }
        match prices(&reported)[..] {
            [] => {
                let failed = reported.into_iter().find_map(|(_, market)| market.err());
                return Err(failed.unwrap_or(ChainError::NoEndpoint));
            }
            [market] if self.last_agreed().is_some_and(|last| last.confirms(market)) => {
                return Ok(market);
            }
            _ => {}
        }
        let event = "prices_unconfirmed";
        tracing::error!(
            event,
            chain_id = self.chain_id,
            ?reported,
            "no two endpoints agree on a price"
        );
        Err(ChainError::UnconfirmedPrices)
    }

    fn agreed(&self, reported: &[Reported]) -> Option<Market> {
        let market = Market::agreed(&prices(reported), self.endpoints.len().min(2))?;
        *self.last_agreed() = Some(LastAgreed { market, at: Instant::now() });
        Some(market)
    }

    fn last_agreed(&self) -> MutexGuard<'_, Option<LastAgreed>> {
        self.last_agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What two endpoints agreed on, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastAgreed {
    market: Market,
    at: Instant,
}

impl LastAgreed {
    /// Whether this was recently, and one endpoint alone reports similar prices.
    fn confirms(&self, market: Market) -> bool {
        self.at.elapsed() < RECENT && Market::agreed(&[self.market, market], 2).is_some()
    }
}

fn prices(reported: &[Reported]) -> Vec<Market> {
    reported.iter().filter_map(|(_, market)| market.as_ref().ok().copied()).collect()
}

impl Chain {
    /// Whether two other endpoints agree on another block with this number. The endpoint is asked
    /// last from then on, until it has the same blocks as they.
    pub(crate) async fn is_outvoted(&self, by: &Endpoint, number: u64, header: &Header) -> bool {
        let answers = join_all(self.others(by).map(|other| other.header(number))).await;
        let others: Vec<_> = answers
            .into_iter()
            .filter_map(|answer| answer.ok().flatten().filter(|other| other != header))
            .collect();
        let is_twice = |it: &Header| others.iter().filter(|other| *other == it).count() > 1;
        let is_outvoted = others.iter().any(is_twice);
        if is_outvoted && !by.is_contradicted.swap(true, Ordering::Relaxed) {
            let event = "chain_endpoint_contradicted";
            let (chain_id, endpoint, block) = (self.chain_id, by.number, number);
            tracing::error!(event, chain_id, endpoint, block, "two endpoints have another block");
        }
        is_outvoted
    }

    /// Trusts endpoints again that were outvoted and have this final block.
    pub(crate) async fn reconsider(&self, number: u64, header: &Header) {
        let outvoted = |endpoint: &&Arc<Endpoint>| endpoint.is_contradicted.load(Ordering::Relaxed);
        for endpoint in self.endpoints.iter().filter(outvoted) {
            if endpoint.header(number).await.is_ok_and(|found| found == Some(*header)) {
                endpoint.is_contradicted.store(false, Ordering::Relaxed);
                let (chain_id, endpoint) = (self.chain_id, endpoint.number);
                tracing::info!(chain_id, endpoint, "chain endpoint agrees again");
            }
        }
    }
}

/// What was surveyed, and by which endpoint.
#[derive(Debug)]
pub(crate) struct Surveyed {
    endpoint: Arc<Endpoint>,
    pub(crate) survey: Survey,
}

async fn markets(endpoints: impl Iterator<Item = &Arc<Endpoint>>) -> Vec<Reported> {
    let market = |endpoint: &Arc<Endpoint>| {
        let endpoint = Arc::clone(endpoint);
        async move { (endpoint.number, endpoint.market().await) }
    };
    join_all(endpoints.map(market)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_of_an_hour_ago_confirm_nothing() {
        let market = Market::Legacy { price: 1_000_000_000 };
        let last = |age| LastAgreed { market, at: Instant::now().checked_sub(age).unwrap() };
        assert!(last(RECENT / 2).confirms(market));
        assert!(!last(RECENT).confirms(market));
        assert!(!last(RECENT / 2).confirms(Market::Legacy { price: 90_000_000_000 }));
    }
}
