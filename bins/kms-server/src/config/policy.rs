//! `profile`: which settings protect users less than the defaults do, and whether they are refused.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use kms_config::ConfigError;
use kms_core::KdfParams;
use kms_core::launch::TelegramKey;
use kms_core::recovery::RecoveryRules;
use serde::Deserialize;

use super::limits::SpendUpTo;
use super::{AuditSettings, ChainSettings, LimitSettings, Rate, Settings, UpkeepSettings};

/// The fewest rounds of PBKDF2-HMAC-SHA256 that OWASP recommends.
const PBKDF2_ROUNDS: u32 = 600_000;

/// Which settings are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// All of them.
    #[default]
    Development,
    /// None that protects users less than its default.
    Production,
}

/// A setting that protects users less than its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weakness {
    setting: Cow<'static, str>,
    expected: String,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}", self.setting, self.expected)
    }
}

impl Settings {
    /// The settings that protect users less than their defaults, and the protections that are
    /// missing because they have no default.
    pub(crate) fn weaknesses(&self) -> Vec<Weakness> {
        let all = [self.recovery_weaknesses(), self.limit_weaknesses(), self.other_weaknesses()];
        all.into_iter().flatten().collect()
    }

    pub(super) fn check_profile(&self) -> Result<(), ConfigError> {
        let weaknesses = match self.profile {
            Profile::Development => Vec::new(),
            Profile::Production => self.weaknesses(),
        };
        if weaknesses.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = weaknesses.iter().map(Weakness::to_string).collect();
        Err(ConfigError::expected("profile", &format!("production refuses {}", all.join("; "))))
    }

    fn recovery_weaknesses(&self) -> Vec<Weakness> {
        let (rules, default) = (&self.recovery, RecoveryRules::default());
        let mut found: Vec<_> = [
            at_least("recovery.wait_with_code", rules.wait_with_code, default.wait_with_code),
            at_least(
                "recovery.wait_without_email",
                rules.wait_without_email,
                default.wait_without_email,
            ),
            at_least(
                "recovery.wait_without_code",
                rules.wait_without_code,
                // Else an attacker would rather leave the code out.
                default.wait_without_code.max(rules.wait_without_email),
            ),
            at_least(
                "recovery.email_trusted_after",
                rules.email_trusted_after,
                default.email_trusted_after,
            ),
            at_least("recovery.hold", rules.hold, default.hold),
            at_least("recovery.unfreeze_wait", rules.unfreeze_wait, default.unfreeze_wait),
        ]
        .into_iter()
        .flatten()
        .collect();
        found.extend(missing("mail", self.mail.is_some()));
        found
    }

    fn limit_weaknesses(&self) -> Vec<Weakness> {
        let (limits, default) = (&self.limits, LimitSettings::default());
        let spending = limits.spend_a_day_after_recovery.values();
        let is_unlimited = spending.into_iter().any(|spend| *spend == SpendUpTo::Unlimited);
        [
            no_more("limits.recoveries", limits.recoveries, default.recoveries),
            no_more("limits.all_recoveries", limits.all_recoveries, default.all_recoveries),
            no_more(
                "limits.recoveries_without_email",
                limits.recoveries_without_email,
                default.recoveries_without_email,
            ),
            no_more("limits.exports", limits.exports, default.exports),
            no_more("limits.email_codes", limits.email_codes, default.email_codes),
            no_more(
                "limits.codes_to_an_address",
                limits.codes_to_an_address,
                default.codes_to_an_address,
            ),
            no_more("limits.password_changes", limits.password_changes, default.password_changes),
            no_more("limits.emails", limits.emails, default.emails),
            unlimited("limits.spend_a_day_after_recovery", is_unlimited),
            unlimited(
                "limits.spend_a_day_unlisted",
                limits.spend_a_day_unlisted == SpendUpTo::Unlimited,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn other_weaknesses(&self) -> Vec<Weakness> {
        let (audit, upkeep) = (AuditSettings::default(), UpkeepSettings::default());
        let found = [
            is_weak(self.password.kdf).then(|| Weakness {
                setting: "password.kdf".into(),
                expected: format!("at least {}", KdfParams::default()),
            }),
            at_most(
                "audit.checkpoint_interval",
                self.audit.checkpoint_interval,
                audit.checkpoint_interval,
            ),
            missing("audit.checkpoint_path or audit.checkpoint_s3", self.audit.has_archive()),
            at_most("upkeep.probe_interval", self.upkeep.probe_interval, upkeep.probe_interval),
            at_most("upkeep.check_interval", self.upkeep.check_interval, upkeep.check_interval),
            // Kept forever is longer.
            self.upkeep.retention.and_then(|retention| {
                at_least("upkeep.retention", retention, upkeep.retention.unwrap_or_default())
            }),
            (self.page.telegram_key != TelegramKey::PRODUCTION).then(|| Weakness {
                setting: "page.telegram_key".into(),
                expected: "production".to_owned(),
            }),
        ];
        let of_chain = |(name, chain): (&String, &ChainSettings)| {
            let weak = |setting: &str, expected: &str| Weakness {
                setting: format!("chains.{name}.{setting}").into(),
                expected: expected.to_owned(),
            };
            let stalled_after = "a time after which an endpoint is not used";
            [
                (!chain.prove_receipts).then(|| weak("prove_receipts", "true")),
                chain.stalled_after.is_none().then(|| weak("stalled_after", stalled_after)),
            ]
        };
        found.into_iter().chain(self.chains.iter().flat_map(of_chain)).flatten().collect()
    }
}

fn at_least(setting: &'static str, found: Duration, default: Duration) -> Option<Weakness> {
    let expected = || format!("at least {}", shown(default));
    (found < default).then(|| Weakness { setting: setting.into(), expected: expected() })
}

fn at_most(setting: &'static str, found: Duration, default: Duration) -> Option<Weakness> {
    let expected = || format!("at most {}", shown(default));
    (found > default).then(|| Weakness { setting: setting.into(), expected: expected() })
}

fn no_more(setting: &'static str, found: Rate, default: Rate) -> Option<Weakness> {
    let (limit, allowed) = (found.limit(), default.limit());
    let is_more = limit.burst > 0 && (limit.burst > allowed.burst || limit.period < allowed.period);
    is_more.then(|| Weakness { setting: setting.into(), expected: format!("at most {default:?}") })
}

fn missing(setting: &'static str, is_set: bool) -> Option<Weakness> {
    (!is_set).then(|| Weakness { setting: setting.into(), expected: "to be set".to_owned() })
}

fn unlimited(setting: &'static str, is_unlimited: bool) -> Option<Weakness> {
    let expected = || "amounts instead of \"unlimited\"".to_owned();
    is_unlimited.then(|| Weakness { setting: setting.into(), expected: expected() })
}

fn is_weak(kdf: KdfParams) -> bool {
    match (kdf, KdfParams::default()) {
        (
            KdfParams::Argon2id { memory, passes, .. },
            KdfParams::Argon2id { memory: m, passes: t, .. },
        ) => memory < m || passes < t,
        (KdfParams::Pbkdf2 { rounds }, _) => rounds < PBKDF2_ROUNDS,
        _ => false,
    }
}

/// The duration as settings write it.
fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")];
    let unit = units.into_iter().find(|(size, _)| seconds.is_multiple_of(*size));
    let (size, unit) = unit.unwrap_or((1, "s"));
    format!("{}{unit}", seconds / size)
}
