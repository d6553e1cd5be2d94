//! Starts a server: opens databases and keys, starts the workers, and listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server as HttpServerTask;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use kms_chain::Transfers;
use kms_chain::follower::{Follower, FollowerConfig};
use kms_core::launch::LaunchVerifier;
use kms_core::recovery::RecoveryRules;
use kms_core::{Custody, KdfPool, KeyRing, Ports, Sealer, ServerKeys};
use kms_process::{CancellationToken, Failure, Supervisor};
use kms_store::{ConnectError, Database, KeyDatabase, open_key_database};
use tokio::time::{Instant, timeout_at};

use crate::brakes::PolicyClient;
use crate::chains::{Chains, PaymentRules, ServedChain, token_contracts};
use crate::checkpoint_archive::CheckpointArchive;
use crate::clock;
use crate::config::{
    self, AuditSettings, ChainSettings, DatabaseSettings, DeclaredToken, MailSettings,
    PageSettings, PasswordSettings, Settings, UpkeepSettings, notice_from,
};
use crate::database_url;
use crate::key_ring;
use crate::kms_key_status::KmsKeyStatus;
use crate::mail::Mailer;
use crate::page;
use crate::page::peers::{Connection, Peers};
use crate::rate_limits::{OpeningLimits, Polls, ReadLimits};
use crate::readiness::Readiness;
use crate::routes;
use crate::start_error::StartError;
use crate::state::State;
use crate::telemetry;
use crate::tls::{self, Certificate};
use crate::token_cache::TokenCache;
use crate::workers::{
    AdvanceRecoveries, ByTheClock, CheckChain, CheckDatabases, CheckTokens, CheckWallets,
    Checkpoints, Clean, CountTransfers, FoldMetrics, FollowBlocks, NotifyDigests, OldLaunches,
    OldSignedBytes, ProbeKmsKeys, ReadBrakes, RefilledRateLimits, ReloadCertificate,
    RenewKeyDatabaseClaim, SendMail, SweepSckStore, UnusedRows, WatchTransfers, WriteCheckpoints,
};

/// How long requests in flight may take when the server stops, in seconds.
const DRAIN_SECONDS: u64 = 20;

/// How long a stop may take in all: less than the 30 seconds after which ECS kills a container.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(25);

/// How often the server checks that its release may write.
const FENCE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the workers of recoveries and e-mails look for work, unless a chain is polled more
/// often.
const POLL: Duration = Duration::from_secs(1);

/// A server in this process. Dropping it aborts its workers.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    ops_address: SocketAddr,
    page_address: SocketAddr,
    readiness: Arc<Readiness>,
    drain: Duration,
    supervisor: Supervisor,
    checkpoints: Arc<Checkpoints>,
}

/// The settings of workers alone.
struct WorkerSettings {
    audit: AuditSettings,
    chains: config::Chains,
    mail: Option<MailSettings>,
    recovery: RecoveryRules,
    upkeep: UpkeepSettings,
}

