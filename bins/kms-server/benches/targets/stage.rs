//! A server in its own process, over PostgreSQL and MongoDB, with a chain.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bot_api_sim::{MiniApps, Opening};
use kms_client::Client;
use kms_server_testing::requests::create;
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::{Database, Scope};
use kms_types::wire::Account;
use serde_json::json;

pub(crate) const WORDS: &str = "a password";
/// The bot whose Mini App is the page.
const VAULT_BOT: i64 = 7_000_000_002;

pub(crate) struct Stage {
    pub(crate) env: TestEnv,
    pub(crate) database: Database,
    pub(crate) token: String,
    pub(crate) server: ServerProcess,
    pub(crate) client: Client,
    telegram: MiniApps,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let mut env = TestEnv::new(Stores::Servers).unwrap();
        env.chain.compare_balances = true;
        // The default; tests poll more often.
        let poll = "KMS_SERVER__CHAINS__TEST__POLL_INTERVAL".to_owned();
        env.variables.push((poll, "1s".to_owned()));
        // anvil mines only when there are transactions, so an old block is no sign of a fault.
        let stalled = "KMS_SERVER__CHAINS__TEST__STALLED_AFTER".to_owned();
        env.variables.push((stalled, "0s".to_owned()));
        // Limits are checked as usual but never reached: the load generator is a single caller.
        for limit in ["ONBOARDINGS", "QUOTES", "QUOTES_A_DAY", "READS", "ACCOUNT_READS"] {
            let name = format!("KMS_SERVER__LIMITS__{limit}");
            env.variables.push((name, "100000000/second".to_owned()));
        }
        // Nor that of connections: a proxy is the only peer.
        let peers = "KMS_SERVER__PAGE__CONNECTIONS_PER_PEER".to_owned();
        env.variables.push((peers, "0".to_owned()));
        let telegram = MiniApps::new().unwrap();
        env.page.bots = vec![VAULT_BOT.try_into().unwrap()];
        env.page.telegram_key = telegram.public_key().parse().unwrap();
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, Scope::Bot).await.unwrap();
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        Self { env, database, token, server, client, telegram }
    }

    pub(crate) async fn account(&self, id: i64) -> Account {
        let body = create(id, &format!("person{id}"), WORDS);
        self.client.create_account(&body).await.unwrap()
    }

    /// Mines a block for each payment, or one in so many seconds; with 0 none.
    pub(crate) fn mine_every(&self, seconds: Option<u64>) {
        let (method, value) = match seconds {
            None => ("evm_setAutomine", json!(true)),
            Some(0) => ("evm_setAutomine", json!(false)),
            Some(seconds) => ("evm_setIntervalMining", json!(seconds)),
        };
        self.env.anvil.rpc(method, json!([value])).unwrap();
    }

    /// Mines blocks until the server has nothing more to settle.
    pub(crate) async fn settle(&self) {
        self.env.anvil.rpc("anvil_mine", json!(["0x50"])).unwrap();
        let open = "select count(*) from transfers where state in ('signed', 'broadcast', 'mined')";
        while self.sql(open) != "0" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What Telegram gives the page when a user opens it.
    #[expect(clippy::disallowed_methods, reason = "Telegram has a clock of its own")]
    pub(crate) fn opened(&self, user: i64, start_param: &str) -> String {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let username = format!("person{user}");
        let username = Some(username.as_str());
        let opening = Opening {
            bot: VAULT_BOT,
            user,
            first_name: "Person",
            last_name: None,
            username,
            start_param,
            at,
        };
        self.telegram.init_data(opening).unwrap()
    }

    /// Copies the first row of a table that a condition selects, with other values in these
    /// columns, once for each number `n`.
    pub(crate) fn copy(
        &self,
        table: &str,
        condition: &str,
        (from, to): (u64, u64),
        values: &[(&str, &str)],
    ) {
        let columns = self.sql(&format!(
            "select string_agg(column_name, ',') from information_schema.columns \
             where table_schema = 'public' and table_name = '{table}' and is_identity = 'NO'"
        ));
        let value = |column: &str| {
            let changed = values.iter().find(|(name, _)| *name == column);
            changed.map_or_else(|| format!("t.{column}"), |(_, value)| (*value).to_owned())
        };
        let selected: Vec<_> = columns.split(',').map(value).collect();
        // Without foreign keys, which would be looked up for every row.
        self.sql(&format!(
            "set session_replication_role = replica; \
             insert into {table} ({columns}) select {} from generate_series({from}, {to}) as n, \
             (select * from {table} where {condition} limit 1) as t",
            selected.join(", ")
        ));
    }

    /// Runs SQL in the accounts' database.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.env.sql(sql).unwrap()
    }
}

/// A number from the environment.
#[expect(clippy::disallowed_methods, reason = "sets the size of a benchmark")]
pub(crate) fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}
