//! Recoverability checks: the KMS keys work, and every wallet has a wrapped SCK that one of them
//! can open. No wallet's key is opened here.

use std::sync::Arc;
use std::time::Duration;

use kms_types::{AccountId, Timestamp};

use super::journal::Journal;
use super::upkeep::MISSING;
use super::{Custody, CustodyError};
use crate::account::Account;
use crate::audit::{Action, Audited, Caller, Phase};
use crate::master_key::{self, MasterKeyError, MasterKeyId};
use crate::ports::{StoreError, WrappedSck};

/// How long a replaced SCK may precede its hash: they are in two databases.
const BETWEEN_WRITES: Duration = Duration::from_millis(250);

/// Why a KMS key failed its probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No key with this id is configured.
    #[error("no KMS key {0} is configured")]
    NoKey(MasterKeyId),
    /// The audit record could not be written, so the key was not used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key is unavailable, or cannot decrypt what was encrypted to its public half.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The key decrypted other bytes than were encrypted.
    #[error("the KMS key unwrapped other bytes than were wrapped")]
    Mismatch,
}

impl Audited for ProbeError {
    fn phase(&self) -> Phase {
        match self {
            Self::NoKey(_) | Self::Store(_) => Phase::Outcome("not_asked"),
            Self::MasterKey(MasterKeyError::Unavailable(_)) => Phase::Alarm("kms_key_unavailable"),
            Self::MasterKey(_) | Self::Mismatch => Phase::Alarm("kms_key_differs"),
        }
    }
}

impl Custody {
    /// Returns the ids of the configured KMS keys.
    pub fn kms_keys(&self) -> impl Iterator<Item = &MasterKeyId> {
        self.sealer.ring.ids()
    }

    /// Encrypts random bytes to the KMS key and lets it decrypt them. Success shows that the key
    /// is reachable, may be used, and is the one that SCKs are wrapped with.
    ///
    /// # Errors
    /// When the key is unavailable or another one, or the audit record cannot be written.
    pub async fn probe_kms_key(
        &self,
        key: &MasterKeyId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), ProbeError> {
        let key = self.sealer.ring.get(key).ok_or_else(|| ProbeError::NoKey(key.clone()))?;
        self.audited(Action::ProbeKmsKey, None, caller, now, async |journal| {
            journal.intent().await?;
            if master_key::probe(key).await? { Ok(()) } else { Err(ProbeError::Mismatch) }
        })
        .await
    }

    /// Records in the audit what [`Custody::find_wrapped_sck`] found wrong with an account.
    pub async fn record_check_failure(
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

    /// Returns the wallet's wrapped SCK if the key database holds it for this account, as it was
    /// written, and under a KMS key that is configured. Nothing is unwrapped.
    ///
    /// # Errors
    /// `Integrity` when the wallet could not be recovered; else as a store fails.
    pub async fn find_wrapped_sck(&self, account: &Account) -> Result<WrappedSck, CustodyError> {
        let mut wrapped = self.ports.scks.sck(account.wallet.sck_id).await?.ok_or(MISSING)?;
        if wrapped.hash() != account.wallet.wrapped_hash {
            // It may have been replaced since the account was read, or at this moment.
            tokio::time::sleep(BETWEEN_WRITES).await;
            let wallet = self.load(account.id.into()).await?.wallet;
            wrapped = self.ports.scks.sck(wallet.sck_id).await?.ok_or(MISSING)?;
            if wrapped.hash() != wallet.wrapped_hash {
                return Err(CustodyError::Integrity("the wrapped SCK is not the one written"));
            }
        }
        if wrapped.account != account.id {
            return Err(CustodyError::Integrity("the wrapped SCK belongs to another account"));
        }
        if self.sealer.ring.get(&wrapped.master_key).is_none() {
            return Err(CustodyError::Integrity(
                "the KMS key of the wrapped SCK is not configured",
            ));
        }
        Ok(wrapped)
    }
}
