//! `kms-server keys`: create, list, activate, rewrap, verify and retire KMS keys, and adopt their
//! database. What concerns the server's own keys is in `server_keys`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use kms_core::ports::StoreError;
use kms_core::{CustodyError, MasterKeyId, Rewrapped, ServerKeyId};

use super::operator::operator;
use super::record::Record;
use super::server_keys::{self, KeyLine};
use super::vault::{Held, Vault};
use super::{connect, open_keys, say};
use crate::clock;
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Creates a directory with a KMS key and the server's six keys, and prints the settings.
    New {
        /// The directory; must not exist.
        #[arg(long, default_value = "keys")]
        directory: PathBuf,
        /// The KMS key's id.
        #[arg(long, default_value = "kms-1")]
        id: MasterKeyId,
        /// The size of the KMS key: 3072 or 4096.
        #[arg(long, default_value_t = 4096)]
        bits: u32,
    },
    /// Lists all keys: id, provider, role, and how much depends on it: for a KMS key the wallets
    /// whose SCK (symmetric cryptographic key) it wraps, for a server key the rows of each table.
    List {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Probes a key of `older_kms_keys`, and prints how to make it the active one. The active key
    /// is chosen in the configuration of each server alone.
    Activate {
        /// The key's id.
        id: MasterKeyId,
    },
    /// Wraps all SCKs with the active KMS key. Safe to run beside servers, to interrupt and to
    /// repeat.
    Rewrap,
    /// Moves the MACs of all rows to the newest row key. Safe to run beside servers, to interrupt
    /// and to repeat; a row that fails its check is named and left as it is.
    Remac,
    /// Seals contacts and signed transactions under the newest contact key. Safe to run beside
    /// servers, to interrupt and to repeat.
    Reseal,
    /// Checks that every wallet can be recovered, and fails if one cannot.
    Verify {
        /// Also unwraps every SCK with its KMS key.
        #[arg(long)]
        decrypt: bool,
    },
    /// Makes this account database the owner of the key database: after a restore of either of
    /// them, with every server stopped, and never for a copy beside the original.
    Adopt {
        /// Why, for the audit.
        #[arg(long)]
        reason: String,
    },
    /// Checks whether an older key is still needed, and prints what to change if it is not.
    Retire {
        /// The id of a KMS key; or pepper, contact, row, audit, codes or checkpoint, with
        /// a version.
        id: MasterKeyId,
        /// The version of the server key.
        version: Option<ServerKeyId>,
    },
}

pub(super) async fn run(mut settings: Settings, command: KeysCommand) -> anyhow::Result<()> {
    if let KeysCommand::Remac | KeysCommand::Reseal | KeysCommand::Retire { .. } = command {
        settings.server_keys = settings.server_keys.with_retired();
    }
    match command {
        KeysCommand::New { directory, id, bits } => new(&directory, &id, bits),
        KeysCommand::List { json } => list(&Vault::open(settings).await?, json).await,
        KeysCommand::Activate { id } => activate(&Vault::open(settings).await?, &id).await,
        KeysCommand::Rewrap => rewrap(&Vault::open(settings).await?).await,
        KeysCommand::Remac => server_keys::remac(&Vault::open(settings).await?).await,
        KeysCommand::Reseal => server_keys::reseal(&Vault::open(settings).await?).await,
        KeysCommand::Verify { decrypt } => verify(&Vault::open(settings).await?, decrypt).await,
        KeysCommand::Adopt { reason } => adopt(settings, &reason).await,
        KeysCommand::Retire { id, version: None } => {
            retire(&Vault::open(settings).await?, &id).await
        }
        KeysCommand::Retire { id, version: Some(version) } => {
            let kind = id
                .to_string()
                .parse()
                .context("a version is of pepper, contact, row, audit, codes or checkpoint")?;
            server_keys::retire(&Vault::open(settings).await?, kind, version).await
        }
    }
}

/// Creates keys and prints their settings. Needs no configuration itself.
pub(super) fn new(directory: &Path, id: &MasterKeyId, bits: u32) -> anyhow::Result<()> {
    crate::keys::create(directory, id.clone(), bits)?;
    say(&crate::keys::configuration(directory, id));
    Ok(())
}

