//! Password lockout: failed attempts delay the next ones. One row for an account, one statement for
//! an attempt.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Text};
use kms_core::ports::{PasswordGate, PasswordGateDecision, StoreError};
use kms_types::{AccountId, RecoveryId, Timestamp};

use crate::database::{AnyConnection, Database, cached_query};
use crate::rate_limits::RateLimit;
use crate::recoveries;
use crate::schema::password_attempts;

/// The lockout after the fifth failure in milliseconds. Each further failure doubles it.
const FIRST_LOCK: i64 = 15 * 60 * 1000;
/// The longest lockout in milliseconds.
const LONGEST_LOCK: i64 = 24 * 60 * 60 * 1000;

/// How far the clocks of two servers may be apart in milliseconds.
const SKEW: i64 = 60_000;
/// Attempts to cancel a recovery of a locked account.
const WHILE_LOCKED_A_DAY: u32 = 3;

/// Deletes the count of an account whose password was verified or replaced.
pub(crate) fn reset(connection: &mut AnyConnection, account: AccountId) -> Result<(), Error> {
    diesel::delete(password_attempts::table.find(account.to_string())).execute(connection)?;
    Ok(())
}

#[async_trait]
impl PasswordGate for Database {
    async fn count_attempt(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<PasswordGateDecision, StoreError> {
        let (least, unsynced) = (self.dialect.least(), self.dialect.without_waiting_for_disk());
        // The INTENT, which is written before the password is tried, makes it durable.
        let statement = format!(
            "insert into password_attempts (account_id, failures, locked_until) \
             select $1, 1, 0 where {unsynced} \
             on conflict (account_id) do update set \
             failures = password_attempts.failures + 1, \
             locked_until = case when password_attempts.failures < 4 then 0 else $2 + {least}( \
             {LONGEST_LOCK}, cast({FIRST_LOCK} as bigint) << \
             cast({least}(password_attempts.failures - 4, 7) as integer)) end \
             where password_attempts.locked_until <= $2 \
             or password_attempts.locked_until > $2 + {LONGEST_LOCK} + {SKEW}"
        );
        self.blocking(move |connection| {
            let key = account.to_string();
            let counted = cached_query(statement)
                .bind::<Text, _>(key.clone())
                .bind::<BigInt, _>(now.0)
                .execute(connection)?;
            if counted == 1 {
                return Ok(PasswordGateDecision::Counted);
            }
            let until = password_attempts::table
                .find(&key)
                .select(password_attempts::locked_until)
                .first::<i64>(connection)
                .optional()?;
            // A successful attempt may have deleted the row meanwhile; the next attempt is counted.
            Ok(PasswordGateDecision::LockedUntil(until.map_or(now, Timestamp)))
        })
        .await
    }

    async fn count_attempt_while_locked(&self, account: AccountId) -> Result<bool, StoreError> {
        let limit = RateLimit::a_day(WHILE_LOCKED_A_DAY);
        Ok(self.take(&format!("locked:{account}"), limit).await?.is_ok())
    }

    async fn refund_attempt(&self, account: AccountId) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            let row = password_attempts::table.find(account.to_string());
            // An attempt is counted only while there is no lockout, so this attempt started it, or
            // the fifth of several concurrent ones did, of which four remain.
            diesel::update(row.filter(password_attempts::failures.gt(0)))
                .set((
                    password_attempts::failures.eq(password_attempts::failures - 1),
                    password_attempts::locked_until.eq(0),
                ))
                .execute(connection)?;
            Ok(())
        })
        .await
    }

    async fn accept(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Option<RecoveryId>, StoreError> {
        let (keys, unsynced) = (self.keys.clone(), self.dialect.without_waiting_for_disk());
        // If it is lost, an attempt too many counts. A recovery that is requested meanwhile is
        // as one that was requested after the password was tried.
        let delete = format!(
            "delete from password_attempts where account_id = $1 and not exists \
             (select 1 from recoveries where account_id = $1 and {}) and {unsynced}",
            recoveries::OPEN
        );
        self.blocking(move |connection| {
            let deleted =
                cached_query(delete).bind::<Text, _>(account.to_string()).execute(connection)?;
            if deleted == 1 {
                return Ok(None);
            }
            connection.transaction(|connection| {
                reset(connection, account)?;
                recoveries::cancel_readable(connection, account, now, &keys)
            })
        })
        .await
    }
}
