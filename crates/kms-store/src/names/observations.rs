//! Observations of a holder's usernames: what is known before one, and what it changes.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, Nullable};
use kms_core::ServerKeys;
use kms_core::account::SeenNames;
use kms_core::ports::StoreError;
use kms_types::{NameOrigin, TelegramId, Timestamp, Username};
use name_service::{Change, Claim, Decision, Known, KnownName, Observation};

use super::{FIRST, Row, action, active, newest_of, verify_history};
use crate::audit;
use crate::database::{AnyConnection, Failure, Writes, add_write, cached_query};
use crate::schema::{name_observations, names};

/// The attempts at an observation that a concurrent one of the same usernames came before.
const ATTEMPTS: usize = 32;

/// The constraints that it violates then.
const RACES: [&str; 3] = ["names_one_chain", "names_one_holder", "accounts_telegram_id_key"];

/// Runs the transaction of an observation again while a concurrent one comes before it: then the
/// work returns `None`, or a claim meets another one, which is committed by then and visible to the
/// next attempt.
pub(crate) fn in_turn<T>(
    connection: &mut AnyConnection,
    mut work: impl FnMut(&mut AnyConnection) -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    for _ in 0..ATTEMPTS {
        let done = connection.transaction(|connection| {
            work(connection)?.ok_or(Failure::Diesel(Error::RollbackTransaction))
        });
        match done {
            Err(Failure::Diesel(Error::RollbackTransaction)) => {}
            Err(Failure::Diesel(Error::DatabaseError(
                DatabaseErrorKind::UniqueViolation,
                what,
            ))) if is_race(&*what) => {}
            done => return done,
        }
    }
    let source = "an observation of usernames met concurrent ones at every attempt";
    Err(StoreError::Unavailable { store: "account", source: source.into() }.into())
}

/// Whether a concurrent observation, or creation of the same account, can have violated it.
fn is_race(what: &dyn DatabaseErrorInformation) -> bool {
    // SQLite names none.
    what.constraint_name().is_none_or(|name| RACES.contains(&name))
}

/// The claims on a username, oldest first, and the newest revision of one that is stored, recorded
/// or given away.
struct History {
    rows: Vec<Row>,
    newest: i64,
    /// Whether it was deleted because it failed its check.
    was_reset: bool,
}

impl History {
    /// The revision of a claim that begins or ends now.
    fn next_revision(&mut self) -> i64 {
        self.newest = self.newest.saturating_add(1);
        self.newest
    }
}

type Histories = BTreeMap<String, History>;

/// An observation of which everything is written but its time, and a claim that begins if that is
/// the only change.
pub(crate) struct Observed {
    holder: TelegramId,
    changes: Vec<Change>,
    own_claims: Vec<Claim>,
    /// The usernames that the holder has now and someone had before.
    pub(crate) taken_over: Vec<String>,
    opened: Option<Row>,
    /// When the holder was observed last, and last with a proof.
    seen: Option<(Timestamp, Option<Timestamp>)>,
}

impl Observed {
    /// Adds what is not written yet.
    pub(crate) fn write(self, writes: &mut Writes<'_>) -> Result<(), Failure> {
        if let Some(row) = self.opened {
            add_write!(writes, diesel::insert_into(names::table).values(row));
        }
        if let Some((seen_at, proved_at)) = self.seen {
            let times = "update name_observations set seen_at = $1, proved_at = $2 \
                 where telegram_id = $3";
            add_write!(
                writes,
                cached_query(times)
                    .bind::<BigInt, _>(seen_at.0)
                    .bind::<Nullable<BigInt>, _>(proved_at.map(|at| at.0))
                    .bind::<BigInt, _>(self.holder.as_i64())
            );
        }
        Ok(())
    }

    /// The usernames of which a claim began or ended.
    pub(crate) fn changed(&self) -> BTreeSet<String> {
        let changed = self.changes.iter().filter_map(|change| match change {
            Change::Open(claim) => Some(claim.username.canonical()),
            Change::End { username, .. } => Some(username.canonical()),
            Change::Confirm { .. } => None,
        });
        changed.collect()
    }

