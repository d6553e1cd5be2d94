//! Accounts and wallets as stores keep them. No field is a plaintext secret.

use std::time::Duration;

use kms_types::{
    AccountId, EthAddress, NameOrigin, SckId, TelegramId, Timestamp, Username, Usernames,
    text_table,
};

use crate::audit::{Details, Purpose};
use crate::kdf::{KdfParams, Salt};
use crate::recovery::Recovery;
use crate::server_keys::ServerKeyId;

/// Whether an account may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// It may.
    Active,
    /// Its owner froze it: it can be read, but nothing is signed for it.
    FrozenByOwner,
    /// An operator froze it, and only an operator lifts that.
    Frozen,
}

text_table! {
    AccountState {
        Active = "active",
        FrozenByOwner = "frozen_by_owner",
        Frozen = "frozen",
    }
}

/// An account with its wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account's id in this system.
    pub id: AccountId,
    /// The owner's Telegram id.
    pub telegram_id: TelegramId,
    /// The owner's current username: of several, the one that Telegram shows first. Set by
    /// observations of names, not with the account.
    pub username: Option<Username>,
    /// Whether the account may act.
    pub state: AccountState,
    /// When the owner's freeze is lifted, if the owner requested that.
    pub unfreezes_at: Option<Timestamp>,
    /// The mobile number, sealed.
    pub mobile: Option<Vec<u8>>,
    /// The e-mail address, sealed.
    pub email: Option<Vec<u8>>,
    /// When the owner confirmed the e-mail address; `None` while it is unverified.
    pub email_verified_at: Option<Timestamp>,
    /// The trusted address before the last change, until the present one is trusted.
    pub former_email: Option<FormerEmail>,
    /// When a recovery last replaced the password.
    pub recovered_at: Option<Timestamp>,
    /// Since when the owner acts on the vault page alone: no bearer token may do what needs a
    /// password, or a recovery. Set by the first such act through the page.
    pub page_only_since: Option<Timestamp>,
    /// When that ends, if the owner requested it on the page.
    pub page_only_until: Option<Timestamp>,
    /// The name of the bearer token that made it; `None` if the owner did on the page.
    pub created_by: Option<String>,
    /// When the account was created.
    pub created_at: Timestamp,
    /// Counts the writes of the account, from 1.
    pub revision: i64,
    /// The account's wallet.
    pub wallet: Wallet,
}

/// An e-mail address that was replaced or removed, and still protects the account: otherwise a
/// change of the address would shorten the wait of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerEmail {
    /// The address, sealed.
    pub email: Vec<u8>,
    /// Until when it is trusted.
    pub until: Timestamp,
}

impl Account {
    /// Returns the address that receives the code of a recovery: the present one once it is
    /// trusted, and until then the former one.
    #[must_use]
    pub fn trusted_email(&self, at: Timestamp, trusted_after: Duration) -> Option<&[u8]> {
        let verified = self.email.as_deref().zip(self.email_verified_at);
        let own = verified.filter(|(_, verified_at)| verified_at.plus(trusted_after) <= at);
        own.map(|(email, _)| email).or_else(|| self.former_email_at(at))
    }

    /// Returns the former address, if it is still trusted.
    #[must_use]
    pub fn former_email_at(&self, at: Timestamp) -> Option<&[u8]> {
        let former = self.former_email.as_ref().filter(|former| at < former.until);
        former.map(|former| former.email.as_slice())
    }

    /// Replaces the e-mail address by a confirmed one, or removes it. The trusted address becomes
    /// the former one, until the new one is trusted.
    pub fn change_email(&mut self, email: Option<Vec<u8>>, at: Timestamp, trusted_after: Duration) {
        let trusted = self.trusted_email(at, trusted_after).map(<[u8]>::to_vec);
        let until = at.plus(trusted_after);
        self.former_email = trusted.map(|email| FormerEmail { email, until });
        self.email_verified_at = email.as_ref().map(|_email| at);
        self.email = email;
    }

    /// Reports whether the account is active and its wallet has this version, that is, whether a
    /// key that was opened at this version may still be used.
    #[must_use]
    pub fn allows(&self, wallet_version: i64) -> bool {
        self.state == AccountState::Active && self.wallet.version == wallet_version
    }
}

/// A wallet: a private key sealed under a password, and everything needed to open it except the
/// password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    /// The address. It never changes.
    pub address: EthAddress,
    /// The public key, compressed (SEC 1, 33 bytes).
    pub public_key: [u8; 33],
    /// The private key, sealed (`FORMAT.md`, "Sealed private key").
    pub sealed_key: Vec<u8>,
    /// The KDF of the password hash.
    pub kdf: KdfParams,
    /// The salt of the KDF.
    pub salt: Salt,
    /// The version of the client's password hashing.
    pub password_version: u8,
    /// The version of the pepper in the SCK.
    pub pepper_id: ServerKeyId,
    /// The commitment to the SCK, which distinguishes a wrong password from a damaged row.
    pub commitment: [u8; 32],
    /// The id of the SCK, and of its wrapped copy in the key database.
    pub sck_id: SckId,
    /// The [hash](crate::ports::WrappedSck::hash) of that copy, which reveals damage to it.
    pub wrapped_hash: [u8; 32],
    /// Counts changes of the wallet, from 1. A change names the version that it replaces.
    pub version: i64,
}

