//! Handing a wallet's key to its owner, in a keystore file under a generated passphrase.

use std::future::Future;

use kms_types::{AccountId, AccountRef, PasswordHash, Timestamp};

use super::{Custody, CustodyError};
use crate::audit::{Action, Audited, Caller};
use crate::keystore::ExportedKey;

impl Custody {
    /// Opens the wallet with its password and encrypts its key for its owner, who can sign without
    /// this service from then on. The wallet keeps working. Refused for some time after a recovery:
    /// an attacker who compromised a Telegram account must not leave with the key before its owner
    /// notices.
    ///
    /// `admit` runs after the password was correct and before the key is returned: an attacker
    /// without the password cannot exhaust a limit that it counts. The event `KeyExported` is
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
            let account = self.load_or_decoy(account, &password, journal).await?;
            self.refuse_on_hold(&account, now)?;
            let (id, version) = (account.id, account.wallet.version);
            let then = |key| ExportedKey::new(&key);
            let (exported, repair) =
                self.unlock_with_repair(&account, password, now, journal, then).await?;
            self.repairer.repair((&self.ports, &self.sealer), account, repair, caller, now);
            admit(id).await?;
            // Before the key is returned: no key leaves without a notice to its owner.
            let recorded = self.ports.exports.record_export(id, version, now).await;
            self.written(id, recorded.map_err(CustodyError::from)?).await?;
            Ok(exported)
        })
        .await
    }
}