    /// The username of the holder that is shown from now on.
    pub(crate) fn shown(&self) -> Option<Username> {
        let own = self.own_claims.iter().map(|own| (own.username.clone(), own.position));
        let mut held: BTreeMap<_, _> =
            own.map(|(username, position)| (username.canonical(), (position, username))).collect();
        for change in &self.changes {
            match change {
                Change::End { username, .. } => drop(held.remove(&username.canonical())),
                Change::Confirm { username, position } => {
                    held.insert(username.canonical(), (*position, username.clone()));
                }
                Change::Open(Claim { username, position, .. }) => {
                    held.insert(username.canonical(), (*position, username.clone()));
                }
            }
        }
        let first = held.into_values().min_by_key(|(position, _)| *position);
        first.map(|(_, username)| username)
    }
}

/// Applies an observation of a holder's usernames, within a transaction, but for what the result
/// [writes](Observed::write). Returns `None` if a concurrent one changed a claim meanwhile.
pub(crate) fn observe(
    connection: &mut AnyConnection,
    holder: TelegramId,
    names: &SeenNames,
    keys: &ServerKeys,
) -> Result<Option<Observed>, Failure> {
    let SeenNames { usernames, seen_at, received_at, origin } = names.clone();
    let observation = Observation { holder, usernames, seen_at, received_at, origin };
    let mut histories = Histories::new();
    let known = known(connection, &observation, &mut histories, keys)?;
    let Decision { remember, changes } = name_service::decide(&observation, &known);
    let (mut opened, mut taken_over) = (None, Vec::new());
    // Several are written in their places: transactions that write in the order of usernames do not
    // deadlock.
    let is_alone = changes.len() == 1;
    for change in &changes {
        let Some(history) = histories.get_mut(&change.username().canonical()) else {
            return Ok(None);
        };
        let is_current = match change {
            Change::End { username, holder } => {
                let revision = history.next_revision();
                rewrite(connection, (username, *holder), &observation, keys, |row| {
                    row.ended_at = Some(seen_at.0.max(row.seen_at));
                    row.revision = revision;
                })?
            }
            Change::Confirm { username, position } => {
                rewrite(connection, (username, holder), &observation, keys, |row| {
                    row.shown = username.as_str().to_owned();
                    row.position = (*position).into();
                    row.seen_at = seen_at.0.max(row.seen_at);
                    if origin == NameOrigin::Launch {
                        row.proved_at = Some(seen_at.0);
                    }
                })?
            }
            Change::Open(claim) => {
                let previous = history.rows.last().map_or(FIRST, Row::digest);
                let row = Row::new(claim, previous, history.next_revision(), keys);
                // Also after a reset, from which on nothing older may pass for the newest.
                if row.revision > 1 {
                    taken_over.push(row.canonical.clone());
                }
                if is_alone {
                    opened = Some(row);
                } else {
                    diesel::insert_into(names::table).values(row).execute(connection)?;
                }
                true
            }
        };
        if !is_current {
            return Ok(None);
        }
    }
    let seen = remember.then(|| match origin {
        NameOrigin::Token => (seen_at, known.last_proved),
        // One that is proved may be older than what a token reported.
        NameOrigin::Launch => {
            (known.last_seen.map_or(seen_at, |last| last.max(seen_at)), Some(seen_at))
        }
    });
    let own_claims = known.own_claims;
    Ok(Some(Observed { holder, changes, own_claims, taken_over, opened, seen }))
}

