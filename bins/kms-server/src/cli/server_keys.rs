//! `kms-server keys list | remac | reseal | retire` for the server's own keys: what depends on each
//! version, and how it moves to the newest one.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use kms_core::account::EmailChange;
use kms_core::audit::{Checkpoint, CheckpointKeys};
use kms_core::{ServerKeyId, ServerKeyKind};
use kms_store::{Database, MovedBatch, Sealed, pause_line_version};

use super::say;
use super::vault::Vault;
use crate::clock;

/// What depends on each version of each server key.
struct Census(BTreeMap<(ServerKeyKind, Option<ServerKeyId>), BTreeMap<String, u64>>);

impl Census {
    async fn take(vault: &Vault) -> anyhow::Result<Self> {
        let mut census = Self(BTreeMap::new());
        for found in vault.database.server_key_dependants().await? {
            census.add(found.kind, found.version, &found.what, found.count);
        }
        for line in vault.checkpoints().await? {
            let version = line.parse::<Checkpoint>().ok().map(|checkpoint| checkpoint.key());
            census.add(ServerKeyKind::Checkpoint, version, "checkpoints", 1);
        }
        for (_, line) in vault.key_database().pause_lines().await? {
            let what = "switches of the key database";
            census.add(ServerKeyKind::Row, pause_line_version(&line), what, 1);
        }
        Ok(census)
    }

    fn add(&mut self, kind: ServerKeyKind, version: Option<ServerKeyId>, what: &str, count: u64) {
        let of_version = self.0.entry((kind, version)).or_default();
        *of_version.entry(what.to_owned()).or_default() += count;
    }

    fn of(&self, kind: ServerKeyKind, version: ServerKeyId) -> BTreeMap<String, u64> {
        self.0.get(&(kind, Some(version))).cloned().unwrap_or_default()
    }

    /// The rows of this key that are not under its newest version.
    fn older(&self, vault: &Vault, kind: ServerKeyKind) -> u64 {
        let newest = Some(vault.server_keys.set(kind).current());
        let older = self.0.iter().filter(|((of, version), _)| *of == kind && *version != newest);
        older.flat_map(|(_, tables)| tables.values()).sum()
    }
}

/// A line of `keys list`.
#[derive(serde::Serialize)]
pub(super) struct KeyLine {
    /// The id of a KMS key, or the name and version of a server key.
    pub(super) key: String,
    pub(super) provider: &'static str,
    pub(super) role: &'static str,
    /// How many wallets or rows depend on it, and on which tables.
    pub(super) count: u64,
    pub(super) of: BTreeMap<String, u64>,
}

/// Lists every version of every server key, configured or depended on.
pub(super) async fn list(vault: &Vault) -> anyhow::Result<Vec<KeyLine>> {
    let mut census = Census::take(vault).await?;
    for (kind, id, _) in vault.server_keys.iter() {
        census.0.entry((kind, Some(id))).or_default();
    }
    let line =
        |((kind, version), tables): (&(ServerKeyKind, Option<ServerKeyId>), &BTreeMap<_, _>)| {
            let set = vault.server_keys.set(*kind);
            let role = match version {
                Some(id) if *id == set.current() => "newest",
                Some(id) if set.is_retired(*id) => "retired",
                Some(id) if set.get(*id).is_some() => "older",
                Some(_) => "not configured",
                None => "malformed",
            };
            let version = version.map_or_else(|| "-".to_owned(), |id| id.to_string());
            KeyLine {
                key: format!("{} {version}", kind.as_str()),
                provider: "server key",
                role,
                count: tables.values().sum(),
                of: tables.clone(),
            }
        };
    Ok(census.0.iter().rev().map(line).collect())
}

/// Replaces the MACs under older versions of the row key.
pub(super) async fn remac(vault: &Vault) -> anyhow::Result<()> {
    vault
        .record("keys_remac", "")
        .around(async || {
            let database = &vault.database;
            delete_expired(database).await?;
            let mut moved = Moved::default();
            for table in Database::mac_tables() {
                moved.all(async |cursor| Ok(database.remac(table, &cursor).await?)).await?;
            }
            moved.0 += database.remac_pause_lines(vault.key_database()).await?;
            moved.report(vault, ServerKeyKind::Row).await
        })
        .await
}

/// Seals again what is under older versions of the contact key.
pub(super) async fn reseal(vault: &Vault) -> anyhow::Result<()> {
    vault
        .record("keys_reseal", "")
        .around(async || {
            let database = &vault.database;
            delete_expired(database).await?;
            let mut moved = Moved::default();
            for what in Sealed::ALL {
                moved.all(async |cursor| Ok(database.reseal(what, &cursor).await?)).await?;
            }
            moved.report(vault, ServerKeyKind::Contact).await
        })
        .await
}

/// Deletes e-mail changes whose code has expired: they would keep old keys in use for ever.
async fn delete_expired(database: &Database) -> anyhow::Result<()> {
    let before = clock::now().minus(EmailChange::LIFETIME);
    database.delete_expired_email_changes(before).await?;
    Ok(())
}

