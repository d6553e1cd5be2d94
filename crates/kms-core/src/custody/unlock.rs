//! Trying a password: permit, count, INTENT, KDF, and what follows a correct one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kms_types::{AccountRef, PasswordHash, Timestamp};

use super::journal::Journal;
use super::repair::PendingRepair;
use super::wallet_sealer::open;
use super::{Custody, CustodyError};
use crate::account::{Account, AccountState};
use crate::kdf::Salt;
use crate::kdf_pool::KdfPermit;
use crate::ports::PasswordGateDecision;
use crate::private_key::PrivateKey;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Wrong passwords of an account within a day after which the audit's count refuses more. The
/// lockout lets at most 12 through between two correct ones.
const GUESSES_A_DAY: usize = 30;

impl Custody {
    /// Loads the account. If there is none, fails as for a wrong password and after the same work.
    pub(super) async fn load_or_decoy(
        &self,
        account: AccountRef,
        password: &PasswordHash,
        journal: &mut Journal,
    ) -> Result<Account, CustodyError> {
        if let Some(account) = self.ports.accounts.account(account).await? {
            journal.set_account(&account);
            refuse_token(&account, journal)?;
            return Ok(account);
        }
        let kdf = self.sealer.kdf;
        let password = PasswordHash::fill(|bytes| bytes.copy_from_slice(password.expose()));
        let permit = self.pool.reserve()?;
        journal.intent().await?;
        permit.run(move || kdf.stretch(&password, &Salt::random())).await?;
        Err(CustodyError::WrongPassword)
    }

