//! What an operator configures. `kms-config` says how; variables begin `KMS_BOT__`.

use std::path::Path;

use kms_config::{ConfigError, Secret};
use serde::Deserialize;

const PREFIX: &str = "KMS_BOT";
const DEFAULTS: &[(&str, &str)] = &[("telegram.api_url", "https://api.telegram.org")];

/// Everything that the bot needs to know.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Telegram's side.
    pub telegram: TelegramSettings,
    /// The KMS's side.
    pub server: ServerSettings,
}

/// Telegram.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelegramSettings {
    /// What `@BotFather` gave.
    pub token: Secret,
    /// Where the Bot API is.
    pub api_url: String,
}

/// `kms-server`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// `https://host:port`.
    pub url: String,
    /// A token of `kms-server token new` with the scope `bot`.
    pub token: Secret,
    /// PEM certificates that alone are believed; the system's authorities without it.
    pub ca: Option<String>,
}

impl Settings {
    /// Reads `.env` if it is there, then the file if one is given, then the environment.
    ///
    /// # Errors
    /// When a key is missing, unknown or has a value that can not be used.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        kms_config::load::<Self>(PREFIX, DEFAULTS, file)?.checked()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let token = self.telegram.token.expose();
        let (id, secret) = token.split_once(':').unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.parse::<u64>().is_err() || secret.len() < 30 || !secret.chars().all(good) {
            return Err(ConfigError::expected(
                "telegram.token",
                "expected digits, a colon and 35 characters, as @BotFather gives them",
            ));
        }
        // The token is in the URL of every call: not even a test needs it in clear on a network.
        let url = &self.telegram.api_url;
        let local = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
        if !url.starts_with("https://") && !local.iter().any(|local| url.starts_with(local)) {
            return Err(ConfigError::expected(
                "telegram.api_url",
                "expected https://, or http:// on this machine",
            ));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        [telegram]
        token = "7000000001:AAabcdefghijklmnopqrstuvwxyz-_12345"
        [server]
        url = "https://kms:8443"
        token = "kms_secret"
    "#;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        kms_config::load_from::<Settings>(PREFIX, DEFAULTS, EXAMPLE, variables)?.checked()
    }

    #[test]
    fn telegram_is_where_telegram_is_and_secrets_are_not_shown() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.telegram.api_url, "https://api.telegram.org");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("AAabc") && !shown.contains("kms_secret"), "{shown}");
    }

    #[test]
    fn a_bad_value_names_itself() {
        for (key, value, named) in [
            ("KMS_BOT__TELEGRAM__TOKEN", "hello", "telegram.token"),
            ("KMS_BOT__TELEGRAM__API_URL", "http://telegram.example", "telegram.api_url"),
            ("KMS_BOT__SERVER__TOKEN_FILE", "/nowhere/at/all", "server.token_file"),
            ("KMS_BOT__SERVER__CA_FILE", "/nowhere/at/all", "/nowhere/at/all"),
            ("KMS_BOT__SERVER__URI", "x", "uri"),
        ] {
            let error =
                format!("{:#}", anyhow::Error::from(settings(&[(key, value)]).unwrap_err()));
            assert!(error.contains(named), "{key}: {error}");
        }
    }
}
