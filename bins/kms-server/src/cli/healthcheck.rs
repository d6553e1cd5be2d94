//! `kms-server healthcheck`, for images that contain no HTTP client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct HealthcheckOptions {
    /// The address of the server's operations listener, `ops.listen`.
    #[arg(long, default_value = "127.0.0.1:8081")]
    address: SocketAddr,
}

/// Requests `/readyz`.
pub(super) fn run(options: &HealthcheckOptions) -> anyhow::Result<()> {
    let answer = readiness(options.address)
        .with_context(|| format!("no server answers at {}", options.address))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    super::say(body);
    if head.split(' ').nth(1) != Some("200") {
        bail!("not ready");
    }
    Ok(())
}

fn readiness(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