impl Wallet {
    /// Returns what the audit states about it.
    pub(crate) fn details(&self) -> Details {
        Details::default()
            .with("address", self.address)
            .with("public_key", hex::encode(self.public_key))
    }
}

/// The usernames of a user as Telegram showed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenNames {
    /// All of them, or the first one, by the origin.
    pub usernames: Usernames,
    /// When Telegram created the update.
    pub seen_at: Timestamp,
    /// When this service received it.
    pub received_at: Timestamp,
    /// Whether Telegram signed it.
    pub origin: NameOrigin,
}

/// The rows that one transaction inserts for a new wallet.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The account and its wallet; its `username` is `None`.
    pub account: Account,
    /// The usernames of the request, which the same transaction claims by the rules of names.
    pub names: Option<SeenNames>,
}

/// What a transaction decided that inserted a new wallet.
#[derive(Clone, Debug)]
pub struct Inserted {
    /// The username of the owner that is shown.
    pub username: Option<Username>,
    /// What the audit has to state about usernames that others held before.
    pub to_record: Vec<Purpose>,
}

/// A change of a wallet's password, in one transaction.
#[derive(Clone, Debug)]
pub struct WalletSwap {
    /// The account.
    pub account: AccountId,
    /// The version that is replaced; the new wallet's version is one higher.
    pub replaces: i64,
    /// The new wallet.
    pub wallet: Wallet,
    /// The reason.
    pub reason: SwapReason,
    /// The time of the change.
    pub at: Timestamp,
}

/// Why a wallet's password changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapReason {
    /// The owner knew the old password. Writes the event `PasswordChanged`.
    PasswordChange,
    /// The owner lost the Telegram account: the account has the one that this move names. Replaces
    /// the move's step by this one, its completion, and notifies the user before.
    Move(Recovery),
    /// The owner had forgotten it. Replaces the recovery's step by this one, its completion, and
    /// sets the account's `recovered_at`.
    Recovery(Recovery),
}

/// A requested change of the e-mail address that is not confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailChange {
    /// The account.
    pub account: AccountId,
    /// The new address, sealed.
    pub email: Vec<u8>,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// Attempts at the code.
    pub tries: u8,
    /// The version of the codes key of its code: no other is accepted.
    pub codes_key: ServerKeyId,
}

/// A change of a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactChange {
    /// The new mobile number, sealed; or none.
    Mobile(Option<Vec<u8>>),
    /// [Changes](Account::change_email) the e-mail address. Ends the pending change, and writes the
    /// event `EmailChanged`.
    Email {
        /// The new address, sealed; or none.
        email: Option<Vec<u8>>,
        /// After which time it is trusted.
        trusted_after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_account::account;

    const TRUSTED: Duration = Duration::from_millis(100);

    fn at(now: i64) -> Timestamp {
        Timestamp(now)
    }

    #[test]
    fn a_trusted_address_keeps_its_code_until_the_new_one_is_trusted() {
        for new in [Some(vec![2]), None] {
            let mut ann = account();
            ann.change_email(Some(vec![1]), at(0), TRUSTED);
            assert_eq!(ann.trusted_email(at(99), TRUSTED), None);
            assert_eq!(ann.trusted_email(at(100), TRUSTED), Some(&[1][..]));
            ann.change_email(new.clone(), at(500), TRUSTED);
            assert_eq!(ann.trusted_email(at(599), TRUSTED), Some(&[1][..]));
            assert_eq!(ann.trusted_email(at(600), TRUSTED), new.as_deref());
        }
    }

    #[test]
    fn several_changes_do_not_end_the_trust_in_the_address_before_them() {
        let mut ann = account();
        ann.change_email(Some(vec![1]), at(0), TRUSTED);
        for (change, now) in [(Some(vec![2]), 500), (None, 550), (Some(vec![3]), 640)] {
            ann.change_email(change, at(now), TRUSTED);
            assert_eq!(ann.trusted_email(at(now + 99), TRUSTED), Some(&[1][..]));
        }
        assert_eq!(ann.trusted_email(at(740), TRUSTED), Some(&[3][..]));
        // An address that never was trusted is not kept.
        let mut bob = account();
        bob.change_email(Some(vec![1]), at(0), TRUSTED);
        bob.change_email(Some(vec![2]), at(50), TRUSTED);
        assert_eq!(bob.former_email, None);
    }
}
