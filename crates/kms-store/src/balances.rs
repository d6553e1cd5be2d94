//! The native balances of wallets at final blocks, and what no known payment explains of them.
//!
//! These rows carry no MAC: they decide about a notice alone, and deposits and events, which an
//! attacker who can write to the database could insert instead, carry none either.

use std::collections::HashMap;

use diesel::dsl;
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use kms_chain::follower::{BlockRef, DueBalance, ReadBalance};
use kms_core::ports::StoreError;
use kms_types::{AccountId, Timestamp, U256, Units, Wei};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, NoticeFrom, Writes, add_write};
use crate::deposits::record::{self, Received};
use crate::schema::{chain_cursors, external_deposits, transfers, wallet_balances, wallets};
use crate::transfers::to_i64;

const HOUR: i64 = 60 * 60 * 1_000;
const DAY: i64 = 24 * HOUR;

/// After which time a balance is read again whose change no second endpoint confirmed, and how
/// often at most its owner makes a comparison due.
const MINUTE: i64 = 60_000;

/// Rows per transaction when a chain is added.
const BATCH: i64 = 5_000;

/// Begins to compare the balance of a new wallet: nothing can have been paid to it before.
pub(crate) fn begin(
    writes: &mut Writes<'_>,
    account: AccountId,
    now: Timestamp,
) -> Result<(), Failure> {
    let on_each_chain = chain_cursors::table.select((
        chain_cursors::chain_id,
        account.to_string().into_sql::<Text>(),
        chain_cursors::block,
        "0".into_sql::<Nullable<Text>>(),
        chain_cursors::rewinds,
        now.0.into_sql::<BigInt>(),
        now.0.into_sql::<BigInt>(),
    ));
    let columns = (
        wallet_balances::chain_id,
        wallet_balances::account_id,
        wallet_balances::block,
        wallet_balances::balance,
        wallet_balances::rewinds,
        wallet_balances::active_at,
        wallet_balances::next_at,
    );
    let insert = on_each_chain.insert_into(wallet_balances::table).into_columns(columns);
    add_write!(writes, insert);
    Ok(())
}

/// Makes due the comparison of wallets that received deposits, and of those that paid or were paid
/// by a transfer in the blocks after `from`, up to `to`.
pub(crate) fn wake(
    connection: &mut AnyConnection,
    chain_id: i64,
    (from, to): (i64, i64),
    received: Vec<String>,
    now: Timestamp,
) -> Result<(), Failure> {
    let settled = "settlements s join transfers t on t.id = s.transfer_id \
         where s.chain_id = $2 and s.block > $3 and s.block <= $4";
    let wake = format!(
        "update wallet_balances set active_at = $1, next_at = $1 where chain_id = $2 \
         and account_id in (select t.from_account from {settled} \
         union select t.to_account from {settled})"
    );
    diesel::sql_query(wake)
        .bind::<BigInt, _>(now.0)
        .bind::<BigInt, _>(chain_id)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(to)
        .execute(connection)?;
    if received.is_empty() {
        return Ok(());
    }
    let received = wallet_balances::table
        .filter(wallet_balances::chain_id.eq(chain_id))
        .filter(wallet_balances::account_id.eq_any(received));
    diesel::update(received)
        .set((wallet_balances::active_at.eq(now.0), wallet_balances::next_at.eq(now.0)))
        .execute(connection)?;
    Ok(())
}

/// Makes due the comparison of a wallet whose owner looks at its balance. Writes at most once a
/// minute.
fn touch(
    connection: &mut AnyConnection,
    chain_id: i64,
    account: AccountId,
    now: Timestamp,
) -> Result<(), Failure> {
    let touch = "insert into wallet_balances \
         (chain_id, account_id, block, rewinds, active_at, next_at) \
         select chain_id, $1, block, rewinds, $2, $2 from chain_cursors where chain_id = $3 \
         on conflict (chain_id, account_id) \
         do update set active_at = $2, next_at = $2 where wallet_balances.active_at < $4";
    diesel::sql_query(touch)
        .bind::<Text, _>(account.to_string())
        .bind::<BigInt, _>(now.0)
        .bind::<BigInt, _>(chain_id)
        .bind::<BigInt, _>(now.0.saturating_sub(MINUTE))
        .execute(connection)?;
    Ok(())
}

