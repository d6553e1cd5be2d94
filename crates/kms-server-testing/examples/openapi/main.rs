//! Runs schemathesis against a real server: whether its OpenAPI document is exact.
//!
//! `just openapi` installs schemathesis and starts this with the path of its program. It fails if
//! schemathesis fails, or if an operation never succeeded: then the document of its answer was not
//! checked.

mod seeds;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;
use kms_server_testing::{Stores, TestEnv, TestServer};
use serde_json::Value;

/// More than all generated requests together, so that a limit refuses none of them.
const NO_LIMIT: &str = "1000000/second";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let program = std::env::args().nth(1).context("usage: openapi <path of schemathesis>")?;
    let mut env = TestEnv::new(Stores::Embedded)?;
    without_limits(&mut env)?;
    let mailbox = seeds::with_mail(&mut env)?;
    let server = TestServer::start(env).await;
    let file = |name: &str| server.env.directory.path().join(name);
    std::fs::write(file("ca.pem"), &server.env.certificate)?;
    std::fs::write(file("seeds.json"), seeds::make(&server, &mailbox).await?)?;
    std::fs::write(file("statuses"), "")?;
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
        .env("KMS_CA", file("ca.pem"))
        .env("KMS_SEEDS", file("seeds.json"))
        .env("KMS_STATUSES", file("statuses"));
    let status = tokio::task::spawn_blocking(move || command.status()).await??;
    let document: Value =
        server.raw().get(server.url("/openapi.json")).send().await?.json().await?;
    let statuses = std::fs::read_to_string(file("statuses"))?;
    let all_succeeded = report(&document, &statuses);
    Ok(if status.success() && all_succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn without_limits(env: &mut TestEnv) -> anyhow::Result<()> {
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
    Ok(())
}

/// Prints how often each operation of the document succeeded, of a file with a line `OPERATION
/// STATUS` for each answer. Returns whether every operation did at least once.
fn report(document: &Value, statuses: &str) -> bool {
    let paths = document["paths"].as_object().into_iter().flat_map(serde_json::Map::values);
    let operations = paths.filter_map(Value::as_object).flat_map(serde_json::Map::values);
    let names = operations.filter_map(|operation| operation["operationId"].as_str());
    let mut counts: BTreeMap<_, _> = names.map(|name| (name, (0_u32, 0_u32))).collect();
    for (operation, status) in statuses.lines().filter_map(|line| line.split_once(' ')) {
        if let Some((succeeded, answers)) = counts.get_mut(operation) {
            *succeeded += u32::from(status.starts_with('2'));
            *answers += 1;
        }
    }
    println!("\n{:24} {:>6} {:>8}", "operation", "2xx", "answers");
    for (name, (succeeded, answers)) in &counts {
        let missing = if *succeeded == 0 { "  never succeeded" } else { "" };
        println!("{name:24} {succeeded:>6} {answers:>8}{missing}");
    }
    !counts.is_empty() && counts.values().all(|(succeeded, _)| *succeeded > 0)
}
