//! `kms-server keys new`: creates a directory with all keys that a server needs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, ensure};
use kms_core::{MasterKeyId, ServerKeyKind};
use kms_key_local::LocalMasterKey;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Creates the directory, which must not exist, and the keys in it.
///
/// # Errors
/// When the directory exists, or cannot be written.
pub fn create(directory: &Path, id: MasterKeyId, bits: u32) -> anyhow::Result<()> {
    ensure!(!directory.exists(), "{} exists; keys are never overwritten", directory.display());
    fs::DirBuilder::new()
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("creating {}", directory.display()))?;
    let passphrase = random_hex()?;
    let key = LocalMasterKey::generate(id, bits)?;
    write(directory, "kms-key.pem", &key.to_pem(&passphrase)?)?;
    write(directory, "kms-key-passphrase", &passphrase)?;
    for kind in ServerKeyKind::ALL {
        write(directory, kind.as_str(), &Zeroizing::new(format!("1:{}", *random_hex()?)))?;
    }
    Ok(())
}

fn random_hex() -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_unspecified| anyhow::anyhow!("the operating system returned no random bytes"))?;
    Ok(Zeroizing::new(hex::encode(*bytes)))
}

fn write(directory: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let path = directory.join(name);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all().with_context(|| format!("writing {}", path.display()))
}

/// Returns the settings that configure these keys.
pub(crate) fn configuration(directory: &Path, id: &MasterKeyId) -> String {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut lines = vec![
        format!("KMS_SERVER__KMS_KEY__ID={id}"),
        format!("KMS_SERVER__KMS_KEY__PATH={}", file("kms-key.pem")),
        format!("KMS_SERVER__KMS_KEY__PASSPHRASE_FILE={}", file("kms-key-passphrase")),
    ];
    for name in ServerKeyKind::ALL.iter().map(|kind| kind.as_str()) {
        let key = name.to_uppercase();
        lines.push(format!("KMS_SERVER__SERVER_KEYS__{key}_FILE={}", file(name)));
    }
    lines.join("\n")
}
