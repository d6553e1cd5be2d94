//! Contacts: ways to reach an account's owner outside Telegram. An e-mail address shortens a
//! recovery, so changing it requires the password, and a code shows that the owner reads it.

use std::future::Future;
use std::time::Duration;

use kms_types::{AccountId, AccountRef, Email, Mobile, OneTimeCode, PasswordHash, Timestamp};

use super::error::WRONG_CODE;
use super::journal::Journal;
use super::unlock::{refuse_frozen, refuse_token};
use super::{Custody, CustodyError};
use crate::account::{Account, ContactChange, EmailChange};
use crate::audit::{Action, Audited, Caller, Details, sha256};
use crate::recovery::RecoveryError;
use crate::server_keys::{RowMacError, ServerKeySet, is_same_code};

/// Wrong codes after which a change is void.
const CODE_TRIES: u8 = 5;

impl Custody {
    /// Sets or removes the mobile number.
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
            journal.set_account(&account);
            refuse_frozen(&account)?;
            self.refuse_on_hold(&account, now)?;
            let sealer = &self.sealer.sealer;
            let sealed =
                mobile.map(|mobile| sealer.seal_contact(account.id, "mobile", mobile.as_str()));
            let step = if sealed.is_some() { "set" } else { "removed" };
            journal.add(details("mobile", step, sealed.as_deref()));
            journal.intent().await?;
            self.set_contact(&account, ContactChange::Mobile(sealed), now).await
        })
        .await
    }

    /// Requests another e-mail address, which is set once its code is confirmed, or removes the
    /// present one.
    ///
    /// `admit` runs after the password was correct and before the change is stored: an attacker
    /// without the password cannot exhaust a limit that it counts.
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
            let step = if email.is_some() { "requested" } else { "removed" };
            journal.add(details("email", step, None));
            let account = self.load_or_decoy(account, &password, journal).await?;
            self.refuse_on_hold(&account, now)?;
            self.unlock(account.clone(), password, now, journal, drop).await?;
            let Some(email) = email else {
                return Ok(self.set_contact(&account, self.email(None), now).await?);
            };
            let (id, version) = (account.id, account.wallet.version);
            admit(id).await?;
            let sealed = self.sealer.sealer.seal_contact(id, "email", email.as_str());
            journal.add(details("email", step, Some(&sealed)));
            let change = EmailChange {
                account: id,
                email: sealed,
                requested_at: now,
                tries: 0,
                codes_key: self.sealer.keys.codes.current(),
            };
            let written = self.ports.email_changes.request_email_change(change, version).await;
            Ok(self.written(id, written.map_err(CustodyError::from)?).await?)
        })
        .await
    }

    /// Confirms the code that was sent to the new address. The attempt is counted before the code
    /// is compared.
    ///
    /// # Errors
    /// `NoAccount`; `WrongCode`; `Recovery` when no code can be confirmed; `OnHold` after a
    /// recovery; `Conflict` when two attempts are concurrent; else as a store fails.
    pub async fn confirm_email(
        &self,
        account: AccountRef,
        code: &OneTimeCode,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.audited(Action::ChangeContact, account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.set_account(&account);
            refuse_token(&account, journal)?;
            refuse_frozen(&account)?;
            self.refuse_on_hold(&account, now)?;
            let change = self.email_change(account.id, journal).await?;
            let change = change.filter(|change| change.tries < CODE_TRIES && now < change.until());
            let change = change.ok_or(RecoveryError::NoCode)?;
            let right = change.code(&self.sealer.keys.codes)?;
            journal.add(details("email", "confirmed", Some(&change.email)));
            journal.intent().await?;
            if !self.ports.email_changes.count_email_code_attempt(change.clone()).await? {
                return Err(CustodyError::Conflict);
            }
            if !is_same_code(code, &right) {
                return Err(CustodyError::WrongCode);
            }
            self.enter_page(&account, now, journal).await?;
            self.set_contact(&account, self.email(Some(change.email)), now).await
        })
        .await
    }

    /// Reads the requested change of an address, and refuses an old copy of it: one that was
    /// confirmed, or with fewer tries than the audit has.
    async fn email_change(
        &self,
        account: AccountId,
        journal: &mut Journal,
    ) -> Result<Option<EmailChange>, CustodyError> {
        let changes = &self.ports.email_changes;
        let Some(first) = changes.email_change(account).await? else { return Ok(None) };
        let action = Action::ConfirmEmail(sha256(&first.email));
        journal.set_action(action);
        let audit = &self.ports.audit;
        let confirmed = audit.count_outcomes(&[action], "ok").await? > 0;
        let wrong_codes = audit.count_outcomes(&[action], WRONG_CODE).await?;
        // Read again: what the audit said by then has been stored in the row.
        let found = changes.email_change(account).await?;
        let is_older = found.as_ref().is_some_and(|found| {
            found.email == first.email && (confirmed || usize::from(found.tries) < wrong_codes)
        });
        if is_older { Err(CustodyError::RolledBack) } else { Ok(found) }
    }

    /// Returns the address that receives the code of a recovery at this time, sealed.
    #[must_use]
    pub fn trusted_email<'a>(&self, account: &'a Account, at: Timestamp) -> Option<&'a [u8]> {
        account.trusted_email(at, self.rules.email_trusted_after)
    }

    fn email(&self, email: Option<Vec<u8>>) -> ContactChange {
        ContactChange::Email { email, trusted_after: self.rules.email_trusted_after }
    }

    async fn set_contact(
        &self,
        account: &Account,
        change: ContactChange,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        let (id, version) = (account.id, account.wallet.version);
        let written = self.ports.accounts.set_contact(id, version, change, now).await?;
        self.written(id, written).await
    }

    /// Refuses, for some time after a recovery, actions that help an attacker who recovered the
    /// wallet of another person.
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

/// Which contact is changed and how. Of its new value the audit has the digest as it is sealed: the
/// digest of the plaintext could be guessed.
fn details(contact: &str, step: &str, sealed: Option<&[u8]>) -> Details {
    let details = Details::default().with("contact", contact).with("step", step);
    match sealed {
        Some(sealed) => details.with_digest("sealed", sealed),
        None => details,
    }
}

impl EmailChange {
    /// How long a code is valid.
    pub const LIFETIME: Duration = Duration::from_secs(10 * 60);

    /// Returns when its code expires.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.requested_at.plus(Self::LIFETIME)
    }

    /// Returns the code that is sent to the address. It is derived rather than stored, from the
    /// version of the codes key that the change was requested with.
    ///
    /// # Errors
    /// When that version is not configured, or retired.
    pub fn code(&self, codes_keys: &ServerKeySet) -> Result<OneTimeCode, RowMacError> {
        let at = self.requested_at.0.to_be_bytes();
        let fields: [&[u8]; 4] = [b"email-code", self.account.as_bytes(), &at, &self.email];
        codes_keys.one_time_code(self.codes_key, &fields)
    }
}
