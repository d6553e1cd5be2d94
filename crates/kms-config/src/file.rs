//! Reads files that may hold secrets, after checking who else can read them.
//!
//! All checks are made on the open file, so that it cannot be replaced between check and read.
//! Symbolic links are followed, because Kubernetes mounts secrets behind one. The rules fit what
//! container platforms hand out; ADR 33 lists them.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use zeroize::{Zeroize, Zeroizing};

use crate::source::Source;

/// Larger than any key, certificate chain or list of endpoints.
const MAX_BYTES: usize = 256 * 1024;

/// PEM blocks that everybody may read.
const PUBLIC_PEM: [&str; 2] = ["-----BEGIN CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----"];

/// Why a file cannot be used. Never shows its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refuses to read it.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// It is a directory, a device or a pipe.
    #[error("is not a regular file")]
    NotRegular,
    /// It belongs to a third user, who could read and replace it.
    #[error("belongs to user {0}; expected this process's user or root")]
    Owner(u32),
    /// Other users could replace its content.
    #[error("other users can write to it; run `chmod {chmod} {path}`")]
    Writable {
        /// The file.
        path: String,
        /// The mode that it should have.
        chmod: &'static str,
    },
    /// Other users can read it.
    #[error("other users can read it; run `chmod {chmod} {path}`")]
    Readable {
        /// The file.
        path: String,
        /// The mode that it should have.
        chmod: &'static str,
    },
    /// It is larger than any secret.
    #[error("is larger than 256 KiB")]
    TooLarge,
    /// It is not text.
    #[error("is not UTF-8 text")]
    NotText,
}

/// Reads a file that only its owner should be able to read, unless it holds nothing but
/// certificates or public keys.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let (text, metadata) = open(path)?;
    check_access(path, &metadata, is_public(&text))?;
    Ok(text)
}

/// Reads the value of a setting from a file of its own: without the newline at its end.
pub(crate) fn read_value(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let text = read(path)?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Reads a TOML file, which others may read if it holds no secret.
pub(crate) fn read_settings(path: &Path) -> Result<(Zeroizing<String>, Source), FileError> {
    let (text, metadata) = open(path)?;
    check_access(path, &metadata, true)?;
    let is_private = check_access(path, &metadata, false).is_ok();
    Ok((text, if is_private { Source::Toml } else { Source::SharedToml }))
}

fn open(path: &Path) -> Result<(Zeroizing<String>, Metadata), FileError> {
    // A pipe would block until another process writes to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let mut file = file.map_err(FileError::Read)?;
    let metadata = file.metadata().map_err(FileError::Read)?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    Ok((read_text(&mut file)?, metadata))
}

fn check_access(path: &Path, metadata: &Metadata, is_public: bool) -> Result<(), FileError> {
    let (mode, owner) = (metadata.mode(), metadata.uid());
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(FileError::Owner(owner));
    }
    let (path, chmod) = (path.display().to_string(), if is_public { "644" } else { "600" });
    if mode & 0o022 != 0 {
        return Err(FileError::Writable { path, chmod });
    }
    // Root's files reach an unprivileged process through its group: Kubernetes' `fsGroup`, or
    // systemd's credentials, whose access list shows up as the group's permissions.
    let others = if owner == 0 { 0o007 } else { 0o077 };
    if !is_public && mode & others != 0 {
        return Err(FileError::Readable { path, chmod });
    }
    Ok(())
}

fn read_text(file: &mut File) -> Result<Zeroizing<String>, FileError> {
    // Reserved whole, so that no reallocation leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    let limit = u64::try_from(MAX_BYTES + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(FileError::Read)?;
    if bytes.len() > MAX_BYTES {
        return Err(FileError::TooLarge);
    }
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
        error.into_bytes().zeroize();
        FileError::NotText
    })
}

/// Whether the text is PEM, and every block of it is a certificate or a public key.
fn is_public(text: &str) -> bool {
    let mut blocks = text.lines().filter(|line| line.contains("-----BEGIN ")).peekable();
    blocks.peek().is_some() && blocks.all(|line| PUBLIC_PEM.contains(&line.trim()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

    fn with_mode(content: &str, mode: u32) -> Result<String, FileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read(file.path()).map(|text| text.to_string())
    }

    #[test]
    fn a_secret_file_that_others_can_read_or_write_is_refused() {
        for mode in [0o400, 0o600] {
            assert_eq!(with_mode("secret", mode).unwrap(), "secret", "{mode:o}");
        }
        for mode in [0o604, 0o644, 0o444] {
            let error = with_mode("secret", mode).unwrap_err();
            assert!(matches!(error, FileError::Readable { .. }), "{mode:o}: {error}");
        }
        for mode in [0o620, 0o602, 0o666] {
            let error = with_mode("secret", mode).unwrap_err();
            assert!(matches!(error, FileError::Writable { .. }), "{mode:o}: {error}");
        }
    }

    #[test]
    fn certificates_are_public_until_a_key_is_among_them() {
        assert_eq!(with_mode(CERTIFICATE, 0o644).unwrap(), CERTIFICATE);
        let error = with_mode(CERTIFICATE, 0o664).unwrap_err();
        assert!(matches!(error, FileError::Writable { chmod: "644", .. }), "{error}");
        for key in ["-----BEGIN PRIVATE KEY-----", "x -----BEGIN EC PRIVATE KEY-----"] {
            let error = with_mode(&format!("{CERTIFICATE}{key}\n"), 0o644).unwrap_err();
            assert!(matches!(error, FileError::Readable { .. }), "{error}");
        }
    }

    /// Whether a group may read depends on the owner; only root can hand a file to a third user.
    #[test]
    fn only_files_of_this_user_or_root_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret").unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(0o440)).unwrap();
        if geteuid().is_root() {
            assert_eq!(*read(file.path()).unwrap(), "secret");
            std::os::unix::fs::chown(file.path(), Some(12_345), None).unwrap();
            assert!(matches!(read(file.path()), Err(FileError::Owner(12_345))));
        } else {
            assert!(matches!(read(file.path()), Err(FileError::Readable { .. })));
        }
    }

    #[test]
    fn only_bounded_regular_text_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert!(matches!(read(&path), Err(FileError::Read(_))));
        assert!(matches!(read(directory.path()), Err(FileError::NotRegular)));
        assert!(matches!(read(Path::new("/dev/zero")), Err(FileError::NotRegular)));
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(read(&pipe), Err(FileError::NotRegular)));
        assert!(matches!(with_mode(&"a".repeat(MAX_BYTES + 1), 0o600), Err(FileError::TooLarge)));
        fs::write(&path, [0xff]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path), Err(FileError::NotText)));
        fs::write(&path, "through a link").unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(*read(&link).unwrap(), "through a link");
    }
}
