//! The account ports of `kms-core`.

use async_trait::async_trait;
use diesel::prelude::*;
use kms_core::ServerKeys;
use kms_core::account::{
    Account, ContactChange, Inserted, NewAccount, SeenNames, SwapReason, Wallet, WalletSwap,
};
use kms_core::page_only::{PageChange, PageChanged};
use kms_core::ports::{AccountStore, ExportLog, StoreError};
use kms_types::{
    AccountEvent, AccountId, AccountRef, EventKind, RecoveryStep, SckId, SecurityEvent, Timestamp,
};

use super::contacts::verified_email;
use super::rows;
use crate::database::{
    AnyConnection, Database, Failure, Writes, add_write, all_or_nothing, unless_taken,
};
use crate::events::{self, About, NewEvent};
use crate::names;
use crate::names::observations::{self, Observed};
use crate::password_lockout;
use crate::recoveries;
use crate::schema::{accounts, email_changes, events as event_rows, wallets};

#[async_trait]
impl AccountStore for Database {
    async fn account(&self, account: AccountRef) -> Result<Option<Account>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| rows::find(connection, account, &keys)).await
    }

    async fn create_account(&self, new: NewAccount) -> Result<Option<Inserted>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let NewAccount { account, names: seen } = new;
            let mut is_repeat = false;
            observations::in_turn(connection, |connection| {
                // A unique violation was that of the account, or that of a claim.
                let owner = account.telegram_id.into();
                if is_repeat && rows::row(connection, owner)?.is_some() {
                    return Ok(Some(None));
                }
                is_repeat = true;
                insert(connection, &account, seen.as_ref(), &keys).map(|done| done.map(Some))
            })
        })
        .await
    }

    async fn swap_wallet(&self, swap: WalletSwap) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            unless_taken(all_or_nothing(connection, |connection| {
                let WalletSwap { account, replaces, wallet, reason, at } = swap;
                let mut owner_before = None;
                let swapped = rows::update_with_wallet(connection, account, &keys, |current| {
                    let is_allowed = match reason {
                        SwapReason::Move(_) => current.wallet.version == replaces,
                        SwapReason::PasswordChange | SwapReason::Recovery(_) => {
                            current.allows(replaces)
                        }
                    };
                    if !is_allowed || current.wallet.address != wallet.address {
                        return false;
                    }
                    owner_before = Some(current.telegram_id);
                    match reason {
                        SwapReason::PasswordChange => {}
                        SwapReason::Recovery(_) => current.recovered_at = Some(at),
                        SwapReason::Move(recovery) => {
                            let Some(to) = recovery.moves_to else { return false };
                            current.telegram_id = to;
                        }
                    }
                    current.wallet = wallet;
                    // The new password was not the one of the request.
                    current.page_only_until = None;
                    true
                })?;
                if !swapped {
                    return Ok(false);
                }
                // An e-mail change that was requested with the old password is void.
                diesel::delete(email_changes::table.find(account.to_string()))
                    .execute(connection)?;
                match reason {
                    SwapReason::PasswordChange => {
                        let kind = EventKind::Security(SecurityEvent::PasswordChanged);
                        events::append(connection, account, at, kind, About::Nothing)?;
                        Ok(true)
                    }
                    SwapReason::Move(recovery) => {
                        recoveries::append_moved(connection, &recovery, owner_before, at)?;
                        Ok(recovery.account == account
                            && recoveries::update(connection, &recovery, None, at, &keys)?)
                    }
                    SwapReason::Recovery(recovery) => {
                        password_lockout::reset(connection, account)?;
                        let step = Some(RecoveryStep::Completed);
                        Ok(recovery.account == account
                            && recoveries::update(connection, &recovery, step, at, &keys)?)
                    }
                }
            }))
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
                rows::update_with_wallet(connection, account, &keys, |current| {
                    let same = current.wallet.sck_id == replaces
                        && current.wallet.version == wallet.version
                        && current.wallet.address == wallet.address;
                    if same {
                        current.wallet = wallet;
                    }
                    same
                })
            })
        })
        .await
    }

    async fn record_wrapped_sck(
        &self,
        account: AccountId,
        sck: SckId,
        replaces: [u8; 32],
        hash: [u8; 32],
    ) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            all_or_nothing(connection, |connection| {
                rows::update_with_wallet(connection, account, &keys, |current| {
                    let wallet = &mut current.wallet;
                    let same = wallet.sck_id == sck && wallet.wrapped_hash == replaces;
                    if same {
                        wallet.wrapped_hash = hash;
                    }
                    same
                })
            })
        })
        .await
    }

    async fn set_contact(
        &self,
        account: AccountId,
        wallet_version: i64,
        contact: ContactChange,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            all_or_nothing(connection, |connection| match contact {
                ContactChange::Mobile(mobile) => {
                    rows::update(connection, account, &keys, |account| {
                        account.mobile = mobile;
                        account.allows(wallet_version)
                    })
                }
                ContactChange::Email { email, trusted_after } => {
                    if !rows::lock_if_allowed(connection, account, wallet_version, &keys)? {
                        return Ok(false);
                    }
                    diesel::delete(email_changes::table.find(account.to_string()))
                        .execute(connection)?;
                    let kind = EventKind::Account(AccountEvent::EmailChanged);
                    let former = verified_email(connection, account, &keys)?;
                    events::append(connection, account, at, kind, About::Contact(former))?;
                    rows::update(connection, account, &keys, |account| {
                        account.change_email(email, at, trusted_after);
                        true
                    })
                }
            })
        })
        .await
    }

    async fn change_page(
        &self,
        account: AccountId,
        change: PageChange,
        at: Timestamp,
    ) -> Result<Option<Account>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let mut changed = None;
                rows::update(connection, account, &keys, |account| {
                    changed = change.apply(account);
                    changed.is_some()
                })?;
                if let Some(PageChanged::By(event)) = changed {
                    let kind = EventKind::Security(event);
                    events::append(connection, account, at, kind, About::Nothing)?;
                }
                rows::find(connection, account.into(), &keys)
            })
        })
        .await
    }

    async fn due_page_leaves(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<AccountId>, StoreError> {
        let (keys, searches) = (self.keys.clone(), self.searches.clone());
        self.blocking(move |connection| {
            let time = |row: &rows::Row| row.0.page_only_until;
            let next = &searches.page_leaves;
            super::due::changeable(connection, &keys, now, next, time, |connection, after| {
                rows::joined!()
                    .filter(accounts::page_only_until.le(after.time))
                    .filter(accounts::page_only_until.lt(after.time).or(accounts::id.gt(&after.id)))
                    .order((accounts::page_only_until.desc(), accounts::id))
                    .limit(limit.into())
                    .load(connection)
            })
        })
        .await
    }
}

