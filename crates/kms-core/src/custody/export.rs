//! Handing a wallet's key to its owner, as a file under a new passphrase.

use std::future::Future;

use kms_types::{AccountId, AccountRef, PasswordHash, Timestamp};

use super::{Custody, CustodyError};
use crate::audit::{Action, Audited, Caller};
use crate::keystore::ExportedKey;

impl Custody {
    /// Opens the wallet with its password and seals its key for its owner. The wallet goes on; from
    /// then on its owner can sign without this service. Not soon after a recovery: whoever
    /// took over a Telegram account must not leave with the key before its owner notices.
    ///
    /// `admit` is asked after the password was right and before the key leaves: a limit that it
    /// counts by can not be used up by somebody without the password. The event `KeyExported` is
    /// written in between.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `OnHold` after a recovery; else as `admit`, a
    /// store, the pool or the password gate fails.
    pub async fn export<E, F>(
        &self,
        account: AccountRef,
        password: PasswordHash,
        caller: &Caller,
        now: Timestamp,
        admit: impl FnOnce(AccountId) -> F,
    ) -> Result<ExportedKey, E>
    where
        E: From<CustodyError> + Audited,
        F: Future<Output = Result<(), E>>,
    {
        self.audited(Action::Export, account, caller, now, async |journal| {
            let account = self.known_or_decoy(account, &password, journal).await?;
            self.refuse_on_hold(&account, now)?;
            let id = account.id;
            let then = |key| ExportedKey::new(&key);
            let (exported, later) =
                self.unlock_for_more(&account, password, now, journal, then).await?;
            self.healer.heal((&self.ports, &self.seals), account, later, caller, now);
            admit(id).await?;
            // Before it leaves: nobody has it of whom its owner was not told.
            self.ports.exports.record_export(id, now).await.map_err(CustodyError::from)?;
            Ok(exported)
        })
        .await
    }
}
