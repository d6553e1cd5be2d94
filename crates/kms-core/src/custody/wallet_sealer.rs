//! Opening and sealing wallets: the part of custody that runs on the threads of the KDF pool.

use std::sync::Arc;

use kms_types::{AccountId, PasswordHash, SckId, TelegramId};

use super::CustodyError;
use crate::account::{Account, Wallet};
use crate::kdf::{KdfParams, Salt};
use crate::master_key::KeyRing;
use crate::ports::WrappedSck;
use crate::private_key::PrivateKey;
use crate::sck::Sck;
use crate::seal::{SealContext, Sealer};
use crate::server_keys::ServerKeys;
use crate::wrap::WrapContext;

/// The keys and parameters that open and seal wallets, shared with the pool's threads.
#[derive(Debug)]
pub(super) struct WalletSealer {
    pub(super) ring: KeyRing,
    pub(super) keys: Arc<ServerKeys>,
    pub(super) sealer: Sealer,
    /// The KDF of new wallets and passwords.
    pub(super) kdf: KdfParams,
}

impl WalletSealer {
    /// Derives the wallet's SCK from a password, and checks it against the commitment.
    pub(super) fn derive(
        &self,
        wallet: &Wallet,
        password: &PasswordHash,
    ) -> Result<Sck, CustodyError> {
        let id = wallet.pepper_id;
        if self.keys.pepper.is_retired(id) {
            return Err(CustodyError::Integrity("the wallet is under a retired pepper"));
        }
        let pepper = self.keys.pepper.get(id).ok_or(CustodyError::NoPepper(id))?;
        let sck = Sck::derive(wallet.kdf, password, &wallet.salt, pepper);
        if sck.matches(&wallet.commitment) { Ok(sck) } else { Err(CustodyError::WrongPassword) }
    }

    /// Seals the key under a new salt and SCK, and wraps that SCK.
    pub(super) fn seal(
        &self,
        account: AccountId,
        telegram_id: TelegramId,
        key: &PrivateKey,
        password: &PasswordHash,
        version: i64,
    ) -> Result<(Wallet, WrappedSck), CustodyError> {
        let (salt, sck_id, address) = (Salt::random(), SckId::random(), key.address());
        let pepper_id = self.keys.pepper.current();
        let pepper = self.keys.pepper.get(pepper_id).ok_or(CustodyError::NoPepper(pepper_id))?;
        let sck = Sck::derive(self.kdf, password, &salt, pepper);
        let context = SealContext { account, telegram_id, address, sck_id };
        let wrapped = WrapContext { account, address, sck_id }.wrap(&sck, &self.ring)?;
        let wallet = Wallet {
            address,
            public_key: key.public_key(),
            sealed_key: context.seal(key, &sck),
            kdf: self.kdf,
            salt,
            password_version: password.version(),
            pepper_id,
            commitment: sck.commitment(),
            sck_id,
            wrapped_hash: wrapped.hash(),
            version,
        };
        Ok((wallet, wrapped))
    }
}

/// Opens the sealed key, and checks that it is the key of the wallet's address and public key.
pub(super) fn open(account: &Account, sck: &Sck) -> Result<PrivateKey, CustodyError> {
    let wallet = &account.wallet;
    let context = SealContext {
        account: account.id,
        telegram_id: account.telegram_id,
        address: wallet.address,
        sck_id: wallet.sck_id,
    };
    let key = context.open(&wallet.sealed_key, sck)?;
    if key.address() == wallet.address && key.public_key() == wallet.public_key {
        Ok(key)
    } else {
        Err(CustodyError::Integrity("the sealed key is not the key of the wallet's address"))
    }
}

/// The owner that the wallet's wrapped SCK must name.
pub(super) fn wrap_context(account: &Account) -> WrapContext {
    let (address, sck_id) = (account.wallet.address, account.wallet.sck_id);
    WrapContext { account: account.id, address, sck_id }
}
