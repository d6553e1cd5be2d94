//! Deletes what is not needed any more, in small batches.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::StoreError;
use kms_types::{EventStream, Timestamp};

use crate::database::Database;
use crate::schema::{replacements, settlements};

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

    /// Deletes, of at most `at_most` transfers that were final before a time and whose signed bytes
    /// are erased, the transactions that did not get into the block, and the requests to sign
    /// again. Returns the number of transfers.
    ///
    /// What proves the end of a transfer is kept: the transaction in the block, and its settlement.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_old_attempts(
        &self,
        before: Timestamp,
        at_most: u32,
    ) -> Result<usize, StoreError> {
        #[derive(QueryableByName)]
        struct Old {
            #[diesel(sql_type = Text)]
            transfer_id: String,
        }
        let skip_locked = self.dialect.skip_locked();
        let select = format!(
            "select transfer_id from settlements where has_attempts and final_at < $1 \
             and bytes_until is null order by final_at limit $2 {skip_locked}"
        );
        let delete = "delete from signed_transactions where transfer_id = $1 \
             and tx_hash <> (select tx_hash from settlements where transfer_id = $1)";
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let old: Vec<Old> = diesel::sql_query(select)
                    .bind::<BigInt, _>(before.0)
                    .bind::<BigInt, _>(i64::from(at_most))
                    .load(connection)?;
                let ids: Vec<String> = old.into_iter().map(|old| old.transfer_id).collect();
                for id in &ids {
                    diesel::sql_query(delete).bind::<Text, _>(id).execute(connection)?;
                }
                let requests = replacements::table.filter(replacements::transfer_id.eq_any(&ids));
                diesel::delete(requests).execute(connection)?;
                let cleaned = settlements::table.filter(settlements::transfer_id.eq_any(&ids));
                diesel::update(cleaned)
                    .set(settlements::has_attempts.eq(false))
                    .execute(connection)?;
                Ok(ids.len())
            })
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
