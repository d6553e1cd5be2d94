//! What an operator configures: read once, from defaults, a TOML file and the environment, into
//! types that can only hold usable values. `kms-config` says how; variables begin `KMS_SERVER__`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kms_chain::spending::SpendingRules;
use kms_chain::{Chain, ChainError};
use kms_config::parse;
pub use kms_config::{ConfigError, Secret};
use kms_core::recovery::RecoveryRules;
use kms_core::{KdfParams, MasterKeyId, ServerKeySet, ServerKeys};
#[cfg(feature = "aws-kms")]
use kms_key_aws::AwsKeySettings;
use kms_types::{Amount, Token, Units, Wei};
use serde::Deserialize;

const PREFIX: &str = "KMS_SERVER";
const DEFAULTS: &[(&str, &str)] = &[("listen", "127.0.0.1:8443"), ("kms_key.provider", "local")];

/// Everything that `serve` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The server's certificate chain and private key, both PEM.
    pub tls: TlsSettings,
    /// Accounts, wallets, transfers.
    pub database: DatabaseSettings,
    /// Wrapped SCKs.
    pub key_database: KeyDatabaseSettings,
    /// The KMS key that wraps, and older ones.
    pub kms_key: KmsKeySettings,
    /// Older KMS keys, that only unwrap.
    pub older_kms_keys: Vec<KmsKeySettings>,
    /// Pepper, contact, row and audit key.
    pub server_keys: ServerKeys,
    /// The chain.
    pub chain: ChainSettings,
    /// How passwords are checked.
    pub password: PasswordSettings,
    /// How often things may be done.
    pub limits: LimitSettings,
    /// How a forgotten password is replaced.
    pub recovery: RecoveryRules,
    /// How e-mail is sent; without it none is, and no address can be confirmed.
    pub mail: Option<MailSettings>,
    /// How the audit is guarded.
    pub audit: AuditSettings,
    /// What a server does unasked.
    pub upkeep: UpkeepSettings,
}

/// PEM texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate chain, the server's own first.
    pub certificate: String,
    /// Its private key.
    pub key: Secret,
}

/// PostgreSQL or SQLite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host/name` or `sqlite:path`.
    pub url: Secret,
    /// The same as another role, which may change the schema. Only `migrate` uses it.
    pub migrate_url: Option<Secret>,
    /// Connections at most.
    #[serde(default = "default_pool")]
    pub pool: u32,
}

/// MongoDB or SQLite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDatabaseSettings {
    /// `mongodb://…`, `mongodb+srv://…` or `sqlite:path`.
    pub url: Secret,
    /// The database's name, for MongoDB.
    #[serde(default = "default_key_database")]
    pub name: String,
}

/// A KMS key.
#[derive(Clone, Debug)]
pub struct KmsKeySettings {
    /// Its name, stored with every wrapped SCK.
    pub id: MasterKeyId,
    /// Where it is.
    pub provider: KmsKeyProvider,
}

/// Where a KMS key is.
#[derive(Clone, Debug)]
pub enum KmsKeyProvider {
    /// `local`: in a file.
    Local {
        /// An encrypted PKCS#8 PEM file that only its owner may read.
        path: PathBuf,
        /// What it is encrypted under.
        passphrase: Secret,
    },
    /// `aws-kms`: in AWS KMS. Region and credentials come from where AWS' tools look for them.
    #[cfg(feature = "aws-kms")]
    Aws(AwsKeySettings),
}

impl KmsKeyProvider {
    /// What the configuration calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Local { .. } => "local",
            #[cfg(feature = "aws-kms")]
            Self::Aws(_) => "aws-kms",
        }
    }
}

