//! Handing a wallet's key to its owner, as a file under a new passphrase.

use kms_types::{AccountRef, PasswordHash, Timestamp};

use super::{Custody, CustodyError};
use crate::audit::{Action, Caller};
use crate::keystore::ExportedKey;

impl Custody {
    /// Opens the wallet with its password and seals its key for its owner. The wallet goes on; from
    /// then on its owner can sign without this service. Not soon after a recovery: whoever
    /// took over a Telegram account must not leave with the key before its owner notices.
    ///
    /// # Errors
    /// `WrongPassword` also for unknown accounts; `OnHold` after a recovery; else as a store, the pool or
    /// the password gate fails.
    pub async fn export(
        &self,
        account: AccountRef,
        password: PasswordHash,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<ExportedKey, CustodyError> {
        self.audited(Action::Export, account, caller, now, async |journal| {
            let account = self.known_or_decoy(account, &password, journal).await?;
            self.refuse_on_hold(&account, now)?;
            let then = |key| ExportedKey::new(&key);
            let (exported, later) =
                self.unlock_for_more(&account, password, now, journal, then).await?;
            self.healer.heal((&self.ports, &self.seals), account, later, caller, now);
            Ok(exported)
        })
        .await
    }
}
