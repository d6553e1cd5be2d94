//! The commands of `kms-bot`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::bot::{self, Bot};
use crate::config::Settings;

/// The Telegram bot of the wallet KMS. Configured by a file, by `KMS_BOT__…` variables and by
/// `.env`.
#[derive(Debug, Parser)]
#[command(name = "kms-bot", version, about)]
pub struct Cli {
    /// A TOML file; the environment wins over it.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Chats until SIGTERM or ctrl-c. One process for one token.
    Serve,
    /// Shows what it would run with, secrets masked, and tries both connections.
    CheckConfig,
}

/// Runs a command.
///
/// # Errors
/// When it fails; the error says what to do next.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    kms_config::turn_core_dumps_off().context("core dumps can not be turned off")?;
    let settings = Settings::load(cli.config.as_deref())?;
    match cli.command {
        Command::Serve => serve(settings).await,
        Command::CheckConfig => check_config(settings).await,
    }
}

/// JSON lines; `RUST_LOG` chooses, `info` by default.
async fn serve(settings: Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let starting = Bot::start(settings);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    let bot = tokio::select! {
        bot = starting => bot?,
        () = &mut stop => return Ok(()),
    };
    tracing::info!(username = bot.username(), "chatting");
    stop.await;
    tracing::info!("stopping");
    bot.stop().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is where people read it")]
async fn check_config(settings: Settings) -> anyhow::Result<()> {
    println!("{settings:#?}");
    let mut failed = 0;
    let mut report = |what: &str, result: anyhow::Result<String>| match result {
        Ok(found) => println!("ok      {what}: {found}"),
        Err(error) => {
            failed += 1;
            println!("failed  {what}: {error:#}");
        }
    };
    report("telegram", bot::whoami(&settings).await.map_err(Into::into));
    let network = async {
        let network = bot::client(&settings)?.network().await.context("GET /v1/network")?;
        Ok(format!("{} (chain {})", network.name, network.chain_id))
    };
    report("server", network.await);
    ensure!(failed == 0, "{failed} of 2 checks failed");
    Ok(())
}
