//! What is read of a sender before a transfer is quoted or signed, in one statement: the transfers
//! that count against the balance, and the owner's limit of the asset.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use kms_chain::ports::{BeforeQuote, PaidBefore};
use kms_chain::spending::OwnLimit;
use kms_chain::transfer::Transfer;
use kms_core::ServerKeys;
use kms_core::audit::Action;
use kms_types::{AccountId, AssetId, EthAddress};

use super::reserving::{is_reserving, summed_up, unsettled};
use super::row::{Row, to_i64};
use super::{ends, spending_limits as limits, spends};
use crate::audit;
use crate::convert::RowRef;
use crate::database::{AnyBackend, AnyConnection, CachedSql, Failure, cached_sql};
use crate::schema::{accounts, spending_limits, transfers};

/// What an account has pending in an asset's chain, and the limit of the asset that its owner set.
pub(super) struct Standing {
    /// As [`super::reserving::reserving`] returns them.
    pub(super) others: Vec<Row>,
    pub(super) own: OwnLimit,
}

/// The account with its limit and each of the transfers, whose columns are null if there is none.
macro_rules! of_account {
    ($account:expr, $asset:expr, $address:expr, $mined:expr) => {{
        let of_asset = spending_limits::account_id
            .eq(accounts::id)
            .and(spending_limits::asset.eq($asset.to_string()));
        accounts::table
            .find($account.to_string())
            .left_join(spending_limits::table.on(of_asset))
            .left_join(transfers::table.on(is_reserving!(
                to_i64($asset.chain_id),
                &$address,
                $mined
            )))
            .order(transfers::nonce)
    }};
}

/// A limit, what the audit has of it, and a transfer.
type Found = (Option<limits::Row>, Option<String>, Option<Row>);
/// With whether the account paid the recipient, and another one that looks like it.
type FoundWithPaid = (Option<limits::Row>, Option<String>, Option<Row>, bool, bool);

pub(super) fn standing(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    transfer: &Transfer,
    mined: u64,
) -> Result<Standing, Failure> {
    let (account, address) = (spends::sender(transfer)?, transfer.from.address.to_lower_hex());
    let asset = transfer.asset();
    let found: Vec<Found> = of_account!(account, asset, address, mined)
        .select((
            Option::<limits::Row>::as_select(),
            audit::newest_details(Action::ChangeLimit(account, asset)),
            Option::<Row>::as_select(),
        ))
        .load(connection)?;
    parsed(connection, keys, (account, mined), found)
}

/// As [`standing`], with the earlier payments to an address.
pub(super) fn before_quote(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    (account, asset): (AccountId, AssetId),
    (from, mined): (EthAddress, u64),
    to: EthAddress,
) -> Result<BeforeQuote, Failure> {
    let (address, recipient) = (from.to_lower_hex(), to.to_lower_hex());
    // In the wording of the index, which each of the conditions uses.
    let paid = "exists (select 1 from transfers where from_account = $1 \
        and substr(to_address, 3, 4) || substr(to_address, 39, 4) = $2 \
        and state in ('mined', 'final') and to_address";
    let of_recipient = |text: String| -> CachedSql<AnyBackend, Bool> {
        cached_sql(text)
            .bind::<Text, _>(account.to_string())
            .bind::<Text, _>(ends(to))
            .bind::<Text, _>(recipient.clone())
    };
    let same = of_recipient(format!("{paid} = $3 and chain_id = $4)"));
    let lookalike = of_recipient(format!("({paid} < $3) or {paid} > $3))"));
    let found: Vec<FoundWithPaid> = of_account!(account, asset, address, mined)
        .select((
            Option::<limits::Row>::as_select(),
            audit::newest_details(Action::ChangeLimit(account, asset)),
            Option::<Row>::as_select(),
            same.bind::<BigInt, _>(to_i64(asset.chain_id)),
            lookalike,
        ))
        .load(connection)?;
    let paid_before = found.first().map(|(.., same, lookalike)| (*same, *lookalike));
    let (same, lookalike) = paid_before.unwrap_or_default();
    let found = found.into_iter().map(|(limit, newest, other, ..)| (limit, newest, other));
    let found = found.collect();
    let Standing { others, own } = parsed(connection, keys, (account, mined), found)?;
    let pending = summed_up(connection, others, mined)?;
    Ok(BeforeQuote { pending, paid_before: PaidBefore { same, lookalike }, own })
}

fn parsed(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    (account, mined): (AccountId, u64),
    found: Vec<Found>,
) -> Result<Standing, Failure> {
    let (mut limit, mut others) = (None, Vec::new());
    for (row, newest, other) in found {
        limit = Some((row, newest));
        others.extend(other);
    }
    let key = account.to_string();
    let missing = || RowRef { table: "accounts", key: &key }.corrupt("no such account");
    let (row, newest) = limit.ok_or_else(missing)?;
    let own = limits::newest(row, newest.as_deref(), account, keys)?.own;
    Ok(Standing { others: unsettled(connection, others, mined)?, own })
}
