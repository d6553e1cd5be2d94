//! A server in its own process, which a test may kill and whose log it may read.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kms_client::Client;

use crate::TestEnv;

/// A running `kms-server serve`, killed when it is dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// The port of 127.0.0.1 that it listens on.
    pub port: u16,
    /// The port of 127.0.0.1 of its operations listener.
    pub ops_port: u16,
    /// The port of 127.0.0.1 of its public listener.
    pub page_port: u16,
    /// What it has logged so far.
    pub log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl ServerProcess {
    /// Starts a server, waits until it listens, and arms a failpoint if one is given.
    #[must_use]
    pub fn start(env: &TestEnv, failpoint: Option<&str>, log_level: &str) -> Self {
        Self::try_start(env, failpoint, log_level).expect("the server starts")
    }

    /// The same.
    ///
    /// # Errors
    /// The server's log, if it dies before it listens.
    pub fn try_start(
        env: &TestEnv,
        failpoint: Option<&str>,
        log_level: &str,
    ) -> Result<Self, String> {
        let mut command = Command::new(Self::binary());
        command
            .arg("serve")
            .envs(env.environment("127.0.0.1:0"))
            .env("RUST_LOG", log_level)
            .current_dir(env.directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("KMS_FAILPOINT", failpoint);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let Some([port, ops_port, page_port]) = read_until_listening(&mut lines, &log) else {
            let _ = child.wait();
            return Err(std::mem::take(&mut *log.lock().unwrap()));
        };
        let sink = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                append(&sink, &line);
            }
        });
        Ok(Self { child, port, ops_port, page_port, log, reader: Some(reader) })
    }

    /// The `kms-server` binary that was built for the running test or benchmark; for an example,
    /// the one beside its folder.
    #[expect(clippy::disallowed_methods, reason = "cargo passes the path in the environment")]
    #[must_use]
    pub fn binary() -> PathBuf {
        if let Ok(path) = std::env::var("CARGO_BIN_EXE_kms-server") {
            return path.into();
        }
        let example = std::env::current_exe().unwrap();
        let path = example.parent().unwrap().with_file_name("kms-server");
        assert!(path.exists(), "run this by `cargo test` or `cargo bench`, which build kms-server");
        path
    }

    /// A client of this server.
    #[must_use]
    pub fn client(&self, env: &TestEnv, token: &str) -> Client {
        env.client(self.port, token).unwrap()
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process's resource limits, as `/proc` shows them.
    #[must_use]
    pub fn limits(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap()
    }

    /// Waits until the server died at its failpoint.
    pub fn died(mut self) {
        let status = self.child.wait().unwrap();
        assert!(!status.success(), "the server ended without dying");
        self.reader.take().unwrap().join().unwrap();
    }

    /// The answer of the operations listener to a path.
    pub async fn ops(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("http://127.0.0.1:{}{path}", self.ops_port)).await.unwrap()
    }

    /// Sends SIGTERM, as a container runtime does, and returns the whole log.
    pub fn terminate(mut self) -> String {
        let id = self.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(self.child.wait().unwrap().success(), "SIGTERM ends the server regularly");
        self.reader.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log until the server listens, and returns its ports; `None` if the log ends before.
fn read_until_listening(
    lines: &mut Lines<BufReader<ChildStdout>>,
    log: &Mutex<String>,
) -> Option<[u16; 3]> {
    loop {
        let line = lines.next()?.ok()?;
        append(log, &line);
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        let field = |name: &str| event.get(name).and_then(serde_json::Value::as_str);
        if field("message") == Some("listening") {
            return Some(
                ["address", "ops_address", "page_address"]
                    .map(|name| field(name).unwrap().parse::<SocketAddr>().unwrap().port()),
            );
        }
    }
}

fn append(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().unwrap();
    log.push_str(line);
    log.push('\n');
}
