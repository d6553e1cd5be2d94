//! External deposits, and the cursor of the scan for them.

pub(crate) mod record;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use kms_chain::follower::{
    BlockRef, Deposit, DepositStore, DueBalance, ExternalDeposit, Payment, ReadBalance,
};
use kms_core::ports::StoreError;
use kms_types::{AccountId, DepositId, EthAddress, Timestamp, Token};

use crate::balances;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::schema::{chain_cursors, external_deposits, wallets};
use crate::transfers::{HistoryEntry, to_i64};

/// The number of values that one query compares with, which both databases support.
const CHUNK: usize = 10_000;

/// Finds the accounts of these addresses.
fn owners(
    connection: &mut AnyConnection,
    addresses: &HashSet<EthAddress>,
) -> Result<HashMap<EthAddress, AccountId>, Failure> {
    let addresses: Vec<String> = addresses.iter().map(|address| address.to_lower_hex()).collect();
    let mut owners = HashMap::new();
    for addresses in addresses.chunks(CHUNK) {
        let rows: Vec<(String, String)> = wallets::table
            .filter(wallets::address.eq_any(addresses.to_vec()))
            .select((wallets::address, wallets::account_id))
            .load(connection)?;
        for (address, account) in rows {
            let row = RowRef { table: "wallets", key: &account };
            owners.insert(row.parse(&address)?, row.parse(&account)?);
        }
    }
    Ok(owners)
}

/// Advances the cursor, unless another server did. One that moves back makes the balances that were
/// read above incomparable: what they include may be mined again in another block.
fn move_cursor(
    connection: &mut AnyConnection,
    chain_id: i64,
    from: BlockRef,
    to: BlockRef,
) -> Result<bool, Failure> {
    let row = RowRef { table: "chain_cursors", key: &chain_id.to_string() };
    let (old, new): (i64, i64) = (row.convert(from.number)?, row.convert(to.number)?);
    let cursor = chain_cursors::table
        .filter(chain_cursors::chain_id.eq(chain_id))
        .filter(chain_cursors::block.eq(old))
        .filter(chain_cursors::block_hash.eq(from.hash.to_vec()));
    let moved = diesel::update(cursor)
        .set((
            chain_cursors::block.eq(new),
            chain_cursors::block_hash.eq(to.hash.to_vec()),
            chain_cursors::rewinds.eq(chain_cursors::rewinds + i64::from(new < old)),
        ))
        .execute(connection)?;
    Ok(moved == 1)
}

fn chain_column(chain_id: u64) -> Result<i64, StoreError> {
    RowRef { table: "chain_cursors", key: &chain_id.to_string() }.convert(chain_id)
}

#[async_trait]
impl DepositStore for Database {
    async fn cursor(&self, chain_id: u64) -> Result<Option<BlockRef>, StoreError> {
        self.blocking(move |connection| {
            let row: Option<(i64, Vec<u8>)> = chain_cursors::table
                .find(chain_column(chain_id)?)
                .select((chain_cursors::block, chain_cursors::block_hash))
                .first(connection)
                .optional()?;
            let Some((number, hash)) = row else {
                return Ok(None);
            };
            let row = RowRef { table: "chain_cursors", key: &chain_id.to_string() };
            Ok(Some(BlockRef { number: row.convert(number)?, hash: row.array(&hash)? }))
        })
        .await
    }

    async fn start_at(&self, chain_id: u64, at: BlockRef) -> Result<(), StoreError> {
        let (chain_id, number) = (chain_column(chain_id)?, to_i64(at.number));
        let mut added = Some(String::new());
        while let Some(after) = added {
            added = self
                .blocking(move |connection| {
                    balances::add_wallets(connection, chain_id, number, &after)
                })
                .await?;
        }
        self.blocking(move |connection| {
            let inserted = diesel::insert_into(chain_cursors::table)
                .values((
                    chain_cursors::chain_id.eq(chain_id),
                    chain_cursors::block.eq(number),
                    chain_cursors::block_hash.eq(at.hash.to_vec()),
                    chain_cursors::tip_hash.eq(at.hash.to_vec()),
                    chain_cursors::read_at.eq(0),
                ))
                .execute(connection);
            match inserted {
                Ok(_) | Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn note_read(&self, chain_id: u64, now: Timestamp) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::update(chain_cursors::table.find(chain_column(chain_id)?))
                .set(chain_cursors::read_at.eq(now.0))
                .execute(connection)?;
            Ok(())
        })
        .await
    }

    async fn payments_to_wallets(
        &self,
        payments: Vec<Payment>,
    ) -> Result<Vec<Deposit>, StoreError> {
        if payments.is_empty() {
            return Ok(Vec::new());
        }
        self.blocking(move |connection| {
            let paid: HashSet<_> = payments.iter().map(|payment| payment.to).collect();
            let owners = owners(connection, &paid)?;
            let incoming = |payment: Payment| {
                let account = *owners.get(&payment.to)?;
                Some(Deposit { account, payment })
            };
            Ok(payments.into_iter().filter_map(incoming).collect())
        })
        .await
    }

    async fn record_deposits(
        &self,
        chain_id: u64,
        from: BlockRef,
        to: BlockRef,
        incoming: Vec<Deposit>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let notice_from = Arc::clone(&self.notice_from);
        self.blocking(move |connection| {
            let chain = chain_column(chain_id)?;
            connection.transaction(|connection| {
                // First: the row lock excludes other servers.
                if !move_cursor(connection, chain, from, to)? {
                    return Ok(false);
                }
                for found in &incoming {
                    record::record(connection, chain_id, found, &notice_from, now)?;
                }
                let paid = incoming.iter().map(|found| found.account.to_string()).collect();
                let blocks = (to_i64(from.number), to_i64(to.number));
                balances::wake(connection, chain, blocks, paid, now)?;
                Ok(true)
            })
        })
        .await
    }

    async fn due_balances(
        &self,
        chain_id: u64,
        at: BlockRef,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueBalance>, StoreError> {
        self.blocking(move |connection| balances::due(connection, chain_id, at, now, limit)).await
    }

    async fn record_balances(
        &self,
        chain_id: u64,
        at: BlockRef,
        read: Vec<ReadBalance>,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        let notice_from = Arc::clone(&self.notice_from);
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                balances::record(connection, chain_id, at, &read, &notice_from, now)
            })
        })
        .await
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = external_deposits)]
struct Row {
    id: String,
    chain_id: i64,
    tx_hash: Option<Vec<u8>>,
    from_address: Option<String>,
    value: String,
    block: i64,
    count: i64,
    token: String,
    symbol: Option<String>,
    decimals: Option<i32>,
    recorded_at: i64,
}

