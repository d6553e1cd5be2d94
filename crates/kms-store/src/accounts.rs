//! Accounts and wallets, as `kms-core` keeps them.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::result::Error;
use kms_core::account::{
    Account, AccountState, ContactChange, EmailChange, NewAccount, SwapReason, Wallet, WalletSwap,
};
use kms_core::ports::{AccountStore, EmailChangeStore, ExportLog, StoreError};
use kms_core::recovery::RecoveryStep;
use kms_core::{Salt, ServerKeySet, ServerKeys};
use kms_types::{AccountId, AccountRef, EthAddress, SckId, Timestamp};

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure, all_or_nothing, inserted};
use crate::events::{self, About, StoredEventKind};
use crate::names;
use crate::password_lockout;
use crate::recoveries;
use crate::schema::{self, accounts, email_changes, wallets};

/// An account's own row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = accounts)]
struct AccountRow {
    id: String,
    telegram_id: i64,
    state: String,
    mobile: Option<Vec<u8>>,
    email: Option<Vec<u8>>,
    email_verified_at: Option<i64>,
    recovered_at: Option<i64>,
    created_at: i64,
    mac_key: i32,
    mac: Vec<u8>,
}

/// A wallet as a row, to read, to insert or to replace one by.
#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = wallets, primary_key(account_id))]
struct WalletRow {
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
    version: i64,
}

/// Both, and the name that the holder has now.
type Row = (AccountRow, WalletRow, Option<String>);

/// What reads [`Row`]s; a condition comes behind it. In diesel's own words, so that the statement is
/// prepared once for a connection: this is the query that most requests begin with.
macro_rules! joined {
    () => {{
        let of_holder = schema::names::telegram_id.eq(accounts::telegram_id);
        let names = schema::names::table.on(of_holder.and(schema::names::ended_at.is_null()));
        accounts::table
            .inner_join(wallets::table.on(wallets::account_id.eq(accounts::id)))
            .left_join(names)
            .select((
                AccountRow::as_select(),
                WalletRow::as_select(),
                schema::names::shown.nullable(),
            ))
    }};
}

fn parse((account, wallet, shown): Row, keys: &ServerKeys) -> Result<Account, StoreError> {
    let at = RowRef { table: "accounts", key: &account.id };
    let mac = at.mac(account.mac_key, &account.mac)?;
    let parsed = Account {
        id: at.parse(&account.id)?,
        telegram_id: at.convert(account.telegram_id)?,
        username: at.parse_some(shown.as_ref())?,
        state: at.parse(&account.state)?,
        mobile: account.mobile,
        email: account.email,
        email_verified_at: account.email_verified_at.map(Timestamp),
        recovered_at: account.recovered_at.map(Timestamp),
        created_at: Timestamp(account.created_at),
        wallet: wallet.parse(at)?,
    };
    let verified = with_mac_fields(&parsed, |fields| keys.row.verify(&mac, fields));
    verified.map_err(|error| at.not_verified(error))?;
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
            version: wallet.version,
        }
    }

    fn parse(self, at: RowRef<'_>) -> Result<Wallet, StoreError> {
        let pepper: u8 = at.convert(self.pepper_id)?;
        Ok(Wallet {
            address: at.parse(&self.address)?,
            public_key: at.array(&self.public_key)?,
            sealed_key: self.sealed_key,
            kdf: at.parse(&self.kdf)?,
            salt: Salt(at.array(&self.salt)?),
            password_version: at.convert(self.password_version)?,
            pepper_id: at.convert(pepper)?,
            commitment: at.array(&self.commitment)?,
            sck_id: at.parse(&self.sck_id)?,
            version: self.version,
        })
    }
}

