//! Rate limits shared by all servers: GCRA, in one statement, by the database's clock.

use std::fmt::Display;
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;
use sha2::{Digest, Sha256};

use crate::database::{AnyConnection, Database, all_or_nothing, cached_query};
use crate::dialect::Dialect;

/// How far the database's clock may be set back, in milliseconds, before buckets that were filled
/// before count as full.
const SKEW: i64 = 60_000;

/// A token bucket: capacity `burst`, one token per `period`. A burst of zero forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The capacity of the bucket.
    pub burst: u32,
    /// The time in which one token is refilled.
    pub period: Duration,
}

/// The limit that refused, of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitExceeded {
    /// Its index.
    pub index: usize,
    /// When its bucket has a token again.
    pub wait: Duration,
}

impl RateLimit {
    /// `burst` tokens, refilled over a day.
    #[must_use]
    pub fn a_day(burst: u32) -> Self {
        Self::within(burst, Duration::from_secs(24 * 60 * 60))
    }

    /// `burst` tokens, refilled over an hour.
    #[must_use]
    pub fn an_hour(burst: u32) -> Self {
        Self::within(burst, Duration::from_secs(60 * 60))
    }

    /// `burst` tokens, refilled over a minute.
    #[must_use]
    pub fn a_minute(burst: u32) -> Self {
        Self::within(burst, Duration::from_secs(60))
    }

    fn within(burst: u32, time: Duration) -> Self {
        Self { burst, period: time / burst.max(1) }
    }
}

impl Database {
    /// Takes a token from the key's bucket, or returns when it has one again. A crash of the
    /// database may refill the tokens of its last half second.
    ///
    /// # Errors
    /// When the database does not answer. The caller must refuse the request then.
    pub async fn take(
        &self,
        key: &str,
        limit: RateLimit,
    ) -> Result<Result<(), Duration>, StoreError> {
        let (key, dialect) = (hashed(key), self.dialect);
        let unsynced = dialect.without_waiting_for_disk();
        self.blocking(move |connection| Ok(take(connection, dialect, &key, limit, unsynced)?)).await
    }

    /// Takes a token from the bucket of each key in turn, and from no later one once there is none.
    /// A crash of the database may refill those of its last half second.
    ///
    /// # Errors
    /// When the database does not answer. The caller must refuse the request then.
    pub async fn take_in_turn(
        &self,
        limits: &[(&str, RateLimit)],
    ) -> Result<Result<(), RateLimitExceeded>, StoreError> {
        let (dialect, unsynced) = (self.dialect, self.dialect.without_waiting_for_disk());
        let limits: Vec<_> = limits.iter().map(|(key, limit)| (hashed(key), *limit)).collect();
        self.blocking(move |connection| {
            let taken = match &mut *connection {
                #[cfg(feature = "postgres")]
                AnyConnection::Postgres(connection) => at_once(connection, dialect, &limits)?,
                #[cfg(feature = "sqlite")]
                AnyConnection::Sqlite(_) => 0,
            };
            // The one that refused, whose wait is read, and those after it.
            for (index, (key, limit)) in limits.iter().enumerate().skip(taken) {
                if let Err(wait) = take(connection, dialect, key, *limit, unsynced)? {
                    return Ok(Err(RateLimitExceeded { index, wait }));
                }
            }
            Ok(Ok(()))
        })
        .await
    }

    /// Takes a token from the bucket of each key, or from none of them. Repeats with the same id
    /// take none until a full bucket would have been refilled. Callers that share keys must pass
    /// them in the same order, so that their transactions do not deadlock.
    ///
    /// # Errors
    /// When the database does not answer. The caller must refuse the request then.
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
                    // Written first: the row lock serializes concurrent repeats.
                    if take(connection, dialect, once_key, *once, SYNCED)?.is_err() {
                        continue;
                    }
                    if let Err(wait) = take(connection, dialect, key, *limit, SYNCED)? {
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

    /// Deletes at most `at_most` rows whose bucket is full again, which equals an unused key, and
    /// returns their number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_refilled_rate_limits(&self, at_most: u32) -> Result<usize, StoreError> {
        let (now, skip_locked) = (self.dialect.clock(), self.dialect.skip_locked());
        let delete = format!(
            "delete from rate_limits where key in \
             (select key from rate_limits where tat <= {now} limit $1 {skip_locked})"
        );
        self.blocking(move |connection| {
            let at_most = i64::from(at_most);
            Ok(diesel::sql_query(delete).bind::<BigInt, _>(at_most).execute(connection)?)
        })
        .await
    }
}

/// Takes a token within the caller's transaction, which must be rolled back if there is none.
#[cfg(feature = "transfers")]
pub(crate) fn take_within(
    connection: &mut AnyConnection,
    dialect: Dialect,
    key: &str,
    limit: RateLimit,
) -> Result<Result<(), Duration>, Error> {
    take(connection, dialect, &hashed(key), limit, SYNCED)
}

