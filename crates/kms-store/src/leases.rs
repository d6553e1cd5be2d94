//! What one server at a time does: whoever holds a lease says so again before it ends.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;

use crate::database::Database;

impl Database {
    /// Takes or keeps the lease of this name for `holder`, on the database's own clock; `false`
    /// while another holds it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take_lease(
        &self,
        name: &'static str,
        holder: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let holder = holder.to_owned();
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 2);
        let now = self.dialect.clock();
        let take = format!(
            "insert into leases (name, holder, until) values ($1, $2, {now} + $3) \
             on conflict (name) do update set holder = excluded.holder, until = excluded.until \
             where leases.until <= {now} or leases.holder = excluded.holder"
        );
        self.blocking(move |connection| {
            let taken = diesel::sql_query(take)
                .bind::<Text, _>(name)
                .bind::<Text, _>(holder)
                .bind::<BigInt, _>(lifetime)
                .execute(connection)?;
            Ok(taken == 1)
        })
        .await
    }
}