async fn list(vault: &Vault, json: bool) -> anyhow::Result<()> {
    vault.record("keys_list", "").note().await;
    let mut census = vault.census().await?;
    let line = |key: &MasterKeyId, provider, role, count| {
        let of = BTreeMap::from([("wallets".to_owned(), count)]);
        KeyLine { key: key.to_string(), provider, role, count, of }
    };
    let mut lines = Vec::new();
    for key in vault.keys() {
        let role = if key.id == vault.active.id { "active" } else { "only unwraps" };
        let count = census.under.remove(&key.id).unwrap_or_default();
        lines.push(line(&key.id, key.provider.name(), role, count));
    }
    lines.extend(census.under.iter().map(|(id, count)| line(id, "-", "not configured", *count)));
    lines.extend(server_keys::list(vault).await?);
    if json {
        say(&serde_json::to_string_pretty(&lines)?);
        return Ok(());
    }
    for KeyLine { key, provider, role, count, of } in lines {
        let of: Vec<_> = of.iter().map(|(what, count)| format!("{what} {count}")).collect();
        say(&format!("{key}\t{provider}\t{role}\t{count}\t{}", of.join(", ")));
    }
    let lost = census.lost();
    if lost > 0 {
        say(&format!("{lost} wallets have no usable wrapped key; see `kms-server keys verify`"));
    }
    Ok(())
}

async fn activate(vault: &Vault, id: &MasterKeyId) -> anyhow::Result<()> {
    let custody = vault.custody().await?;
    ensure!(
        vault.keys().any(|key| key.id == *id),
        "no KMS key {id} is configured: add it to older_kms_keys of every server first, so that \
         each can unwrap what another wraps"
    );
    let works = custody.probe_kms_key(id, &operator("keys activate"), clock::now()).await;
    works.with_context(|| format!("{id} cannot be used"))?;
    if *id == vault.active.id {
        say(&format!("{id} works, and is the active key"));
        return Ok(());
    }
    let active = &vault.active.id;
    say(&format!(
        "{id} works. Once every server has it under older_kms_keys: make it kms_key, move {active} \
         to older_kms_keys, restart every server, and run `kms-server keys rewrap`"
    ));
    Ok(())
}

async fn adopt(settings: Settings, reason: &str) -> anyhow::Result<()> {
    ensure!(!reason.trim().is_empty() && reason.len() <= 200, "a reason has 1 to 200 characters");
    // Created if it was lost.
    let key_database = open_keys(&settings).await.context("key_database")?;
    let database = connect(settings).await.context("database")?;
    database.check_server_keys().await?;
    let adopt = async || Ok(database.adopt_key_database(&*key_database).await?);
    Record::new(&database, "keys_adopt", reason).around(adopt).await?;
    say("the key database belongs to this account database; servers of its copies are refused");
    Ok(())
}

async fn rewrap(vault: &Vault) -> anyhow::Result<()> {
    vault.check_owner().await?;
    vault.record("keys_rewrap", "").around(async || move_all(vault).await).await
}

async fn move_all(vault: &Vault) -> anyhow::Result<()> {
    let active = &vault.active.id;
    let custody = vault.custody().await?;
    let total = vault.census().await?.total();
    let (mut moved, mut seen) = (0_u64, 0_u64);
    let mut said = Instant::now();
    vault
        .each(async |listed| {
            seen += 1;
            let done = match listed.account {
                Ok(account) => {
                    let operator = operator("keys rewrap");
                    custody.rewrap(account.id.into(), &operator, clock::now()).await
                }
                Err(error) => Err(error.into()),
            };
            match done {
                Ok(Rewrapped::Moved) => moved += 1,
                // Another `rewrap` runs beside this one; the census at the end counts what is left.
                Ok(Rewrapped::AlreadyActive) | Err(CustodyError::Conflict) => {}
                Err(error) if is_temporary(&error) => {
                    return Err(error).context("run it again: it continues where it stopped");
                }
                Err(error) => say(&format!("{}\t{error}", listed.id)),
            }
            if seen.is_multiple_of(100) || said.elapsed() >= Duration::from_secs(1) {
                say(&format!("{} {moved} moved to {active}", bar(seen, total)));
                said = Instant::now();
            }
            Ok(())
        })
        .await?;
    // Counted again, because servers have handled requests meanwhile.
    let census = vault.census().await?;
    let left = census.under.iter().filter(|(id, _)| *id != active).map(|(_, count)| count);
    let left = left.sum::<u64>() + census.lost();
    say(&format!("{moved} moved to {active}, {left} left"));
    ensure!(left == 0, "{left} wallets are not under {active}");
    Ok(())
}

