//! `payment_policy`: a program of the operator's that is asked before a payment is signed.

use kms_config::{ConfigError, Secret, ServiceUrl};
use serde::Deserialize;

/// The fewest characters of the key: 128 bits in hex.
const MIN_KEY: usize = 32;

/// A program that is asked before a payment is signed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentPolicySettings {
    /// Where it is asked.
    pub url: ServiceUrl,
    /// The key of the signature of each request, at least 32 characters.
    pub key: Secret,
}

impl PaymentPolicySettings {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.key.expose().len() < MIN_KEY {
            let expected = "expected at least 32 characters";
            return Err(ConfigError::expected("payment_policy.key", expected));
        }
        Ok(())
    }
}