/// The chain that money moves on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSettings {
    /// JSON-RPC endpoints, the first as long as it works. May hold keys of their providers.
    #[serde(alias = "rpc_url")]
    pub rpc_urls: RpcUrls,
    /// How long each of them may take for an answer, in milliseconds.
    #[serde(default = "default_rpc_timeout_milliseconds")]
    pub rpc_timeout_milliseconds: u64,
    /// An endpoint whose newest block is older than this is not used, in seconds; 0 for a chain
    /// that makes no blocks while nobody sends.
    #[serde(default = "default_stalled_seconds")]
    pub stalled_seconds: u64,
    /// EIP-155.
    pub chain_id: u64,
    /// What people call it.
    pub name: String,
    /// Of its native coin.
    #[serde(default = "default_symbol")]
    pub symbol: String,
    /// A block explorer without a slash at its end.
    pub explorer: Option<String>,
    /// Blocks after which a transfer is final.
    #[serde(default = "default_confirmations")]
    pub confirmations: u64,
    /// How long a quote can be confirmed, in seconds.
    #[serde(default = "default_quote_seconds")]
    pub quote_seconds: u64,
    /// How often the chain is asked about transfers that are on their way, in milliseconds.
    #[serde(default = "default_poll_milliseconds")]
    pub poll_milliseconds: u64,
    /// How long a transfer may wait at one fee before it is sent with the next one, in seconds.
    #[serde(default = "default_replace_seconds")]
    pub replace_seconds: u64,
    /// The ERC-20 tokens that can be paid with.
    #[serde(default)]
    pub tokens: Vec<Token>,
}

/// One endpoint or several: a list, or a text with white space between them.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "RawRpcUrls")]
pub struct RpcUrls(Vec<Secret>);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawRpcUrls {
    Text(Secret),
    List(Vec<Secret>),
}

impl From<RawRpcUrls> for RpcUrls {
    fn from(raw: RawRpcUrls) -> Self {
        let urls = match raw {
            RawRpcUrls::Text(text) => vec![text],
            RawRpcUrls::List(list) => list,
        };
        let words = urls.iter().flat_map(|urls| urls.expose().split_whitespace());
        Self(words.map(|url| Secret::from(url.to_owned())).collect())
    }
}

impl From<String> for RpcUrls {
    fn from(text: String) -> Self {
        RawRpcUrls::Text(Secret::from(text)).into()
    }
}

/// More decimals than any token that people pay with; amounts stay readable.
const MOST_DECIMALS: u8 = 36;

impl ChainSettings {
    /// The chain over these endpoints.
    pub(crate) fn open(&self) -> Result<Chain, ChainError> {
        let urls = self.rpc_urls.0.iter().map(Secret::expose);
        let timeout = Duration::from_millis(self.rpc_timeout_milliseconds.max(1));
        let stalled_after = Duration::from_secs(self.stalled_seconds);
        let stalled_after = Some(stalled_after).filter(|after| !after.is_zero());
        Chain::over(urls, self.chain_id, timeout, stalled_after)
    }

    /// What can be known without asking the chain.
    fn check_tokens(&self) -> Result<(), ConfigError> {
        let wrong = |token: &Token, why: &str| {
            let expected = format!("{}: {why}", token.symbol);
            Err(ConfigError::expected("chain.tokens", &expected))
        };
        for (index, token) in self.tokens.iter().enumerate() {
            let mut before = self.tokens.iter().take(index);
            if before.clone().any(|other| other.symbol == token.symbol) {
                return wrong(token, "another token has this symbol");
            }
            if before.any(|other| other.address == token.address) {
                return wrong(token, "another token has this address");
            }
            if token.symbol.as_str().eq_ignore_ascii_case(&self.symbol) {
                return wrong(token, "the native coin has this symbol");
            }
            if token.decimals > MOST_DECIMALS {
                return wrong(token, "expected at most 36 decimals");
            }
        }
        Ok(())
    }
}

/// How passwords are checked.
#[derive(Clone, Copy, Debug)]
pub struct PasswordSettings {
    /// The KDF of new passwords.
    pub kdf: KdfParams,
    /// How many are checked at once.
    pub running: NonZeroUsize,
    /// How many may wait.
    pub waiting: usize,
}

/// How often things may be done, and how much may be spent.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    /// Recoveries of one account: this many at once, and one more each time that a day divided by
    /// it is over. So a burst after a quiet day can reach twice as many, less one, within 24 hours.
    /// 0 means none.
    pub recoveries_a_day: u32,
    /// Exports of one account's key, counted in the same way.
    pub exports_a_day: u32,
    /// Recoveries of all accounts together, likewise within an hour: once for those that are asked
    /// for, once for those that are completed. 0 means none.
    pub recoveries_an_hour: u32,
    /// Codes for e-mail addresses that one account may ask for, likewise within a day.
    pub codes_a_day: u32,
    /// New wallets that one caller may ask for, likewise within a minute.
    pub onboardings_a_minute: u32,
    /// Quotes of one account, likewise within a minute.
    pub quotes_a_minute: u32,
    /// Reads of one caller, on each server.
    pub reads_a_second: NonZeroU32,
    /// Reads of one account, on each server.
    pub account_reads_a_second: NonZeroU32,
    /// What one account may spend in 24 hours, by symbol; no limit for what is not named.
    pub spend_a_day: BTreeMap<String, Amount>,
    /// The same for some time after a recovery.
    pub spend_a_day_after_recovery: BTreeMap<String, Amount>,
}

