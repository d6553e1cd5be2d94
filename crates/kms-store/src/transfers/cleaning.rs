//! Deletes what is not needed any more, in small batches.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;
use kms_types::{EventStream, Timestamp};

use crate::database::Database;

impl Database {
    /// Deletes at most `at_most` quotes from before a time that were not signed, and returns their
    /// number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_unsigned_quotes(
        &self,
        before: Timestamp,
        at_most: u32,
    ) -> Result<usize, StoreError> {
        let skip_locked = self.dialect.skip_locked();
        let delete = format!(
            "delete from transfers where id in (select id from transfers where created_at < $1 \
             and tx_hash is null and state in ('quoted', 'expired', 'cancelled') \
             limit $2 {skip_locked})"
        );
        self.blocking(move |connection| {
            let delete = diesel::sql_query(delete).bind::<BigInt, _>(before.0);
            Ok(delete.bind::<BigInt, _>(i64::from(at_most)).execute(connection)?)
        })
        .await
    }

    /// Deletes at most `at_most` of the oldest events of each stream from before a time, and
    /// returns their number. Keeps the newest event of each, to which cursors point.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_events(
        &self,
        before: Timestamp,
        at_most: u32,
    ) -> Result<usize, StoreError> {
        let delete = "delete from events where seq in (select seq from \
            (select seq, at from events where stream = $1 order by tx, seq limit $2) as oldest \
            where at < $3) and (tx, seq) < \
            (select tx, seq from events where stream = $1 order by tx desc, seq desc limit 1)";
        self.blocking(move |connection| {
            let mut deleted = 0;
            for stream in [EventStream::Security, EventStream::Payments] {
                deleted += diesel::sql_query(delete)
                    .bind::<Text, _>(stream.as_str())
                    .bind::<BigInt, _>(i64::from(at_most))
                    .bind::<BigInt, _>(before.0)
                    .execute(connection)?;
            }
            Ok(deleted)
        })
        .await
    }
}
