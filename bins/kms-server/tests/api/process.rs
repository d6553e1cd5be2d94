//! A server in a process of its own, which a test may kill, and whose log it may read.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use kms_client::Client;

use crate::harness::Place;

pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) port: u16,
    /// What it wrote so far.
    pub(crate) log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl ServerProcess {
    /// Starts it, armed to die at a place if one is given, and waits until it listens.
    pub(crate) fn start(place: &Place, failpoint: Option<&str>, log_level: &str) -> Self {
        Self::try_start(place, failpoint, log_level).expect("the server did not start")
    }

    /// The same; `None` if it dies before it listens.
    pub(crate) fn try_start(
        place: &Place,
        failpoint: Option<&str>,
        log_level: &str,
    ) -> Option<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms-server"));
        command
            .arg("serve")
            .envs(place.environment("127.0.0.1:0"))
            .env("RUST_LOG", log_level)
            .current_dir(place.directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("KMS_FAILPOINT", failpoint);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut port = None;
        while port.is_none() {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.wait();
                return None;
            };
            let said: serde_json::Value = serde_json::from_str(&line).unwrap();
            if said["message"] == "listening" {
                let address = said["address"].as_str().unwrap().to_owned();
                port = Some(address.rsplit(':').next().unwrap().parse().unwrap());
            }
            log.lock().unwrap().push_str(&line);
        }
        let sink = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push('\n');
                log.push_str(&line);
            }
        });
        Some(Self { child, port: port.unwrap(), log, reader: Some(reader) })
    }

    pub(crate) fn client(&self, place: &Place, token: &str) -> Client {
        place.client(self.port, token)
    }

    /// Its number, for the operating system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the operating system allows it, as `/proc` shows it.
    pub(crate) fn limits(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap()
    }

    /// Waits until it died of its failpoint.
    pub(crate) fn died(mut self) {
        let status = self.child.wait().unwrap();
        assert!(!status.success(), "the server ended without dying");
    }

    /// Asks it to stop, as a container would be, and gives its log.
    pub(crate) fn terminate(mut self) -> String {
        let id = self.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(self.child.wait().unwrap().success(), "SIGTERM is a regular end");
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