impl Server {
    /// Checks databases, keys and settings, starts the workers, and listens.
    ///
    /// # Errors
    /// When a database is unreachable or was written with other server keys, a key or a setting
    /// cannot be used, or the address is taken. An unreachable chain is not an error.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        // Fails only if another one is installed, which then is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Before the first request, so that it is counted.
        settings.chains.values().for_each(|it| kms_process::count_alarms_of(it.chain_id));
        let certificate = Arc::new(Certificate::new(settings.tls.clone())?);
        let tls = tls::server_config(Arc::clone(&certificate))?;
        let (listen, ops) = (settings.listen, settings.ops);
        let (page_listen, peers) =
            (settings.page.listen, Peers::new(settings.page.connections_per_peer));
        let mut supervisor = Supervisor::new();
        let workers = WorkerSettings::of(&settings);
        let state = Data::new(open_state(settings, supervisor.shutdown()).await?);
        let readiness = Arc::clone(&state.readiness);
        let checkpoints = run_workers(&mut supervisor, &state, workers).await?;
        supervisor.run(ReloadCertificate(certificate));
        let fence = watch_writer_fence(state.database.clone(), supervisor.shutdown());
        supervisor.watch("writer_fence", fence);
        let (operations, ops_address) = ops_server(state.clone(), ops.listen)
            .map_err(|error| not_bound("ops.listen", ops.listen, error))?;
        let (page, page_address) = page_server(state.clone(), peers, page_listen, tls.clone())
            .map_err(|error| not_bound("page.listen", page_listen, error))?;
        let (server, address) =
            api_server(state, listen, tls).map_err(|error| not_bound("listen", listen, error))?;
        // The operations listener reports until the last request is answered.
        let (shutdown, answered) = (supervisor.shutdown(), CancellationToken::new());
        supervisor.watch("ops_server", serve(operations, answered.clone()));
        supervisor.watch("page_server", serve(page, shutdown.clone()));
        let server = serve(server, shutdown);
        supervisor.watch("http_server", async move {
            let ended = server.await;
            answered.cancel();
            ended
        });
        let drain = ops.drain.unwrap_or_default();
        Ok(Self { address, ops_address, page_address, readiness, drain, supervisor, checkpoints })
    }

    /// The address of the vault page's API and of the links of e-mails.
    #[must_use]
    pub fn page_address(&self) -> SocketAddr {
        self.page_address
    }

    /// The address that health checks and metrics are served on.
    #[must_use]
    pub fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a worker or the HTTP server ends or panics, which none should before a stop.
    pub async fn failed(&mut self) -> Failure {
        self.supervisor.failed().await
    }

    /// Makes readiness fail for the time `ops.drain`, then stops listening, completes the requests
    /// in flight, and ends, within [`STOP_TIMEOUT`] from then.
    ///
    /// # Errors
    /// As [`Self::stop_within`].
    pub async fn stop(self) -> Result<(), Failure> {
        self.stop_within(STOP_TIMEOUT).await
    }

    /// Stops the server as [`Self::stop`] does, within another time.
    ///
    /// # Errors
    /// When a worker failed meanwhile, or something is still running when the time is over.
    pub async fn stop_within(self, timeout: Duration) -> Result<(), Failure> {
        self.readiness.drain();
        tokio::time::sleep(self.drain).await;
        let deadline = Instant::now() + timeout;
        let stopped = self.supervisor.stop(deadline).await;
        // After the last request, so that it covers all of them.
        let written = timeout_at(deadline, self.checkpoints.write()).await;
        stopped?;
        // One that failed was logged; the next start writes it.
        let _ = written
            .map_err(|_elapsed| Failure::StopTimeout { workers: vec!["last_checkpoint"] })?;
        Ok(())
    }
}

impl WorkerSettings {
    fn of(settings: &Settings) -> Self {
        Self {
            audit: settings.audit.clone(),
            chains: settings.chains.clone(),
            mail: settings.mail.clone(),
            recovery: settings.recovery,
            upkeep: settings.upkeep,
        }
    }
}

fn not_bound(setting: &'static str, address: SocketAddr, error: std::io::Error) -> StartError {
    StartError::Listen { setting, address, error }
}

/// The server of the API, and its address.
fn api_server(
    state: Data<State>,
    listen: SocketAddr,
    tls: rustls::ServerConfig,
) -> std::io::Result<(HttpServerTask, SocketAddr)> {
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
    .shutdown_timeout(DRAIN_SECONDS)
    .disable_signals()
    .bind_rustls_0_23(listen, tls)?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    Ok((server.run(), address))
}

