//! A running server: databases checked, keys read, TLS listening, the watcher at work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use kms_chain::follower::Follower;
use kms_chain::{ChainError, TokenError, TransferConfig, Transfers};
use kms_core::{
    Custody, CustodyError, KdfPool, KeyRing, KeyRingError, MasterKey, Ports, Sealer, ServerKeys,
};
#[cfg(feature = "aws-kms")]
use kms_key_aws::{AwsKeyError, AwsMasterKey};
use kms_key_local::{LocalKeyError, LocalMasterKey};
use kms_store::{ConnectError, Database};
use kms_types::wire::Network;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::auth::TokenCache;
use crate::checkpoints::Checkpoints;
use crate::clock;
use crate::config::{
    ConfigError, KeyDatabaseSettings, KmsKeyProvider, KmsKeySettings, Settings, TlsSettings,
};
use crate::mail::Mailer;
use crate::reads::ReadLimits;
use crate::routes;
use crate::state::{KeyDatabase, State};
use crate::telemetry;
use crate::upkeep::{self, KmsKeys, Upkeep};

/// How long requests that are under way may go on when the server stops, in seconds.
const GRACE: u64 = 30;

/// A server in this process.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    stop: watch::Sender<bool>,
    checkpoints: Arc<Checkpoints>,
    tasks: Vec<JoinHandle<()>>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A database can not be used.
    #[error(transparent)]
    Database(#[from] ConnectError),
    /// The schema is older than this program.
    #[error("the database's schema is not up to date; run `kms-server migrate`")]
    Schema,
    /// The KMS key can not be used.
    #[error(transparent)]
    KmsKey(#[from] LocalKeyError),
    /// The KMS key in AWS can not be used.
    #[cfg(feature = "aws-kms")]
    #[error("kms_key: {0}")]
    AwsKey(#[from] AwsKeyError),
    /// The KMS keys do not go together.
    #[error(transparent)]
    KeyRing(#[from] KeyRingError),
    /// No endpoint of the chain can be used, whatever is tried.
    #[error("chain.rpc_urls: {0}")]
    Chain(#[from] ChainError),
    /// Mail can not be sent like this.
    #[error("{0}")]
    Mail(&'static str),
    /// A limit can not be used.
    #[error(transparent)]
    Limits(#[from] ConfigError),
    /// A token is not what it is configured as.
    #[error("chain.tokens: {0}")]
    Token(#[from] TokenError),
    /// The file of checkpoints can not be appended to.
    #[error("audit.checkpoint_path: {0}")]
    CheckpointFile(#[source] std::io::Error),
    /// The certificate or its key can not be used.
    #[error("tls: {0}")]
    Tls(String),
    /// The address can not be listened on.
    #[error("listen: {0}")]
    Listen(#[from] std::io::Error),
    /// There are no threads to check passwords on.
    #[error("password.running: {0}")]
    Threads(#[source] std::io::Error),
    /// A task ended.
    #[error("the process is stopping")]
    Stopped,
}

impl Server {
    /// Checks what can be checked, and listens.
    ///
    /// # Errors
    /// When a database does not answer or was written with other keys, a key can not be read, or
    /// the address is taken. A chain that is down is no reason.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        // Fails only if one is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = tls_config(&settings.tls)?;
        let listen = settings.listen;
        let poll = settings.chain.poll_interval;
        let (stop, stopping) = watch::channel(false);
        let audit = settings.audit.clone();
        let upkeep = settings.upkeep;
        let chain = settings.chain.clone();
        let (mail, trusted_after) = (settings.mail.clone(), settings.recovery.email_trusted_after);
        let state = Data::new(build(settings, poll, stopping.clone()).await?);
        // With a connection of its own, so that whole blocks do not delay what a person waits for.
        let follower = Follower::new(
            Arc::new(state.database.clone()),
            chain.open()?,
            chain.confirmations,
            chain.tokens,
        );
        let checkpoints = Checkpoints::new(
            state.database.clone(),
            state.key_database.clone(),
            audit.checkpoint_path,
        )
        .await?;
        let checkpoints = Arc::new(checkpoints);
        let upkeep = Upkeep {
            custody: Arc::clone(&state.custody),
            database: state.database.clone(),
            key_database: state.key_database.clone(),
            kms_keys: Arc::clone(&state.kms_keys),
            settings: upkeep,
            stopping: stopping.clone(),
        };
        let every = audit.checkpoint_interval;
        let checkpoint = tokio::spawn(Arc::clone(&checkpoints).run(every, stopping.clone()));
        // Before the first request, or it would not be counted.
        telemetry::metrics();
        let metrics = tokio::spawn(telemetry::fold_metrics(stopping.clone()));
        let keys = tokio::spawn(upkeep.clone().watch_kms_keys());
        let wallets = tokio::spawn(upkeep.clone().watch_wallets());
        let sweeper = tokio::spawn(upkeep.clone().sweep());
        let limits = tokio::spawn(upkeep.forget_limits());
        let mailer = mail.map(|mail| {
            let (database, sealer) = (state.database.clone(), state.sealer.clone());
            Mailer::new(&mail, database, sealer, Arc::clone(&state.keys), trusted_after)
        });
        let mailer = mailer.transpose()?.map(|mailer| mailer.run(poll, stopping.clone()));
        let mailer = mailer.map(tokio::spawn);
        let custody = Arc::clone(&state.custody);
        let recoveries =
            tokio::spawn(tend_recoveries(custody, state.database.clone(), poll, stopping.clone()));
        let watcher =
            tokio::spawn(watch_transfers(state.transfers.clone(), poll, stopping.clone()));
        let follower = tokio::spawn(follow_blocks(follower, poll, stopping));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .wrap(from_fn(telemetry::observe))
                .configure(routes::configure)
        })
        .workers(std::thread::available_parallelism().map_or(2, usize::from))
        .client_request_timeout(Duration::from_secs(5))
        .client_disconnect_timeout(Duration::from_secs(2))
        .keep_alive(Duration::from_secs(75))
        .shutdown_timeout(GRACE)
        .disable_signals()
        .bind_rustls_0_23(listen, tls)?;
        let address = server.addrs().first().copied().ok_or(StartError::Stopped)?;
        let server = server.run();
        let handle = server.handle();
        let serving = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the server ended");
            }
        });
        let mut tasks = vec![metrics, watcher, recoveries, follower, checkpoint];
        tasks.extend([keys, wallets, sweeper, limits, serving]);
        tasks.extend(mailer);
        Ok(Self { address, handle, stop, checkpoints, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, lets what is under way finish, and ends.
    pub async fn stop(self) {
        // Long polls, the watcher and the follower end at once.
        let _ = self.stop.send(true);
        self.handle.stop(true).await;
        for task in self.tasks {
            let _ = task.await;
        }
        // After the last request, so that it covers all of them.
        self.checkpoints.write().await;
    }
}

async fn build(
    settings: Settings,
    poll: Duration,
    stopping: watch::Receiver<bool>,
) -> Result<State, StartError> {
    let keys = Arc::new(settings.server_keys);
    let url = settings.database.url.expose();
    let database = Database::connect(url, settings.database.pool, Arc::clone(&keys)).await?;
    if !database.schema_is_current().await? {
        return Err(StartError::Schema);
    }
    database.check_server_keys().await?;
    database.adopt_restored_events().await.map_err(ConnectError::from)?;
    let key_database = open_key_database(&settings.key_database).await?;
    let ring = read_ring(settings.kms_key, settings.older_kms_keys).await?;
    let chain = settings.chain.open()?;
    chain.check().await?;
    let sealer = Sealer::new(Arc::clone(&keys));
    let config = TransferConfig {
        quote_lifetime: settings.chain.quote_lifetime,
        confirmations: settings.chain.confirmations,
        poll,
        replace: settings.chain.replace_after,
    };
    let store = Arc::new(database.clone());
    let spending = settings.limits.spending(&settings.chain, &settings.recovery)?;
    let tokens = settings.chain.tokens;
    match chain.check_tokens(&tokens).await {
        Ok(()) => {}
        // Each is compared again before it is paid with.
        Err(TokenError::Chain(error)) => {
            tracing::warn!(%error, "the tokens can not be compared with their contracts now");
        }
        Err(error) => return Err(error.into()),
    }
    let transfers = Transfers::new(store, chain, sealer.clone(), config, tokens.clone(), spending);
    Ok(State {
        custody: Arc::new(
            custody(&database, &key_database, ring, Arc::clone(&keys), settings.password)?
                .with_recovery_rules(settings.recovery),
        ),
        keys,
        sends_mail: settings.mail.is_some(),
        transfers: Arc::new(transfers),
        database,
        key_database,
        sealer,
        tokens: TokenCache::default(),
        network: Network {
            name: settings.chain.name,
            chain_id: settings.chain.chain_id,
            symbol: settings.chain.symbol,
            explorer: settings.chain.explorer,
            tokens,
        },
        reads: ReadLimits::new(
            settings.limits.reads.quota(),
            settings.limits.account_reads.quota(),
        ),
        limits: settings.limits,
        kms_keys: Arc::new(KmsKeys::default()),
        stopping,
    })
}

/// Custody over these stores.
pub(crate) fn custody(
    database: &Database,
    key_database: &KeyDatabase,
    ring: KeyRing,
    keys: Arc<ServerKeys>,
    password: crate::config::PasswordSettings,
) -> Result<Custody, StartError> {
    let ports = Ports::new(Arc::new(database.clone()), key_database.port());
    let pool = KdfPool::new(password.running, password.waiting).map_err(StartError::Threads)?;
    Ok(Custody::new(ports, ring, keys, pool, password.kdf))
}

/// Opens MongoDB or the SQLite file that stands for it.
pub(crate) async fn open_key_database(
    settings: &KeyDatabaseSettings,
) -> Result<KeyDatabase, ConnectError> {
    let url = settings.url.expose();
    #[cfg(feature = "sqlite")]
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(KeyDatabase::Sqlite(kms_store::SqliteScks::open(path).await?));
    }
    #[cfg(feature = "mongodb")]
    return Ok(KeyDatabase::Mongo(kms_store::MongoScks::connect(url, &settings.name).await?));
    #[cfg(not(feature = "mongodb"))]
    Err(ConnectError::Scheme { expected: "sqlite:" })
}

/// As [`open_key_database`], for who only looks: a file that is not there is not made.
pub(crate) async fn find_key_database(
    settings: &KeyDatabaseSettings,
) -> Result<KeyDatabase, ConnectError> {
    if let Some(path) = settings.url.expose().strip_prefix("sqlite:")
        && !std::path::Path::new(path).exists()
    {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such file");
        return Err(ConnectError::Open(Box::new(missing)));
    }
    open_key_database(settings).await
}

/// Opens the KMS keys.
pub(crate) async fn read_ring(
    active: KmsKeySettings,
    older: Vec<KmsKeySettings>,
) -> Result<KeyRing, StartError> {
    let mut unwrapping = Vec::new();
    for key in older {
        unwrapping.push(open_key(key).await?);
    }
    Ok(KeyRing::new(open_key(active).await?, unwrapping)?)
}

async fn open_key(key: KmsKeySettings) -> Result<Arc<dyn MasterKey>, StartError> {
    let id = key.id;
    match key.provider {
        KmsKeyProvider::Local { path, passphrase } => {
            // Stretching the passphrase takes a moment.
            let read = move || LocalMasterKey::read(id, &path, passphrase.expose());
            let read = tokio::task::spawn_blocking(read).await;
            Ok(Arc::new(read.map_err(|_panic| StartError::Stopped)??))
        }
        #[cfg(feature = "aws-kms")]
        KmsKeyProvider::Aws(settings) => Ok(Arc::new(AwsMasterKey::open(id, settings).await?)),
    }
}

/// TLS 1.3 only.
fn tls_config(settings: &TlsSettings) -> Result<ServerConfig, StartError> {
    let tls = |error: &dyn std::fmt::Display| StartError::Tls(error.to_string());
    let chain = CertificateDer::pem_slice_iter(settings.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| tls(&error))?;
    let key = PrivateKeyDer::from_pem_slice(settings.key.expose().as_bytes())
        .map_err(|_secret| StartError::Tls("key is not a PEM private key".to_owned()))?;
    ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| tls(&error))
}

async fn watch_transfers(
    transfers: Arc<Transfers>,
    poll: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    while !*stopping.borrow() {
        if let Err(error) = transfers.tick(clock::now()).await {
            tracing::warn!(%error, "transfers can not be watched");
        }
        // Wakes early when the server stops.
        let _ = tokio::time::timeout(poll, stopping.changed()).await;
    }
}

/// By the database's clock too: one that runs ahead tells nobody too early.
async fn tend(custody: &Custody, database: &Database) -> Result<(), CustodyError> {
    let now = clock::now().min(database.now().await?);
    custody.advance_due_recoveries(&upkeep::caller("recoveries"), now).await
}

async fn tend_recoveries(
    custody: Arc<Custody>,
    database: Database,
    poll: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    while !*stopping.borrow() {
        if let Err(error) = tend(&custody, &database).await {
            tracing::warn!(%error, "recoveries can not be looked after");
        }
        let _ = tokio::time::timeout(poll, stopping.changed()).await;
    }
}

async fn follow_blocks(follower: Follower, poll: Duration, mut stopping: watch::Receiver<bool>) {
    while !*stopping.borrow() {
        match follower.round(clock::now()).await {
            // It is behind, and does not wait.
            Ok(true) => {}
            Ok(false) => {
                let _ = tokio::time::timeout(poll, stopping.changed()).await;
            }
            Err(error) => {
                tracing::warn!(%error, "money from outside can not be looked for");
                let _ = tokio::time::timeout(poll, stopping.changed()).await;
            }
        }
    }
}