/// Reads what is known before an observation.
fn known(
    connection: &mut AnyConnection,
    observation: &Observation,
    histories: &mut Histories,
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
    let last: Seen = cached_query(
        "insert into name_observations (telegram_id, seen_at) values ($1, -1) \
         on conflict (telegram_id) do update set seen_at = name_observations.seen_at \
         returning seen_at, proved_at",
    )
    .bind::<BigInt, _>(holder.as_i64())
    .get_result(connection)?;
    let mut observed = Vec::new();
    for username in usernames.iter() {
        let history = history(connection, *holder, &username.canonical(), histories, keys)?;
        observed.push(known_name(history, *holder)?);
    }
    Ok(Known {
        last_seen: Some(Timestamp(last.seen_at)).filter(|last| last.0 >= 0),
        last_proved: last.proved_at.map(Timestamp),
        own_claims: own_claims(connection, *holder, histories, keys)?,
        observed,
    })
}

fn known_name(history: &History, holder: TelegramId) -> Result<KnownName, Failure> {
    if history.was_reset {
        // Unknown: senders are warned.
        return Ok(KnownName { had_other_holder: true, ..KnownName::default() });
    }
    let rows = &history.rows;
    let seen = rows.iter().map(|row| row.seen_at).max();
    let ended = rows.iter().filter_map(|row| row.ended_at).max();
    Ok(KnownName {
        claim: active(rows)?,
        last: rows.last().map(Row::claim).transpose()?,
        known_at: seen.max(ended).map(Timestamp),
        had_other_holder: rows.iter().any(|row| row.telegram_id != holder.as_i64()),
    })
}

fn own_claims(
    connection: &mut AnyConnection,
    holder: TelegramId,
    histories: &mut Histories,
    keys: &ServerKeys,
) -> Result<Vec<Claim>, Failure> {
    let held: Vec<String> = names::table
        .filter(names::telegram_id.eq(holder.as_i64()))
        .filter(names::ended_at.is_null())
        .select(names::canonical)
        .load(connection)?;
    let mut claims = Vec::new();
    for canonical in held {
        let history = history(connection, holder, &canonical, histories, keys)?;
        claims.extend(active(&history.rows)?.filter(|claim| claim.holder == holder));
    }
    Ok(claims)
}

/// Reads all claims on a username, once. A history of which one does not verify or does not follow
/// the one before it, or without the newest that the audit has, is deleted, with an alarm:
/// Telegram's update, which is being applied, says who holds the username, and the store does not.
fn history<'a>(
    connection: &mut AnyConnection,
    holder: TelegramId,
    canonical: &str,
    histories: &'a mut Histories,
    keys: &ServerKeys,
) -> Result<&'a History, Failure> {
    if !histories.contains_key(canonical) {
        // The holder's row is there, so that there is one to read the audit with.
        let found: Vec<(Option<Row>, Option<String>)> = name_observations::table
            .find(holder.as_i64())
            .left_join(names::table.on(names::canonical.eq(canonical)))
            .order(names::id)
            .select((Option::<Row>::as_select(), audit::newest_details(action(canonical))))
            .load(connection)?;
        let recorded = found.first().and_then(|(_, newest)| newest.as_deref());
        let recorded = audit::newest_revision_in(recorded);
        let rows: Vec<Row> = found.into_iter().filter_map(|(row, _)| row).collect();
        let history = match verify_history(&rows, recorded, canonical, keys) {
            Ok(()) => History { newest: recorded.max(newest_of(&rows)), rows, was_reset: false },
            Err(
                StoreError::Tampered { .. }
                | StoreError::Corrupt { .. }
                | StoreError::RetiredRowKey { .. },
            ) => {
                // Those that were read: a claim that was made meanwhile stays.
                let read = rows.into_iter().map(|row| row.mac).collect::<Vec<_>>();
                let rows = names::table.filter(names::canonical.eq(canonical));
                diesel::delete(rows.filter(names::mac.eq_any(read))).execute(connection)?;
                // Above a first claim, which is not recorded.
                History { rows: Vec::new(), newest: recorded.max(1), was_reset: true }
            }
            Err(error @ (StoreError::Unavailable { .. } | StoreError::NoRowKey { .. })) => {
                return Err(error.into());
            }
        };
        histories.insert(canonical.to_owned(), history);
    }
    histories.get(canonical).ok_or_else(|| Error::NotFound.into())
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
