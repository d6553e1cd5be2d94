//! The settings of the server, one file per section. `kms-config` documents where they are read
//! from; variables begin with `KMS_SERVER__`, and `deploy/server.env.example` lists all of them.
//!
//! Each section deserializes straight into the struct that the server uses, with its defaults
//! beside it; checks that concern several fields are in its `validate`.

mod audit;
mod chain;
mod database;
mod kms_key;
mod limits;
mod mail;
mod operator;
mod ops;
mod page;
mod password;
mod policy;
mod recovery;
mod server_keys;
mod tls;
mod tokens;
mod upkeep;
mod webhook;

use std::net::SocketAddr;
use std::path::Path;

use kms_core::ServerKeys;
use kms_core::recovery::RecoveryRules;
use serde::Deserialize;

pub use audit::AuditSettings;
pub use chain::{ChainSettings, Chains, RpcHeader, RpcUrl};
pub(crate) use chain::{no_primary_chain, notice_from};
pub use database::{
    DatabaseAuth, DatabaseSettings, DatabaseUrl, DatabaseUrlError, KeyDatabaseSettings, RereadError,
};
pub use kms_chain::follower::Finality;
pub use kms_config::{ConfigError, Secret, UrlError};
pub use kms_key::{KmsKeyProvider, KmsKeySettings};
pub use limits::{ExternalAddress, LimitSettings, Rate, RateError, SpendUpTo};
pub use mail::{MailSettings, MailUrlError, PublicUrl, SmtpUrl};
pub(crate) use operator::operator;
pub use ops::OpsSettings;
pub use page::PageSettings;
pub use password::PasswordSettings;
pub use policy::Profile;
pub use tls::TlsSettings;
pub(crate) use tokens::MAX_NAME as MAX_TOKEN_NAME;
pub use tokens::{DeclaredScope, DeclaredToken};
pub use upkeep::UpkeepSettings;
pub use webhook::PaymentPolicySettings;

/// The prefix of all variables.
pub const PREFIX: &str = "KMS_SERVER";

/// All settings of the server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether settings that are weaker than the defaults are refused.
    #[serde(default)]
    pub profile: Profile,
    /// The address and port to listen on.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The server's certificate and private key.
    pub tls: TlsSettings,
    /// The listener of health checks and metrics.
    #[serde(default)]
    pub ops: OpsSettings,
    /// The public listener, with the vault page's API and the links of e-mails.
    #[serde(default)]
    pub page: PageSettings,
    /// The database of accounts, wallets and transfers.
    pub database: DatabaseSettings,
    /// The database of wrapped symmetric cryptographic keys (SCKs).
    pub key_database: KeyDatabaseSettings,
    /// The KMS key that wraps new SCKs.
    pub kms_key: KmsKeySettings,
    /// Older KMS keys, which only unwrap.
    #[serde(default, deserialize_with = "kms_key::by_name")]
    pub older_kms_keys: Vec<KmsKeySettings>,
    /// The server's own keys: pepper, contact, row, audit and codes.
    #[serde(with = "server_keys::ServerKeysDef")]
    pub server_keys: ServerKeys,
    /// The chains that transfers are made on, by their short names.
    pub chains: Chains,
    /// The short name of the chain of requests that name none. Required if there are several.
    pub primary_chain: Option<String>,
    /// API tokens that are declared by their hashes.
    #[serde(default)]
    pub tokens: Vec<DeclaredToken>,
    /// How passwords are checked.
    #[serde(default)]
    pub password: PasswordSettings,
    /// Rate limits and spending limits.
    #[serde(default)]
    pub limits: LimitSettings,
    /// A program that is asked before a payment is signed. Without it none is.
    pub payment_policy: Option<PaymentPolicySettings>,
    /// How a forgotten password is replaced.
    #[serde(default, with = "recovery::RecoveryRulesDef")]
    pub recovery: RecoveryRules,
    /// How e-mail is sent. Without it none is sent, and no address can be confirmed.
    pub mail: Option<MailSettings>,
    /// Checkpoints of the audit.
    #[serde(default)]
    pub audit: AuditSettings,
    /// Background maintenance.
    #[serde(default)]
    pub upkeep: UpkeepSettings,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8443))
}

impl Settings {
    /// Reads the TOML file if one is given, `.env` of the current directory and the environment.
    ///
    /// # Errors
    /// When a key is missing, unknown or has a value that it cannot have.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        kms_config::load::<Self>(PREFIX, file)?.validate()
    }

    fn validate(mut self) -> Result<Self, ConfigError> {
        self.recovery.sends_codes = self.mail.is_some();
        chain::validate(&self.chains)?;
        self.primary_chain = Some(chain::primary(&self.chains, self.primary_chain)?);
        self.limits.validate()?;
        self.limits.external(&self.chains, self.primary_chain.as_deref().unwrap_or_default())?;
        self.limits.spending(&self.chains, &self.recovery)?;
        tokens::validate(&self.tokens)?;
        self.payment_policy.as_ref().map_or(Ok(()), PaymentPolicySettings::validate)?;
        self.check_profile()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
