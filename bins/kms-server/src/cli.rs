//! The commands of `kms-server`.

mod account;
mod audit;
mod audit_export;
mod audit_state;
mod check_config;
mod healthcheck;
mod keys;
mod moves;
mod operator;
mod payments;
mod proofs;
mod record;
mod recoveries;
mod rescue;
mod serve;
mod server_keys;
mod token;
mod vault;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kms_store::{ConnectError, Database, KeyDatabase, Step, open_key_database};

use self::record::Record;
use self::token::TokenCommand;
pub use self::token::issue;
use crate::clock::{self, Clocks};
use crate::config::{DatabaseSettings, DatabaseUrl, KeyDatabaseSettings, Settings};
use crate::database_url;

/// The wallet KMS over HTTPS. Configured by a file, by `KMS_SERVER__…` variables and by `.env`.
#[derive(Debug, Parser)]
#[command(name = "kms-server", version, about)]
pub struct Cli {
    /// A TOML file; environment variables take precedence over it.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM or ctrl-c.
    Serve(serve::ServeOptions),
    /// Migrates the schemas of both databases.
    Migrate {
        /// Prints the pending steps and what each of them locks, and changes nothing.
        #[arg(long)]
        plan: bool,
    },
    /// Asks a running server whether it is ready; exits with 1 if it is not.
    Healthcheck(healthcheck::HealthcheckOptions),
    /// Prints the effective settings, secrets masked, and tries everything that a server needs.
    CheckConfig,
    /// Creates, lists and revokes API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manages KMS keys and creates the server's own keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Freezes, unfreezes or rescues an account.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Lists, cancels and pauses password recoveries.
    #[command(subcommand)]
    Recoveries(recoveries::RecoveriesCommand),
    /// Pauses and resumes payments.
    #[command(subcommand)]
    Payments(payments::PaymentsCommand),
    /// Verifies and prints the audit: the record of every use of a key.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
}

/// Runs a command.
///
/// # Errors
/// When it fails; the error says what to do next.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let done = dispatch(cli).await;
    kms_store::alarms_recorded().await;
    done
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let config = cli.config.as_deref();
    let load = || -> anyhow::Result<Settings> {
        turn_core_dumps_off()?;
        Ok(Settings::load(config)?)
    };
    match cli.command {
        Command::Serve(options) => serve::run(config, &options).await,
        Command::Migrate { plan } => migrate(load()?, plan).await,
        Command::Healthcheck(options) => healthcheck::run(&options),
        Command::CheckConfig => check_config::run(load()?).await,
        Command::Token(TokenCommand::Generate { file }) => {
            turn_core_dumps_off()?;
            token::generate(&file)
        }
        Command::Token(command) => token::run(load()?, command).await,
        Command::Audit(audit::AuditCommand::VerifyExport(export)) => {
            audit::verify_export(&export).await
        }
        Command::Audit(command) => audit::run(load()?, command).await,
        Command::Keys(keys::KeysCommand::New { directory, id, bits }) => {
            turn_core_dumps_off()?;
            keys::new(&directory, &id, bits)
        }
        Command::Keys(command) => keys::run(load()?, command).await,
        Command::Account(command) => account::run(load()?, command).await,
        Command::Recoveries(command) => recoveries::run(load()?, command).await,
        Command::Payments(command) => payments::run(load()?, command).await,
    }
}

/// Turns core dumps off. Called before any secret is read.
fn turn_core_dumps_off() -> anyhow::Result<()> {
    kms_config::turn_core_dumps_off().context("core dumps cannot be turned off")
}

#[expect(clippy::print_stdout, reason = "operators read it there")]
fn say(text: &str) {
    println!("{text}");
}

async fn connect(settings: Settings) -> anyhow::Result<Database> {
    let DatabaseSettings { url, auth, pool, .. } = settings.database;
    let url = database_url::source(url, auth).await?;
    Ok(Database::connect_by(url, pool, Arc::new(settings.server_keys)).await?)
}

/// Compares the clocks of this machine and the database, for an act that loosens something: its
/// time extends waits, or is when a token or a proposal ends.
async fn agreeing_clocks(database: &Database) -> anyhow::Result<Clocks> {
    let clocks = clock::compare(database).await?;
    let (skew, most) = (clocks.skew.as_secs_f64(), clock::MAX_SKEW.as_secs());
    anyhow::ensure!(
        clocks.skew <= clock::MAX_SKEW,
        "the clocks of this machine and the database differ by {skew:.1} s; at most {most} s \
         is allowed; nothing was changed"
    );
    Ok(clocks)
}

async fn open_keys(settings: &Settings) -> Result<Arc<dyn KeyDatabase>, ConnectError> {
    let KeyDatabaseSettings { url, name } = &settings.key_database;
    open_key_database(url.expose(), name).await
}

async fn migrate(settings: Settings, only_plan: bool) -> anyhow::Result<()> {
    let key_database = open_keys(&settings).await.context("key_database.url");
    let DatabaseSettings { url, migrate_url, auth, pool } = settings.database;
    let keys = Arc::new(settings.server_keys);
    let open = async |url: DatabaseUrl| {
        let url = database_url::source(url, auth).await?;
        anyhow::Ok(Database::connect_by(url, pool, Arc::clone(&keys)).await?)
    };
    let database = open(url).await.context("database.url")?;
    let (owner, setting) = match migrate_url {
        Some(owner) => (Some(open(owner).await), "database.migrate_url"),
        None => (None, "database.url"),
    };
    let owner = owner.transpose().context(setting)?;
    let migrating = owner.as_ref().unwrap_or(&database);
    if only_plan {
        return print_plan(migrating).await.context(setting);
    }
    key_database?;
    migrating.migrate().await.context(setting)?;
    if let Some(owner) = owner {
        owner.grant_serving_role(&database).await.context("database.url")?;
    }
    say("the schemas are up to date");
    // Recorded afterwards, because the migration may create the audit table.
    Record::new(&database, "migrate", "").note().await;
    Ok(())
}

async fn print_plan(database: &Database) -> anyhow::Result<()> {
    let steps = database.migration_plan().await?;
    if steps.is_empty() {
        say("no migration is pending");
    }
    for Step { migration, what, lock } in steps {
        say(&format!("{migration}  {what}: {lock}"));
    }
    Ok(())
}
