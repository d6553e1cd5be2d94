//! Moving a wallet to another Telegram account: proposed by one operator, approved by another,
//! stopped by its owner during the wait, and done with the KMS key.

use std::sync::Arc;

use kms_types::{AccountRef, RecoveryId, TelegramId, Timestamp};

use super::upkeep::MISSING;
use super::wallet_sealer::open;
use super::{Custody, CustodyError};
use crate::account::{Account, SwapReason};
use crate::audit::{Action, Caller, Details, sha256};
use crate::failpoint;
use crate::kdf::Salt;
use crate::recovery::Recovery;
use crate::seal::SealContext;

/// A move that can be approved.
#[derive(Clone, Debug)]
pub struct ProposedMove {
    /// The account as it is.
    pub account: Account,
    /// What the second operator approves.
    pub digest: [u8; 32],
}

impl ProposedMove {
    fn new(account: Account, to: TelegramId) -> Self {
        let digest = sha256(
            &[
                b"wallet-kms/v1/move".as_slice(),
                account.id.as_bytes(),
                &account.telegram_id.as_i64().to_be_bytes(),
                &to.as_i64().to_be_bytes(),
            ]
            .concat(),
        );
        Self { account, digest }
    }
}

impl Custody {
    /// Proposes to move the wallet to another Telegram account. Changes nothing.
    ///
    /// # Errors
    /// `NoAccount`; `TelegramIdTaken`; else as a store fails.
    pub async fn propose_move(
        &self,
        account: AccountRef,
        to: TelegramId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<ProposedMove, CustodyError> {
        self.audited(Action::ProposeMove, account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.set_account(&account);
            self.refuse_rolled_back(&account).await?;
            self.refuse_taken(to).await?;
            journal.add(Details::default().with("moves_to", to));
            journal.intent().await?;
            Ok(ProposedMove::new(account, to))
        })
        .await
    }

    /// Begins the wait of a move that was approved. Its owner is notified, and stops it like a
    /// recovery. A frozen account can be moved, and stays frozen.
    ///
    /// # Errors
    /// `NoAccount`; `TelegramIdTaken`; `Conflict` when it is not what was approved; `RecoveryOpen`
    /// when a recovery or another move has not ended; else as a store fails.
    pub async fn request_move(
        &self,
        account: AccountRef,
        to: TelegramId,
        approved: [u8; 32],
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        let id = RecoveryId::random();
        self.audited(Action::RequestMove(id), account, caller, now, async |journal| {
            let account = self.load(account).await?;
            journal.set_account(&account);
            self.refuse_rolled_back(&account).await?;
            let ProposedMove { account, digest } = ProposedMove::new(account, to);
            if digest != approved {
                return Err(CustodyError::Conflict);
            }
            self.refuse_taken(to).await?;
            journal.intent().await?;
            self.expire_before(account.id, caller, now).await?;
            let codes_key = self.sealer.keys.codes.current();
            let requested = Recovery::request_move(id, &account, to, &self.rules, codes_key, now);
            journal.add(requested.details());
            if self.ports.recoveries.insert_recovery(requested).await? {
                Ok(requested)
            } else {
                Err(CustodyError::RecoveryOpen)
            }
        })
        .await
    }

    /// Moves the wallet: the KMS key unwraps the SCK, and the private key is sealed for the other
    /// Telegram account. The salt is another one, so that no password opens the wallet until its
    /// owner sets a new one by a recovery, from there.
    ///
    /// # Errors
    /// `NoAccount`; `NoRecovery`; `TelegramIdTaken`; `Recovery` when it still waits or has ended;
    /// `Conflict` when a concurrent change came first; `Integrity` when stored data was exchanged
    /// or modified, or the audit has no approval; else as a store, the pool or the KMS key fails.
    pub async fn finish_move(
        &self,
        account: AccountRef,
        id: RecoveryId,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Recovery, CustodyError> {
        self.audited(Action::Move(id), account, caller, now, async |journal| {
            let (account, recovery) = self.recovery_of(account, id, journal, caller, now).await?;
            let to = recovery.moves_to.ok_or(CustodyError::NoRecovery)?;
            let completed = recovery.completed(now)?;
            self.refuse_unapproved(id, to).await?;
            self.refuse_taken(to).await?;
            let permit = self.pool.reserve()?;
            journal.add(recovery.details());
            journal.intent().await?;
            let wrapped = self.ports.scks.sck(account.wallet.sck_id).await?.ok_or(MISSING)?;
            let sck = self.unwrap_committed(&account, wrapped).await?;
            let sealed = Arc::new(account.clone());
            let sealed_key = permit
                .run(move || {
                    let key = open(&sealed, &sck)?;
                    let (address, sck_id) = (sealed.wallet.address, sealed.wallet.sck_id);
                    let context =
                        SealContext { account: sealed.id, telegram_id: to, address, sck_id };
                    Ok::<_, CustodyError>(context.seal(&key, &sck))
                })
                .await??;
            let (id, replaces, mut wallet) = (account.id, account.wallet.version, account.wallet);
            (wallet.sealed_key, wallet.salt) = (sealed_key, Salt::random());
            wallet.version = replaces + 1;
            failpoint::reach("move-before-commit");
            self.swap(id, replaces, wallet, SwapReason::Move(completed), now).await?;
            failpoint::reach("move-after-commit");
            Ok(completed)
        })
        .await
    }

    /// A user has one wallet.
    async fn refuse_taken(&self, to: TelegramId) -> Result<(), CustodyError> {
        match self.ports.accounts.account(to.into()).await? {
            Some(_) => Err(CustodyError::TelegramIdTaken),
            None => Ok(()),
        }
    }

    /// A row that was written with a stolen row key has no approval by two operators.
    async fn refuse_unapproved(&self, id: RecoveryId, to: TelegramId) -> Result<(), CustodyError> {
        let approved = self.ports.audit.newest_details(Action::RequestMove(id)).await?;
        let is_same = approved.is_some_and(|it| it.get("moves_to") == Some(&*to.to_string()));
        if is_same {
            Ok(())
        } else {
            Err(CustodyError::Integrity("the approval of the move is not in the audit"))
        }
    }
}