impl LimitSettings {
    /// What the operator allows, in the units of the chain's assets.
    pub(crate) fn spending(
        &self,
        chain: &ChainSettings,
        recovery: &RecoveryRules,
    ) -> Result<SpendingRules, ConfigError> {
        let in_units = |key: &str, amounts: &BTreeMap<String, Amount>| {
            let units = |(symbol, amount): (&String, &Amount)| {
                let key = format!("limits.{key}.{symbol}");
                let token = chain
                    .tokens
                    .iter()
                    .find(|token| symbol.eq_ignore_ascii_case(token.symbol.as_str()));
                let decimals = match token {
                    Some(token) => token.decimals,
                    None if symbol.eq_ignore_ascii_case(&chain.symbol) => Wei::DECIMALS,
                    None => {
                        let expected = "expected the symbol of the native coin or of a token";
                        return Err(ConfigError::expected(&key, expected));
                    }
                };
                let units = amount.to_units(decimals);
                let units = units.map_err(|why| ConfigError::expected(&key, &why.to_string()))?;
                Ok((token.map(|token| token.address), Units(units)))
            };
            amounts.iter().map(units).collect::<Result<_, _>>()
        };
        Ok(SpendingRules {
            a_day: in_units("spend_a_day", &self.spend_a_day)?,
            after_recovery: in_units(
                "spend_a_day_after_recovery",
                &self.spend_a_day_after_recovery,
            )?,
            hold: recovery.hold,
        })
    }
}

/// How e-mail is sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// `smtps://user:password@host`, or `smtp://user:password@host?tls=required` for STARTTLS. In
    /// clear only to this machine.
    pub url: Secret,
    /// Who sends: `Wallet <wallet@example.org>`.
    pub from: String,
    /// Where people's browsers reach this server, for the link that cancels a recovery:
    /// `https://…` without a slash at its end.
    pub public_url: String,
}

/// How the audit is guarded.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// A file that checkpoints are appended to, beside those in the key database. Best where the
    /// operator of the databases can not write.
    pub checkpoint_path: Option<PathBuf>,
    /// How often.
    pub checkpoint_every: Duration,
}

/// What a server does unasked.
#[derive(Clone, Copy, Debug)]
pub struct UpkeepSettings {
    /// How often the KMS keys are tried.
    pub canary_every: Duration,
    /// How often every wallet and every wrapped SCK is looked at, by one of the servers.
    pub check_every: Duration,
    /// How long a wrapped SCK stays that no wallet refers to; for ever without it.
    pub retention: Option<Duration>,
}

fn default_pool() -> u32 {
    16
}

fn default_key_database() -> String {
    "kms".to_owned()
}

fn default_symbol() -> String {
    "ETH".to_owned()
}

fn default_confirmations() -> u64 {
    12
}

fn default_quote_seconds() -> u64 {
    120
}

fn default_poll_milliseconds() -> u64 {
    1_000
}

fn default_rpc_timeout_milliseconds() -> u64 {
    5_000
}

fn default_stalled_seconds() -> u64 {
    600
}

fn default_replace_seconds() -> u64 {
    45
}

/// The file as it is written, before its texts are parsed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: String,
    tls: TlsSettings,
    database: DatabaseSettings,
    key_database: KeyDatabaseSettings,
    kms_key: RawKmsKey,
    #[serde(default)]
    older_kms_keys: BTreeMap<String, RawKmsKey>,
    server_keys: RawServerKeys,
    chain: ChainSettings,
    #[serde(default)]
    password: RawPassword,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    recovery: RawRecovery,
    mail: Option<MailSettings>,
    #[serde(default)]
    audit: RawAudit,
    #[serde(default)]
    upkeep: RawUpkeep,
}

