//! Runs schemathesis against a real server: whether its OpenAPI document is exact.
//!
//! `just openapi` installs schemathesis and starts this with the path of its program. The exit code
//! is that of schemathesis.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;
use kms_server_testing::{Stores, TestEnv, TestServer};

/// More than all generated requests together, so that a limit refuses none of them.
const NO_LIMIT: &str = "1000000/second";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let program = std::env::args().nth(1).context("usage: openapi <path of schemathesis>")?;
    let mut env = TestEnv::new(Stores::Embedded)?;
    for limit in [
        &mut env.limits.recoveries,
        &mut env.limits.all_recoveries,
        &mut env.limits.recoveries_without_email,
        &mut env.limits.exports,
        &mut env.limits.password_changes,
        &mut env.limits.email_codes,
        &mut env.limits.codes_to_an_address,
        &mut env.limits.onboardings,
        &mut env.limits.quotes,
        &mut env.limits.reads,
        &mut env.limits.account_reads,
    ] {
        *limit = NO_LIMIT.parse()?;
    }
    let server = TestServer::start(env).await;
    let ca = server.env.directory.path().join("ca.pem");
    std::fs::write(&ca, &server.env.certificate)?;
    server.ann_and_bob().await;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../bins/kms-server/tests/schemathesis")
        .canonicalize()?;
    let mut command = Command::new(program);
    command
        .current_dir(server.env.directory.path())
        .arg("--config-file")
        .arg(tests.join("schemathesis.toml"))
        .arg("run")
        .arg(server.url("/openapi.json"))
        .args(std::env::args().skip(2))
        .env("PYTHONPATH", &tests)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("KMS_URL", server.url(""))
        .env("KMS_TOKEN", &server.token)
        .env("KMS_CA", ca);
    let status = tokio::task::spawn_blocking(move || command.status()).await??;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
