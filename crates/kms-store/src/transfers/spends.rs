//! The amounts that count towards the daily spending limits. A row is written with the signature,
//! has a MAC, and is kept for longer than the day that it counts for. The audit has each signature,
//! so a missing row is found.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::BigInt;
use kms_chain::spending::{DAY, Spend};
use kms_chain::transfer::Transfer;
use kms_core::ServerKeys;
use kms_core::ports::StoreError;
use kms_types::{AccountId, AssetId, Timestamp, U256, Units, Wei};

use crate::audit;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::schema::spends;
use crate::server_keys::{BATCH, StaleMac};

const TABLE: &str = "spends";

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = spends, treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct Row {
    transfer_id: String,
    account_id: String,
    asset: String,
    units: String,
    fee: String,
    unpaid_fee: Option<String>,
    at: i64,
    mac_key: i32,
    mac: Vec<u8>,
}

/// What one transfer counts for.
pub(super) struct Spent {
    asset: AssetId,
    units: Units,
    /// In wei of the chain.
    fee: Units,
    /// All that counts once the block that does not pay the transfer is final.
    unpaid_fee: Option<Units>,
    at: Timestamp,
}

impl Row {
    fn new(keys: &ServerKeys, transfer: &str, account: &str, spent: &Spent) -> Self {
        let Spent { asset, units, fee, unpaid_fee, at } = spent;
        let mut row = Self {
            transfer_id: transfer.to_owned(),
            account_id: account.to_owned(),
            asset: asset.to_string(),
            units: units.to_string(),
            fee: fee.to_string(),
            unpaid_fee: unpaid_fee.map(|fee| fee.to_string()),
            at: at.0,
            mac_key: 0,
            mac: Vec::new(),
        };
        let mac = row.with_mac_fields(|fields| keys.row.mac(fields));
        (row.mac_key, row.mac) = (i32::from(mac.key.as_u8()), mac.tag.to_vec());
        row
    }

    fn with_mac_fields<T>(&self, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        work(&[
            TABLE.as_bytes(),
            self.transfer_id.as_bytes(),
            self.account_id.as_bytes(),
            self.asset.as_bytes(),
            self.units.as_bytes(),
            self.fee.as_bytes(),
            self.unpaid_fee.as_deref().unwrap_or_default().as_bytes(),
            &self.at.to_be_bytes(),
        ])
    }

    fn parse(&self, keys: &ServerKeys) -> Result<Spent, StoreError> {
        let row = RowRef { table: TABLE, key: &self.transfer_id };
        let mac = row.mac(self.mac_key, &self.mac)?;
        self.with_mac_fields(|fields| keys.row.verify(&mac, fields))
            .map_err(|error| row.not_verified(error))?;
        Ok(Spent {
            asset: row.parse(&self.asset)?,
            units: row.parse(&self.units)?,
            fee: row.parse(&self.fee)?,
            unpaid_fee: row.parse_some(self.unpaid_fee.as_ref())?,
            at: Timestamp(self.at),
        })
    }
}

pub(super) fn sender(transfer: &Transfer) -> Result<AccountId, StoreError> {
    let row = RowRef { table: "transfers", key: &transfer.id.to_string() };
    transfer.from.account.ok_or_else(|| row.corrupt("it has no sender"))
}

/// Lists the spends of the last day, oldest first. Fails if one was modified, or if one is missing
/// whose signature the audit has.
pub(super) fn of_a_day(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    account: AccountId,
    now: Timestamp,
) -> Result<Vec<Spent>, Failure> {
    let since = now.minus(DAY);
    let id = account.to_string();
    // The audit first: each spend is committed before its record.
    let sent = audit::sent_since(connection, account, since)?;
    let rows = spends::table.filter(spends::account_id.eq(&id)).select(Row::as_select());
    let of_a_day = rows.filter(spends::at.gt(since.0)).load(connection)?;
    let mut found: BTreeMap<_, _> =
        of_a_day.into_iter().map(|row: Row| (row.transfer_id.clone(), row)).collect();
    for transfer in sent {
        if found.contains_key(&transfer) {
            continue;
        }
        // Its time or its account is another one than when it was written, or it was deleted.
        let row: Option<Row> =
            spends::table.find(&transfer).select(Row::as_select()).first(connection).optional()?;
        let missing = StoreError::Tampered { table: TABLE, key: transfer.clone() };
        found.insert(transfer, row.filter(|row| row.account_id == id).ok_or(missing)?);
    }
    let mut spends = found.values().map(|row| row.parse(keys)).collect::<Result<Vec<_>, _>>()?;
    spends.sort_by_key(|spent| spent.at);
    Ok(spends)
}

