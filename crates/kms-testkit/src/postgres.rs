//! PostgreSQL, from the PATH or from Debian's directory. It refuses to run as root; if root starts
//! it, it runs as the user `postgres` or `nobody`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::mongod::SERVING_ROLE;
use crate::process::{self, Process, Spec};
use crate::{Scratch, TestkitError};

/// A running PostgreSQL server.
pub struct Postgres {
    process: Process,
    bin: PathBuf,
    port: u16,
    version: String,
    databases: AtomicU32,
    /// The superuser's, where connections need one.
    password: String,
    settings: Vec<String>,
}

/// Where a cluster is, and how its programs are run.
struct Home {
    bin: PathBuf,
    directory: Scratch,
    /// The command that switches to another user.
    user: Vec<String>,
}

impl Postgres {
    /// Starts a server with an empty cluster. Takes about two seconds.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub fn start() -> Result<Self, TestkitError> {
        Self::start_with(&["-F", "-c", "full_page_writes=off"], None, None)
    }

    /// Like [`Postgres::start`], with this certificate and its private key, in PEM. With a
    /// password, which is the superuser's, every role needs its own.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub fn start_tls(
        certificate: &str,
        key: &str,
        password: Option<&str>,
    ) -> Result<Self, TestkitError> {
        let tls =
            ["-c", "ssl=on", "-c", "ssl_cert_file=../tls.pem", "-c", "ssl_key_file=../key.pem"];
        Self::start_with(&[&["-F"], &tls[..]].concat(), Some((certificate, key)), password)
    }

    /// Like [`Postgres::start`], but each commit is flushed to disk, for benchmarks.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub fn start_durable() -> Result<Self, TestkitError> {
        Self::start_with(&[], None, None)
    }

    fn start_with(
        settings: &[&str],
        tls: Option<(&str, &str)>,
        password: Option<&str>,
    ) -> Result<Self, TestkitError> {
        let home = Home::new()?;
        if let Some((certificate, key)) = tls {
            for (name, pem) in [("tls.pem", certificate), ("key.pem", key)] {
                process::write_private(home.directory.path(), name, pem)?;
            }
        }
        let encoding = ["-E", "UTF8", "--locale=C", "--no-sync"];
        let init = ["-D", "data", "-U", "postgres"];
        let trust = ["-A", "trust"];
        let login = ["-A", "scram-sha-256", "--pwfile", "password"];
        let login = match password {
            None => &trust[..],
            Some(password) => {
                process::write_private(home.directory.path(), "password", password)?;
                &login
            }
        };
        let password = password.unwrap_or_default();
        home.make_cluster("initdb", &[&init[..], login, &encoding].concat(), password)?;
        let settings = settings.iter().map(|word| (*word).to_owned()).collect();
        home.serve(settings, password.to_owned())
    }

    /// Starts a standby of this server, with its certificate, which has each commit on disk before
    /// it is acknowledged from now on. `pg_promote()` makes it a primary.
    ///
    /// # Errors
    /// When the cluster cannot be copied, or the standby does not start.
    pub fn start_standby(&self) -> Result<Self, TestkitError> {
        let home = Home::new()?;
        for name in ["tls.pem", "key.pem"] {
            if let Ok(pem) = std::fs::read_to_string(self.process.directory().join(name)) {
                process::write_private(home.directory.path(), name, &pem)?;
            }
        }
        let port = self.port.to_string();
        let copy = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-D", "data", "-R"];
        let at_once = ["-c", "fast", "--no-sync"];
        home.make_cluster("pg_basebackup", &[&copy[..], &at_once].concat(), &self.password)?;
        let mut standby = home.serve(self.settings.clone(), self.password.clone())?;
        self.execute("postgres", "alter system set synchronous_standby_names = '*'")?;
        self.execute("postgres", "select pg_reload_conf()")?;
        let synchronous = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        let is_synchronous = || self.execute("postgres", synchronous).is_ok_and(|it| it == "1");
        standby.process.wait_until(is_synchronous)?;
        Ok(standby)
    }

    /// Returns one server for all tests of this process.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn shared() -> Result<&'static Self, TestkitError> {
        static SHARED: OnceLock<Result<Postgres, TestkitError>> = OnceLock::new();
        SHARED
            .get_or_init(Self::start)
            .as_ref()
            .map_err(|error| TestkitError::Start { program: "PostgreSQL", log: error.to_string() })
    }

    /// Creates an empty database, and returns its URL for the superuser.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn create_database(&self) -> Result<String, TestkitError> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("create database {name}"))?;
        Ok(format!("postgres://postgres@127.0.0.1:{}/{name}", self.port))
    }

    /// Creates an empty database of a role `kms_owner`, and returns its URLs for that role and for
    /// a role `kms` without any privilege.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn create_database_with_roles(&self) -> Result<(String, String), TestkitError> {
        let url = self.create_database()?;
        for role in ["kms_owner", SERVING_ROLE] {
            let create = format!(
                "do $$ begin create role {role} login; \
                 exception when duplicate_object or unique_violation then null; end $$"
            );
            self.execute("postgres", &create)?;
        }
        let name = url.rsplit('/').next().unwrap_or_default();
        self.execute("postgres", &format!("alter database {name} owner to kms_owner"))?;
        let of = |role: &str| url.replace("postgres@", &format!("{role}@"));
        Ok((of("kms_owner"), of(SERVING_ROLE)))
    }

    /// Runs SQL as the superuser, and returns the unaligned output of psql.
    ///
    /// # Errors
    /// When the server returns an error.
    pub fn execute(&self, database: &str, sql: &str) -> Result<String, TestkitError> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"])
            .args(["-d", database, "-v", "ON_ERROR_STOP=1", "-qAtc", sql])
            .env("PGPASSWORD", &self.password)
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            let answer = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(TestkitError::Refused { program: "PostgreSQL", answer })
        }
    }

    /// Writes a dump of the database to this file with `pg_dump`.
    ///
    /// # Errors
    /// When `pg_dump` fails.
    pub fn dump(&self, database: &str, file: &Path) -> Result<(), TestkitError> {
        self.tool("pg_dump", &["-Fc", "-f", &file.display().to_string(), database])
    }

    /// Creates a database from a dump, and returns its URL for the superuser.
    ///
    /// # Errors
    /// When `pg_restore` fails.
    pub fn restore(&self, file: &Path) -> Result<String, TestkitError> {
        let url = self.create_database()?;
        let name = url.rsplit('/').next().unwrap_or_default();
        self.tool("pg_restore", &["--exit-on-error", "-d", name, &file.display().to_string()])?;
        Ok(url)
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Result<(), TestkitError> {
        let output = Command::new(self.bin.join(program))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"])
            .args(arguments)
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(TestkitError::Refused { program: "PostgreSQL", answer })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The version that it reports.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Suspends it, so that it does not answer, as if the network were down.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn pause(&self) -> Result<(), TestkitError> {
        self.process.pause()
    }

    /// Resumes it after [`Postgres::pause`].
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resume(&self) -> Result<(), TestkitError> {
        self.process.resume()
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// When the process is gone already.
    pub fn kill(&mut self) -> Result<(), TestkitError> {
        self.process.kill()
    }

    /// Starts it again on the same port, with its data.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&mut self) -> Result<(), TestkitError> {
        self.process.start_again()?;
        let (bin, port) = (self.bin.clone(), self.port);
        self.process.wait_until(|| answers(&bin, port))
    }
}

impl Home {
    fn new() -> Result<Self, TestkitError> {
        let directory = Scratch::new("postgres")?;
        let user = service_user(directory.path())?;
        Ok(Self { bin: find()?, directory, user })
    }

    /// The command that runs a program as the cluster's user.
    fn command(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let program = self.bin.join(program).display().to_string();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        self.user.iter().cloned().chain([program]).chain(arguments).collect()
    }

    /// Runs a program that makes the folder `data`.
    fn make_cluster(
        &self,
        program: &'static str,
        arguments: &[&str],
        password: &str,
    ) -> Result<(), TestkitError> {
        let command = self.command(program, arguments);
        let (first, rest) = command.split_first().ok_or_else(missing)?;
        let output = Command::new(first)
            .args(rest)
            .current_dir(self.directory.path())
            .env("PGPASSWORD", password)
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(TestkitError::Start { program, log })
    }

    fn serve(self, settings: Vec<String>, password: String) -> Result<Postgres, TestkitError> {
        let port = process::free_port()?;
        let (port_text, sockets) = (port.to_string(), self.directory.path().display().to_string());
        let address = ["-D", "data", "-p", &port_text, "-k", &sockets, "-h", "127.0.0.1"];
        let more = ["-c", "max_connections=200"];
        let given: Vec<_> = settings.iter().map(String::as_str).collect();
        let command = self.command("postgres", &[&address, &given[..], &more].concat());
        let version = process::version(&self.bin.join("postgres"))?;
        let Self { bin, directory, .. } = self;
        let spec = Spec { program: "PostgreSQL", command, stop: "QUIT", directory };
        let mut process = Process::start(spec)?;
        process.wait_until(|| answers(&bin, port))?;
        let databases = AtomicU32::new(0);
        Ok(Postgres { process, bin, port, version, databases, password, settings })
    }
}

fn answers(bin: &Path, port: u16) -> bool {
    Command::new(bin.join("pg_isready"))
        .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
        .status()
        .is_ok_and(|status| status.success())
}

fn missing() -> TestkitError {
    TestkitError::Missing { program: "PostgreSQL", install: "run: apt-get install postgresql" }
}

/// Finds the directory with `postgres` and `initdb`: Debian's newest version, or the PATH.
fn find() -> Result<PathBuf, TestkitError> {
    let mut folders: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    folders.sort();
    if let Some((_, bin)) = folders.pop() {
        return Ok(bin);
    }
    let on_path = process::on_path("initdb").ok_or_else(missing)?;
    let real = on_path.canonicalize()?;
    real.parent().map(Path::to_path_buf).ok_or_else(missing)
}

/// Returns the command that switches to a user that PostgreSQL accepts, and gives the directory to
/// that user. Empty if the current user is not root.
fn service_user(directory: &Path) -> Result<Vec<String>, TestkitError> {
    let id = |user: &str, flag: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, user]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let me = Command::new("id").arg("-u").output()?;
    if me.stdout.trim_ascii() != b"0" {
        return Ok(Vec::new());
    }
    let ids = |user| Some((id(user, "-u")?, id(user, "-g")?));
    let (uid, gid) = ids("postgres").or_else(|| ids("nobody")).ok_or(TestkitError::Missing {
        program: "a user to run PostgreSQL as",
        install: "run: adduser --system postgres",
    })?;
    std::os::unix::fs::chown(directory, Some(uid), Some(gid))?;
    Ok(vec![
        "setpriv".to_owned(),
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        "--clear-groups".to_owned(),
        "--".to_owned(),
    ])
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("port", &self.port).finish_non_exhaustive()
    }
}
