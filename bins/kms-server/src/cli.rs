//! The commands of `kms-server`.

mod account;
mod audit;
mod audit_export;
mod audit_state;
mod check_config;
mod healthcheck;
mod keys;
mod operator;
mod proofs;
mod record;
mod recoveries;
mod rescue;
mod serve;
mod server_keys;
mod vault;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use kms_core::PlainToken;
use kms_store::{
    ApiToken, ConnectError, Database, KeyDatabase, ListedToken, Scope, Step, open_key_database,
};
use uuid::Uuid;

use self::record::Record;
use crate::clock;
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
    /// Verifies and prints the audit: the record of every use of a key.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Creates a token and prints it. It cannot be shown again.
    New {
        /// A name for it, 1 to 64 characters; names are not reused.
        name: String,
        /// Its scopes, separated by commas: bot, chat, admin, read.
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
        /// Days until it expires; without this option it never does.
        #[arg(long)]
        days: Option<u32>,
    },
    /// Lists all tokens.
    List,
    /// Revokes a token; every server rejects it within 5 seconds.
    Revoke {
        /// The token's name.
        name: String,
    },
}

/// Runs a command.
///
/// # Errors
/// When it fails; the error says what to do next.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
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
        Command::Token(command) => token(load()?, command).await,
        Command::Audit(audit::AuditCommand::VerifyExport(export)) => audit::verify_export(&export),
        Command::Audit(command) => audit::run(load()?, command).await,
        Command::Keys(keys::KeysCommand::New { directory, id, bits }) => {
            turn_core_dumps_off()?;
            keys::new(&directory, &id, bits)
        }
        Command::Keys(command) => keys::run(load()?, command).await,
        Command::Account(command) => account::run(load()?, command).await,
        Command::Recoveries(command) => recoveries::run(load()?, command).await,
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

async fn token(settings: Settings, command: TokenCommand) -> anyhow::Result<()> {
    let database = connect(settings).await?;
    match command {
        TokenCommand::New { name, scopes, days } => {
            let days = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
            let record = Record::new(&database, "token_new", named(&name)?);
            let made = record.around(async || issue(&database, name.clone(), scopes, days).await);
            say(made.await?.expose());
        }
        TokenCommand::List => {
            Record::new(&database, "token_list", "").note().await;
            let mut unreadable = 0;
            for ListedToken { name, token } in database.api_tokens().await? {
                match token {
                    Ok(token) => {
                        let scopes: Vec<_> = token.scopes.iter().map(Scope::to_string).collect();
                        let state = if token.is_valid(clock::now()) { "valid" } else { "ended" };
                        say(&format!("{name}\t{}\t{state}", scopes.join(",")));
                    }
                    Err(error) => {
                        unreadable += 1;
                        say(&format!("{}\t-\t{error}", name.escape_debug()));
                    }
                }
            }
            ensure!(unreadable == 0, "{unreadable} tokens cannot be read, and are refused");
        }
        TokenCommand::Revoke { name } => {
            let record = Record::new(&database, "token_revoke", named(&name)?);
            let revoke = async || {
                let revoked = database.revoke_api_token(&name, clock::now()).await?;
                ensure!(revoked, "no valid token is named {name}");
                Ok(())
            };
            record.around(revoke).await?;
            say("revoked");
            let asked = database.recoveries_requested_by(&name).await?;
            let open = database.open_recoveries().await?;
            let count = open.iter().filter(|recovery| asked.contains(&recovery.id)).count();
            if count > 0 {
                say(&format!(
                    "{count} open recoveries were requested with it; cancel them with `kms-server \
                     recoveries cancel --token {name}`"
                ));
            }
        }
    }
    Ok(())
}

fn named(name: &str) -> anyhow::Result<&str> {
    ensure!(!name.is_empty() && name.len() <= 64, "a token's name has 1 to 64 characters");
    Ok(name)
}

/// Issues a token under this name and stores its hash.
///
/// # Errors
/// When the name is in use or invalid, or the database does not answer.
pub async fn issue(
    database: &Database,
    name: String,
    scopes: Vec<Scope>,
    lifetime: Option<Duration>,
) -> anyhow::Result<PlainToken> {
    named(&name)?;
    let taken = database.api_tokens().await?.iter().any(|token| token.name == name);
    ensure!(!taken, "a token named {name} exists; names cannot be reused");
    let plain = PlainToken::generate();
    let created_at = clock::now();
    let token = ApiToken {
        id: Uuid::new_v4().to_string(),
        name,
        scopes,
        created_at,
        expires_at: lifetime.map(|lifetime| created_at.plus(lifetime)),
        revoked_at: None,
    };
    database.insert_api_token(token, plain.hash()).await?;
    Ok(plain)
}
