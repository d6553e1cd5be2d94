//! The databases and keys of a server, for commands that run without the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use kms_core::account::Account;
use kms_core::ports::{AccountStore, StoreError};
use kms_core::{Custody, KeyRing, MasterKeyId, ServerKeys};
use kms_store::{Database, KeyDatabase, ListedAccount, open_existing_key_database};

use super::record::Record;
use crate::config::{DatabaseSettings, KmsKeySettings, PasswordSettings, Settings};
use crate::{database_url, key_ring, startup};

/// How many accounts are read at once.
const PAGE: u32 = 500;

/// Both databases and the configured keys.
pub(super) struct Vault {
    /// The KMS key that wraps.
    pub(super) active: KmsKeySettings,
    /// The older KMS keys, which only unwrap.
    pub(super) older: Vec<KmsKeySettings>,
    pub(super) server_keys: Arc<ServerKeys>,
    password: PasswordSettings,
    pub(super) database: Database,
    key_database: Arc<dyn KeyDatabase>,
}

/// The result of looking up a wallet's wrapped SCK.
pub(super) enum Held {
    /// The SCK is wrapped by this KMS key.
    Under(MasterKeyId),
    /// The key database does not hold it as it was written.
    Damaged(MasterKeyId),
    /// The key database does not have it.
    Missing,
    /// Unknown, because a row cannot be read.
    Unreadable(StoreError),
}

/// The numbers of wallets by the state of their wrapped SCK.
#[derive(Default)]
pub(super) struct Census {
    pub(super) under: BTreeMap<MasterKeyId, u64>,
    pub(super) missing: u64,
    pub(super) damaged: u64,
    pub(super) unreadable: u64,
}

impl Vault {
    /// Opens both databases.
    pub(super) async fn open(settings: Settings) -> anyhow::Result<Self> {
        let keys = &settings.key_database;
        let key_database = open_existing_key_database(keys.url.expose(), &keys.name).await;
        let key_database = key_database.context("key_database.url")?;
        let server_keys = Arc::new(settings.server_keys);
        let DatabaseSettings { url, auth, pool, .. } = settings.database;
        let url = database_url::source(url, auth).await?;
        let database = Database::connect_by(url, pool, Arc::clone(&server_keys)).await;
        let database = database.context("database.url")?;
        let current = database.schema_is_current().await?;
        ensure!(current, "the database's schema is not up to date; run `kms-server migrate`");
        // With a wrong row-MAC key every row would fail its integrity check.
        database.check_server_keys().await?;
        let (active, older, password) =
            (settings.kms_key, settings.older_kms_keys, settings.password);
        Ok(Self { active, older, server_keys, password, database, key_database })
    }

    /// Builds custody over both databases, with all KMS keys.
    pub(super) async fn custody(&self) -> anyhow::Result<Custody> {
        self.custody_with(key_ring::open(self.active.clone(), self.older.clone()).await?)
    }

    /// Builds custody without a KMS key, for acts that open no wallet: an operator freezes and
    /// cancels without the right to decrypt, and while the KMS key is unavailable.
    pub(super) fn custody_without_kms_key(&self) -> anyhow::Result<Custody> {
        self.custody_with(KeyRing::default())
    }

    fn custody_with(&self, ring: KeyRing) -> anyhow::Result<Custody> {
        let keys = Arc::clone(&self.server_keys);
        Ok(startup::custody(&self.database, &self.key_database, ring, keys, self.password)?)
    }

    /// Checks that the key database belongs to the account database.
    pub(super) async fn check_owner(&self) -> anyhow::Result<()> {
        Ok(self.database.check_key_database(&*self.key_database).await?)
    }

    /// Returns the lines of the audit checkpoints in the key database.
    pub(super) async fn checkpoints(&self) -> anyhow::Result<Vec<String>> {
        self.key_database.checkpoints().await.context("key_database")
    }

    /// Returns the key database.
    pub(super) fn key_database(&self) -> &dyn KeyDatabase {
        &*self.key_database
    }

    /// Returns the audit record of a command on this vault.
    pub(super) fn record(&self, action: &'static str, about: &str) -> Record<'_> {
        Record::new(&self.database, action, about)
    }

    /// Returns all configured KMS keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &KmsKeySettings> {
        std::iter::once(&self.active).chain(&self.older)
    }

    /// Calls `each` for every account.
    pub(super) async fn each(
        &self,
        mut each: impl AsyncFnMut(ListedAccount) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut after = String::new();
        loop {
            let page = self.database.accounts_after(&after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id.clone();
            for account in page {
                each(account).await?;
            }
        }
    }

    /// Looks up the wallet's wrapped SCK.
    pub(super) async fn held(&self, listed: ListedAccount) -> Result<Held, StoreError> {
        let found = match listed.account {
            Ok(account) => self.held_by(account).await,
            Err(error) => Err(error),
        };
        match found {
            Err(error) if !matches!(error, StoreError::Unavailable { .. }) => {
                Ok(Held::Unreadable(error))
            }
            other => other,
        }
    }

    async fn held_by(&self, mut account: Account) -> Result<Held, StoreError> {
        let mut is_second = false;
        loop {
            let found = self.key_database.sck(account.wallet.sck_id).await?;
            let Some(wrapped) = found else { return Ok(Held::Missing) };
            if wrapped.hash() == account.wallet.wrapped_hash {
                return Ok(Held::Under(wrapped.master_key));
            }
            if is_second {
                return Ok(Held::Damaged(wrapped.master_key));
            }
            // It may have been replaced since the account was read.
            is_second = true;
            let current = self.database.account(account.id.into()).await?;
            account = current.unwrap_or(account);
        }
    }

    /// Counts all wallets by the state of their wrapped SCK.
    pub(super) async fn census(&self) -> anyhow::Result<Census> {
        let mut census = Census::default();
        self.each(async |listed| {
            match self.held(listed).await? {
                Held::Under(key) => *census.under.entry(key).or_default() += 1,
                Held::Missing => census.missing += 1,
                Held::Damaged(_) => census.damaged += 1,
                Held::Unreadable(_) => census.unreadable += 1,
            }
            Ok(())
        })
        .await?;
        Ok(census)
    }
}

impl Census {
    /// Returns the number of all wallets.
    pub(super) fn total(&self) -> u64 {
        self.under.values().sum::<u64>() + self.lost()
    }

    /// Returns the number of wallets without a wrapped SCK that can be relied on.
    pub(super) fn lost(&self) -> u64 {
        self.missing + self.damaged + self.unreadable
    }

    /// Returns the number of wallets whose SCK is under this key.
    pub(super) fn count(&self, key: &MasterKeyId) -> u64 {
        self.under.get(key).copied().unwrap_or_default()
    }
}