/// Returns `None` if a concurrent observation of the usernames came first.
fn insert(
    connection: &mut AnyConnection,
    account: &Account,
    seen: Option<&SeenNames>,
    keys: &ServerKeys,
) -> Result<Option<Inserted>, Failure> {
    let (owner, at) = (account.telegram_id, account.created_at);
    let observed = match seen {
        Some(seen) => match observations::observe(connection, owner, seen, keys)? {
            Some(observed) => Some(observed),
            None => return Ok(None),
        },
        None => None,
    };
    let shown = observed.as_ref().map(Observed::shown);
    let taken_over = observed.as_ref().map(|it| it.taken_over.clone()).unwrap_or_default();
    let mut writes = Writes::new(connection);
    rows::insert(&mut writes, account, &keys.row)?;
    if let Some(observed) = observed {
        observed.write(&mut writes)?;
    }
    #[cfg(feature = "transfers")]
    crate::balances::begin(&mut writes, account.id, at)?;
    let kind = EventKind::Account(AccountEvent::Created);
    let event = NewEvent::new(account.id, at, kind, About::Nothing);
    add_write!(writes, diesel::insert_into(event_rows::table).values(event));
    writes.finish()?;
    let username = match shown {
        Some(shown) => shown,
        None => names::shown(connection, owner)?,
    };
    let to_record = names::unrecorded(connection, taken_over)?;
    Ok(Some(Inserted { username, to_record }))
}

#[async_trait]
impl ExportLog for Database {
    async fn record_export(
        &self,
        account: AccountId,
        wallet_version: i64,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let (keys, kind) = (self.keys.clone(), EventKind::Security(SecurityEvent::KeyExported));
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                if !rows::lock_if_allowed(connection, account, wallet_version, &keys)? {
                    return Ok(false);
                }
                events::append(connection, account, at, kind, About::Nothing)?;
                Ok(true)
            })
        })
        .await
    }
}