/// The triple that says whose money is whose, whether it may move, what decides how fast its password
/// can be replaced, and the wallet: a salt or a KDF that was changed would look like a wrong password.
fn with_mac_fields<T>(account: &Account, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    let telegram_id = account.telegram_id.as_i64().to_be_bytes();
    let mut fields: Vec<&[u8]> = vec![
        b"accounts",
        account.id.as_bytes(),
        &telegram_id,
        account.wallet.address.as_bytes(),
        account.state.as_str().as_bytes(),
    ];
    let verified = account.email_verified_at.map(|at| at.0.to_be_bytes());
    if let Some(at) = &verified {
        fields.extend([b"email".as_slice(), account.email.as_deref().unwrap_or_default(), at]);
    }
    let recovered = account.recovered_at.map(|at| at.0.to_be_bytes());
    if let Some(at) = &recovered {
        fields.extend([b"recovered".as_slice(), at]);
    }
    let wallet = &account.wallet;
    let (kdf, version) = (wallet.kdf.to_string(), wallet.version.to_be_bytes());
    let ids = [wallet.password_version, wallet.pepper_id.as_u8()];
    let [password_version, pepper_id] = ids.each_ref().map(std::slice::from_ref);
    fields.extend([
        b"wallet".as_slice(),
        &wallet.public_key,
        &wallet.sealed_key,
        kdf.as_bytes(),
        &wallet.salt.0,
        password_version,
        pepper_id,
        &wallet.commitment,
        wallet.sck_id.as_bytes(),
        &version,
    ]);
    work(&fields)
}

pub(crate) fn find(
    connection: &mut AnyConnection,
    account: AccountRef,
    keys: &ServerKeys,
) -> Result<Option<Account>, Failure> {
    let row: Option<Row> = match account {
        AccountRef::Id(id) => joined!().filter(accounts::id.eq(id.to_string())).first(connection),
        AccountRef::Telegram(id) => {
            joined!().filter(accounts::telegram_id.eq(id.as_i64())).first(connection)
        }
    }
    .optional()?;
    Ok(row.map(|row| parse(row, keys)).transpose()?)
}

fn insert(
    connection: &mut AnyConnection,
    account: &Account,
    row_keys: &ServerKeySet,
) -> Result<(), Error> {
    let mac = with_mac_fields(account, |fields| row_keys.mac(fields));
    diesel::insert_into(accounts::table)
        .values((
            accounts::id.eq(account.id.to_string()),
            accounts::telegram_id.eq(account.telegram_id.as_i64()),
            accounts::state.eq(account.state.as_str()),
            accounts::mobile.eq(account.mobile.clone()),
            accounts::email.eq(account.email.clone()),
            accounts::created_at.eq(account.created_at.0),
            accounts::mac_key.eq(i32::from(mac.key.as_u8())),
            accounts::mac.eq(mac.tag.to_vec()),
        ))
        .execute(connection)?;
    diesel::insert_into(wallets::table)
        .values(WalletRow::new(account.id, &account.wallet))
        .execute(connection)?;
    Ok(())
}

fn with_asked_fields<T>(asked: &EmailChange, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    let at = asked.requested_at.0.to_be_bytes();
    work(&[b"email_changes", asked.account.as_bytes(), &asked.email, &at, &[asked.tries]])
}

/// The sealed address that is known to be the account's.
fn verified_email(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
) -> Result<Option<Vec<u8>>, Failure> {
    let account = find(connection, account.into(), keys)?;
    Ok(account.and_then(|account| account.email_verified_at.and(account.email)))
}

/// Keeps others from writing to the account until the transaction ends, by a write of nothing. Taken
/// before anything else of the account, so that no two wait for each other.
pub(crate) fn lock(connection: &mut AnyConnection, account: AccountId) -> Result<(), Error> {
    diesel::update(accounts::table.find(account.to_string()))
        .set(accounts::state.eq(accounts::state))
        .execute(connection)?;
    Ok(())
}

/// Changes what stands in the account's own row; `false` if there is none, or `change` refuses.
fn change(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
    change: impl FnOnce(&mut Account) -> bool,
) -> Result<bool, Failure> {
    lock(connection, account)?;
    let Some(mut account) = find(connection, account.into(), keys)? else { return Ok(false) };
    if !change(&mut account) {
        return Ok(false);
    }
    let mac = with_mac_fields(&account, |fields| keys.row.mac(fields));
    let changed = diesel::update(accounts::table.find(account.id.to_string()))
        .set((
            accounts::state.eq(account.state.as_str()),
            accounts::mobile.eq(account.mobile),
            accounts::email.eq(account.email),
            accounts::email_verified_at.eq(account.email_verified_at.map(|at| at.0)),
            accounts::recovered_at.eq(account.recovered_at.map(|at| at.0)),
            accounts::mac_key.eq(i32::from(mac.key.as_u8())),
            accounts::mac.eq(mac.tag.to_vec()),
        ))
        .execute(connection)?;
    Ok(changed == 1)
}

