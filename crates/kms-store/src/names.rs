//! Usernames: the claims on them, which `name-service` decides, and their resolution to an account.

use diesel::dsl::max;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::BigInt;
use kms_core::account::{Account, SeenNames};
use kms_core::audit::Details;
use kms_core::ports::StoreError;
use kms_types::{TelegramId, Timestamp, Username};
use name_service::{Change, Claim, Decision, Known, KnownName, Observation};

use crate::accounts::rows;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, all_or_nothing};
use crate::schema::{name_observations, names};

/// The account that a username resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The username as its holder spells it.
    pub username: Username,
    /// The holder's account.
    pub account: Account,
    /// When the username was reassigned from another holder, if that still has to be shown.
    pub reassigned_at: Option<Timestamp>,
}

/// The columns of a claim: holder, spelling, position, claimed at, seen at, reassigned.
type Columns = (i64, String, i32, i64, i64, bool);

/// The active claims.
macro_rules! active_claims {
    () => {
        names::table.filter(names::ended_at.is_null()).select((
            names::telegram_id,
            names::shown,
            names::position,
            names::claimed_at,
            names::seen_at,
            names::reassigned,
        ))
    };
}

fn parse(
    (holder, shown, position, claimed_at, seen_at, reassigned): Columns,
) -> Result<Claim, StoreError> {
    let row = RowRef { table: "names", key: &shown };
    Ok(Claim {
        username: row.parse(&shown)?,
        holder: row.convert(holder)?,
        position: row.convert(position)?,
        claimed_at: Timestamp(claimed_at),
        seen_at: Timestamp(seen_at),
        reassigned,
    })
}

fn active_claim(connection: &mut AnyConnection, name: &Username) -> Result<Option<Claim>, Failure> {
    let row: Option<Columns> = active_claims!()
        .filter(names::canonical.eq(name.canonical()))
        .first(connection)
        .optional()?;
    Ok(row.map(parse).transpose()?)
}

fn claims_of(connection: &mut AnyConnection, holder: TelegramId) -> Result<Vec<Claim>, Failure> {
    let rows: Vec<Columns> =
        active_claims!().filter(names::telegram_id.eq(holder.as_i64())).load(connection)?;
    Ok(rows.into_iter().map(parse).collect::<Result<_, _>>()?)
}

/// The attempts at an observation that a concurrent one of the same usernames came before.
const ATTEMPTS: usize = 32;

