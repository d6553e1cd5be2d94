//! The service: make a wallet, open it, change its password, replace a forgotten one.
//!
//! Every use of a key is audited before it happens; every guess is counted before it is tried.
//! A key in clear lives on one thread of the KDF pool, or in the [`OpenWallet`] that a caller
//! moves into the work that signs.

mod check;
mod contacts;
mod error;
mod export;
mod heal;
mod journal;
mod recoveries;
mod seals;
mod upkeep;

pub use self::check::ProbeError;
pub use self::error::CustodyError;
pub use self::upkeep::Rewrapped;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kms_types::{AccountId, AccountRef, Email, Mobile, PasswordHash, TelegramId, Timestamp};
use tokio::sync::oneshot;

use self::heal::{Afterwards, Healer, Later};
use self::journal::Journal;
use self::seals::{Seals, open};
use crate::account::{Account, AccountState, NewAccount, SeenName, SwapReason, Wallet, WalletSwap};
use crate::audit::{Action, Audited, Caller, Phase};
use crate::failpoint;
use crate::kdf::{KdfParams, Salt};
use crate::kdf_pool::{KdfPool, Place, PoolError};
use crate::master_key::KeyRing;
use crate::ports::{
    AccountStore, AuditLog, EmailChangeStore, ExportLog, PasswordGate, PasswordGateDecision,
    RecoveryStore, SckStore,
};
use crate::private_key::{OpenWallet, PrivateKey};
use crate::recovery::RecoveryRules;
use crate::sck::Sck;
use crate::seal::Sealer;
use crate::server_keys::ServerKeys;
use crate::wrap::WrapContext;

/// The stores of custody.
#[derive(Clone)]
pub struct Ports {
    /// Accounts and wallets.
    pub accounts: Arc<dyn AccountStore>,
    /// Requested changes of e-mail addresses.
    pub email_changes: Arc<dyn EmailChangeStore>,
    /// Notices of exported keys.
    pub exports: Arc<dyn ExportLog>,
    /// Recoveries.
    pub recoveries: Arc<dyn RecoveryStore>,
    /// Wrapped SCKs.
    pub scks: Arc<dyn SckStore>,
    /// The audit table.
    pub audit: Arc<dyn AuditLog>,
    /// The limit on password guesses.
    pub gate: Arc<dyn PasswordGate>,
}

impl Ports {
    /// Uses one database for everything but the wrapped SCKs.
    #[must_use]
    pub fn new<D>(database: Arc<D>, scks: Arc<dyn SckStore>) -> Self
    where
        D: AccountStore + EmailChangeStore + ExportLog + RecoveryStore + AuditLog + PasswordGate,
        D: 'static,
    {
        Self {
            accounts: database.clone(),
            email_changes: database.clone(),
            exports: database.clone(),
            recoveries: database.clone(),
            scks,
            audit: database.clone(),
            gate: database,
        }
    }
}

/// The custody service.
#[derive(Debug)]
pub struct Custody {
    ports: Ports,
    pool: KdfPool,
    seals: Arc<Seals>,
    healer: Healer,
    rules: RecoveryRules,
}

/// What a wallet is made of.
#[derive(Debug)]
pub struct CreateWallet {
    /// Whose it is.
    pub telegram_id: TelegramId,
    /// Its password, stretched by the client.
    pub password: PasswordHash,
    /// The name that came with the request.
    pub name: Option<SeenName>,
    /// How to reach its owner.
    pub mobile: Option<Mobile>,
    /// How to reach its owner.
    pub email: Option<Email>,
}

/// What came of making a wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New(Account),
    /// The Telegram user had one, and the password is its password.
    Existing(Account),
}

impl Custody {
    /// The service over these stores and keys; wallets are sealed with today's `kdf`.
    #[must_use]
    pub fn new(
        ports: Ports,
        ring: KeyRing,
        keys: Arc<ServerKeys>,
        pool: KdfPool,
        kdf: KdfParams,
    ) -> Self {
        let sealer = Sealer::new(Arc::clone(&keys));
        let seals = Arc::new(Seals { ring, keys, sealer, kdf });
        let (healer, rules) = (Healer::default(), RecoveryRules::default());
        Self { ports, pool, seals, healer, rules }
    }

