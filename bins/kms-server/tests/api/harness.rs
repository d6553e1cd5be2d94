//! A server in this process, over either pair of stores, with a chain of its own.

use std::sync::Arc;
use std::time::Duration;

use kms_client::{BearerToken, Client, ClientError, Trust};
use kms_core::ServerKeys;
use kms_core::recovery::RecoveryRules;
use kms_server::config::{
    AuditSettings, ChainSettings, DatabaseSettings, KeyDatabaseSettings, KmsKeyProvider,
    KmsKeySettings, LimitSettings, MailSettings, PasswordSettings, Settings, TlsSettings,
    UpkeepSettings,
};
use kms_server::{Secret, Server};
use kms_store::{Database, Scope};
use kms_testkit::{Anvil, Mailbox, Mongod, Postgres};
use kms_types::wire::{
    Account, CompleteRecovery, ConfirmTransfer, CreateAccount, EventPage, QuoteTransfer, Recovery,
    RequestRecovery, Transfer, TransferState,
};
use kms_types::{
    AccountRef, Asset, PasswordHash, RecoveryId, TelegramId, Timestamp, Token, TransferId,
};
use serde_json::json;
use tempfile::TempDir;

pub(crate) const MASTER_KEY: &str =
    include_str!("../../../../crates/kms-core/vectors/test-kms-key.txt");
pub(crate) const PASSPHRASE: &str =
    include_str!("../../../../crates/kms-core/vectors/test-kms-key-passphrase.txt");

/// Which pair of stores.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stores {
    /// SQLite and SQLite.
    Embedded,
    /// PostgreSQL and MongoDB.
    Servers,
}

/// Where everything is, so that a server can be started there again, here or in a process.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) database: String,
    pub(crate) key_database: String,
    pub(crate) key_database_name: String,
    pub(crate) anvil: Arc<Anvil>,
    pub(crate) certificate: String,
    pub(crate) certificate_key: String,
    pub(crate) server_keys: [(&'static str, String); 4],
    pub(crate) quote_seconds: u64,
    pub(crate) replace_seconds: u64,
    pub(crate) tokens: Vec<Token>,
    pub(crate) limits: LimitSettings,
    /// Other ways to the chain than straight.
    pub(crate) rpc_urls: Option<String>,
    pub(crate) waiting: usize,
    pub(crate) upkeep: UpkeepSettings,
    pub(crate) recovery: RecoveryRules,
    pub(crate) recoveries_an_hour: u32,
    pub(crate) mailbox: Option<Mailbox>,
    /// More variables for a server in a process of its own; they win.
    pub(crate) variables: Vec<(String, String)>,
}

pub(crate) struct TestServer {
    pub(crate) place: Place,
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) token: String,
    pub(crate) database: Database,
}

/// Runs a story on both pairs of stores.
macro_rules! on_both_stores {
    ($($story:ident),* $(,)?) => {
        mod embedded {
            $(
                #[actix_web::test]
                async fn $story() {
                    let place = $crate::harness::Place::new($crate::harness::Stores::Embedded);
                    super::$story($crate::harness::TestServer::start(place).await).await;
                }
            )*
        }
        mod servers {
            $(
                #[actix_web::test]
                async fn $story() {
                    let place = $crate::harness::Place::new($crate::harness::Stores::Servers);
                    super::$story($crate::harness::TestServer::start(place).await).await;
                }
            )*
        }
    };
}
pub(crate) use on_both_stores;