/// Adds the wallets that there are before a chain is followed, after this account; without
/// balances, because payments before that are not known. Returns the last one that it added.
pub(crate) fn add_wallets(
    connection: &mut AnyConnection,
    chain_id: i64,
    block: i64,
    after: &str,
) -> Result<Option<String>, Failure> {
    let accounts: Vec<String> = wallets::table
        .filter(wallets::account_id.gt(after))
        .order(wallets::account_id)
        .limit(BATCH)
        .select(wallets::account_id)
        .load(connection)?;
    let (Some(first), Some(last)) = (accounts.first(), accounts.last()) else { return Ok(None) };
    let add = "insert into wallet_balances \
         (chain_id, account_id, block, rewinds, active_at, next_at) \
         select $1, account_id, $2, 0, 0, 0 from wallets \
         where account_id between $3 and $4 on conflict (chain_id, account_id) do nothing";
    diesel::sql_query(add)
        .bind::<BigInt, _>(chain_id)
        .bind::<BigInt, _>(block)
        .bind::<Text, _>(first)
        .bind::<Text, _>(last)
        .execute(connection)?;
    Ok(Some(last.clone()))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = wallet_balances)]
struct Row {
    account_id: String,
    block: i64,
    balance: Option<String>,
    rewinds: i64,
}

/// What payments moved that are known.
#[derive(Clone, Copy, Default)]
struct Moved {
    received: U256,
    paid: U256,
}

impl Moved {
    /// What a wallet has more than these payments explain.
    fn unexplained(self, before: Wei, balance: Wei) -> U256 {
        let explained = before.0.saturating_add(self.received);
        balance.0.saturating_add(self.paid).saturating_sub(explained)
    }

    /// What a wallet has after these payments.
    fn after(self, before: Wei) -> Option<Wei> {
        before.0.saturating_add(self.received).checked_sub(self.paid).map(Wei)
    }
}

impl Row {
    /// The balance to compare with, unless the cursor was moved back since.
    fn before(&self, rewinds: i64) -> Result<Option<Wei>, StoreError> {
        let row = RowRef { table: "wallet_balances", key: &self.account_id };
        row.parse_some(self.balance.as_ref().filter(|_| self.rewinds == rewinds))
    }
}

/// Of a transfer that is in a block: the sender, the value, the token, the state and the fee.
type Paid = (String, String, Option<String>, String, Option<String>);

/// Returns the number of rewinds, if the cursor is at this block.
fn rewinds_at(
    connection: &mut AnyConnection,
    chain_id: u64,
    at: BlockRef,
) -> Result<Option<i64>, Failure> {
    Ok(chain_cursors::table
        .find(to_i64(chain_id))
        .filter(chain_cursors::block.eq(to_i64(at.number)))
        .filter(chain_cursors::block_hash.eq(at.hash.to_vec()))
        .select(chain_cursors::rewinds)
        .first(connection)
        .optional()?)
}

/// Sums up what the accounts paid and received from the block of their last comparison up to this
/// one. All blocks up to the cursor are settled, so that fees are known.
fn moved(
    connection: &mut AnyConnection,
    chain_id: i64,
    rows: &[Row],
    to: i64,
) -> Result<HashMap<String, Moved>, Failure> {
    let mut moved: HashMap<String, Moved> = HashMap::new();
    let accounts: Vec<String> = rows.iter().map(|row| row.account_id.clone()).collect();
    // Each wallet has a block of its own. The lowest one is for the planner.
    let Some(lowest) = rows.iter().map(|row| row.block).min() else { return Ok(moved) };
    for (account, value) in received(connection, chain_id, &accounts, (lowest, to))? {
        let value: Units = RowRef { table: "wallet_balances", key: &account }.parse(&value)?;
        let moved = moved.entry(account).or_default();
        moved.received = moved.received.saturating_add(value.0);
    }
    for (account, value, token, state, fee) in paid(connection, chain_id, &accounts, (lowest, to))?
    {
        let row = RowRef { table: "wallet_balances", key: &account };
        let value: Units = row.parse(&value)?;
        let fee: Wei = row.parse_some(fee.as_ref())?.unwrap_or_default();
        let is_coin = token.is_none() && PAID.contains(&state.as_str());
        let value = if is_coin { value.0 } else { U256::ZERO };
        let moved = moved.entry(account).or_default();
        moved.paid = moved.paid.saturating_add(value).saturating_add(fee.0);
    }
    Ok(moved)
}