/// As [`change`], for changes of the wallet too.
fn change_wallet(
    connection: &mut AnyConnection,
    account: AccountId,
    keys: &ServerKeys,
    change_both: impl FnOnce(&mut Account) -> bool,
) -> Result<bool, Failure> {
    let mut wallet = None;
    let changed = change(connection, account, keys, |account| {
        let changes = change_both(account);
        wallet = changes.then(|| account.wallet.clone());
        changes
    })?;
    let Some(wallet) = wallet.filter(|_wallet| changed) else { return Ok(false) };
    let row = wallets::table.find(account.to_string());
    let changed = diesel::update(row).set(WalletRow::new(account, &wallet)).execute(connection)?;
    Ok(changed == 1)
}

#[async_trait]
impl AccountStore for Database {
    async fn account(&self, account: AccountRef) -> Result<Option<Account>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| find(connection, account, &keys)).await
    }

    async fn create_account(&self, new: NewAccount) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let NewAccount { account, name } = new;
                // A savepoint, so that an account that was there first leaves the transaction whole.
                if !inserted(
                    connection
                        .transaction(|connection| Ok(insert(connection, &account, &keys.row)?)),
                )? {
                    return Ok(false);
                }
                if let Some(name) = name {
                    names::observe(connection, account.telegram_id, &name)?;
                }
                let kind = StoredEventKind::AccountCreated;
                events::append(connection, account.id, account.created_at, kind, About::Nothing)?;
                Ok(true)
            })
        })
        .await
    }

    async fn swap_wallet(&self, swap: WalletSwap) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            all_or_nothing(connection, |connection| {
                let WalletSwap { account, replaces, wallet, reason, at } = swap;
                let swapped = change_wallet(connection, account, &keys, |now| {
                    if now.wallet.version != replaces || now.wallet.address != wallet.address {
                        return false;
                    }
                    if let SwapReason::Recovery(_) = reason {
                        // One that was stopped meanwhile stays as it is.
                        if now.state != AccountState::Active {
                            return false;
                        }
                        now.recovered_at = Some(at);
                    }
                    now.wallet = wallet;
                    true
                })?;
                if !swapped {
                    return Ok(false);
                }
                // Whoever asked for an address with the old password does not get it.
                diesel::delete(email_changes::table.find(account.to_string()))
                    .execute(connection)?;
                match reason {
                    SwapReason::PasswordChange => {
                        let kind = StoredEventKind::PasswordChanged;
                        events::append(connection, account, at, kind, About::Nothing)?;
                        Ok(true)
                    }
                    SwapReason::Recovery(recovery) => {
                        password_lockout::forget(connection, account)?;
                        let step = Some(RecoveryStep::Completed);
                        Ok(recovery.account == account
                            && recoveries::update(connection, &recovery, step, at, &keys)?)
                    }
                }
            })
        })
        .await
    }

    async fn reseal_wallet(
        &self,
        account: AccountId,
        replaces: SckId,
        wallet: Wallet,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            all_or_nothing(connection, |connection| {
                change_wallet(connection, account, &keys, |now| {
                    let same = now.wallet.sck_id == replaces
                        && now.wallet.version == wallet.version
                        && now.wallet.address == wallet.address;
                    if same {
                        now.wallet = wallet;
                    }
                    same
                })
            })
        })
        .await
    }

    async fn set_state(&self, account: AccountId, state: AccountState) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                change(connection, account, &keys, |account| {
                    account.state = state;
                    true
                })
            })
        })
        .await
    }

    async fn set_contact(
        &self,
        account: AccountId,
        contact: ContactChange,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            all_or_nothing(connection, |connection| match contact {
                ContactChange::Mobile(mobile) => change(connection, account, &keys, |account| {
                    account.mobile = mobile;
                    true
                }),
                ContactChange::Email(email) => {
                    lock(connection, account)?;
                    diesel::delete(email_changes::table.find(account.to_string()))
                        .execute(connection)?;
                    let kind = StoredEventKind::EmailChanged;
                    let told = verified_email(connection, account, &keys)?;
                    events::append(connection, account, at, kind, About::Contact(told))?;
                    change(connection, account, &keys, |account| {
                        account.email_verified_at = email.as_ref().map(|_email| at);
                        account.email = email;
                        true
                    })
                }
            })
        })
        .await
    }
}

