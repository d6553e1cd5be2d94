//! The whole system in this process: chain, e-mail, stores, server, Telegram and bot.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use actix_web::web::Query;
use anyhow::{Context, ensure};
use bot_api_sim::{Limits, Sim};
use kms_bot::Bot;
use kms_bot::config::{OpsSettings, RateLimits, ServerSettings, StateSettings, TelegramSettings};
use kms_client::{Client, ClientError, Trust, Vault};
use kms_core::account::{SwapReason, WalletSwap};
use kms_core::ports::{AccountStore, RecoveryStore};
use kms_core::recovery::{Recovery, RecoveryRules};
use kms_server::config::{ChainSettings, Finality, LimitSettings, MailSettings, SpendUpTo};
use kms_server::{Secret, Server};
use kms_server_testing::{Stores, TestEnv};
use kms_store::{Database, Scope, SqliteKeyDatabase};
use kms_testkit::{Anvil, AnvilOptions, Mailbox, TestToken, free_port};
use kms_types::{Amount, EthAddress, RecoveryId, TelegramId, Token, U256, Wei};
use serde::Deserialize;
use serde_json::json;

/// The id of the sandbox's second chain.
pub const SECOND_CHAIN: u64 = 1_041;
const KMS_KEY: &str = "kms-sandbox";
const KMS_KEY_BITS: u32 = 3_072;
/// The folder of the keys.
const KEYS: &str = "keys";
/// The bot whose Mini App is the vault page, and the app's link. The bot's token is stored nowhere.
const VAULT_BOT: i64 = 7_000_000_002;
const VAULT_APP: (&str, &str) = ("wallet_vault_bot", "wallet");
/// The sandbox's token.
const TOKEN: &str = "TUSD";
const TOKEN_DECIMALS: u8 = 6;
/// The number of blocks after which a transfer is final.
const CONFIRMATIONS: u64 = 2;

/// The ways in which sandboxes differ.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// How long a quote can be confirmed, in seconds.
    pub quote_seconds: u64,
    /// The address of a block explorer, to which transactions are linked.
    pub explorer: Option<String>,
    /// The id of a second chain, whose coin has the symbol of the first one's.
    pub second_chain: Option<u64>,
    /// What one account may spend in 24 hours, by symbol.
    pub spend_a_day: BTreeMap<String, Amount>,
    /// From what amount on an external deposit has a notice of its own, by symbol.
    pub notice_from: BTreeMap<String, Amount>,
    /// Whether the token is configured from the server's first start on, rather than its second.
    pub token: bool,
    /// Whether the bot runs in this process.
    pub bot: bool,
    /// Whether the bot's token may pass on passwords that were typed in the chat.
    pub chat_passwords: bool,
    /// Whether the server is configured with the link of the page.
    pub page_link: bool,
    /// How many times faster than Telegram's the time of its rate limits runs.
    pub telegram_speed: u32,
    /// How long a recovery waits; after the code from an e-mail, a third of it.
    pub recovery_wait: Duration,
}

/// A running sandbox.
pub struct Stage {
    /// The primary chain.
    pub anvil: Arc<Anvil>,
    /// The second chain, if there is one.
    pub second: Option<Anvil>,
    /// A worthless token on the first chain.
    pub token: TestToken,
    /// Telegram.
    pub sim: Sim,
    /// The mail server; it accepts e-mail to every address.
    pub mailbox: Mailbox,
    /// The accounts' database, as the server sees it.
    pub database: Database,
    /// The key database, as the server sees it.
    pub scks: SqliteKeyDatabase,
    /// A client of the server.
    pub client: Client,
    /// The bearer token of the bot and of [`Stage::client`].
    pub bearer: String,
    env: TestEnv,
    telegram_speed: u32,
    server: Option<Server>,
    bot: Option<Bot>,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            quote_seconds: 120,
            explorer: None,
            second_chain: None,
            spend_a_day: BTreeMap::new(),
            notice_from: BTreeMap::new(),
            token: true,
            bot: true,
            chat_passwords: true,
            page_link: true,
            telegram_speed: 20,
            recovery_wait: Duration::from_secs(9),
        }
    }
}

/// What Telegram appends to the URL of the page.
#[derive(Deserialize)]
struct Fragment {
    #[serde(rename = "tgWebAppData")]
    signed: String,
}

/// Omits the bearer token.
impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("env", &self.env).finish_non_exhaustive()
    }
}