impl Row {
    fn deposit(&self) -> Result<ExternalDeposit, StoreError> {
        let row = RowRef { table: "external_deposits", key: &self.id };
        Ok(ExternalDeposit {
            chain_id: row.convert(self.chain_id)?,
            tx_hash: self.tx_hash.as_deref().map(|hash| row.array(hash)).transpose()?,
            from: row.parse_some(self.from_address.as_ref())?,
            token: self.token(row)?,
            value: row.parse(&self.value)?,
            block: row.convert(self.block)?,
            count: row.convert(self.count)?,
        })
    }

    fn token(&self, row: RowRef<'_>) -> Result<Option<Token>, StoreError> {
        match (&self.symbol, self.decimals) {
            (Some(symbol), Some(decimals)) => Ok(Some(Token {
                symbol: row.parse(symbol)?,
                address: row.parse(&self.token)?,
                decimals: row.convert(decimals)?,
            })),
            _ if self.token.is_empty() => Ok(None),
            _ => Err(row.corrupt("a token without symbol or decimals")),
        }
    }
}

/// Reads external deposits as entries of a history.
pub(crate) fn entries(
    connection: &mut AnyConnection,
    ids: Vec<String>,
) -> Result<Vec<HistoryEntry>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = external_deposits::table
        .filter(external_deposits::id.eq_any(ids))
        .select(Row::as_select())
        .load(connection)?;
    let entry = |row: Row| {
        let id = RowRef { table: "external_deposits", key: &row.id }.parse(&row.id)?;
        let at = Timestamp(row.recorded_at);
        Ok(HistoryEntry::Deposit { id, at, deposit: row.deposit()? })
    };
    rows.into_iter().map(entry).collect()
}

impl Database {
    /// Returns an external deposit.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn external_deposit(
        &self,
        id: DepositId,
    ) -> Result<Option<ExternalDeposit>, StoreError> {
        self.blocking(move |connection| {
            let row: Option<Row> = external_deposits::table
                .find(id.to_string())
                .select(Row::as_select())
                .first(connection)
                .optional()?;
            Ok(row.map(|row| row.deposit()).transpose()?)
        })
        .await
    }

    /// Notifies at most `at_most` digests of small deposits whose day is over, and returns their
    /// number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn notify_digests(&self, now: Timestamp, at_most: u32) -> Result<usize, StoreError> {
        self.blocking(move |connection| {
            let due: Vec<(String, String)> = external_deposits::table
                .filter(external_deposits::digest_due_at.is_not_null())
                .filter(external_deposits::digest_due_at.assume_not_null().le(now.0))
                .order(external_deposits::digest_due_at)
                .limit(at_most.into())
                .select((external_deposits::id, external_deposits::account_id))
                .load(connection)?;
            for (id, account) in &due {
                connection.transaction(|connection| notify_digest(connection, id, account, now))?;
            }
            Ok(due.len())
        })
        .await
    }
}

/// Notifies a digest, unless another server did.
fn notify_digest(
    connection: &mut AnyConnection,
    id: &str,
    account: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    let row = RowRef { table: "external_deposits", key: id };
    let due = external_deposits::table
        .filter(external_deposits::id.eq(id))
        .filter(external_deposits::digest_due_at.is_not_null());
    let none = external_deposits::digest_due_at.eq(None::<i64>);
    match diesel::update(due).set(none).execute(connection)? {
        0 => Ok(()),
        _ => record::notify(connection, row.parse(account)?, row.parse(id)?, now),
    }
}
