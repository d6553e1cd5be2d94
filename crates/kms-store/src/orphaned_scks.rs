//! Orphaned SCKs: wrapped SCKs that no wallet refers to, and since when. The time is kept in the
//! account database: an attacker who compromises only the key database cannot age an SCK, and a
//! restored backup of the account database starts the time again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use kms_core::ports::StoreError;
use kms_core::{RowMac, ServerKeys};
use kms_types::{SckId, Timestamp};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::schema::{orphaned_scks, wallets};
use crate::server_keys::{BATCH, StaleMac};

const TABLE: &str = "orphaned_scks";

fn with_mac_fields<T>(id: SckId, since: i64, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    work(&[TABLE.as_bytes(), id.as_bytes(), &since.to_be_bytes()])
}

/// Returns the next records whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<(String, i64, i32, Vec<u8>)> = orphaned_scks::table
        .filter(orphaned_scks::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(orphaned_scks::sck_id.gt(after))
        .order(orphaned_scks::sck_id)
        .limit(BATCH)
        .load(connection)?;
    let stale = |(key, since, mac_key, old): (String, i64, i32, Vec<u8>)| {
        let row = RowRef { table: TABLE, key: &key };
        let new = row.parse(&key).and_then(|id| {
            verify(row, id, since, (mac_key, &old), keys)?;
            Ok(with_mac_fields(id, since, |fields| keys.row.mac(fields)))
        });
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

fn verify(
    row: RowRef<'_>,
    id: SckId,
    since: i64,
    (mac_key, mac): (i32, &[u8]),
    keys: &ServerKeys,
) -> Result<(), StoreError> {
    let mac = row.mac(mac_key, mac)?;
    with_mac_fields(id, since, |fields| keys.row.verify(&mac, fields))
        .map_err(|error| row.not_verified(error))
}

impl Database {
    /// Records which of these SCKs are orphaned, deletes the records of those that are not, and
    /// returns those that have been orphaned for `retention`. That is measured by the clocks of
    /// this machine and of the database, so that one clock that runs ahead ages no SCK.
    ///
    /// # Errors
    /// When the database does not answer, or a record fails its integrity check.
    pub async fn orphaned_for(
        &self,
        retention: Duration,
        scks: Vec<SckId>,
        now: Timestamp,
    ) -> Result<Vec<SckId>, StoreError> {
        let (keys, dialect) = (self.keys.clone(), self.dialect);
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let clock = clock(connection, dialect.clock())?;
                let ids: Vec<String> = scks.iter().map(SckId::to_string).collect();
                let referenced: BTreeSet<String> = wallets::table
                    .filter(wallets::sck_id.eq_any(&ids))
                    .select(wallets::sck_id)
                    .load(connection)?
                    .into_iter()
                    .collect();
                let mut records: BTreeMap<String, (i64, i32, Vec<u8>)> = orphaned_scks::table
                    .filter(orphaned_scks::sck_id.eq_any(&ids))
                    .load::<(String, i64, i32, Vec<u8>)>(connection)?
                    .into_iter()
                    .map(|(id, since, mac_key, mac)| (id, (since, mac_key, mac)))
                    .collect();
                let before = Timestamp(clock.min(now.0)).minus(retention).0;
                let mut due = Vec::new();
                for (id, key) in scks.into_iter().zip(ids) {
                    let record = records.remove(&key);
                    let is_referenced = referenced.contains(&key);
                    match record {
                        Some(_) if is_referenced => {
                            diesel::delete(orphaned_scks::table.find(key)).execute(connection)?;
                        }
                        Some((since, mac_key, mac)) => {
                            let row = RowRef { table: TABLE, key: &key };
                            verify(row, id, since, (mac_key, &mac), &keys)?;
                            if since <= before {
                                due.push(id);
                            }
                        }
                        None if is_referenced => {}
                        None => {
                            let since = clock.max(now.0);
                            let mac = with_mac_fields(id, since, |fields| keys.row.mac(fields));
                            insert(connection, key, since, &mac)?;
                        }
                    }
                }
                Ok(due)
            })
        })
        .await
    }

    /// Deletes the record of an SCK that was removed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_orphaned_sck(&self, id: SckId) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::delete(orphaned_scks::table.find(id.to_string())).execute(connection)?;
            Ok(())
        })
        .await
    }
}

fn insert(
    connection: &mut AnyConnection,
    key: String,
    since: i64,
    mac: &RowMac,
) -> Result<(), Failure> {
    diesel::insert_into(orphaned_scks::table)
        .values((
            orphaned_scks::sck_id.eq(key),
            orphaned_scks::since.eq(since),
            orphaned_scks::mac_key.eq(i32::from(mac.key.as_u8())),
            orphaned_scks::mac.eq(mac.tag.to_vec()),
        ))
        .execute(connection)?;
    Ok(())
}

fn clock(connection: &mut AnyConnection, sql: &str) -> Result<i64, Failure> {
    #[derive(QueryableByName)]
    struct Clock {
        #[diesel(sql_type = BigInt)]
        clock: i64,
    }
    let now: Clock = diesel::sql_query(format!("select {sql} as clock")).get_result(connection)?;
    Ok(now.clock)
}
