//! The KMS's own key: wraps SCKs with its public half, unwraps them with the half it keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use rsa::PublicKey;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The name of a KMS key: 1 to 64 characters of `a-z`, `0-9`, `-`. Stored with every wrapped SCK.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterKeyId(String);

/// A KMS key, wherever its private half is.
#[async_trait]
pub trait MasterKey: fmt::Debug + Send + Sync {
    /// Its name.
    fn id(&self) -> &MasterKeyId;

    /// Its public half: RSA, 3072 bits or more.
    fn public_key(&self) -> &PublicKey;

    /// RSAES-OAEP (RFC 8017, section 7.1) with SHA-256, MGF1-SHA-256 and an empty label.
    async fn unwrap(&self, ciphertext: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, MasterKeyError>;
}

/// Why a KMS key did not unwrap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterKeyError {
    /// This key did not make the ciphertext, or somebody changed it.
    #[error("the wrapped key was not made for this KMS key")]
    Undecryptable,
    /// The key's home does not answer, or asks to be left alone for now.
    #[error("the KMS key does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The text is not the name of a KMS key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// Wrong characters or length.
    #[error("a KMS key's id has 1 to 64 characters out of a-z, 0-9 and -")]
    Id,
    /// Two keys of one name.
    #[error("two KMS keys have the id {0}")]
    Twice(MasterKeyId),
}

/// One key that wraps, and older ones that only unwrap.
#[derive(Clone, Debug)]
pub struct KeyRing {
    active: Arc<dyn MasterKey>,
    keys: BTreeMap<MasterKeyId, Arc<dyn MasterKey>>,
}

impl KeyRing {
    /// A ring of the active key and older ones.
    ///
    /// # Errors
    /// When two keys have one id.
    pub fn new(
        active: Arc<dyn MasterKey>,
        older: impl IntoIterator<Item = Arc<dyn MasterKey>>,
    ) -> Result<Self, KeyRingError> {
        let mut keys = BTreeMap::from([(active.id().clone(), Arc::clone(&active))]);
        for key in older {
            let id = key.id().clone();
            if keys.insert(id.clone(), key).is_some() {
                return Err(KeyRingError::Twice(id));
            }
        }
        Ok(Self { active, keys })
    }

    /// The key that wraps.
    #[must_use]
    pub fn active(&self) -> &dyn MasterKey {
        &*self.active
    }

    /// A key by its name.
    #[must_use]
    pub fn get(&self, id: &MasterKeyId) -> Option<&dyn MasterKey> {
        self.keys.get(id).map(|key| &**key)
    }

    /// All keys' names.
    pub fn ids(&self) -> impl Iterator<Item = &MasterKeyId> {
        self.keys.keys()
    }

    /// Encrypts to the active key. The plaintext is far below OAEP's limit.
    pub(crate) fn wrap(&self, plaintext: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
        encrypt(self.active(), plaintext)
    }
}

/// Encrypts to the key's public half.
pub(crate) fn encrypt(key: &dyn MasterKey, plaintext: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
    let sealed = key.public_key().oaep_encrypt::<Sha256>(plaintext);
    sealed.map_err(|cause| MasterKeyError::Unavailable(Box::new(cause)))
}

impl FromStr for MasterKeyId {
    type Err = KeyRingError;

    fn from_str(text: &str) -> Result<Self, KeyRingError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyRingError::Id)
        }
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
