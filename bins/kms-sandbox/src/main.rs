//! `kms-sandbox`: see `kms-sandbox --help`.

#![expect(clippy::print_stdout, reason = "the terminal is where people read it")]

use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, Subcommand};
use kms_sandbox::{Page, SECOND_CHAIN, Stage, StageOptions, tour};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the whole wallet KMS on this machine and shows two phones in a browser.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Port of the page; 0 chooses a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Also runs a second chain, whose coin has the symbol of the first one's.
    #[arg(long)]
    second_chain: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Plays a story of two users in the terminal; exits with 0 only if every step succeeds.
    Tour,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Tour) => tour::play().await,
        None => serve(&cli).await,
    }
}

/// Serves the page until ctrl-c or SIGTERM.
async fn serve(cli: &Cli) -> anyhow::Result<()> {
    let started = Instant::now();
    let stage = Arc::new(
        Stage::start(StageOptions {
            telegram_speed: 1,
            chat_passwords: false,
            second_chain: cli.second_chain.then_some(SECOND_CHAIN),
            ..StageOptions::default()
        })
        .await?,
    );
    let page = Page::open(Arc::clone(&stage), cli.port)?;
    println!("Two phones    {}", page.url());
    println!("Vault page    opens on the phones; its server is {}", stage.page_url());
    println!("Server        {} (API documentation at /docs/)", stage.url());
    let anvil = stage.anvil.version().replace("Version: ", "");
    println!("Chain         {} ({anvil})\n", stage.anvil.url());
    if let Some(second) = &stage.second {
        println!("Second chain  {}\n", second.url());
    }
    println!("To call the API by hand:");
    println!("  curl --cacert {} \\", stage.certificate_path().display());
    println!("    -H 'Authorization: Bearer {}' \\", stage.bearer);
    println!("    {}/v1/networks\n", stage.url());
    println!(
        "Ready in {:.1} s. Press ctrl-c to stop; everything is then deleted.",
        started.elapsed().as_secs_f64()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    // First what must not be found later: the server has read its keys.
    stage.delete_keys()?;
    let files = stage.directory().to_owned();
    page.close().await;
    // The page's worker drops what it served a moment after it is reported as stopped.
    for _ in 0..2_000 {
        if Arc::strong_count(&stage) == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    if let Some(stage) = Arc::into_inner(stage) {
        stage.stop().await;
    }
    anyhow::ensure!(!files.exists(), "{} was not deleted", files.display());
    Ok(())
}
