//! `kms-server audit`: verify, export, show.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use kms_core::RowMacError;
use kms_core::audit::{Checkpoint, CheckpointKeys, Details, Leniency, Tip, Verified};
use kms_core::launch::LaunchVerifier;
use kms_core::ports::AccountStore;
use kms_store::{AuditRow, Database, ListedAccount, open_existing_key_database};
use kms_types::AccountRef;

use super::audit_export::{ExportedRow, verify_rows};
use super::audit_state::AuditedAccounts;
use super::record::Record;
use super::{connect, proofs, say};
use crate::checkpoint_archive::{CheckpointArchive, CheckpointSource, FoundCheckpoints};
use crate::clock;
use crate::config::{PageSettings, Settings};

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
        /// Reads checkpoints from here and from the key database, in place of the configured
        /// places: a file, a folder with a copy of the bucket, or s3://BUCKET/PREFIX.
        #[arg(long, value_name = "PLACE")]
        checkpoints: Option<CheckpointSource>,
        /// Also compares every account with the chain, and names those that disagree: of another
        /// address, frozen or not, without a creation. Stop the servers first, or repeat it.
        #[arg(long)]
        against_state: bool,
        /// Checks the openings of the vault page that wallets were made, recovered and exported
        /// by, against Telegram's public key, and names the acts without one.
        #[arg(long)]
        proofs: bool,
    },
    /// Prints all rows, one JSON object per line.
    Export,
    /// Prints all checkpoints, one per line.
    Checkpoints,
    /// Prints the public halves of the checkpoint key, for `verify-export`.
    PublicKeys,
    /// Continues the chain where a restored database ends: checkpoints of the rows that were lost
    /// are void from then on. The rows that are left must be intact. Stop every server first.
    Adopt {
        /// Why, for the audit.
        #[arg(long)]
        reason: String,
    },
    /// Verifies what `export` printed, with the checkpoints and their public keys alone: needs no
    /// configuration, no database and no secret.
    VerifyExport(VerifyExport),
    /// Prints the rows of one account.
    Show {
        /// The account id, or `telegram:` and the owner's Telegram id.
        #[arg(long)]
        account: AccountRef,
    },
}

#[derive(Debug, Args)]
pub(super) struct VerifyExport {
    /// The rows: a file, or standard input.
    rows: Option<PathBuf>,
    /// The checkpoints: a file, a folder with a copy of the bucket, or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "PLACE")]
    checkpoints: CheckpointSource,
    /// The public keys, as `public-keys` printed them; from a source that the operator of the
    /// server cannot replace.
    #[arg(long)]
    public_keys: CheckpointKeys,
    /// As for `verify`.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    older_key_until: i64,
}