/// The server of the public listener, and its address.
fn page_server(
    state: Data<State>,
    peers: Peers,
    listen: SocketAddr,
    tls: rustls::ServerConfig,
) -> std::io::Result<(HttpServerTask, SocketAddr)> {
    let peers = Data::new(peers);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(peers.clone())
            .wrap(from_fn(page::peers::limit))
            .wrap(from_fn(telemetry::observe))
            .wrap(from_fn(page::protect))
            .configure(page::configure)
    })
    .on_connect(|_stream, data| drop(data.insert(Connection::default())))
    .workers(std::thread::available_parallelism().map_or(2, usize::from))
    .client_request_timeout(Duration::from_secs(5))
    .client_disconnect_timeout(Duration::from_secs(2))
    .keep_alive(Duration::from_secs(15))
    .shutdown_timeout(DRAIN_SECONDS)
    .disable_signals()
    .bind_rustls_0_23(listen, tls)?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    Ok((server.run(), address))
}

/// The server of health checks and metrics, and its address.
fn ops_server(
    state: Data<State>,
    listen: SocketAddr,
) -> std::io::Result<(HttpServerTask, SocketAddr)> {
    let app = move || App::new().app_data(state.clone()).configure(routes::health::configure);
    let server = HttpServer::new(app)
        .workers(1)
        .client_request_timeout(Duration::from_secs(5))
        .disable_signals()
        .bind(listen)?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    Ok((server.run(), address))
}

/// Runs until `shutdown`, and then until the requests in flight are done.
async fn serve(server: HttpServerTask, shutdown: CancellationToken) -> std::io::Result<()> {
    let handle = server.handle();
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return ended,
        () = shutdown.cancelled() => {}
    }
    tokio::join!(handle.stop(true), server).1
}

/// Ends with an error when `migrate` of a newer release permits no writes of this one any more. It
/// waits for this process to disconnect, before it changes the schema.
async fn watch_writer_fence(
    database: Database,
    shutdown: CancellationToken,
) -> Result<(), ConnectError> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(FENCE_INTERVAL) => {}
        }
        if let Err(fenced @ ConnectError::Fenced(_)) = database.check_writer().await {
            return Err(fenced);
        }
    }
}

/// Starts all workers.
async fn run_workers(
    supervisor: &mut Supervisor,
    state: &State,
    settings: WorkerSettings,
) -> Result<Arc<Checkpoints>, StartError> {
    let WorkerSettings { audit, chains, mail, recovery, upkeep } = settings;
    let State { custody, database, key_database, .. } = state;
    state.readiness.record_skew(clock::compare(database).await.map_err(ConnectError::from)?.skew);
    // How quickly what users wait for is noticed.
    let poll = chains.values().map(|chain| chain.poll_interval).min().unwrap_or(POLL);
    let archive = CheckpointArchive::open(&audit).await?;
    let checkpoints = Checkpoints::open(database.clone(), key_database.clone(), archive).await?;
    let checkpoints = Arc::new(checkpoints);
    let every = audit.checkpoint_interval;
    supervisor.run(WriteCheckpoints::new(Arc::clone(&checkpoints), every));
    if let Some(mail) = mail {
        let (sealer, keys) = (state.sealer.clone(), Arc::clone(&state.keys));
        let limit = state.limits.emails.limit();
        let mailer = Mailer::new(&mail, database.clone(), sealer, keys, recovery, limit)?;
        supervisor.run(by_the_clock(state, SendMail::<true>::new(mailer.clone(), database, poll)));
        supervisor.run(by_the_clock(state, SendMail::<false>::new(mailer, database, poll)));
    }
    for served in state.chains.iter() {
        if let Some(settings) = chains.get(&served.network.short_name) {
            run_chain_workers(supervisor, state, served, settings)?;
        }
    }
    let (custody, database) = (Arc::clone(custody), database.clone());
    let key_database = Arc::clone(key_database);
    supervisor.run(AdvanceRecoveries { custody, database, key_database, poll });
    run_maintenance(supervisor, state, upkeep);
    Ok(checkpoints)
}

fn by_the_clock<W>(state: &State, worker: W) -> ByTheClock<W> {
    ByTheClock { worker, readiness: Arc::clone(&state.readiness) }
}

