//! Rate limits that hold over all servers: GCRA, one statement on the database's own clock.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;
use sha2::{Digest, Sha256};

use crate::database::Database;

/// How often something may be done: `burst` at once, and one more each `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At once.
    pub burst: u32,
    /// Until one more.
    pub period: Duration,
}

impl Database {
    /// Takes one from the key's allowance; or says after how long there is one again.
    ///
    /// # Errors
    /// When the database does not answer. What is limited must then be refused.
    pub async fn take(&self, key: &str, limit: Limit) -> Result<Result<(), Duration>, StoreError> {
        #[derive(QueryableByName)]
        struct Wait {
            #[diesel(sql_type = BigInt)]
            wait: i64,
        }
        // Keys may hold personal data; the table does not.
        let key: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let period = i64::try_from(limit.period.as_millis()).unwrap_or(i64::MAX / 1024).max(1);
        let reach = period.saturating_mul(limit.burst.into());
        let (now, greatest) = (self.dialect.clock(), self.dialect.greatest());
        let next = format!("{greatest}(limits.tat, {now}) + $2");
        let take = format!(
            "insert into limits (key, tat) values ($1, {now} + $2) \
             on conflict (key) do update set tat = {next} where {next} <= {now} + $3"
        );
        let wait = format!(
            "select {greatest}(limits.tat + $1 - $2 - {now}, 1) as wait from limits where key = $3"
        );
        self.blocking(move |connection| {
            let taken = diesel::sql_query(take)
                .bind::<Text, _>(&key)
                .bind::<BigInt, _>(period)
                .bind::<BigInt, _>(reach)
                .execute(connection)?;
            if taken == 1 {
                return Ok(Ok(()));
            }
            let found: Option<Wait> = diesel::sql_query(wait)
                .bind::<BigInt, _>(period)
                .bind::<BigInt, _>(reach)
                .bind::<Text, _>(&key)
                .get_result(connection)
                .optional()?;
            let wait = found.map_or(1, |found| found.wait);
            Ok(Err(Duration::from_millis(u64::try_from(wait).unwrap_or(1))))
        })
        .await
    }
}
