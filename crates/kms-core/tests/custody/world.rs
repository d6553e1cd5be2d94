//! Custody over SQLite in memory, with stores that can fail or return forged rows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kms_core::account::{Account, ContactChange, Inserted, NewAccount, Wallet, WalletSwap};
use kms_core::audit::{Action, AuditRecord, Caller, Details};
use kms_core::page_only::PageChange;
use kms_core::ports::{
    AccountStore, AuditLog, AuditedAccount, ExportLog, SckStore, StoreError, WrappedSck,
};
use kms_core::recovery::{Recovery, RecoveryRules};
use kms_core::{
    CreateWallet, Created, Custody, CustodyError, KdfParams, KdfPool, KeyRing, MasterKey, Ports,
    ServerKeys,
};
use kms_key_local::LocalMasterKey;
use kms_store::{Database, SqliteKeyDatabase};
use kms_types::{AccountId, AccountRef, PasswordHash, RecoveryId, SckId, Timestamp};
use tokio::sync::Mutex;

pub(crate) const PEM: &str = include_str!("../../vectors/test-kms-key.txt");
pub(crate) const PASSPHRASE: &str = include_str!("../../vectors/test-kms-key-passphrase.txt");
pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Milliseconds, so that tests can compute with small numbers.
pub(crate) const RULES: RecoveryRules = RecoveryRules {
    sends_codes: true,
    wait_with_code: millis(10),
    wait_without_email: millis(100),
    wait_without_code: millis(1_000),
    email_trusted_after: millis(50),
    code_lifetime: millis(600),
    open_for: millis(5_000),
    hold: millis(300),
    unfreeze_wait: millis(24),
};

pub(crate) struct World {
    pub(crate) custody: Arc<Custody>,
    pub(crate) database: Database,
    pub(crate) scks: SqliteKeyDatabase,
    pub(crate) forger: Arc<Forger>,
    ports: Ports,
    keys: Arc<ServerKeys>,
}

/// Wraps the stores, and returns rows as an attacker who writes to them could have stored them.
pub(crate) struct Forger {
    database: Database,
    scks: SqliteKeyDatabase,
    pub(crate) account: Mutex<Option<Account>>,
    /// What the next read returns, as if it had come before a change.
    pub(crate) stale: Mutex<Option<Account>>,
    pub(crate) sck: Mutex<Option<WrappedSck>>,
    pub(crate) audit_fails: Mutex<bool>,
    pub(crate) events_fail: Mutex<bool>,
}

#[async_trait]
impl AccountStore for Forger {
    async fn account(&self, account: AccountRef) -> Result<Option<Account>, StoreError> {
        if let Some(stale) = self.stale.lock().await.take() {
            return Ok(Some(stale));
        }
        match &*self.account.lock().await {
            Some(forged) => Ok(Some(forged.clone())),
            None => self.database.account(account).await,
        }
    }

    async fn create_account(&self, new: NewAccount) -> Result<Option<Inserted>, StoreError> {
        self.database.create_account(new).await
    }

    async fn swap_wallet(&self, swap: WalletSwap) -> Result<bool, StoreError> {
        self.database.swap_wallet(swap).await
    }

    async fn reseal_wallet(
        &self,
        account: AccountId,
        replaces: SckId,
        wallet: Wallet,
    ) -> Result<bool, StoreError> {
        self.database.reseal_wallet(account, replaces, wallet).await
    }

    async fn record_wrapped_sck(
        &self,
        account: AccountId,
        sck: SckId,
        replaces: [u8; 32],
        hash: [u8; 32],
    ) -> Result<bool, StoreError> {
        self.database.record_wrapped_sck(account, sck, replaces, hash).await
    }

    async fn set_contact(
        &self,
        account: AccountId,
        wallet_version: i64,
        change: ContactChange,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.database.set_contact(account, wallet_version, change, at).await
    }

