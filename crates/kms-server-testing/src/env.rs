//! Everything that a server needs to run, made afresh.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kms_client::{BearerToken, Client, Trust};
use kms_core::recovery::RecoveryRules;
use kms_core::{KdfParams, MasterKeyId, ServerKeys};
use kms_server::Secret;
use kms_server::config::{
    AuditSettings, ChainSettings, Chains, DatabaseAuth, DatabaseSettings, Finality,
    KeyDatabaseSettings, KmsKeyProvider, KmsKeySettings, LimitSettings, MailSettings, OpsSettings,
    PageSettings, PasswordSettings, PaymentPolicySettings, Profile, RpcUrl, Settings, SpendUpTo,
    TlsSettings, UpkeepSettings, UrlError,
};
use kms_store::{Database, Scope};
use kms_testkit::{Anvil, AnvilOptions, Scratch};
#[cfg(feature = "servers")]
use kms_testkit::{Mongod, Postgres};
use kms_types::wire::Account;
use kms_types::{Symbol, TransferId};
use serde_json::{Value, json};

/// The KMS key of tests: an encrypted PEM file, published with its passphrase.
pub const TEST_KMS_KEY: &str = include_str!("../../kms-core/vectors/test-kms-key.txt");
/// The passphrase of [`TEST_KMS_KEY`].
pub const TEST_KMS_KEY_PASSPHRASE: &str =
    include_str!("../../kms-core/vectors/test-kms-key-passphrase.txt");

/// Which pair of stores a server uses.
#[derive(Clone, Copy, Debug)]
pub enum Stores {
    /// SQLite for accounts and for wrapped SCKs.
    Embedded,
    /// PostgreSQL for accounts, MongoDB for wrapped SCKs.
    #[cfg(feature = "servers")]
    Servers,
}

/// The short name of the primary chain.
const CHAIN: &str = "test";

