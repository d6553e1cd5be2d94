//! Daily spending limits: those that owners set, and whether a payment exceeds one.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::prelude::*;
use kms_chain::spending::{self, Allowance, Caps, OverLimit, OwnLimit, SpendingRules};
use kms_chain::transfer::Transfer;
use kms_core::ServerKeys;
use kms_core::audit::Action;
use kms_core::ports::StoreError;
use kms_types::{AccountId, AssetId, EventKind, SecurityEvent, Timestamp, Units};

use super::spends::{self, sender};
use crate::accounts::rows as account_rows;
use crate::audit;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::events::{self, About};
use crate::rate_limits::{self as rate, RateLimit};
use crate::schema::{accounts, spending_limits};
use crate::server_keys::{BATCH, StaleMac};

/// The text of an absent limit.
const NONE: &str = "none";

/// The requests of an account for a higher limit, per day. Each is notified by e-mail, and
/// unlimited e-mails of one account would delay those of others.
const RAISES: u32 = 10;

/// The limit of an account for an asset, and the amount spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spending {
    /// The limit per day that applies now; `None` means unlimited.
    pub limit: Option<Units>,
    /// The amount of the last 24 hours.
    pub spent: Units,
    /// The limit that the owner set.
    pub own: OwnLimit,
}

/// Which limits a caller may raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raises {
    /// None.
    Never,
    /// Those of accounts that are not page-only.
    UnlessPageOnly,
    /// All.
    Always,
}

/// Why a limit was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitRefused {
    /// There were too many raises in a day; the next one is possible after this time.
    TooMany(Duration),
    /// The caller may not raise it.
    Raise,
}

fn may_raise(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    account: AccountId,
    raises: Raises,
) -> Result<bool, Failure> {
    Ok(match raises {
        Raises::Never => false,
        Raises::Always => true,
        Raises::UnlessPageOnly => account_rows::find(connection, account.into(), keys)?
            .is_some_and(|account| account.page_only_since.is_none()),
    })
}

/// When the account was last recovered: lower limits apply for some time after it.
fn recovery_of(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    account: AccountId,
) -> Result<Option<Timestamp>, Failure> {
    Ok(account_rows::find(connection, account.into(), keys)?
        .and_then(|account| account.recovered_at))
}

/// Checks whether a transfer exceeds a limit, of an account that was last recovered at this time,
/// and whose owner set this limit for the asset that is paid.
/// The limits after a recovery do not apply to a recipient that the account had paid before it. A
/// caller that then writes the spend must hold the lock of the account's row.
pub(super) fn over_limit(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    (transfer, recovered, own): (&Transfer, Option<Timestamp>, OwnLimit),
    rules: &SpendingRules,
    now: Timestamp,
) -> Result<Option<OverLimit>, Failure> {
    let account = sender(transfer)?;
    let recovered = match recovered {
        Some(at) if now < at.plus(rules.hold) => {
            let to = (transfer.chain_id, transfer.to.address);
            let is_known = super::had_paid(connection, keys, account, to, at)?;
            Some(at).filter(|_| !is_known)
        }
        other => other,
    };
    let in_token = transfer.token.as_ref().map(|token| (Some(token), transfer.value));
    for (token, units) in in_token.into_iter().chain([(None, transfer.max_wei().into())]) {
        let asset = AssetId::of(transfer.chain_id, token);
        let own = if asset == transfer.asset() {
            own
        } else {
            own_limit(connection, keys, account, asset)?.own
        };
        let mut caps = rules.caps(asset);
        // The fee of a token payment is paid to no recipient.
        if token.is_none() && transfer.token.is_some() && caps.after_recovery == Allowance::Nothing
        {
            caps.after_recovery = Allowance::Unlimited;
        }
        // A pending change only raises the limit, so without a limit now there is nothing to check.
        if spending::in_force(caps, own, recovered, now).is_none() {
            continue;
        }
        let spends = spends::of_a_day(connection, keys, account, now)?;
        let spends = spends::of_asset(&spends, asset);
        if let Err(reached) = spending::check(units, caps, own, recovered, &spends, now) {
            return Ok(Some(OverLimit { token: token.cloned(), reached }));
        }
    }
    Ok(None)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = spending_limits)]
pub(super) struct Row {
    account_id: String,
    asset: String,
    units: String,
    later: Option<String>,
    later_at: Option<i64>,
    revision: i64,
    mac_key: i32,
    mac: Vec<u8>,
}

fn text(limit: Option<Units>) -> String {
    limit.map_or_else(|| NONE.to_owned(), |units| units.to_string())
}

fn parse(row: RowRef<'_>, text: &str) -> Result<Option<Units>, StoreError> {
    if text == NONE { Ok(None) } else { row.parse(text).map(Some) }
}

/// A limit of an owner, with the number of its changes: the audit has the newest.
#[derive(Clone, Copy, Default)]
pub(super) struct Revised {
    pub(super) own: OwnLimit,
    revision: i64,
}

