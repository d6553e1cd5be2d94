//! The limit on reads, in the memory of this process: exact over several servers is not worth a
//! write for each read. It keeps a caller from emptying the database, and one account's flood from
//! the others.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use kms_types::ErrorCode;

use crate::error::ApiError;

/// From this many keys on, those that have all of their allowance again are forgotten.
const MANY: usize = 50_000;
/// No account is named by more.
const LONGEST: usize = 64;

/// Who reads how much.
#[derive(Debug)]
pub(crate) struct ReadLimits {
    callers: DefaultKeyedRateLimiter<String>,
    accounts: DefaultKeyedRateLimiter<String>,
}

impl ReadLimits {
    pub(crate) fn new(of_a_caller: Quota, of_an_account: Quota) -> Self {
        Self {
            callers: DefaultKeyedRateLimiter::keyed(of_a_caller),
            accounts: DefaultKeyedRateLimiter::keyed(of_an_account),
        }
    }

    /// Takes one read of this caller, of this account if it is of one.
    pub(crate) fn take(&self, caller: &str, account: Option<&str>) -> Result<(), ApiError> {
        take(&self.callers, caller, "too many reads of this caller; wait a moment")?;
        match account {
            // A longer one is refused where it is parsed.
            Some(account) if account.len() <= LONGEST => {
                take(&self.accounts, account, "too many reads of this account; wait a moment")
            }
            _ => Ok(()),
        }
    }
}

fn take(
    limiter: &DefaultKeyedRateLimiter<String>,
    key: &str,
    detail: &'static str,
) -> Result<(), ApiError> {
    if limiter.len() > MANY {
        limiter.retain_recent();
    }
    limiter.check_key(&key.to_owned()).map_err(|until| {
        let after = until.wait_time_from(DefaultClock::default().now());
        ApiError::TooMany { code: ErrorCode::RateLimited, detail, after }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_and_an_account_have_each_their_own() {
        let three = Quota::per_second(3.try_into().unwrap());
        let two = Quota::per_second(2.try_into().unwrap());
        let limits = ReadLimits::new(three, two);
        for _ in 0..2 {
            limits.take("bot", Some("ann")).unwrap();
        }
        assert!(limits.take("bot", Some("ann")).is_err());
        assert!(limits.take("bot", Some("bob")).is_err(), "the caller has used up its own");
        limits.take("reader", Some("bob")).unwrap();
    }
}
