//! `kms-server account`: freeze and unfreeze an account.

use clap::Subcommand;
use kms_types::AccountRef;

use super::say;
use super::vault::{Vault, operator};
use crate::clock;
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Freezes an account: it cannot sign, and its password can be neither changed nor recovered.
    /// Transfers that are already signed still execute.
    Freeze {
        /// The account id, or `telegram:` and the owner's Telegram id.
        account: AccountRef,
    },
    /// Unfreezes an account.
    Unfreeze {
        /// The account id, or `telegram:` and the owner's Telegram id.
        account: AccountRef,
    },
}

pub(super) async fn run(settings: Settings, command: AccountCommand) -> anyhow::Result<()> {
    let custody = Vault::open(settings).await?.custody().await?;
    let now = clock::now();
    match command {
        AccountCommand::Freeze { account } => {
            custody.freeze(account, &operator("account freeze"), now).await?;
            say("frozen");
        }
        AccountCommand::Unfreeze { account } => {
            custody.unfreeze(account, &operator("account unfreeze"), now).await?;
            say("active");
        }
    }
    Ok(())
}