/// Databases, keys, a certificate, a chain and the settings of the servers that run on them.
///
/// Settings may be changed until a server is started; servers that run already keep theirs.
pub struct TestEnv {
    /// Holds every file of the environment, and is deleted with it.
    pub directory: Scratch,
    /// The URL of the accounts' database.
    pub database: String,
    /// The same for the role that owns the schema, if it is another one.
    pub owner: Option<String>,
    /// The URL of the key database.
    pub key_database: String,
    /// The key database's name, for MongoDB.
    pub key_database_name: String,
    /// The chain.
    pub anvil: Arc<Anvil>,
    /// The address a server in this process listens on; port 0 for a free one.
    pub listen: SocketAddr,
    /// The operations listener; port 0 for a free one.
    pub ops: OpsSettings,
    /// The public listener; port 0 for a free one.
    pub page: PageSettings,
    /// The server's self-signed certificate for `localhost`, as PEM.
    pub certificate: String,
    /// The certificate's private key, as PEM.
    pub certificate_key: String,
    /// The id of the KMS key.
    pub kms_key_id: MasterKeyId,
    /// The encrypted PEM file of the KMS key.
    pub kms_key_path: PathBuf,
    /// The passphrase of that file.
    pub kms_key_passphrase: String,
    /// The server keys, by name.
    pub server_keys: [(&'static str, String); 6],
    /// The JSON-RPC endpoints: [`TestEnv::anvil`] alone unless a test puts a proxy before it.
    pub rpc_urls: String,
    /// The settings of the primary chain, `test`; [`TestEnv::rpc_urls`] replaces their endpoints.
    pub chain: ChainSettings,
    /// Further chains, by their short names.
    pub more_chains: Chains,
    /// How passwords are checked.
    pub password: PasswordSettings,
    /// Rate limits and spending limits.
    pub limits: LimitSettings,
    /// The program that is asked before a payment is signed; none by default.
    pub payment_policy: Option<PaymentPolicySettings>,
    /// How a forgotten password is replaced.
    pub recovery: RecoveryRules,
    /// How e-mail is sent; none by default.
    pub mail: Option<MailSettings>,
    /// Where audit checkpoints are written.
    pub audit: AuditSettings,
    /// Background maintenance.
    pub upkeep: UpkeepSettings,
    /// Further environment variables of a server in its own process; they override the others.
    pub variables: Vec<(String, String)>,
}

impl TestEnv {
    /// Makes new, empty stores of this kind, and an environment on them.
    ///
    /// # Errors
    /// When a database or anvil cannot be started.
    pub fn new(stores: Stores) -> anyhow::Result<Self> {
        let directory = Scratch::new("server")?;
        let file = |name: &str| format!("sqlite:{}", directory.path().join(name).display());
        let (database, key_database, owner) = match stores {
            Stores::Embedded => (file("accounts.db"), file("keys.db"), None),
            #[cfg(feature = "servers")]
            Stores::Servers if kms_testkit::with_roles() => {
                let (owner, serving) = Postgres::shared()?.create_database_with_roles()?;
                (serving, Mongod::shared()?.serving_url(), Some(owner))
            }
            #[cfg(feature = "servers")]
            Stores::Servers => {
                (Postgres::shared()?.create_database()?, Mongod::shared()?.url(), None)
            }
        };
        let key_database_name = format!("kms_{}", TransferId::random());
        Ok(Self { owner, ..Self::on(directory, database, key_database, key_database_name)? })
    }

    /// Makes an environment on stores that the caller provides.
    ///
    /// # Errors
    /// When anvil cannot be started.
    pub fn on(
        directory: Scratch,
        database: String,
        key_database: String,
        key_database_name: String,
    ) -> anyhow::Result<Self> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names)?;
        let kms_key_path = directory.path().join("kms-key.pem");
        let mut file =
            File::options().write(true).create_new(true).mode(0o600).open(&kms_key_path)?;
        file.write_all(TEST_KMS_KEY.as_bytes())?;
        let audit = AuditSettings {
            checkpoint_path: Some(directory.path().join("audit-checkpoints")),
            ..AuditSettings::default()
        };
        let anvil = Arc::new(Anvil::start()?);
        let key = |digits: &str| format!("1:{}", digits.repeat(32));
        Ok(Self {
            directory,
            database,
            owner: None,
            key_database,
            key_database_name,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ops: OpsSettings {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                ..OpsSettings::default()
            },
            page: PageSettings {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                ..PageSettings::default()
            },
            certificate: signed.cert.pem(),
            certificate_key: signed.signing_key.serialize_pem(),
            kms_key_id: "kms-test".parse()?,
            kms_key_path,
            kms_key_passphrase: TEST_KMS_KEY_PASSPHRASE.to_owned(),
            server_keys: [
                ("pepper", key("a1")),
                ("contact", key("b2")),
                ("row", key("c3")),
                ("audit", key("d4")),
                ("codes", key("e5")),
                ("checkpoint", key("f6")),
            ],
            rpc_urls: anvil.url(),
            chain: chain_of(&anvil)?,
            more_chains: Chains::new(),
            anvil,
            password: PasswordSettings {
                kdf: KdfParams::default(),
                running: 2.try_into()?,
                waiting: 64,
            },
            limits: LimitSettings {
                all_recoveries: "100/hour".parse()?,
                recoveries_without_email: "100/hour".parse()?,
                email_codes: "3/day".parse()?,
                onboardings: "300/minute".parse()?,
                spend_a_day_unlisted: SpendUpTo::Unlimited,
                ..LimitSettings::default()
            },
            payment_policy: None,
            recovery: WITHOUT_WAITING,
            mail: None,
            audit,
            upkeep: UpkeepSettings::default(),
            variables: Vec::new(),
        })
    }

    /// Replaces the chain by a new one with this id, whose metrics are those of this environment
    /// alone: all servers of a process share the recorder.
    ///
    /// # Errors
    /// When anvil cannot be started.
    pub fn use_chain_id(&mut self, chain_id: u64) -> anyhow::Result<()> {
        let options = AnvilOptions { chain_id, ..AnvilOptions::default() };
        self.anvil = Arc::new(Anvil::start_with(options)?);
        (self.rpc_urls, self.chain.chain_id) = (self.anvil.url(), chain_id);
        Ok(())
    }

    /// Replaces the published test keys by those that `kms-server keys new` wrote to a directory.
    ///
    /// # Errors
    /// When a file of the directory cannot be read.
    pub fn use_keys(&mut self, id: MasterKeyId, directory: &Path) -> anyhow::Result<()> {
        self.kms_key_id = id;
        self.kms_key_path = directory.join("kms-key.pem");
        self.kms_key_passphrase = fs::read_to_string(directory.join("kms-key-passphrase"))?;
        for (name, key) in &mut self.server_keys {
            *key = fs::read_to_string(directory.join(name))?;
        }
        Ok(())
    }

    /// The server keys, parsed.
    ///
    /// # Errors
    /// When a test replaced one by something that is no key.
    pub fn server_keys(&self) -> anyhow::Result<ServerKeys> {
        let [pepper, contact, row, audit, codes, checkpoint] = &self.server_keys;
        Ok(ServerKeys {
            pepper: pepper.1.parse()?,
            contact: contact.1.parse()?,
            row: row.1.parse()?,
            audit: audit.1.parse()?,
            codes: codes.1.parse()?,
            checkpoint: checkpoint.1.parse()?,
        })
    }

