//! The operator's pause of recoveries. It is kept in both databases under MACs, and holds if either
//! of them says so or cannot be believed: an attacker who writes to one of them does not end it.

mod waits;

use std::time::Duration;

use diesel::prelude::*;
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, RowMac, ServerKeyId, ServerKeys, integrity_alarm};
use kms_types::Timestamp;

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::keys::KeyDatabase;
use crate::schema::switches;
use crate::server_keys::{BATCH, StaleMac};

const TABLE: &str = "switches";

/// The name of the switch.
const NAME: &str = "recoveries";

/// Why recoveries are paused.
#[derive(Debug)]
pub enum Paused {
    /// An operator paused them at this time.
    Since(Timestamp),
    /// A record of the pause fails its check.
    Unreadable(StoreError),
}

/// The switch as each database holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Switch {
    paused: bool,
    changed_at: Timestamp,
}

/// All columns, in the order of the table.
type Columns = (String, bool, i64, i32, Vec<u8>);

impl Switch {
    fn with_mac_fields<T>(self, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        let at = self.changed_at.0.to_be_bytes();
        work(&[TABLE.as_bytes(), NAME.as_bytes(), &[self.paused.into()], &at])
    }

    fn mac(self, keys: &ServerKeys) -> RowMac {
        self.with_mac_fields(|fields| keys.row.mac(fields))
    }

    fn verified(self, mac: RowMac, keys: &ServerKeys) -> Result<Self, StoreError> {
        let row = RowRef { table: TABLE, key: NAME };
        self.with_mac_fields(|fields| keys.row.verify(&mac, fields))
            .map_err(|error| row.not_verified(error))?;
        Ok(self)
    }

    fn parse(
        (name, paused, at, mac_key, mac): Columns,
        keys: &ServerKeys,
    ) -> Result<Self, StoreError> {
        let mac = RowRef { table: TABLE, key: &name }.mac(mac_key, &mac)?;
        Self { paused, changed_at: Timestamp(at) }.verified(mac, keys)
    }

    /// The line in the key database: `1 TIME MAC` or `0 TIME MAC`.
    fn line(self, keys: &ServerKeys) -> String {
        format!("{} {} {}", u8::from(self.paused), self.changed_at.0, self.mac(keys))
    }

    fn parse_line(line: &str, keys: &ServerKeys) -> Result<Self, StoreError> {
        let row = RowRef { table: TABLE, key: "the key database" };
        let [paused, at, mac] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(row.corrupt("not three words"));
        };
        let paused = match paused {
            "0" => false,
            "1" => true,
            _ => return Err(row.corrupt("neither 0 nor 1")),
        };
        Self { paused, changed_at: Timestamp(row.parse(at)?) }.verified(row.parse(mac)?, keys)
    }
}

/// Returns the version of the row key of the line in a key database; `None` if it is malformed.
#[must_use]
pub fn pause_line_version(line: &str) -> Option<ServerKeyId> {
    Some(line.rsplit(' ').next()?.parse::<RowMac>().ok()?.key)
}