impl Stage {
    /// Makes keys, stores and a chain, and starts the server and the bot on them.
    ///
    /// # Errors
    /// When anvil cannot be found or fetched, or a part does not start.
    pub async fn start(options: StageOptions) -> anyhow::Result<Self> {
        let mut env = TestEnv::new(Stores::Embedded)?;
        let keys = env.directory.path().join(KEYS);
        kms_server::keys::create(&keys, KMS_KEY.parse()?, KMS_KEY_BITS)?;
        env.use_keys(KMS_KEY.parse()?, &keys)?;
        let token = TestToken::deploy(&env.anvil, TOKEN, TOKEN_DECIMALS)?;
        let sim = Sim::start()?;
        sim.set_limits(Limits::times_faster(options.telegram_speed));
        let mailbox = Mailbox::start()?;
        configure(&mut env, &mailbox, &token, &options)?;
        let second = options.second_chain.map(|chain_id| add_chain(&mut env, chain_id));
        let second = second.transpose()?;
        register_page(&mut env, &sim)?;
        env.page.app = env.page.app.filter(|_| options.page_link);
        let database = env.migrate().await?;
        let scks = env.directory.path().join("keys.db");
        let scks = SqliteKeyDatabase::open(&scks.display().to_string()).await?;
        let scope = if options.chat_passwords { Scope::Bot } else { Scope::Chat };
        let bearer = env.issue_token(&database, scope).await?;
        let client = env.client(env.listen.port(), &bearer)?;
        let mut stage = Self {
            anvil: Arc::clone(&env.anvil),
            second,
            token,
            sim,
            mailbox,
            database,
            scks,
            client,
            bearer,
            env,
            telegram_speed: options.telegram_speed,
            server: None,
            bot: None,
        };
        fs::write(stage.certificate_path(), &stage.env.certificate)?;
        stage.serve().await?;
        if options.bot {
            stage.bot = Some(Bot::start(stage.bot_settings()?).await?);
        }
        Ok(stage)
    }