    fn chains(&self) -> anyhow::Result<Chains> {
        let rpc_urls = rpc_urls(&self.rpc_urls)?;
        let mut chains = self.more_chains.clone();
        chains.insert(CHAIN.to_owned(), ChainSettings { rpc_urls, ..self.chain.clone() });
        Ok(chains)
    }

    /// The settings of a server in this process.
    ///
    /// # Errors
    /// When a test replaced a server key by something that is no key.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings {
            profile: Profile::Development,
            listen: self.listen,
            ops: self.ops,
            page: self.page.clone(),
            tls: TlsSettings {
                certificate: Secret::from(self.certificate.clone()),
                key: Secret::from(self.certificate_key.clone()),
            },
            database: DatabaseSettings {
                url: Secret::from(self.database.clone()).try_into()?,
                migrate_url: self
                    .owner
                    .clone()
                    .map(|url| Secret::from(url).try_into())
                    .transpose()?,
                auth: DatabaseAuth::Password,
                pool: 8,
            },
            key_database: KeyDatabaseSettings {
                url: Secret::from(self.key_database.clone()).try_into()?,
                name: self.key_database_name.clone(),
            },
            kms_key: KmsKeySettings {
                id: self.kms_key_id.clone(),
                provider: KmsKeyProvider::Local {
                    path: self.kms_key_path.clone(),
                    passphrase: Secret::from(self.kms_key_passphrase.clone()),
                },
            },
            older_kms_keys: Vec::new(),
            server_keys: self.server_keys()?,
            chains: self.chains()?,
            primary_chain: Some(CHAIN.to_owned()),
            tokens: Vec::new(),
            password: self.password,
            limits: self.limits.clone(),
            payment_policy: self.payment_policy.clone(),
            recovery: self.recovery,
            mail: self.mail.clone(),
            audit: self.audit.clone(),
            upkeep: self.upkeep,
        })
    }

    /// The settings of a server in its own process, as environment variables.
    ///
    /// Of the sections that tests change, only the chains' are passed; the others keep the server's
    /// defaults (a recovery does not wait) unless [`TestEnv::variables`] sets them.
    #[must_use]
    pub fn environment(&self, listen: &str) -> Vec<(String, String)> {
        let mut variables = vec![
            ("LISTEN", listen.to_owned()),
            ("OPS__LISTEN", self.ops.listen.to_string()),
            ("PAGE__LISTEN", "127.0.0.1:0".to_owned()),
            ("OPS__DRAIN", milliseconds(self.ops.drain.unwrap_or_default())),
            ("TLS__CERTIFICATE", self.certificate.clone()),
            ("TLS__KEY", self.certificate_key.clone()),
            ("DATABASE__URL", self.database.clone()),
            ("KEY_DATABASE__URL", self.key_database.clone()),
            ("KEY_DATABASE__NAME", self.key_database_name.clone()),
            ("KMS_KEY__ID", self.kms_key_id.to_string()),
            ("KMS_KEY__PATH", self.kms_key_path.display().to_string()),
            ("KMS_KEY__PASSPHRASE", self.kms_key_passphrase.clone()),
            ("AUDIT__CHECKPOINT_PATH", self.checkpoint_path().display().to_string()),
            ("LIMITS__SPEND_A_DAY_UNLISTED", "unlimited".to_owned()),
            ("PRIMARY_CHAIN", CHAIN.to_owned()),
            ("RECOVERY__WAIT_WITHOUT_EMAIL", "0s".to_owned()),
            ("LIMITS__ONBOARDINGS", "300/minute".to_owned()),
        ];
        let [pepper, contact, row, audit, codes, checkpoint] = &self.server_keys;
        let bots: Vec<_> = self.page.bots.iter().map(ToString::to_string).collect();
        variables.extend([
            ("PAGE__BOTS", bots.join(" ")),
            ("PAGE__TELEGRAM_KEY", format!("{:?}", self.page.telegram_key)),
            ("SERVER_KEYS__PEPPER", pepper.1.clone()),
            ("SERVER_KEYS__CONTACT", contact.1.clone()),
            ("SERVER_KEYS__ROW", row.1.clone()),
            ("SERVER_KEYS__AUDIT", audit.1.clone()),
            ("SERVER_KEYS__CODES", codes.1.clone()),
            ("SERVER_KEYS__CHECKPOINT", checkpoint.1.clone()),
        ]);
        variables.extend(self.page.app.as_ref().map(|app| ("PAGE__APP", app.to_string())));
        variables.extend(self.owner.clone().map(|url| ("DATABASE__MIGRATE_URL", url)));
        let variables = variables.into_iter();
        let variables = variables.map(|(name, value)| (format!("KMS_SERVER__{name}"), value));
        let more_chains = self.more_chains.iter().flat_map(|(name, chain)| {
            let urls: Vec<_> = chain.rpc_urls.iter().map(RpcUrl::expose).collect();
            variables_of_chain(name, &urls.join(" "), chain)
        });
        let chains = variables_of_chain(CHAIN, &self.rpc_urls, &self.chain).chain(more_chains);
        variables.chain(chains).chain(self.variables.clone()).collect()
    }

    /// The file that servers append audit checkpoints to.
    #[must_use]
    pub fn checkpoint_path(&self) -> PathBuf {
        self.directory.path().join("audit-checkpoints")
    }

    /// Connects to the accounts' database and brings its schema up to date.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn migrate(&self) -> anyhow::Result<Database> {
        let keys = Arc::new(self.server_keys()?);
        let database = Database::connect(&self.database, 4, Arc::clone(&keys)).await?;
        if let Some(owner) = &self.owner {
            let owner = Database::connect(owner, 1, keys).await?;
            owner.migrate().await?;
            owner.grant_serving_role(&database).await?;
        } else {
            database.migrate().await?;
        }
        Ok(database)
    }

    /// Issues a bearer token of this scope.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn issue_token(&self, database: &Database, scope: Scope) -> anyhow::Result<String> {
        let name = format!("{scope}-{}", TransferId::random());
        let name = name.chars().take(40).collect();
        let token = kms_server::cli::issue(database, name, vec![scope], None).await?;
        Ok(token.expose().to_owned())
    }

    /// A client of the server on this port, which trusts the environment's certificate alone.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn client(&self, port: u16, token: &str) -> anyhow::Result<Client> {
        let token = BearerToken::from(token.to_owned());
        let trust = Trust::Pinned(self.certificate.clone());
        Ok(Client::new(&format!("https://localhost:{port}"), token, trust)?)
    }

    /// Runs SQL in the accounts' database, as another program does, and returns the rows as text.
    ///
    /// # Errors
    /// When a statement fails.
    #[cfg(feature = "servers")]
    pub fn sql(&self, sql: &str) -> anyhow::Result<String> {
        match self.database.strip_prefix("sqlite:") {
            Some(path) => sqlite(path, sql),
            None => Ok(Postgres::shared()?.execute(self.database_name(), sql)?),
        }
    }

    /// Runs SQL in the embedded key database, as another program does, and returns the rows as
    /// text.
    ///
    /// # Errors
    /// When a statement fails, or the key database is another one.
    #[cfg(feature = "servers")]
    pub fn sql_of_keys(&self, sql: &str) -> anyhow::Result<String> {
        let path = self.key_database.strip_prefix("sqlite:");
        sqlite(path.context("the key database is not embedded")?, sql)
    }

    /// The URL of the key database for an administrator, who can do what a server's role cannot.
    ///
    /// # Errors
    /// When mongod cannot be started.
    #[cfg(feature = "servers")]
    pub fn key_database_of_admin(&self) -> anyhow::Result<String> {
        let mongod = Mongod::shared()?;
        let is_shared = self.key_database == mongod.serving_url();
        Ok(if is_shared { mongod.url() } else { self.key_database.clone() })
    }

    /// The name of the accounts' database within PostgreSQL.
    #[must_use]
    pub fn database_name(&self) -> &str {
        self.database.rsplit('/').next().unwrap_or_default()
    }

    /// Sets the balance of an account's address on the chain.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub fn fund(&self, account: &Account, wei: u128) -> anyhow::Result<()> {
        Ok(self.anvil.set_balance(&account.address.to_string(), wei)?)
    }

    /// Raises the base fee above the highest price of a transaction that the node has, and mines
    /// two blocks, of which none includes it.
    ///
    /// # Errors
    /// When the chain does not answer, or does not have the transaction.
    pub fn price_out(&self, tx_hash: &str) -> anyhow::Result<()> {
        let found = self.anvil.rpc("eth_getTransactionByHash", json!([tx_hash]))?;
        let ceiling = found.get("maxFeePerGas").and_then(Value::as_str);
        let ceiling = ceiling.context("the node does not have the transaction")?;
        let ceiling = u128::from_str_radix(ceiling.trim_start_matches("0x"), 16)?;
        let over = json!([format!("{:#x}", ceiling.saturating_add(1))]);
        for _ in 0..2 {
            self.anvil.rpc("anvil_setNextBlockBaseFeePerGas", over.clone())?;
            self.anvil.rpc("anvil_mine", json!(["0x1"]))?;
        }
        self.anvil.rpc("anvil_setNextBlockBaseFeePerGas", over)?;
        Ok(())
    }
}

