//! `recovery`: how a forgotten password is replaced.

use std::time::Duration;

use kms_core::recovery::RecoveryRules;
use serde::Deserialize;

/// The configurable part of [`RecoveryRules`], which documents it.
#[derive(Deserialize)]
#[serde(remote = "RecoveryRules", default = "RecoveryRules::default", deny_unknown_fields)]
pub(super) struct RecoveryRulesDef {
    /// Follows from `mail`.
    #[serde(skip)]
    sends_codes: bool,
    #[serde(deserialize_with = "kms_config::duration_or_zero")]
    wait_with_code: Duration,
    #[serde(deserialize_with = "kms_config::duration_or_zero")]
    wait_without_email: Duration,
    #[serde(deserialize_with = "kms_config::duration_or_zero")]
    wait_without_code: Duration,
    #[serde(deserialize_with = "kms_config::duration_or_zero")]
    email_trusted_after: Duration,
    /// Guessing is bounded by it together with the number of tries, so it is fixed.
    #[serde(skip)]
    code_lifetime: Duration,
    #[serde(deserialize_with = "kms_config::duration")]
    open_for: Duration,
    #[serde(deserialize_with = "kms_config::duration_or_zero")]
    hold: Duration,
    #[serde(deserialize_with = "kms_config::duration_or_zero")]
    unfreeze_wait: Duration,
}
