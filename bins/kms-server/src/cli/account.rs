//! `kms-server account`: freeze, unfreeze and rescue an account.

use std::str::FromStr;

use clap::{Args, Subcommand};
use kms_types::AccountRef;

use super::rescue::RescueCommand;
use super::vault::{Vault, operator};
use super::{rescue, say};
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
}

#[derive(Debug, Args)]
pub(super) struct Freeze {
    /// The account id, or `telegram:` and the owner's Telegram id.
    account: AccountRef,
    /// Why, for the audit: a ticket, or up to 100 printable ASCII characters.
    #[arg(long)]
    reason: Reason,
}

/// Why an operator acts, in the audit.
#[derive(Clone, Debug)]
pub(super) struct Reason(pub(super) String);

/// The operator who acts, in the audit.
#[derive(Clone, Debug)]
pub(super) struct Person(pub(super) String);

impl FromStr for Reason {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        printable(text, 100).map(Self).ok_or("expected 1 to 100 printable ASCII characters")
    }
}

impl FromStr for Person {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        printable(text, 40).map(Self).ok_or("expected 1 to 40 printable ASCII characters")
    }
}

/// The text without white space around it. In the audit it is part of the actor, so it holds no
/// control character and no character that changes the direction of text.
fn printable(text: &str, longest: usize) -> Option<String> {
    let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let text = text.trim();
    (is_printable && (1..=longest).contains(&text.len())).then(|| text.to_owned())
}

pub(super) async fn run(settings: Settings, command: AccountCommand) -> anyhow::Result<()> {
    let open = async |settings| Vault::open(settings).await?.custody().await;
    let now = clock::now();
    match command {
        AccountCommand::Freeze(Freeze { account, reason }) => {
            let operator = operator(&format!("account freeze: {}", reason.0));
            open(settings).await?.freeze(account, &operator, now).await?;
            say("frozen");
        }
        AccountCommand::Unfreeze(Freeze { account, reason }) => {
            let operator = operator(&format!("account unfreeze: {}", reason.0));
            open(settings).await?.unfreeze(account, &operator, now).await?;
            say("active");
        }
        AccountCommand::Rescue(command) => rescue::run(settings, command).await?,
    }
    Ok(())
}