    /// The bot's settings.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn bot_settings(&self) -> anyhow::Result<kms_bot::config::Settings> {
        Ok(kms_bot::config::Settings {
            telegram: TelegramSettings {
                token: Secret::from(self.sim.token().to_owned()).try_into()?,
                api_url: Some(self.sim.api_url().parse()?),
                limits: RateLimits::times_faster(self.telegram_speed),
            },
            server: ServerSettings {
                url: self.url().parse()?,
                token: Secret::from(self.bearer.clone()),
                ca: Some(self.env.certificate.clone()),
            },
            state: StateSettings { path: self.directory().join("kms-bot.state") },
            ops: OpsSettings { listen: SocketAddr::from(([127, 0, 0, 1], 0)) },
        })
    }

    /// Stops the server alone.
    pub async fn stop_server(&mut self) {
        if let Some(server) = self.server.take() {
            // What is still running ends with the process.
            let _ = server.stop().await;
        }
    }

    /// Starts the server again, at its old address and on the same stores, now with the token.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_server(&mut self) -> anyhow::Result<()> {
        self.env.chain.tokens = vec![self.paid_token()?];
        self.serve().await
    }

    async fn serve(&mut self) -> anyhow::Result<()> {
        let server = Server::start(self.env.settings()?).await.context("starting the server")?;
        self.server = Some(server);
        Ok(())
    }

    /// As if this user had opened the page, and Telegram had signed this username.
    ///
    /// # Errors
    /// When the username is none, or the database does not answer.
    pub async fn proves_name(&self, user: i64, username: &str) -> anyhow::Result<()> {
        kms_server_testing::prove_name(&self.database, user, username).await
    }

    /// As if two operators had approved to move this user's wallet.
    ///
    /// # Errors
    /// When there is no such wallet, or the database does not answer.
    pub async fn request_move(&self, user: TelegramId, to: TelegramId) -> anyhow::Result<Recovery> {
        let account = self.database.account(user.into()).await?.context("no such wallet")?;
        let (rules, now) = (RecoveryRules::default(), account.created_at);
        let (id, codes_key) = (RecoveryId::random(), 1.try_into()?);
        let requested = Recovery::request_move(id, &account, to, &rules, codes_key, now);
        ensure!(self.database.insert_recovery(requested).await?, "a recovery is open");
        Ok(requested)
    }

    /// As if an operator had finished that move after its wait. The key is not sealed anew.
    ///
    /// # Errors
    /// When the move has ended, or the database does not answer.
    pub async fn finish_move(&self, requested: Recovery) -> anyhow::Result<()> {
        let at = requested.ready_at;
        let account = self.database.account(requested.account.into()).await?;
        let mut wallet = account.context("no such wallet")?.wallet;
        let (account, replaces) = (requested.account, wallet.version);
        wallet.version += 1;
        let reason = SwapReason::Move(requested.completed(at)?);
        let swap = WalletSwap { account, replaces, wallet, reason, at };
        ensure!(self.database.swap_wallet(swap).await?, "the move has ended");
        Ok(())
    }

    /// Pays an address from one of the chain's own accounts, waits until the balance has grown, and
    /// mines until the payment is final. Returns the transaction's hash.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn faucet(&self, to: EthAddress, wei: Wei) -> anyhow::Result<String> {
        pay(&self.anvil, to, wei).await
    }

    /// Like [`Stage::faucet`], on the second chain.
    ///
    /// # Errors
    /// When there is none, or it does not answer.
    pub async fn faucet_on_second(&self, to: EthAddress, wei: Wei) -> anyhow::Result<String> {
        pay(self.second.as_ref().context("there is no second chain")?, to, wei).await
    }

    /// Mints an amount of the token, in its smallest unit, to an address, and mines until that is
    /// final. Returns the transaction's hash.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn faucet_tokens(&self, to: EthAddress, units: u128) -> anyhow::Result<String> {
        let hash = self.token.mint(&self.anvil, &to.to_string(), units)?;
        finalize(&self.anvil)?;
        Ok(hash)
    }

    /// The token, as the server is configured with it.
    ///
    /// # Errors
    /// When its contract has no valid address.
    pub fn paid_token(&self) -> anyhow::Result<Token> {
        as_configured(&self.token)
    }

    /// An address's balance of the token, read from the chain itself.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn chain_tokens(&self, of: EthAddress) -> anyhow::Result<u128> {
        Ok(self.token.balance(&self.anvil, &of.to_string())?)
    }

    /// An address's balance, read from the chain itself.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn chain_balance(&self, of: EthAddress) -> anyhow::Result<Wei> {
        balance(&self.anvil, of)
    }

    /// Turns mining off, or on again with one block for the transactions that are pending.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn set_mining(&self, on: bool) -> anyhow::Result<()> {
        self.anvil.rpc("evm_setAutomine", json!([on]))?;
        if on {
            self.anvil.rpc("anvil_mine", json!(["0x1"]))?;
        }
        Ok(())
    }

    /// Deletes the keys, which the server holds in memory. It cannot be started again.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub fn delete_keys(&self) -> std::io::Result<()> {
        let folder = self.env.directory.path().join(KEYS);
        if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
    }

    /// Stops everything and deletes its files, the keys first.
    pub async fn stop(mut self) {
        // An error means that the folder, which is deleted below, is gone already.
        let _ = self.delete_keys();
        if let Some(bot) = self.bot.take() {
            // An error would only say which task failed before.
            let _ = bot.stop().await;
        }
        self.stop_server().await;
        self.sim.stop().await;
    }

    /// Opens the vault page at the URL that a user's app shows, as the page itself does.
    ///
    /// # Errors
    /// When the URL has no opening, or the server refuses it.
    pub async fn open_page(&self, url: &str) -> anyhow::Result<Vault> {
        let (_page, fragment) = url.split_once('#').context("the URL has no fragment")?;
        let Query(Fragment { signed }) = Query::from_query(fragment)?;
        Ok(self.open_signed(&signed).await?)
    }

    /// Opens the vault page with what Telegram signed.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn open_signed(&self, init_data: &str) -> Result<Vault, ClientError> {
        let trust = Trust::Pinned(self.env.certificate.clone());
        Vault::open(&page_url(&self.env), init_data, trust).await
    }

    /// The URL of the public listener.
    #[must_use]
    pub fn page_url(&self) -> String {
        page_url(&self.env)
    }

    /// Lets Telegram open the vault page at this URL, where the same page is served once more.
    pub fn show_page_at(&self, url: &str) {
        let (bot, app) = VAULT_APP;
        self.sim.register_app(VAULT_BOT, bot, app, url);
    }

    /// The server's certificate, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.env.certificate
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.env.listen.port())
    }

    /// The file with the server's certificate, for other clients.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        self.env.directory.path().join("server.pem")
    }

    /// The directory of the stores' files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.env.directory.path()
    }
}

/// Registers the vault page at Telegram as the Mini App of a bot of its own.
fn register_page(env: &mut TestEnv, sim: &Sim) -> anyhow::Result<()> {
    let (bot, app) = VAULT_APP;
    sim.register_app(VAULT_BOT, bot, app, &page_url(env));
    env.page.bots = vec![VAULT_BOT.try_into()?];
    env.page.telegram_key = sim.app_key().parse()?;
    env.page.app = Some(format!("https://t.me/{bot}/{app}").parse()?);
    Ok(())
}

