//! Moves what the server seals to the newest version of the contact key, beside servers that change
//! the same rows: each blob is opened under its own version, and replaced if it is still that one.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer, Text};
use kms_core::account::FormerEmail;
use kms_core::ports::StoreError;
use kms_core::{SealError, Sealer, ServerKeys, failpoint};
use kms_types::AccountId;

use super::{BATCH, MovedBatch};
use crate::accounts::rows as accounts;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::dialect::Dialect;

/// What is sealed again. The address of an e-mail change is not: its code covers the sealed bytes,
/// and it is deleted when the code has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The contacts of accounts.
    Contacts,
    /// The former addresses that events notify.
    FormerAddresses,
    /// The signed bytes of transfers.
    SignedBytes,
}

impl Sealed {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Contacts, Self::FormerAddresses, Self::SignedBytes];
}

/// The parts of one batch.
struct Work<'a> {
    keys: &'a ServerKeys,
    sealer: &'a Sealer,
    dialect: Dialect,
    batch: MovedBatch,
}

impl Database {
    /// Seals the next blobs of this kind again, after `cursor`, which is empty at first. A crash
    /// between any two writes leaves blobs that open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reseal(&self, what: Sealed, cursor: &str) -> Result<MovedBatch, StoreError> {
        let (keys, dialect, cursor) = (self.keys.clone(), self.dialect, cursor.to_owned());
        self.without_deadline(move |connection| {
            let sealer = Sealer::new(keys.clone());
            let batch = MovedBatch::default();
            let mut work = Work { keys: &keys, sealer: &sealer, dialect, batch };
            match what {
                Sealed::Contacts => contacts(connection, &mut work, &cursor)?,
                Sealed::FormerAddresses => former_addresses(connection, &mut work, &cursor)?,
                Sealed::SignedBytes => signed_bytes(connection, &mut work, &cursor)?,
            }
            Ok(work.batch)
        })
        .await
    }
}

impl Work<'_> {
    /// The condition that a sealed column is under an older version.
    fn is_older(&self, column: &str) -> String {
        let newest = self.keys.contact.current().as_u8();
        let version = self.dialect.sealed_under(column);
        format!("({column} is not null and {version} < '{newest:02x}')")
    }
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = Text)]
    id: String,
}

/// The MAC of an account covers its verified address, so both are written together.
fn contacts(
    connection: &mut AnyConnection,
    work: &mut Work<'_>,
    cursor: &str,
) -> Result<(), Failure> {
    let older =
        ["mobile", "email", "former_email"].map(|column| work.is_older(column)).join(" or ");
    let sql =
        format!("select id from accounts where id > $1 and ({older}) order by id limit {BATCH}");
    let ids: Vec<Id> = diesel::sql_query(sql).bind::<Text, _>(cursor).load(connection)?;
    for Id { id } in ids {
        work.batch.next = Some(id.clone());
        let row = RowRef { table: "accounts", key: &id };
        let done = row.parse::<AccountId>(&id).map_err(Failure::from).and_then(|account| {
            failpoint::reach("reseal-before-write");
            let moved =
                connection.transaction(|connection| reseal_account(connection, account, work));
            failpoint::reach("reseal-after-write");
            moved
        });
        note(&mut work.batch, done)?;
    }
    Ok(())
}

fn reseal_account(
    connection: &mut AnyConnection,
    id: AccountId,
    work: &Work<'_>,
) -> Result<bool, Failure> {
    let mut failed = None;
    let changed = accounts::update(connection, id, work.keys, |account| {
        let mut reseal = |kind, blob: &mut Option<Vec<u8>>| {
            let Some(old) = blob.as_deref() else { return };
            match work.sealer.reseal_contact(id, kind, old) {
                Ok(new) => *blob = Some(new),
                Err(error) => failed = Some(error),
            }
        };
        reseal("mobile", &mut account.mobile);
        reseal("email", &mut account.email);
        if let Some(former) = account.former_email.take() {
            let mut email = Some(former.email);
            reseal("email", &mut email);
            account.former_email = email.map(|email| FormerEmail { email, ..former });
        }
        failed.is_none()
    })?;
    match failed {
        Some(error) => Err(unsealed("accounts", &id.to_string(), error)),
        None => Ok(changed),
    }
}

