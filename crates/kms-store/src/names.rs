//! Usernames: the claims on them, which `name-service` decides, and their resolution to an account.

use diesel::dsl::max;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::BigInt;
use kms_core::account::{Account, SeenName};
use kms_core::ports::StoreError;
use kms_types::{TelegramId, Timestamp, Username};
use name_service::{Claim, Decision, Known, Observation};

use crate::accounts::rows;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
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

/// The columns of an active claim: holder, spelling, claimed at, seen at, reassigned.
type Columns = (i64, String, i64, i64, bool);

fn parse((holder, shown, claimed_at, seen_at, reassigned): Columns) -> Result<Claim, StoreError> {
    let row = RowRef { table: "names", key: &shown };
    Ok(Claim {
        username: row.parse(&shown)?,
        holder: row.convert(holder)?,
        claimed_at: Timestamp(claimed_at),
        seen_at: Timestamp(seen_at),
        reassigned,
    })
}

fn active_claim(connection: &mut AnyConnection, name: &Username) -> Result<Option<Claim>, Failure> {
    let row: Option<Columns> = names::table
        .filter(names::canonical.eq(name.canonical()))
        .filter(names::ended_at.is_null())
        .select((
            names::telegram_id,
            names::shown,
            names::claimed_at,
            names::seen_at,
            names::reassigned,
        ))
        .first(connection)
        .optional()?;
    Ok(row.map(parse).transpose()?)
}

fn claim_of(connection: &mut AnyConnection, holder: TelegramId) -> Result<Option<Claim>, Failure> {
    let row: Option<Columns> = names::table
        .filter(names::telegram_id.eq(holder.as_i64()))
        .filter(names::ended_at.is_null())
        .select((
            names::telegram_id,
            names::shown,
            names::claimed_at,
            names::seen_at,
            names::reassigned,
        ))
        .first(connection)
        .optional()?;
    Ok(row.map(parse).transpose()?)
}

/// The retries of a claim that a concurrent claim of the same name won.
const RETRIES: usize = 32;

/// Applies an observation of a holder's username, within a transaction.
pub(crate) fn observe(
    connection: &mut AnyConnection,
    holder: TelegramId,
    name: &SeenName,
) -> Result<(), Failure> {
    for _ in 0..RETRIES {
        // A savepoint, so that a unique violation does not abort the transaction. The other claim
        // is committed by then and visible to the retry.
        match connection.transaction(|connection| try_observe(connection, holder, name)) {
            Err(Failure::Diesel(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))) => {}
            done => return done,
        }
    }
    try_observe(connection, holder, name)
}

fn try_observe(
    connection: &mut AnyConnection,
    holder: TelegramId,
    name: &SeenName,
) -> Result<(), Failure> {
    let SeenName { username, seen_at } = name.clone();
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
    let mut known = Known {
        last_seen: Some(Timestamp(last_seen)).filter(|last| last.0 >= 0),
        own_claim: claim_of(connection, holder)?,
        ..Known::default()
    };
    if let Some(username) = &username {
        known.claim_on_name = active_claim(connection, username)?;
        let claims = || names::table.filter(names::canonical.eq(username.canonical()));
        let (seen, ended): (Option<i64>, Option<i64>) =
            claims().select((max(names::seen_at), max(names::ended_at))).first(connection)?;
        known.name_known_at = seen.max(ended).map(Timestamp);
        let others: i64 = claims()
            .filter(names::telegram_id.ne(holder.as_i64()))
            .count()
            .get_result(connection)?;
        known.had_other_holder = others > 0;
    }
    let observation = Observation { holder, username, seen_at };
    apply(connection, &observation, &name_service::decide(&observation, &known))
}

fn apply(
    connection: &mut AnyConnection,
    observation: &Observation,
    decision: &Decision,
) -> Result<(), Failure> {
    let holder = observation.holder.as_i64();
    let at = observation.seen_at.0;
    if decision.remember {
        diesel::update(name_observations::table.find(holder))
            .set(name_observations::seen_at.eq(at))
            .execute(connection)?;
    }
    let own = names::table.filter(names::telegram_id.eq(holder)).filter(names::ended_at.is_null());
    if decision.end_own {
        diesel::update(own).set(names::ended_at.eq(Some(at))).execute(connection)?;
    }
    let Some(username) = &observation.username else {
        return Ok(());
    };
    let named = names::table
        .filter(names::canonical.eq(username.canonical()))
        .filter(names::ended_at.is_null());
    if decision.end_other {
        // A claim that was confirmed meanwhile is newer than this observation and is kept.
        diesel::update(named.filter(names::seen_at.lt(at)))
            .set(names::ended_at.eq(Some(at)))
            .execute(connection)?;
    }
    if decision.refresh {
        diesel::update(own)
            .set((names::shown.eq(username.as_str()), names::seen_at.eq(at)))
            .execute(connection)?;
    }
    if let Some(claim) = &decision.open {
        diesel::insert_into(names::table)
            .values((
                names::telegram_id.eq(claim.holder.as_i64()),
                names::canonical.eq(claim.username.canonical()),
                names::shown.eq(claim.username.as_str()),
                names::claimed_at.eq(claim.claimed_at.0),
                names::seen_at.eq(claim.seen_at.0),
                names::reassigned.eq(claim.reassigned),
            ))
            .execute(connection)?;
    }
    Ok(())
}

impl Database {
    /// Applies the username in an authenticated update of its sender.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn seen_username(
        &self,
        holder: TelegramId,
        name: SeenName,
    ) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            connection.transaction(|connection| observe(connection, holder, &name))
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