impl Place {
    pub(crate) fn new(stores: Stores) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| format!("sqlite:{}", directory.path().join(name).display());
        let (database, key_database) = match stores {
            Stores::Embedded => (file("accounts.db"), file("keys.db")),
            Stores::Servers => (
                Postgres::shared().unwrap().create_database().unwrap(),
                Mongod::shared().unwrap().url(),
            ),
        };
        let key_database_name = format!("kms_{}", TransferId::random());
        Self::at(directory, database, key_database, key_database_name)
    }

    pub(crate) fn at(
        directory: TempDir,
        database: String,
        key_database: String,
        key_database_name: String,
    ) -> Self {
        let signed =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .unwrap();
        let key = |digits: &str| format!("1:{}", digits.repeat(32));
        let path = directory.path().join("kms-key.pem");
        std::fs::write(&path, MASTER_KEY).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            directory,
            database,
            key_database,
            key_database_name,
            anvil: Arc::new(Anvil::start().unwrap()),
            certificate: signed.cert.pem(),
            certificate_key: signed.signing_key.serialize_pem(),
            server_keys: [
                ("pepper", key("a1")),
                ("contact", key("b2")),
                ("row", key("c3")),
                ("audit", key("d4")),
            ],
            quote_seconds: 120,
            replace_seconds: 45,
            tokens: Vec::new(),
            limits: LimitSettings::default(),
            rpc_urls: None,
            waiting: 64,
            upkeep: UpkeepSettings::default(),
            recovery: AT_ONCE,
            recoveries_an_hour: 100,
            mailbox: None,
            variables: Vec::new(),
        }
    }

    pub(crate) fn server_keys(&self) -> ServerKeys {
        let [pepper, contact, row, audit] = &self.server_keys;
        ServerKeys {
            pepper: pepper.1.parse().unwrap(),
            contact: contact.1.parse().unwrap(),
            row: row.1.parse().unwrap(),
            audit: audit.1.parse().unwrap(),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: TlsSettings {
                certificate: self.certificate.clone(),
                key: Secret::from(self.certificate_key.clone()),
            },
            database: DatabaseSettings {
                url: Secret::from(self.database.clone()),
                migrate_url: None,
                pool: 8,
            },
            key_database: KeyDatabaseSettings {
                url: Secret::from(self.key_database.clone()),
                name: self.key_database_name.clone(),
            },
            kms_key: KmsKeySettings {
                id: "kms-test".parse().unwrap(),
                provider: KmsKeyProvider::Local {
                    path: self.directory.path().join("kms-key.pem"),
                    passphrase: Secret::from(PASSPHRASE.to_owned()),
                },
            },
            older_kms_keys: Vec::new(),
            server_keys: self.server_keys(),
            chain: ChainSettings {
                rpc_urls: self.rpc_urls.clone().unwrap_or_else(|| self.anvil.url()).into(),
                rpc_timeout_milliseconds: 5_000,
                stalled_seconds: 600,
                chain_id: self.anvil.chain_id(),
                name: "Test".to_owned(),
                symbol: "ETH".to_owned(),
                explorer: None,
                confirmations: 2,
                quote_seconds: self.quote_seconds,
                poll_milliseconds: 100,
                replace_seconds: self.replace_seconds,
                tokens: self.tokens.clone(),
            },
            password: PasswordSettings {
                kdf: kms_core::KdfParams::default(),
                running: 2.try_into().unwrap(),
                waiting: self.waiting,
            },
            limits: LimitSettings {
                recoveries_an_hour: self.recoveries_an_hour,
                codes_a_day: 3,
                ..self.limits.clone()
            },
            recovery: self.recovery,
            mail: self.mailbox.as_ref().map(|mailbox| MailSettings {
                url: Secret::from(mailbox.url()),
                from: "Wallet <wallet@example.org>".to_owned(),
                public_url: "https://kms.example.org".to_owned(),
            }),
            audit: AuditSettings {
                checkpoint_path: Some(self.checkpoint_path()),
                checkpoint_every: Duration::from_secs(300),
            },
            upkeep: self.upkeep,
        }
    }

    /// The same as variables of the environment, for a server in a process of its own.
    pub(crate) fn environment(&self, listen: &str) -> Vec<(String, String)> {
        let mut variables = vec![
            ("LISTEN".to_owned(), listen.to_owned()),
            ("TLS__CERTIFICATE".to_owned(), self.certificate.clone()),
            ("TLS__KEY".to_owned(), self.certificate_key.clone()),
            ("DATABASE__URL".to_owned(), self.database.clone()),
            ("KEY_DATABASE__URL".to_owned(), self.key_database.clone()),
            ("KEY_DATABASE__NAME".to_owned(), self.key_database_name.clone()),
            ("KMS_KEY__ID".to_owned(), "kms-test".to_owned()),
            (
                "KMS_KEY__PATH".to_owned(),
                self.directory.path().join("kms-key.pem").display().to_string(),
            ),
            ("KMS_KEY__PASSPHRASE".to_owned(), PASSPHRASE.to_owned()),
            ("AUDIT__CHECKPOINT_PATH".to_owned(), self.checkpoint_path().display().to_string()),
            (
                "CHAIN__RPC_URLS".to_owned(),
                self.rpc_urls.clone().unwrap_or_else(|| self.anvil.url()),
            ),
            ("CHAIN__CHAIN_ID".to_owned(), self.anvil.chain_id().to_string()),
            ("CHAIN__NAME".to_owned(), "Test".to_owned()),
            ("CHAIN__CONFIRMATIONS".to_owned(), "2".to_owned()),
            ("CHAIN__POLL_MILLISECONDS".to_owned(), "100".to_owned()),
            ("CHAIN__REPLACE_SECONDS".to_owned(), self.replace_seconds.to_string()),
            ("RECOVERY__WAIT_WITHOUT_EMAIL".to_owned(), "0".to_owned()),
        ];
        for (name, key) in &self.server_keys {
            variables.push((format!("SERVER_KEYS__{}", name.to_uppercase()), key.clone()));
        }
        let variables = variables.into_iter().map(|(k, v)| (format!("KMS_SERVER__{k}"), v));
        variables.chain(self.variables.clone()).collect()
    }

    pub(crate) fn checkpoint_path(&self) -> std::path::PathBuf {
        self.directory.path().join("audit-checkpoints")
    }

    pub(crate) async fn migrated(&self) -> Database {
        let keys = Arc::new(self.server_keys());
        let database = Database::connect(&self.database, 4, keys).await.unwrap();
        database.migrate().await.unwrap();
        database
    }

    pub(crate) async fn token(&self, database: &Database, scope: Scope) -> String {
        let name = format!("{scope}-{}", TransferId::random());
        let name = name.chars().take(40).collect();
        let token = kms_server::cli::issue(database, name, vec![scope], None).await.unwrap();
        token.expose().to_owned()
    }

    pub(crate) fn client(&self, port: u16, token: &str) -> Client {
        let token = BearerToken::from(token.to_owned());
        let trust = Trust::Pinned(self.certificate.clone());
        Client::new(&format!("https://localhost:{port}"), token, trust).unwrap()
    }

    pub(crate) fn fund(&self, account: &Account, wei: u128) {
        self.anvil.set_balance(&account.address.to_string(), wei).unwrap();
    }
}

