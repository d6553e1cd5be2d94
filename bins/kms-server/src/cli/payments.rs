//! `kms-server payments`: pause and resume payments.

use anyhow::{Context, ensure};
use clap::Subcommand;
use kms_store::{Pausable, Paused};

use super::operator::{Because, Why};
use super::record::Record;
use super::say;
use super::vault::Vault;
use crate::clock;
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum PaymentsCommand {
    /// Reports whether payments are paused.
    Status,
    /// Pauses payments on all servers: none is quoted or signed, and no key is exported, until
    /// `resume`. Payments that are signed proceed, and their owners can cancel them.
    Pause(Why),
    /// Ends a pause.
    Resume(Because),
}

pub(super) async fn run(settings: Settings, command: PaymentsCommand) -> anyhow::Result<()> {
    let chain_id = settings.chain.chain_id;
    let (payments, chain) = (Pausable::Payments { chain_id }, format!("chain {chain_id}"));
    let vault = Vault::open(settings).await?;
    let (database, keys) = (&vault.database, vault.key_database());
    match command {
        PaymentsCommand::Status => match database.paused(payments, keys).await? {
            None => say(&format!("{chain}: not paused")),
            Some(Paused::Since(since)) => say(&format!("{chain}: paused since {}", since.0)),
            Some(Paused::Unreadable(error)) => say(&format!("{chain}: paused: {error}")),
        },
        PaymentsCommand::Pause(why) => {
            let record = Record::new(database, "payments_pause", &chain);
            let record = record.because(why.reason.as_ref());
            let pause = async || {
                let paused = database.pause(payments, keys, clock::now()).await;
                paused.context("not in both databases; the pause holds if one has it")
            };
            record.around(pause).await?;
            say(&format!("{chain}: paused"));
        }
        PaymentsCommand::Resume(Because { reason }) => {
            let record = Record::new(database, "payments_resume", &chain).because(Some(&reason));
            record
                .around(async || {
                    let resumed = database.resume_payments(chain_id, keys, clock::now()).await?;
                    ensure!(resumed, "payments on {chain} were not paused");
                    Ok(())
                })
                .await?;
            say(&format!("{chain}: resumed"));
        }
    }
    Ok(())
}