/// Returns each account with each amount of the coin that it received, by external deposits and by
/// transfers.
fn received(
    connection: &mut AnyConnection,
    chain_id: i64,
    accounts: &[String],
    (lowest, to): (i64, i64),
) -> Result<Vec<(String, String)>, Failure> {
    let mut received: Vec<(String, String)> = wallet_balances::table
        .inner_join(
            external_deposits::table.on(external_deposits::account_id
                .eq(wallet_balances::account_id)
                .and(external_deposits::chain_id.eq(wallet_balances::chain_id))
                .and(external_deposits::block.gt(wallet_balances::block))),
        )
        .filter(wallet_balances::chain_id.eq(chain_id))
        .filter(wallet_balances::account_id.eq_any(accounts.to_vec()))
        .filter(external_deposits::block.gt(lowest))
        .filter(external_deposits::block.le(to))
        .filter(external_deposits::tx_hash.is_not_null())
        .filter(external_deposits::token.eq(""))
        .select((wallet_balances::account_id, external_deposits::value))
        .load(connection)?;
    let transferred: Vec<(String, String)> = wallet_balances::table
        .inner_join(wallets::table.on(wallets::account_id.eq(wallet_balances::account_id)))
        .inner_join(
            transfers::table.on(transfers::to_address
                .eq(wallets::address)
                .and(transfers::chain_id.eq(wallet_balances::chain_id))
                .and(transfers::block.assume_not_null().gt(wallet_balances::block))),
        )
        .filter(wallet_balances::chain_id.eq(chain_id))
        .filter(wallet_balances::account_id.eq_any(accounts.to_vec()))
        .filter(transfers::block.is_not_null())
        .filter(transfers::block.assume_not_null().gt(lowest))
        .filter(transfers::block.assume_not_null().le(to))
        .filter(transfers::state.eq_any(PAID))
        .filter(transfers::token.is_null())
        .select((wallet_balances::account_id, transfers::value))
        .load(connection)?;
    received.extend(transferred);
    Ok(received)
}

/// Returns each transfer that the accounts paid, or whose fee they paid.
fn paid(
    connection: &mut AnyConnection,
    chain_id: i64,
    accounts: &[String],
    (lowest, to): (i64, i64),
) -> Result<Vec<Paid>, Failure> {
    Ok(wallet_balances::table
        .inner_join(wallets::table.on(wallets::account_id.eq(wallet_balances::account_id)))
        .inner_join(
            transfers::table.on(transfers::from_address
                .eq(wallets::address)
                .and(transfers::chain_id.eq(wallet_balances::chain_id))
                .and(transfers::block.assume_not_null().gt(wallet_balances::block))),
        )
        .filter(wallet_balances::chain_id.eq(chain_id))
        .filter(wallet_balances::account_id.eq_any(accounts.to_vec()))
        .filter(transfers::block.is_not_null())
        .filter(transfers::block.assume_not_null().gt(lowest))
        .filter(transfers::block.assume_not_null().le(to))
        .select((
            wallet_balances::account_id,
            transfers::value,
            transfers::token,
            transfers::state,
            transfers::fee,
        ))
        .load(connection)?)
}

/// The states of a transfer whose recipient was paid.
const PAID: [&str; 2] = ["mined", "final"];

/// The columns that every comparison sets.
type Compared = (
    dsl::Eq<wallet_balances::block, i64>,
    dsl::Eq<wallet_balances::rewinds, i64>,
    dsl::Eq<wallet_balances::active_at, SqlLiteral<BigInt>>,
    dsl::Eq<wallet_balances::next_at, SqlLiteral<BigInt>>,
);

/// A balance is compared again at every final block within an hour of activity, and then after an
/// eighth of the time since, up to a day.
fn compared(block: i64, rewinds: i64, is_active: bool, Timestamp(now): Timestamp) -> Compared {
    let (active_at, next_at) = if is_active {
        (now.to_string(), now.to_string())
    } else {
        let idle = format!("({now} - active_at)");
        let next_at = format!(
            "{now} + case when {idle} < {HOUR} then 0 when {idle} < 8 * {DAY} then {idle} / 8 \
             else {DAY} end"
        );
        ("active_at".to_owned(), next_at)
    };
    (
        wallet_balances::block.eq(block),
        wallet_balances::rewinds.eq(rewinds),
        wallet_balances::active_at.eq(dsl::sql(&active_at)),
        wallet_balances::next_at.eq(dsl::sql(&next_at)),
    )
}

/// Whether a balance was not read at this block yet.
#[dsl::auto_type(no_type_alias)]
fn is_open(block: i64, rewinds: i64) -> _ {
    let is_older = wallet_balances::block.lt(block).or(wallet_balances::rewinds.lt(rewinds));
    is_older.or(wallet_balances::balance.is_null())
}

