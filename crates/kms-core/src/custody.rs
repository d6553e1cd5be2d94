//! The service: creates a wallet, opens it, changes its password, replaces a forgotten one.
//!
//! Every use of a key is audited before it happens, and every password attempt is counted before it
//! is tried. A plaintext key exists on one thread of the KDF pool, or in the [`OpenWallet`] that a
//! caller moves into the work that signs.

mod check;
mod contacts;
mod error;
mod export;
mod freeze;
mod journal;
mod moves;
mod page_only;
mod recoveries;
mod repair;
mod rescue;
mod turns;
mod unlock;
mod upkeep;
mod wallet_sealer;

pub use self::check::ProbeError;
pub use self::error::CustodyError;
pub use self::moves::ProposedMove;
pub use self::rescue::Rescue;
pub use self::upkeep::Rewrapped;

use std::future::Future;
use std::sync::Arc;

use kms_types::{
    AccountId, AccountRef, Email, Mobile, PasswordHash, TelegramId, Timestamp, Username, Usernames,
};

use self::journal::Journal;
use self::repair::Repairer;
use self::turns::Turns;
use self::unlock::{refuse_frozen, refuse_token};
use self::wallet_sealer::WalletSealer;
use crate::account::{
    Account, AccountState, Inserted, NewAccount, SeenNames, SwapReason, Wallet, WalletSwap,
};
use crate::audit::{Action, Audited, Caller, Details, Notes, Phase, Purpose, REVISION};
use crate::failpoint;
use crate::kdf::KdfParams;
use crate::kdf_pool::KdfPool;
use crate::master_key::KeyRing;
use crate::ports::{
    AccountStore, AuditLog, EmailChangeStore, ExportLog, FreezeStore, PasswordGate, RecoveryStore,
    RescueStore, SckStore,
};
use crate::private_key::{OpenWallet, PrivateKey};
use crate::recovery::RecoveryRules;
use crate::seal::Sealer;
use crate::server_keys::ServerKeys;

/// The stores of custody.
#[derive(Clone)]
pub struct Ports {
    /// Accounts and wallets.
    pub accounts: Arc<dyn AccountStore>,
    /// Requested changes of e-mail addresses.
    pub email_changes: Arc<dyn EmailChangeStore>,
    /// Frozen accounts.
    pub freezes: Arc<dyn FreezeStore>,
    /// Notices of exported keys.
    pub exports: Arc<dyn ExportLog>,
    /// Recoveries.
    pub recoveries: Arc<dyn RecoveryStore>,
    /// Damaged accounts.
    pub rescues: Arc<dyn RescueStore>,
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
        D: AccountStore + EmailChangeStore + FreezeStore + ExportLog + RecoveryStore + AuditLog,
        D: PasswordGate + RescueStore + 'static,
    {
        Self {
            accounts: database.clone(),
            email_changes: database.clone(),
            freezes: database.clone(),
            exports: database.clone(),
            recoveries: database.clone(),
            rescues: database.clone(),
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
    sealer: Arc<WalletSealer>,
    repairer: Repairer,
    turns: Turns,
    rules: RecoveryRules,
}

/// The parameters of a new wallet.
#[derive(Debug)]
pub struct CreateWallet {
    /// The owner.
    pub telegram_id: TelegramId,
    /// The wallet's password, stretched by the client.
    pub password: PasswordHash,
    /// The usernames that came with the request.
    pub names: Option<SeenNames>,
    /// The owner's mobile number.
    pub mobile: Option<Mobile>,
    /// The owner's e-mail address, unverified.
    pub email: Option<Email>,
}

/// The account that [`Custody::create`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The account is new.
    New(Account),
    /// The Telegram user had this account already, and the password is its password.
    Existing(Account),
}

impl Custody {
    /// Builds the service over these stores and keys. New wallets are sealed with `kdf`.
    #[must_use]
    pub fn new(
        ports: Ports,
        ring: KeyRing,
        keys: Arc<ServerKeys>,
        pool: KdfPool,
        kdf: KdfParams,
    ) -> Self {
        let sealer = Sealer::new(Arc::clone(&keys));
        let sealer = Arc::new(WalletSealer { ring, keys, sealer, kdf });
        let (repairer, rules) = (Repairer::default(), RecoveryRules::default());
        Self { ports, pool, sealer, repairer, turns: Turns::default(), rules }
    }

