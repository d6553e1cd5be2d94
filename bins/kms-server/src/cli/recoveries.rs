//! `kms-server recoveries`: list, cancel and pause recoveries.

use anyhow::{Context, ensure};
use clap::Subcommand;
use kms_core::ports::RecoveryStore;
use kms_core::recovery::RecoveryStage;
use kms_types::RecoveryId;

use super::record::Record;
use super::say;
use super::vault::{Vault, operator};
use crate::clock;
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum RecoveriesCommand {
    /// Lists open recoveries: id, account, stage, time at which it becomes ready (Unix time in
    /// milliseconds), and the state of its code.
    List,
    /// Cancels a recovery and notifies the owner.
    Cancel {
        /// The recovery id.
        id: RecoveryId,
    },
    /// Pauses recoveries on all servers: none can be requested or completed until `resume`. Open
    /// ones keep waiting, and can be cancelled.
    Pause,
    /// Ends a pause.
    Resume,
}

pub(super) async fn run(settings: Settings, command: RecoveriesCommand) -> anyhow::Result<()> {
    let vault = Vault::open(settings).await?;
    let (database, now) = (&vault.database, clock::now());
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
                say(&format!("{id}\t{account}\t{stage}\t{ready}\tcode: {code}"));
            }
            Record::new(database, "recoveries_list", "").note().await;
            if let Some(since) = database.recoveries_paused().await? {
                say(&format!("paused since {}", since.0));
            }
        }
        RecoveriesCommand::Cancel { id } => {
            let recovery = database.recovery(id).await?.context("there is no such recovery")?;
            let custody = vault.custody().await?;
            let operator = operator("recoveries cancel");
            custody.cancel_recovery(recovery.account.into(), id, &operator, now).await?;
            say("cancelled");
        }
        RecoveriesCommand::Pause => {
            let record = Record::new(database, "recoveries_pause", "");
            record.around(async || Ok(database.pause_recoveries(now).await?)).await?;
            say("paused");
        }
        RecoveriesCommand::Resume => {
            let record = Record::new(database, "recoveries_resume", "");
            record
                .around(async || {
                    ensure!(database.resume_recoveries().await?, "recoveries were not paused");
                    Ok(())
                })
                .await?;
            say("resumed");
        }
    }
    Ok(())
}