pub(super) async fn run(mut settings: Settings, command: AuditCommand) -> anyhow::Result<()> {
    // Records from before a rotation are under a retired version.
    settings.server_keys = settings.server_keys.with_retired();
    match command {
        AuditCommand::VerifyExport(export) => verify_export(&export).await,
        AuditCommand::Adopt { reason } => adopt(settings, &reason).await,
        AuditCommand::Checkpoints => {
            let lines = all_lines(&settings).await?;
            lines.iter().for_each(|line| say(line));
            Ok(())
        }
        AuditCommand::PublicKeys => {
            say(&CheckpointKeys::of(&settings.server_keys.checkpoint).to_string());
            Ok(())
        }
        AuditCommand::Verify {
            older_key_until,
            without_checkpoints,
            checkpoints,
            against_state,
            proofs,
        } => {
            let places = match checkpoints {
                Some(place) => vec![place],
                None => CheckpointSource::configured(&settings.audit),
            };
            let leniency = Leniency { older_key_until };
            let PageSettings { telegram_key: key, bots, .. } = settings.page.clone();
            let verifier = proofs.then_some(LaunchVerifier { key, bots });
            let further = Further { against_state, proofs: verifier };
            let read = Read::all(&places, &settings).await?;
            verify(settings, leniency, without_checkpoints, read, further).await
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

/// What is verified after the chain.
struct Further {
    against_state: bool,
    proofs: Option<LaunchVerifier>,
}

async fn verify(
    settings: Settings,
    leniency: Leniency,
    without_checkpoints: bool,
    read: Read,
    Further { against_state, proofs }: Further,
) -> anyhow::Result<()> {
    for bad in &read.bad {
        say(bad);
    }
    let database = connect(settings).await?;
    let mut audited = AuditedAccounts::default();
    let verified = database
        .verify_audit_rows(&read.checkpoints, leniency, |row| {
            if against_state {
                audited.push(row);
            }
        })
        .await?;
    report(&verified);
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
    if against_state {
        compare_accounts(&database, audited).await?;
    }
    if let Some(verifier) = proofs {
        proofs::verify(&database, &verifier).await?;
    }
    // Recorded after the verification, which must not change what it verifies. Nothing is appended
    // to a broken chain.
    Record::new(&database, "audit_verify", "").note().await;
    Ok(())
}

/// Verifies the rows that are left, signs the end of the chain as the one to continue, and records
/// what was lost.
async fn adopt(settings: Settings, reason: &str) -> anyhow::Result<()> {
    let archive = CheckpointArchive::open(&settings.audit).await?;
    let lines = all_lines(&settings).await?;
    let place = &settings.key_database;
    let key_database = open_existing_key_database(place.url.expose(), &place.name).await?;
    let database = connect(settings).await?;
    let keys = database.checkpoint_keys();
    let known = lines.iter().filter_map(|line| line.parse::<Checkpoint>().ok());
    let known: Vec<_> = known.filter(|known| known.verify(&keys).is_ok()).collect();
    let mut known = Checkpoint::in_force(&known);
    known.sort_by_key(|known| known.tip.sequence);
    let (mut left, mut lost_to) = (Tip::default(), None);
    for checkpoint in &known {
        if !database.has_audit_row(checkpoint.tip).await? {
            lost_to = Some(checkpoint.tip.sequence);
        } else if lost_to.is_none() {
            left = checkpoint.tip;
        }
    }
    let lost_to = lost_to.context("nothing was lost: the chain has the row of every checkpoint")?;
    let adoption = database.adopt_audit(left, clock::now());
    known.push(adoption);
    database.verify_audit(&known, Leniency::default()).await?;
    let lost_from = left.sequence.saturating_add(1);
    let details = Details::default().with("lost_from", lost_from).with("lost_to", lost_to);
    let record = Record::new(&database, "audit_adopt", "").with(details.with("reason", reason));
    record
        .around(async || {
            key_database.put_checkpoint(adoption).await.context("key_database")?;
            Ok(archive.add(adoption).await?)
        })
        .await?;
    say(&format!("checkpoints of rows {lost_from} to {lost_to} are void; the chain goes on"));
    Ok(())
}

/// Compares every account with the chain.
async fn compare_accounts(database: &Database, mut audited: AuditedAccounts) -> anyhow::Result<()> {
    let (mut after, mut different) = (String::new(), 0_u64);
    loop {
        let page = database.accounts_after(&after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id.clone();
        for ListedAccount { id, account } in page {
            let contradictions = match account {
                Ok(account) => audited.compare(&account).into_iter().map(str::to_owned).collect(),
                Err(error) => vec![error.to_string()],
            };
            for what in contradictions {
                say(&format!("account {id}: {what}"));
                different += 1;
            }
        }
    }
    for id in audited.missing() {
        say(&format!("account {id}: it was created, but has no row"));
        different += 1;
    }
    ensure!(different == 0, "{different} contradictions between the accounts and the audit");
    say("all accounts agree with the audit");
    Ok(())
}

/// Verifies an export, as an auditor without any secret.
pub(super) async fn verify_export(export: &VerifyExport) -> anyhow::Result<()> {
    let VerifyExport { rows, checkpoints, public_keys: keys, older_key_until } = export;
    let leniency = Leniency { older_key_until: *older_key_until };
    let mut read = Read::default();
    read.take_from(checkpoints, keys).await?;
    if let Some(bad) = read.bad.first() {
        bail!("{bad}");
    }
    let verified = verify_rows(rows.as_deref(), &read.checkpoints, keys, leniency)?;
    report(&verified);
    let covered = verified.checkpoint.context(
        "no checkpoint is under the newest public key: nothing proves that these are the \
         rows of the server",
    )?;
    say(&format!("the audit chain is intact and signed up to row {covered}"));
    Ok(())
}

fn report(verified: &Verified) {
    say(&format!("{} rows in the chain", verified.tip.sequence));
    say(&match verified.checkpoint {
        Some(row) => format!("checkpoints cover rows up to {row}"),
        None => "no checkpoint: rows removed from the end are not detected".to_owned(),
    });
}

/// The checkpoints of all places.
#[derive(Default)]
struct Read {
    checkpoints: Vec<Checkpoint>,
    /// Errors of the lines that are not valid checkpoints, and objects that were deleted.
    bad: Vec<String>,
}

impl Read {
    async fn all(places: &[CheckpointSource], settings: &Settings) -> anyhow::Result<Self> {
        let mut read = Self::default();
        let keys = CheckpointKeys::of(&settings.server_keys.checkpoint);
        for place in places {
            read.take_from(place, &keys).await?;
        }
        read.take("the key database", &key_database_lines(settings).await?, &keys);
        Ok(read)
    }

    async fn take_from(
        &mut self,
        place: &CheckpointSource,
        keys: &CheckpointKeys,
    ) -> anyhow::Result<()> {
        let found = place_lines(place).await?;
        self.take(&place.to_string(), &found.lines, keys);
        let deleted = found.deleted.iter();
        self.bad.extend(deleted.map(|name| {
            format!("{name} in {place} was deleted; it was read from its older version")
        }));
        Ok(())
    }

    fn take(&mut self, place: &str, lines: &[String], keys: &CheckpointKeys) {
        for (number, line) in (1..).zip(lines) {
            let checkpoint = match line.parse::<Checkpoint>() {
                Ok(checkpoint) => checkpoint,
                Err(error) => {
                    self.bad.push(format!("checkpoint {number} in {place}: {error}"));
                    continue;
                }
            };
            let why = match checkpoint.verify(keys) {
                Ok(()) => {
                    self.checkpoints.push(checkpoint);
                    continue;
                }
                Err(RowMacError::NoKey(version) | RowMacError::Retired(version)) => {
                    format!("version {version} of the checkpoint key is not known")
                }
                Err(RowMacError::Mismatch) => {
                    "it was not signed with the checkpoint key".to_owned()
                }
            };
            let row = checkpoint.tip.sequence;
            self.bad.push(format!("checkpoint {number} in {place}, of row {row}: {why}"));
        }
    }
}

async fn place_lines(place: &CheckpointSource) -> anyhow::Result<FoundCheckpoints> {
    let found = place.read().await;
    found.with_context(|| format!("the checkpoints in {place} cannot be read"))
}

async fn key_database_lines(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let place = &settings.key_database;
    let key_database = open_existing_key_database(place.url.expose(), &place.name)
        .await
        .context("key_database.url")?;
    key_database.checkpoints().await.context("key_database")
}

/// The lines of all places, each once.
async fn all_lines(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let mut lines = key_database_lines(settings).await?;
    let mut seen: BTreeSet<_> = lines.iter().cloned().collect();
    for place in CheckpointSource::configured(&settings.audit) {
        let found = place_lines(&place).await?.lines.into_iter();
        lines.extend(found.filter(|line| seen.insert(line.clone())));
    }
    Ok(lines)
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
            writeln!(out, "{}", serde_json::to_string(&ExportedRow::from(row))?)?;
        }
    }
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
