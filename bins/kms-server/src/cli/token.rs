//! `kms-server token`: creates, lists and revokes API tokens.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Subcommand;
use kms_core::PlainToken;
use kms_core::audit::Action;
use kms_store::{ApiToken, Database, ListedToken, Scope};
use uuid::Uuid;

use super::record::Record;
use super::{connect, say};
use crate::clock;
use crate::config::{MAX_TOKEN_NAME, Settings};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
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
    /// Makes a token, writes it to a file that only this user can read, and prints its hash, to be
    /// declared in `tokens`. Needs no database and no configuration.
    Generate {
        /// The file; must not exist.
        file: PathBuf,
    },
    /// Lists all tokens.
    List,
    /// Revokes a token; every server rejects it within 5 seconds.
    Revoke {
        /// The token's name.
        name: String,
    },
}

pub(super) async fn run(settings: Settings, command: TokenCommand) -> anyhow::Result<()> {
    let declared = settings.tokens.clone();
    let is_declared = |name: &str| declared.iter().any(|token| token.name == name);
    let database = connect(settings).await?;
    match command {
        TokenCommand::Generate { file } => generate(&file)?,
        TokenCommand::New { name, scopes, days } => {
            ensure!(!is_declared(&name), "tokens declares {name}; choose another name");
            let days = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
            let record = Record::new(&database, "token_new", named(&name)?);
            let made = record.around(async || issue(&database, name.clone(), scopes, days).await);
            say(made.await?.expose());
        }
        TokenCommand::List => {
            Record::new(&database, "token_list", "").note().await;
            for token in declared {
                say(&line(&token.api_token(), "declared"));
            }
            let mut unreadable = 0;
            for ListedToken { name, token } in database.api_tokens().await? {
                match token {
                    Ok(token) => {
                        let state = if token.is_valid(clock::now()) { "valid" } else { "ended" };
                        say(&line(&token, state));
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
            ensure!(!is_declared(&name), "remove {name} from tokens, and restart every server");
            let hash = database.api_token_hash(named(&name)?).await?;
            let hash = hash.with_context(|| format!("no token is named {name}"))?;
            let record = Record::of(&database, Action::RevokeToken(hash), &name);
            let revoke = async || {
                let revoked = database.revoke_api_token(&name, clock::now()).await?;
                ensure!(revoked, "no token is named {name}");
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

/// Writes a new token to a new file, and prints its hash.
pub(super) fn generate(file: &Path) -> anyhow::Result<()> {
    let plain = PlainToken::generate();
    let mut new = File::options();
    let opened = new.write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| writeln!(file, "{}", plain.expose()));
    written.with_context(|| file.display().to_string())?;
    say(&hex::encode(plain.hash().as_bytes()));
    Ok(())
}

fn line(token: &ApiToken, state: &str) -> String {
    let scopes: Vec<_> = token.scopes.iter().map(Scope::to_string).collect();
    format!("{}\t{}\t{state}", token.name, scopes.join(","))
}

fn named(name: &str) -> anyhow::Result<&str> {
    let is_right = (1..=MAX_TOKEN_NAME).contains(&name.len());
    ensure!(is_right, "a token's name has 1 to {MAX_TOKEN_NAME} characters");
    // It is printed with the audit.
    ensure!(!name.contains(char::is_control), "a token's name has no control characters");
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
