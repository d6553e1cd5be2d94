//! What an operator has paused. It is kept in both databases under MACs, and holds if either of
//! them says so or cannot be believed: an attacker who writes to one of them does not end it.

mod waits;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use diesel::prelude::*;
use kms_core::audit::{AuditRecord, Caller};
use kms_core::ports::{AuditLog, StoreError};
use kms_core::{RowMac, ServerKeyId, ServerKeys};
use kms_types::Timestamp;

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::keys::KeyDatabase;
use crate::schema::switches;
use crate::server_keys::{BATCH, StaleMac};

const TABLE: &str = "switches";

/// The name of the switch of all payments.
const ALL_PAYMENTS: &str = "payments/all";

/// What an operator can pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pausable {
    /// Requesting and completing recoveries.
    Recoveries,
    /// Quoting and signing payments on all chains, also on those that are configured later.
    AllPayments,
    /// Quoting and signing payments on one chain.
    Payments {
        /// The chain (EIP-155).
        chain_id: u64,
    },
}

impl Pausable {
    /// Payments on one chain, or without an id on all chains.
    #[must_use]
    pub fn payments(chain_id: Option<u64>) -> Self {
        chain_id.map_or(Self::AllPayments, |chain_id| Self::Payments { chain_id })
    }
}

impl fmt::Display for Pausable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recoveries => f.write_str("recoveries"),
            Self::AllPayments => f.write_str(ALL_PAYMENTS),
            Self::Payments { chain_id } => write!(f, "payments/{chain_id}"),
        }
    }
}

/// Why something is paused.
#[derive(Debug)]
pub enum Paused {
    /// An operator paused it at this time.
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
    fn with_mac_fields<T>(self, name: &str, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        let at = self.changed_at.0.to_be_bytes();
        work(&[TABLE.as_bytes(), name.as_bytes(), &[self.paused.into()], &at])
    }

    fn mac(self, name: &str, keys: &ServerKeys) -> RowMac {
        self.with_mac_fields(name, |fields| keys.row.mac(fields))
    }

    fn verified(self, name: &str, mac: RowMac, keys: &ServerKeys) -> Result<Self, StoreError> {
        let row = RowRef { table: TABLE, key: name };
        self.with_mac_fields(name, |fields| keys.row.verify(&mac, fields))
            .map_err(|error| row.not_verified(error))?;
        Ok(self)
    }

    fn parse(
        (name, paused, at, mac_key, mac): Columns,
        keys: &ServerKeys,
    ) -> Result<Self, StoreError> {
        let mac = RowRef { table: TABLE, key: &name }.mac(mac_key, &mac)?;
        Self { paused, changed_at: Timestamp(at) }.verified(&name, mac, keys)
    }

    /// The line in the key database: `1 TIME MAC` or `0 TIME MAC`.
    fn line(self, name: &str, keys: &ServerKeys) -> String {
        format!("{} {} {}", u8::from(self.paused), self.changed_at.0, self.mac(name, keys))
    }

    fn parse_line(name: &str, line: &str, keys: &ServerKeys) -> Result<Self, StoreError> {
        let row = RowRef { table: TABLE, key: "the key database" };
        let [paused, at, mac] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(row.corrupt("not three words"));
        };
        let paused = match paused {
            "0" => false,
            "1" => true,
            _ => return Err(row.corrupt("neither 0 nor 1")),
        };
        let switch = Self { paused, changed_at: Timestamp(row.parse(at)?) };
        switch.verified(name, row.parse(mac)?, keys)
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
        let new = Switch::parse(row, keys).map(|switch| switch.mac(&key, keys));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

impl Database {
    /// Returns why something is paused, if it is.
    ///
    /// # Errors
    /// When a database does not answer, unless the account database says that it is paused. The
    /// caller must refuse recoveries then.
    pub async fn paused(
        &self,
        what: Pausable,
        key_database: &dyn KeyDatabase,
    ) -> Result<Option<Paused>, StoreError> {
        let mut since = None;
        for switch in self.switches(what, key_database).await? {
            match switch {
                Ok(switch) if switch.paused => since = since.max(Some(switch.changed_at)),
                Ok(_resumed) => {}
                Err(error) => {
                    self.alarm_of_row(&error);
                    return Ok(Some(Paused::Unreadable(error)));
                }
            }
        }
        Ok(since.map(Paused::Since))
    }

    /// Reads the switch as each database holds it. That of the key database is not needed if the
    /// other one says that it is paused.
    async fn switches(
        &self,
        what: Pausable,
        key_database: &dyn KeyDatabase,
    ) -> Result<Vec<Result<Switch, StoreError>>, StoreError> {
        let name = what.to_string();
        let line = key_database.pause_line(&name).await;
        let key = name.clone();
        let row: Option<Columns> = self
            .blocking(move |connection| {
                Ok(switches::table.find(key).first(connection).optional()?)
            })
            .await?;
        let row = row.map(|row| Switch::parse(row, &self.keys));
        let line = match (&row, line) {
            (Some(Ok(Switch { paused: true, .. })), Err(_)) => None,
            (_, line) => line?,
        };
        let line = line.map(|line| Switch::parse_line(&name, &line, &self.keys));
        Ok(row.into_iter().chain(line).collect())
    }