    /// Tries the password, and passes the key to `then` on the same thread.
    pub(super) async fn unlock<T: Send + 'static>(
        &self,
        account: Account,
        password: PasswordHash,
        now: Timestamp,
        journal: &mut Journal,
        then: impl FnOnce(PrivateKey) -> T + Send + 'static,
    ) -> Result<T, CustodyError> {
        let _turn = self.turns.take(account.id).await?;
        let permit = self.admit(&account, &password, now, journal).await?;
        let (sealer, sealed) = (Arc::clone(&self.sealer), account.clone());
        let done = permit
            .run(move || {
                let sck = sealer.derive(&sealed.wallet, &password)?;
                Ok::<_, CustodyError>(then(open(&sealed, &sck)?))
            })
            .await??;
        self.accept(&account, now, journal).await?;
        Ok(done)
    }

    /// As [`Custody::unlock`], for a wallet that the request itself does not seal again: also
    /// prepares a repair, on the thread that has the SCK, after the result was returned.
    pub(super) async fn unlock_with_repair<T: Send + 'static>(
        &self,
        account: &Account,
        password: PasswordHash,
        now: Timestamp,
        journal: &mut Journal,
        then: impl FnOnce(PrivateKey) -> T + Send + 'static,
    ) -> Result<(T, PendingRepair), CustodyError> {
        let _turn = self.turns.take(account.id).await?;
        let permit = self.admit(account, &password, now, journal).await?;
        let usable = self.repairer.check_wrapped_sck(&self.ports, &self.sealer, account);
        let (sealer, sealed) = (Arc::clone(&self.sealer), account.clone());
        let work = move || {
            let opened = sealer
                .derive(&sealed.wallet, &password)
                .and_then(|sck| Ok((then(open(&sealed, &sck)?), sck)));
            let (done, sck) = match opened {
                Ok(opened) => opened,
                Err(error) => return (Err(error), None),
            };
            let sound = sealer.is_current(&sealed.wallet) && usable.load(Ordering::Acquire);
            let repair = move || sealer.prepare_repair(&sealed, &sck, &password);
            (Ok(done), (!sound).then_some(repair))
        };
        let (done, prepared) = permit.run_with_rest(work).await?;
        let done = done?;
        self.accept(account, now, journal).await?;
        Ok((done, PendingRepair::new(prepared)))
    }

    /// Tries the password without opening the key, also of a frozen account.
    pub(super) async fn check_password(
        &self,
        account: Account,
        password: PasswordHash,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<(), CustodyError> {
        let _turn = self.turns.take(account.id).await?;
        let permit = self.count(&account, &password, now, journal).await?;
        let (sealer, wallet) = (Arc::clone(&self.sealer), account.wallet.clone());
        permit.run(move || sealer.derive(&wallet, &password).map(drop)).await??;
        self.accept(&account, now, journal).await
    }

    async fn admit(
        &self,
        account: &Account,
        password: &PasswordHash,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<KdfPermit, CustodyError> {
        refuse_frozen(account)?;
        self.count(account, password, now, journal).await
    }

    /// Acquires a permit, counts the attempt, and writes the INTENT. An attempt that the gate
    /// refuses has no INTENT: a flood of them would fill the audit.
    async fn count(
        &self,
        account: &Account,
        password: &PasswordHash,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<KdfPermit, CustodyError> {
        // The permit first: an attempt without one is not tried, and must not count.
        let permit = self.pool.reserve()?;
        self.compare_with_audit(account, now).await?;
        let decision = self.ports.gate.count_attempt(account.id, now).await?;
        if let PasswordGateDecision::LockedUntil(until) = decision {
            self.cancel_while_locked(account, password, permit, now, journal).await?;
            return Err(CustodyError::Locked { until });
        }
        if let Err(error) = journal.intent_of_attempt().await {
            // Without an audit no password is tried; the outage must not lock accounts.
            if let Err(error) = self.ports.gate.refund_attempt(account.id).await {
                tracing::warn!(
                    account = %account.id,
                    %error,
                    event = "attempt_not_refunded",
                    "password attempt not refunded"
                );
            }
            return Err(error.into());
        }
        Ok(permit)
    }

    /// Refuses an account whose row is older than the audit, and the passwords of one for which the
    /// audit has more wrong ones than the lockout ever lets through: its count was reset by another
    /// program.
    async fn compare_with_audit(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        let since = now.minus(DAY);
        let audited = self.ports.audit.audited_account(account.id, since, GUESSES_A_DAY).await?;
        self.refuse_older_than(audited.revision, account).await?;
        match audited.guesses.get(GUESSES_A_DAY - 1) {
            Some(first) => {
                let account = account.id;
                tracing::error!(event = "many_wrong_passwords", %account, "many wrong passwords");
                Err(CustodyError::Locked { until: first.plus(DAY) })
            }
            None => Ok(()),
        }
    }

    /// Refuses an account whose row is older than what the audit has of it.
    pub(super) async fn refuse_rolled_back(&self, account: &Account) -> Result<(), CustodyError> {
        let audited = self.ports.audit.audited_account(account.id, Timestamp(0), 0).await?;
        self.refuse_older_than(audited.revision, account).await
    }

    async fn refuse_older_than(
        &self,
        revision: i64,
        account: &Account,
    ) -> Result<(), CustodyError> {
        // Read again: the change that was recorded may be later than the account that was read.
        if account.revision < revision && self.load(account.id.into()).await?.revision < revision {
            return Err(CustodyError::RolledBack);
        }
        Ok(())
    }

    /// Cancels the open recovery if the password is correct, also while wrong guesses lock the
    /// account: otherwise an attacker in the chat could guess on purpose to keep the owner from
    /// cancelling. Has an allowance of its own, opens no key, and leaves the lockout as it is, so
    /// the request is refused all the same.
    async fn cancel_while_locked(
        &self,
        account: &Account,
        password: &PasswordHash,
        permit: KdfPermit,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<(), CustodyError> {
        let open = self.ports.recoveries.open_recovery(account.id).await?;
        let Some(cancelled) = open.and_then(|open| open.cancelled(now).ok()) else { return Ok(()) };
        if !self.ports.gate.count_attempt_while_locked(account.id).await? {
            return Ok(());
        }
        journal.intent_of_attempt().await?;
        let (sealer, wallet) = (Arc::clone(&self.sealer), account.wallet.clone());
        let password = PasswordHash::fill(|bytes| bytes.copy_from_slice(password.expose()));
        let is_correct = permit.run(move || sealer.derive(&wallet, &password).is_ok()).await?;
        if !is_correct {
            journal.record_guess().await;
        } else if self.step(cancelled, now).await? {
            journal.record_cancelled_recovery(cancelled.id).await;
        }
        Ok(())
    }

    /// Clears the attempts after a correct password, and records the recovery that it cancelled.
    async fn accept(
        &self,
        account: &Account,
        now: Timestamp,
        journal: &Journal,
    ) -> Result<(), CustodyError> {
        if let Some(recovery) = self.ports.gate.accept(account.id, now).await? {
            journal.record_cancelled_recovery(recovery).await;
        }
        self.enter_page(account, now, journal).await
    }
}

/// Refuses a bearer token, and whatever else is not the page, for a page-only account.
pub(super) fn refuse_token(account: &Account, journal: &Journal) -> Result<(), CustodyError> {
    if !journal.caller().is_at_page() && account.page_only_since.is_some() {
        return Err(CustodyError::PageRequired);
    }
    Ok(())
}

pub(super) fn refuse_frozen(account: &Account) -> Result<(), CustodyError> {
    if account.state == AccountState::Active { Ok(()) } else { Err(CustodyError::Frozen) }
}
