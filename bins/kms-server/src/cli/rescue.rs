//! `kms-server account rescue`: rebuilds accounts whose rows fail their integrity check, by two
//! operators.

use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use kms_core::{Custody, CustodyError};
use kms_store::Proposal;
use kms_types::{AccountRef, EthAddress};

use super::operator::{Person, Reason, operator};
use super::vault::Vault;
use super::{agreeing_clocks, say};
use crate::clock;
use crate::config::Settings;

/// The name of the act in its proposals.
const ACTION: &str = "rescue";

#[derive(Debug, Subcommand)]
pub(super) enum RescueCommand {
    /// Proves with the KMS key that each account holds the wallet with this address, and proposes
    /// the rescue. Changes no account.
    Propose {
        #[command(flatten)]
        what: What,
        /// Why, for the audit: a ticket, or up to 100 printable ASCII characters.
        #[arg(long)]
        reason: Reason,
    },
    /// Approves a rescue that another person proposed within the last 24 hours, and does it: the
    /// account is frozen until its owner unfreezes it with the password.
    Approve {
        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, Args)]
pub(super) struct What {
    /// Who runs this command, for the audit.
    #[arg(long)]
    person: Person,
    /// Each account and the address of its wallet as its owner names it, not as a database does:
    /// `telegram:1=0x…` or the account id and the address.
    #[arg(required = true)]
    wallets: Vec<WalletOf>,
}

/// An account and the address that its owner names.
#[derive(Clone, Copy, Debug)]
struct WalletOf {
    account: AccountRef,
    address: EthAddress,
}

impl FromStr for WalletOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (account, address) = text.split_once('=').ok_or("expected ACCOUNT=ADDRESS")?;
        let account = account.parse().map_err(|_other| "expected an account before the =")?;
        let address = address.parse().map_err(|_other| "expected an address after the =")?;
        Ok(Self { account, address })
    }
}

pub(super) async fn run(settings: Settings, command: RescueCommand) -> anyhow::Result<()> {
    let vault = Vault::open(settings).await?;
    vault.check_owner().await?;
    agreeing_clocks(&vault.database).await?;
    let custody = vault.custody().await?;
    let (what, done) = match &command {
        RescueCommand::Propose { what, .. } => (what, "proposed"),
        RescueCommand::Approve { what } => (what, "rescued"),
    };
    let mut failed = 0_usize;
    for wallet in &what.wallets {
        let result = match &command {
            RescueCommand::Propose { what, reason } => {
                propose(&vault, &custody, *wallet, &what.person, reason).await
            }
            RescueCommand::Approve { what } => {
                approve(&vault, &custody, *wallet, &what.person).await
            }
        };
        match result {
            Ok(line) => say(&format!("{done}\t{line}")),
            Err(error) => {
                failed += 1;
                let WalletOf { account, address } = wallet;
                say(&format!("failed\t{account}\t{address}\t{error:#}"));
            }
        }
    }
    let all = what.wallets.len();
    ensure!(failed == 0, "{failed} of {all} accounts were not {done}");
    Ok(())
}

async fn propose(
    vault: &Vault,
    custody: &Custody,
    WalletOf { account, address }: WalletOf,
    person: &Person,
    reason: &Reason,
) -> anyhow::Result<String> {
    let (Person(person), Reason(reason)) = (person, reason);
    let caller = operator(&format!("account rescue propose by {person}: {reason}"));
    let now = clock::now();
    let rescue = custody.propose_rescue(account, address, &caller, now).await?;
    let proposal = Proposal {
        action: ACTION.to_owned(),
        subject: rescue.account.id.to_string(),
        digest: *rescue.digest.as_bytes(),
        person: person.clone(),
        reason: reason.clone(),
        proposed_at: now,
    };
    vault.database.propose(proposal).await?;
    let (id, telegram_id) = (rescue.account.id, rescue.account.telegram_id);
    Ok(format!("{id}\ttelegram:{telegram_id}\t{address}\tdamaged: {}", rescue.damage.join(", ")))
}

async fn approve(
    vault: &Vault,
    custody: &Custody,
    WalletOf { account, address }: WalletOf,
    Person(person): &Person,
) -> anyhow::Result<String> {
    let id = custody.damaged_id(account).await?.to_string();
    let found = vault.database.proposal(ACTION, id.clone()).await?;
    let proposal = found.context("no rescue of this account is proposed")?;
    let now = clock::now();
    proposal.check(person, now)?;
    let caller = operator(&format!(
        "account rescue approve by {person}, proposed by {}: {}",
        proposal.person, proposal.reason
    ));
    let rescued = custody.rescue(account, address, proposal.digest.into(), &caller, now).await;
    let rescued = match rescued {
        Err(CustodyError::Conflict) => {
            return Err(anyhow::anyhow!(
                "the address or the stored account is not what was proposed; propose it again"
            ));
        }
        other => other?,
    };
    vault.database.delete_proposal(ACTION, id).await?;
    Ok(format!("{}\ttelegram:{}\t{address}\tfrozen", rescued.id, rescued.telegram_id))
}
