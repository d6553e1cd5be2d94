//! A stop of the sandbox leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How many stops, and how many of them side by side.
const STOPS: u64 = 20;
const AT_ONCE: u64 = 4;
/// A sandbox has started long before on an idle machine.
const LATEST: u64 = 6_000;

/// With a browser that waits for news, as each visitor's does.
#[test]
fn ctrl_c_deletes_every_file() {
    for signal in ["-INT", "-TERM"] {
        let temporary = tempfile::tempdir().unwrap();
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_kms-sandbox"))
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines();
        let page = lines.find_map(|line| {
            line.unwrap().strip_prefix("Two phones    http://").map(str::to_owned)
        });
        let host = page.unwrap().trim_end_matches('/').to_owned();
        let mut browser = TcpStream::connect(&host).unwrap();
        write!(browser, "GET /state HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        browser.read_exact(&mut [0; 1]).unwrap();
        assert!(lines.any(|line| line.unwrap().starts_with("Ready in")));
        assert!(fs::read_dir(temporary.path()).unwrap().count() > 0);
        let links = tempfile::tempdir().unwrap();
        let files = Linked::all(temporary.path(), links.path());
        let id = sandbox.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert!(sandbox.wait().unwrap().success(), "{signal}");
        let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(Result::unwrap).collect();
        assert!(left.is_empty(), "{signal} left {left:?}");
        let (keys, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.is_key());
        assert!(!keys.is_empty() && others.len() > 3, "{files:?}");
        let last = keys.iter().map(|file| file.deleted_at()).max();
        let first = others.iter().map(|file| file.deleted_at()).min();
        assert!(last < first, "{signal}: the keys were not deleted first");
    }
}

/// A file of the sandbox, and another link to it, which is there when the file is deleted.
#[derive(Debug)]
struct Linked {
    file: PathBuf,
    link: PathBuf,
}

impl Linked {
    /// The files below a folder that last as long as the sandbox, linked in another folder.
    fn all(folder: &Path, links: &Path) -> Vec<Self> {
        let lasting = |file: &PathBuf| {
            let name = file.display().to_string();
            ![".new", ".state", "-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end))
        };
        let files = files_of(folder).into_iter().filter(lasting).enumerate();
        let link = |(number, file): (usize, PathBuf)| {
            let link = links.join(number.to_string());
            fs::hard_link(&file, &link).unwrap();
            Self { file, link }
        };
        files.map(link).collect()
    }

    fn is_key(&self) -> bool {
        self.file.parent().is_some_and(|folder| folder.ends_with("keys"))
    }

    /// When the number of its links changed, which was the last change of its status.
    fn deleted_at(&self) -> (i64, i64) {
        let metadata = fs::metadata(&self.link).unwrap();
        assert_eq!(metadata.nlink(), 1, "{} was not deleted", self.file.display());
        (metadata.ctime(), metadata.ctime_nsec())
    }
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_of(&path) } else { vec![path] }).collect()
}

/// While it starts, serves or plays the tour.
#[test]
fn a_stop_at_any_moment_leaves_no_file_and_no_process() {
    let lanes = (0..AT_ONCE).map(|lane| {
        thread::spawn(move || (0..STOPS / AT_ONCE).for_each(|stop| stop_at_random(lane + stop)))
    });
    let lanes: Vec<_> = lanes.collect();
    lanes.into_iter().for_each(|lane| lane.join().unwrap());
}

fn stop_at_random(number: u64) {
    let temporary = tempfile::tempdir().unwrap();
    let random = RandomState::new().hash_one(number);
    let after = Duration::from_millis(random % LATEST);
    // Most people press ctrl-c; nothing may depend on a clean end.
    let signal = if number % 4 == 3 { "-KILL" } else { "-INT" };
    let arguments: &[&str] = if random >> 63 == 0 { &[] } else { &["tour"] };
    // A shell that runs the tests in the background has them and their children ignore ctrl-c.
    let mut sandbox = Command::new("env")
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_kms-sandbox")])
        .args(arguments)
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(after);
    let id = sandbox.id().to_string();
    // The tour may have ended.
    Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status().unwrap();
    sandbox.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let files = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path());
        let left: Vec<_> = files.chain(processes_of(temporary.path())).collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{signal} {arguments:?} after {after:?} left {left:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The processes that were given this temporary folder.
fn processes_of(temporary: &Path) -> Vec<PathBuf> {
    let variable = [b"TMPDIR=", temporary.as_os_str().as_bytes(), b"\0"].concat();
    let given = |process: &PathBuf| {
        // Those of other users, and those that have ended, cannot be read.
        let variables = fs::read(process.join("environ")).unwrap_or_default();
        variables.windows(variable.len()).any(|window| window == variable)
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.filter(given).collect()
}