/// Omits keys and URLs with passwords.
impl fmt::Debug for TestEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestEnv").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn variables_of_chain(
    short_name: &str,
    rpc_urls: &str,
    chain: &ChainSettings,
) -> impl Iterator<Item = (String, String)> + use<> {
    let variables = [
        ("RPC_URLS", rpc_urls.to_owned()),
        ("CHAIN_ID", chain.chain_id.to_string()),
        ("NAME", chain.name.clone()),
        ("SYMBOL", chain.symbol.as_ref().map_or("ETH", Symbol::as_str).to_owned()),
        ("FINALITY", chain.finality.to_string()),
        ("COMPARE_BALANCES", chain.compare_balances.to_string()),
        ("QUOTE_LIFETIME", milliseconds(chain.quote_lifetime)),
        ("POLL_INTERVAL", milliseconds(chain.poll_interval)),
        ("REPLACE_AFTER", chain.replace_after.to_string()),
        ("CHECK_AFTER", milliseconds(chain.check_after)),
        ("STALLED_AFTER", milliseconds(chain.stalled_after.unwrap_or_default())),
    ];
    let section = format!("KMS_SERVER__CHAINS__{}__", short_name.to_uppercase());
    variables.into_iter().map(move |(key, value)| (format!("{section}{key}"), value))
}

