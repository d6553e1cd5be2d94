//! `kms-server payments`: pause and resume payments.

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use futures::future::join_all;
use kms_store::{Database, KeyDatabase, Pausable, Paused};

use super::operator::{Because, Why};
use super::record::Record;
use super::say;
use super::vault::Vault;
use crate::clock;
use crate::config::{Chains, Settings};

#[derive(Debug, Subcommand)]
pub(super) enum PaymentsCommand {
    /// Reports whether payments are paused.
    Status(Which),
    /// Pauses payments on all servers: none is quoted or signed, and no key is exported, until
    /// `resume`. Payments that are signed proceed, and their owners can cancel them.
    Pause {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        why: Why,
    },
    /// Ends pauses.
    Resume {
        #[command(flatten)]
        which: WhichToResume,
        #[command(flatten)]
        because: Because,
    },
}

/// The chains that a command is about.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The short name of one chain, as in `chains.NAME`; all of them without it.
    #[arg(long)]
    chain: Option<String>,
}

/// The chains on which payments are resumed. Without a default, so that the pause of one chain is
/// not ended unintentionally.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct WhichToResume {
    /// The short name of one chain, as in `chains.NAME`.
    #[arg(long)]
    chain: Option<String>,
    /// All chains, also those that were paused one by one.
    #[arg(long)]
    all: bool,
}

impl WhichToResume {
    /// The short name of the one chain; `None` for all.
    fn chain(&self) -> Option<&String> {
        self.chain.as_ref().filter(|_| !self.all)
    }
}

/// The ids of the chain with this short name, or of all chains.
fn chain_ids(chains: &Chains, short_name: Option<&String>) -> anyhow::Result<Vec<u64>> {
    let meant = chains.iter().filter(|(name, _)| short_name.is_none_or(|meant| meant == *name));
    let ids: Vec<_> = meant.map(|(_, chain)| chain.chain_id).collect();
    ensure!(!ids.is_empty(), "no chain with this short name is configured");
    Ok(ids)
}

pub(super) async fn run(settings: Settings, command: PaymentsCommand) -> anyhow::Result<()> {
    let chain = match &command {
        PaymentsCommand::Status(which) | PaymentsCommand::Pause { which, .. } => {
            which.chain.as_ref()
        }
        PaymentsCommand::Resume { which, .. } => which.chain(),
    };
    let ids = chain_ids(&settings.chains, chain)?;
    let vault = Vault::open(settings).await?;
    let (database, keys) = (&vault.database, vault.key_database());
    match command {
        PaymentsCommand::Status(_) => {
            let reads = ids.iter().map(async |&chain_id| {
                (chain_id, database.paused(Pausable::Payments { chain_id }, keys).await)
            });
            let mut done = Ok(());
            for (chain_id, paused) in join_all(reads).await {
                let state = match paused {
                    Ok(None) => "not paused".to_owned(),
                    Ok(Some(Paused::Since(since))) => format!("paused since {}", since.0),
                    Ok(Some(Paused::Unreadable(error))) => format!("paused: {error}"),
                    Err(error) => {
                        let state = format!("not known: {error}");
                        done = done.and(Err(error));
                        state
                    }
                };
                say(&format!("chain {chain_id}: {state}"));
            }
            Ok(done?)
        }
        PaymentsCommand::Pause { why, .. } => {
            // Each is tried, also if another one fails: a pause that holds for some is better than
            // none.
            let mut done = Ok(());
            for chain_id in ids {
                done = done.and(pause(database, keys, chain_id, &why).await);
            }
            done
        }
        PaymentsCommand::Resume { because, .. } => {
            let mut was_paused = false;
            let mut done = Ok(());
            for chain_id in ids {
                let payments = Pausable::Payments { chain_id };
                if database.paused(payments, keys).await?.is_some() {
                    was_paused = true;
                    done = done.and(resume(database, keys, chain_id, &because).await);
                }
            }
            ensure!(was_paused, "payments were not paused");
            done
        }
    }
}

async fn pause(
    database: &Database,
    keys: &dyn KeyDatabase,
    chain_id: u64,
    why: &Why,
) -> anyhow::Result<()> {
    let chain = format!("chain {chain_id}");
    let record = Record::new(database, "payments_pause", &chain).because(why.reason.as_ref());
    let pause = async || {
        let payments = Pausable::Payments { chain_id };
        let paused = database.pause(payments, keys, clock::now()).await;
        paused.context("not in both databases; the pause holds if one has it")
    };
    record.around(pause).await?;
    say(&format!("{chain}: paused"));
    Ok(())
}

async fn resume(
    database: &Database,
    keys: &dyn KeyDatabase,
    chain_id: u64,
    because: &Because,
) -> anyhow::Result<()> {
    let chain = format!("chain {chain_id}");
    let record = Record::new(database, "payments_resume", &chain).because(Some(&because.reason));
    record
        .around(async || {
            let resumed = database.resume_payments(chain_id, keys, clock::now()).await?;
            ensure!(resumed, "payments on {chain} were not paused");
            Ok(())
        })
        .await?;
    say(&format!("{chain}: resumed"));
    Ok(())
}