impl TestServer {
    pub(crate) async fn start(place: Place) -> Self {
        let database = place.migrated().await;
        let token = place.token(&database, Scope::Bot).await;
        let server = Server::start(place.settings()).await.unwrap();
        let client = place.client(server.address().port(), &token);
        Self { place, server, client, token, database }
    }

    /// Stops the server and starts it again on the same stores.
    pub(crate) async fn restart(self) -> Self {
        let Self { place, server, token, database, .. } = self;
        server.stop().await;
        let server = Server::start(place.settings()).await.unwrap();
        let client = place.client(server.address().port(), &token);
        Self { place, server, client, token, database }
    }

    pub(crate) async fn onboard(&self, id: i64, name: &str, words: &str) -> Account {
        self.client.create_account(&create(id, name, words)).await.unwrap()
    }

    /// Two people with wallets, the first with ten coins.
    pub(crate) async fn ann_and_bob(&self) -> (Account, Account) {
        let ann = self.onboard(1, "ann", "ann's password").await;
        let bob = self.onboard(2, "bob", "bob's password").await;
        self.place.fund(&ann, 10 * COIN);
        (ann, bob)
    }

    pub(crate) async fn until(&self, id: TransferId, state: TransferState) -> Transfer {
        let mut last = None;
        for _ in 0..300 {
            let transfer = self.client.transfer(id).await.unwrap().unwrap();
            // Other transfers' blocks may have made it final already.
            let further = (state, transfer.state) == (TransferState::Mined, TransferState::Final);
            if transfer.state == state || further {
                return transfer;
            }
            last = Some(transfer);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the transfer never became {state:?}: {last:?}");
    }

    /// Waits until another step of the transfer was sent.
    pub(crate) async fn until_raised(&self, before: &Transfer) -> Transfer {
        for _ in 0..300 {
            let transfer = self.client.transfer(before.id).await.unwrap().unwrap();
            if transfer.tx_hash != before.tx_hash {
                return transfer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the transfer never rose: {before:?}");
    }

    /// Waits until the node has the transaction, in a block or not.
    pub(crate) async fn until_known(&self, hash: &str) {
        let known = || {
            let found = self.place.anvil.rpc("eth_getTransactionByHash", json!([hash])).unwrap();
            !found.is_null()
        };
        for _ in 0..300 {
            if known() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the node never had {hash}");
    }

    /// The events since the last acknowledgement, once there are this many: on PostgreSQL they
    /// wait for transactions of the whole cluster, those of other tests among them.
    pub(crate) async fn events(&self, count: usize) -> EventPage {
        for _ in 0..300 {
            let page = self.client.events(None, Duration::ZERO).await.unwrap();
            if page.events.len() >= count {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("there never were {count} events");
    }

    /// A raw request, for bodies that the client would not send.
    pub(crate) fn raw(&self) -> reqwest::Client {
        reqwest::Client::builder()
            .add_root_certificate(
                reqwest::Certificate::from_pem(self.place.certificate.as_bytes()).unwrap(),
            )
            .build()
            .unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.address().port())
    }
}

pub(crate) const COIN: u128 = 1_000_000_000_000_000_000;

/// A recovery waits for nothing.
const AT_ONCE: RecoveryRules = RecoveryRules {
    sends_codes: false,
    wait_with_code: Duration::ZERO,
    wait_without_email: Duration::ZERO,
    wait_without_code: Duration::from_secs(7 * 24 * 3_600),
    email_trusted_after: Duration::ZERO,
    code_lifetime: Duration::from_secs(600),
    open_for: Duration::from_secs(600),
    hold: Duration::from_secs(600),
};

/// Asks for a recovery, or goes on with the one that is open, and completes it.
pub(crate) async fn recover(
    client: &Client,
    id: i64,
    words: &str,
) -> Result<Recovery, ClientError> {
    let open = client.recovery(telegram(id)).await?;
    let recovery = open.map_or_else(RecoveryId::random, |open| open.id);
    recover_as(client, id, recovery, words).await
}

pub(crate) async fn recover_as(
    client: &Client,
    id: i64,
    recovery: RecoveryId,
    words: &str,
) -> Result<Recovery, ClientError> {
    client.request_recovery(telegram(id), &RequestRecovery { id: recovery }).await?;
    let body = CompleteRecovery { new_password_hash: hash(words) };
    client.complete_recovery(telegram(id), recovery, &body).await
}

/// As good as a password hash, without the tenth of a second that the client's takes.
pub(crate) fn hash(words: &str) -> PasswordHash {
    PasswordHash::fill(|bytes| {
        for (index, byte) in words.bytes().enumerate() {
            bytes[index % 32] ^= byte.rotate_left(u32::try_from(index / 32 % 8).unwrap());
        }
    })
}

pub(crate) fn create(id: i64, name: &str, words: &str) -> CreateAccount {
    CreateAccount {
        telegram_id: id.try_into().unwrap(),
        password_hash: hash(words),
        username: Some(name.parse().unwrap()),
        seen_at: Some(Timestamp(1_000 + id)),
        mobile: None,
        email: None,
    }
}

pub(crate) fn telegram(id: i64) -> AccountRef {
    AccountRef::Telegram(TelegramId::try_from(id).unwrap())
}

pub(crate) fn quote(from: i64, to: &str, amount: &str) -> QuoteTransfer {
    QuoteTransfer {
        id: TransferId::random(),
        from: telegram(from),
        to: to.parse().unwrap(),
        amount: amount.to_owned().try_into().unwrap(),
        asset: Asset::Native,
        client_ref: None,
    }
}

pub(crate) fn confirm(transfer: &Transfer, words: &str) -> ConfirmTransfer {
    ConfirmTransfer {
        password_hash: hash(words),
        to_address: transfer.to.address,
        token: transfer.token.clone(),
        value: transfer.value,
        max_fee: transfer.max_fee,
    }
}
