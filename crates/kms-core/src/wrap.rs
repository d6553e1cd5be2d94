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
        let parts =
            [self.account.as_bytes().as_slice(), self.address.as_bytes(), self.sck_id.as_bytes()];
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::local_key::LocalMasterKey;
    use crate::vectors::{PASSPHRASE, PEM};

    fn ring(id: &str) -> KeyRing {
        let key = LocalMasterKey::from_pem(id.parse().unwrap(), PEM, PASSPHRASE).unwrap();
        KeyRing::new(Arc::new(key), []).unwrap()
    }

    fn owner() -> SckOwner {
        let address = EthAddress::from([1; 20]);
        SckOwner { account: AccountId::random(), address, sck_id: SckId::random() }
    }

    #[tokio::test]
    async fn unwraps_for_its_owner_only() {
        let (ring, owner, sck) = (ring("kms-test"), owner(), Sck::from_bytes(&[3; 32]));
        let wrapped = owner.wrap(&sck, &ring).unwrap();
        let opened = owner.unwrap(wrapped.clone(), &ring).await.unwrap();
        assert_eq!(opened.expose(), sck.expose());
        for stranger in [
            SckOwner { account: AccountId::random(), ..owner },
            SckOwner { address: EthAddress::from([2; 20]), ..owner },
            SckOwner { sck_id: SckId::random(), ..owner },
        ] {
            let refused = stranger.unwrap(wrapped.clone(), &ring).await;
            assert!(matches!(refused, Err(UnwrapError::Mismatch)));
        }
    }

    #[tokio::test]
    async fn refuses_what_was_changed_or_made_for_another_key() {
        let (ring, owner, sck) = (ring("kms-test"), owner(), Sck::from_bytes(&[3; 32]));
        let wrapped = owner.wrap(&sck, &ring).unwrap();
        let mut changed = Vec::new();
        let length = wrapped.bytes.len();
        changed.push(wrapped.bytes[..length - 1].to_vec());
        changed.push([wrapped.bytes.as_slice(), &[0]].concat());
        changed.push(Vec::new());
        for byte in [0, length / 2, length - 1] {
            let mut bytes = wrapped.bytes.clone();
            bytes[byte] ^= 1;
            changed.push(bytes);
        }
        for bytes in changed {
            let refused = owner.unwrap(WrappedSck { bytes, ..wrapped.clone() }, &ring).await;
            let undecryptable = MasterKeyError::Undecryptable;
            let Err(UnwrapError::MasterKey(error)) = refused else { panic!("accepted") };
            assert_eq!(error.to_string(), undecryptable.to_string());
        }
        let other = super::tests::ring("kms-other");
        let refused = owner.unwrap(wrapped, &other).await;
        assert!(matches!(refused, Err(UnwrapError::NoKey(id)) if id.to_string() == "kms-test"));
    }

    #[tokio::test]
    async fn refuses_plaintexts_of_another_shape() {
        let (ring, owner) = (ring("kms-test"), owner());
        let sound = [owner.prefix().as_slice(), &[3; 32]].concat();
        let mut newer = sound.clone();
        newer[0] = 2;
        // Anybody can encrypt to a public key.
        for plain in [newer, sound[1..].to_vec(), [sound.as_slice(), &[0]].concat(), Vec::new()] {
            let wrapped = WrappedSck {
                id: owner.sck_id,
                account: owner.account,
                master_key: "kms-test".parse().unwrap(),
                bytes: ring.wrap(&plain).unwrap(),
            };
            let refused = owner.unwrap(wrapped, &ring).await;
            assert!(matches!(refused, Err(UnwrapError::Mismatch)));
        }
    }
}
