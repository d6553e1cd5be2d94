//! An SCK wrapped for the KMS, with its owner inside, because AWS KMS takes no context beside an
//! RSA ciphertext (`FORMAT.md`, "Wrapped SCK").

use kms_types::{AccountId, EthAddress, SckId};
use zeroize::Zeroizing;

use crate::master_key::{KeyRing, MasterKeyError};
use crate::ports::WrappedSck;
use crate::sck::Sck;

const VERSION: u8 = 1;
const LEN: usize = 1 + 16 + 20 + 16 + 32;

/// Whose SCK it is. All of it stands inside the ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SckOwner {
    pub(crate) account: AccountId,
    pub(crate) address: EthAddress,
    pub(crate) sck_id: SckId,
}

/// Why a wrapped SCK was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnwrapError {
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error("the KMS key {0} is not in the key ring")]
    NoKey(crate::master_key::MasterKeyId),
    #[error("the wrapped key belongs to somebody else or has an unknown version")]
    Mismatch,
}

impl SckOwner {
    fn prefix(&self) -> [u8; LEN - 32] {
        let mut prefix = [VERSION; LEN - 32];
        let parts = [
            self.account.as_bytes().as_slice(),
            self.address.as_bytes(),
            self.sck_id.as_bytes(),
        ];
        for (to, from) in prefix.iter_mut().skip(1).zip(parts.concat()) {
            *to = from;
        }
        prefix
    }

    /// Wraps under the ring's active key.
    pub(crate) fn wrap(&self, sck: &Sck, ring: &KeyRing) -> Result<WrappedSck, MasterKeyError> {
        let mut plain = Zeroizing::new([0; LEN]);
        let (prefix, secret) = plain.split_at_mut(LEN - 32);
        prefix.copy_from_slice(&self.prefix());
        secret.copy_from_slice(sck.expose());
        Ok(WrappedSck {
            id: self.sck_id,
            account: self.account,
            master_key: ring.active().id().clone(),
            bytes: ring.wrap(plain.as_slice())?,
        })
    }

    /// Unwraps what was wrapped for this very owner.
    pub(crate) async fn unwrap(
        &self,
        wrapped: WrappedSck,
        ring: &KeyRing,
    ) -> Result<Sck, UnwrapError> {
        let Some(key) = ring.get(&wrapped.master_key) else {
            return Err(UnwrapError::NoKey(wrapped.master_key));
        };
        let plain = key.unwrap(wrapped.bytes).await?;
        match plain.split_last_chunk::<32>() {
            Some((prefix, sck)) if prefix == self.prefix() => Ok(Sck::from_bytes(sck)),
            _ => Err(UnwrapError::Mismatch),
        }
    }
}
