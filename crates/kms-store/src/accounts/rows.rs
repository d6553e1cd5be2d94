//! The rows of an account and its wallet: read together, verified by one MAC.

#[cfg(feature = "transfers")]
use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel::result::Error;
use kms_core::account::{Account, AccountState, FormerEmail, Wallet};
use kms_core::ports::StoreError;
#[cfg(feature = "transfers")]
use kms_core::{AlarmContext, integrity_alarm};
use kms_core::{Salt, ServerKeySet, ServerKeys};
use kms_types::{AccountId, AccountRef, EthAddress, Timestamp};

use super::mac::with_account_fields;
use crate::audit;
use crate::convert::RowRef;
use crate::database::{AnyConnection, Failure, Writes, add_write, on_own};
use crate::schema::{accounts, wallets};
use crate::server_keys::{BATCH, StaleMac};

/// The joined account query; callers append a `filter`. Uses the query builder, so that diesel
/// caches the prepared statement: most requests begin with this query.
macro_rules! joined {
    () => {{
        accounts::table
            .inner_join(wallets::table.on(wallets::account_id.eq(accounts::id)))
            .select($crate::accounts::rows::columns!())
    }};
}
pub(super) use joined;

/// The columns of a [`Row`], in a query that joins both tables.
macro_rules! columns {
    () => {{
        use $crate::accounts::rows::{AccountRow, WalletRow};
        use $crate::schema::{accounts, names};
        let username = names::table
            .filter(names::telegram_id.eq(accounts::telegram_id))
            .filter(names::ended_at.is_null())
            .order(names::position)
            .select(names::shown)
            .single_value();
        (AccountRow::as_select(), WalletRow::as_select(), username)
    }};
}
pub(crate) use columns;

/// An account, its wallet, and the username of its owner that is shown.
pub(crate) type Row = (AccountRow, WalletRow, Option<String>);

#[derive(Clone, Queryable, Selectable)]
#[diesel(table_name = accounts)]
pub(crate) struct AccountRow {
    pub(super) id: String,
    telegram_id: i64,
    state: String,
    pub(super) unfreezes_at: Option<i64>,
    mobile: Option<Vec<u8>>,
    email: Option<Vec<u8>>,
    email_verified_at: Option<i64>,
    former_email: Option<Vec<u8>>,
    former_email_until: Option<i64>,
    recovered_at: Option<i64>,
    page_only_since: Option<i64>,
    pub(super) page_only_until: Option<i64>,
    created_by: Option<String>,
    created_at: i64,
    revision: i64,
    mac_key: i32,
    mac: Vec<u8>,
}

#[derive(Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = wallets, primary_key(account_id), treat_none_as_default_value = false)]
pub(crate) struct WalletRow {
    account_id: String,
    address: String,
    public_key: Vec<u8>,
    sealed_key: Vec<u8>,
    kdf: String,
    salt: Vec<u8>,
    password_version: i32,
    pepper_id: i32,
    commitment: Vec<u8>,
    sck_id: String,
    wrapped_hash: Vec<u8>,
    version: i64,
}

/// Reads an account and verifies its MAC.
pub(crate) fn find(
    connection: &mut AnyConnection,
    account: AccountRef,
    keys: &ServerKeys,
) -> Result<Option<Account>, Failure> {
    Ok(row(connection, account)?.map(|row| parse(row, keys)).transpose()?)
}

pub(super) fn row(
    connection: &mut AnyConnection,
    account: AccountRef,
) -> Result<Option<Row>, Failure> {
    let row: Result<Row, Error> = match account {
        AccountRef::Id(id) => {
            on_own!(connection, joined!().filter(accounts::id.eq(id.to_string())).first(connection))
        }
        AccountRef::Telegram(id) => {
            let telegram_id = accounts::telegram_id.eq(id.as_i64());
            on_own!(connection, joined!().filter(telegram_id).first(connection))
        }
    };
    Ok(row.optional()?)
}

