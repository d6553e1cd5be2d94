//! What stops the payments of all accounts: the operator's pause, the list of external addresses,
//! and the answer of the operator's own program. The hourly limit of an asset is one of
//! [`SpendingRules`](kms_chain::spending::SpendingRules).
//!
//! Pause and list apply to quotes and signatures, the program to signatures. A payment that is
//! already signed proceeds, and its sender can cancel it.

mod policy;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join;
use kms_chain::transfer::{Party, Transfer};
use kms_core::ports::StoreError;
use kms_store::{Database, KeyDatabase, Pausable};
use kms_types::{ErrorCode, EthAddress, Wei};
use metrics::{counter, gauge, histogram};

pub(crate) use self::policy::PolicyClient;
use crate::error::ApiError;

const MINUTE: Duration = Duration::from_secs(60);

/// What stops the payments of all accounts on one chain.
pub(crate) struct Brakes {
    chain_id: u64,
    is_paused: AtomicBool,
    /// The only addresses without an account that can be paid; `None` allows all.
    external: Option<HashSet<EthAddress>>,
    policy: Option<Arc<PolicyClient>>,
}

impl Brakes {
    pub(crate) fn new(
        chain_id: u64,
        external: Option<Vec<EthAddress>>,
        policy: Option<Arc<PolicyClient>>,
    ) -> Self {
        let external = external.map(HashSet::from_iter);
        Self { chain_id, is_paused: AtomicBool::new(false), external, policy }
    }

    /// Reads whether the operator has paused payments.
    pub(crate) async fn read(
        &self,
        database: &Database,
        key_database: &dyn KeyDatabase,
    ) -> Result<(), StoreError> {
        let payments = Pausable::Payments { chain_id: self.chain_id };
        let is_paused = match join(
            database.paused(Pausable::AllPayments, key_database),
            database.paused(payments, key_database),
        )
        .await
        {
            (Ok(Some(_)), _) | (_, Ok(Some(_))) => true,
            (all, own) => all?.or(own?).is_some(),
        };
        self.is_paused.store(is_paused, Ordering::Relaxed);
        let chain = self.chain_id.to_string();
        gauge!("kms_payments_paused", "chain" => chain).set(if is_paused { 1.0 } else { 0.0 });
        Ok(())
    }

    /// Checks that payments are not paused. Nor are keys exported then, which pay without this
    /// server.
    pub(crate) fn admit_use(&self) -> Result<(), ApiError> {
        if !self.is_paused.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.count("paused");
        let detail = "the operator has paused payments and exports of keys; repeat later";
        Err(ApiError::NotNow { code: ErrorCode::PaymentsPaused, detail, after: MINUTE })
    }

    /// Checks that payments are not paused, and that this recipient is allowed.
    pub(crate) fn admit(&self, to: &Party) -> Result<(), ApiError> {
        self.admit_use()?;
        let is_listed = |listed: &HashSet<_>| listed.contains(&to.address);
        if to.account.is_none() && !self.external.as_ref().is_none_or(is_listed) {
            self.count("recipient");
            let detail = "the operator allows payments to its own users and to listed addresses";
            return Err(ApiError::refused(ErrorCode::PaymentRefused, detail));
        }
        Ok(())
    }

    /// Checks a payment before the wallet that signs it is opened.
    pub(crate) async fn check(&self, transfer: &Transfer) -> Result<(), ApiError> {
        self.admit(&transfer.to)?;
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
                let (transfer, chain_id) = (transfer.id, transfer.chain_id);
                tracing::error!(
                    event, chain_id, %transfer, %error,
                    "payment policy did not answer"
                );
                let detail = "the operator's policy cannot be asked; repeat later";
                let code = ErrorCode::PaymentsPaused;
                Err(ApiError::NotNow { code, detail, after: MINUTE })
            }
        }
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