/// Starts the workers of one chain.
fn run_chain_workers(
    supervisor: &mut Supervisor,
    state: &State,
    served: &ServedChain,
    settings: &ChainSettings,
) -> Result<(), StartError> {
    let (database, poll) = (&state.database, settings.poll_interval);
    // With connections of its own: whole blocks must not delay the requests of users.
    let config = follower_config(settings, &served.transfers);
    let chain = settings.open().map_err(StartError::of_chain(&served.network.short_name))?;
    let follower = Follower::new(Arc::new(database.clone()), chain, config);
    let (follower, transfers) = (Arc::new(follower), &served.transfers);
    let follow = FollowBlocks::new(Arc::clone(&follower), database, settings.chain_id, poll);
    supervisor.run(by_the_clock(state, follow));
    let watch = WatchTransfers { transfers: Arc::clone(transfers), follower, poll };
    supervisor.run(by_the_clock(state, watch));
    let readiness = Arc::clone(&state.readiness);
    supervisor.run(CheckChain::new(readiness, Arc::clone(transfers), database.clone()));
    supervisor.run(CheckTokens { transfers: Arc::clone(transfers) });
    Ok(())
}

/// Starts the workers that no request depends on.
fn run_maintenance(supervisor: &mut Supervisor, state: &State, settings: UpkeepSettings) {
    let State { custody, database, key_database, .. } = state;
    let period = settings.check_interval;
    supervisor.run(FoldMetrics);
    supervisor.run(CheckDatabases::new(
        Arc::clone(&state.readiness),
        database.clone(),
        Arc::clone(key_database),
    ));
    supervisor.run(ReadBrakes {
        chains: state.chains.iter().cloned().collect(),
        database: database.clone(),
        key_database: Arc::clone(key_database),
    });
    supervisor.run(ProbeKmsKeys {
        custody: Arc::clone(custody),
        status: Arc::clone(&state.kms_keys),
        every: settings.probe_interval,
    });
    supervisor.run(RenewKeyDatabaseClaim {
        database: database.clone(),
        key_database: Arc::clone(key_database),
    });
    supervisor.run(CheckWallets::new(Arc::clone(custody), database, period));
    supervisor.run(by_the_clock(state, Clean::new(RefilledRateLimits, database, period)));
    supervisor.run(by_the_clock(state, Clean::new(UnusedRows(settings), database, period)));
    supervisor.run(by_the_clock(state, Clean::new(OldSignedBytes, database, period)));
    supervisor.run(by_the_clock(state, Clean::new(OldLaunches, database, period)));
    let served = state.chains.iter().map(|chain| chain.network.chain_id).collect();
    supervisor.run(CountTransfers::new(database.clone(), served));
    supervisor.run(by_the_clock(state, NotifyDigests { database: database.clone() }));
    if let Some(retention) = settings.retention {
        let custody = Arc::clone(custody);
        let sweep = SweepSckStore::new(custody, database, key_database, retention, period);
        supervisor.run(by_the_clock(state, sweep));
    }
}

