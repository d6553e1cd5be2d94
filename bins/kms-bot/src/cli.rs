//! The commands of `kms-bot`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use kms_process::{Failure, StopSignal};
use kms_types::wire::Passwords;

use crate::bot::{self, Bot};
use crate::config::Settings;

/// The Telegram bot of the wallet KMS. It is configured by a TOML file, by `KMS_BOT__…` variables
/// and by `.env`.
#[derive(Debug, Parser)]
#[command(name = "kms-bot", version, about)]
pub struct Cli {
    /// A TOML file; environment variables override it.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the bot until SIGTERM or ctrl-c. One process per token.
    Serve,
    /// Shows the configuration with secrets masked, and tests the connections to Telegram and the
    /// server.
    CheckConfig,
}

/// Runs a command. `serve` ends the process itself.
///
/// # Errors
/// When `check-config` fails; the error says what to do next.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve => {
            kms_process::log_to_stdout();
            kms_process::exit(&serve(cli.config.as_deref()).await)
        }
        Command::CheckConfig => check_config(cli.config.as_deref()).await,
    }
}

async fn serve(config: Option<&Path>) -> Result<(), Failure> {
    kms_config::turn_core_dumps_off()?;
    let settings = Settings::load(config).map_err(|error| Failure::start(&error))?;
    // Before the line "polling", whose reader may stop the bot at once.
    let mut signal = StopSignal::listen()?;
    let mut bot = tokio::select! {
        bot = Bot::start(settings) => bot.map_err(|error| Failure::start(&error))?,
        () = signal.received() => return Ok(()),
    };
    let (username, ops_address) = (bot.username(), bot.ops_address());
    tracing::info!(event = "polling", username, %ops_address, "polling for updates");
    tokio::select! {
        () = signal.received() => {}
        failure = bot.failed() => return Err(failure),
    }
    tracing::info!(event = "stopping", "stopping");
    bot.stop().await
}

/// Where owners type their passwords.
async fn passwords(settings: &Settings) -> anyhow::Result<String> {
    let Passwords { by_token, page } =
        bot::client(settings)?.passwords().await.context("GET /v1/passwords")?;
    Ok(match (by_token, page) {
        (false, Some(page)) => format!("on the page only, {page}"),
        (true, Some(page)) => format!("in the chat until an owner uses the page, {page}"),
        (true, None) => "in the chat only: the server's page.app is not set".to_owned(),
        (false, None) => bail!(
            "the token has the scope chat and the server's page.app is not set: owners could type \
             their passwords nowhere; set page.app"
        ),
    })
}

#[expect(clippy::print_stdout, reason = "operators read it here")]
async fn check_config(config: Option<&Path>) -> anyhow::Result<()> {
    kms_config::turn_core_dumps_off().context("core dumps cannot be disabled")?;
    let settings = Settings::load(config)?;
    println!("{settings:#?}");
    let mut failed = 0;
    let mut report = |what: &str, result: anyhow::Result<String>| match result {
        Ok(found) => println!("ok      {what}: {found}"),
        Err(error) => {
            failed += 1;
            println!("failed  {what}: {}", kms_process::ErrorChain(&*error));
        }
    };
    report("telegram", bot::whoami(&settings).await.map_err(Into::into));
    let network = async {
        let networks = bot::client(&settings)?.networks().await.context("GET /v1/networks")?;
        let networks = networks.networks.into_iter();
        let named =
            networks.map(|network| format!("{} (chain {})", network.name, network.chain_id));
        Ok(named.collect::<Vec<_>>().join(", "))
    };
    report("server", network.await);
    report("passwords", passwords(&settings).await);
    ensure!(failed == 0, "{failed} of 3 checks failed");
    Ok(())
}
