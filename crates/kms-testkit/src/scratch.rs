//! Directories that do not outlive the process that made them, and neither do programs in them: a
//! watchdog shell holds the other end of a pipe, which closes however that process exits.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::TestkitError;

/// Reads which process to stop, and the signal for that, until the pipe closes. If it closed before
/// that was known, whatever runs in the directory is stopped. Ignores the signals that a terminal
/// sends to the whole process group.
const WATCHDOG: &str = r#"trap '' INT TERM HUP
while read -r signal process; do known=$process stop=$signal; done
if [ -z "$known" ]; then
    sleep 0.05
    for entry in /proc/[0-9]*; do
        [ "$entry/cwd" -ef "$1" ] && known="$known ${entry#/proc/}"
    done
fi
if [ -n "$known" ]; then
    kill -"${stop:-KILL}" $known 2>/dev/null
    while kill -0 $known 2>/dev/null && [ $((n += 1)) -lt 100 ]; do sleep 0.05; done
fi
rm -rf "$1""#;

/// A directory that only its owner can read. It is deleted when this is dropped, and when the
/// process is killed before.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    watchdog: Child,
    pipe: Option<ChildStdin>,
    /// Whether the watchdog has a process to stop.
    is_used: bool,
}

impl Scratch {
    /// Makes a directory whose name begins with `kms-` and this one.
    ///
    /// # Errors
    /// When the temporary folder cannot be written to, or there is no shell.
    pub fn new(name: &str) -> Result<Self, TestkitError> {
        let random = RandomState::new().hash_one(std::process::id());
        let path = tempfile::env::temp_dir().join(format!("kms-{name}-{random:016x}"));
        // First the watchdog: this process may be killed at any moment.
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = watchdog.stdin.take();
        if let Err(exists) = DirBuilder::new().mode(0o700).create(&path) {
            watchdog.kill()?;
            watchdog.wait()?;
            return Err(exists.into());
        }
        Ok(Self { path, watchdog, pipe, is_used: false })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has this process stopped with a signal, without its `SIG`, before the directory is deleted.
    pub(crate) fn watch(&mut self, process: Option<u32>, stop: &str) -> Result<(), TestkitError> {
        let process = process.map(|id| id.to_string()).unwrap_or_default();
        if let Some(pipe) = &mut self.pipe {
            writeln!(pipe, "{stop} {process}")?;
        }
        self.is_used = !process.is_empty();
        Ok(())
    }

    /// Has the process stopped and the directory deleted by now.
    pub(crate) fn release(&mut self) {
        self.pipe = None;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file that is written meanwhile may be left, which the watchdog deletes.
        if !self.is_used && fs::remove_dir_all(&self.path).is_ok() {
            let _ = self.watchdog.kill();
        }
        self.release();
        let _ = self.watchdog.wait();
    }
}
