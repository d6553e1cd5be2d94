//! The operators who run commands, as the audit names them.

use std::str::FromStr;

use clap::Args;
use kms_core::audit::Caller;
use uuid::Uuid;

use crate::config;

/// The operator who runs a command, as the caller in the audit. Each action has its own request id,
/// because an OUTCOME is matched to its INTENT by that id.
pub(super) fn operator(command: &str) -> Caller {
    let operator = Some(config::operator());
    let caller = Caller::new(format!("kms-server {command}"), Uuid::new_v4().to_string());
    Caller { operator, ..caller }
}

/// The reason of an act that must not wait for one.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why, for the audit: a ticket, or up to 100 printable ASCII characters.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
}

/// The reason of an act that loosens something.
#[derive(Debug, Args)]
pub(super) struct Because {
    /// Why, for the audit: a ticket, or up to 100 printable ASCII characters.
    #[arg(long)]
    pub(super) reason: Reason,
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
