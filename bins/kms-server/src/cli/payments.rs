//! `kms-server payments`: pause and resume payments.

use std::collections::BTreeSet;
use std::iter::once;

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
    /// The short name of one chain, as in `chains.NAME`; without it all chains, also those that
    /// are configured later.
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
    /// All chains, also those that were paused one by one, or are not configured any more.
    #[arg(long)]
    all: bool,
}

impl WhichToResume {
    /// The short name of the one chain; `None` for all.
    fn chain(&self) -> Option<&String> {
        self.chain.as_ref().filter(|_| !self.all)
    }
}

/// The id of the chain with this short name, if one is meant.
fn chain_id(chains: &Chains, short_name: Option<&String>) -> anyhow::Result<Option<u64>> {
    let Some(short_name) = short_name else { return Ok(None) };
    let chain = chains.get(short_name).context("no chain with this short name is configured")?;
    Ok(Some(chain.chain_id))
}

fn shown(chain_id: Option<u64>) -> String {
    chain_id.map_or("all chains".to_owned(), |chain_id| format!("chain {chain_id}"))
}

pub(super) async fn run(settings: Settings, command: PaymentsCommand) -> anyhow::Result<()> {
    let chain = match &command {
        PaymentsCommand::Status(which) | PaymentsCommand::Pause { which, .. } => {
            which.chain.as_ref()
        }
        PaymentsCommand::Resume { which, .. } => which.chain(),
    };
    let meant = chain_id(&settings.chains, chain)?;
    let configured: Vec<_> = settings.chains.values().map(|chain| chain.chain_id).collect();
    let vault = Vault::open(settings).await?;
    let (database, keys) = (&vault.database, vault.key_database());
    match command {
        PaymentsCommand::Status(_) => status(database, keys, meant, configured).await,
        PaymentsCommand::Pause { why, .. } => pause(database, keys, meant, &why).await,
        PaymentsCommand::Resume { because, .. } => resume(database, keys, meant, &because).await,
    }
}

/// Reports the pause of all chains, and that of each chain that is configured or was ever paused.
async fn status(
    database: &Database,
    keys: &dyn KeyDatabase,
    meant: Option<u64>,
    configured: Vec<u64>,
) -> anyhow::Result<()> {
    let mut chains: BTreeSet<u64> = meant.into_iter().collect();
    if meant.is_none() {
        chains.extend(configured);
        chains.extend(database.chains_ever_paused(keys).await?);
    }
    let reads = once(None).chain(chains.into_iter().map(Some)).map(async |chain_id| {
        (chain_id, database.paused(Pausable::payments(chain_id), keys).await)
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
        say(&format!("{}: {state}", shown(chain_id)));
    }
    Ok(done?)
}

async fn pause(
    database: &Database,
    keys: &dyn KeyDatabase,
    chain_id: Option<u64>,
    why: &Why,
) -> anyhow::Result<()> {
    let chain = shown(chain_id);
    let record = Record::new(database, "payments_pause", &chain).because(why.reason.as_ref());
    let pause = async || {
        let paused = database.pause(Pausable::payments(chain_id), keys, clock::now()).await;
        paused.context("not in both databases; the pause holds if one has it")
    };
    record.around(pause).await?;
    say(&format!("{chain}: paused"));
    Ok(())
}

/// Ends the pause of one chain, or of all chains and of each.
async fn resume(
    database: &Database,
    keys: &dyn KeyDatabase,
    chain_id: Option<u64>,
    because: &Because,
) -> anyhow::Result<()> {
    let mut chains: Vec<_> = vec![chain_id];
    if chain_id.is_none() {
        chains.extend(database.chains_ever_paused(keys).await?.into_iter().map(Some));
    }
    let mut was_paused = false;
    let mut done = Ok(());
    for chain_id in chains {
        if database.paused(Pausable::payments(chain_id), keys).await?.is_some() {
            was_paused = true;
            done = done.and(resume_one(database, keys, chain_id, because).await);
        }
    }
    done?;
    let all = database.paused(Pausable::AllPayments, keys).await?;
    ensure!(all.is_none(), "payments of all chains are paused, which --all ends");
    ensure!(was_paused, "payments were not paused");
    Ok(())
}

async fn resume_one(
    database: &Database,
    keys: &dyn KeyDatabase,
    chain_id: Option<u64>,
    because: &Because,
) -> anyhow::Result<()> {
    let chain = shown(chain_id);
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
