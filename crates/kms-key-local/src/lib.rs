//! The key provider `local`: a master key in a file, as an encrypted PKCS#8 PEM (RFC 5958, PBES2).
//!
//! For one machine, tests and the sandbox. The private key is in this process' memory for as long
//! as the server runs; in production use a provider whose key never leaves its hardware.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use kms_core::{MasterKey, MasterKeyError, MasterKeyId, with_wiped_stack};
use pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use rsa::traits::PublicKeyParts;
use rsa::{PrivateKey, PublicKey};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use sha2::Sha256;
use zeroize::Zeroizing;

/// An RSA key pair in memory.
pub struct LocalMasterKey {
    id: MasterKeyId,
    private: Arc<PrivateKey>,
    public: PublicKey,
}

/// Why a key file was rejected. Contains nothing of the file's content or of its passphrase.
#[derive(Debug, thiserror::Error)]
pub enum LocalKeyError {
    /// The file cannot be read.
    #[error("cannot read the KMS key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path is a directory, a pipe or a device.
    #[error("the KMS key file {} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file belongs to a user who is neither root nor the one who runs this process.
    #[error("the KMS key file {} belongs to another user", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
    },
    /// Users other than the owner may access the file.
    #[error("the KMS key file {} is open to other users; run chmod 600", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
    },
    /// The content is not an encrypted PKCS#8 PEM, or the passphrase is wrong.
    #[error("the KMS key is not an encrypted PKCS#8 PEM, or its passphrase is wrong")]
    Decrypt,
    /// The key's size is not supported.
    #[error("the KMS key has {bits} bits; RSA with 3072 or 4096 bits is required")]
    Size {
        /// The key's size.
        bits: u32,
    },
    /// The thread that read the file panicked, or the process is stopping.
    #[error("reading the KMS key was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
    /// A key could not be generated or encoded.
    #[error("generating a KMS key failed")]
    Generate,
}

impl LocalMasterKey {
    /// Generates a random key. Takes seconds.
    ///
    /// # Errors
    /// For sizes other than 3072 and 4096 bits.
    pub fn generate(id: MasterKeyId, bits: u32) -> Result<Self, LocalKeyError> {
        check_size(bits)?;
        let size = usize::try_from(bits).map_err(|_narrow| LocalKeyError::Generate)?;
        let private = PrivateKey::new(&mut getrandom::SysRng, size)
            .map_err(|_cause| LocalKeyError::Generate)?;
        Ok(Self::new(id, private))
    }

    /// Reads a key file as [`LocalMasterKey::read`] does, on a thread that may block.
    ///
    /// # Errors
    /// As [`LocalMasterKey::read`].
    pub async fn open(
        id: MasterKeyId,
        path: PathBuf,
        passphrase: Zeroizing<String>,
    ) -> Result<Self, LocalKeyError> {
        tokio::task::spawn_blocking(move || Self::read(id, &path, &passphrase))
            .await
            .map_err(LocalKeyError::Interrupted)?
    }

    /// Reads a key file. It must be a regular file that belongs to this process' user or to root
    /// and that no other user may access, except that its group may read a file of root; this is
    /// checked on the descriptor that is read.
    ///
    /// Blocks: stretching the passphrase takes a moment.
    ///
    /// # Errors
    /// When the file is missing or not private, the passphrase is wrong, or the key's size is not
    /// supported.
    pub fn read(id: MasterKeyId, path: &Path, passphrase: &str) -> Result<Self, LocalKeyError> {
        Self::from_pem(id, &read_private_file(path)?, passphrase)
    }

    /// Decrypts a key from a PKCS#8 PEM.
    ///
    /// # Errors
    /// When the passphrase is wrong, or the key's size is not supported.
    pub fn from_pem(id: MasterKeyId, pem: &str, passphrase: &str) -> Result<Self, LocalKeyError> {
        let private = PrivateKey::from_pkcs8_encrypted_pem(pem, passphrase)
            .map_err(|_secret| LocalKeyError::Decrypt)?;
        check_size(private.n().bit_width())?;
        Ok(Self::new(id, private))
    }

    /// Encrypts the key as a PKCS#8 PEM.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn to_pem(&self, passphrase: &str) -> Result<Zeroizing<String>, LocalKeyError> {
        self.private
            .to_pkcs8_encrypted_pem(passphrase, LineEnding::LF)
            .map_err(|_secret| LocalKeyError::Generate)
    }

    fn new(id: MasterKeyId, private: PrivateKey) -> Self {
        Self { id, public: private.to_public_key(), private: Arc::new(private) }
    }
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
        tokio::task::spawn_blocking(|| with_wiped_stack(decrypt))
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

