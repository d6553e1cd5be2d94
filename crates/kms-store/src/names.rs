//! Usernames: the claims on them, which `name-service` decides.

pub(crate) mod observations;

use diesel::prelude::*;
use diesel::result::Error;
use kms_core::account::SeenNames;
use kms_core::audit::{Action, Details, Purpose, REVISION};
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, RowMacError, ServerKeys, integrity_alarm};
use kms_types::{TelegramId, Timestamp, Username};
use name_service::Claim;
use sha2::{Digest, Sha256};

use crate::audit;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, Writes};
use crate::schema::names;
use crate::server_keys::{BATCH, StaleMac};

/// A claim as it is stored.
#[derive(Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = names, treat_none_as_null = true, treat_none_as_default_value = false)]
pub(crate) struct Row {
    telegram_id: i64,
    canonical: String,
    shown: String,
    position: i32,
    claimed_at: i64,
    seen_at: i64,
    proved_at: Option<i64>,
    reassigned: bool,
    ended_at: Option<i64>,
    previous: Vec<u8>,
    revision: i64,
    mac_key: i32,
    mac: Vec<u8>,
}

/// The `previous` of a username's first claim.
const FIRST: [u8; 32] = [0; 32];

impl Row {
    fn new(claim: &Claim, previous: [u8; 32], revision: i64, keys: &ServerKeys) -> Self {
        let mut row = Self {
            telegram_id: claim.holder.as_i64(),
            canonical: claim.username.canonical(),
            shown: claim.username.as_str().to_owned(),
            position: claim.position.into(),
            claimed_at: claim.claimed_at.0,
            seen_at: claim.seen_at.0,
            proved_at: claim.proved_at.map(|at| at.0),
            reassigned: claim.reassigned,
            ended_at: None,
            previous: previous.to_vec(),
            revision,
            mac_key: 0,
            mac: Vec::new(),
        };
        row.sign(keys);
        row
    }

    fn row_ref(&self) -> RowRef<'_> {
        RowRef { table: "names", key: &self.canonical }
    }

    fn with_mac_fields<T>(&self, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        work(&[
            b"names",
            &self.telegram_id.to_be_bytes(),
            self.canonical.as_bytes(),
            self.shown.as_bytes(),
            &i64::from(self.position).to_be_bytes(),
            &self.claimed_at.to_be_bytes(),
            &self.seen_at.to_be_bytes(),
            &self.proved_at.unwrap_or(-1).to_be_bytes(),
            &[self.reassigned.into()],
            &self.ended_at.unwrap_or(-1).to_be_bytes(),
            &self.previous,
            &self.revision.to_be_bytes(),
        ])
    }

    fn sign(&mut self, keys: &ServerKeys) {
        let mac = self.with_mac_fields(|fields| keys.row.mac(fields));
        (self.mac_key, self.mac) = (mac.key.as_u8().into(), mac.tag.to_vec());
    }

    /// The digest that the next claim on the username holds: of what never changes in a claim.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for field in [
            b"wallet-kms/v1/claim".as_slice(),
            &self.telegram_id.to_be_bytes(),
            self.canonical.as_bytes(),
            &self.claimed_at.to_be_bytes(),
            &[self.reassigned.into()],
            &self.previous,
        ] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }

    fn verify(&self, keys: &ServerKeys) -> Result<(), StoreError> {
        let row = self.row_ref();
        let mac = row.mac(self.mac_key, &self.mac)?;
        self.with_mac_fields(|fields| keys.row.verify(&mac, fields))
            .map_err(|error| row.not_verified(error))
    }

    fn claim(&self) -> Result<Claim, StoreError> {
        let row = self.row_ref();
        Ok(Claim {
            username: row.parse(&self.shown)?,
            holder: row.convert(self.telegram_id)?,
            position: row.convert(self.position)?,
            claimed_at: Timestamp(self.claimed_at),
            seen_at: Timestamp(self.seen_at),
            proved_at: self.proved_at.map(Timestamp),
            reassigned: self.reassigned,
        })
    }
}

fn stored(connection: &mut AnyConnection, canonical: &str) -> Result<Vec<Row>, Error> {
    names::table
        .filter(names::canonical.eq(canonical))
        .order(names::id)
        .select(Row::as_select())
        .load(connection)
}

/// What the audit calls a change of the claims on a username.
pub(crate) fn action(canonical: &str) -> Action {
    Action::ClaimNames(Sha256::digest(canonical.as_bytes()).into())
}

/// Returns the newest revision of a claim on the username that the audit has. Ask before the claims
/// are read.
pub(crate) fn recorded(connection: &mut AnyConnection, canonical: &str) -> Result<i64, Failure> {
    audit::newest_revision_of(connection, action(canonical))
}

fn newest_of(rows: &[Row]) -> i64 {
    rows.iter().map(|row| row.revision).max().unwrap_or_default()
}