/// Applies an observation of a holder's usernames, within a transaction. Returns the changes.
pub(crate) fn observe(
    connection: &mut AnyConnection,
    holder: TelegramId,
    names: &SeenNames,
) -> Result<Vec<Change>, Failure> {
    let SeenNames { usernames, seen_at } = names.clone();
    let observation = Observation { holder, usernames, seen_at };
    for _ in 0..ATTEMPTS {
        // A savepoint, so that a unique violation does not abort the transaction. The other claim
        // is committed by then and visible to the next attempt.
        let mut changes = Vec::new();
        let applied = all_or_nothing(connection, |connection| {
            let known = known(connection, &observation)?;
            let decision = name_service::decide(&observation, &known);
            let applied = apply(connection, &observation, &decision)?;
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
fn known(connection: &mut AnyConnection, observation: &Observation) -> Result<Known, Failure> {
    let Observation { holder, usernames, .. } = observation;
    // Written first: the row lock serializes the observations of one holder.
    diesel::sql_query(
        "insert into name_observations (telegram_id, seen_at) values ($1, -1) \
         on conflict (telegram_id) do update set seen_at = name_observations.seen_at",
    )
    .bind::<BigInt, _>(holder.as_i64())
    .execute(connection)?;
    let last_seen: i64 = name_observations::table
        .find(holder.as_i64())
        .select(name_observations::seen_at)
        .first(connection)?;
    let mut observed = Vec::new();
    for username in usernames.iter() {
        observed.push(known_name(connection, username, *holder)?);
    }
    let last_seen = Some(Timestamp(last_seen)).filter(|last| last.0 >= 0);
    Ok(Known { last_seen, own_claims: claims_of(connection, *holder)?, observed })
}

fn known_name(
    connection: &mut AnyConnection,
    username: &Username,
    holder: TelegramId,
) -> Result<KnownName, Failure> {
    let claims = || names::table.filter(names::canonical.eq(username.canonical()));
    let (seen, ended): (Option<i64>, Option<i64>) =
        claims().select((max(names::seen_at), max(names::ended_at))).first(connection)?;
    let others: i64 =
        claims().filter(names::telegram_id.ne(holder.as_i64())).count().get_result(connection)?;
    Ok(KnownName {
        claim: active_claim(connection, username)?,
        known_at: seen.max(ended).map(Timestamp),
        had_other_holder: others > 0,
    })
}

/// Applies a decision. Returns `false` if a concurrent observation changed a claim that the
/// decision relies on.
fn apply(
    connection: &mut AnyConnection,
    observation: &Observation,
    decision: &Decision,
) -> Result<bool, Failure> {
    let at = observation.seen_at.0;
    if decision.remember {
        diesel::update(name_observations::table.find(observation.holder.as_i64()))
            .set(name_observations::seen_at.eq(at))
            .execute(connection)?;
    }
    for change in &decision.changes {
        if !apply_change(connection, change, observation.holder, at)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn apply_change(
    connection: &mut AnyConnection,
    change: &Change,
    holder: TelegramId,
    at: i64,
) -> Result<bool, Failure> {
    // A claim that was confirmed meanwhile is newer than this observation and is kept.
    let active = |name: &Username, holder: TelegramId| {
        names::table
            .filter(names::canonical.eq(name.canonical()))
            .filter(names::telegram_id.eq(holder.as_i64()))
            .filter(names::ended_at.is_null())
            .filter(names::seen_at.lt(at))
    };
    let changed = match change {
        Change::End { username, holder } => diesel::update(active(username, *holder))
            .set(names::ended_at.eq(Some(at)))
            .execute(connection)?,
        Change::Confirm { username, position } => diesel::update(active(username, holder))
            .set((
                names::shown.eq(username.as_str()),
                names::position.eq(i32::from(*position)),
                names::seen_at.eq(at),
            ))
            .execute(connection)?,
        Change::Open(claim) => diesel::insert_into(names::table)
            .values((
                names::telegram_id.eq(claim.holder.as_i64()),
                names::canonical.eq(claim.username.canonical()),
                names::shown.eq(claim.username.as_str()),
                names::position.eq(i32::from(claim.position)),
                names::claimed_at.eq(claim.claimed_at.0),
                names::seen_at.eq(claim.seen_at.0),
                names::reassigned.eq(claim.reassigned),
            ))
            .execute(connection)?,
    };
    Ok(changed == 1)
}

/// What the audit states about changes: the claims that began, and those that ended with the holder
/// of each. `None` if there are none.
fn details(changes: &[Change]) -> Option<Details> {
    let (mut claimed, mut ended) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Open(claim) => claimed.push(claim.username.as_str().to_owned()),
            Change::End { username, holder } => {
                ended.push(format!("{}:{holder}", username.as_str()))
            }
            Change::Confirm { .. } => {}
        }
    }
    if claimed.is_empty() && ended.is_empty() {
        return None;
    }
    let listed = |names: Vec<String>| (!names.is_empty()).then(|| names.join(","));
    let (claimed, ended) = (listed(claimed), listed(ended));
    Some(Details::default().with_some("claimed", claimed).with_some("ended", ended))
}

impl Database {
    /// Applies all usernames in an authenticated update of a user. Returns what the audit states
    /// about the claims that began or ended, if any did.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn seen_usernames(
        &self,
        holder: TelegramId,
        names: SeenNames,
    ) -> Result<Option<Details>, StoreError> {
        self.blocking(move |connection| {
            let changes =
                connection.transaction(|connection| observe(connection, holder, &names))?;
            Ok(details(&changes))
        })
        .await
    }

    /// Resolves a username to the account of its current holder.
    ///
    /// # Errors
    /// When the database does not answer, or the account's row fails its integrity check.
    pub async fn resolve(
        &self,
        name: &Username,
        now: Timestamp,
    ) -> Result<Option<Resolved>, StoreError> {
        let (name, keys) = (name.clone(), self.keys.clone());
        self.blocking(move |connection| {
            let Some(claim) = active_claim(connection, &name)? else {
                return Ok(None);
            };
            // `None`: the holder may have no wallet.
            let account = rows::find(connection, claim.holder.into(), &keys)?;
            let reassigned_at = name_service::reassigned_at(&claim, now);
            Ok(account.map(|account| Resolved { username: claim.username, account, reassigned_at }))
        })
        .await
    }
}