#[async_trait]
impl EmailChangeStore for Database {
    async fn request_email_change(&self, asked: EmailChange) -> Result<(), StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let row = || email_changes::table.find(asked.account.to_string());
                diesel::delete(row()).execute(connection)?;
                let mac = with_asked_fields(&asked, |fields| keys.row.mac(fields));
                diesel::insert_into(email_changes::table)
                    .values((
                        email_changes::account_id.eq(asked.account.to_string()),
                        email_changes::email.eq(&asked.email),
                        email_changes::requested_at.eq(asked.requested_at.0),
                        email_changes::tries.eq(i32::from(asked.tries)),
                        email_changes::mac_key.eq(i32::from(mac.key.as_u8())),
                        email_changes::mac.eq(mac.tag.to_vec()),
                    ))
                    .execute(connection)?;
                let kind = StoredEventKind::EmailChangeRequested;
                let told = verified_email(connection, asked.account, &keys)?;
                let about = About::Contact(told);
                events::append(connection, asked.account, asked.requested_at, kind, about)
            })
        })
        .await
    }

    async fn email_change(&self, account: AccountId) -> Result<Option<EmailChange>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let key = account.to_string();
            let at = RowRef { table: "email_changes", key: &key };
            let row: Option<(Vec<u8>, i64, i32, i32, Vec<u8>)> = email_changes::table
                .find(&key)
                .select((
                    email_changes::email,
                    email_changes::requested_at,
                    email_changes::tries,
                    email_changes::mac_key,
                    email_changes::mac,
                ))
                .first(connection)
                .optional()?;
            let Some((email, requested_at, tries, mac_key, mac)) = row else { return Ok(None) };
            let (requested_at, tries) = (Timestamp(requested_at), at.convert(tries)?);
            let asked = EmailChange { account, email, requested_at, tries };
            let mac = at.mac(mac_key, &mac)?;
            let verified = with_asked_fields(&asked, |fields| keys.row.verify(&mac, fields));
            verified.map_err(|error| at.not_verified(error))?;
            Ok(Some(asked))
        })
        .await
    }

    async fn count_email_code_attempt(&self, asked: EmailChange) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let row = email_changes::table
                .find(asked.account.to_string())
                .filter(email_changes::requested_at.eq(asked.requested_at.0))
                .filter(email_changes::tries.eq(i32::from(asked.tries)));
            let tried = EmailChange { tries: asked.tries.saturating_add(1), ..asked };
            let mac = with_asked_fields(&tried, |fields| keys.row.mac(fields));
            let counted = diesel::update(row)
                .set((
                    email_changes::tries.eq(i32::from(tried.tries)),
                    email_changes::mac_key.eq(i32::from(mac.key.as_u8())),
                    email_changes::mac.eq(mac.tag.to_vec()),
                ))
                .execute(connection)?;
            Ok(counted == 1)
        })
        .await
    }
}

#[async_trait]
impl ExportLog for Database {
    async fn record_export(&self, account: AccountId, at: Timestamp) -> Result<(), StoreError> {
        let kind = StoredEventKind::KeyExported;
        self.blocking(move |connection| {
            events::append(connection, account, at, kind, About::Nothing)
        })
        .await
    }
}

/// An account among others, which may be one that can not be read.
#[derive(Debug)]
pub struct ListedAccount {
    /// Its id, as the row says it.
    pub id: String,
    /// What the row holds, or what is wrong with it.
    pub account: Result<Account, StoreError>,
}

impl Database {
    /// Accounts whose ids come after this one, or the first ones after the empty text. A row that
    /// can not be read keeps nobody from reading the others.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accounts_after(
        &self,
        id: &str,
        limit: u32,
    ) -> Result<Vec<ListedAccount>, StoreError> {
        let (keys, after) = (self.keys.clone(), id.to_owned());
        self.blocking(move |connection| {
            let rows: Vec<Row> = joined!()
                .filter(accounts::id.gt(after))
                .order(accounts::id)
                .limit(limit.into())
                .load(connection)?;
            let list =
                |row: Row| ListedAccount { id: row.0.id.clone(), account: parse(row, &keys) };
            Ok(rows.into_iter().map(list).collect())
        })
        .await
    }

    /// The account whose wallet has this address.
    ///
    /// # Errors
    /// When the database does not answer, or the row was changed.
    pub async fn account_by_address(
        &self,
        address: EthAddress,
    ) -> Result<Option<Account>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let row: Option<Row> = joined!()
                .filter(wallets::address.eq(address.to_lower_hex()))
                .first(connection)
                .optional()?;
            Ok(row.map(|row| parse(row, &keys)).transpose()?)
        })
        .await
    }
}