/// The settings of a chain as most tests need them: quick to poll, and soon final.
///
/// # Errors
/// When the URL of anvil is no URL.
pub fn chain_of(anvil: &Anvil) -> anyhow::Result<ChainSettings> {
    Ok(ChainSettings {
        rpc_urls: rpc_urls(&anvil.url())?,
        rpc_headers: BTreeMap::new(),
        rpc_timeout: Duration::from_secs(5),
        stalled_after: Some(Duration::from_secs(600)),
        chain_id: anvil.chain_id(),
        name: "Test".to_owned(),
        symbol: Some(Symbol::ether()),
        explorer: None,
        finality: Finality::Blocks(2),
        prove_receipts: true,
        // `TestEnv::fund` sets balances, which no payment explains.
        compare_balances: false,
        quote_lifetime: Duration::from_secs(120),
        poll_interval: Duration::from_millis(100),
        replace_after: 3,
        check_after: Duration::from_secs(13),
        max_fee: None,
        max_fee_share: 100,
        min_tip: 1_000_000,
        tokens: Vec::new(),
        notice_from: BTreeMap::new(),
    })
}

fn rpc_urls(words: &str) -> Result<Vec<RpcUrl>, UrlError> {
    words.split_whitespace().map(|url| Secret::from(url.to_owned()).try_into()).collect()
}

/// As the server's variables are written.
fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// A recovery that can be completed as soon as it was requested.
const WITHOUT_WAITING: RecoveryRules = RecoveryRules {
    sends_codes: false,
    wait_with_code: Duration::ZERO,
    wait_without_email: Duration::ZERO,
    wait_without_code: Duration::from_secs(7 * 24 * 3_600),
    email_trusted_after: Duration::ZERO,
    code_lifetime: Duration::from_secs(600),
    open_for: Duration::from_secs(600),
    hold: Duration::from_secs(600),
    unfreeze_wait: Duration::from_secs(24 * 3_600),
};

/// Runs SQL in a file of SQLite: one `select`, or any number of other statements.
#[cfg(feature = "servers")]
fn sqlite(path: &str, sql: &str) -> anyhow::Result<String> {
    const SCRIPT: &str = "import sqlite3, sys\n\
        c = sqlite3.connect(sys.argv[1], timeout=30)\n\
        if sys.argv[2].startswith('select'):\n  \
          print('\\n'.join('|'.join(map(str, row)) for row in c.execute(sys.argv[2])))\n\
        else:\n  \
          c.executescript(sys.argv[2])\n";
    let done = std::process::Command::new("python3").args(["-c", SCRIPT, path, sql]).output()?;
    let error = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success(), "{sql}: {error}");
    Ok(String::from_utf8(done.stdout)?.trim_end().to_owned())
}
