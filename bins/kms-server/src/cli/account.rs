//! `kms-server account`: freeze, unfreeze, rescue and move an account.

use clap::{Args, Subcommand};
use kms_types::AccountRef;

use super::moves::MoveCommand;
use super::operator::{Reason, operator};
use super::rescue::RescueCommand;
use super::vault::Vault;
use super::{agreeing_clocks, moves, rescue, say};
use crate::clock;
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Freezes an account: it cannot sign, and its password can be neither changed nor recovered.
    /// For payments that are not in a block, the cancellation is sent.
    /// Only an operator can unfreeze it.
    Freeze(Freeze),
    /// Unfreezes an account that an operator or its owner froze.
    Unfreeze(Freeze),
    /// Rebuilds accounts whose rows fail their integrity check, from what their ciphertexts prove.
    /// Requires two persons, and the address of the wallet from its owner.
    #[command(subcommand)]
    Rescue(RescueCommand),
    /// Moves a wallet to another Telegram account of its owner, who lost the one it is of.
    /// Requires two persons and the longest wait, in which the owner is notified and can stop it.
    #[command(subcommand)]
    Move(MoveCommand),
}

#[derive(Debug, Args)]
pub(super) struct Freeze {
    /// The account id, or `telegram:` and the owner's Telegram id.
    account: AccountRef,
    /// Why, for the audit: a ticket, or up to 100 printable ASCII characters.
    #[arg(long)]
    reason: Reason,
}

pub(super) async fn run(settings: Settings, command: AccountCommand) -> anyhow::Result<()> {
    let now = clock::now();
    match command {
        AccountCommand::Freeze(Freeze { account, reason }) => {
            let operator = operator(&format!("account freeze: {}", reason.0));
            let vault = Vault::open(settings).await?;
            vault.custody_without_kms_key()?.freeze(account, &operator, now).await?;
            say("frozen");
        }
        AccountCommand::Unfreeze(Freeze { account, reason }) => {
            let operator = operator(&format!("account unfreeze: {}", reason.0));
            let vault = Vault::open(settings).await?;
            agreeing_clocks(&vault.database).await?;
            vault.custody().await?.unfreeze(account, &operator, now).await?;
            say("active");
        }
        AccountCommand::Rescue(command) => rescue::run(settings, command).await?,
        AccountCommand::Move(command) => moves::run(settings, command).await?,
    }
    Ok(())
}