#[derive(Deserialize)]
#[serde(tag = "provider", rename_all = "kebab-case", deny_unknown_fields)]
enum RawKmsKey {
    Local {
        id: String,
        path: PathBuf,
        passphrase: Secret,
    },
    #[cfg(feature = "aws-kms")]
    AwsKms {
        id: String,
        key: String,
        public_key: String,
        endpoint: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServerKeys {
    pepper: Secret,
    contact: Secret,
    row: Secret,
    audit: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPassword {
    kdf: String,
    running: usize,
    waiting: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    recoveries_a_day: u32,
    spend_a_day: BTreeMap<String, Amount>,
    spend_a_day_after_recovery: BTreeMap<String, Amount>,
    exports_a_day: u32,
    recoveries_an_hour: u32,
    codes_a_day: u32,
    onboardings_a_minute: u32,
    quotes_a_minute: u32,
    reads_a_second: NonZeroU32,
    account_reads_a_second: NonZeroU32,
}

/// In seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRecovery {
    wait_with_code: u64,
    wait_without_email: u64,
    wait_without_code: u64,
    email_trusted_after: u64,
    open_for: u64,
    hold: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAudit {
    checkpoint_path: Option<PathBuf>,
    checkpoint_minutes: NonZeroU16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawUpkeep {
    canary_seconds: NonZeroU32,
    check_seconds: NonZeroU32,
    retention_days: u16,
}

impl Default for RawPassword {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { kdf: KdfParams::default().to_string(), running: cores, waiting: cores * 16 }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            recoveries_a_day: 3,
            recoveries_an_hour: 30,
            codes_a_day: 5,
            exports_a_day: 3,
            onboardings_a_minute: 300,
            quotes_a_minute: 60,
            reads_a_second: const { NonZeroU32::new(2_000).unwrap() },
            account_reads_a_second: const { NonZeroU32::new(100).unwrap() },
            spend_a_day: BTreeMap::new(),
            spend_a_day_after_recovery: BTreeMap::new(),
        }
    }
}

impl Default for RawRecovery {
    fn default() -> Self {
        let rules = RecoveryRules::default();
        Self {
            wait_with_code: rules.wait_with_code.as_secs(),
            wait_without_email: rules.wait_without_email.as_secs(),
            wait_without_code: rules.wait_without_code.as_secs(),
            email_trusted_after: rules.email_trusted_after.as_secs(),
            open_for: rules.open_for.as_secs(),
            hold: rules.hold.as_secs(),
        }
    }
}

impl Default for RawAudit {
    fn default() -> Self {
        Self { checkpoint_path: None, checkpoint_minutes: const { NonZeroU16::new(5).unwrap() } }
    }
}

impl Default for RawUpkeep {
    fn default() -> Self {
        const {
            Self {
                canary_seconds: NonZeroU32::new(60 * 60).unwrap(),
                check_seconds: NonZeroU32::new(24 * 60 * 60).unwrap(),
                retention_days: 35,
            }
        }
    }
}

impl LimitSettings {
    fn new(raw: &RawLimits) -> Self {
        Self {
            recoveries_a_day: raw.recoveries_a_day,
            exports_a_day: raw.exports_a_day,
            recoveries_an_hour: raw.recoveries_an_hour,
            codes_a_day: raw.codes_a_day,
            onboardings_a_minute: raw.onboardings_a_minute,
            quotes_a_minute: raw.quotes_a_minute,
            reads_a_second: raw.reads_a_second,
            account_reads_a_second: raw.account_reads_a_second,
            spend_a_day: raw.spend_a_day.clone(),
            spend_a_day_after_recovery: raw.spend_a_day_after_recovery.clone(),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self::new(&RawLimits::default())
    }
}

impl UpkeepSettings {
    fn new(raw: &RawUpkeep) -> Self {
        let seconds = |seconds: NonZeroU32| Duration::from_secs(seconds.get().into());
        let days = u64::from(raw.retention_days);
        Self {
            canary_every: seconds(raw.canary_seconds),
            check_every: seconds(raw.check_seconds),
            retention: (days > 0).then(|| Duration::from_secs(days * 24 * 60 * 60)),
        }
    }
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self::new(&RawUpkeep::default())
    }
}

impl Settings {
    /// Reads `.env` if it is there, then the file if one is given, then the environment.
    ///
    /// # Errors
    /// When a key is missing, unknown or has a value that can not be used.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        kms_config::load::<Raw>(PREFIX, DEFAULTS, file)?.try_into()
    }
}

impl TryFrom<Raw> for Settings {
    type Error = ConfigError;