fn with_mac_fields<T>(
    account: AccountId,
    asset: &str,
    Revised { own, revision }: &Revised,
    work: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    let (later, from) = match own.later {
        Some((units, from)) => (text(units), from.0.to_be_bytes().to_vec()),
        None => Default::default(),
    };
    let (account, units) = (account.to_string(), text(own.units));
    work(&[
        b"spending_limits",
        account.as_bytes(),
        asset.as_bytes(),
        units.as_bytes(),
        later.as_bytes(),
        &from,
        &revision.to_be_bytes(),
    ])
}

/// Returns the owner's limit. Fails if it was modified, or if the audit has a newer change of it:
/// then an older copy was put back, or it was deleted.
pub(super) fn own_limit(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    account: AccountId,
    asset: AssetId,
) -> Result<Revised, Failure> {
    let of_asset = spending_limits::account_id
        .eq(accounts::id)
        .and(spending_limits::asset.eq(asset.to_string()));
    let recorded = audit::newest_details(Action::ChangeLimit(account, asset));
    // Of the account, which always has a row.
    let found: Option<(Option<Row>, Option<String>)> = accounts::table
        .find(account.to_string())
        .left_join(spending_limits::table.on(of_asset))
        .select((Option::<Row>::as_select(), recorded))
        .first(connection)
        .optional()?;
    let (found, recorded) = found.unwrap_or_default();
    Ok(newest(found, recorded.as_deref(), account, keys)?)
}

