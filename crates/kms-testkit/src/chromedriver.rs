//! chromedriver and Chromium, for tests of pages in a real browser.

use std::net::TcpStream;
use std::path::PathBuf;

use crate::process::{self, Process, Spec};
use crate::{Scratch, TestkitError};

/// A running chromedriver. Closes the browsers that it started when it stops.
#[derive(Debug)]
pub struct Chromedriver {
    port: u16,
    chromium: PathBuf,
    version: String,
    _process: Process,
}

impl Chromedriver {
    /// Starts it. Each WebDriver session starts a browser.
    ///
    /// # Errors
    /// When chromedriver or Chromium is not on the PATH, or chromedriver does not start.
    pub fn start() -> Result<Self, TestkitError> {
        let missing = |program| TestkitError::Missing {
            program,
            install: "run: apt-get install chromium chromium-driver, or: just setup",
        };
        let program = process::on_path("chromedriver").ok_or_else(|| missing("chromedriver"))?;
        let chromium = process::on_path("chromium").ok_or_else(|| missing("chromium"))?;
        let version = process::version(&chromium)?;
        let port = process::free_port()?;
        let command = vec![program.display().to_string(), format!("--port={port}")];
        let directory = Scratch::new("chromedriver")?;
        let spec = Spec { program: "chromedriver", command, stop: "TERM", directory };
        let mut process = Process::start(spec)?;
        process.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { port, chromium, version, _process: process })
    }

    /// The URL of its WebDriver endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The version that Chromium reports.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The path of Chromium and its arguments: without a screen, without its sandbox (which root
    /// cannot use) and without connections to other hosts.
    #[must_use]
    pub fn browser(&self) -> (String, [&'static str; 7]) {
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
        ];
        (self.chromium.display().to_string(), arguments)
    }
}
