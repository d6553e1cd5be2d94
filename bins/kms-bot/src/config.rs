//! The settings of the bot. `kms-config` documents where they are read from; variables begin with
//! `KMS_BOT__`, and `deploy/bot.env.example` lists all of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kms_config::{ConfigError, Secret, ServiceUrl};
use serde::Deserialize;

pub use crate::chat::pace::RateLimits;

const PREFIX: &str = "KMS_BOT";

/// All settings of the bot.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The Telegram Bot API.
    pub telegram: TelegramSettings,
    /// The KMS.
    pub server: ServerSettings,
    /// What survives a restart.
    #[serde(default)]
    pub state: StateSettings,
    /// The listener of health checks and metrics.
    #[serde(default)]
    pub ops: OpsSettings,
}

/// The listener of health checks and metrics, over plain HTTP without a token.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpsSettings {
    /// The address and port, which only the private network should reach.
    pub listen: SocketAddr,
}

impl Default for OpsSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8082)) }
    }
}

/// What survives a restart.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateSettings {
    /// The file with it, in a directory that the bot can write to.
    pub path: PathBuf,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self { path: PathBuf::from("kms-bot.state") }
    }
}

/// The Telegram Bot API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelegramSettings {
    /// The bot's token.
    pub token: TelegramToken,
    /// Another Bot API than Telegram's. The token is in the URL of every call, so it needs TLS.
    pub api_url: Option<ServiceUrl>,
    /// Telegram's rate limits. No setting: only a simulated Telegram has others.
    #[serde(skip)]
    pub limits: RateLimits,
}

/// The token of a bot, as `@BotFather` gives it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Secret")]
pub struct TelegramToken(Secret);

/// The text is not the token of a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected digits, a colon and 35 characters, as @BotFather gives them")]
pub struct TelegramTokenError;

/// `kms-server`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// `https://host:port`.
    pub url: ServiceUrl,
    /// A token of `kms-server token new` with the scope `bot`.
    pub token: Secret,
    /// PEM certificates that are trusted instead of the system's authorities.
    pub ca: Option<String>,
}

impl Settings {
    /// Reads the TOML file if one is given, `.env` of the current directory and the environment.
    ///
    /// # Errors
    /// When a key is missing, unknown or has a value that it cannot have.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        kms_config::load(PREFIX, file)
    }
}

impl TelegramToken {
    /// Returns the token.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl TryFrom<Secret> for TelegramToken {
    type Error = TelegramTokenError;

    fn try_from(token: Secret) -> Result<Self, TelegramTokenError> {
        let (id, secret) = token.expose().split_once(':').ok_or(TelegramTokenError)?;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.parse::<u64>().is_err() || secret.len() < 30 || !secret.chars().all(is_allowed) {
            return Err(TelegramTokenError);
        }
        Ok(Self(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
        [telegram]
        token = "7000000001:AAabcdefghijklmnopqrstuvwxyz-_12345"
        [server]
        url = "https://kms:8443"
        token = "kms_secret"
    "#;
    const DEPLOY_EXAMPLE: &str = include_str!("../../../deploy/bot.env.example");

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        kms_config::load_from(PREFIX, TOML, variables)
    }

    #[test]
    fn the_bot_api_is_telegrams_by_default_and_secrets_are_not_shown() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.telegram.api_url, None);
        let shown = format!("{settings:?}");
        assert!(!shown.contains("AAabc") && !shown.contains("kms_secret"), "{shown}");
    }

    #[test]
    fn an_error_names_the_key() {
        for (name, value, key) in [
            ("KMS_BOT__TELEGRAM__TOKEN", "hello", "telegram.token"),
            ("KMS_BOT__TELEGRAM__API_URL", "http://telegram.example", "telegram.api_url"),
            ("KMS_BOT__TELEGRAM__API_URL", "http://localhost:x@evil.example/", "telegram.api_url"),
            ("KMS_BOT__SERVER__URL", "http://localhost@evil.example/", "server.url"),
            ("KMS_BOT__SERVER__URL", "http://10.0.0.1:8443", "server.url"),
            ("KMS_BOT__SERVER__TOKEN_FILE", "/nowhere/at/all", "server.token_file"),
            ("KMS_BOT__SERVER__CA_FILE", "/nowhere/at/all", "server.ca_file: /nowhere/at/all"),
            ("KMS_BOT__SERVER__URI", "x", "server.uri"),
        ] {
            let error = settings(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{name}: {error}");
        }
    }

    #[test]
    fn the_example_documents_every_setting() {
        let variables = example();
        let variables: Vec<_> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        kms_config::load_from::<Settings>(PREFIX, "", &variables).unwrap();
        let missing = kms_config::undocumented::<Settings>(PREFIX, &variables);
        assert!(missing.is_empty(), "not in deploy/bot.env.example: {missing:?}");
    }

    /// `UPDATE_SCHEMAS=1` writes it.
    #[test]
    fn the_schema_is_that_of_the_settings() {
        let found = kms_config::schema::<Settings>(PREFIX, DEPLOY_EXAMPLE, &[example()]);
        let found = format!("{found:#}\n");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/bot.schema.json");
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), found);
    }

    /// The variables of the example, with values for those that are read from files.
    fn example() -> Vec<(String, String)> {
        let variables = kms_config::example_variables(PREFIX, DEPLOY_EXAMPLE).unwrap();
        let variables = variables.into_iter().map(|(name, value)| {
            let value = match name.as_str() {
                "KMS_BOT__TELEGRAM__TOKEN_FILE" => {
                    "7000000001:AAabcdefghijklmnopqrstuvwxyz-_12345".to_owned()
                }
                name if name.ends_with("_FILE") => "from a file".to_owned(),
                _ => value,
            };
            (name.trim_end_matches("_FILE").to_owned(), value)
        });
        variables.collect()
    }
}
