//! Openings of the vault page. Each is bound to the key of the page that opened it first, and some
//! are kept as proofs of what their owner asked for.

use diesel::prelude::*;
use kms_core::launch::{LaunchId, LaunchProof};
use kms_core::ports::StoreError;
use kms_core::{HashedToken, RowMac, ServerKeys};
use kms_types::Timestamp;

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, inserted};
use crate::schema::launches;
use crate::server_keys::{BATCH, StaleMac};

const TABLE: &str = "launches";

/// An opening that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedLaunch {
    /// What Telegram signed.
    pub proof: LaunchProof,
    /// The SHA-256 of the page's key.
    pub key: HashedToken,
    /// When it was first opened.
    pub opened_at: Timestamp,
}

/// What came of opening a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is bound to this key, by this request or by an earlier one.
    Bound(OpenedLaunch),
    /// Another key came first, or the key belongs to another launch.
    Used,
}

/// All columns, in the order of the table.
type Row = (String, Vec<u8>, String, Vec<u8>, i64, bool, i32, Vec<u8>);

fn with_mac_fields<T>(launch: &OpenedLaunch, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    work(&[
        TABLE.as_bytes(),
        launch.proof.id().to_string().as_bytes(),
        launch.key.as_bytes(),
        launch.proof.message.as_bytes(),
        &launch.proof.signature,
        &launch.opened_at.0.to_be_bytes(),
    ])
}

fn mac(launch: &OpenedLaunch, keys: &ServerKeys) -> RowMac {
    with_mac_fields(launch, |fields| keys.row.mac(fields))
}

fn parse(row: Row, keys: &ServerKeys) -> Result<OpenedLaunch, StoreError> {
    let (id, key_hash, message, signature, opened_at, _is_proof, mac_key, mac) = row;
    let row = RowRef { table: TABLE, key: &id };
    let launch = OpenedLaunch {
        proof: LaunchProof { message, signature: row.array(&signature)? },
        key: HashedToken::from(row.array::<32>(&key_hash)?),
        opened_at: Timestamp(opened_at),
    };
    if launch.proof.id().to_string() != id {
        return Err(row.corrupt("its id is not the hash of its message"));
    }
    let mac = row.mac(mac_key, &mac)?;
    let verified = with_mac_fields(&launch, |fields| keys.row.verify(&mac, fields));
    verified.map_err(|error| row.not_verified(error))?;
    Ok(launch)
}

/// Returns the next launches whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Row> = launches::table
        .filter(launches::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(launches::id.gt(after))
        .order(launches::id)
        .limit(BATCH)
        .load(connection)?;
    let stale = |row: Row| {
        let (key, old) = (row.0.clone(), row.7.clone());
        let new = parse(row, keys).map(|launch| mac(&launch, keys));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

impl Database {
    /// Binds a launch to its key, unless it was opened before. It is kept as a proof if `is_proof`.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check.
    pub async fn open_launch(
        &self,
        launch: OpenedLaunch,
        is_proof: bool,
    ) -> Result<Opened, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                // A savepoint, so that a unique violation does not abort the transaction.
                let insert = connection.transaction(|connection| {
                    let mac = mac(&launch, &keys);
                    diesel::insert_into(launches::table)
                        .values((
                            launches::id.eq(launch.proof.id().to_string()),
                            launches::key_hash.eq(launch.key.as_bytes().to_vec()),
                            launches::message.eq(&launch.proof.message),
                            launches::signature.eq(launch.proof.signature.to_vec()),
                            launches::opened_at.eq(launch.opened_at.0),
                            launches::is_proof.eq(is_proof),
                            launches::mac_key.eq(i32::from(mac.key.as_u8())),
                            launches::mac.eq(mac.tag.to_vec()),
                        ))
                        .execute(connection)?;
                    Ok(())
                });
                if inserted(insert)? {
                    return Ok(Opened::Bound(launch));
                }
                let known = find(connection, launch.proof.id(), &keys)?;
                let same = known.filter(|known| known.key == launch.key);
                Ok(same.map_or(Opened::Used, Opened::Bound))
            })
        })
        .await
    }

    /// Returns the launch that is bound to this key.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check.
    pub async fn launch_of_key(
        &self,
        key: HashedToken,
    ) -> Result<Option<OpenedLaunch>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let row: Option<Row> = launches::table
                .filter(launches::key_hash.eq(key.as_bytes().to_vec()))
                .first(connection)
                .optional()?;
            Ok(row.map(|row| parse(row, &keys)).transpose()?)
        })
        .await
    }

    /// Returns the launch with this id, which is in hex.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check.
    pub async fn launch(&self, id: &str) -> Result<Option<OpenedLaunch>, StoreError> {
        let (id, keys) = (id.to_owned(), self.keys.clone());
        self.blocking(move |connection| {
            let row: Option<Row> = launches::table.find(id).first(connection).optional()?;
            Ok(row.map(|row| parse(row, &keys)).transpose()?)
        })
        .await
    }

    /// Deletes at most `limit` launches that were opened before this time and are no proofs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_old_launches(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<usize, StoreError> {
        self.blocking(move |connection| {
            let old: Vec<String> = launches::table
                .filter(launches::is_proof.eq(false))
                .filter(launches::opened_at.lt(before.0))
                .select(launches::id)
                .limit(limit.into())
                .load(connection)?;
            Ok(diesel::delete(launches::table.filter(launches::id.eq_any(old)))
                .execute(connection)?)
        })
        .await
    }
}

fn find(
    connection: &mut AnyConnection,
    id: LaunchId,
    keys: &ServerKeys,
) -> Result<Option<OpenedLaunch>, Failure> {
    let row: Option<Row> = launches::table.find(id.to_string()).first(connection).optional()?;
    Ok(row.map(|row| parse(row, keys)).transpose()?)
}
