//! Looking whether what custody will need one day is there: the KMS keys, and each wallet's wrapped
//! SCK. No wallet's key is opened here.

use std::sync::Arc;

use kms_types::{AccountId, Timestamp};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::journal::Journal;
use super::upkeep::MISSING;
use super::{Custody, CustodyError};
use crate::account::Account;
use crate::audit::{Action, Audited, Caller, Phase};
use crate::master_key::{MasterKeyError, MasterKeyId, encrypt};
use crate::ports::{StoreError, WrappedSck};
use crate::random;

/// Why a KMS key could not be seen to work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanaryError {
    /// No key of this name is configured.
    #[error("no KMS key {0} is configured")]
    NoKey(MasterKeyId),
    /// The audit could not be written, so the key was not asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not answer, or can not open what was wrapped for it.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// It answered with something else than what was wrapped.
    #[error("the KMS key unwrapped something else than what was wrapped")]
    Mismatch,
}

impl Audited for CanaryError {
    fn phase(&self) -> Phase {
        match self {
            Self::NoKey(_) | Self::Store(_) => Phase::Outcome("not_asked"),
            Self::MasterKey(MasterKeyError::Unavailable(_)) => Phase::Alarm("kms_key_unavailable"),
            Self::MasterKey(_) | Self::Mismatch => Phase::Alarm("kms_key_differs"),
        }
    }
}

impl Custody {
    /// The KMS keys that are configured.
    pub fn kms_keys(&self) -> impl Iterator<Item = &MasterKeyId> {
        self.seals.ring.ids()
    }

    /// Wraps random bytes for the KMS key and lets it unwrap them. What opens is proof that the
    /// key is there, that it may be used, and that it is the one that SCKs are wrapped for.
    ///
    /// # Errors
    /// As the key or the audit fails, or when the key is another one.
    pub async fn canary(
        &self,
        key: &MasterKeyId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), CanaryError> {
        let key = self.seals.ring.get(key).ok_or_else(|| CanaryError::NoKey(key.clone()))?;
        self.audited(Action::Canary, None, caller, now, async |journal| {
            journal.intent().await?;
            // No secret: it opens nothing, and nobody keeps it.
            let mut bytes = Zeroizing::new([0; 32]);
            random::fill(bytes.as_mut_slice());
            let opened = key.unwrap(encrypt(key, bytes.as_slice())?).await?;
            if opened.ct_eq(bytes.as_slice()).into() { Ok(()) } else { Err(CanaryError::Mismatch) }
        })
        .await
    }

    /// Writes into the audit what [`Custody::held`] found of an account.
    pub async fn found(
        &self,
        account: AccountId,
        error: &CustodyError,
        caller: &Caller,
        now: Timestamp,
    ) {
        let audit = Arc::clone(&self.ports.audit);
        let journal = Journal::new(audit, Action::Verify, Some(account.into()), caller, now);
        journal.close(Some(error.phase())).await;
    }

    /// The wallet's SCK as the key database holds it, if it is there as this account's, and under
    /// a KMS key that is configured. Nothing is unwrapped.
    ///
    /// # Errors
    /// `Integrity` when the wallet could not be recovered; else as the key database fails.
    pub async fn held(&self, account: &Account) -> Result<WrappedSck, CustodyError> {
        let wrapped = self.ports.scks.sck(account.wallet.sck_id).await?.ok_or(MISSING)?;
        if wrapped.account != account.id {
            return Err(CustodyError::Integrity("the wrapped key belongs to somebody else"));
        }
        if self.seals.ring.get(&wrapped.master_key).is_none() {
            return Err(CustodyError::Integrity("the wrapped key's KMS key is not configured"));
        }
        Ok(wrapped)
    }
}