/// Returns the switch if its MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Columns> = switches::table
        .filter(switches::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(switches::name.gt(after))
        .order(switches::name)
        .limit(BATCH)
        .load(connection)?;
    let stale = |row: Columns| {
        let (key, old) = (row.0.clone(), row.4.clone());
        let new = Switch::parse(row, keys).map(|switch| switch.mac(keys));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

impl Database {
    /// Returns why recoveries are paused, if they are.
    ///
    /// # Errors
    /// When a database does not answer. The caller must refuse recoveries then.
    pub async fn recoveries_paused(
        &self,
        key_database: &dyn KeyDatabase,
    ) -> Result<Option<Paused>, StoreError> {
        let mut since = None;
        for switch in self.switches(key_database).await? {
            match switch {
                Ok(switch) if switch.paused => since = since.max(Some(switch.changed_at)),
                Ok(_resumed) => {}
                Err(error) => {
                    let record = Some("the pause of recoveries");
                    integrity_alarm(&error, AlarmContext { record, ..AlarmContext::default() });
                    return Ok(Some(Paused::Unreadable(error)));
                }
            }
        }
        Ok(since.map(Paused::Since))
    }

    /// Reads the switch as each database holds it.
    async fn switches(
        &self,
        key_database: &dyn KeyDatabase,
    ) -> Result<Vec<Result<Switch, StoreError>>, StoreError> {
        let line = key_database.pause_line().await?;
        let row: Option<Columns> = self
            .blocking(|connection| Ok(switches::table.find(NAME).first(connection).optional()?))
            .await?;
        let row = row.map(|row| Switch::parse(row, &self.keys));
        let line = line.map(|line| Switch::parse_line(&line, &self.keys));
        Ok(row.into_iter().chain(line).collect())
    }

    /// Pauses recoveries on all servers. A pause that holds keeps its time.
    ///
    /// # Errors
    /// When a database does not answer; the pause may then be written in one of them, and holds.
    pub async fn pause_recoveries(
        &self,
        key_database: &dyn KeyDatabase,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let changed_at = match self.recoveries_paused(key_database).await? {
            Some(Paused::Since(since)) => since,
            Some(Paused::Unreadable(_)) | None => now,
        };
        self.switch(key_database, Switch { paused: true, changed_at }, |_connection| Ok(())).await
    }

    /// Resumes recoveries. Returns `false` if they were not paused.
    ///
    /// Every open wait becomes longer by the time that it was paused: of a recovery, of an owner's
    /// freeze that is to be lifted, and of leaving the page. The last two last at most as long as
    /// one that begins now, which takes `owner_wait`.
    ///
    /// # Errors
    /// When a database does not answer; recoveries may then still be paused.
    pub async fn resume_recoveries(
        &self,
        key_database: &dyn KeyDatabase,
        owner_wait: Duration,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if self.recoveries_paused(key_database).await?.is_none() {
            return Ok(false);
        }
        let mut since = Timestamp(0);
        for switch in self.switches(key_database).await? {
            // One that was resumed was not paused before that: the other write failed.
            match switch {
                Ok(switch) => since = since.max(switch.changed_at),
                // For how long is not known: every wait begins again.
                Err(_unreadable) => {
                    since = Timestamp(0);
                    break;
                }
            }
        }
        let keys = self.keys.clone();
        let extend = move |connection: &mut AnyConnection| {
            waits::extend(connection, &keys, since, owner_wait, now)
        };
        self.switch(key_database, Switch { paused: false, changed_at: now }, extend).await?;
        Ok(true)
    }

    /// Moves the MAC in the key database to the newest version of the row key. Returns `false` if
    /// it is under that already, or there is none.
    ///
    /// # Errors
    /// When a database does not answer, or the line fails its check.
    pub async fn remac_pause_line(
        &self,
        key_database: &dyn KeyDatabase,
    ) -> Result<bool, StoreError> {
        let Some(line) = key_database.pause_line().await? else { return Ok(false) };
        if pause_line_version(&line) == Some(self.keys.row.current()) {
            return Ok(false);
        }
        let switch = Switch::parse_line(&line, &self.keys)?;
        key_database.put_pause_line(&switch.line(&self.keys)).await?;
        Ok(true)
    }

    /// Writes the switch, and what `also` does in the same transaction of the account database.
    async fn switch(
        &self,
        key_database: &dyn KeyDatabase,
        switch: Switch,
        also: impl FnOnce(&mut AnyConnection) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (line, mac) = (switch.line(&self.keys), switch.mac(&self.keys));
        self.blocking(move |connection| {
            let values = (
                switches::paused.eq(switch.paused),
                switches::changed_at.eq(switch.changed_at.0),
                switches::mac_key.eq(i32::from(mac.key.as_u8())),
                switches::mac.eq(mac.tag.to_vec()),
            );
            connection.transaction(|connection| {
                let row = switches::table.find(NAME);
                if diesel::update(row).set(values.clone()).execute(connection)? == 0 {
                    diesel::insert_into(switches::table)
                        .values((switches::name.eq(NAME), values))
                        .execute(connection)?;
                }
                also(connection)
            })
        })
        .await?;
        key_database.put_pause_line(&line).await
    }
}
