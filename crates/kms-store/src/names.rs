//! Usernames: the claims on them, which `name-service` decides.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, Nullable};
use kms_core::account::SeenNames;
use kms_core::audit::{Action, Details, Purpose, REVISION};
use kms_core::ports::StoreError;
use kms_core::{AlarmContext, RowMacError, ServerKeys, integrity_alarm};
use kms_types::{NameOrigin, TelegramId, Timestamp, Username};
use name_service::{Change, Claim, Decision, Known, KnownName, Observation};
use sha2::{Digest, Sha256};

use crate::audit;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, all_or_nothing};
use crate::schema::{name_observations, names};
use crate::server_keys::{BATCH, StaleMac};

/// A claim as it is stored.
#[derive(Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = names, treat_none_as_null = true)]
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

/// Reads all claims on a username, oldest first. Fails, with an alarm, unless each verifies and
/// follows the one before it, and the newest that the audit has is among them.
fn history(
    connection: &mut AnyConnection,
    canonical: &str,
    keys: &ServerKeys,
) -> Result<Vec<Row>, Failure> {
    let newest = recorded(connection, canonical)?;
    let rows = stored(connection, canonical)?;
    verify_history(&rows, newest, canonical, keys)?;
    Ok(rows)
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

/// The revision of a claim that begins or ends now, after these: higher than every stored or
/// recorded one.
fn next_revision(
    connection: &mut AnyConnection,
    canonical: &str,
    rows: &[Row],
) -> Result<i64, Failure> {
    Ok(recorded(connection, canonical)?.max(newest_of(rows)).saturating_add(1))
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

fn claims_of(
    connection: &mut AnyConnection,
    holder: TelegramId,
    keys: &ServerKeys,
) -> Result<Vec<Claim>, Failure> {
    let rows: Vec<Row> = names::table
        .filter(names::telegram_id.eq(holder.as_i64()))
        .filter(names::ended_at.is_null())
        .select(Row::as_select())
        .load(connection)?;
    let mut claims = Vec::new();
    for row in rows {
        if let Some(history) = history_or_reset(connection, &row.canonical, keys)? {
            claims.extend(active(&history)?.filter(|claim| claim.holder == holder));
        }
    }
    Ok(claims)
}

/// As [`history`]. A history that fails its check is deleted: Telegram's update, which is being
/// applied, says who holds the username, and the store does not.
fn history_or_reset(
    connection: &mut AnyConnection,
    canonical: &str,
    keys: &ServerKeys,
) -> Result<Option<Vec<Row>>, Failure> {
    let found = history(connection, canonical, keys);
    if let Err(Failure::Store(
        StoreError::Tampered { .. } | StoreError::Corrupt { .. } | StoreError::RetiredRowKey { .. },
    )) = found
    {
        let rows = names::table.filter(names::canonical.eq(canonical));
        diesel::delete(rows).execute(connection)?;
        return Ok(None);
    }
    found.map(Some)
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

/// The attempts at an observation that a concurrent one of the same usernames came before.
const ATTEMPTS: usize = 32;

/// Applies an observation of a holder's usernames, within a transaction. Returns the changes.
pub(crate) fn observe(
    connection: &mut AnyConnection,
    holder: TelegramId,
    names: &SeenNames,
    keys: &ServerKeys,
) -> Result<Vec<Change>, Failure> {
    let SeenNames { usernames, seen_at, received_at, origin } = names.clone();
    let observation = Observation { holder, usernames, seen_at, received_at, origin };
    for _ in 0..ATTEMPTS {
        // A savepoint, so that a unique violation does not abort the transaction. The other claim
        // is committed by then and visible to the next attempt.
        let mut changes = Vec::new();
        let applied = all_or_nothing(connection, |connection| {
            let known = known(connection, &observation, keys)?;
            let decision = name_service::decide(&observation, &known);
            let applied = apply(connection, &observation, &decision, keys)?;
            changes = decision.changes;
            Ok(applied)
        });
        match applied {
            Ok(true) => return Ok(changes),
            Ok(false)
            | Err(Failure::Diesel(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))) => {
            }
            Err(error) => return Err(error),
        }
    }
    let source = "an observation of usernames met concurrent ones at every attempt";
    Err(StoreError::Unavailable { store: "account", source: source.into() }.into())
}

/// Reads what is known before an observation.
fn known(
    connection: &mut AnyConnection,
    observation: &Observation,
    keys: &ServerKeys,
) -> Result<Known, Failure> {
    #[derive(QueryableByName)]
    struct Seen {
        #[diesel(sql_type = BigInt)]
        seen_at: i64,
        #[diesel(sql_type = Nullable<BigInt>)]
        proved_at: Option<i64>,
    }
    let Observation { holder, usernames, .. } = observation;
    // Written first: the row lock serializes the observations of one holder.
    let last: Seen = diesel::sql_query(
        "insert into name_observations (telegram_id, seen_at) values ($1, -1) \
         on conflict (telegram_id) do update set seen_at = name_observations.seen_at \
         returning seen_at, proved_at",
    )
    .bind::<BigInt, _>(holder.as_i64())
    .get_result(connection)?;
    let mut observed = Vec::new();
    for username in usernames.iter() {
        observed.push(known_name(connection, username, *holder, keys)?);
    }
    let last_seen = Some(Timestamp(last.seen_at)).filter(|last| last.0 >= 0);
    let last_proved = last.proved_at.map(Timestamp);
    Ok(Known {
        last_seen,
        last_proved,
        own_claims: claims_of(connection, *holder, keys)?,
        observed,
    })
}

fn known_name(
    connection: &mut AnyConnection,
    username: &Username,
    holder: TelegramId,
    keys: &ServerKeys,
) -> Result<KnownName, Failure> {
    let Some(history) = history_or_reset(connection, &username.canonical(), keys)? else {
        // Unknown: senders are warned.
        return Ok(KnownName { had_other_holder: true, ..KnownName::default() });
    };
    let seen = history.iter().map(|row| row.seen_at).max();
    let ended = history.iter().filter_map(|row| row.ended_at).max();
    Ok(KnownName {
        claim: active(&history)?,
        last: history.last().map(Row::claim).transpose()?,
        known_at: seen.max(ended).map(Timestamp),
        had_other_holder: history.iter().any(|row| row.telegram_id != holder.as_i64()),
    })
}

/// Applies a decision. Returns `false` if a concurrent observation changed a claim that the
/// decision relies on.
fn apply(
    connection: &mut AnyConnection,
    observation: &Observation,
    decision: &Decision,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    if decision.remember {
        remember(connection, observation)?;
    }
    for change in &decision.changes {
        if !apply_change(connection, change, observation, keys)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Stores the time of an observation. A proved one may be older than what a token reported.
fn remember(connection: &mut AnyConnection, observation: &Observation) -> Result<(), Error> {
    let row = name_observations::table.find(observation.holder.as_i64());
    let at = observation.seen_at.0;
    match observation.origin {
        NameOrigin::Token => {
            diesel::update(row).set(name_observations::seen_at.eq(at)).execute(connection)?;
        }
        NameOrigin::Launch => {
            let newer = row.filter(name_observations::seen_at.lt(at));
            diesel::update(newer).set(name_observations::seen_at.eq(at)).execute(connection)?;
            diesel::update(row).set(name_observations::proved_at.eq(at)).execute(connection)?;
        }
    }
    Ok(())
}

fn apply_change(
    connection: &mut AnyConnection,
    change: &Change,
    observation: &Observation,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    let at = observation.seen_at.0;
    match change {
        Change::End { username, holder } => {
            let canonical = username.canonical();
            let rows = stored(connection, &canonical)?;
            let revision = next_revision(connection, &canonical, &rows)?;
            rewrite(connection, (username, *holder), observation, keys, |row| {
                row.ended_at = Some(at.max(row.seen_at));
                row.revision = revision;
            })
        }
        Change::Confirm { username, position } => {
            rewrite(connection, (username, observation.holder), observation, keys, |row| {
                row.shown = username.as_str().to_owned();
                row.position = (*position).into();
                row.seen_at = at.max(row.seen_at);
                if observation.origin == NameOrigin::Launch {
                    row.proved_at = Some(at);
                }
            })
        }
        Change::Open(claim) => {
            let canonical = claim.username.canonical();
            let rows = stored(connection, &canonical)?;
            // Not compared with the audit: a history that failed that comparison was deleted.
            verify_history(&rows, 0, &canonical, keys)?;
            let revision = next_revision(connection, &canonical, &rows)?;
            let previous = rows.last().map_or(FIRST, Row::digest);
            let row = Row::new(claim, previous, revision, keys);
            Ok(diesel::insert_into(names::table).values(row).execute(connection)? == 1)
        }
    }
}

/// Changes the active claim of a holder. A claim that was confirmed meanwhile is newer than this
/// observation and is kept, and a claim that was proved meanwhile is not changed by a token.
fn rewrite(
    connection: &mut AnyConnection,
    (name, holder): (&Username, TelegramId),
    observation: &Observation,
    keys: &ServerKeys,
    change: impl FnOnce(&mut Row),
) -> Result<bool, Failure> {
    let found: Option<(i64, Row)> = names::table
        .filter(names::canonical.eq(name.canonical()))
        .filter(names::telegram_id.eq(holder.as_i64()))
        .filter(names::ended_at.is_null())
        .select((names::id, Row::as_select()))
        .first(connection)
        .optional()?;
    let at = observation.seen_at.0;
    let is_newer = |row: &Row| match observation.origin {
        NameOrigin::Token => row.seen_at < at,
        NameOrigin::Launch => row.proved_at.is_none_or(|proved_at| proved_at < at),
    };
    let Some((id, mut row)) = found.filter(|(_, row)| is_newer(row)) else { return Ok(false) };
    row.verify(keys)?;
    let before = names::table.filter(names::id.eq(id)).filter(names::mac.eq(row.mac.clone()));
    change(&mut row);
    row.sign(keys);
    Ok(diesel::update(before).set(row).execute(connection)? == 1)
}

/// The usernames of which a claim began or ended.
fn changed(changes: &[Change]) -> BTreeSet<String> {
    let changed = changes.iter().filter_map(|change| match change {
        Change::Open(claim) => Some(claim.username.canonical()),
        Change::End { username, .. } => Some(username.canonical()),
        Change::Confirm { .. } => None,
    });
    changed.collect()
}

/// What the audit does not state yet about these usernames: the claims that began, and those that
/// ended with the holder of each.
fn unrecorded(
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
            connection.transaction(|connection| {
                let changes = observe(connection, holder, &names, &keys)?;
                unrecorded(connection, changed(&changes))
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
                .filter(names::previous.ne(FIRST.to_vec()))
                .select(names::canonical)
                .load(connection)?;
            unrecorded(connection, taken_over)
        })
        .await
    }
}
