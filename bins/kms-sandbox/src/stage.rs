//! What the story plays on: keys, certificate, stores, chain, server, Telegram and bot, made
//! afresh.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bot_api_sim::Sim;
use kms_bot::Bot;
use kms_bot::config::{ServerSettings, TelegramSettings};
use kms_client::{BearerToken, Client, Trust};
use kms_core::recovery::RecoveryRules;
use kms_core::{KdfParams, MasterKeyId, ServerKeySet, ServerKeys};
use kms_server::config::{
    AuditSettings, ChainSettings, DatabaseSettings, KeyDatabaseSettings, KmsKeyProvider,
    KmsKeySettings, LimitSettings, MailSettings, PasswordSettings, Settings, TlsSettings,
    UpkeepSettings,
};
use kms_server::{Secret, Server};
use kms_store::{Database, Scope, SqliteScks};
use kms_testkit::{Anvil, Mailbox, TestToken};
use kms_types::{Amount, EthAddress, Token, U256, Wei};
use serde_json::json;
use tempfile::TempDir;

const KMS_KEY: &str = "kms-sandbox";
/// What the sandbox's token is called, and its decimals.
const TOKEN: &str = "TUSD";
const TOKEN_DECIMALS: u8 = 6;
/// Blocks after which money is final here.
const CONFIRMATIONS: u64 = 2;

/// What may differ between sandboxes.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// How long a quote can be confirmed, in seconds.
    pub quote_seconds: u64,
    /// A block explorer.
    pub explorer: Option<String>,
    /// What one account may spend in 24 hours, by symbol.
    pub spend_a_day: BTreeMap<String, Amount>,
    /// Whether the server knows the token from its first start on, and not only from the second.
    pub token: bool,
    /// Whether the bot runs in this process.
    pub bot: bool,
    /// How long a recovery waits; a third of it after the code from a mail.
    pub recovery_wait: Duration,
}

/// A running sandbox.
#[derive(Debug)]
pub struct Stage {
    /// The chain.
    pub anvil: Anvil,
    /// A token on it, without worth.
    pub token: TestToken,
    /// Telegram.
    pub sim: Sim,
    /// The mail server, for whatever address.
    pub mailbox: Mailbox,
    /// The accounts' database, as the server sees it.
    pub database: Database,
    /// The key database, as the server sees it.
    pub scks: SqliteScks,
    /// A client of the server.
    pub client: Client,
    /// The bearer token of the bot and of [`Stage::client`].
    pub bearer: String,
    directory: TempDir,
    tls: TlsSettings,
    options: StageOptions,
    address: SocketAddr,
    server: Option<Server>,
    bot: Option<Bot>,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            quote_seconds: 120,
            explorer: None,
            spend_a_day: BTreeMap::new(),
            token: true,
            bot: true,
            recovery_wait: Duration::from_secs(9),
        }
    }
}