/// Returns the next accounts whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Row> = joined!()
        .filter(accounts::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(accounts::id.gt(after))
        .order(accounts::id)
        .limit(BATCH)
        .load(connection)?;
    let stale = |row: Row| {
        let (key, old) = (row.0.id.clone(), row.0.mac.clone());
        let new = parse(row, keys)
            .map(|account| with_account_fields(&account, |fields| keys.row.mac(fields)));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

/// Returns the states of accounts, of which each is verified. Leaves out those that fail their
/// integrity check, with an alarm.
#[cfg(feature = "transfers")]
pub(crate) fn states(
    connection: &mut AnyConnection,
    accounts: HashSet<String>,
    keys: &ServerKeys,
) -> Result<HashMap<String, AccountState>, Failure> {
    let rows: Vec<Row> = joined!().filter(accounts::id.eq_any(accounts)).load(connection)?;
    let mut states = HashMap::new();
    for row in rows {
        let id = row.0.id.clone();
        match parse(row, keys) {
            Ok(account) => drop(states.insert(id, account.state)),
            Err(error) => {
                let context = AlarmContext { account: id.parse().ok(), ..Default::default() };
                integrity_alarm(error, context);
            }
        }
    }
    Ok(states)
}

/// Locks the account's row until the transaction ends, by an update without effect. Taken before
/// any other row of the account, so that transactions do not deadlock.
pub(crate) fn lock(connection: &mut AnyConnection, account: AccountId) -> Result<(), Error> {
    diesel::update(accounts::table.find(account.to_string()))
        .set(accounts::state.eq(accounts::state))
        .execute(connection)?;
    Ok(())
}

/// Locks the account's row until the transaction ends, and reports whether the account allows the
/// use of a key that was opened at this version of its wallet.
pub(super) fn lock_if_allowed(
    connection: &mut AnyConnection,
    account: AccountId,
    wallet_version: i64,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    lock(connection, account)?;
    let found = find(connection, account.into(), keys)?;
    Ok(found.is_some_and(|account| account.allows(wallet_version)))
}

pub(super) fn insert(
    writes: &mut Writes<'_>,
    account: &Account,
    row_keys: &ServerKeySet,
) -> Result<(), Error> {
    let mac = with_account_fields(account, |fields| row_keys.mac(fields));
    let row = (
        accounts::id.eq(account.id.to_string()),
        accounts::telegram_id.eq(account.telegram_id.as_i64()),
        accounts::state.eq(account.state.as_str()),
        accounts::mobile.eq(account.mobile.clone()),
        accounts::email.eq(account.email.clone()),
        accounts::page_only_since.eq(account.page_only_since.map(|at| at.0)),
        accounts::page_only_until.eq(account.page_only_until.map(|at| at.0)),
        accounts::created_by.eq(account.created_by.clone()),
        accounts::created_at.eq(account.created_at.0),
        accounts::revision.eq(account.revision),
        accounts::mac_key.eq(i32::from(mac.key.as_u8())),
        accounts::mac.eq(mac.tag.to_vec()),
    );
    add_write!(writes, diesel::insert_into(accounts::table).values(row));
    let wallet = WalletRow::new(account.id, &account.wallet);
    add_write!(writes, diesel::insert_into(wallets::table).values(wallet));
    Ok(())
}

/// Changes the account's own row. Returns `false` if there is no such account, or if `change` does,
/// which leaves the row as it is. Fails if the audit has a newer row: an older copy that was put
/// back would otherwise be signed anew, and pass for the newest.
pub(crate) fn update(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
    change: impl FnOnce(&mut Account) -> bool,
) -> Result<bool, Failure> {
    lock(connection, account)?;
    let Some(mut account) = find(connection, account.into(), keys)? else { return Ok(false) };
    if is_older_than_audit(connection, &account)? {
        let key = account.id.to_string();
        return Err(StoreError::Tampered { table: "accounts", key }.into());
    }
    account.revision = account.revision.saturating_add(1);
    Ok(change(&mut account) && write(connection, &account, keys)?)
}

/// Whether the audit has a newer row of the account.
pub(super) fn is_older_than_audit(
    connection: &mut AnyConnection,
    account: &Account,
) -> Result<bool, Failure> {
    Ok(account.revision < audit::newest_revision(connection, account.id)?)
}

/// Writes the account's own row, with its MAC.
pub(super) fn write(
    connection: &mut AnyConnection,
    account: &Account,
    keys: &ServerKeys,
) -> Result<bool, Failure> {
    let mac = with_account_fields(account, |fields| keys.row.mac(fields));
    let changed = diesel::update(accounts::table.find(account.id.to_string()))
        .set((
            accounts::telegram_id.eq(account.telegram_id.as_i64()),
            accounts::state.eq(account.state.as_str()),
            accounts::unfreezes_at.eq(account.unfreezes_at.map(|at| at.0)),
            accounts::mobile.eq(&account.mobile),
            accounts::email.eq(&account.email),
            accounts::created_at.eq(account.created_at.0),
            accounts::email_verified_at.eq(account.email_verified_at.map(|at| at.0)),
            accounts::former_email_until.eq(account.former_email.as_ref().map(|it| it.until.0)),
            accounts::former_email.eq(account.former_email.as_ref().map(|it| &it.email)),
            accounts::recovered_at.eq(account.recovered_at.map(|at| at.0)),
            accounts::page_only_since.eq(account.page_only_since.map(|at| at.0)),
            accounts::page_only_until.eq(account.page_only_until.map(|at| at.0)),
            accounts::created_by.eq(&account.created_by),
            accounts::revision.eq(account.revision),
            accounts::mac_key.eq(i32::from(mac.key.as_u8())),
            accounts::mac.eq(mac.tag.to_vec()),
        ))
        .execute(connection)?;
    Ok(changed == 1)
}

/// Like [`update`], for changes of the wallet as well.
pub(super) fn update_with_wallet(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
    change: impl FnOnce(&mut Account) -> bool,
) -> Result<bool, Failure> {
    let mut new = None;
    let changed = update(connection, account, keys, |account| {
        let changes = change(account);
        new = changes.then(|| account.clone());
        changes
    })?;
    match new.filter(|_account| changed) {
        Some(account) => write_wallet(connection, &account),
        None => Ok(false),
    }
}

/// Writes the wallet's row, which the MAC of the account covers.
pub(super) fn write_wallet(
    connection: &mut AnyConnection,
    account: &Account,
) -> Result<bool, Failure> {
    let row = wallets::table.find(account.id.to_string());
    let wallet = WalletRow::new(account.id, &account.wallet);
    Ok(diesel::update(row).set(wallet).execute(connection)? == 1)
}

/// Reads a row without checking its MAC. What a rescue reads from the opened key, or does not
/// believe, may be malformed.
pub(super) fn without_mac((account, wallet, _shown): Row) -> Result<Account, StoreError> {
    let row = RowRef { table: "accounts", key: &account.id };
    let wallet = WalletRow {
        address: EthAddress::from([0; 20]).to_lower_hex(),
        public_key: vec![0; 33],
        commitment: vec![0; 32],
        wrapped_hash: vec![0; 32],
        ..wallet
    };
    Ok(Account {
        id: row.parse(&account.id)?,
        telegram_id: row.convert(account.telegram_id)?,
        username: None,
        state: account.state.parse().unwrap_or(AccountState::FrozenByOwner),
        unfreezes_at: None,
        mobile: account.mobile,
        email: account.email,
        email_verified_at: None,
        former_email: None,
        recovered_at: None,
        page_only_since: account.page_only_since.map(Timestamp),
        page_only_until: None,
        created_by: account.created_by,
        created_at: Timestamp(account.created_at),
        revision: account.revision,
        wallet: wallet.parse(row)?,
    })
}

pub(crate) fn parse(
    (account, wallet, shown): Row,
    keys: &ServerKeys,
) -> Result<Account, StoreError> {
    let row = RowRef { table: "accounts", key: &account.id };
    let mac = row.mac(account.mac_key, &account.mac)?;
    let parsed = Account {
        id: row.parse(&account.id)?,
        telegram_id: row.convert(account.telegram_id)?,
        username: row.parse_some(shown.as_ref())?,
        state: row.parse(&account.state)?,
        unfreezes_at: account.unfreezes_at.map(Timestamp),
        mobile: account.mobile,
        email: account.email,
        email_verified_at: account.email_verified_at.map(Timestamp),
        former_email: match (account.former_email, account.former_email_until) {
            (Some(email), Some(until)) => Some(FormerEmail { email, until: Timestamp(until) }),
            (None, None) => None,
            _ => return Err(row.corrupt("a former address without its time")),
        },
        recovered_at: account.recovered_at.map(Timestamp),
        page_only_since: account.page_only_since.map(Timestamp),
        page_only_until: account.page_only_until.map(Timestamp),
        created_by: account.created_by,
        created_at: Timestamp(account.created_at),
        revision: account.revision,
        wallet: wallet.parse(row)?,
    };
    let verified = with_account_fields(&parsed, |fields| keys.row.verify(&mac, fields));
    verified.map_err(|error| row.not_verified(error))?;
    Ok(parsed)
}

impl WalletRow {
    fn new(account: AccountId, wallet: &Wallet) -> Self {
        Self {
            account_id: account.to_string(),
            address: wallet.address.to_lower_hex(),
            public_key: wallet.public_key.to_vec(),
            sealed_key: wallet.sealed_key.clone(),
            kdf: wallet.kdf.to_string(),
            salt: wallet.salt.0.to_vec(),
            password_version: wallet.password_version.into(),
            pepper_id: wallet.pepper_id.as_u8().into(),
            commitment: wallet.commitment.to_vec(),
            sck_id: wallet.sck_id.to_string(),
            wrapped_hash: wallet.wrapped_hash.to_vec(),
            version: wallet.version,
        }
    }

    fn parse(self, row: RowRef<'_>) -> Result<Wallet, StoreError> {
        let pepper: u8 = row.convert(self.pepper_id)?;
        Ok(Wallet {
            address: row.parse(&self.address)?,
            public_key: row.array(&self.public_key)?,
            sealed_key: self.sealed_key,
            kdf: row.parse(&self.kdf)?,
            salt: Salt(row.array(&self.salt)?),
            password_version: row.convert(self.password_version)?,
            pepper_id: row.convert(pepper)?,
            commitment: row.array(&self.commitment)?,
            sck_id: row.parse(&self.sck_id)?,
            wrapped_hash: row.array(&self.wrapped_hash)?,
            version: self.version,
        })
    }
}