    /// Replaces the default rules of recoveries.
    #[must_use]
    pub fn with_recovery_rules(self, rules: RecoveryRules) -> Self {
        Self { rules, ..self }
    }

    /// Creates a wallet, or returns the one that the Telegram user has if the password is its
    /// password.
    ///
    /// The wrapped SCK is written before the wallet: a crash in between leaves an orphaned SCK, and
    /// repeating the request succeeds.
    ///
    /// `admit` runs for a user who has no wallet, before anything is done: repeats use up no limit
    /// on new wallets.
    ///
    /// # Errors
    /// `AccountExists` when there is a wallet with another password; else as `admit`, a store, the
    /// pool or the password gate fails.
    pub async fn create<E, F>(
        &self,
        request: CreateWallet,
        caller: &Caller,
        now: Timestamp,
        admit: impl FnOnce() -> F,
    ) -> Result<Created, E>
    where
        E: From<CustodyError> + Audited,
        F: Future<Output = Result<(), E>>,
    {
        let owner = AccountRef::Telegram(request.telegram_id);
        let mut to_record = Vec::new();
        let created = self.audited(Action::Create, owner, caller, now, async |journal| {
            let found = self.ports.accounts.account(owner).await.map_err(CustodyError::from)?;
            if let Some(account) = found {
                return Ok(self.existing(account, request.password, caller, now, journal).await?);
            }
            admit().await?;
            let CreateWallet { telegram_id, password, names, mobile, email } = request;
            let id = AccountId::random();
            let (wallet, password) = self.make_wallet(id, telegram_id, password, journal).await?;
            let sealer = &self.sealer.sealer;
            let account = Account {
                id,
                telegram_id,
                username: None,
                state: AccountState::Active,
                unfreezes_at: None,
                mobile: mobile.map(|to| sealer.seal_contact(id, "mobile", to.as_str())),
                email: email.map(|to| sealer.seal_contact(id, "email", to.as_str())),
                email_verified_at: None,
                former_email: None,
                recovered_at: None,
                page_only_since: caller.is_at_page().then_some(now),
                page_only_until: None,
                created_by: (!caller.is_at_page()).then(|| caller.actor.clone()),
                created_at: now,
                revision: 1,
                wallet,
            };
            journal.set_account(&account);
            let claimed = names.as_ref().map(|seen| listed(&seen.usernames));
            journal.add(account.wallet.details().with_some("names", claimed));
            let new = NewAccount { account: account.clone(), names };
            let inserted = self.ports.accounts.create_account(new).await;
            let inserted = inserted.map_err(CustodyError::from)?;
            failpoint::reach("create-after-commit");
            match inserted {
                Some(Inserted { username, to_record: of_usernames }) => {
                    journal.add(Details::default().with(REVISION, account.revision));
                    to_record = of_usernames;
                    Ok(Created::New(Account { username, ..account }))
                }
                None => {
                    let account = self.load(owner).await?;
                    Ok(self.existing(account, password, caller, now, journal).await?)
                }
            }
        });
        let created: Result<_, E> = created.await;
        let created = created?;
        if let Created::New(account) = &created {
            for purpose in to_record {
                self.record_done(purpose, account, caller, now).await;
            }
        }
        Ok(created)
    }