impl Stage {
    /// Makes everything and starts it.
    ///
    /// # Errors
    /// When anvil can not be had, or something does not start.
    pub async fn set(options: StageOptions) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("kms-sandbox-").tempdir()?;
        let anvil = Anvil::start()?;
        let token = TestToken::deploy(&anvil, TOKEN, TOKEN_DECIMALS)?;
        let sim = Sim::start()?;
        let mailbox = Mailbox::start()?;
        let keys = directory.path().join("keys");
        kms_server::keys::create(&keys, KMS_KEY.parse()?, 3072)?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names)?;
        let certificate = signed.cert.pem();
        fs::write(directory.path().join("server.pem"), &certificate)?;
        let server_keys = Arc::new(read_keys(&keys)?);
        let url = sqlite(directory.path(), "accounts.db");
        let database = Database::connect(&url, 1, server_keys).await?;
        database.migrate().await?;
        let scks = directory.path().join("keys.db");
        let scks = SqliteScks::open(&scks.display().to_string()).await?;
        let bearer = kms_server::cli::issue(&database, "bot".to_owned(), vec![Scope::Bot], None);
        let bearer = bearer.await?.expose().to_owned();
        let key = Secret::from(signed.signing_key.serialize_pem());
        let tls = TlsSettings { certificate, key };
        // Known before the server listens: its mails have links to it.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let place = Place { directory: directory.path(), mailbox: &mailbox, address };
        let mut chain = chain(&anvil, &token, &options)?;
        if !options.token {
            chain.tokens.clear();
        }
        let server = start(place, tls.clone(), chain, &options).await?;
        let trust = Trust::Pinned(tls.certificate.clone());
        let url = format!("https://localhost:{}", address.port());
        let client = Client::new(&url, BearerToken::from(bearer.clone()), trust)?;
        let server = Some(server);
        let mut stage = Self {
            anvil,
            token,
            sim,
            mailbox,
            database,
            scks,
            client,
            bearer,
            directory,
            tls,
            options,
            address,
            server,
            bot: None,
        };
        if stage.options.bot {
            stage.bot = Some(Bot::start(stage.bot_settings()).await?);
        }
        Ok(stage)
    }

    /// What the bot is configured with.
    #[must_use]
    pub fn bot_settings(&self) -> kms_bot::config::Settings {
        kms_bot::config::Settings {
            telegram: TelegramSettings {
                token: Secret::from(self.sim.token().to_owned()),
                api_url: self.sim.api_url(),
            },
            server: ServerSettings {
                url: self.url(),
                token: Secret::from(self.bearer.clone()),
                ca: Some(self.tls.certificate.clone()),
            },
        }
    }

    /// Stops the server, and nothing else.
    pub async fn stop_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Starts it again where it was, on the same stores.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_server(&mut self) -> anyhow::Result<()> {
        let place = Place {
            directory: self.directory.path(),
            mailbox: &self.mailbox,
            address: self.address,
        };
        let chain = chain(&self.anvil, &self.token, &self.options)?;
        let server = start(place, self.tls.clone(), chain, &self.options).await?;
        self.server = Some(server);
        Ok(())
    }

    /// Pays somebody from an account of the chain's own, waits until it is there, and mines the
    /// blocks after which the server tells of it. Gives the transaction's hash.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn faucet(&self, to: EthAddress, wei: Wei) -> anyhow::Result<String> {
        let before = self.chain_balance(to)?;
        let accounts = self.anvil.rpc("eth_accounts", json!([]))?;
        let value = format!("{:#x}", wei.0);
        let transaction = json!({ "from": accounts.get(0), "to": to.to_string(), "value": value });
        let hash = self.anvil.rpc("eth_sendTransaction", json!([transaction]))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while Some(self.chain_balance(to)?) != before.checked_add(wei) {
            ensure!(Instant::now() < deadline, "the faucet's money did not arrive");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.anvil.rpc("anvil_mine", json!([format!("{CONFIRMATIONS:#x}")]))?;
        Ok(hash.as_str().unwrap_or_default().to_owned())
    }

    /// Gives somebody this much of the token, in its smallest unit, and mines the blocks after
    /// which the server tells of it. Gives the transaction's hash.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn faucet_tokens(&self, to: EthAddress, units: u128) -> anyhow::Result<String> {
        let hash = self.token.mint(&self.anvil, &to.to_string(), units)?;
        self.anvil.rpc("anvil_mine", json!([format!("{CONFIRMATIONS:#x}")]))?;
        Ok(hash)
    }

    /// The token, as the server is configured with it.
    ///
    /// # Errors
    /// When its contract has no address.
    pub fn paid_token(&self) -> anyhow::Result<Token> {
        as_configured(&self.token)
    }

    /// What the chain itself says of a balance of the token.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn chain_tokens(&self, of: EthAddress) -> anyhow::Result<u128> {
        Ok(self.token.balance(&self.anvil, &of.to_string())?)
    }

    /// What the chain itself says of a balance.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn chain_balance(&self, of: EthAddress) -> anyhow::Result<Wei> {
        let balance = self.anvil.rpc("eth_getBalance", json!([of.to_string(), "latest"]))?;
        let digits = balance.as_str().and_then(|text| text.strip_prefix("0x"));
        Ok(Wei(U256::from_str_radix(digits.context("no balance")?, 16)?))
    }

    /// Stops making blocks, or makes them again, and one for what waits.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn make_blocks(&self, make: bool) -> anyhow::Result<()> {
        self.anvil.rpc("evm_setAutomine", json!([make]))?;
        if make {
            self.anvil.rpc("anvil_mine", json!(["0x1"]))?;
        }
        Ok(())
    }

    /// Stops everything; what it made is gone.
    pub async fn clear(mut self) {
        if let Some(bot) = self.bot.take() {
            bot.stop().await;
        }
        self.stop_server().await;
        self.sim.stop().await;
    }

    /// Where the server is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The server's certificate, for other clients.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        self.directory.path().join("server.pem")
    }

    /// Where the stores' files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// What a server is started with.