/// Takes, within the caller's transaction, what the key's bucket refills in the time `part`, or
/// returns when there is as much in it. From empty to full it refills in the time `whole`.
#[cfg(feature = "transfers")]
pub(crate) fn take_part_within(
    connection: &mut AnyConnection,
    dialect: Dialect,
    key: &str,
    (part, whole): (Duration, Duration),
) -> Result<Result<(), Duration>, Error> {
    // The statement inserts the first row of a key unconditionally.
    if part > whole {
        return Ok(Err(whole));
    }
    let times = (milliseconds(part), milliseconds(whole));
    take_time(connection, dialect, &hashed(key), times, SYNCED)
}

/// The condition of a transaction that waits for the disk.
const SYNCED: &str = "true";

/// Hashes a key, which may contain personal data.
fn hashed(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn take(
    connection: &mut AnyConnection,
    dialect: Dialect,
    key: &str,
    limit: RateLimit,
    commit: &str,
) -> Result<Result<(), Duration>, Error> {
    // The statement inserts the first row of a key unconditionally.
    if limit.burst == 0 {
        return Ok(Err(limit.period));
    }
    let taken = take_time(connection, dialect, key, times(limit), commit)?;
    Ok(taken.map_err(|wait| wait.min(limit.period)))
}

/// The milliseconds in which a token is refilled, and the whole bucket.
fn times(limit: RateLimit) -> (i64, i64) {
    let period = milliseconds(limit.period);
    (period, period.saturating_mul(limit.burst.into()))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 1024).max(1)
}

/// Takes what a bucket refills in `period` milliseconds; it refills in `reach`.
fn take_time(
    connection: &mut AnyConnection,
    dialect: Dialect,
    key: &str,
    (period, reach): (i64, i64),
    commit: &str,
) -> Result<Result<(), Duration>, Error> {
    #[derive(QueryableByName)]
    struct Wait {
        #[diesel(sql_type = BigInt)]
        wait: i64,
    }
    let (now, greatest) = (dialect.clock(), dialect.greatest());
    let taken = cached_query(taking(dialect, 1, &format!("where {commit}")))
        .bind::<Text, _>(key.to_owned())
        .bind::<BigInt, _>(period)
        .bind::<BigInt, _>(reach)
        .execute(connection)?;
    if taken == 1 {
        return Ok(Ok(()));
    }
    let found: Option<Wait> = diesel::sql_query(format!(
        "select {greatest}(rate_limits.tat + $1 - $2 - {now}, 1) as wait \
         from rate_limits where key = $3"
    ))
    .bind::<BigInt, _>(period)
    .bind::<BigInt, _>(reach)
    .bind::<Text, _>(key)
    .get_result(connection)
    .optional()?;
    let wait = found.map_or(1, |found| found.wait);
    Ok(Err(Duration::from_millis(u64::try_from(wait).unwrap_or(1))))
}

/// The statement that takes what a bucket refills in a period, if there is as much in it. Its key,
/// the period, and the time in which the bucket refills are the parameters from `first` on.
fn taking(dialect: Dialect, first: usize, condition: &str) -> String {
    let (now, greatest) = (dialect.clock(), dialect.greatest());
    let (key, period, reach) = (first, first + 1, first + 2);
    // A time that no request can reach was written while the clock was ahead: the bucket is full.
    let next = format!(
        "case when rate_limits.tat > {now} + ${reach} + {SKEW} then {now} \
         else {greatest}(rate_limits.tat, {now}) end + ${period}"
    );
    format!(
        "insert into rate_limits (key, tat) select ${key}, {now} + ${period} {condition} \
         on conflict (key) do update set tat = {next} where {next} <= {now} + ${reach}"
    )
}

/// Takes a token of each limit in turn, in one statement, and returns of how many there was one.
#[cfg(feature = "postgres")]
fn at_once(
    connection: &mut diesel::PgConnection,
    dialect: Dialect,
    limits: &[(String, RateLimit)],
) -> Result<usize, Error> {
    #[derive(QueryableByName)]
    struct Taken {
        #[diesel(sql_type = BigInt)]
        taken: i64,
    }
    // Such a bucket is never there, and the statement would insert it.
    if limits.is_empty() || limits.iter().any(|(_, limit)| limit.burst == 0) {
        return Ok(0);
    }
    let (mut steps, mut counts) = (Vec::new(), Vec::new());
    for index in 0..limits.len() {
        // Nothing is taken without the one before.
        let after = index.checked_sub(1).map(|before| format!("from taken_{before} "));
        let condition =
            format!("{}where {}", after.unwrap_or_default(), dialect.without_waiting_for_disk());
        let take = taking(dialect, 3 * index + 1, &condition);
        steps.push(format!("taken_{index} as ({take} returning key)"));
        counts.push(format!("(select count(*) from taken_{index})"));
    }
    let all = format!("with {} select {} as taken", steps.join(", "), counts.join(" + "));
    let mut all = cached_query(all);
    for (key, limit) in limits {
        let ((period, reach), key) = (times(*limit), key.clone());
        all = all.bind::<Text, _>(key).bind::<BigInt, _>(period).bind::<BigInt, _>(reach);
    }
    let Taken { taken } = all.get_result(connection)?;
    Ok(usize::try_from(taken).unwrap_or_default())
}
