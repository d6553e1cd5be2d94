//! `kms-server token`: creates, lists and revokes API tokens.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::DateTime;
use clap::Subcommand;
use kms_core::PlainToken;
use kms_core::audit::Action;
use kms_store::{ApiToken, Database, ListedToken, Scope};
use kms_types::Timestamp;
use uuid::Uuid;

use super::operator::Why;
use super::record::Record;
use super::{agreeing_clocks, connect, say};
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
        /// Days until it expires.
        #[arg(long, default_value_t = 365)]
        days: u32,
        /// It never expires.
        #[arg(long, conflicts_with = "days")]
        forever: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Makes a token, writes it to a file that only this user can read, and prints its hash, to be
    /// declared in `tokens`. Needs no database and no configuration.
    Generate {
        /// The file; must not exist.
        file: PathBuf,
    },
    /// Lists all tokens: name, scopes, state, and the days on which each was made, expires, and was
    /// used last.
    List,
    /// Revokes a token; every server rejects it within 5 seconds.
    Revoke {
        /// The token's name.
        name: String,
        #[command(flatten)]
        why: Why,
    },
}

pub(super) async fn run(settings: Settings, command: TokenCommand) -> anyhow::Result<()> {
    let declared = settings.tokens.clone();
    let is_declared = |name: &str| declared.iter().any(|token| token.name == name);
    let database = connect(settings).await?;
    match command {
        TokenCommand::Generate { file } => generate(&file)?,
        TokenCommand::New { name, scopes, days, forever, why } => {
            ensure!(!is_declared(&name), "tokens declares {name}; choose another name");
            let lifetime = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
            let lifetime = (!forever).then_some(lifetime);
            let record = Record::new(&database, "token_new", named(&name)?);
            let record = record.because(why.reason.as_ref());
            let issue = async || {
                agreeing_clocks(&database).await?;
                issue(&database, name.clone(), scopes, lifetime).await
            };
            let made = record.around(issue);
            say(made.await?.expose());
        }
        TokenCommand::List => {
            Record::new(&database, "token_list", "").note().await;
            for token in declared {
                say(&line(&token.api_token(), "declared", None));
            }
            let mut unreadable = 0;
            for ListedToken { name, token, last_used_at } in database.api_tokens().await? {
                match token {
                    Ok(token) => {
                        let state = if token.is_valid(clock::now()) { "valid" } else { "ended" };
                        say(&line(&token, state, Some(last_used_at)));
                    }
                    Err(error) => {
                        unreadable += 1;
                        say(&format!("{}\t-\t{error}", name.escape_debug()));
                    }
                }
            }
            ensure!(unreadable == 0, "{unreadable} tokens cannot be read, and are refused");
        }
        TokenCommand::Revoke { name, why } => {
            ensure!(!is_declared(&name), "remove {name} from tokens, and restart every server");
            let hash = database.api_token_hash(named(&name)?).await?;
            let hash = hash.with_context(|| format!("no token is named {name}"))?;
            let record = Record::of(&database, Action::RevokeToken(hash), &name);
            let record = record.because(why.reason.as_ref());
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

/// A line of the list; `last_used_at` is given for tokens of the database, which have times.
fn line(token: &ApiToken, state: &str, last_used_at: Option<Option<Timestamp>>) -> String {
    let scopes: Vec<_> = token.scopes.iter().map(Scope::to_string).collect();
    let line = format!("{}\t{}\t{state}", token.name, scopes.join(","));
    let Some(used) = last_used_at else { return line };
    let (made, expires) = (day(token.created_at), token.expires_at.map(day));
    let (expires, used) = (expires.as_deref().unwrap_or("never"), used.map(day));
    let used = used.as_deref().unwrap_or("never");
    format!("{line}\tmade {made}\texpires {expires}\tused {used}")
}

fn day(at: Timestamp) -> String {
    DateTime::from_timestamp_millis(at.0).map_or_else(String::new, |at| at.date_naive().to_string())
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
