//! `kms-server account`: freeze and unfreeze an account.

use std::str::FromStr;

use clap::{Args, Subcommand};
use kms_types::AccountRef;

use super::say;
use super::vault::{Vault, operator};
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
}

#[derive(Debug, Args)]
pub(super) struct Freeze {
    /// The account id, or `telegram:` and the owner's Telegram id.
    account: AccountRef,
    /// Why, for the audit: a ticket, or up to 100 printable ASCII characters.
    #[arg(long)]
    reason: Reason,
}

/// Why an operator acts. In the audit it is part of the actor, so it holds no control character
/// and no character that changes the direction of text.
#[derive(Clone, Debug)]
struct Reason(String);

impl FromStr for Reason {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if is_printable && (1..=100).contains(&text.trim().len()) {
            Ok(Self(text.trim().to_owned()))
        } else {
            Err("expected 1 to 100 printable ASCII characters")
        }
    }
}

pub(super) async fn run(settings: Settings, command: AccountCommand) -> anyhow::Result<()> {
    let custody = Vault::open(settings).await?.custody().await?;
    let now = clock::now();
    match command {
        AccountCommand::Freeze(Freeze { account, reason }) => {
            let operator = operator(&format!("account freeze: {}", reason.0));
            custody.freeze(account, &operator, now).await?;
            say("frozen");
        }
        AccountCommand::Unfreeze(Freeze { account, reason }) => {
            let operator = operator(&format!("account unfreeze: {}", reason.0));
            custody.unfreeze(account, &operator, now).await?;
            say("active");
        }
    }
    Ok(())
}
