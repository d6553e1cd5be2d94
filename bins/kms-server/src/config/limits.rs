//! `limits`: how often something may be done, and how much may be spent.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use governor::Quota;
use kms_chain::spending::{Allowance, SpendingRules};
use kms_config::ConfigError;
use kms_core::recovery::RecoveryRules;
use kms_store::RateLimit;
use kms_types::{AddressError, Amount, AmountError, EthAddress};
use serde::Deserialize;

use super::Chains;
use super::chain::{all_assets, named_assets};

const MAX_BURST: u32 = 1_000_000_000;

/// Rate limits, each over all servers unless it says otherwise, and spending limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Recoveries of one account.
    pub recoveries: Rate,
    /// Recoveries of all accounts together: one limit for requesting and one for completing them.
    pub all_recoveries: Rate,
    /// Recoveries of all accounts together that are requested without a trusted e-mail address;
    /// where there are many accounts, one in a thousand of them instead.
    pub recoveries_without_email: Rate,
    /// Exports of one account's private key.
    pub exports: Rate,
    /// Changes of one account's password.
    pub password_changes: Rate,
    /// Codes for e-mail addresses that one account requests.
    pub email_codes: Rate,
    /// Codes that are sent to one e-mail address, requested by any accounts.
    pub codes_to_an_address: Rate,
    /// E-mails to one account about what has happened. Those about what is still open, as
    /// recoveries and codes, are not counted.
    pub emails: Rate,
    /// Wallets that one bearer token creates, and wallets that are created on the page.
    pub onboardings: Rate,
    /// Quotes of one account, of which one may follow the other quickly.
    pub quotes: Rate,
    /// Quotes of one account over a longer time: each is stored, for a day if it is not signed.
    pub quotes_a_day: Rate,
    /// Reads of one caller, on each server.
    pub reads: Rate,
    /// Reads of one account, on each server.
    pub account_reads: Rate,
    /// Openings of the page by one user, on each server.
    pub launches: Rate,
    /// Openings of the page by anyone, on each server, counted before a signature is checked.
    pub all_launches: Rate,
    /// What one account may spend in any 24 hours, by symbol, on each chain that has it; or by the
    /// short name of one chain, a slash, and the symbol.
    pub spend_a_day: BTreeMap<String, Amount>,
    /// What one account may spend in any 24 hours of each asset that `spend_a_day` does not name.
    pub spend_a_day_unlisted: SpendUpTo,
    /// What all accounts together may send of an asset in an hour, named as in `spend_a_day`: a
    /// bucket of this size, which refills in an hour. No limit for assets not named.
    pub outflow_an_hour: BTreeMap<String, Amount>,
    /// The only addresses that can be paid beside the accounts of this deployment. `None` allows
    /// every address.
    pub external_addresses: Option<Vec<ExternalAddress>>,
    /// What it may send in any 24 hours to addresses that it had not paid before, for the time of
    /// `recovery.hold` after a recovery. Nothing of assets not named.
    pub spend_a_day_after_recovery: BTreeMap<String, SpendUpTo>,
}

/// An address on one chain: `base/0x…`, or without a short name on the primary chain. The contract
/// at an address can belong to another party on another chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ExternalAddress {
    chain: Option<String>,
    address: EthAddress,
}

impl FromStr for ExternalAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (chain, address) = match text.split_once('/') {
            Some((chain, address)) => (Some(chain.to_owned()), address),
            None => (None, text),
        };
        Ok(Self { chain, address: address.parse()? })
    }
}

impl TryFrom<String> for ExternalAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// An amount, or `unlimited`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SpendUpTo {
    /// Up to this amount.
    UpTo(Amount),
    /// Any amount.
    Unlimited,
}

impl SpendUpTo {
    /// One coin, or one whole token.
    fn one() -> Self {
        Self::UpTo(Amount::one())
    }
}

impl FromStr for SpendUpTo {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            amount => amount.parse().map(Self::UpTo),
        }
    }
}

impl TryFrom<String> for SpendUpTo {
    type Error = AmountError;

    fn try_from(text: String) -> Result<Self, AmountError> {
        text.parse()
    }
}

/// A token bucket, written as `3/day`: a burst of three, and one more every eight hours.
///
/// Within one day up to twice the number, less one, can pass: the burst, and what refills.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    burst: u32,
    unit: Unit,
}

/// The text is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number per time, as 3/day, 30/hour, 300/minute or 2000/second")]
pub struct RateError;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Unit {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        })
    }
}

impl Rate {
    /// The limit that the database counts. A burst of zero forbids.
    pub(crate) fn limit(self) -> RateLimit {
        RateLimit { burst: self.burst, period: self.unit.duration() / self.burst.max(1) }
    }

