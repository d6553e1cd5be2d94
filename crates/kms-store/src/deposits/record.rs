//! Records a received payment: its row, the digest that a small one is added to, and the event.

use diesel::dsl;
use diesel::prelude::*;
use kms_chain::follower::Deposit;
use kms_types::{
    AccountId, AssetId, DepositEvent, DepositId, EthAddress, EventKind, Timestamp, Token, Units,
};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure, NoticeFrom};
use crate::events::{self, About};
use crate::schema::external_deposits;
use crate::transfers::to_i64;

/// A day in milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000;

/// What an account received.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) account: AccountId,
    pub(crate) token: Option<&'a Token>,
    pub(crate) value: Units,
    pub(crate) block: u64,
    /// The hash of the transaction and the sender; `None` if the coin arrived inside a contract
    /// call.
    pub(crate) origin: Option<([u8; 32], EthAddress)>,
}

/// Records a deposit, unless it is known: then a reorg may have moved it into another block. The
/// caller holds the row lock of the cursor.
pub(super) fn record(
    connection: &mut AnyConnection,
    chain_id: u64,
    Deposit { account, payment }: &Deposit,
    notice_from: &NoticeFrom,
    now: Timestamp,
) -> Result<(), Failure> {
    let token = payment.token.as_ref();
    let known = external_deposits::table
        .filter(external_deposits::chain_id.eq(to_i64(chain_id)))
        .filter(external_deposits::tx_hash.eq(Some(payment.tx_hash.to_vec())))
        .filter(external_deposits::account_id.eq(account.to_string()))
        .filter(external_deposits::token.eq(contract(token)));
    let block = external_deposits::block.eq(to_i64(payment.block));
    if diesel::update(known).set(block).execute(connection)? > 0 {
        return Ok(());
    }
    let received = Received {
        account: *account,
        token,
        value: payment.value,
        block: payment.block,
        origin: Some((payment.tx_hash, payment.from)),
    };
    insert(connection, chain_id, received, notice_from, now)
}

/// Inserts a deposit. A small one is added to a digest; any other is notified.
pub(crate) fn insert(
    connection: &mut AnyConnection,
    chain_id: u64,
    received: Received<'_>,
    notice_from: &NoticeFrom,
    now: Timestamp,
) -> Result<(), Failure> {
    let id = DepositId::random();
    let asset = AssetId::of(chain_id, received.token);
    let least = notice_from.get(&asset).copied().unwrap_or_default();
    let digest = match received.value < least {
        true => Some(add_to_digest(connection, chain_id, &received, now)?),
        false => None,
    };
    let is_notified = digest.is_none();
    let (tx_hash, from) = received.origin.unzip();
    diesel::insert_into(external_deposits::table)
        .values((
            new_row(chain_id, id, &received, now),
            external_deposits::tx_hash.eq(tx_hash.map(|hash| hash.to_vec())),
            external_deposits::from_address.eq(from.map(|from| from.to_lower_hex())),
            external_deposits::digest_id.eq(digest),
        ))
        .execute(connection)?;
    if is_notified { notify(connection, received.account, id, now) } else { Ok(()) }
}

/// Adds a small deposit to the digest of its account, asset and day, and returns the digest's id.
fn add_to_digest(
    connection: &mut AnyConnection,
    chain_id: u64,
    received: &Received<'_>,
    now: Timestamp,
) -> Result<String, Failure> {
    let day = now.0.div_euclid(DAY);
    let known: Option<(String, String, i64)> = external_deposits::table
        .filter(external_deposits::account_id.eq(received.account.to_string()))
        .filter(external_deposits::chain_id.eq(to_i64(chain_id)))
        .filter(external_deposits::token.eq(contract(received.token)))
        .filter(external_deposits::digest_day.eq(Some(day)))
        .filter(external_deposits::digest_day.is_not_null())
        .select((external_deposits::id, external_deposits::value, external_deposits::count))
        .first(connection)
        .optional()?;
    let Some((id, sum, count)) = known else {
        let id = DepositId::random();
        diesel::insert_into(external_deposits::table)
            .values((
                new_row(chain_id, id, received, now),
                external_deposits::digest_day.eq(Some(day)),
                external_deposits::digest_due_at.eq(Some((day + 1) * DAY)),
            ))
            .execute(connection)?;
        return Ok(id.to_string());
    };
    let row = RowRef { table: "external_deposits", key: &id };
    let sum: Units = row.parse(&sum)?;
    let sum = Units(sum.0.saturating_add(received.value.0));
    diesel::update(external_deposits::table.find(&id))
        .set((
            external_deposits::value.eq(sum.to_string()),
            external_deposits::count.eq(count.saturating_add(1)),
            // Again, if a server whose clock is ahead notified it before the day was over.
            external_deposits::digest_due_at.eq(Some((day + 1) * DAY)),
            external_deposits::block.eq(to_i64(received.block)),
        ))
        .execute(connection)?;
    Ok(id)
}

/// The columns that a deposit and a digest have.
type NewRow = (
    dsl::Eq<external_deposits::id, String>,
    dsl::Eq<external_deposits::chain_id, i64>,
    dsl::Eq<external_deposits::account_id, String>,
    dsl::Eq<external_deposits::value, String>,
    dsl::Eq<external_deposits::block, i64>,
    dsl::Eq<external_deposits::count, i64>,
    dsl::Eq<external_deposits::recorded_at, i64>,
    dsl::Eq<external_deposits::token, String>,
    dsl::Eq<external_deposits::symbol, Option<String>>,
    dsl::Eq<external_deposits::decimals, Option<i32>>,
);

fn new_row(chain_id: u64, id: DepositId, received: &Received<'_>, now: Timestamp) -> NewRow {
    let token = received.token;
    (
        external_deposits::id.eq(id.to_string()),
        external_deposits::chain_id.eq(to_i64(chain_id)),
        external_deposits::account_id.eq(received.account.to_string()),
        external_deposits::value.eq(received.value.to_string()),
        external_deposits::block.eq(to_i64(received.block)),
        external_deposits::count.eq(1),
        external_deposits::recorded_at.eq(now.0),
        external_deposits::token.eq(contract(token)),
        external_deposits::symbol.eq(token.map(|token| token.symbol.to_string())),
        external_deposits::decimals.eq(token.map(|token| i32::from(token.decimals))),
    )
}

/// The column of a token's contract.
fn contract(token: Option<&Token>) -> String {
    token.map(|token| token.address.to_lower_hex()).unwrap_or_default()
}

/// Appends the event of a deposit, or of a digest.
pub(super) fn notify(
    connection: &mut AnyConnection,
    account: AccountId,
    deposit: DepositId,
    now: Timestamp,
) -> Result<(), Failure> {
    let kind = EventKind::Deposit(DepositEvent::Received);
    events::append(connection, account, now, kind, About::Deposit(deposit))
}
