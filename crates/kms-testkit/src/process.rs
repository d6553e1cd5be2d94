//! Child processes that do not outlive their parent: the watchdog of their directory stops them,
//! however the parent exited.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Scratch, TestkitError};

/// Writes a file that only the owner of the directory can read.
pub(crate) fn write_private(
    directory: &Path,
    name: &str,
    content: &str,
) -> Result<PathBuf, TestkitError> {
    let path = directory.join(name);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(content.as_bytes())?;
    let owner = fs::metadata(directory)?;
    fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    Ok(path)
}

/// How a server is run.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) program: &'static str,
    pub(crate) command: Vec<String>,
    /// The signal that stops it, without `SIG`.
    pub(crate) stop: &'static str,
    /// Its working directory, removed when it is stopped for good.
    pub(crate) directory: Scratch,
}

#[derive(Debug)]
pub(crate) struct Process {
    spec: Spec,
    child: Child,
    is_killed: bool,
}

impl Process {
    pub(crate) fn start(mut spec: Spec) -> Result<Self, TestkitError> {
        let child = spawn(&mut spec)?;
        Ok(Self { spec, child, is_killed: false })
    }

    /// Waits until `ready` returns `true`, for at most 60 seconds. Fails if the process exits: then
    /// another process has taken its port, and answered instead.
    pub(crate) fn wait_until(
        &mut self,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), TestkitError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = ready();
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(TestkitError::Start { program: self.spec.program, log: self.log() });
            }
            if ready {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it, as a crash would; its directory is kept.
    pub(crate) fn kill(&mut self) -> Result<(), TestkitError> {
        let children = children(self.child.id())?;
        self.child.kill()?;
        self.child.wait()?;
        // PostgreSQL does not start again before its child processes have exited too.
        for child in children {
            while is_running(child) {
                std::thread::yield_now();
            }
        }
        self.is_killed = true;
        self.spec.directory.watch(None, self.spec.stop)
    }

    /// Starts it again in the same directory.
    pub(crate) fn start_again(&mut self) -> Result<(), TestkitError> {
        self.child = spawn(&mut self.spec)?;
        self.is_killed = false;
        Ok(())
    }

    /// Suspends it and its child processes, and waits until they are suspended.
    pub(crate) fn pause(&self) -> Result<(), TestkitError> {
        // First the parent, which then starts no further children.
        suspend(self.child.id())?;
        children(self.child.id())?.into_iter().try_for_each(suspend)
    }

    /// Resumes it and its child processes.
    pub(crate) fn resume(&self) -> Result<(), TestkitError> {
        let children = children(self.child.id())?;
        children.into_iter().chain([self.child.id()]).try_for_each(|id| signal(id, "CONT"))
    }

    /// Its working directory.
    pub(crate) fn directory(&self) -> &Path {
        self.spec.directory.path()
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.directory().join("log")).unwrap_or_default();
        let mut lines: Vec<_> = log.lines().rev().take(12).collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_killed {
            return;
        }
        // A suspended process handles no other signal.
        let _ = self.resume();
        self.spec.directory.release();
        // Reaped, so that the watchdog sees it exit.
        let _ = self.child.wait();
    }
}

fn spawn(spec: &mut Spec) -> Result<Child, TestkitError> {
    let directory = spec.directory.path();
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    let mut words = spec.command.iter();
    let program = words.next().map_or("", String::as_str);
    let child = Command::new(program)
        .args(words)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    spec.directory.watch(Some(child.id()), spec.stop)?;
    Ok(child)
}

fn signal(process: u32, signal: &str) -> Result<(), TestkitError> {
    // `kill` prints an error if the process is gone, which is expected here.
    Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(process.to_string())
        .stderr(Stdio::null())
        .status()?;
    Ok(())
}

fn suspend(process: u32) -> Result<(), TestkitError> {
    signal(process, "STOP")?;
    let state = |columns: Vec<String>| columns.first().cloned().unwrap_or_default();
    while stat(process).is_some_and(|columns| !["T", "Z"].contains(&&*state(columns))) {
        std::thread::yield_now();
    }
    Ok(())
}

/// The columns of `/proc/PID/stat` after the name of the program: the state, the parent, and more.
/// `None` if the process is gone.
fn stat(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_name, columns) = stat.rsplit_once(") ")?;
    Some(columns.split_whitespace().map(str::to_owned).collect())
}

fn is_running(process: u32) -> bool {
    // A zombie holds no resources.
    stat(process).is_some_and(|columns| columns.first().is_some_and(|state| state != "Z"))
}

fn children(parent: u32) -> Result<Vec<u32>, TestkitError> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if stat(process).is_some_and(|columns| columns.get(1) == Some(&parent.to_string())) {
            found.push(process);
        }
    }
    Ok(found)
}

/// The ports of programs that listen on one chosen before they start. They are below those that the
/// system gives out itself, one of which could be another program's by then.
const PORTS: Range<u16> = 20_000..32_000;

/// Returns a port of 127.0.0.1 that is free.
///
/// # Errors
/// [`TestkitError::Io`]: there is none.
pub fn free_port() -> Result<u16, TestkitError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = PORTS.map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    let count = u32::from(PORTS.end - PORTS.start);
    let port = port.filter_map(|next| u16::try_from(next % count).ok());
    let found = port.map(|offset| PORTS.start + offset).find(is_free);
    Ok(found.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::AddrInUse))?)
}

/// Finds a program on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = crate::fetch::environment("PATH")?;
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|file| file.is_file())
}

/// Returns the first line that a program prints for `--version`.
pub(crate) fn version(program: &Path) -> Result<String, TestkitError> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_on_the_port_of_an_exited_process_is_an_error() {
        let directory = Scratch::new("process").unwrap();
        let command = vec!["sh".to_owned(), "-c".to_owned(), "echo port in use".to_owned()];
        let spec = Spec { program: "sh", command, stop: "KILL", directory };
        let mut process = Process::start(spec).unwrap();
        let stat = format!("/proc/{}/stat", process.child.id());
        let answers = move || {
            // Another process answers, while this one has exited and is not reaped yet.
            while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
                std::thread::yield_now();
            }
            true
        };
        let refused = process.wait_until(answers).unwrap_err();
        assert!(refused.to_string().contains("port in use"), "{refused}");
    }

    #[test]
    fn a_kill_waits_for_children_that_exit_later() {
        let directory = Scratch::new("process").unwrap();
        let file = directory.path().join("child");
        let script = "sleep 3 & echo $! > new; mv new child; wait".to_owned();
        let command = vec!["sh".to_owned(), "-c".to_owned(), script];
        let spec = Spec { program: "sh", command, stop: "KILL", directory };
        let mut process = Process::start(spec).unwrap();
        process.wait_until(|| file.exists()).unwrap();
        let child = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert!(is_running(child));
        process.kill().unwrap();
        assert!(!is_running(child));
    }
}