    /// The limit that this process counts.
    pub(crate) fn quota(self) -> Quota {
        let burst = NonZeroU32::new(self.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(self.limit().period);
        quota.unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (number, unit) = text.split_once('/').ok_or(RateError)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(RateError);
        }
        let burst = number.parse().map_err(|_cause| RateError)?;
        // More than one per nanosecond cannot be counted.
        if burst > MAX_BURST {
            return Err(RateError);
        }
        let unit = Unit::ALL.into_iter().find(|known| known.name() == unit).ok_or(RateError)?;
        Ok(Self { burst, unit })
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.burst, self.unit.name())
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        let rate = |burst, unit| Rate { burst, unit };
        Self {
            recoveries: rate(3, Unit::Day),
            all_recoveries: rate(30, Unit::Hour),
            recoveries_without_email: rate(10, Unit::Day),
            exports: rate(3, Unit::Day),
            password_changes: rate(10, Unit::Day),
            email_codes: rate(5, Unit::Day),
            codes_to_an_address: rate(5, Unit::Day),
            emails: rate(30, Unit::Day),
            onboardings: rate(10, Unit::Minute),
            quotes: rate(60, Unit::Minute),
            quotes_a_day: rate(1_000, Unit::Day),
            reads: rate(2_000, Unit::Second),
            account_reads: rate(100, Unit::Second),
            launches: rate(20, Unit::Minute),
            all_launches: rate(500, Unit::Second),
            spend_a_day: BTreeMap::new(),
            spend_a_day_unlisted: SpendUpTo::one(),
            outflow_an_hour: BTreeMap::new(),
            external_addresses: None,
            spend_a_day_after_recovery: BTreeMap::new(),
        }
    }
}

impl LimitSettings {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for (key, rate) in [
            ("reads", self.reads),
            ("account_reads", self.account_reads),
            ("launches", self.launches),
            ("all_launches", self.all_launches),
        ] {
            if rate.burst == 0 {
                return Err(ConfigError::expected(&format!("limits.{key}"), "expected at least 1"));
            }
        }
        Ok(())
    }

    /// Recoveries without an e-mail address that this many accounts may request together.
    pub(crate) fn recoveries_without_email(&self, accounts: u64) -> RateLimit {
        let limit = self.recoveries_without_email.limit();
        let share = RateLimit::a_day(u32::try_from(accounts / 1_000).unwrap_or(u32::MAX));
        if limit.burst > 0 && share.burst > limit.burst { share } else { limit }
    }

    /// The external addresses that can be paid, by the short name of their chain.
    pub(crate) fn external(
        &self,
        chains: &Chains,
        primary: &str,
    ) -> Result<Option<BTreeMap<String, Vec<EthAddress>>>, ConfigError> {
        let Some(listed) = &self.external_addresses else { return Ok(None) };
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ExternalAddress { chain, address } in listed {
            let chain = chain.as_deref().unwrap_or(primary);
            if !chains.contains_key(chain) {
                let expected = format!("no chain has the short name {chain:?}");
                return Err(ConfigError::expected("limits.external_addresses", &expected));
            }
            found.entry(chain.to_owned()).or_default().push(*address);
        }
        Ok(Some(found))
    }

    /// The spending limits in the smallest units of the assets.
    pub(crate) fn spending(
        &self,
        chains: &Chains,
        recovery: &RecoveryRules,
    ) -> Result<SpendingRules, ConfigError> {
        let mut rules = SpendingRules { hold: recovery.hold, ..SpendingRules::default() };
        if let SpendUpTo::UpTo(amount) = &self.spend_a_day_unlisted {
            for asset in all_assets(chains, "limits.spend_a_day_unlisted") {
                rules.a_day.insert(asset.id, asset.units(amount)?);
            }
        }
        let key = "limits.spend_a_day";
        for (asset, amount) in named_assets(chains, key, &self.spend_a_day)? {
            rules.a_day.insert(asset.id, asset.units(amount)?);
        }
        let key = "limits.outflow_an_hour";
        for (asset, amount) in named_assets(chains, key, &self.outflow_an_hour)? {
            rules.outflow.insert(asset.id, asset.units(amount)?);
        }
        let key = "limits.spend_a_day_after_recovery";
        for (asset, spend) in named_assets(chains, key, &self.spend_a_day_after_recovery)? {
            let allowance = match spend {
                SpendUpTo::UpTo(amount) => Allowance::UpTo(asset.units(amount)?),
                SpendUpTo::Unlimited => Allowance::Unlimited,
            };
            rules.after_recovery.insert(asset.id, allowance);
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_number_per_unit() {
        let limit = |text: &str| text.parse::<Rate>().map(Rate::limit);
        let eight_hours = Duration::from_secs(8 * 60 * 60);
        assert_eq!(limit("3/day"), Ok(RateLimit { burst: 3, period: eight_hours }));
        assert_eq!(limit("0/day").map(|limit| limit.burst), Ok(0));
        let quota = "2000/second".parse::<Rate>().unwrap().quota();
        assert_eq!(quota, Quota::per_second(NonZeroU32::new(2_000).unwrap()));
        for bad in [
            "",
            "3",
            "/day",
            "3/",
            "3/week",
            "3/days",
            "-3/day",
            "+3/day",
            "1000000001/day",
            "3 / day",
            "3/Day",
        ] {
            assert_eq!(limit(bad), Err(RateError), "{bad}");
        }
    }
}