    /// Opens the account's wallet with its password and passes it to `work`, whose result is the
    /// audit's outcome. The wallet is zeroized when `work` drops it.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts, after the same work; else as `work`, a store,
    /// the pool or the password gate fails.
    pub async fn with_wallet<T, E, F>(
        &self,
        account: AccountRef,
        password: PasswordHash,
        purpose: impl Into<Purpose>,
        caller: &Caller,
        now: Timestamp,
        work: impl FnOnce(OpenWallet) -> F,
    ) -> Result<T, E>
    where
        E: From<CustodyError> + Audited,
        F: Future<Output = Result<T, E>>,
    {
        self.audited(purpose, account, caller, now, async |journal| {
            let account = self.load_or_decoy(account, &password, journal).await?;
            let (id, address, version) =
                (account.id, account.wallet.address, account.wallet.version);
            let notes = Notes::default();
            let noted = notes.clone();
            let then = move |key| OpenWallet::new(id, address, version, key, noted);
            let (wallet, repair) =
                self.unlock_with_repair(&account, password, now, journal, then).await?;
            let done = work(wallet).await;
            journal.add(notes.take());
            self.repairer.repair((&self.ports, &self.sealer), account, repair, caller, now);
            done
        })
        .await
    }

    /// Does `work`, whose result is the audit's outcome, for a caller who has the password. Opens
    /// no key. Refused while the account is frozen.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `Frozen`; else as `work`, a store, the pool or
    /// the password gate fails.
    pub async fn with_password<T, E: From<CustodyError> + Audited>(
        &self,
        account: AccountRef,
        password: PasswordHash,
        purpose: impl Into<Purpose>,
        caller: &Caller,
        now: Timestamp,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.audited(purpose, account, caller, now, async |journal| {
            let account = self.load_or_decoy(account, &password, journal).await?;
            refuse_frozen(&account)?;
            self.check_password(account, password, now, journal).await?;
            work.await
        })
        .await
    }

    /// Seals the wallet under a new password.
    ///
    /// `admit` runs after the password was correct and before anything is stored: an attacker
    /// without the password cannot exhaust a limit that it counts.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `Frozen`; `Conflict` when a concurrent change
    /// came first; else as `admit`, a store, the pool or the password gate fails.
    pub async fn change_password<E, F>(
        &self,
        account: AccountRef,
        (old, new): (PasswordHash, PasswordHash),
        caller: &Caller,
        now: Timestamp,
        admit: impl FnOnce(AccountId) -> F,
    ) -> Result<(), E>
    where
        E: From<CustodyError> + Audited,
        F: Future<Output = Result<(), E>>,
    {
        self.audited(Action::ChangePassword, account, caller, now, async |journal| {
            let account = self.load_or_decoy(account, &old, journal).await?;
            let (id, telegram_id, version) =
                (account.id, account.telegram_id, account.wallet.version);
            let sealer = Arc::clone(&self.sealer);
            let (wallet, wrapped) = self
                .unlock(account, old, now, journal, move |key| {
                    sealer.seal(id, telegram_id, &key, &new, version + 1)
                })
                .await??;
            admit(id).await?;
            self.ports.scks.put_sck(wrapped).await.map_err(CustodyError::from)?;
            failpoint::reach("change-password-after-sck");
            self.swap(id, version, wallet, SwapReason::PasswordChange, now).await?;
            failpoint::reach("change-password-after-commit");
            Ok(())
        })
        .await
    }

    /// Records that a limit outside custody refused the request: at most once a minute for each
    /// account.
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

    /// Records what was done to an account outside custody, after it was done.
    pub async fn record_done(
        &self,
        purpose: Purpose,
        account: &Account,
        caller: &Caller,
        now: Timestamp,
    ) {
        let (audit, id) = (Arc::clone(&self.ports.audit), Some(account.id.into()));
        let mut journal = Journal::new(audit, purpose, id, caller, now);
        journal.set_account(account);
        journal.done().await;
    }