    /// Pauses something on all servers. A pause that holds keeps its time.
    ///
    /// # Errors
    /// When a database does not answer; the pause holds if the other one has it.
    pub async fn pause(
        &self,
        what: Pausable,
        key_database: &dyn KeyDatabase,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let changed_at = match self.paused(what, key_database).await {
            Ok(Some(Paused::Since(since))) => since,
            // A database that does not answer must not keep the pause out of the other one.
            Ok(Some(Paused::Unreadable(_)) | None) | Err(_) => now,
        };
        let paused = Switch { paused: true, changed_at };
        self.switch(what, key_database, paused, |_connection| Ok(Vec::new())).await
    }

    /// Returns the chains whose payments were ever paused by name, also those that are not
    /// configured.
    ///
    /// # Errors
    /// When the account database does not answer. Without the key database, returns those of the
    /// account database.
    pub async fn chains_ever_paused(
        &self,
        key_database: &dyn KeyDatabase,
    ) -> Result<BTreeSet<u64>, StoreError> {
        let lines = key_database.pause_lines().await.unwrap_or_default();
        let rows: Vec<String> = self
            .blocking(|connection| Ok(switches::table.select(switches::name).load(connection)?))
            .await?;
        let names = rows.into_iter().chain(lines.into_iter().map(|(name, _)| name));
        let chain_id = |name: String| name.strip_prefix("payments/")?.parse().ok();
        Ok(names.filter_map(chain_id).collect())
    }

    /// Resumes payments: those of one chain, or without an id what all chains were paused by.
    /// Returns `false` if they were not paused so.
    ///
    /// # Errors
    /// When a database does not answer; they may then still be paused.
    pub async fn resume_payments(
        &self,
        chain_id: Option<u64>,
        key_database: &dyn KeyDatabase,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let payments = Pausable::payments(chain_id);
        self.resume(payments, key_database, now, |_connection, _since| Ok(Vec::new())).await
    }

    /// Resumes recoveries. Returns `false` if they were not paused.
    ///
    /// Extends every open wait by the time that it was paused: of a recovery, of an owner's
    /// freeze that is to be lifted, and of leaving the page. The last two last at most as long as
    /// one that begins now, which takes `owner_wait`. The audit has each of them, so that no row is
    /// put back as it was before the pause.
    ///
    /// # Errors
    /// When a database does not answer; recoveries may then still be paused.
    pub async fn resume_recoveries(
        &self,
        key_database: &dyn KeyDatabase,
        owner_wait: Duration,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (keys, caller) = (self.keys.clone(), caller.clone());
        let extend = move |connection: &mut AnyConnection, since| {
            waits::extend(connection, &keys, (since, owner_wait), &caller, now)
        };
        self.resume(Pausable::Recoveries, key_database, now, extend).await
    }

    /// Resumes, and does what `also` does for a pause since this time in the same transaction of
    /// the account database. Then appends the records that it returns.
    async fn resume(
        &self,
        what: Pausable,
        key_database: &dyn KeyDatabase,
        now: Timestamp,
        also: impl FnOnce(&mut AnyConnection, Timestamp) -> Result<Vec<AuditRecord>, Failure>
        + Send
        + 'static,
    ) -> Result<bool, StoreError> {
        if self.paused(what, key_database).await?.is_none() {
            return Ok(false);
        }
        let mut since = Timestamp(0);
        for switch in self.switches(what, key_database).await? {
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
        let resumed = Switch { paused: false, changed_at: now };
        self.switch(what, key_database, resumed, move |connection| also(connection, since)).await?;
        Ok(true)
    }

    /// Moves the MACs in the key database to the newest version of the row key. Returns how many.
    ///
    /// # Errors
    /// When a database does not answer, or a line fails its check.
    pub async fn remac_pause_lines(
        &self,
        key_database: &dyn KeyDatabase,
    ) -> Result<u64, StoreError> {
        let mut moved = 0;
        for (name, line) in key_database.pause_lines().await? {
            if pause_line_version(&line) == Some(self.keys.row.current()) {
                continue;
            }
            let switch = Switch::parse_line(&name, &line, &self.keys)?;
            key_database.put_pause_line(&name, &switch.line(&name, &self.keys)).await?;
            moved += 1;
        }
        Ok(moved)
    }

    /// Writes the switch, and what `also` does in the same transaction of the account database.
    /// The key database follows when the records of that are appended.
    async fn switch(
        &self,
        what: Pausable,
        key_database: &dyn KeyDatabase,
        switch: Switch,
        also: impl FnOnce(&mut AnyConnection) -> Result<Vec<AuditRecord>, Failure> + Send + 'static,
    ) -> Result<(), StoreError> {
        let name = what.to_string();
        let (line, mac) = (switch.line(&name, &self.keys), switch.mac(&name, &self.keys));
        let key = name.clone();
        let done = self.blocking(move |connection| {
            let values = (
                switches::paused.eq(switch.paused),
                switches::changed_at.eq(switch.changed_at.0),
                switches::mac_key.eq(i32::from(mac.key.as_u8())),
                switches::mac.eq(mac.tag.to_vec()),
            );
            connection.transaction(|connection| {
                let row = switches::table.find(&key);
                if diesel::update(row).set(values.clone()).execute(connection)? == 0 {
                    diesel::insert_into(switches::table)
                        .values((switches::name.eq(&key), values))
                        .execute(connection)?;
                }
                also(connection)
            })
        });
        for record in done.await? {
            self.append(record).await?;
        }
        key_database.put_pause_line(&name, &line).await
    }
}
