//! `kms-server account move`: moves a wallet to another Telegram account of its owner, by two
//! operators and after the longest wait.

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use kms_core::CustodyError;
use kms_core::ports::{AccountStore, RecoveryStore};
use kms_store::{Pausable, Proposal};
use kms_types::{AccountRef, TelegramId, Timestamp};

use super::operator::{Person, Reason, operator};
use super::vault::Vault;
use super::{agreeing_clocks, say};
use crate::clock;
use crate::config::Settings;

/// The name of the act in its proposals.
const ACTION: &str = "move";

#[derive(Debug, Subcommand)]
pub(super) enum MoveCommand {
    /// Proposes the move. Changes no account, and sends no notice.
    Propose {
        #[command(flatten)]
        what: What,
        /// Why, for the audit: a ticket, or up to 100 printable ASCII characters.
        #[arg(long)]
        reason: Reason,
    },
    /// Approves a move that another person proposed within the last 24 hours. The wait begins: the
    /// owner is notified in the old chat and by e-mail, and can cancel it there, by the password,
    /// or by a freeze.
    Approve {
        #[command(flatten)]
        what: What,
    },
    /// Moves the wallet, after the wait. No password opens it then until its owner sets a new one
    /// by a recovery, from the new Telegram account.
    Finish {
        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, Args)]
pub(super) struct What {
    /// Who runs this command, for the audit.
    #[arg(long)]
    person: Person,
    /// The account id, or `telegram:` and the Telegram id that its owner lost.
    account: AccountRef,
    /// The id of the owner's new Telegram account, as its owner names it.
    new_telegram_id: TelegramId,
}

pub(super) async fn run(settings: Settings, command: MoveCommand) -> anyhow::Result<()> {
    let rules = settings.recovery;
    let vault = Vault::open(settings).await?;
    vault.check_owner().await?;
    let clocks = agreeing_clocks(&vault.database).await?;
    let line = match &command {
        MoveCommand::Propose { what, reason } => propose(&vault, what, reason).await?,
        MoveCommand::Approve { what } => {
            refuse_paused(&vault).await?;
            let custody = vault.custody_without_kms_key()?.with_recovery_rules(rules);
            let What { person: Person(person), account, new_telegram_id: to } = what;
            let id = account_id(&vault, *account).await?;
            let found = vault.database.proposal(ACTION, id.clone()).await?;
            let proposal = found.context("no move of this account is proposed")?;
            proposal.check(person, clock::now())?;
            let caller = operator(&format!(
                "account move approve by {person}, proposed by {}: {}",
                proposal.person, proposal.reason
            ));
            let (account, digest, now) = (*account, proposal.digest, clocks.later);
            let requested = match custody.request_move(account, *to, digest, &caller, now).await {
                Err(CustodyError::Conflict) => {
                    return Err(anyhow::anyhow!(
                        "the Telegram ids are not those that were proposed; propose it again"
                    ));
                }
                other => other?,
            };
            vault.database.delete_proposal(ACTION, id).await?;
            let (id, account, ready) = (requested.id, requested.account, time(requested.ready_at));
            format!("approved\t{id}\t{account}\tmoves to telegram:{to}\tfrom {ready}")
        }
        MoveCommand::Finish { what } => {
            refuse_paused(&vault).await?;
            finish(&vault, what, clocks.earlier).await?
        }
    };
    say(&line);
    Ok(())
}

async fn propose(
    vault: &Vault,
    What { person: Person(person), account, new_telegram_id: to }: &What,
    Reason(reason): &Reason,
) -> anyhow::Result<String> {
    let caller = operator(&format!("account move propose by {person}: {reason}"));
    let (custody, now) = (vault.custody_without_kms_key()?, clock::now());
    let proposed = custody.propose_move(*account, *to, &caller, now).await?;
    let (id, from) = (proposed.account.id, proposed.account.telegram_id);
    let proposal = Proposal {
        action: ACTION.to_owned(),
        subject: id.to_string(),
        digest: proposed.digest,
        person: person.clone(),
        reason: reason.clone(),
        proposed_at: now,
    };
    vault.database.propose(proposal).await?;
    let address = proposed.account.wallet.address;
    Ok(format!("proposed\t{id}\t{address}\tfrom telegram:{from}\tto telegram:{to}"))
}

async fn finish(vault: &Vault, what: &What, now: Timestamp) -> anyhow::Result<String> {
    let What { person: Person(person), account, new_telegram_id: to } = what;
    let found = vault.database.account(*account).await?.context("there is no such account")?;
    if found.telegram_id == *to {
        return Ok(format!("moved before\t{}\ttelegram:{to}", found.id));
    }
    let open = vault.database.open_recovery(found.id).await?;
    let open = open.filter(|open| open.moves_to == Some(*to));
    let open = open.context("no move of this account to that Telegram account is open")?;
    let caller = operator(&format!("account move finish by {person}"));
    let custody = vault.custody().await?;
    custody.finish_move(found.id.into(), open.id, &caller, now).await?;
    Ok(format!("moved\t{}\t{}\ttelegram:{to}", found.id, found.wallet.address))
}

async fn account_id(vault: &Vault, account: AccountRef) -> anyhow::Result<String> {
    let found = vault.database.account(account).await?.context("there is no such account")?;
    Ok(found.id.to_string())
}

async fn refuse_paused(vault: &Vault) -> anyhow::Result<()> {
    let paused = vault.database.paused(Pausable::Recoveries, vault.key_database()).await?;
    ensure!(paused.is_none(), "recoveries are paused, and moves with them; nothing was changed");
    Ok(())
}

fn time(at: Timestamp) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}