    /// Records the alarm that an old copy of a row was put back. Returns the error for the caller.
    pub async fn alarm_of_rollback(
        &self,
        action: Action,
        account: AccountRef,
        caller: &Caller,
        now: Timestamp,
    ) -> CustodyError {
        let audit = Arc::clone(&self.ports.audit);
        let error = CustodyError::RolledBack;
        let journal = Journal::new(audit, action, Some(account), caller, now);
        journal.close(Some(error.phase())).await;
        error
    }

    /// Generates a key, seals it, and writes its wrapped SCK. Returns the password for a retry.
    async fn make_wallet(
        &self,
        id: AccountId,
        telegram_id: TelegramId,
        password: PasswordHash,
        journal: &mut Journal,
    ) -> Result<(Wallet, PasswordHash), CustodyError> {
        let sealer = Arc::clone(&self.sealer);
        let permit = self.pool.reserve()?;
        journal.intent().await?;
        let (sealed, password) = permit
            .run(move || {
                let key = PrivateKey::random();
                (sealer.seal(id, telegram_id, &key, &password, 1), password)
            })
            .await?;
        let (wallet, wrapped) = sealed?;
        self.ports.scks.put_sck(wrapped).await?;
        failpoint::reach("create-after-sck");
        Ok((wallet, password))
    }

    /// Answers a creation for an account that exists, which requires its password.
    async fn existing(
        &self,
        account: Account,
        password: PasswordHash,
        caller: &Caller,
        now: Timestamp,
        journal: &mut Journal,
    ) -> Result<Created, CustodyError> {
        journal.set_account(&account);
        refuse_token(&account, journal)?;
        journal.add(account.wallet.details());
        match self.unlock_with_repair(&account, password, now, journal, drop).await {
            Ok(((), repair)) => {
                let parts = (&self.ports, &self.sealer);
                self.repairer.repair(parts, account.clone(), repair, caller, now);
                Ok(Created::Existing(account))
            }
            Err(CustodyError::WrongPassword) => Err(CustodyError::AccountExists),
            Err(error) => Err(error),
        }
    }

    async fn load(&self, account: AccountRef) -> Result<Account, CustodyError> {
        self.ports.accounts.account(account).await?.ok_or(CustodyError::NoAccount)
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
        self.written(account, self.ports.accounts.swap_wallet(swap).await?).await
    }

    /// Reports why a write was refused, if it was: the account was frozen, or its wallet changed,
    /// after it was read.
    async fn written(&self, account: AccountId, written: bool) -> Result<(), CustodyError> {
        if written {
            return Ok(());
        }
        refuse_frozen(&self.load(account.into()).await?)?;
        Err(CustodyError::Conflict)
    }

    /// Runs `work` with a [`Journal`].
    async fn audited<T, E: Audited>(
        &self,
        purpose: impl Into<Purpose>,
        account: impl Into<Option<AccountRef>>,
        caller: &Caller,
        now: Timestamp,
        work: impl AsyncFnOnce(&mut Journal) -> Result<T, E>,
    ) -> Result<T, E> {
        let audit = Arc::clone(&self.ports.audit);
        Journal::keep(audit, purpose, account.into(), caller, now, work).await
    }
}

fn listed(names: &Usernames) -> String {
    names.iter().map(Username::as_str).collect::<Vec<_>>().join(",")
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server runs these as tasks, so that a client that disconnects cannot stop them midway.
    #[expect(dead_code, reason = "compiling it is the test")]
    fn futures_may_move_between_threads(custody: &Custody, caller: &Caller) {
        fn assert_send<T: Send>(_: T) {}
        let hash = || PasswordHash::fill(|_| ());
        let account = AccountRef::Id(AccountId::random());
        let now = Timestamp(0);
        let admit = |_| async { Ok::<_, CustodyError>(()) };
        assert_send(custody.change_password(account, (hash(), hash()), caller, now, admit));
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
        let work = async { Ok::<_, CustodyError>(()) };
        assert_send(custody.with_password(account, hash(), Action::Create, caller, now, work));
    }
}
