//! What the story plays on: keys, certificate, stores, chain and server, made afresh.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use kms_client::{BearerToken, Client, Trust};
use kms_core::{KdfParams, MasterKeyId, ServerKeySet, ServerKeys};
use kms_server::config::{
    ChainSettings, DatabaseSettings, KeyDatabaseSettings, KmsKeySettings, LimitSettings,
    PasswordSettings, Settings, TlsSettings,
};
use kms_server::{Secret, Server};
use kms_store::{Database, Scope, SqliteScks};
use kms_testkit::Anvil;
use tempfile::TempDir;

const KMS_KEY: &str = "kms-sandbox";

/// A running sandbox.
pub(crate) struct Stage {
    directory: TempDir,
    tls: TlsSettings,
    pub(crate) token: String,
    pub(crate) anvil: Anvil,
    pub(crate) database: Database,
    pub(crate) scks: SqliteScks,
    pub(crate) client: Client,
    server: Server,
}

impl Stage {
    /// Makes everything and starts it.
    pub(crate) async fn set() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("kms-sandbox-").tempdir()?;
        let anvil = Anvil::start()?;
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
        let token = kms_server::cli::issue(&database, "bot".to_owned(), vec![Scope::Bot], None);
        let token = token.await?.expose().to_owned();
        let key = Secret::from(signed.signing_key.serialize_pem());
        let tls = TlsSettings { certificate, key };
        let server = start(directory.path(), tls.clone(), &anvil).await?;
        let client = client(&server, &token, &tls.certificate)?;
        Ok(Self { directory, tls, token, anvil, database, scks, client, server })
    }

    /// Stops the server and starts it again, on the same stores.
    pub(crate) async fn restart(self) -> anyhow::Result<Self> {
        self.server.stop().await;
        let server = start(self.directory.path(), self.tls.clone(), &self.anvil).await?;
        let client = client(&server, &self.token, &self.tls.certificate)?;
        Ok(Self { server, client, ..self })
    }

    /// Stops everything; what it made is gone.
    pub(crate) async fn clear(self) {
        self.server.stop().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.server.address().port())
    }

    pub(crate) fn certificate_path(&self) -> PathBuf {
        self.directory.path().join("server.pem")
    }
}

async fn start(directory: &Path, tls: TlsSettings, anvil: &Anvil) -> anyhow::Result<Server> {
    let keys = directory.join("keys");
    let id: MasterKeyId = KMS_KEY.parse()?;
    let settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
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
            path: keys.join("kms-key.pem"),
            passphrase: Secret::from(fs::read_to_string(keys.join("kms-key-passphrase"))?),
        },
        older_kms_keys: Vec::new(),
        server_keys: read_keys(&keys)?,
        chain: ChainSettings {
            rpc_url: Secret::from(anvil.url()),
            chain_id: anvil.chain_id(),
            name: "Sandbox".to_owned(),
            symbol: "ETH".to_owned(),
            explorer: None,
            confirmations: 2,
            quote_seconds: 120,
            poll_milliseconds: 200,
        },
        password: PasswordSettings {
            kdf: KdfParams::default(),
            running: std::thread::available_parallelism()?,
            waiting: 32,
        },
        limits: LimitSettings { recoveries_a_day: 3 },
    };
    Server::start(settings).await.context("starting the server")
}

fn client(server: &Server, token: &str, certificate: &str) -> anyhow::Result<Client> {
    let url = format!("https://localhost:{}", server.address().port());
    let trust = Trust::Pinned(certificate.to_owned());
    Ok(Client::new(&url, BearerToken::from(token.to_owned()), trust)?)
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
