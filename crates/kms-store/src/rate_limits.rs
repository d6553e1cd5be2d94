//! Rate limits that hold over all servers: GCRA, one statement on the database's own clock.

use std::fmt::Display;
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;
use sha2::{Digest, Sha256};

use crate::database::{AnyConnection, Database, Dialect, all_or_nothing};

/// How often something may be done: `burst` at once, and one more each `period`. A burst of zero is
/// never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// At once.
    pub burst: u32,
    /// Until one more.
    pub period: Duration,
}

/// Which of several limits refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitExceeded {
    /// Its place among them.
    pub index: usize,
    /// After how long it has one again.
    pub wait: Duration,
}

impl RateLimit {
    /// So many at once, and one more each time that a day divided by it is over.
    #[must_use]
    pub fn a_day(burst: u32) -> Self {
        Self::within(burst, Duration::from_secs(24 * 60 * 60))
    }

    /// So many at once, and one more each time that an hour divided by it is over.
    #[must_use]
    pub fn an_hour(burst: u32) -> Self {
        Self::within(burst, Duration::from_secs(60 * 60))
    }

    /// So many at once, and one more each time that a minute divided by it is over.
    #[must_use]
    pub fn a_minute(burst: u32) -> Self {
        Self::within(burst, Duration::from_secs(60))
    }

    fn within(burst: u32, time: Duration) -> Self {
        Self { burst, period: time / burst.max(1) }
    }
}

impl Database {
    /// Takes one from the key's allowance; or says after how long there is one again.
    ///
    /// # Errors
    /// When the database does not answer. What is limited must then be refused.
    pub async fn take(
        &self,
        key: &str,
        limit: RateLimit,
    ) -> Result<Result<(), Duration>, StoreError> {
        let (key, dialect) = (hashed(key), self.dialect);
        self.blocking(move |connection| Ok(take(connection, dialect, &key, limit)?)).await
    }

    /// Takes one from the allowance of each key for something that has an id, or nothing from any of
    /// them; and nothing for its repeats until the whole allowance would be back. Two that share
    /// keys must name them in one order.
    ///
    /// # Errors
    /// When the database does not answer. What is limited must then be refused.
    pub async fn take_once(
        &self,
        id: impl Display,
        limits: &[(&str, RateLimit)],
    ) -> Result<Result<(), RateLimitExceeded>, StoreError> {
        let dialect = self.dialect;
        let keys = limits.iter().map(|(key, limit)| {
            let once = RateLimit { burst: 1, period: limit.period.saturating_mul(limit.burst) };
            [(hashed(&format!("{key}:{id}")), once), (hashed(key), *limit)]
        });
        let keys: Vec<_> = keys.collect();
        self.blocking(move |connection| {
            let mut refused = None;
            let taken = all_or_nothing(connection, |connection| {
                for (index, [(once_key, once), (key, limit)]) in keys.iter().enumerate() {
                    // Written first, so that two repeats at once come one after the other.
                    if take(connection, dialect, once_key, *once)?.is_err() {
                        continue;
                    }
                    if let Err(wait) = take(connection, dialect, key, *limit)? {
                        refused = Some(RateLimitExceeded { index, wait });
                        return Ok(false);
                    }
                }
                Ok(true)
            });
            taken.map(|_all| refused.map_or(Ok(()), Err))
        })
        .await
    }

    /// Removes rows that say nothing any more, as many as `at_most`, and says how many: once the
    /// whole allowance is back, a key is as one that was never used.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_full_limits(&self, at_most: u32) -> Result<usize, StoreError> {
        let (now, skip_locked) = (self.dialect.clock(), self.dialect.skip_locked());
        let forget = format!(
            "delete from rate_limits where key in \
             (select key from rate_limits where tat <= {now} limit $1 {skip_locked})"
        );
        self.blocking(move |connection| {
            let at_most = i64::from(at_most);
            Ok(diesel::sql_query(forget).bind::<BigInt, _>(at_most).execute(connection)?)
        })
        .await
    }
}

/// Takes one within a transaction; for who undoes it where there is none.
#[cfg(feature = "transfers")]
pub(crate) fn take_within(
    connection: &mut AnyConnection,
    dialect: Dialect,
    key: &str,
    limit: RateLimit,
) -> Result<Result<(), Duration>, Error> {
    take(connection, dialect, &hashed(key), limit)
}

/// Keys may hold personal data; the table does not.
fn hashed(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn take(
    connection: &mut AnyConnection,
    dialect: Dialect,
    key: &str,
    limit: RateLimit,
) -> Result<Result<(), Duration>, Error> {
    #[derive(QueryableByName)]
    struct Wait {
        #[diesel(sql_type = BigInt)]
        wait: i64,
    }
    // The first row of a key is written whatever the burst.
    if limit.burst == 0 {
        return Ok(Err(limit.period));
    }
    let period = i64::try_from(limit.period.as_millis()).unwrap_or(i64::MAX / 1024).max(1);
    let reach = period.saturating_mul(limit.burst.into());
    let (now, greatest) = (dialect.clock(), dialect.greatest());
    let next = format!("{greatest}(rate_limits.tat, {now}) + $2");
    let taken = diesel::sql_query(format!(
        "insert into rate_limits (key, tat) values ($1, {now} + $2) \
         on conflict (key) do update set tat = {next} where {next} <= {now} + $3"
    ))
    .bind::<Text, _>(key)
    .bind::<BigInt, _>(period)
    .bind::<BigInt, _>(reach)
    .execute(connection)?;
    if taken == 1 {
        return Ok(Ok(()));
    }
    let found: Option<Wait> = diesel::sql_query(format!(
        "select {greatest}(rate_limits.tat + $1 - $2 - {now}, 1) as wait from rate_limits where key = $3"
    ))
    .bind::<BigInt, _>(period)
    .bind::<BigInt, _>(reach)
    .bind::<Text, _>(key)
    .get_result(connection)
    .optional()?;
    let wait = found.map_or(1, |found| found.wait);
    Ok(Err(Duration::from_millis(u64::try_from(wait).unwrap_or(1))))
}
