//! The database's clock, and leases: work that one server at a time does. The holder renews its
//! lease before it expires.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;
use kms_types::Timestamp;

use crate::database::Database;

impl Database {
    /// Returns the time of the database's clock.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        #[derive(QueryableByName)]
        struct Now {
            #[diesel(sql_type = BigInt)]
            now: i64,
        }
        let query = format!("select {} as now", self.dialect.clock());
        self.blocking(move |connection| {
            let found: Now = diesel::sql_query(query).get_result(connection)?;
            Ok(Timestamp(found.now))
        })
        .await
    }

    /// Acquires or renews the lease for `holder`, by the database's clock. Returns `false` while
    /// another holder has it. A lease that would last longer than `lifetime` is ignored: it was
    /// written by a clock that ran ahead.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn acquire_lease(
        &self,
        name: &str,
        holder: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 2);
        let now = self.dialect.clock();
        let acquire = format!(
            "insert into leases (name, holder, until) values ($1, $2, {now} + $3) \
             on conflict (name) do update set holder = excluded.holder, until = excluded.until \
             where leases.until <= {now} or leases.until > {now} + $3 \
             or leases.holder = excluded.holder"
        );
        self.blocking(move |connection| {
            let acquired = diesel::sql_query(acquire)
                .bind::<Text, _>(name)
                .bind::<Text, _>(holder)
                .bind::<BigInt, _>(lifetime)
                .execute(connection)?;
            Ok(acquired == 1)
        })
        .await
    }

    /// Ends the lease if `holder` has it, so that another server acquires it at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_lease(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.blocking(move |connection| {
            diesel::sql_query("delete from leases where name = $1 and holder = $2")
                .bind::<Text, _>(name)
                .bind::<Text, _>(holder)
                .execute(connection)?;
            Ok(())
        })
        .await
    }
}
