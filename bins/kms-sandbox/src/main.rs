//! `kms-sandbox`: see `kms-sandbox --help`.

#![expect(clippy::print_stdout, reason = "the terminal is where people read it")]

use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, Subcommand};
use kms_sandbox::{Page, Stage, StageOptions, tour};
use tokio::signal::unix::{SignalKind, signal};

/// The whole wallet KMS on this machine, with two phones in a browser.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// The page's port; a free one without it.
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Plays the story of two people in the terminal, and exits 0 only if all of it happened.
    Tour,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Tour) => tour::play().await,
        None => stay(cli.port).await,
    }
}

/// Runs until ctrl-c.
async fn stay(port: u16) -> anyhow::Result<()> {
    let started = Instant::now();
    let stage = Arc::new(Stage::start(StageOptions::default()).await?);
    let page = Page::open(Arc::clone(&stage), port)?;
    println!("Two phones are at      {}", page.url());
    println!("The server is at       {}; its API is described at /docs/", stage.url());
    println!("The chain is at        {} ({})\n", stage.anvil.url(), stage.anvil.version());
    println!("For requests by hand:");
    println!("  curl --cacert {} \\", stage.certificate_path().display());
    println!("    -H 'Authorization: Bearer {}' \\", stage.bearer);
    println!("    {}/v1/network\n", stage.url());
    println!("Ready in {:.1} s. Everything is gone after ctrl-c.", started.elapsed().as_secs_f64());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    page.close().await;
    if let Some(stage) = Arc::into_inner(stage) {
        stage.stop().await;
    }
    Ok(())
}