    fn try_from(raw: Raw) -> Result<Self, ConfigError> {
        raw.chain.check_tokens()?;
        let keys = |name: &str, text: &Secret| {
            parse::<ServerKeySet>(&format!("server_keys.{name}"), text.expose())
        };
        let older = raw
            .older_kms_keys
            .into_iter()
            .map(|(name, key)| kms_key(&format!("older_kms_keys.{name}"), key));
        let recovery = recovery_rules(&raw.recovery, raw.mail.is_some())?;
        let limits = LimitSettings::new(&raw.limits);
        limits.spending(&raw.chain, &recovery)?;
        Ok(Self {
            listen: parse("listen", &raw.listen).map_err(|_cause| {
                ConfigError::expected("listen", "expected an address and port, as 0.0.0.0:8443")
            })?,
            tls: raw.tls,
            database: raw.database,
            key_database: raw.key_database,
            kms_key: kms_key("kms_key", raw.kms_key)?,
            older_kms_keys: older.collect::<Result<_, _>>()?,
            server_keys: ServerKeys {
                pepper: keys("pepper", &raw.server_keys.pepper)?,
                contact: keys("contact", &raw.server_keys.contact)?,
                row: keys("row", &raw.server_keys.row)?,
                audit: keys("audit", &raw.server_keys.audit)?,
            },
            chain: raw.chain,
            password: PasswordSettings {
                kdf: parse("password.kdf", &raw.password.kdf)?,
                running: NonZeroUsize::new(raw.password.running).ok_or_else(|| {
                    ConfigError::expected("password.running", "expected at least 1")
                })?,
                waiting: raw.password.waiting,
            },
            limits,
            recovery,
            mail: raw.mail.map(mail).transpose()?,
            audit: AuditSettings {
                checkpoint_path: raw.audit.checkpoint_path,
                checkpoint_every: Duration::from_secs(
                    u64::from(raw.audit.checkpoint_minutes.get()) * 60,
                ),
            },
            upkeep: UpkeepSettings::new(&raw.upkeep),
        })
    }
}

fn recovery_rules(raw: &RawRecovery, sends_codes: bool) -> Result<RecoveryRules, ConfigError> {
    if raw.open_for == 0 {
        return Err(ConfigError::expected("recovery.open_for", "expected at least 1"));
    }
    Ok(RecoveryRules {
        sends_codes,
        wait_with_code: Duration::from_secs(raw.wait_with_code),
        wait_without_email: Duration::from_secs(raw.wait_without_email),
        wait_without_code: Duration::from_secs(raw.wait_without_code),
        email_trusted_after: Duration::from_secs(raw.email_trusted_after),
        open_for: Duration::from_secs(raw.open_for),
        hold: Duration::from_secs(raw.hold),
        ..RecoveryRules::default()
    })
}

fn mail(mail: MailSettings) -> Result<MailSettings, ConfigError> {
    let url = mail.url.expose();
    let local = ["127.0.0.1", "localhost", "[::1]"];
    let here = |host| url.starts_with(&format!("smtp://{host}:")) && !url.contains('@');
    let local = local.iter().any(here);
    let protected =
        url.starts_with("smtps://") || url.starts_with("smtp://") && url.ends_with("?tls=required");
    if !local && !protected {
        let expected = "expected smtps://, or smtp:// with ?tls=required at its end";
        return Err(ConfigError::expected("mail.url", expected));
    }
    if !mail.public_url.starts_with("https://") || mail.public_url.ends_with('/') {
        let expected = "expected https:// and a host, without a slash at the end";
        return Err(ConfigError::expected("mail.public_url", expected));
    }
    Ok(mail)
}

fn kms_key(at: &str, raw: RawKmsKey) -> Result<KmsKeySettings, ConfigError> {
    let (id, provider) = match raw {
        RawKmsKey::Local { id, path, passphrase } => {
            (id, KmsKeyProvider::Local { path, passphrase })
        }
        #[cfg(feature = "aws-kms")]
        RawKmsKey::AwsKms { id, key, public_key, endpoint } => {
            // What is unwrapped comes back over it.
            let local = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
            let safe = |url: &String| {
                let here = local.iter().any(|start| url.starts_with(start)) && !url.contains('@');
                here || url.starts_with("https://")
            };
            if !endpoint.iter().all(safe) {
                let expected = "expected https://, or http:// on this machine";
                return Err(ConfigError::expected(&format!("{at}.endpoint"), expected));
            }
            (id, KmsKeyProvider::Aws(AwsKeySettings { key, public_key, endpoint }))
        }
    };
    Ok(KmsKeySettings { id: parse(&format!("{at}.id"), &id)?, provider })
}

#[cfg(test)]
mod tests;