pub(crate) fn due(
    connection: &mut AnyConnection,
    chain_id: u64,
    at: BlockRef,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<DueBalance>, Failure> {
    let Some(rewinds) = rewinds_at(connection, chain_id, at)? else { return Ok(Vec::new()) };
    let (chain_id, to) = (to_i64(chain_id), to_i64(at.number));
    let rows: Vec<(Row, String)> = wallet_balances::table
        .inner_join(wallets::table.on(wallets::account_id.eq(wallet_balances::account_id)))
        .filter(wallet_balances::chain_id.eq(chain_id))
        .filter(wallet_balances::next_at.le(now.0))
        .filter(is_open(to, rewinds))
        .order(wallet_balances::next_at)
        .limit(limit.into())
        .select((Row::as_select(), wallets::address))
        .load(connection)?;
    let (rows, addresses): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let moved = moved(connection, chain_id, &rows, to)?;
    let due = |(row, address): (Row, String)| {
        let moved = moved.get(&row.account_id).copied().unwrap_or_default();
        let reference = RowRef { table: "wallet_balances", key: &row.account_id };
        Ok(DueBalance {
            account: reference.parse(&row.account_id)?,
            address: reference.parse(&address)?,
            expected: row.before(rewinds)?.and_then(|before| moved.after(before)),
        })
    };
    rows.into_iter().zip(addresses).map(due).collect()
}

pub(crate) fn record(
    connection: &mut AnyConnection,
    chain_id: u64,
    at: BlockRef,
    read: &[ReadBalance],
    notice_from: &NoticeFrom,
    now: Timestamp,
) -> Result<u32, Failure> {
    // Locks the cursor: nothing is settled or recorded meanwhile, and no other server compares.
    diesel::update(chain_cursors::table.find(to_i64(chain_id)))
        .set(chain_cursors::block.eq(chain_cursors::block))
        .execute(connection)?;
    let Some(rewinds) = rewinds_at(connection, chain_id, at)? else { return Ok(0) };
    let (chain, to) = (to_i64(chain_id), to_i64(at.number));
    let accounts = read.iter().map(|(account, _)| account.to_string());
    let rows: Vec<Row> = wallet_balances::table
        .filter(wallet_balances::chain_id.eq(chain))
        .filter(wallet_balances::account_id.eq_any(accounts))
        .filter(is_open(to, rewinds))
        .select(Row::as_select())
        .load(connection)?;
    let moved = moved(connection, chain, &rows, to)?;
    let rows: HashMap<String, Row> =
        rows.into_iter().map(|row| (row.account_id.clone(), row)).collect();
    let (mut found, mut unchanged, mut unconfirmed) = (0_u32, Vec::new(), Vec::new());
    for (account, balance) in read {
        let key = account.to_string();
        let Some(row) = rows.get(&key) else { continue };
        let Some(balance) = balance else {
            unconfirmed.push(key);
            continue;
        };
        let before = row.before(rewinds)?;
        let moved = moved.get(&key).copied().unwrap_or_default();
        let excess = before.map(|before| moved.unexplained(before, *balance)).unwrap_or_default();
        if excess > U256::ZERO {
            let deposit = Received {
                account: *account,
                token: None,
                value: Units(excess),
                block: at.number,
                origin: None,
            };
            record::insert(connection, chain_id, deposit, notice_from, now)?;
            found = found.saturating_add(1);
        }
        if before == Some(*balance) {
            unchanged.push(key);
            continue;
        }
        diesel::update(wallet_balances::table.find((chain, key.as_str())))
            .set((
                wallet_balances::balance.eq(Some(balance.to_string())),
                compared(to, rewinds, excess > U256::ZERO, now),
            ))
            .execute(connection)?;
    }
    let these = |accounts: Vec<String>| {
        wallet_balances::table
            .filter(wallet_balances::chain_id.eq(chain))
            .filter(wallet_balances::account_id.eq_any(accounts))
    };
    if !unchanged.is_empty() {
        diesel::update(these(unchanged))
            .set(compared(to, rewinds, false, now))
            .execute(connection)?;
    }
    if !unconfirmed.is_empty() {
        let later = wallet_balances::next_at.eq(now.0.saturating_add(MINUTE));
        diesel::update(these(unconfirmed)).set(later).execute(connection)?;
    }
    Ok(found)
}

impl Database {
    /// Makes due the comparison of a wallet whose owner looks at its balance.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn compare_balance_soon(
        &self,
        chain_id: u64,
        account: AccountId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.blocking(move |connection| touch(connection, to_i64(chain_id), account, now)).await
    }
}
