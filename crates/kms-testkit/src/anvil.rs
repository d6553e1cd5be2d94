//! anvil, an Ethereum development node with its own chain.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fetch::{self, Missing, Package};
use crate::process::{self, Process, Spec};
use crate::{Scratch, TestkitError};

const NPM: &[&str] = &["npm", "--version"];

const MISSING: Missing =
    Missing { program: "anvil", install: "put it on the PATH, or run: apt-get install npm" };

#[cfg(target_arch = "aarch64")]
const PACKAGE: Package = Package {
    name: "@foundry-rs/anvil-linux-arm64@1.7.1",
    program: "package/bin/anvil",
    unpack: "npm pack --silent @foundry-rs/anvil-linux-arm64@1.7.1
             tar -xzf *.tgz
             rm *.tgz",
    tool: NPM,
    missing: MISSING,
};

#[cfg(not(target_arch = "aarch64"))]
const PACKAGE: Package = Package {
    name: "@foundry-rs/anvil-linux-amd64@1.7.1",
    program: "package/bin/anvil",
    unpack: "npm pack --silent @foundry-rs/anvil-linux-amd64@1.7.1
             tar -xzf *.tgz
             rm *.tgz",
    tool: NPM,
    missing: MISSING,
};

/// Settings of an anvil node.
#[derive(Clone, Copy, Debug)]
pub struct AnvilOptions {
    /// The chain id (EIP-155).
    pub chain_id: u64,
    /// Seconds between blocks; by default every transaction is mined at once.
    pub block_time: Option<u64>,
    /// The rules of the chain, such as `berlin`, whose blocks have no base fee; by default the
    /// newest ones.
    pub hardfork: Option<&'static str>,
}

/// A running anvil node.
pub struct Anvil {
    process: Process,
    port: u16,
    chain_id: u64,
    version: String,
}

impl Default for AnvilOptions {
    fn default() -> Self {
        Self { chain_id: 31_337, block_time: None, hardfork: None }
    }
}

impl Anvil {
    /// Starts a fresh chain that mines every transaction at once. Takes a fraction of a second.
    ///
    /// # Errors
    /// When anvil is not on the PATH and cannot be fetched, or does not start.
    pub fn start() -> Result<Self, TestkitError> {
        Self::start_with(AnvilOptions::default())
    }

    /// Starts a fresh chain.
    ///
    /// # Errors
    /// As [`Anvil::start`].
    pub fn start_with(options: AnvilOptions) -> Result<Self, TestkitError> {
        let program = match process::on_path("anvil") {
            Some(program) => program,
            None => fetch::program(&PACKAGE)?,
        };
        let directory = Scratch::new("anvil")?;
        let port = process::free_port()?;
        let mut command = [
            &program.display().to_string(),
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--chain-id",
            &options.chain_id.to_string(),
            // By default it leaves the states of many blocks in the user's home.
            "--cache-path",
            &directory.path().display().to_string(),
            "--silent",
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(seconds) = options.block_time {
            command.extend(["--block-time".to_owned(), seconds.to_string()]);
        }
        if let Some(hardfork) = options.hardfork {
            command.extend(["--hardfork".to_owned(), hardfork.to_owned()]);
        }
        let version = process::version(&program)?;
        let spec = Spec { program: "anvil", command, stop: "KILL", directory };
        let mut process = Process::start(spec)?;
        process.wait_until(|| rpc(port, "eth_chainId", &json!([])).is_ok())?;
        Ok(Self { process, port, chain_id: options.chain_id, version })
    }

    /// The URL of its JSON-RPC endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The chain id (EIP-155).
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The version that it reports.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Calls a JSON-RPC method and returns its result. Blocks the thread.
    ///
    /// # Errors
    /// When anvil does not answer, or answers with an error.
    #[expect(clippy::needless_pass_by_value, reason = "reads well with json! at the call")]
    pub fn rpc(&self, method: &str, params: Value) -> Result<Value, TestkitError> {
        rpc(self.port, method, &params)
    }

    /// Sets the balance of an address, in wei.
    ///
    /// # Errors
    /// As [`Anvil::rpc`].
    pub fn set_balance(&self, address: &str, wei: u128) -> Result<(), TestkitError> {
        self.rpc("anvil_setBalance", json!([address, format!("{wei:#x}")])).map(drop)
    }

    /// Suspends it, so that it does not answer, as if the network were down.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn pause(&self) -> Result<(), TestkitError> {
        self.process.pause()
    }

    /// Resumes it after [`Anvil::pause`].
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resume(&self) -> Result<(), TestkitError> {
        self.process.resume()
    }

    /// Kills it. Its chain is lost.
    ///
    /// # Errors
    /// When the process is gone already.
    pub fn kill(&mut self) -> Result<(), TestkitError> {
        self.process.kill()
    }
}

/// Sends one request over HTTP/1.1; the server closes the connection.
fn rpc(port: u16, method: &str, params: &Value) -> Result<Value, TestkitError> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let refused = |answer: String| TestkitError::Refused { program: "anvil", answer };
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let mut body: Value = serde_json::from_str(body).map_err(|e| refused(e.to_string()))?;
    match body.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(refused(body.to_string())),
    }
}

impl std::fmt::Debug for Anvil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anvil").field("port", &self.port).finish_non_exhaustive()
    }
}