/// Parses a limit, or that there is none, if the audit has no newer one.
pub(super) fn newest(
    found: Option<Row>,
    recorded: Option<&str>,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<Revised, StoreError> {
    let found = found.map(|row| row.parse(keys)).transpose()?.unwrap_or_default();
    if found.revision < audit::newest_revision_in(recorded) {
        let key = account.to_string();
        return Err(StoreError::Tampered { table: "spending_limits", key });
    }
    Ok(found)
}

impl Row {
    fn parse(self, keys: &ServerKeys) -> Result<Revised, StoreError> {
        let row = RowRef { table: "spending_limits", key: &self.account_id };
        let later = match (self.later, self.later_at) {
            (Some(units), Some(from)) => Some((parse(row, &units)?, Timestamp(from))),
            (None, None) => None,
            _ => return Err(row.corrupt("a later limit without its time")),
        };
        let own = OwnLimit { units: parse(row, &self.units)?, later };
        let revised = Revised { own, revision: self.revision };
        let mac = row.mac(self.mac_key, &self.mac)?;
        let account = row.parse(&self.account_id)?;
        with_mac_fields(account, &self.asset, &revised, |fields| keys.row.verify(&mac, fields))
            .map_err(|error| row.not_verified(error))?;
        Ok(revised)
    }
}

/// Writes a limit of the owner.
fn write(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    account: AccountId,
    asset: AssetId,
    revised: Revised,
) -> Result<(), Failure> {
    let (id, asset, own) = (account.to_string(), asset.to_string(), revised.own);
    let mac = with_mac_fields(account, &asset, &revised, |fields| keys.row.mac(fields));
    let values = (
        spending_limits::units.eq(text(own.units)),
        spending_limits::later.eq(own.later.map(|(units, _)| text(units))),
        spending_limits::later_at.eq(own.later.map(|(_, from)| from.0)),
        spending_limits::revision.eq(revised.revision),
        spending_limits::mac_key.eq(i32::from(mac.key.as_u8())),
        spending_limits::mac.eq(mac.tag.to_vec()),
    );
    let row = spending_limits::table.find((&id, &asset));
    if diesel::update(row).set(values.clone()).execute(connection)? == 0 {
        let row = (spending_limits::account_id.eq(&id), spending_limits::asset.eq(&asset));
        diesel::insert_into(spending_limits::table).values((row, values)).execute(connection)?;
    }
    Ok(())
}

/// The assets of the account's limits that fail their check, of those that are stored and those
/// that the audit has.
fn unreadable(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<Vec<AssetId>, Failure> {
    let stored: Vec<String> = spending_limits::table
        .filter(spending_limits::account_id.eq(account.to_string()))
        .select(spending_limits::asset)
        .load(connection)?;
    let changed = audit::changed_subjects(connection, account, "change_limit")?;
    let changed = changed.iter().filter_map(|subject| subject.split_once('/'));
    let named = stored.into_iter().chain(changed.map(|(_account, asset)| asset.to_owned()));
    let mut unreadable = Vec::new();
    for asset in named.collect::<BTreeSet<_>>() {
        // Another text names no asset: no payment reads that row.
        let Ok(asset) = asset.parse::<AssetId>() else { continue };
        match own_limit(connection, keys, account, asset) {
            Ok(_own) => {}
            Err(Failure::Store(_fails)) => unreadable.push(asset),
            Err(error) => return Err(error),
        }
    }
    Ok(unreadable)
}

/// Whether a limit of the account fails its integrity check.
pub(crate) fn has_unreadable(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    Ok(!unreadable(connection, account, keys)?.is_empty())
}

/// Removes the account's limits that fail their integrity check, so that those of the operator
/// apply. Older copies of them stay refused.
pub(crate) fn remove_unreadable(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<(), Failure> {
    for asset in unreadable(connection, account, keys)? {
        let newest = audit::newest_revision_of(connection, Action::ChangeLimit(account, asset))?;
        let removed = Revised { own: OwnLimit::default(), revision: newest.saturating_add(1) };
        write(connection, keys, account, asset, removed)?;
    }
    Ok(())
}

/// Returns the next limits whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let (account, asset) = after.split_once('/').unwrap_or_default();
    let of_account = spending_limits::account_id.eq(account);
    let rest = of_account.and(spending_limits::asset.gt(asset));
    let rows: Vec<Row> = spending_limits::table
        .filter(spending_limits::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(spending_limits::account_id.gt(account).or(rest))
        .order((spending_limits::account_id, spending_limits::asset))
        .limit(BATCH)
        .select(Row::as_select())
        .load(connection)?;
    let stale = |row: Row| {
        let (id, asset, old) = (row.account_id.clone(), row.asset.clone(), row.mac.clone());
        let new = row.parse(keys).and_then(|own| {
            let account = RowRef { table: "spending_limits", key: &id }.parse(&id)?;
            Ok(with_mac_fields(account, &asset, &own, |fields| keys.row.mac(fields)))
        });
        StaleMac { cursor: format!("{id}/{asset}"), key: id, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

/// What an account spent in a day, of all assets.
struct Spends {
    account: AccountId,
    recovered: Option<Timestamp>,
    spends: Vec<spends::Spent>,
    now: Timestamp,
}

impl Spends {
    fn read(
        connection: &mut AnyConnection,
        keys: &ServerKeys,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let recovered = recovery_of(connection, keys, account)?;
        let spends = spends::of_a_day(connection, keys, account, now)?;
        Ok(Self { account, recovered, spends, now })
    }

    fn spending(
        &self,
        connection: &mut AnyConnection,
        keys: &ServerKeys,
        asset: AssetId,
        caps: Caps,
    ) -> Result<Spending, Failure> {
        let own = own_limit(connection, keys, self.account, asset)?.own;
        let limit = spending::in_force(caps, own, self.recovered, self.now);
        let spent = spending::spent(&spends::of_asset(&self.spends, asset), self.now);
        Ok(Spending { limit, spent, own })
    }
}

impl Database {
    /// Returns the limit of an account for an asset, and the amount spent.
    ///
    /// # Errors
    /// When the database does not answer, or a row fails its integrity check.
    pub async fn spending(
        &self,
        account: AccountId,
        asset: AssetId,
        caps: Caps,
        now: Timestamp,
    ) -> Result<Spending, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            Spends::read(connection, &keys, account, now)?.spending(connection, &keys, asset, caps)
        })
        .await
    }

    /// Like [`Database::spending`], for several assets, in their order.
    ///
    /// # Errors
    /// As [`Database::spending`].
    pub async fn spendings(
        &self,
        account: AccountId,
        assets: Vec<(AssetId, Caps)>,
        now: Timestamp,
    ) -> Result<Vec<Spending>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let spends = Spends::read(connection, &keys, account, now)?;
            let spendings = assets
                .into_iter()
                .map(|(asset, caps)| spends.spending(connection, &keys, asset, caps));
            spendings.collect()
        })
        .await
    }

    /// Sets the owner's limit; `None` means unlimited. A lower limit applies at once, a higher one
    /// after a day, and not for `hold` after a recovery. A raise is notified. A raise that `raises`
    /// does not allow, or that follows too many in a day, changes nothing.
    ///
    /// # Errors
    /// When the database does not answer, or a row fails its integrity check.
    pub async fn set_spending_limit(
        &self,
        account: AccountId,
        asset: AssetId,
        wanted: Option<Units>,
        (hold, raises): (Duration, Raises),
        now: Timestamp,
    ) -> Result<Result<(), LimitRefused>, StoreError> {
        let (keys, dialect) = (self.keys.clone(), self.dialect);
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                // Serializes concurrent changes.
                account_rows::lock(connection, account)?;
                let Revised { own: before, revision } =
                    own_limit(connection, &keys, account, asset)?;
                let held = recovery_of(connection, &keys, account)?.map(|at| at.plus(hold));
                let own = before.changed_to(wanted, held, now);
                // A repeated request is not notified again.
                let repeated =
                    before.later.is_some_and(|(units, from)| units == wanted && from > now);
                if own.later.is_some() && !may_raise(connection, &keys, account, raises)? {
                    return Ok(Err(LimitRefused::Raise));
                }
                if own.later.is_some() && !repeated {
                    let (key, raises) = (format!("raise:{account}"), RateLimit::a_day(RAISES));
                    if let Err(wait) = rate::take_within(connection, dialect, &key, raises)? {
                        return Ok(Err(LimitRefused::TooMany(wait)));
                    }
                    let kind = EventKind::Security(SecurityEvent::LimitRaiseRequested);
                    events::append(connection, account, now, kind, About::Nothing)?;
                }
                let revised = Revised { own, revision: revision.saturating_add(1) };
                write(connection, &keys, account, asset, revised)?;
                Ok(Ok(()))
            })
        })
        .await
    }
}
