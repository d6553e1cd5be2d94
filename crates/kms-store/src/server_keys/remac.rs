//! Moves the MACs of rows to the newest version of the row key, beside servers that change the same
//! rows: each row is verified under its own version, and its MAC replaced if it is still that one.

use diesel::prelude::*;
use diesel::sql_types::{Binary, Integer, Text};
use kms_core::ports::StoreError;
use kms_core::{ServerKeys, failpoint};

use super::{MovedBatch, StaleMac};
use crate::accounts::{contacts, rows as accounts};
use crate::database::{AnyConnection, Database, Failure};
use crate::{api_tokens, launches, names, orphaned_scks, pause, proposals, recoveries};

/// A table whose rows carry a MAC.
pub(super) struct MacTable {
    pub(super) name: &'static str,
    /// The first column of its primary key.
    key: &'static str,
    /// Returns the next rows under older versions after a cursor, in the order of the cursor.
    stale: fn(&mut AnyConnection, &ServerKeys, &str) -> Result<Vec<StaleMac>, Failure>,
}

pub(super) const MAC_TABLES: &[MacTable] = &[
    MacTable { name: "accounts", key: "id", stale: accounts::stale_macs },
    MacTable { name: "recoveries", key: "id", stale: recoveries::stale_macs },
    MacTable { name: "email_changes", key: "account_id", stale: contacts::stale_macs },
    MacTable { name: "api_tokens", key: "id", stale: api_tokens::stale_macs },
    MacTable { name: "names", key: "canonical", stale: names::stale_macs },
    MacTable { name: "switches", key: "name", stale: pause::stale_macs },
    MacTable { name: "proposals", key: "subject", stale: proposals::stale_macs },
    MacTable { name: "launches", key: "id", stale: launches::stale_macs },
    MacTable { name: "orphaned_scks", key: "sck_id", stale: orphaned_scks::stale_macs },
    #[cfg(feature = "transfers")]
    MacTable {
        name: "spending_limits",
        key: "account_id",
        stale: crate::transfers::spending_limits::stale_macs,
    },
    #[cfg(feature = "transfers")]
    MacTable { name: "spends", key: "transfer_id", stale: crate::transfers::spends::stale_macs },
];

impl Database {
    /// Lists the tables whose rows carry a MAC.
    #[must_use]
    pub fn mac_tables() -> Vec<&'static str> {
        MAC_TABLES.iter().map(|table| table.name).collect()
    }

    /// Moves the MACs of the next rows of a table, after `cursor`, which is empty at first. A crash
    /// between any two writes leaves rows that verify.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remac(&self, table: &'static str, cursor: &str) -> Result<MovedBatch, StoreError> {
        let (keys, cursor) = (self.keys.clone(), cursor.to_owned());
        self.without_deadline(move |connection| {
            let mut batch = MovedBatch::default();
            let Some(table) = MAC_TABLES.iter().find(|known| known.name == table) else {
                return Ok(batch);
            };
            for row in (table.stale)(connection, &keys, &cursor)? {
                batch.next = Some(row.cursor.clone());
                let Some(new) = row.new.map_err(|error| batch.failed.push(error)).ok() else {
                    continue;
                };
                failpoint::reach("remac-before-write");
                let replaced = diesel::sql_query(format!(
                    "update {} set mac_key = $1, mac = $2 where {} = $3 and mac = $4",
                    table.name, table.key
                ))
                .bind::<Integer, _>(i32::from(new.key.as_u8()))
                .bind::<Binary, _>(new.tag.to_vec())
                .bind::<Text, _>(row.key)
                .bind::<Binary, _>(row.old)
                .execute(connection)?;
                failpoint::reach("remac-after-write");
                batch.moved += u64::from(replaced == 1);
            }
            Ok(batch)
        })
        .await
    }
}
