//! Mini Apps: pages that Telegram opens with a text that it signs.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

/// Telegram as the signer of openings, with a key pair of its own, and the Mini Apps that BotFather
/// has registered.
pub struct MiniApps {
    pair: Ed25519KeyPair,
    random: SystemRandom,
    apps: BTreeMap<(String, String), MiniApp>,
}

/// A Mini App.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MiniApp {
    bot: i64,
    url: String,
}

/// Who opens a Mini App, with what.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The bot that the app belongs to.
    pub bot: i64,
    /// The user's Telegram id.
    pub user: i64,
    /// The user's first name.
    pub first_name: &'a str,
    /// The user's last name.
    pub last_name: Option<&'a str>,
    /// The user's username.
    pub username: Option<&'a str>,
    /// `startapp` of the link.
    pub start_param: &'a str,
    /// Seconds since 1970.
    pub at: u64,
}

impl MiniApps {
    /// Makes a key pair.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn new() -> Result<Self, Unspecified> {
        let random = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random)?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_key| Unspecified)?;
        Ok(Self { pair, random, apps: BTreeMap::new() })
    }

    /// The public key, in hex, in place of Telegram's own.
    #[must_use]
    pub fn public_key(&self) -> String {
        hex(self.pair.public_key().as_ref())
    }

    /// Registers a bot's app: `https://t.me/USERNAME/NAME` opens this URL.
    pub fn register(&mut self, bot: i64, username: &str, name: &str, url: &str) {
        let key = (username.to_owned(), name.to_owned());
        self.apps.insert(key, MiniApp { bot, url: url.to_owned() });
    }

    /// What a user's app opens for a link: the registered URL with what Telegram signed in its
    /// fragment. `None` for a link to no registered app, and for a start parameter that Telegram
    /// refuses.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn open(&self, link: &str, opening: Opening<'_>) -> Result<Option<String>, Unspecified> {
        let Some(app) = link.strip_prefix("https://t.me/") else { return Ok(None) };
        let (path, start_param) = app.split_once("?startapp=").unwrap_or((app, ""));
        let key = path.split_once('/').map(|(bot, name)| (bot.to_owned(), name.to_owned()));
        let Some(app) = key.and_then(|key| self.apps.get(&key)) else { return Ok(None) };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if start_param.len() > 512 || !start_param.bytes().all(is_plain) {
            return Ok(None);
        }
        let data = self.init_data(Opening { bot: app.bot, start_param, ..opening })?;
        let (url, data) = (&app.url, encoded(&data));
        let rest = "tgWebAppVersion=9.6&tgWebAppPlatform=tdesktop&tgWebAppThemeParams=%7B%7D";
        Ok(Some(format!("{url}#tgWebAppData={data}&{rest}")))
    }

    /// Signs an opening, as Telegram does for whichever page a bot's owner shows under that bot.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn init_data(&self, opening: Opening<'_>) -> Result<String, Unspecified> {
        let Opening { bot, user, first_name, last_name, username, start_param, at } = opening;
        let mut person = json!({ "id": user, "first_name": first_name, "language_code": "en" });
        for (name, value) in [("last_name", last_name), ("username", username)] {
            if let (Some(value), Some(fields)) = (value, person.as_object_mut()) {
                fields.insert(name.to_owned(), value.into());
            }
        }
        // As Telegram writes it.
        let person = person.to_string().replace('/', "\\/");
        let mut salt = [0; 8];
        self.random.fill(&mut salt)?;
        let mut fields = BTreeMap::from([
            ("auth_date", at.to_string()),
            ("chat_instance", i64::from_be_bytes(salt).to_string()),
            ("chat_type", "sender".to_owned()),
            ("user", person),
        ]);
        if !start_param.is_empty() {
            fields.insert("start_param", start_param.to_owned());
        }
        let lines: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let message = format!("{bot}:WebAppData\n{}", lines.join("\n"));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        // It needs the bot's token to be checked, and must not be trusted without it.
        let mut hash = [0; 32];
        self.random.fill(&mut hash)?;
        let fields = fields.into_iter().map(|(key, value)| format!("{key}={}", encoded(&value)));
        let signatures = [format!("signature={signature}"), format!("hash={}", hex(&hash))];
        Ok(fields.chain(signatures).collect::<Vec<_>>().join("&"))
    }
}

impl fmt::Debug for MiniApps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MiniApps").field("apps", &self.apps).finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let one = |byte| match byte {
        byte if is_plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_a_registered_app_alone() -> Result<(), Unspecified> {
        let mut apps = MiniApps::new()?;
        apps.register(7, "acme_vault_bot", "wallet", "https://vault.example.org");
        let ann = Opening {
            bot: 1,
            user: 1,
            first_name: "Ann/é",
            last_name: Some("Lee"),
            username: Some("ann"),
            start_param: "",
            at: 1_800_000_000,
        };
        let link = "https://t.me/acme_vault_bot/wallet?startapp=n";
        let url = apps.open(link, ann)?.unwrap_or_default();
        assert!(url.starts_with("https://vault.example.org#tgWebAppData=auth_date%3D18"), "{url}");
        assert!(url.contains("start_param%3Dn") && !url.contains(' '), "{url}");
        for bad in [
            "https://t.me/acme_vault_bot/other?startapp=n",
            "https://t.me/acme_vault_bot?startapp=n",
            "https://t.me/acme_vault_bot/wallet?startapp=a.b",
            "https://example.org/acme_vault_bot/wallet",
        ] {
            assert_eq!(apps.open(bad, ann)?, None, "{bad}");
        }
        Ok(())
    }
}