struct Place<'a> {
    directory: &'a Path,
    mailbox: &'a Mailbox,
    address: SocketAddr,
}

async fn start(
    place: Place<'_>,
    tls: TlsSettings,
    chain: ChainSettings,
    options: &StageOptions,
) -> anyhow::Result<Server> {
    let Place { directory, mailbox, address } = place;
    let keys = directory.join("keys");
    let id: MasterKeyId = KMS_KEY.parse()?;
    let settings = Settings {
        listen: address,
        tls,
        database: DatabaseSettings {
            url: Secret::from(sqlite(directory, "accounts.db")),
            migrate_url: None,
            pool: 1,
        },
        key_database: KeyDatabaseSettings {
            url: Secret::from(sqlite(directory, "keys.db")),
            name: "kms".to_owned(),
        },
        kms_key: KmsKeySettings {
            id,
            provider: KmsKeyProvider::Local {
                path: keys.join("kms-key.pem"),
                passphrase: Secret::from(fs::read_to_string(keys.join("kms-key-passphrase"))?),
            },
        },
        older_kms_keys: Vec::new(),
        server_keys: read_keys(&keys)?,
        chain,
        password: PasswordSettings {
            kdf: KdfParams::default(),
            running: std::thread::available_parallelism()?,
            waiting: 32,
        },
        limits: LimitSettings {
            spend_a_day: options.spend_a_day.clone(),
            ..LimitSettings::default()
        },
        recovery: RecoveryRules {
            wait_with_code: options.recovery_wait / 3,
            wait_without_email: options.recovery_wait,
            wait_without_code: options.recovery_wait * 7,
            email_trusted_after: Duration::ZERO,
            hold: options.recovery_wait * 60,
            ..RecoveryRules::default()
        },
        mail: Some(MailSettings {
            url: Secret::from(mailbox.url()),
            from: "Wallet <wallet@sandbox.example>".to_owned(),
            public_url: format!("https://localhost:{}", address.port()),
        }),
        audit: AuditSettings { checkpoint_path: None, checkpoint_every: Duration::from_secs(300) },
        upkeep: UpkeepSettings::default(),
    };
    Server::start(settings).await.context("starting the server")
}

fn chain(
    anvil: &Anvil,
    token: &TestToken,
    options: &StageOptions,
) -> anyhow::Result<ChainSettings> {
    let token = as_configured(token)?;
    Ok(ChainSettings {
        rpc_urls: anvil.url().into(),
        rpc_timeout_milliseconds: 5_000,
        // A night without payments is one without blocks.
        stalled_seconds: 0,
        chain_id: anvil.chain_id(),
        name: "Sandbox".to_owned(),
        symbol: "ETH".to_owned(),
        explorer: options.explorer.clone(),
        confirmations: CONFIRMATIONS,
        quote_seconds: options.quote_seconds,
        poll_milliseconds: 200,
        replace_seconds: 10,
        tokens: vec![token],
    })
}

fn as_configured(token: &TestToken) -> anyhow::Result<Token> {
    let (symbol, address) = (TOKEN.parse()?, token.address().parse()?);
    Ok(Token { symbol, address, decimals: TOKEN_DECIMALS })
}

fn sqlite(directory: &Path, name: &str) -> String {
    format!("sqlite:{}", directory.join(name).display())
}

fn read_keys(keys: &Path) -> anyhow::Result<ServerKeys> {
    let read = |name: &str| -> anyhow::Result<ServerKeySet> {
        Ok(fs::read_to_string(keys.join(name))?.parse()?)
    };
    Ok(ServerKeys {
        pepper: read("pepper")?,
        contact: read("contact")?,
        row: read("row")?,
        audit: read("audit")?,
    })
}