pub(crate) fn verify_history(
    rows: &[Row],
    newest: i64,
    canonical: &str,
    keys: &ServerKeys,
) -> Result<(), StoreError> {
    let verify = || {
        let mut previous = FIRST;
        for row in rows {
            row.verify(keys)?;
            if row.previous != previous {
                return Err(row.row_ref().not_verified(RowMacError::Mismatch));
            }
            previous = row.digest();
        }
        if newest_of(rows) < newest {
            // The newest claim was removed, or an older copy of it was put back.
            return Err(StoreError::Tampered { table: "names", key: canonical.to_owned() });
        }
        Ok(())
    };
    verify().inspect_err(|error| {
        if let StoreError::Tampered { .. } | StoreError::Corrupt { .. } = error {
            integrity_alarm(error, AlarmContext { record: Some(canonical), ..Default::default() });
        }
    })
}

pub(crate) fn active(history: &[Row]) -> Result<Option<Claim>, StoreError> {
    history.iter().find(|row| row.ended_at.is_none()).map(Row::claim).transpose()
}

/// Returns the next claims whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let after: i64 = after.parse().unwrap_or(i64::MIN);
    let rows: Vec<(i64, Row)> = names::table
        .filter(names::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(names::id.gt(after))
        .order(names::id)
        .limit(BATCH)
        .select((names::id, Row::as_select()))
        .load(connection)?;
    let stale = |(id, row): (i64, Row)| {
        let new = row.verify(keys).map(|()| row.with_mac_fields(|fields| keys.row.mac(fields)));
        StaleMac { cursor: id.to_string(), key: row.canonical, old: row.mac, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

/// Returns the username of a holder that is shown.
pub(crate) fn shown(
    connection: &mut AnyConnection,
    holder: TelegramId,
) -> Result<Option<Username>, Failure> {
    let held: Option<(String, String)> = names::table
        .filter(names::telegram_id.eq(holder.as_i64()))
        .filter(names::ended_at.is_null())
        .order(names::position)
        .select((names::canonical, names::shown))
        .first(connection)
        .optional()?;
    let parse = |(key, shown): (String, String)| RowRef { table: "names", key: &key }.parse(&shown);
    Ok(held.map(parse).transpose()?)
}

/// What the audit does not state yet about these usernames: the claims that began, and those that
/// ended with the holder of each.
pub(crate) fn unrecorded(
    connection: &mut AnyConnection,
    usernames: impl IntoIterator<Item = String>,
) -> Result<Vec<Purpose>, Failure> {
    let mut purposes = Vec::new();
    for canonical in usernames {
        let recorded = recorded(connection, &canonical)?;
        let rows = stored(connection, &canonical)?;
        let (mut claimed, mut ended) = (None, Vec::new());
        for row in rows.iter().filter(|row| row.revision > recorded) {
            match row.ended_at {
                None => claimed = Some(row.shown.clone()),
                Some(_at) => ended.push(format!("{}:{}", row.shown, row.telegram_id)),
            }
        }
        let ended = (!ended.is_empty()).then(|| ended.join(","));
        let details = Details::default().with_some("claimed", claimed).with_some("ended", ended);
        if details != Details::default() {
            let details = details.with(REVISION, newest_of(&rows));
            purposes.push(Purpose { action: action(&canonical), details });
        }
    }
    Ok(purposes)
}

impl Database {
    /// Applies all usernames in an authenticated update of a user. Returns what the audit has to
    /// state about the claims that began or ended.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn seen_usernames(
        &self,
        holder: TelegramId,
        names: SeenNames,
    ) -> Result<Vec<Purpose>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            observations::in_turn(connection, |connection| {
                let observed = observations::observe(connection, holder, &names, &keys)?;
                let Some(observed) = observed else { return Ok(None) };
                let changed = observed.changed();
                let mut writes = Writes::new(connection);
                observed.write(&mut writes)?;
                writes.finish()?;
                unrecorded(connection, changed).map(Some)
            })
        })
        .await
    }

    /// Returns all usernames that a user holds, as the user writes them, in Telegram's order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn usernames_of(&self, holder: TelegramId) -> Result<Vec<Username>, StoreError> {
        self.blocking(move |connection| {
            let held: Vec<(String, String)> = names::table
                .filter(names::telegram_id.eq(holder.as_i64()))
                .filter(names::ended_at.is_null())
                .order(names::position)
                .select((names::canonical, names::shown))
                .load(connection)?;
            let parse = |(key, shown): (String, String)| {
                Ok(RowRef { table: "names", key: &key }.parse(&shown)?)
            };
            held.into_iter().map(parse).collect()
        })
        .await
    }

    /// Returns what the audit has to state about usernames that a new account took over from other
    /// holders.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn usernames_taken_over(
        &self,
        holder: TelegramId,
    ) -> Result<Vec<Purpose>, StoreError> {
        self.blocking(move |connection| {
            let taken_over: Vec<String> = names::table
                .filter(names::telegram_id.eq(holder.as_i64()))
                .filter(names::ended_at.is_null())
                .filter(names::revision.gt(1))
                .select(names::canonical)
                .load(connection)?;
            unrecorded(connection, taken_over)
        })
        .await
    }
}