/// The rows that a command has moved.
#[derive(Default)]
struct Moved(u64);

impl Moved {
    /// Moves batches until there are none, and prints each row that failed its check.
    async fn all(
        &mut self,
        batch: impl AsyncFn(String) -> anyhow::Result<MovedBatch>,
    ) -> anyhow::Result<()> {
        let mut cursor = String::new();
        loop {
            let done = batch(cursor)
                .await
                .context("run the command again: it continues where it stopped")?;
            self.0 = self.0.saturating_add(done.moved);
            for failed in done.failed {
                say(&failed.to_string());
            }
            let Some(next) = done.next else { return Ok(()) };
            cursor = next;
        }
    }

    /// Counts again what is left, because servers have written meanwhile.
    async fn report(self, vault: &Vault, kind: ServerKeyKind) -> anyhow::Result<()> {
        let newest = vault.server_keys.set(kind).current();
        let left = Census::take(vault).await?.older(vault, kind);
        let name = kind.as_str();
        say(&format!("{} moved to {name} {newest}, {left} left", self.0));
        ensure!(
            left == 0,
            "{left} rows are not under {name} {newest}; see `kms-server keys list`. A row that is \
             named above failed its check and was not changed"
        );
        Ok(())
    }
}

/// Checks that nothing depends on an older version of a server key, and prints how to retire it.
pub(super) async fn retire(
    vault: &Vault,
    kind: ServerKeyKind,
    version: ServerKeyId,
) -> anyhow::Result<()> {
    let name = kind.as_str();
    // Also the first record under the newest version of the audit key.
    vault.record("keys_retire", &format!("{name} {version}")).note().await;
    let set = vault.server_keys.set(kind);
    ensure!(
        version != set.current(),
        "{name} {version} is the newest version; write a newer one in front of it first"
    );
    let mut depends = Census::take(vault).await?.of(kind, version);
    if let ServerKeyKind::Audit | ServerKeyKind::Checkpoint = kind {
        check_covered(vault, kind, version).await?;
        // Older records and checkpoints stay; `audit verify` reads them with a retired version.
        depends.clear();
    }
    if !depends.is_empty() {
        let tables: Vec<_> =
            depends.iter().map(|(what, count)| format!("{count} {what}")).collect();
        bail!("{name} {version} is still needed: {}. {}", tables.join(", "), way_out(kind));
    }
    if !set.iter().any(|(id, _)| id == version) {
        bail!("no {name} {version} is configured, and nothing depends on it");
    }
    say(&format!(
        "nothing depends on {name} {version}. Write `retired-{version}:` in place of `{version}:` \
         in the file of the {name} key, and restart every server: a row under it is then refused \
         and an alarm. Remove it when no backup from before is kept any more"
    ));
    if kind == ServerKeyKind::Codes {
        say(
            "The links that freeze an account, in e-mails from before the newest version, end with \
             it. Owners still send /freeze, and follow the link in any later e-mail",
        );
    }
    Ok(())
}

/// Checks that a party that has the older version can change no record: they are covered by a
/// checkpoint under a newer version, or after the first record under a newer audit key.
async fn check_covered(
    vault: &Vault,
    kind: ServerKeyKind,
    version: ServerKeyId,
) -> anyhow::Result<()> {
    let keys = CheckpointKeys::of(&vault.server_keys.checkpoint);
    let lines = vault.checkpoints().await?;
    let mut signed = lines
        .iter()
        .filter_map(|line| line.parse::<Checkpoint>().ok())
        .filter(|checkpoint| checkpoint.verify(&keys).is_ok());
    let is_covered = if kind == ServerKeyKind::Audit {
        let since = vault.database.audit_key_replaced_at(version).await?;
        since.is_some_and(|since| signed.any(|checkpoint| checkpoint.tip.sequence >= since))
    } else {
        signed.any(|checkpoint| checkpoint.key() > version)
    };
    ensure!(
        is_covered,
        "no checkpoint was written since a newer version of the {} key is in use; a running server \
         writes one within audit.checkpoint_interval, and when it stops",
        kind.as_str()
    );
    Ok(())
}

/// How what still depends on an older version ends.
fn way_out(kind: ServerKeyKind) -> &'static str {
    match kind {
        ServerKeyKind::Pepper => {
            "A wallet moves at its owner's next correct password or recovery; see \"The rest of a \
             pepper\" in docs/operating/keys.md"
        }
        ServerKeyKind::Contact => {
            "Run `kms-server keys reseal`; what is left in email_changes ends within ten minutes"
        }
        ServerKeyKind::Row => "Run `kms-server keys remac`",
        ServerKeyKind::Audit | ServerKeyKind::Checkpoint => {
            "`kms-server audit verify` reads it with a retired version"
        }
        ServerKeyKind::Codes => {
            "Codes of addresses end within ten minutes (run `kms-server keys remac` then), and \
             recoveries when they are completed, cancelled or expired (`recoveries list`)"
        }
    }
}