    /// The same, with other rules for recoveries than the default ones.
    #[must_use]
    pub fn with_recovery_rules(self, rules: RecoveryRules) -> Self {
        Self { rules, ..self }
    }

    /// Makes a wallet; or answers with the one that the Telegram user has, if the password is its
    /// password.
    ///
    /// The wrapped SCK is written before the wallet: a crash between the two leaves a blob that
    /// nobody refers to, and a repeat works.
    ///
    /// # Errors
    /// `AccountExists` when there is a wallet with another password; else as a store, the pool or
    /// the password gate fails.
    pub async fn create(
        &self,
        request: CreateWallet,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Created, CustodyError> {
        let owner = AccountRef::Telegram(request.telegram_id);
        self.audited(Action::Create, owner, caller, now, async |journal| {
            if let Some(account) = self.ports.accounts.account(owner).await? {
                return self.existing(account, request.password, caller, now, journal).await;
            }
            let CreateWallet { telegram_id, password, name, mobile, email } = request;
            let id = AccountId::random();
            let seals = Arc::clone(&self.seals);
            let place = self.pool.reserve()?;
            journal.intent().await?;
            let (sealed, password) = place
                .run(move || {
                    let key = PrivateKey::random();
                    (seals.seal(id, telegram_id, &key, &password, 1), password)
                })
                .await?;
            let (wallet, wrapped) = sealed?;
            let sealer = &self.seals.sealer;
            let account = Account {
                id,
                telegram_id,
                username: None,
                state: AccountState::Active,
                mobile: mobile.map(|to| sealer.seal_contact(id, "mobile", to.as_str())),
                email: email.map(|to| sealer.seal_contact(id, "email", to.as_str())),
                email_verified_at: None,
                recovered_at: None,
                created_at: now,
                wallet,
            };
            self.ports.scks.put_sck(wrapped).await?;
            failpoint::reach("create-after-sck");
            let made = self.ports.accounts.create_account(NewAccount { account, name }).await?;
            failpoint::reach("create-after-commit");
            // Read back: the name that the account holds is decided by the transaction.
            let account = self.load(owner).await?;
            if made {
                Ok(Created::New(account))
            } else {
                self.existing(account, password, caller, now, journal).await
            }
        })
        .await
    }

    /// Opens the account's wallet with its password and hands it to `work`; the audit's outcome
    /// is that of `work`. The wallet is zeroized when `work` drops it.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts, after the same work; else as `work`, a store,
    /// the pool or the password gate fails.
    pub async fn with_wallet<T, E, F>(
        &self,
        account: AccountRef,
        password: PasswordHash,
        action: Action,
        caller: &Caller,
        now: Timestamp,
        work: impl FnOnce(OpenWallet) -> F,
    ) -> Result<T, E>
    where
        E: From<CustodyError> + Audited,
        F: Future<Output = Result<T, E>>,
    {
        self.audited(action, account, caller, now, async |journal| {
            let account = self.known_or_decoy(account, &password, journal).await?;
            let (id, address) = (account.id, account.wallet.address);
            let then = move |key| OpenWallet::new(id, address, key);
            let (wallet, later) =
                self.unlock_for_more(&account, password, now, journal, then).await?;
            let done = work(wallet).await;
            self.healer.heal((&self.ports, &self.seals), account, later, caller, now);
            done
        })
        .await
    }

    /// Seals the wallet under a new password.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `Conflict` when another change came first; else
    /// as a store, the pool or the password gate fails.
    pub async fn change_password(
        &self,
        account: AccountRef,
        old: PasswordHash,
        new: PasswordHash,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CustodyError> {
        self.audited(Action::ChangePassword, account, caller, now, async |journal| {
            let account = self.known_or_decoy(account, &old, journal).await?;
            let (id, telegram_id, version) =
                (account.id, account.telegram_id, account.wallet.version);
            let seals = Arc::clone(&self.seals);
            let (wallet, wrapped) = self
                .unlock(account, old, now, journal, move |key| {
                    seals.seal(id, telegram_id, &key, &new, version + 1)
                })
                .await??;
            self.ports.scks.put_sck(wrapped).await?;
            failpoint::reach("change-password-after-sck");
            self.swap(id, version, wallet, SwapReason::PasswordChange, now).await?;
            failpoint::reach("change-password-after-commit");
            Ok(())
        })
        .await
    }

    /// Writes down that somebody else's limit refused the request: once for each account and
    /// minute.
    pub async fn record_refusal(
        &self,
        action: Action,
        account: AccountRef,
        outcome: &'static str,
        caller: &Caller,
        now: Timestamp,
    ) {
        let audit = Arc::clone(&self.ports.audit);
        let journal = Journal::new(audit, action, Some(account), caller, now);
        journal.close(Some(Phase::Outcome(outcome))).await;
    }

    async fn load(&self, account: AccountRef) -> Result<Account, CustodyError> {
        self.ports.accounts.account(account).await?.ok_or(CustodyError::NoAccount)
    }

    /// The account; or, if there is none, the error after as much work as a wrong password takes.
    async fn known_or_decoy(
        &self,
        account: AccountRef,
        password: &PasswordHash,
        journal: &mut Journal,
    ) -> Result<Account, CustodyError> {
        if let Some(account) = self.ports.accounts.account(account).await? {
            journal.concerns(&account);
            return Ok(account);
        }
        let kdf = self.seals.kdf;
        let password = PasswordHash::fill(|bytes| bytes.copy_from_slice(password.expose()));
        let place = self.pool.reserve()?;
        journal.intent().await?;
        place.run(move || kdf.stretch(&password, &Salt::random())).await?;
        Err(CustodyError::WrongPassword)
    }

    /// Takes a place for trying a password, counts the attempt, and writes the INTENT. A refusal by
    /// the count is no INTENT: a flood of them would fill the audit.
    async fn admit(
        &self,
        account: &Account,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<Place, CustodyError> {
        refuse_frozen(account)?;
        // The place first: an attempt that finds no place is not tried, and must not count.
        let place = self.pool.reserve()?;
        if let PasswordGateDecision::LockedUntil(until) =
            self.ports.gate.count_attempt(account.id, now).await?
        {
            return Err(CustodyError::Locked { until });
        }
        if let Err(error) = journal.intent().await {
            // Nor must one that can not be written down, or an audit that is out locks people out.
            if let Err(error) = self.ports.gate.refund_attempt(account.id).await {
                tracing::warn!(%error, "an attempt that was not tried stays counted");
            }
            return Err(error.into());
        }
        Ok(place)
    }

    /// Tries the password, and hands the key to `then` on the same thread.
    async fn unlock<T: Send + 'static>(
        &self,
        account: Account,
        password: PasswordHash,
        now: Timestamp,
        journal: &mut Journal,
        then: impl FnOnce(PrivateKey) -> T + Send + 'static,
    ) -> Result<T, CustodyError> {
        let place = self.admit(&account, now, journal).await?;
        let id = account.id;
        let seals = Arc::clone(&self.seals);
        let done = place
            .run(move || {
                let sck = seals.derive(&account.wallet, &password)?;
                Ok::<_, CustodyError>(then(open(&account, &sck)?))
            })
            .await??;
        self.accept(id, now, journal).await?;
        Ok(done)
    }

    /// As [`Custody::unlock`], for a wallet that is not sealed anew by what follows: also says what
    /// the [`Healer`] may need. Where that takes another KDF, the thread hands the key over first.
    async fn unlock_for_more<T: Send + 'static>(
        &self,
        account: &Account,
        password: PasswordHash,
        now: Timestamp,
        journal: &mut Journal,
        then: impl FnOnce(PrivateKey) -> T + Send + 'static,
    ) -> Result<(T, Afterwards), CustodyError> {
        let place = self.admit(account, now, journal).await?;
        let (seals, sealed) = (Arc::clone(&self.seals), account.clone());
        let sound = self.healer.look(&self.ports, &self.seals, account);
        let (early, opened) = oneshot::channel();
        let work = tokio::spawn(place.run(move || {
            let sck = seals.derive(&sealed.wallet, &password)?;
            let done = then(open(&sealed, &sck)?);
            if seals.are_todays(&sealed.wallet) {
                let later = match sound.load(Ordering::Acquire) {
                    true => Ok(Later::Nothing),
                    false => seals.restore(&sealed, &sck),
                };
                return Ok((Some(done), later));
            }
            // Whoever does not wait any more needs no answer.
            let _ = early.send(done);
            Ok::<_, CustodyError>((None, seals.reseal(&sealed, &sck, &password)))
        }));
        let (done, later) = match opened.await {
            Ok(done) => (
                done,
                Afterwards::Soon(Box::pin(async move {
                    work.await.map_err(|_panic| PoolError::Stopped)???.1
                })),
            ),
            Err(_not_early) => match work.await.map_err(|_panic| PoolError::Stopped)??? {
                (Some(done), later) => (done, Afterwards::Now(later)),
                (None, _) => return Err(PoolError::Stopped.into()),
            },
        };
        self.accept(account.id, now, journal).await?;
        Ok((done, later))
    }

    /// The password was right: no attempt counts any more, and a recovery is not wanted.
    async fn accept(
        &self,
        account: AccountId,
        now: Timestamp,
        journal: &Journal,
    ) -> Result<(), CustodyError> {
        if let Some(recovery) = self.ports.gate.accept(account, now).await? {
            journal.cancelled(recovery).await;
        }
        Ok(())
    }

    async fn existing(
        &self,
        account: Account,
        password: PasswordHash,
        caller: &Caller,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<Created, CustodyError> {
        match self.unlock_for_more(&account, password, now, journal, drop).await {
            Ok(((), later)) => {
                let parts = (&self.ports, &self.seals);
                self.healer.heal(parts, account.clone(), later, caller, now);
                Ok(Created::Existing(account))
            }
            Err(CustodyError::WrongPassword) => Err(CustodyError::AccountExists),
            Err(error) => Err(error),
        }
    }

    async fn unwrap_sck(&self, account: &Account) -> Result<Sck, CustodyError> {
        let sck_id = account.wallet.sck_id;
        let wrapped = self.ports.scks.sck(sck_id).await?;
        let wrapped = wrapped.ok_or(CustodyError::Integrity("the wrapped key is missing"))?;
        let owner = WrapContext { account: account.id, address: account.wallet.address, sck_id };
        Ok(owner.unwrap(wrapped, &self.seals.ring).await?)
    }

    async fn swap(
        &self,
        account: AccountId,
        replaces: i64,
        wallet: Wallet,
        reason: SwapReason,
        at: Timestamp,
    ) -> Result<(), CustodyError> {
        let swap = WalletSwap { account, replaces, wallet, reason, at };
        if self.ports.accounts.swap_wallet(swap).await? {
            Ok(())
        } else {
            Err(CustodyError::Conflict)
        }
    }

    /// As [`Journal::keep`].
    async fn audited<T, E: Audited>(
        &self,
        action: Action,
        account: impl Into<Option<AccountRef>>,
        caller: &Caller,
        now: Timestamp,
        work: impl AsyncFnOnce(&mut Journal) -> Result<T, E>,
    ) -> Result<T, E> {
        let audit = Arc::clone(&self.ports.audit);
        Journal::keep(audit, action, account.into(), caller, now, work).await
    }
}

fn refuse_frozen(account: &Account) -> Result<(), CustodyError> {
    if account.state == AccountState::Active { Ok(()) } else { Err(CustodyError::Frozen) }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers run these on tasks of their own, so that a client that hangs up stops nothing.
    #[expect(dead_code, reason = "it is enough that it compiles")]
    fn futures_may_move_between_threads(custody: &Custody, caller: &Caller) {
        fn assert_send<T: Send>(_: T) {}
        let hash = || PasswordHash::fill(|_| ());
        let account = AccountRef::Id(AccountId::random());
        let now = Timestamp(0);
        assert_send(custody.change_password(account, hash(), hash(), caller, now));
        let id = kms_types::RecoveryId::random();
        assert_send(custody.complete_recovery(account, id, hash(), caller, now));
        assert_send(custody.with_wallet(
            account,
            hash(),
            Action::Create,
            caller,
            now,
            |wallet| async move { Ok::<_, CustodyError>(wallet.address()) },
        ));
    }
}