#[derive(QueryableByName)]
struct FormerAddress {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    account_id: String,
    #[diesel(sql_type = Binary)]
    contact: Vec<u8>,
}

fn former_addresses(
    connection: &mut AnyConnection,
    work: &mut Work<'_>,
    cursor: &str,
) -> Result<(), Failure> {
    let older = work.is_older("contact");
    let sql = format!(
        "select seq, account_id, contact from events where seq > $1 and {older} \
         order by seq limit {BATCH}"
    );
    let after: i64 = cursor.parse().unwrap_or(i64::MIN);
    let rows: Vec<FormerAddress> =
        diesel::sql_query(sql).bind::<BigInt, _>(after).load(connection)?;
    for FormerAddress { seq, account_id, contact } in rows {
        let key = seq.to_string();
        work.batch.next = Some(key.clone());
        let row = RowRef { table: "events", key: &key };
        let account = row.parse::<AccountId>(&account_id).map_err(Failure::from);
        let sealed = account.and_then(|account| {
            let new = work.sealer.reseal_contact(account, "email", &contact);
            new.map_err(|error| unsealed("events", &key, error))
        });
        let done = sealed.and_then(|new| {
            failpoint::reach("reseal-before-write");
            let update = "update events set contact = $1 where seq = $2 and contact = $3";
            let replaced = diesel::sql_query(update)
                .bind::<Binary, _>(new)
                .bind::<BigInt, _>(seq)
                .bind::<Binary, _>(contact)
                .execute(connection)?;
            failpoint::reach("reseal-after-write");
            Ok(replaced == 1)
        });
        note(&mut work.batch, done)?;
    }
    Ok(())
}

#[derive(QueryableByName)]
struct SignedBytes {
    #[diesel(sql_type = Text)]
    transfer_id: String,
    #[diesel(sql_type = Integer)]
    step: i32,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Binary)]
    sealed: Vec<u8>,
}

fn signed_bytes(
    connection: &mut AnyConnection,
    work: &mut Work<'_>,
    cursor: &str,
) -> Result<(), Failure> {
    let older = work.is_older("sealed");
    let sql = format!(
        "select transfer_id, step, kind, sealed from signed_transactions \
         where (transfer_id, step) > ($1, $2) and {older} \
         order by transfer_id, step limit {BATCH}"
    );
    let (transfer, step) = cursor.split_once('/').unwrap_or_default();
    let rows: Vec<SignedBytes> = diesel::sql_query(sql)
        .bind::<Text, _>(transfer)
        .bind::<Integer, _>(step.parse::<i32>().unwrap_or(i32::MIN))
        .load(connection)?;
    for SignedBytes { transfer_id, step, kind, sealed } in rows {
        let key = format!("{transfer_id}/{step}");
        work.batch.next = Some(key.clone());
        let row = RowRef { table: "signed_transactions", key: &key };
        let resealed = row.parse(&transfer_id).map_err(Failure::from).and_then(|transfer| {
            let new = work.sealer.reseal_transaction(transfer, &kind, &sealed);
            new.map_err(|error| unsealed("signed_transactions", &key, error))
        });
        let done = resealed.and_then(|new| {
            failpoint::reach("reseal-before-write");
            let update = "update signed_transactions set sealed = $1 \
                          where transfer_id = $2 and step = $3 and sealed = $4";
            let replaced = diesel::sql_query(update)
                .bind::<Binary, _>(new)
                .bind::<Text, _>(&transfer_id)
                .bind::<Integer, _>(step)
                .bind::<Binary, _>(sealed)
                .execute(connection)?;
            failpoint::reach("reseal-after-write");
            Ok(replaced == 1)
        });
        note(&mut work.batch, done)?;
    }
    Ok(())
}

/// Counts a row that was moved, and lists one that failed its check; any other failure ends the
/// batch.
fn note(batch: &mut MovedBatch, done: Result<bool, Failure>) -> Result<(), Failure> {
    match done {
        Ok(moved) => batch.moved += u64::from(moved),
        Err(Failure::Store(error)) if !matches!(error, StoreError::Unavailable { .. }) => {
            batch.failed.push(error);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn unsealed(table: &'static str, key: &str, error: SealError) -> Failure {
    RowRef { table, key }.corrupt(error).into()
}