    async fn change_page(
        &self,
        account: AccountId,
        change: PageChange,
        at: Timestamp,
    ) -> Result<Option<Account>, StoreError> {
        self.database.change_page(account, change, at).await
    }

    async fn due_page_leaves(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<AccountId>, StoreError> {
        self.database.due_page_leaves(now, limit).await
    }
}

#[async_trait]
impl ExportLog for Forger {
    async fn record_export(
        &self,
        account: AccountId,
        wallet_version: i64,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        if *self.events_fail.lock().await {
            let source = "planted".into();
            return Err(StoreError::Unavailable { store: "account", source });
        }
        self.database.record_export(account, wallet_version, at).await
    }
}

#[async_trait]
impl SckStore for Forger {
    async fn put_sck(&self, sck: WrappedSck) -> Result<(), StoreError> {
        self.scks.put_sck(sck).await
    }

    async fn replace_sck(&self, old: &WrappedSck, new: WrappedSck) -> Result<bool, StoreError> {
        self.scks.replace_sck(old, new).await
    }

    async fn remove_sck(&self, id: SckId) -> Result<(), StoreError> {
        self.scks.remove_sck(id).await
    }

    async fn sck(&self, id: SckId) -> Result<Option<WrappedSck>, StoreError> {
        match &*self.sck.lock().await {
            Some(forged) => Ok(Some(forged.clone())),
            None => self.scks.sck(id).await,
        }
    }
}

#[async_trait]
impl AuditLog for Forger {
    async fn append(&self, record: AuditRecord) -> Result<(), StoreError> {
        if *self.audit_fails.lock().await {
            let source = "planted".into();
            return Err(StoreError::Unavailable { store: "account", source });
        }
        self.database.append(record).await
    }

    async fn append_refusal(&self, record: AuditRecord) -> Result<(), StoreError> {
        self.database.append_refusal(record).await
    }

    async fn count_outcomes(
        &self,
        actions: &[Action],
        outcome: &'static str,
    ) -> Result<usize, StoreError> {
        self.database.count_outcomes(actions, outcome).await
    }

    async fn newest_details(&self, action: Action) -> Result<Option<Details>, StoreError> {
        self.database.newest_details(action).await
    }

    async fn audited_account(
        &self,
        account: AccountId,
        since: Timestamp,
        at_most: usize,
    ) -> Result<AuditedAccount, StoreError> {
        self.database.audited_account(account, since, at_most).await
    }
}

/// Changes the password, within every limit.
pub(crate) async fn change_password(
    custody: &Custody,
    id: i64,
    (old, new): (&str, &str),
    now: Timestamp,
) -> Result<(), CustodyError> {
    let (words, admit) = ((hash(old), hash(new)), |_| async { Ok(()) });
    custody.change_password(telegram(id), words, &caller(), now, admit).await
}

impl World {
    pub(crate) async fn new(kdf: KdfParams) -> Self {
        Self::with_pool(kdf, KdfPool::new(2.try_into().unwrap(), 64).unwrap()).await
    }

    pub(crate) async fn with_pool(kdf: KdfParams, pool: KdfPool) -> Self {
        let key = |byte: &str| format!("1:{}", byte.repeat(32)).parse().unwrap();
        let keys = Arc::new(ServerKeys {
            pepper: key("a1"),
            contact: key("b2"),
            row: key("c3"),
            audit: key("d4"),
            codes: key("e5"),
            checkpoint: key("f6"),
        });
        let database = Database::connect("sqlite::memory:", 1, Arc::clone(&keys)).await.unwrap();
        database.migrate().await.unwrap();
        let scks = SqliteKeyDatabase::open(":memory:").await.unwrap();
        let forger = Arc::new(Forger {
            database: database.clone(),
            scks: scks.clone(),
            account: Mutex::default(),
            stale: Mutex::default(),
            sck: Mutex::default(),
            audit_fails: Mutex::default(),
            events_fail: Mutex::default(),
        });
        let ports = Ports {
            accounts: forger.clone(),
            exports: forger.clone(),
            audit: forger.clone(),
            ..Ports::new(Arc::new(database.clone()), forger.clone())
        };
        let ring = KeyRing::new(master_key("kms-test"), []).unwrap();
        let custody = Custody::new(ports.clone(), ring, Arc::clone(&keys), pool, kdf)
            .with_recovery_rules(RULES);
        Self { custody: Arc::new(custody), database, scks, forger, ports, keys }
    }

