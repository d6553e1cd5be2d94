//! The ways to reach an account's owner outside Telegram. An e-mail address helps to recover the
//! wallet, so it takes the password to change it, and a code to show that it is the owner's.

use std::future::Future;
use std::time::Duration;

use kms_types::{AccountId, AccountRef, Email, Mobile, OneTimeCode, PasswordHash, Timestamp};

use super::{Custody, CustodyError, refuse_frozen};
use crate::account::{Account, ContactChange, EmailChange};
use crate::audit::{Action, Audited, Caller};
use crate::recovery::RecoveryError;
use crate::server_keys::ServerKeySet;

/// How many wrong codes end a change.
const TRIES: u8 = 5;
/// How long a code can be confirmed.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

impl Custody {
    /// Notes the mobile number, or forgets it.
    ///
    /// # Errors
    /// `NoAccount`; `Frozen`; `OnHold` after a recovery; else as a store fails.
    pub async fn change_mobile(
        &self,
        account: AccountRef,
        mobile: Option<&Mobile>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.audited(Action::ChangeContact, account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.concerns(&account);
            refuse_frozen(&account)?;
            self.refuse_on_hold(&account, now)?;
            journal.intent().await?;
            let sealer = &self.seals.sealer;
            let sealed =
                mobile.map(|mobile| sealer.seal_contact(account.id, "mobile", mobile.as_str()));
            self.set_contact(&account, ContactChange::Mobile(sealed), now).await
        })
        .await
    }

    /// Asks for another e-mail address, which is the account's once its code is confirmed; or
    /// forgets the one there is.
    ///
    /// `admit` is asked after the password was right and before a code is made: a limit that it
    /// counts by can not be used up by somebody without the password.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `OnHold` after a recovery; else as `admit`, a
    /// store, the pool or the password gate fails.
    pub async fn change_email<E, F>(
        &self,
        account: AccountRef,
        email: Option<&Email>,
        password: PasswordHash,
        caller: &Caller,
        now: Timestamp,
        admit: impl FnOnce(AccountId) -> F,
    ) -> Result<(), E>
    where
        E: From<CustodyError> + Audited,
        F: Future<Output = Result<(), E>>,
    {
        self.audited(Action::ChangeContact, account, caller, now, async |journal| {
            let account = self.known_or_decoy(account, &password, journal).await?;
            self.refuse_on_hold(&account, now)?;
            self.unlock(account.clone(), password, now, journal, drop).await?;
            let Some(email) = email else {
                return Ok(self.set_contact(&account, ContactChange::Email(None), now).await?);
            };
            admit(account.id).await?;
            let sealed = self.seals.sealer.seal_contact(account.id, "email", email.as_str());
            let change =
                EmailChange { account: account.id, email: sealed, requested_at: now, tries: 0 };
            Ok(self
                .ports
                .email_changes
                .request_email_change(change)
                .await
                .map_err(CustodyError::from)?)
        })
        .await
    }

    /// Confirms the code that was sent to the new address. The try is counted before the code is
    /// looked at.
    ///
    /// # Errors
    /// `NoAccount`; `WrongCode`; `Recovery` when no code can be confirmed any more; `OnHold` after
    /// a recovery; `Conflict` when two are tried at once; else as a store fails.
    pub async fn confirm_email(
        &self,
        account: AccountRef,
        code: &OneTimeCode,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.audited(Action::ChangeContact, account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.concerns(&account);
            refuse_frozen(&account)?;
            self.refuse_on_hold(&account, now)?;
            let asked = self.ports.email_changes.email_change(account.id).await?;
            let asked = asked.filter(|asked| asked.tries < TRIES && now < asked.until());
            let asked = asked.ok_or(RecoveryError::NoCode)?;
            journal.intent().await?;
            if !self.ports.email_changes.count_email_code_attempt(asked.clone()).await? {
                return Err(CustodyError::Conflict);
            }
            if !asked.is_code(code, &self.seals.keys.row) {
                return Err(CustodyError::WrongCode);
            }
            self.set_contact(&account, ContactChange::Email(Some(asked.email)), now).await
        })
        .await
    }

    async fn set_contact(
        &self,
        account: &Account,
        change: ContactChange,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        let found = self.ports.accounts.set_contact(account.id, change, now).await?;
        if found { Ok(()) } else { Err(CustodyError::NoAccount) }
    }

    /// What helps a thief is not done soon after a recovery.
    pub(super) fn refuse_on_hold(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        match account.recovered_at.map(|at| at.plus(self.rules.hold)) {
            Some(until) if now < until => Err(CustodyError::OnHold { until }),
            _ => Ok(()),
        }
    }
}

impl EmailChange {
    /// Until when its code can be confirmed.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.requested_at.plus(LIFETIME)
    }

    /// The code that is sent to the address. It follows from the row key, so that it is stored
    /// nowhere.
    #[must_use]
    pub fn code(&self, row_keys: &ServerKeySet) -> OneTimeCode {
        self.with_fields(|fields| row_keys.one_time_code(fields))
    }

    fn is_code(&self, code: &OneTimeCode, row_keys: &ServerKeySet) -> bool {
        self.with_fields(|fields| row_keys.is_one_time_code(code, fields))
    }

    fn with_fields<T>(&self, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        let at = self.requested_at.0.to_be_bytes();
        work(&[b"email-code", self.account.as_bytes(), &at, &self.email])
    }
}
