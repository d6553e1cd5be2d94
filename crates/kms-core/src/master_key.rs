//! The KMS's own key pair: SCKs are wrapped with its public half and unwrapped with its private
//! half. Providers implement [`MasterKey`] in crates of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use rsa::PublicKey;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::random;

/// The id of a KMS key: 1 to 64 characters of `a-z`, `0-9`, `-`. Stored with every wrapped SCK.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterKeyId(String);

/// An RSA key pair whose private half may be in memory, in a remote KMS or in hardware.
///
/// `crate::conformance` (feature `testing`) checks an implementation.
#[async_trait]
pub trait MasterKey: fmt::Debug + Send + Sync {
    /// Returns the id under which the key is configured.
    fn id(&self) -> &MasterKeyId;

    /// Returns the public half: RSA with 3072 or 4096 bits.
    fn public_key(&self) -> &PublicKey;

    /// Decrypts by RSAES-OAEP (RFC 8017, section 7.1) with SHA-256, MGF1-SHA-256 and an empty
    /// label. `ciphertext` is as long as the modulus.
    ///
    /// # Errors
    /// `Undecryptable` only if this key cannot decrypt the ciphertext, whenever it is tried.
    async fn unwrap(&self, ciphertext: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, MasterKeyError>;
}

/// Why a KMS key did not unwrap a ciphertext.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The ciphertext was encrypted to another key, or is damaged.
    #[error("the ciphertext was not encrypted to this KMS key")]
    Undecryptable,
    /// The provider is unreachable, throttles, or refuses the call.
    #[error("the KMS key is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a key ring cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// The id has other characters or another length.
    #[error("a KMS key id must have 1 to 64 characters of a-z, 0-9 and -")]
    InvalidId,
    /// Two keys have the same id.
    #[error("duplicate KMS key id {0}")]
    DuplicateId(MasterKeyId),
}

/// The active key, which wraps, and older keys, which only unwrap.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    /// `None` in the default ring, which has no key: for acts that open and seal no wallet.
    active: Option<Arc<dyn MasterKey>>,
    keys: BTreeMap<MasterKeyId, Arc<dyn MasterKey>>,
}

impl KeyRing {
    /// Builds a ring of the active key and older ones.
    ///
    /// # Errors
    /// When two keys have the same id.
    pub fn new(
        active: Arc<dyn MasterKey>,
        older: impl IntoIterator<Item = Arc<dyn MasterKey>>,
    ) -> Result<Self, KeyRingError> {
        let mut keys = BTreeMap::from([(active.id().clone(), Arc::clone(&active))]);
        for key in older {
            let id = key.id().clone();
            if keys.insert(id.clone(), key).is_some() {
                return Err(KeyRingError::DuplicateId(id));
            }
        }
        Ok(Self { active: Some(active), keys })
    }

    /// Returns the key that wraps.
    ///
    /// # Errors
    /// `Unavailable` if the ring has no key.
    pub fn active(&self) -> Result<&dyn MasterKey, MasterKeyError> {
        self.active.as_deref().ok_or_else(|| MasterKeyError::Unavailable("none was opened".into()))
    }

    /// Returns the key with this id.
    #[must_use]
    pub fn get(&self, id: &MasterKeyId) -> Option<&dyn MasterKey> {
        self.keys.get(id).map(|key| &**key)
    }

    /// Returns the ids of all keys.
    pub fn ids(&self) -> impl Iterator<Item = &MasterKeyId> {
        self.keys.keys()
    }
}

/// Encrypts to the key's public half. `plaintext` must be within OAEP's limit: 318 bytes for
/// RSA-3072.
pub(crate) fn encrypt(key: &dyn MasterKey, plaintext: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
    let sealed = key.public_key().oaep_encrypt::<Sha256>(plaintext);
    sealed.map_err(|cause| MasterKeyError::Unavailable(Box::new(cause)))
}

/// Encrypts random bytes to the key and lets it decrypt them. `true` shows that the private half is
/// reachable, may be used, and belongs to the public half that SCKs are wrapped with.
pub(crate) async fn probe(key: &dyn MasterKey) -> Result<bool, MasterKeyError> {
    let mut bytes = [0; 32];
    random::fill(&mut bytes);
    let opened = key.unwrap(encrypt(key, &bytes)?).await?;
    Ok(opened.ct_eq(&bytes).into())
}

impl FromStr for MasterKeyId {
    type Err = KeyRingError;

    fn from_str(text: &str) -> Result<Self, KeyRingError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyRingError::InvalidId)
        }
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
