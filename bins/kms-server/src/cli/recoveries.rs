//! `kms-server recoveries`: list, cancel and pause recoveries.

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use kms_core::ports::RecoveryStore;
use kms_core::recovery::{Recovery, RecoveryStage};
use kms_process::ErrorChain;
use kms_store::{Pausable, Paused};
use kms_types::RecoveryId;

use super::operator::{Because, Why, operator};
use super::record::Record;
use super::vault::Vault;
use super::{agreeing_clocks, say};
use crate::clock;
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum RecoveriesCommand {
    /// Lists open recoveries: id, account, stage, time at which it becomes ready (Unix time in
    /// milliseconds), the state of its code, and the Telegram account to which a move is.
    List,
    /// Cancels open recoveries and notifies their owners: one, all, or those that an attack began.
    Cancel(Cancel),
    /// Pauses recoveries on all servers: none can be requested or completed until `resume`. Open
    /// ones can be cancelled. No wait continues: theirs, that of a freeze that its owner asked to
    /// lift, or that of leaving the page.
    Pause(Why),
    /// Ends a pause. Every wait is extended by the time that it was paused.
    Resume(Because),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Cancel {
    /// The id of one recovery.
    id: Option<RecoveryId>,
    /// Every open recovery.
    #[arg(long)]
    all: bool,
    /// Those that were requested since this time (Unix time in milliseconds).
    #[arg(long, value_name = "TIME")]
    since: Option<i64>,
    /// Those that were requested with the API token of this name, revoked or not.
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
}

pub(super) async fn run(settings: Settings, command: RecoveriesCommand) -> anyhow::Result<()> {
    let owner_wait = settings.recovery.unfreeze_wait;
    let vault = Vault::open(settings).await?;
    let (database, keys, now) = (&vault.database, vault.key_database(), clock::now());
    match command {
        RecoveriesCommand::List => {
            for recovery in database.open_recoveries().await? {
                let stage = match recovery.stage(now) {
                    RecoveryStage::Waiting => "waiting",
                    RecoveryStage::Ready => "ready",
                    RecoveryStage::Completed
                    | RecoveryStage::Cancelled
                    | RecoveryStage::Expired => "over",
                };
                let (id, account, code) = (recovery.id, recovery.account, recovery.code.as_str());
                let ready = recovery.ready_at.0;
                let to = recovery.moves_to.map(|to| format!("\tmoves to telegram:{to}"));
                let to = to.unwrap_or_default();
                say(&format!("{id}\t{account}\t{stage}\t{ready}\tcode: {code}{to}"));
            }
            Record::new(database, "recoveries_list", "").note().await;
            match database.paused(Pausable::Recoveries, keys).await? {
                None => {}
                Some(Paused::Since(since)) => say(&format!("paused since {}", since.0)),
                Some(Paused::Unreadable(error)) => say(&format!("paused: {error}")),
            }
        }
        RecoveriesCommand::Cancel(Cancel { id: Some(id), .. }) => {
            let recovery = database.recovery(id).await?.context("there is no such recovery")?;
            cancel(&vault, vec![recovery]).await?;
        }
        RecoveriesCommand::Cancel(which) => {
            let mut open = database.open_recoveries().await?;
            if let Some(since) = which.since {
                open.retain(|recovery| recovery.requested_at.0 >= since);
            }
            if let Some(token) = &which.token {
                let asked = database.recoveries_requested_by(token).await?;
                open.retain(|recovery| asked.contains(&recovery.id));
            }
            cancel(&vault, open).await?;
        }
        RecoveriesCommand::Pause(why) => {
            let record = Record::new(database, "recoveries_pause", "");
            let record = record.because(why.reason.as_ref());
            // By the earlier clock, so that no wait is extended by less than the pause. A clock
            // that is wrong does not prevent a pause.
            let now = clock::compare(database).await.map_or(now, |clocks| clocks.earlier);
            record
                .around(async || Ok(database.pause(Pausable::Recoveries, keys, now).await?))
                .await?;
            say("paused");
        }
        RecoveriesCommand::Resume(Because { reason }) => {
            let record = Record::new(database, "recoveries_resume", "").because(Some(&reason));
            record
                .around(async || {
                    let now = agreeing_clocks(database).await?.later;
                    let caller = operator("recoveries resume");
                    let resumed = database.resume_recoveries(keys, owner_wait, &caller, now);
                    let resumed = resumed.await?;
                    ensure!(resumed, "recoveries were not paused");
                    Ok(())
                })
                .await?;
            say("resumed");
        }
    }
    Ok(())
}

/// Cancels recoveries, each with an audit record of its own. One that fails does not keep others
/// from being cancelled.
async fn cancel(vault: &Vault, recoveries: Vec<Recovery>) -> anyhow::Result<()> {
    let custody = vault.custody_without_kms_key()?;
    let (mut cancelled, mut failed) = (0_u64, 0_u64);
    for Recovery { id, account, .. } in recoveries {
        let caller = operator("recoveries cancel");
        match custody.cancel_recovery(account.into(), id, &caller, clock::now()).await {
            Ok(_) => cancelled += 1,
            Err(error) => {
                failed += 1;
                say(&format!("{id}: {}", ErrorChain(&error)));
            }
        }
    }
    say(&format!("{cancelled} cancelled"));
    ensure!(failed == 0, "{failed} recoveries were not cancelled; run the command again");
    Ok(())
}
