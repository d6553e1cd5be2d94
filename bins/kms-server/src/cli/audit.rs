//! `kms-server audit`: verify, export, show.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Subcommand;
use kms_core::audit::{Chaining, Checkpoint, Leniency};
use kms_core::ports::AccountStore;
use kms_core::{RowMacError, ServerKeySet};
use kms_store::{AuditRow, Database, open_existing_key_database};
use kms_types::AccountRef;
use serde_json::json;

use super::record::Record;
use super::{connect, say};
use crate::config::Settings;

/// How many rows are read at once.
const PAGE: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Recomputes the whole chain and compares it with the checkpoints; fails if anything was
    /// changed, moved, removed or cut off, and names the first row.
    Verify {
        /// Accepts rows under an older version of the audit key after rows under a newer one, and
        /// checkpoints of such rows, up to this row number. During a rollover of the key, the
        /// servers that restart last write some.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        older_key_until: i64,
        /// Verifies without a checkpoint; rows cut off the end are then not detected.
        #[arg(long)]
        without_checkpoints: bool,
    },
    /// Prints all rows, one JSON object per line.
    Export,
    /// Prints the rows of one account.
    Show {
        /// The account id, or `telegram:` and the owner's Telegram id.
        #[arg(long)]
        account: AccountRef,
    },
}

pub(super) async fn run(mut settings: Settings, command: AuditCommand) -> anyhow::Result<()> {
    // Records from before a rotation are under a retired version.
    settings.server_keys = settings.server_keys.with_retired();
    match command {
        AuditCommand::Verify { older_key_until, without_checkpoints } => {
            verify(settings, Leniency { older_key_until }, without_checkpoints).await
        }
        AuditCommand::Export => {
            let database = connect(settings).await?;
            Record::new(&database, "audit_export", "").note().await;
            export(&database).await
        }
        AuditCommand::Show { account } => {
            let database = connect(settings).await?;
            Record::new(&database, "audit_show", &account.to_string()).note().await;
            show(&database, account).await
        }
    }
}

async fn verify(
    settings: Settings,
    leniency: Leniency,
    without_checkpoints: bool,
) -> anyhow::Result<()> {
    let mut read = Read::default();
    let keys = &settings.server_keys.audit;
    if let Some(path) = &settings.audit.checkpoint_path {
        read.take(&path.display().to_string(), &lines(path)?, keys);
    }
    let place = &settings.key_database;
    let key_database = open_existing_key_database(place.url.expose(), &place.name)
        .await
        .context("key_database.url")?;
    let kept = key_database.checkpoints().await.context("key_database")?;
    read.take("the key database", &kept, keys);
    for bad in &read.bad {
        say(bad);
    }
    let database = connect(settings).await?;
    let verified = database.verify_audit(&read.checkpoints, leniency).await?;
    say(&format!("{} rows in the chain", verified.tip.sequence));
    say(&match verified.checkpoint {
        Some(row) => format!("checkpoints cover rows up to {row}"),
        None => "no checkpoint: rows removed from the end are not detected".to_owned(),
    });
    for open in &verified.open {
        let (seq, at) = (open.place, open.at.0);
        let (action, request) = (&open.action, &open.request_id);
        say(&format!("without an outcome: seq {seq} at {at}, {action} in request {request}"));
    }
    if let Some(bad) = read.bad.first() {
        bail!("{bad}");
    }
    if verified.checkpoint.is_none() && !without_checkpoints {
        bail!("no checkpoint found; pass --without-checkpoints to verify without one");
    }
    say("the audit chain is intact");
    // Recorded after the verification, which must not change what it verifies. Nothing is appended
    // to a broken chain.
    Record::new(&database, "audit_verify", "").note().await;
    Ok(())
}

/// The checkpoints of the file and of the key database.
#[derive(Default)]
struct Read {
    checkpoints: Vec<Checkpoint>,
    /// Errors of the lines that are not valid checkpoints.
    bad: Vec<String>,
}

impl Read {
    fn take(&mut self, place: &str, lines: &[String], audit_keys: &ServerKeySet) {
        for (number, line) in (1..).zip(lines) {
            let checkpoint = match line.parse::<Checkpoint>() {
                Ok(checkpoint) => checkpoint,
                Err(error) => {
                    self.bad.push(format!("checkpoint {number} in {place}: {error}"));
                    continue;
                }
            };
            let why = match checkpoint.verify(audit_keys) {
                Ok(()) => {
                    self.checkpoints.push(checkpoint);
                    continue;
                }
                Err(RowMacError::NoKey(version) | RowMacError::Retired(version)) => {
                    format!("version {version} of the audit key is not configured")
                }
                Err(_) => "it was not signed with the audit key".to_owned(),
            };
            let row = checkpoint.tip.sequence;
            self.bad.push(format!("checkpoint {number} in {place}, of row {row}: {why}"));
        }
    }
}

fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("audit.checkpoint_path: {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

async fn export(database: &Database) -> anyhow::Result<()> {
    let mut place = i64::MIN;
    loop {
        let rows = database.audit_after(place, PAGE).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        place = last.sequence;
        // The lock is not held across the query of the next page.
        let mut out = std::io::stdout().lock();
        for row in &rows {
            writeln!(out, "{}", as_json(row))?;
        }
    }
}

fn as_json(row: &AuditRow) -> serde_json::Value {
    let chain = match row.chaining {
        Chaining::Malformed => json!("malformed"),
        Chaining::Linked(link) => json!({
            "number": link.sequence,
            "key": link.mac.key.as_u8(),
            "previous": hex::encode(link.previous),
            "hash": hex::encode(link.mac.tag),
        }),
    };
    json!({
        "seq": row.sequence, "at": row.at, "actor": row.actor, "request_id": row.request_id,
        "action": row.action, "subject": row.subject, "account": row.account,
        "telegram_id": row.telegram_id, "phase": row.phase, "outcome": row.outcome,
        "chain": chain,
    })
}

async fn show(database: &Database, account: AccountRef) -> anyhow::Result<()> {
    // Rows that were written before the account was read name only one of its two ids.
    let (id, telegram_id) = match (database.account(account).await?, account) {
        (Some(found), _) => (Some(found.id), Some(found.telegram_id)),
        (None, AccountRef::Id(id)) => (Some(id), None),
        (None, AccountRef::Telegram(id)) => (None, Some(id)),
    };
    let mut place = i64::MIN;
    loop {
        let rows = database.audit_of(id, telegram_id, place, PAGE).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        place = last.sequence;
        for row in &rows {
            let came = row.outcome.as_deref().unwrap_or("-");
            let about = row.subject.as_deref().unwrap_or("-");
            let AuditRow { sequence, at, actor, request_id, action, phase, .. } = row;
            let at = at.0;
            say(&format!(
                "{sequence}\t{at}\t{action}\t{about}\t{phase}\t{came}\t{actor}\t{request_id}"
            ));
        }
    }
}
