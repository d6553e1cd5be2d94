//! Rescue of an account whose rows fail their integrity check: what its ciphertexts prove, and what
//! is written in place of the rest. This module reads no clock and no store.
//!
//! The wrapped SCK names account, address and SCK id; the sealed key opens under that SCK for one
//! account, Telegram id, address and SCK id only, and is the key of one address. All of that an
//! attacker who writes to the databases could make for a key of their own, so the address must come
//! from the owner.

use kms_types::{EthAddress, Timestamp};
use sha2::{Digest, Sha256};

use crate::account::{Account, AccountState};

pub(crate) mod digest;

pub use digest::RescueDigest;

/// An account as it is stored, whether it passes its integrity check or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedAccount {
    /// Its content. Of an account whose own row fails its check, nothing is trusted: only what
    /// [`DamagedAccount::rescued`] keeps of it is used.
    pub account: Account,
    /// The tables in which a row of the account fails its check.
    pub damage: Vec<&'static str>,
}

/// The table of accounts, as damage in it is named.
pub const ACCOUNTS: &str = "accounts";

impl DamagedAccount {
    /// Returns what identifies a rescue of this account with this address.
    #[must_use]
    pub fn digest(&self, address: EthAddress) -> RescueDigest {
        let Account { id, telegram_id, wallet, .. } = &self.account;
        let kdf = wallet.kdf.to_string();
        let damage = self.damage.join(",");
        let mut hash = Sha256::new();
        for field in [
            b"wallet-kms/v1/rescue".as_slice(),
            id.as_bytes(),
            &telegram_id.as_i64().to_be_bytes(),
            address.as_bytes(),
            self.state().as_str().as_bytes(),
            &wallet.sealed_key,
            kdf.as_bytes(),
            &wallet.salt.0,
            &[wallet.password_version],
            &[wallet.pepper_id.as_u8()],
            wallet.sck_id.as_bytes(),
            &wallet.version.to_be_bytes(),
            damage.as_bytes(),
        ] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        RescueDigest::from(<[u8; 32]>::from(hash.finalize()))
    }

    /// Frozen, until its owner's password lifts that. The freeze of an operator stays.
    fn state(&self) -> AccountState {
        match self.account.state {
            AccountState::Frozen => AccountState::Frozen,
            AccountState::Active | AccountState::FrozenByOwner => AccountState::FrozenByOwner,
        }
    }

    /// Returns the account as a rescue writes it, apart from what is read from the opened key.
    ///
    /// If the account's own row failed its check, nothing shows since when it exists, which e-mail
    /// address is verified, or when it was recovered. It counts as new and as recovered now, and
    /// has no verified address.
    #[must_use]
    pub fn rescued(self, at: Timestamp) -> Account {
        let (state, is_proved) = (self.state(), !self.damage.contains(&ACCOUNTS));
        let account = Account { state, unfreezes_at: None, page_only_until: None, ..self.account };
        if is_proved {
            return account;
        }
        Account {
            email_verified_at: None,
            former_email: None,
            recovered_at: Some(at),
            created_at: at,
            ..account
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_account::account;

    #[test]
    fn what_is_not_proved_counts_as_new_and_as_just_recovered() {
        let mut stored = account();
        stored.change_email(Some(vec![1]), Timestamp(0), std::time::Duration::ZERO);
        let at = Timestamp(9);
        let damaged = |damage: &[&'static str]| DamagedAccount {
            account: stored.clone(),
            damage: damage.into(),
        };
        let rescued = damaged(&[ACCOUNTS]).rescued(at);
        assert_eq!(rescued.state, AccountState::FrozenByOwner);
        assert_eq!((rescued.created_at, rescued.recovered_at), (at, Some(at)));
        assert_eq!((&rescued.email, rescued.email_verified_at), (&stored.email, None));
        // Only another row of the account is damaged.
        let rescued = damaged(&["recoveries"]).rescued(at);
        let state = AccountState::FrozenByOwner;
        assert_eq!(rescued, Account { state, ..stored.clone() });
    }

    #[test]
    fn the_digest_covers_the_address_and_what_is_kept() {
        let stored = DamagedAccount { account: account(), damage: vec![ACCOUNTS] };
        let address = stored.account.wallet.address;
        let digest = stored.digest(address);
        assert_ne!(digest, stored.digest([7; 20].into()));
        let changes: [fn(&mut DamagedAccount); 5] = [
            |it| it.account.wallet.sealed_key.push(0),
            |it| it.account.wallet.salt.0[0] ^= 1,
            |it| it.account.state = AccountState::Frozen,
            |it| it.account.telegram_id = 2.try_into().unwrap(),
            |it| it.damage.push("recoveries"),
        ];
        for change in changes {
            let mut other = stored.clone();
            change(&mut other);
            assert_ne!(digest, other.digest(address));
        }
    }
}