/// Opens what handlers and workers share.
async fn open_state(settings: Settings, shutdown: CancellationToken) -> Result<State, StartError> {
    let keys = Arc::new(settings.server_keys);
    let database = open_database(settings.database, Arc::clone(&keys)).await?;
    let database = database.with_notice_from(notice_from(&settings.chains)?);
    let key_database =
        open_key_database(settings.key_database.url.expose(), &settings.key_database.name).await?;
    key_database.ping().await.map_err(ConnectError::from)?;
    database.claim_key_database(&*key_database).await.map_err(|claim| StartError::KeyDatabase {
        name: settings.key_database.name.clone(),
        claim,
    })?;
    let ring = key_ring::open(settings.kms_key, settings.older_kms_keys).await?;
    let sealer = Sealer::new(Arc::clone(&keys));
    let policy = settings.payment_policy.as_ref().map(PolicyClient::new).transpose();
    let primary = settings.primary_chain.unwrap_or_default();
    let rules = PaymentRules {
        spending: settings.limits.spending(&settings.chains, &settings.recovery)?,
        external: settings.limits.external(&settings.chains, &primary)?,
        policy: policy.map_err(StartError::PaymentPolicy)?.map(Arc::new),
        contracts: token_contracts(&settings.chains),
    };
    let stores = (&database, &*key_database);
    let chains = Chains::open(&settings.chains, &primary, rules, stores, &sealer).await?;
    let custody = custody(&database, &key_database, ring, Arc::clone(&keys), settings.password)?;
    let tokens = declared_tokens(&database, &settings.tokens).await?;
    let chain_ids = chains.iter().map(|chain| chain.network.chain_id);
    let readiness = Readiness::connected(chain_ids);
    Ok(State {
        custody: Arc::new(custody.with_recovery_rules(settings.recovery)),
        keys,
        sends_mail: settings.mail.is_some(),
        chains,
        database,
        key_database,
        sealer,
        tokens,
        reads: ReadLimits::new(
            settings.limits.reads.quota(),
            settings.limits.account_reads.quota(),
        ),
        polls: Polls::default(),
        app: settings.page.app.clone(),
        launches: launch_verifier(settings.page),
        openings: OpeningLimits::new(
            settings.limits.all_launches.quota(),
            settings.limits.launches.quota(),
        ),
        limits: settings.limits,
        kms_keys: Arc::new(KmsKeyStatus::default()),
        readiness: Arc::new(readiness),
        shutdown,
    })
}

/// The audit and rate limits know a token by its name.
async fn declared_tokens(
    database: &Database,
    declared: &[DeclaredToken],
) -> Result<TokenCache, StartError> {
    if !declared.is_empty() {
        let stored = database.api_tokens().await.map_err(ConnectError::from)?;
        let is_stored =
            |token: &&DeclaredToken| stored.iter().any(|other| other.name == token.name);
        if let Some(token) = declared.iter().find(is_stored) {
            return Err(StartError::TokenName(token.name.clone()));
        }
    }
    Ok(TokenCache::new(declared))
}

fn launch_verifier(settings: PageSettings) -> LaunchVerifier {
    let PageSettings { bots, telegram_key: key, .. } = settings;
    if !key.is_published() {
        tracing::warn!(
            event = "foreign_telegram_key",
            "openings of the page are accepted under a key that is not Telegram's"
        );
    }
    LaunchVerifier { key, bots }
}

async fn open_database(
    settings: DatabaseSettings,
    keys: Arc<ServerKeys>,
) -> Result<Database, StartError> {
    let url = database_url::source(settings.url, settings.auth).await?;
    let database = Database::connect_by(url, settings.pool, keys).await?;
    database.check_writer().await?;
    database.check_durability().await?;
    if !database.schema_is_current().await? {
        return Err(StartError::Schema);
    }
    database.check_server_keys().await?;
    database.adopt_restored_events().await.map_err(ConnectError::from)?;
    Ok(database)
}

fn follower_config(chain: &ChainSettings, transfers: &Transfers) -> FollowerConfig {
    FollowerConfig {
        finality: chain.finality,
        prove_receipts: chain.prove_receipts,
        compare_balances: chain.compare_balances,
        tokens: transfers.tokens().clone(),
    }
}

/// Custody over these stores.
pub(crate) fn custody(
    database: &Database,
    key_database: &Arc<dyn KeyDatabase>,
    ring: KeyRing,
    keys: Arc<ServerKeys>,
    password: PasswordSettings,
) -> Result<Custody, StartError> {
    let ports = Ports::new(Arc::new(database.clone()), key_database.clone());
    let pool = KdfPool::new(password.running, password.waiting).map_err(StartError::Threads)?;
    Ok(Custody::new(ports, ring, keys, pool, password.kdf))
}
