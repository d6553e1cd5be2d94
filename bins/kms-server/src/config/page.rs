//! `page`: the public listener, with the vault page, its API and the links of e-mails.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use kms_core::launch::TelegramKey;
use kms_types::TelegramId;
use serde::Deserialize;

/// The public listener, and whose openings of the page count.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageSettings {
    /// The address and port, with the certificate of `tls`.
    pub listen: SocketAddr,
    /// The ids of the bots whose Mini App is the page. Without any, the page cannot be opened.
    pub bots: Vec<TelegramId>,
    /// Who signs openings: `production`, `test`, or a public key in hex, for tests alone.
    pub telegram_key: TelegramKey,
    /// The link of the page at Telegram. Without it, the page asks the user to go back to the chat
    /// for whatever it was not opened for.
    pub app: Option<AppLink>,
}

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

impl fmt::Display for AppLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for PageSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8444)),
            bots: Vec::new(),
            telegram_key: TelegramKey::PRODUCTION,
            app: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
