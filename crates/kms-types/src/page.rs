//! The vault page at Telegram: its link, and what it is opened for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::{RecoveryId, TransferId};

/// What the page was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To create a wallet.
    NewWallet,
    /// To confirm a transfer.
    Confirm(TransferId),
    /// To sign a pending transfer again at a higher price.
    SpeedUp(TransferId),
    /// To change the password.
    ChangePassword,
    /// To request a recovery.
    RequestRecovery,
    /// To continue a recovery: with its code, or with the new password.
    Recover(RecoveryId),
    /// To change the e-mail address.
    Email,
    /// To export the key.
    Export,
    /// To raise a limit or lift a freeze.
    Lift,
    /// To look.
    Home,
}

/// The start parameter names no purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no purpose has this start parameter")]
pub struct PurposeError;

/// The link of a Mini App: `https://t.me/BOT/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AppLink(String);

/// The text is not the link of a Mini App.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the link of a Mini App, as https://t.me/acme_vault_bot/wallet")]
pub struct AppLinkError;

impl FromStr for AppLink {
    type Err = AppLinkError;

    fn from_str(text: &str) -> Result<Self, AppLinkError> {
        let is_name = |part: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            (3..=32).contains(&part.len()) && part.bytes().all(is_plain)
        };
        let path = text.strip_prefix("https://t.me/").and_then(|path| path.split_once('/'));
        match path {
            Some((bot, name)) if is_name(bot) && is_name(name) => Ok(Self(text.to_owned())),
            _ => Err(AppLinkError),
        }
    }
}

impl TryFrom<String> for AppLink {
    type Error = AppLinkError;

    fn try_from(text: String) -> Result<Self, AppLinkError> {
        text.parse()
    }
}

impl AppLink {
    /// The link that opens the page for a purpose.
    #[must_use]
    pub fn opened_for(&self, purpose: Purpose) -> String {
        match purpose {
            Purpose::Home => self.0.clone(),
            _ => format!("{self}?startapp={purpose}"),
        }
    }
}

impl Serialize for AppLink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for AppLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Purpose {
    /// Whether the opening is kept with the audit, because a key is made or used without the
    /// password, or leaves.
    #[must_use]
    pub fn is_proof(self) -> bool {
        match self {
            Self::NewWallet | Self::RequestRecovery | Self::Recover(_) | Self::Export => true,
            Self::Confirm(_)
            | Self::SpeedUp(_)
            | Self::ChangePassword
            | Self::Email
            | Self::Lift
            | Self::Home => false,
        }
    }
}

impl FromStr for Purpose {
    type Err = PurposeError;

    /// Parses a start parameter: a letter, and an id where there is one.
    fn from_str(text: &str) -> Result<Self, PurposeError> {
        let purpose = match text {
            "" => Some(Self::Home),
            "n" => Some(Self::NewWallet),
            "p" => Some(Self::ChangePassword),
            "f" => Some(Self::RequestRecovery),
            "e" => Some(Self::Email),
            "x" => Some(Self::Export),
            "l" => Some(Self::Lift),
            with_id => match with_id.split_at_checked(1) {
                Some(("c", id)) => id.parse().ok().map(Self::Confirm),
                Some(("s", id)) => id.parse().ok().map(Self::SpeedUp),
                Some(("r", id)) => id.parse().ok().map(Self::Recover),
                _ => None,
            },
        };
        purpose.filter(|purpose| purpose.to_string() == text).ok_or(PurposeError)
    }
}

/// The start parameter.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewWallet => f.write_str("n"),
            Self::Confirm(id) => write!(f, "c{id}"),
            Self::SpeedUp(id) => write!(f, "s{id}"),
            Self::ChangePassword => f.write_str("p"),
            Self::RequestRecovery => f.write_str("f"),
            Self::Recover(id) => write!(f, "r{id}"),
            Self::Email => f.write_str("e"),
            Self::Export => f.write_str("x"),
            Self::Lift => f.write_str("l"),
            Self::Home => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_has_one_text() {
        let (transfer, recovery) = (TransferId::random(), RecoveryId::random());
        for purpose in [
            Purpose::NewWallet,
            Purpose::Confirm(transfer),
            Purpose::SpeedUp(transfer),
            Purpose::ChangePassword,
            Purpose::RequestRecovery,
            Purpose::Recover(recovery),
            Purpose::Email,
            Purpose::Export,
            Purpose::Lift,
            Purpose::Home,
        ] {
            let text = purpose.to_string();
            assert_eq!(text.parse(), Ok(purpose));
            // A link of Telegram holds these characters alone, and 512 of them.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            assert!(text.len() <= 512 && text.bytes().all(is_plain), "{text}");
        }
        let upper = format!("c{}", transfer.to_string().to_uppercase());
        for bad in ["N", "n1", "c", "cx", "r", "é", " ", "start", &format!("x{transfer}"), &upper]
        {
            assert_eq!(bad.parse::<Purpose>(), Err(PurposeError), "{bad}");
        }
    }

    #[test]
    fn the_link_of_an_app_is_one_of_telegram() {
        let link = "https://t.me/acme_vault_bot/wallet";
        assert_eq!(link.parse::<AppLink>().unwrap().to_string(), link);
        for bad in [
            "",
            "https://t.me/acme_vault_bot",
            "https://t.me/acme_vault_bot/",
            "https://t.me/acme_vault_bot/wallet/x",
            "https://t.me/acme_vault_bot/wallet?startapp=n",
            "https://t.me/acme\"/wallet",
            "http://t.me/acme_vault_bot/wallet",
            "https://t.me.example.org/acme_vault_bot/wallet",
        ] {
            assert_eq!(bad.parse::<AppLink>(), Err(AppLinkError), "{bad}");
        }
    }
}