fn check_size(bits: u32) -> Result<(), LocalKeyError> {
    if matches!(bits, 3072 | 4096) { Ok(()) } else { Err(LocalKeyError::Size { bits }) }
}

fn read_private_file(path: &Path) -> Result<Zeroizing<String>, LocalKeyError> {
    let unreadable = |source| LocalKeyError::Read { path: path.to_owned(), source };
    // A pipe would block until another process writes to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let mut file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(LocalKeyError::NotAFile { path: path.to_owned() });
    }
    if ![0, geteuid().as_raw()].contains(&metadata.uid()) {
        return Err(LocalKeyError::Owner { path: path.to_owned() });
    }
    // Root's files reach an unprivileged process through its group: Kubernetes' `fsGroup`, or
    // systemd's credentials.
    let others = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    if metadata.mode() & others != 0 {
        return Err(LocalKeyError::Mode { path: path.to_owned() });
    }
    // Allocated once: a buffer that grows leaves copies of its content behind.
    let length = usize::try_from(metadata.len()).unwrap_or_default();
    let mut pem = Zeroizing::new(String::with_capacity(length + 1));
    file.read_to_string(&mut pem).map_err(unreadable)?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PEM: &str = include_str!("../../kms-core/vectors/test-kms-key.txt");
    const PASSPHRASE: &str = include_str!("../../kms-core/vectors/test-kms-key-passphrase.txt");

    fn id() -> MasterKeyId {
        "kms-test".parse().unwrap()
    }

    #[tokio::test]
    async fn conforms_as_a_key_provider() {
        let key = LocalMasterKey::from_pem(id(), PEM, PASSPHRASE).unwrap();
        kms_core::conformance::assert_master_key_conforms(Arc::new(key)).await;
    }

    #[tokio::test]
    async fn pem_round_trip_keeps_the_key() {
        let key = LocalMasterKey::from_pem(id(), PEM, PASSPHRASE).unwrap();
        let again = LocalMasterKey::from_pem(id(), &key.to_pem("other").unwrap(), "other").unwrap();
        let wrapped = key.public_key().oaep_encrypt::<Sha256>(b"secret").unwrap();
        assert_eq!(*again.unwrap(wrapped).await.unwrap(), b"secret");
        assert_eq!(format!("{key:?}"), "LocalMasterKey { id: MasterKeyId(\"kms-test\"), .. }");
    }

    #[test]
    fn rejects_wrong_passphrases_contents_and_sizes() {
        let wrong = LocalMasterKey::from_pem(id(), PEM, "wrong").unwrap_err();
        assert!(matches!(wrong, LocalKeyError::Decrypt), "{wrong}");
        let nonsense = LocalMasterKey::from_pem(id(), "no PEM", PASSPHRASE).unwrap_err();
        assert!(matches!(nonsense, LocalKeyError::Decrypt), "{nonsense}");
        let small = LocalMasterKey::generate(id(), 2048).unwrap_err();
        assert!(matches!(small, LocalKeyError::Size { bits: 2048 }), "{small}");
    }

    #[test]
    fn rejects_files_that_are_not_private() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), PEM).unwrap();
        assert!(LocalMasterKey::read(id(), file.path(), PASSPHRASE).is_ok());
        for mode in [0o604, 0o644, 0o620, 0o660] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let refused = LocalMasterKey::read(id(), file.path(), PASSPHRASE).unwrap_err();
            assert!(matches!(refused, LocalKeyError::Mode { .. }), "{refused}");
        }
        let folder = tempfile::tempdir().unwrap();
        let refused = LocalMasterKey::read(id(), folder.path(), PASSPHRASE).unwrap_err();
        assert!(matches!(refused, LocalKeyError::NotAFile { .. }), "{refused}");
        let missing = LocalMasterKey::read(id(), &folder.path().join("key"), PASSPHRASE);
        assert!(matches!(missing, Err(LocalKeyError::Read { .. })));
    }

    /// Kubernetes' `fsGroup` and systemd's credentials hand out such files.
    #[test]
    fn the_group_may_read_a_file_of_root() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), PEM).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o440)).unwrap();
        let read = LocalMasterKey::read(id(), file.path(), PASSPHRASE);
        match geteuid().is_root() {
            true => assert!(read.is_ok(), "{read:?}"),
            false => assert!(matches!(read, Err(LocalKeyError::Mode { .. })), "{read:?}"),
        }
    }

    #[test]
    fn rejects_a_pipe_without_waiting_for_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let (sender, read) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(LocalMasterKey::read(id(), &pipe, PASSPHRASE)));
        let refused = read.recv_timeout(std::time::Duration::from_secs(10)).unwrap().unwrap_err();
        assert!(matches!(refused, LocalKeyError::NotAFile { .. }), "{refused}");
    }
}
