//! A KMS key in a file: RSA, PKCS#8 PEM encrypted under a passphrase (RFC 5958, PBES2).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use rsa::traits::PublicKeyParts;
use rsa::{PrivateKey, PublicKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::master_key::{MasterKey, MasterKeyError, MasterKeyId};
use crate::stack;

/// The provider `local`: for one machine, tests and the sandbox.
pub struct LocalMasterKey {
    id: MasterKeyId,
    private: Arc<PrivateKey>,
    public: PublicKey,
}

/// Why a key file was not taken. Says nothing of its content or its passphrase.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalKeyError {
    /// The file could not be read.
    #[error("the KMS key file {path} can not be read")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others than its owner may read or write the file.
    #[error("the KMS key file {path} is open to other users; chmod 600 it")]
    Mode {
        /// Which.
        path: String,
    },
    /// Not an encrypted PKCS#8 PEM, or another passphrase.
    #[error("the KMS key is not an encrypted PKCS#8 PEM, or its passphrase is wrong")]
    Decrypt,
    /// Too small, or an exponent nobody uses.
    #[error("the KMS key has {bits} bits; RSA of 3072 or 4096 bits is needed")]
    Size {
        /// How many.
        bits: u32,
    },
    /// Making or encrypting one failed.
    #[error("a KMS key could not be made")]
    Generate,
}

impl LocalMasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// For other sizes than 3072 and 4096 bits. Takes seconds.
    pub fn generate(id: MasterKeyId, bits: u32) -> Result<Self, LocalKeyError> {
        check_size(bits)?;
        let size = usize::try_from(bits).map_err(|_narrow| LocalKeyError::Generate)?;
        let private = PrivateKey::new(&mut getrandom::SysRng, size)
            .map_err(|_cause| LocalKeyError::Generate)?;
        Ok(Self::new(id, private))
    }

    /// Reads an encrypted PKCS#8 PEM file that only its owner may read.
    ///
    /// # Errors
    /// When the file is missing or open to others, the passphrase is wrong, or the key too small.
    pub fn read(id: MasterKeyId, path: &Path, passphrase: &str) -> Result<Self, LocalKeyError> {
        let read = |source| LocalKeyError::Read { path: path.display().to_string(), source };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path).map_err(read)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(LocalKeyError::Mode { path: path.display().to_string() });
            }
        }
        let pem = Zeroizing::new(std::fs::read_to_string(path).map_err(read)?);
        Self::from_pem(id, &pem, passphrase)
    }

    /// From an encrypted PKCS#8 PEM.
    ///
    /// # Errors
    /// When the passphrase is wrong, or the key too small.
    pub fn from_pem(id: MasterKeyId, pem: &str, passphrase: &str) -> Result<Self, LocalKeyError> {
        let private = PrivateKey::from_pkcs8_encrypted_pem(pem, passphrase)
            .map_err(|_secret| LocalKeyError::Decrypt)?;
        check_size(private.n().bit_width())?;
        Ok(Self::new(id, private))
    }

    /// As an encrypted PKCS#8 PEM.
    ///
    /// # Errors
    /// When it can not be encoded.
    pub fn to_pem(&self, passphrase: &str) -> Result<Zeroizing<String>, LocalKeyError> {
        self.private
            .to_pkcs8_encrypted_pem(passphrase, LineEnding::LF)
            .map_err(|_secret| LocalKeyError::Generate)
    }

    fn new(id: MasterKeyId, private: PrivateKey) -> Self {
        Self { id, public: private.to_public_key(), private: Arc::new(private) }
    }
}

fn check_size(bits: u32) -> Result<(), LocalKeyError> {
    if matches!(bits, 3072 | 4096) { Ok(()) } else { Err(LocalKeyError::Size { bits }) }
}

#[async_trait]
impl MasterKey for LocalMasterKey {
    fn id(&self) -> &MasterKeyId {
        &self.id
    }

    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    async fn unwrap(&self, ciphertext: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let private = Arc::clone(&self.private);
        let decrypt = move || private.oaep_decrypt::<Sha256>(&ciphertext);
        tokio::task::spawn_blocking(|| stack::wiped_after(decrypt))
            .await
            .map_err(|stopped| MasterKeyError::Unavailable(Box::new(stopped)))?
            .map(Zeroizing::new)
            .map_err(|_secret| MasterKeyError::Undecryptable)
    }
}

impl fmt::Debug for LocalMasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalMasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::vectors::{PASSPHRASE, PEM};

    fn id() -> MasterKeyId {
        "kms-test".parse().unwrap()
    }

    #[tokio::test]
    async fn a_key_survives_its_file() {
        let key = LocalMasterKey::from_pem(id(), PEM, PASSPHRASE).unwrap();
        let again = LocalMasterKey::from_pem(id(), &key.to_pem("other").unwrap(), "other").unwrap();
        let wrapped = key.public_key().oaep_encrypt::<Sha256>(b"secret").unwrap();
        assert_eq!(*again.unwrap(wrapped).await.unwrap(), b"secret");
        assert_eq!(format!("{key:?}"), "LocalMasterKey { id: MasterKeyId(\"kms-test\"), .. }");
    }

    #[test]
    fn other_passphrases_files_and_sizes_are_refused() {
        let wrong = LocalMasterKey::from_pem(id(), PEM, "wrong").unwrap_err();
        assert!(matches!(wrong, LocalKeyError::Decrypt), "{wrong}");
        let nonsense = LocalMasterKey::from_pem(id(), "no PEM", PASSPHRASE).unwrap_err();
        assert!(matches!(nonsense, LocalKeyError::Decrypt), "{nonsense}");
        let small = LocalMasterKey::generate(id(), 2048).unwrap_err();
        assert!(matches!(small, LocalKeyError::Size { bits: 2048 }), "{small}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), PEM).unwrap();
        assert!(LocalMasterKey::read(id(), file.path(), PASSPHRASE).is_ok());
        for mode in [0o640, 0o604, 0o660] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let open = LocalMasterKey::read(id(), file.path(), PASSPHRASE).unwrap_err();
            assert!(open.to_string().contains("chmod 600"), "{open}");
        }
    }
}
