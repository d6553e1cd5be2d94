//! A server in this process, with a client and a connection to its database.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fmt;
use std::time::Duration;

use kms_client::Client;
use kms_core::account::SeenNames;
use kms_server::Server;
use kms_store::{Database, Scope};
use kms_types::wire::{Account, Balance, Event, Transfer, TransferState};
use kms_types::{AccountRef, EventStream, NameOrigin, TransferId};
use serde_json::json;

use crate::TestEnv;
use crate::requests::{COIN, create};

/// Stores that Telegram signed this username of a user at this time.
///
/// # Errors
/// When the username is none, or the database does not answer.
pub async fn prove_name(database: &Database, user: i64, username: &str) -> anyhow::Result<()> {
    let now = database.now().await?;
    let usernames = [username.parse()?].into_iter().collect();
    let origin = NameOrigin::Launch;
    let names = SeenNames { usernames, seen_at: now, received_at: now, origin };
    database.seen_usernames(user.try_into()?, names).await?;
    Ok(())
}

/// How often a condition is checked, and after how many checks a test gives up.
const CHECK_EVERY: Duration = Duration::from_millis(50);
const CHECKS: usize = 1_200;

/// A running server in this process.
pub struct TestServer {
    /// What the server runs on.
    pub env: TestEnv,
    /// The server.
    pub server: Server,
    /// A client with [`TestServer::token`].
    pub client: Client,
    /// A bearer token of the bot's scope.
    pub token: String,
    /// The accounts' database, as the server sees it.
    pub database: Database,
}

/// Runs a test, which takes a [`TestServer`], on the embedded stores and on the servers' stores.
#[macro_export]
macro_rules! on_both_stores {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(
                #[actix_web::test]
                async fn $test() {
                    let env = $crate::TestEnv::new($crate::Stores::Embedded).unwrap();
                    super::$test($crate::TestServer::start(env).await).await;
                }
            )*
        }
        mod servers {
            $(
                #[actix_web::test]
                async fn $test() {
                    let env = $crate::TestEnv::new($crate::Stores::Servers).unwrap();
                    super::$test($crate::TestServer::start(env).await).await;
                }
            )*
        }
    };
}

impl TestServer {
    /// Migrates the database, issues a token and starts the server.
    pub async fn start(env: TestEnv) -> Self {
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, Scope::Bot).await.unwrap();
        Self::serve(env, database, token).await
    }

    /// Stops the server and starts it again on the same stores, with the settings as they are now.
    pub async fn restart(self) -> Self {
        let Self { env, server, token, database, .. } = self;
        server.stop().await.unwrap();
        Self::serve(env, database, token).await
    }

    async fn serve(env: TestEnv, database: Database, token: String) -> Self {
        let server = Server::start(env.settings().unwrap()).await.unwrap();
        let client = env.client(server.address().port(), &token).unwrap();
        Self { env, server, client, token, database }
    }

    /// Creates a wallet.
    pub async fn onboard(&self, id: i64, name: &str, words: &str) -> Account {
        self.client.create_account(&create(id, name, words)).await.unwrap()
    }

    /// Creates the wallets of Ann (Telegram id 1), who has ten coins, and Bob (2), who has none.
    pub async fn ann_and_bob(&self) -> (Account, Account) {
        let ann = self.onboard(1, "ann", "ann's password").await;
        let bob = self.onboard(2, "bob", "bob's password").await;
        self.env.fund(&ann, 10 * COIN).unwrap();
        (ann, bob)
    }

    /// As if this user had opened the page, and Telegram had signed this username.
    pub async fn proves_name(&self, user: i64, username: &str) {
        prove_name(&self.database, user, username).await.unwrap();
    }

    /// The balance of an account on the chain `test`.
    pub async fn balance(&self, account: AccountRef) -> Balance {
        let balances = self.client.balances(account).await.unwrap();
        balances.on(self.env.chain.chain_id).unwrap().clone()
    }

    /// Waits until a transfer has reached this state. One that is final already counts as mined.
    pub async fn until(&self, id: TransferId, state: TransferState) -> Transfer {
        let mut last = None;
        for _ in 0..CHECKS {
            let transfer = self.client.transfer(id).await.unwrap().unwrap();
            // Blocks of other transfers may have made it final already.
            let further = (state, transfer.state) == (TransferState::Mined, TransferState::Final);
            if transfer.state == state || further {
                return transfer;
            }
            last = Some(transfer);
            tokio::time::sleep(CHECK_EVERY).await;
        }
        panic!("the transfer did not become {state:?}: {last:?}");
    }

    /// Waits until a transfer was replaced at a higher fee.
    pub async fn until_replaced(&self, before: &Transfer) -> Transfer {
        for _ in 0..CHECKS {
            let transfer = self.client.transfer(before.id).await.unwrap().unwrap();
            if transfer.tx_hash != before.tx_hash {
                return transfer;
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
        panic!("the transfer was not replaced: {before:?}");
    }

    /// Waits until the node has the transaction, in its pool or in a block.
    pub async fn until_known(&self, hash: &str) {
        for _ in 0..CHECKS {
            let found = self.env.anvil.rpc("eth_getTransactionByHash", json!([hash])).unwrap();
            if !found.is_null() {
                return;
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
        panic!("the node did not receive {hash}");
    }

    /// The events of both streams since the last acknowledgement, as soon as there are this many:
    /// on PostgreSQL
    /// they become visible only after older transactions of the whole cluster, which other tests
    /// share, have ended.
    pub async fn events(&self, count: usize) -> Vec<Event> {
        for _ in 0..CHECKS {
            let mut events = Vec::new();
            for stream in [EventStream::Security, EventStream::Payments] {
                let page = self.client.events(stream, None, None, Duration::ZERO).await.unwrap();
                events.extend(page.events);
            }
            if events.len() >= count {
                events.sort_by_key(|event| event.cursor);
                return events;
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
        panic!("there were never {count} events");
    }

    /// A bare HTTP client, for requests that [`Client`] would not send.
    #[must_use]
    pub fn raw(&self) -> reqwest::Client {
        let certificate = reqwest::Certificate::from_pem(self.env.certificate.as_bytes()).unwrap();
        reqwest::Client::builder().add_root_certificate(certificate).build().unwrap()
    }

    /// The answer of the operations listener to a path.
    pub async fn ops(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("http://{}{path}", self.server.ops_address())).await.unwrap()
    }

    /// The URL of a path on the public listener.
    #[must_use]
    pub fn page_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.page_address().port())
    }

    /// The URL of a path on the server.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.address().port())
    }
}

/// Omits the bearer token.
impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer").field("server", &self.server).finish_non_exhaustive()
    }
}
