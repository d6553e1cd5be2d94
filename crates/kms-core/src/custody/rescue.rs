//! Rescue of an account whose rows fail their integrity check, by two operators and with the
//! address that its owner names.

use std::sync::Arc;

use kms_types::{AccountId, AccountRef, EthAddress, Timestamp};

use super::upkeep::MISSING;
use super::wallet_sealer::wrap_context;
use super::{Custody, CustodyError};
use crate::account::Account;
use crate::audit::{Action, Caller};
use crate::failpoint;
use crate::kdf_pool::KdfPermit;
use crate::rescue::{DamagedAccount, RescueDigest};
use crate::seal::SealContext;

/// A rescue that can be approved.
#[derive(Clone, Debug)]
pub struct Rescue {
    /// The account as it would be written.
    pub account: Account,
    /// The tables in which a row of the account fails its check.
    pub damage: Vec<&'static str>,
    /// What the second operator approves.
    pub digest: RescueDigest,
}

impl Custody {
    /// Proves that the account's ciphertexts are those of the wallet with this address, which its
    /// owner named, and writes nothing.
    ///
    /// # Errors
    /// `NoAccount`; `NotDamaged` when every row passes its check; `Integrity` when the ciphertexts
    /// are not of this address; else as a store, the pool or the KMS key fails.
    pub async fn propose_rescue(
        &self,
        account: AccountRef,
        address: EthAddress,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Rescue, CustodyError> {
        let stored = self.damaged(account).await?;
        let (digest, damage) = (stored.digest(address), stored.damage.clone());
        let (action, id) = (Action::ProposeRescue(digest), AccountRef::Id(stored.account.id));
        self.audited(action, id, caller, now, async |journal| {
            let permit = self.pool.reserve()?;
            journal.intent().await?;
            let account = self.prove(stored, address, permit, now).await?;
            Ok(Rescue { account, damage, digest })
        })
        .await
    }

    /// Rebuilds the rows of the account, if what is stored is what was approved. The account is
    /// frozen until its owner's next password, and its open recovery and requested change of the
    /// e-mail address end.
    ///
    /// # Errors
    /// As [`Custody::propose_rescue`]; `Conflict` when what is stored is not what was approved.
    pub async fn rescue(
        &self,
        account: AccountRef,
        address: EthAddress,
        approved: RescueDigest,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        let stored = self.damaged(account).await?;
        let id = AccountRef::Id(stored.account.id);
        self.audited(Action::Rescue(approved), id, caller, now, async |journal| {
            if stored.digest(address) != approved {
                return Err(CustodyError::Conflict);
            }
            let permit = self.pool.reserve()?;
            journal.intent().await?;
            let mut account = self.prove(stored.clone(), address, permit, now).await?;
            let audited = self.ports.audit.audited_account(account.id, now, 0).await?;
            account.revision = audited.revision.saturating_add(1);
            failpoint::reach("rescue-before-write");
            let written = self.ports.rescues.rescue_account(&stored, account.clone(), now).await?;
            failpoint::reach("rescue-after-write");
            if written { Ok(account) } else { Err(CustodyError::Conflict) }
        })
        .await
    }

    /// Returns the id of an account whose rows fail their check, for the proposal of its rescue.
    ///
    /// # Errors
    /// `NoAccount`; `NotDamaged`; else as a store fails.
    pub async fn damaged_id(&self, account: AccountRef) -> Result<AccountId, CustodyError> {
        Ok(self.damaged(account).await?.account.id)
    }

    async fn damaged(&self, account: AccountRef) -> Result<DamagedAccount, CustodyError> {
        let stored = self.ports.rescues.damaged_account(account).await?;
        let stored = stored.ok_or(CustodyError::NoAccount)?;
        if stored.damage.is_empty() { Err(CustodyError::NotDamaged) } else { Ok(stored) }
    }

    /// Opens the sealed key with the KMS key, and returns the account as a rescue writes it.
    async fn prove(
        &self,
        stored: DamagedAccount,
        address: EthAddress,
        permit: KdfPermit,
        now: Timestamp,
    ) -> Result<Account, CustodyError> {
        let mut account = stored.rescued(now);
        account.wallet.address = address;
        let wrapped = self.ports.scks.sck(account.wallet.sck_id).await?.ok_or(MISSING)?;
        let wrapped_hash = wrapped.hash();
        let sck = wrap_context(&account).unwrap(wrapped, &self.sealer.ring).await?;
        let sealed = Arc::new(account.clone());
        let (public_key, commitment) = permit
            .run(move || {
                let (wallet, id, telegram_id) = (&sealed.wallet, sealed.id, sealed.telegram_id);
                let context =
                    SealContext { account: id, telegram_id, address, sck_id: wallet.sck_id };
                let key = context.open(&wallet.sealed_key, &sck)?;
                if key.address() != address {
                    return Err(CustodyError::Integrity("the sealed key is of another address"));
                }
                Ok((key.public_key(), sck.commitment()))
            })
            .await??;
        let wallet = &mut account.wallet;
        (wallet.public_key, wallet.commitment) = (public_key, commitment);
        wallet.wrapped_hash = wrapped_hash;
        Ok(account)
    }
}
