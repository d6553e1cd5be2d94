//! SCKs wrapped by the KMS key. The owner is part of the plaintext, because RSA decryption in AWS
//! KMS authenticates no context beside the ciphertext (`FORMAT.md`, "Wrapped SCK").

use kms_types::{AccountId, EthAddress, SckId};
use rsa::traits::PublicKeyParts;
use zeroize::Zeroizing;

use crate::master_key::{KeyRing, MasterKeyError, MasterKeyId, encrypt};
use crate::ports::WrappedSck;
use crate::sck::Sck;

const VERSION: u8 = 1;
const LEN: usize = 1 + 16 + 20 + 16 + 32;

/// The owner of an SCK. All of it is inside the ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrapContext {
    pub(crate) account: AccountId,
    pub(crate) address: EthAddress,
    pub(crate) sck_id: SckId,
}

/// Why a wrapped SCK was rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnwrapError {
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error("the KMS key {0} is not in the key ring")]
    NoKey(MasterKeyId),
    #[error("the wrapped SCK belongs to another wallet or has an unknown version")]
    Mismatch,
}

impl WrapContext {
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
        let active = ring.active()?;
        Ok(WrappedSck {
            id: self.sck_id,
            account: self.account,
            master_key: active.id().clone(),
            bytes: encrypt(active, plain.as_slice())?,
        })
    }

    /// Unwraps an SCK that was wrapped for this owner. `wrapped.account` is not trusted.
    pub(crate) async fn unwrap(
        &self,
        wrapped: WrappedSck,
        ring: &KeyRing,
    ) -> Result<Sck, UnwrapError> {
        let Some(key) = ring.get(&wrapped.master_key) else {
            return Err(UnwrapError::NoKey(wrapped.master_key));
        };
        // Checked here, because a remote provider may report another length as a bad request
        // rather than as damage.
        if wrapped.bytes.len() != key.public_key().size() {
            return Err(MasterKeyError::Undecryptable.into());
        }
        self.accept(&key.unwrap(wrapped.bytes).await?)
    }

    /// Reads an unwrapped plaintext. It is untrusted: anyone can encrypt to a public key.
    pub(crate) fn accept(&self, plain: &[u8]) -> Result<Sck, UnwrapError> {
        match plain.split_last_chunk::<32>() {
            Some((prefix, sck)) if prefix == self.prefix() => Ok(Sck::from_bytes(sck)),
            _ => Err(UnwrapError::Mismatch),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use rsa::PublicKey;

    use super::*;
    use crate::master_key::MasterKey;
    use crate::test_key;

    /// A KMS key that answers every request like an outage.
    #[derive(Debug)]
    struct Unreachable(MasterKeyId, PublicKey);

    #[async_trait]
    impl MasterKey for Unreachable {
        fn id(&self) -> &MasterKeyId {
            &self.0
        }

        fn public_key(&self) -> &PublicKey {
            &self.1
        }

        async fn unwrap(&self, _: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
            Err(MasterKeyError::Unavailable("planted".into()))
        }
    }

    fn owner() -> WrapContext {
        let address = EthAddress::from([1; 20]);
        WrapContext { account: AccountId::random(), address, sck_id: SckId::random() }
    }

    #[tokio::test]
    async fn unwraps_for_its_owner_only() {
        let (ring, owner, sck) = (test_key::ring("kms-test"), owner(), Sck::from_bytes(&[3; 32]));
        let wrapped = owner.wrap(&sck, &ring).unwrap();
        let opened = owner.unwrap(wrapped.clone(), &ring).await.unwrap();
        assert_eq!(opened.expose(), sck.expose());
        for other in [
            WrapContext { account: AccountId::random(), ..owner },
            WrapContext { address: EthAddress::from([2; 20]), ..owner },
            WrapContext { sck_id: SckId::random(), ..owner },
        ] {
            let refused = other.unwrap(wrapped.clone(), &ring).await;
            assert!(matches!(refused, Err(UnwrapError::Mismatch)));
        }
    }

    #[tokio::test]
    async fn rejects_damaged_ciphertexts_and_those_for_another_key() {
        let (ring, owner, sck) = (test_key::ring("kms-test"), owner(), Sck::from_bytes(&[3; 32]));
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
            let Err(UnwrapError::MasterKey(error)) = refused else { panic!("accepted") };
            assert!(matches!(error, MasterKeyError::Undecryptable), "{error}");
        }
        let refused = owner.unwrap(wrapped, &test_key::ring("kms-other")).await;
        assert!(matches!(refused, Err(UnwrapError::NoKey(id)) if id.to_string() == "kms-test"));
    }

    #[tokio::test]
    async fn a_ciphertext_of_another_length_is_damaged_whatever_the_provider_answers() {
        let (ring, owner) = (test_key::ring("kms-test"), owner());
        let wrapped = owner.wrap(&Sck::from_bytes(&[3; 32]), &ring).unwrap();
        let key =
            Unreachable(wrapped.master_key.clone(), ring.active().unwrap().public_key().clone());
        let ring = KeyRing::new(Arc::new(key), []).unwrap();
        let outage = owner.unwrap(wrapped.clone(), &ring).await;
        let unavailable = MasterKeyError::Unavailable("planted".into()).to_string();
        assert_eq!(outage.unwrap_err().to_string(), unavailable);
        let bytes = wrapped.bytes[1..].to_vec();
        let damaged = owner.unwrap(WrappedSck { bytes, ..wrapped }, &ring).await;
        let undecryptable = MasterKeyError::Undecryptable.to_string();
        assert_eq!(damaged.unwrap_err().to_string(), undecryptable);
    }

    #[tokio::test]
    async fn rejects_plaintexts_of_another_version_or_length() {
        let (ring, owner) = (test_key::ring("kms-test"), owner());
        let sound = [owner.prefix().as_slice(), &[3; 32]].concat();
        let mut newer = sound.clone();
        newer[0] = 2;
        for plain in [newer, sound[1..].to_vec(), [sound.as_slice(), &[0]].concat(), Vec::new()] {
            let wrapped = WrappedSck {
                id: owner.sck_id,
                account: owner.account,
                master_key: "kms-test".parse().unwrap(),
                bytes: encrypt(ring.active().unwrap(), &plain).unwrap(),
            };
            let refused = owner.unwrap(wrapped, &ring).await;
            assert!(matches!(refused, Err(UnwrapError::Mismatch)));
        }
    }
}
