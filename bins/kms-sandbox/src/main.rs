//! The whole wallet KMS on this machine in one command: embedded stores, a local KMS key, TLS on
//! loopback, the real server, and a chain of its own (anvil). Everything is gone when it ends.
//!
//! It is for trying and for showing; it must never be where real money lies.

#![expect(clippy::print_stdout, reason = "the terminal is where people read it")]

mod stage;
mod tour;

use clap::{Parser, Subcommand};

use crate::stage::Stage;

/// The whole wallet KMS on this machine, for trying it.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Plays the story of two accounts, and exits 0 only if all of it happened.
    Tour,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Some(Command::Tour) => tour::play().await,
        None => stay().await,
    }
}

/// Runs the server until ctrl-c, for requests by hand.
async fn stay() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    println!("The server is at {}; its API is described at {0}/docs/.", stage.url());
    println!("The chain is at {}.\n", stage.anvil.url());
    println!("  curl --cacert {} \\", stage.certificate_path().display());
    println!("    -H 'Authorization: Bearer {}' \\", stage.token);
    println!("    {}/v1/network\n", stage.url());
    println!("Everything is gone after ctrl-c. `tour` plays a story instead.");
    tokio::signal::ctrl_c().await?;
    stage.clear().await;
    Ok(())
}