/// Returns what was spent of one asset. Every transfer spends its fee in the native coin of its
/// chain.
pub(super) fn of_asset(spends: &[Spent], asset: AssetId) -> Vec<Spend> {
    let spend = |spent: &Spent| {
        let units = if spent.asset == asset { spent.units } else { Units::default() };
        let pays_fee = AssetId::native(spent.asset.chain_id) == asset;
        let fee = if pays_fee { spent.fee } else { Units::default() };
        Spend { units: Units(units.0.saturating_add(fee.0)), at: spent.at }
    };
    spends.iter().map(spend).collect()
}

/// The maximum that a transfer may spend, which the transaction that signs it reserves.
pub(super) fn reserved(
    keys: &ServerKeys,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<Row, StoreError> {
    let spent = Spent {
        asset: transfer.asset(),
        units: transfer.value,
        fee: Units(highest_fee(transfer).0),
        unpaid_fee: None,
        at: now,
    };
    Ok(Row::new(keys, &transfer.id.to_string(), &sender(transfer)?.to_string(), &spent))
}

/// Reserves again what a transfer may spend, because the final block that ended it was removed.
pub(super) fn reserve_again(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), Failure> {
    change(connection, keys, &transfer.id.to_string(), |spent| {
        spent.units = spent.units.max(transfer.value);
        spent.fee = Units(highest_fee(transfer).0);
        (spent.unpaid_fee, spent.at) = (None, now);
    })
}

/// What may be spent in native coin beside the amount: the fee of the payment, or what the fee of
/// its cancellation is above the amount, which is not paid then.
fn highest_fee(transfer: &Transfer) -> Wei {
    let coin = if transfer.token.is_none() { transfer.value.0 } else { U256::ZERO };
    Wei(transfer.max_wei().0.saturating_sub(coin))
}

/// Reserves the maximum fee of a transfer that was signed again.
pub(super) fn reserve_fee(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    transfer: &Transfer,
) -> Result<(), Failure> {
    let fee = Units(highest_fee(transfer).0);
    change(connection, keys, &transfer.id.to_string(), |spent| spent.fee = fee)
}

/// Replaces the reserved fee of a payment by the fee paid, once the block is final.
pub(super) fn settle(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    transfer: &str,
    fee: Wei,
) -> Result<(), Failure> {
    change(connection, keys, transfer, |spent| spent.fee = Units(fee.0))
}

/// Notes the fee of a transfer that a block does not pay, or that no such block is on the chain any
/// more. Noted when the block is read, so that a forged row of `settlements` releases nothing.
pub(super) fn note_unpaid(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    transfer: &str,
    fee: Option<Wei>,
) -> Result<(), Failure> {
    change(connection, keys, transfer, |spent| spent.unpaid_fee = fee.map(|fee| Units(fee.0)))
}

/// Releases all but the fee that was noted, once the block is final.
pub(super) fn release(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    transfer: &str,
) -> Result<(), Failure> {
    change(connection, keys, transfer, |spent| {
        if let Some(fee) = spent.unpaid_fee {
            (spent.units, spent.fee) = (Units::default(), fee);
        }
    })
}

/// Changes what a transfer counts for. A row that fails its check stays as it is, because it must
/// not stop the settlement of a chain: the next payment of its account is refused for it.
fn change(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    transfer: &str,
    change: impl FnOnce(&mut Spent),
) -> Result<(), Failure> {
    let found: Option<Row> =
        spends::table.find(transfer).select(Row::as_select()).first(connection).optional()?;
    let Some(row) = found else { return Ok(()) };
    let Ok(mut spent) = row.parse(keys) else { return Ok(()) };
    change(&mut spent);
    let new = Row::new(keys, &row.transfer_id, &row.account_id, &spent);
    let same =
        spends::table.filter(spends::transfer_id.eq(transfer)).filter(spends::mac.eq(row.mac));
    // Rolled back, and done again, if another transaction changed it meanwhile.
    let changed = diesel::update(same).set(&new).execute(connection)?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound.into()) }
}

/// Returns the next spends whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Row> = spends::table
        .filter(spends::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(spends::transfer_id.gt(after))
        .order(spends::transfer_id)
        .limit(BATCH)
        .select(Row::as_select())
        .load(connection)?;
    let stale = |row: Row| {
        let new = row.parse(keys).map(|_| row.with_mac_fields(|fields| keys.row.mac(fields)));
        StaleMac { cursor: row.transfer_id.clone(), key: row.transfer_id, old: row.mac, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

impl Database {
    /// Deletes at most `at_most` amounts that were signed away before a time, more than a day ago,
    /// and returns their number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_old_spends(
        &self,
        before: Timestamp,
        at_most: u32,
    ) -> Result<usize, StoreError> {
        let skip_locked = self.dialect.skip_locked();
        let delete = format!(
            "delete from spends where transfer_id in \
             (select transfer_id from spends where at < $1 order by at limit $2 {skip_locked})"
        );
        self.blocking(move |connection| {
            let delete = diesel::sql_query(delete).bind::<BigInt, _>(before.0);
            Ok(delete.bind::<BigInt, _>(i64::from(at_most)).execute(connection)?)
        })
        .await
    }
}