/// Formats the progress: `[#####---------------]  25 % of 400 wallets,`
fn bar(seen: u64, total: u64) -> String {
    // Wallets may be created meanwhile.
    let percent = (seen.saturating_mul(100) / total.max(1)).min(100);
    let full = usize::try_from(percent / 5).unwrap_or(20);
    format!("[{}{}] {percent:>3} % of {total} wallets,", "#".repeat(full), "-".repeat(20 - full))
}

/// Whether the failure is temporary and not specific to the wallet.
fn is_temporary(error: &CustodyError) -> bool {
    matches!(
        error,
        CustodyError::Store(StoreError::Unavailable { .. }) | CustodyError::MasterKey(_)
    )
}

/// Of a wallet whose wrapped SCK has another hash than the wallet's row records.
const OTHER: &str = "the wrapped key is not the one that was written";

async fn verify(vault: &Vault, decrypt: bool) -> anyhow::Result<()> {
    vault.record("keys_verify", if decrypt { "--decrypt" } else { "" }).note().await;
    let known: BTreeSet<_> = vault.keys().map(|key| &key.id).collect();
    let custody = if decrypt { Some(vault.custody().await?) } else { None };
    let (mut seen, mut lost) = (0_u64, 0_u64);
    vault
        .each(async |listed| {
            seen += 1;
            let name = listed.id.clone();
            let account = listed.account.as_ref().map(|account| account.id).ok();
            let held = vault.held(listed).await?;
            // Another hash does not refuse a recovery, so unwrapping decides.
            let is_tried = matches!(&held, Held::Under(key) if known.contains(key))
                || matches!(held, Held::Damaged(_));
            let mut wrong = match held {
                Held::Under(key) if known.contains(&key) => None,
                Held::Under(key) => Some(format!("the KMS key {key} is not configured")),
                Held::Damaged(key) if known.contains(&key) => Some(OTHER.to_owned()),
                Held::Damaged(key) => {
                    Some(format!("{OTHER}, and the KMS key {key} is not configured"))
                }
                Held::Missing => Some("the wrapped key is missing".to_owned()),
                Held::Unreadable(error) => Some(error.to_string()),
            };
            if let (true, Some(custody), Some(account)) = (is_tried, &custody, account) {
                let operator = operator("keys verify");
                match custody.verify(account.into(), &operator, clock::now()).await {
                    Ok(()) => wrong = None,
                    Err(error) if is_temporary(&error) => return Err(error.into()),
                    Err(error) => wrong = Some(error.to_string()),
                }
            }
            if let Some(wrong) = wrong {
                lost += 1;
                say(&format!("{name}\t{wrong}"));
            }
            Ok(())
        })
        .await?;
    ensure!(lost == 0, "{lost} of {seen} wallets cannot be recovered");
    say(&format!("all {seen} wallets can be recovered"));
    Ok(())
}

async fn retire(vault: &Vault, id: &MasterKeyId) -> anyhow::Result<()> {
    vault.record("keys_retire", &id.to_string()).note().await;
    ensure!(*id != vault.active.id, "{id} is the active key; make another one `kms_key` first");
    let census = vault.census().await?;
    let count = census.count(id);
    ensure!(count == 0, "{count} wallets' keys are under {id}; run `kms-server keys rewrap`");
    let unreadable = census.unreadable + census.damaged;
    ensure!(
        unreadable == 0,
        "{unreadable} wallets or their wrapped keys cannot be read and may need {id}; see \
         `kms-server keys verify`"
    );
    if !vault.older.iter().any(|key| key.id == *id) {
        bail!("no KMS key {id} is configured, and no wallet needs it");
    }
    say(&format!(
        "no wallet's key is under {id}. Remove the entry of older_kms_keys with this id \
         (KMS_SERVER__OLDER_KMS_KEYS__…), and restart every server. Keep the key itself for as \
         long as you keep backups from before the last rewrap: they need it"
    ));
    Ok(())
}