fn page_url(env: &TestEnv) -> String {
    format!("https://localhost:{}", env.page.listen.port())
}

/// Changes the environment from what tests need to what people in front of a screen need.
fn configure(
    env: &mut TestEnv,
    mailbox: &Mailbox,
    token: &TestToken,
    options: &StageOptions,
) -> anyhow::Result<()> {
    // Chosen before the server listens, because links in its e-mails contain the port.
    env.listen.set_port(free_port()?);
    env.page.listen.set_port(free_port()?);
    env.chain = ChainSettings {
        // anvil mines only when there are transactions, so an old block is no sign of a fault.
        stalled_after: None,
        name: "Sandbox".to_owned(),
        explorer: options.explorer.clone(),
        finality: Finality::Blocks(CONFIRMATIONS),
        prove_receipts: true,
        compare_balances: true,
        quote_lifetime: Duration::from_secs(options.quote_seconds),
        poll_interval: Duration::from_millis(200),
        replace_after: 3,
        notice_from: options.notice_from.clone(),
        tokens: if options.token { vec![as_configured(token)?] } else { Vec::new() },
        ..env.chain.clone()
    };
    env.password.running = thread::available_parallelism()?;
    env.password.waiting = 32;
    env.limits = LimitSettings {
        spend_a_day: options.spend_a_day.clone(),
        onboardings: env.limits.onboardings,
        spend_a_day_unlisted: SpendUpTo::Unlimited,
        ..LimitSettings::default()
    };
    env.recovery = RecoveryRules {
        wait_with_code: options.recovery_wait / 3,
        wait_without_email: options.recovery_wait,
        wait_without_code: options.recovery_wait * 7,
        email_trusted_after: Duration::ZERO,
        hold: options.recovery_wait * 60,
        unfreeze_wait: options.recovery_wait,
        ..RecoveryRules::default()
    };
    env.mail = Some(MailSettings {
        url: Secret::from(mailbox.url()).try_into()?,
        from: "Wallet <wallet@sandbox.example>".to_owned(),
        public_url: page_url(env).try_into()?,
    });
    env.audit.checkpoint_path = None;
    Ok(())
}

/// Starts a second chain, which is configured like the first one.
fn add_chain(env: &mut TestEnv, chain_id: u64) -> anyhow::Result<Anvil> {
    let anvil = Anvil::start_with(AnvilOptions { chain_id, ..AnvilOptions::default() })?;
    let settings = ChainSettings {
        chain_id,
        rpc_urls: vec![Secret::from(anvil.url()).try_into()?],
        name: "Second".to_owned(),
        tokens: Vec::new(),
        notice_from: BTreeMap::new(),
        // Tests set balances on it, which no payment explains.
        compare_balances: false,
        ..env.chain.clone()
    };
    env.more_chains.insert("second".to_owned(), settings);
    Ok(anvil)
}

/// Pays an address from one of the chain's own accounts, waits until the balance has grown, and
/// mines until the payment is final. Returns the transaction's hash.
async fn pay(anvil: &Anvil, to: EthAddress, wei: Wei) -> anyhow::Result<String> {
    let before = balance(anvil, to)?;
    let accounts = anvil.rpc("eth_accounts", json!([]))?;
    let value = format!("{:#x}", wei.0);
    let transaction = json!({ "from": accounts.get(0), "to": to.to_string(), "value": value });
    let hash = anvil.rpc("eth_sendTransaction", json!([transaction]))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while Some(balance(anvil, to)?) != before.checked_add(wei) {
        ensure!(Instant::now() < deadline, "the faucet's payment did not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    finalize(anvil)?;
    Ok(hash.as_str().unwrap_or_default().to_owned())
}

/// Mines as many blocks as make every mined transaction final.
fn finalize(anvil: &Anvil) -> anyhow::Result<()> {
    anvil.rpc("anvil_mine", json!([format!("{CONFIRMATIONS:#x}")]))?;
    Ok(())
}

fn balance(anvil: &Anvil, of: EthAddress) -> anyhow::Result<Wei> {
    let balance = anvil.rpc("eth_getBalance", json!([of.to_string(), "latest"]))?;
    let digits = balance.as_str().and_then(|text| text.strip_prefix("0x"));
    Ok(Wei(U256::from_str_radix(digits.context("the node returned no balance")?, 16)?))
}

fn as_configured(token: &TestToken) -> anyhow::Result<Token> {
    let (symbol, address) = (TOKEN.parse()?, token.address().parse()?);
    Ok(Token { symbol, address, decimals: TOKEN_DECIMALS })
}
