//! What stops the payments of all accounts: the operator's pause, the hourly limit of an asset, the
//! list of external addresses, and the answer of the operator's own program.
//!
//! All of it applies to what is quoted and signed. What is signed already proceeds, and can be
//! cancelled by its owner.

mod policy;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kms_chain::transfer::{Party, Transfer};
use kms_core::ports::StoreError;
use kms_store::{Database, KeyDatabase, Pausable};
use kms_types::{ErrorCode, EthAddress, U256, Units, Wei};
use metrics::{counter, gauge, histogram};

use self::policy::Policy;
use crate::config::PaymentPolicySettings;
use crate::error::ApiError;
use crate::start_error::StartError;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What stops the payments of all accounts on one chain.
pub(crate) struct Brakes {
    chain_id: u64,
    is_paused: AtomicBool,
    /// What may be sent in an hour, by the token's contract.
    outflow: HashMap<Option<EthAddress>, Units>,
    /// The only addresses without an account that can be paid; `None` allows all.
    external: Option<HashSet<EthAddress>>,
    policy: Option<Policy>,
}

impl Brakes {
    pub(crate) fn new(
        chain_id: u64,
        outflow: HashMap<Option<EthAddress>, Units>,
        external: Option<Vec<EthAddress>>,
        policy: Option<&PaymentPolicySettings>,
    ) -> Result<Self, StartError> {
        let policy = policy.map(Policy::new).transpose().map_err(StartError::PaymentPolicy)?;
        let external = external.map(HashSet::from_iter);
        Ok(Self { chain_id, is_paused: AtomicBool::new(false), outflow, external, policy })
    }

    /// Reads whether the operator has paused payments.
    pub(crate) async fn read(
        &self,
        database: &Database,
        key_database: &dyn KeyDatabase,
    ) -> Result<(), StoreError> {
        let payments = Pausable::Payments { chain_id: self.chain_id };
        let is_paused = database.paused(payments, key_database).await?.is_some();
        self.is_paused.store(is_paused, Ordering::Relaxed);
        let chain = self.chain_id.to_string();
        gauge!("kms_payments_paused", "chain" => chain).set(if is_paused { 1.0 } else { 0.0 });
        Ok(())
    }

    /// Checks a payment before it is quoted.
    pub(crate) fn check_quote(&self, to: &Party) -> Result<(), ApiError> {
        if self.is_paused.load(Ordering::Relaxed) {
            self.count("paused");
            let detail = "the operator has paused payments; repeat later";
            return Err(ApiError::NotNow {
                code: ErrorCode::PaymentsPaused,
                detail,
                after: MINUTE,
            });
        }
        let is_listed = |listed: &HashSet<_>| listed.contains(&to.address);
        if to.account.is_none() && !self.external.as_ref().is_none_or(is_listed) {
            self.count("recipient");
            let detail = "the operator allows payments to its own users and to listed addresses";
            return Err(ApiError::refused(ErrorCode::PaymentRefused, detail));
        }
        Ok(())
    }

    /// Checks a payment before the wallet is opened that signs it.
    pub(crate) async fn check(&self, transfer: &Transfer) -> Result<(), ApiError> {
        self.check_quote(&transfer.to)?;
        let Some(policy) = &self.policy else { return Ok(()) };
        match policy.ask(transfer).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.count("policy");
                let detail = "the operator's policy does not allow this payment";
                Err(ApiError::refused(ErrorCode::PaymentRefused, detail))
            }
            Err(error) => {
                self.count("policy_unavailable");
                let event = "payment_policy_failed";
                let transfer = transfer.id;
                tracing::error!(event, %transfer, %error, "payment policy did not answer");
                let detail = "the operator's policy cannot be asked; repeat later";
                let code = ErrorCode::PaymentsPaused;
                Err(ApiError::NotNow { code, detail, after: MINUTE })
            }
        }
    }

    /// Takes the amount of a payment from what all accounts may send of its asset.
    pub(crate) async fn take_outflow(
        &self,
        database: &Database,
        transfer: &Transfer,
    ) -> Result<(), ApiError> {
        let asset = transfer.token.as_ref().map(|token| token.address);
        let Some(limit) = self.outflow.get(&asset) else { return Ok(()) };
        let name = asset.map_or_else(|| "native".to_owned(), EthAddress::to_lower_hex);
        let key = format!("outflow:{}:{name}", self.chain_id);
        let part = part_of_an_hour(transfer.value, *limit);
        let Err(after) = database.take_part(&key, part, HOUR).await? else { return Ok(()) };
        self.count("outflow");
        let event = "outflow_limit_reached";
        let (chain, transfer) = (self.chain_id, transfer.id);
        tracing::error!(event, chain, asset = name, %transfer, "hourly outflow limit reached");
        let detail = "more of this asset was sent in an hour than the operator allows; repeat \
            after `retry_after` seconds";
        Err(ApiError::NotNow { code: ErrorCode::PaymentsPaused, detail, after })
    }

    /// Reports the amount of a payment that was signed.
    pub(crate) fn record_signed(&self, transfer: &Transfer) {
        let (symbol, decimals) = match &transfer.token {
            Some(token) => (token.symbol.to_string(), token.decimals),
            None => ("native".to_owned(), Wei::DECIMALS),
        };
        let labels = [("chain", self.chain_id.to_string()), ("asset", symbol)];
        let amount = transfer.value.to_decimal(decimals).parse().unwrap_or(f64::MAX);
        histogram!("kms_payment_amount", &labels).record(amount);
    }

    fn count(&self, reason: &'static str) {
        let chain = self.chain_id.to_string();
        counter!("kms_payments_refused_total", "chain" => chain, "reason" => reason).increment(1);
    }
}

/// The part of an hour in which so much of a limit is refilled; longer than an hour if it is more
/// than the limit.
fn part_of_an_hour(value: Units, limit: Units) -> Duration {
    if value > limit || limit == Units::default() {
        return HOUR.saturating_mul(2);
    }
    let hour = U256::from(HOUR.as_millis());
    let part = match value.0.checked_mul(hour) {
        Some(product) => product / limit.0,
        // The limit is far above 2^200 then.
        None => value.0 / (limit.0 / hour),
    };
    let milliseconds = u64::try_from(part).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_millis(milliseconds).min(HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_part_of_an_hour() {
        let part = |value: U256, limit: U256| part_of_an_hour(Units(value), Units(limit));
        let (ten, max) = (U256::from(10), U256::MAX);
        assert_eq!(part(U256::from(5), ten), Duration::from_millis(1_800_001));
        assert_eq!(part(ten, ten), HOUR);
        assert_eq!(part(max, max), HOUR);
        assert_eq!(part(max / U256::from(2), max).as_secs(), 1_800);
        assert_eq!(part(U256::ONE, max), Duration::from_millis(1));
        for (value, limit) in [(U256::from(11), ten), (U256::ONE, U256::ZERO), (max, ten)] {
            assert!(part(value, limit) > HOUR);
        }
    }
}