    /// Returns custody over the same stores, after a newer KMS key became the active one.
    pub(crate) fn rotated(&self, kdf: KdfParams) -> Custody {
        let ring = KeyRing::new(master_key("kms-newer"), [master_key("kms-test")]).unwrap();
        let pool = KdfPool::new(2.try_into().unwrap(), 64).unwrap();
        Custody::new(self.ports.clone(), ring, Arc::clone(&self.keys), pool, kdf)
            .with_recovery_rules(RULES)
    }

    /// Returns custody over the same stores, with another current KDF and pepper.
    pub(crate) fn upgraded(&self, kdf: KdfParams, pepper: &str) -> Custody {
        let key = |byte: &str| format!("1:{}", byte.repeat(32)).parse().unwrap();
        let keys = ServerKeys {
            pepper: pepper.parse().unwrap(),
            contact: key("b2"),
            row: key("c3"),
            audit: key("d4"),
            codes: key("e5"),
            checkpoint: key("f6"),
        };
        let ring = KeyRing::new(master_key("kms-test"), []).unwrap();
        let pool = KdfPool::new(2.try_into().unwrap(), 64).unwrap();
        Custody::new(self.ports.clone(), ring, Arc::new(keys), pool, kdf)
    }

    pub(crate) async fn create(&self, id: i64, words: &str) -> Result<Created, CustodyError> {
        let request = CreateWallet {
            telegram_id: id.try_into().unwrap(),
            password: hash(words),
            names: None,
            mobile: None,
            email: None,
        };
        self.custody.create(request, &caller(), NOW, || async { Ok(()) }).await
    }

    /// Requests a recovery, and completes it after its wait.
    pub(crate) async fn recover(
        &self,
        id: i64,
        recovery: RecoveryId,
        words: &str,
    ) -> Result<Recovery, CustodyError> {
        recover(&self.custody, id, recovery, words).await
    }

    /// Returns the server keys.
    pub(crate) fn keys(&self) -> &ServerKeys {
        &self.keys
    }

    pub(crate) async fn account(&self, id: i64) -> Account {
        self.database.account(telegram(id)).await.unwrap().unwrap()
    }

    /// Returns the phases and outcomes in the audit table, oldest first.
    pub(crate) async fn audit(&self) -> Vec<(String, String)> {
        let rows = self.database.audit_after(0, 1_000).await.unwrap();
        rows.into_iter().map(|row| (row.phase, row.outcome.unwrap_or_default())).collect()
    }
}

pub(crate) async fn recover(
    custody: &Custody,
    id: i64,
    recovery: RecoveryId,
    words: &str,
) -> Result<Recovery, CustodyError> {
    let (owner, caller) = (telegram(id), caller());
    let asked = custody.request_recovery(owner, recovery, &caller, NOW).await?;
    let ready = asked.ready_at;
    custody.complete_recovery(owner, recovery, hash(words), &caller, ready).await
}

fn master_key(id: &str) -> Arc<dyn MasterKey> {
    Arc::new(LocalMasterKey::from_pem(id.parse().unwrap(), PEM, PASSPHRASE).unwrap())
}

pub(crate) fn caller() -> Caller {
    Caller::new("test", "1")
}

pub(crate) fn telegram(id: i64) -> AccountRef {
    AccountRef::Telegram(id.try_into().unwrap())
}

pub(crate) fn hash(words: &str) -> PasswordHash {
    PasswordHash::fill(|bytes| {
        for (to, from) in bytes.iter_mut().zip(words.bytes()) {
            *to = from;
        }
    })
}
