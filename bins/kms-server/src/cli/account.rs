//! `kms-server account`: stop an account, and let it go on.

use clap::Subcommand;
use kms_types::AccountRef;

use super::say;
use super::vault::{Vault, operator};
use crate::clock;
use crate::config::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Stops an account: it signs nothing, and its password can be neither changed nor recovered.
    /// What was sent before is on the chain.
    Freeze {
        /// Its id, or telegram: and its holder's Telegram id.
        account: AccountRef,
    },
    /// Lets a stopped account go on.
    Unfreeze {
        /// Its id, or telegram: and its holder's Telegram id.
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
