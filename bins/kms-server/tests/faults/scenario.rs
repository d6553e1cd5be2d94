//! Three servers that stay up, one that may crash, a chain behind a proxy, and the final checks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::proxy::Proxy;
use crate::random::Random;
use futures::future::join_all;
use kms_client::{Client, ClientError};
use kms_core::KdfParams;
use kms_server_testing::requests::{COIN, confirm, create, quote};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::Scope;
use kms_types::wire::{Account, Transfer, TransferState};
use kms_types::{TransferId, U256};
use serde_json::{Value, json};

const WORDS: &str = "a password";
const SENDS: u64 = 8;
/// How long it may take until every signed transfer is final.
const SETTLE: Duration = Duration::from_secs(60);

/// The failpoints, and up to which of its passes each one may crash the process.
const FAILPOINTS: [(&str, u64); 8] = [
    ("store-before", 160),
    ("store-after", 160),
    ("rpc-before", 60),
    ("rpc-after", 90),
    ("transfer-before-broadcast", 3),
    ("transfer-after-broadcast", 3),
    ("transfer-before-replacement", 2),
    ("transfer-after-replacement", 2),
];

pub(crate) struct Scenario {
    env: TestEnv,
    proxy: Proxy,
    servers: Vec<ServerProcess>,
    clients: Vec<Client>,
    token: String,
    people: i64,
}

/// The result of one seed.
pub(crate) struct Run {
    armed: String,
    pub(crate) crashed: bool,
    acknowledged: usize,
    pub(crate) paid: u64,
    refused: usize,
    took: Duration,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { armed, crashed, acknowledged, paid, refused, took } = self;
        let fate = if *crashed { "crashed" } else { "not reached" };
        let seconds = took.as_secs_f64();
        write!(
            f,
            "{armed} {fate}; {acknowledged} acknowledged, {paid} paid, {refused} refused, \
             {seconds:.1} s"
        )
    }
}

/// The final answer to a sender.
enum Answer {
    Acknowledged,
    Refused,
    /// None that is certain.
    Unclear,
}

/// The last lines of a server's log.
fn last_lines(server: &ServerProcess) -> String {
    let log = server.log.lock().unwrap();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

impl Scenario {
    pub(crate) async fn start() -> Self {
        let mut env = TestEnv::new(Stores::Servers).unwrap();
        let proxy = Proxy::before(&env.anvil.url());
        env.rpc_urls = proxy.url();
        env.chain.replace_after = std::time::Duration::from_secs(1);
        // The cheapest KDF that is accepted: these tests are about transfers.
        let kdf = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };
        env.variables.push(("KMS_SERVER__PASSWORD__KDF".to_owned(), kdf.to_string()));
        let quotes = "KMS_SERVER__LIMITS__QUOTES".to_owned();
        env.variables.push((quotes, "100000/minute".to_owned()));
        env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, Scope::Bot).await.unwrap();
        let servers: Vec<_> = (0..3).map(|_| ServerProcess::start(&env, None, "info")).collect();
        let clients = servers.iter().map(|server| server.client(&env, &token)).collect();
        Self { env, proxy, servers, clients, token, people: 0 }
    }

    fn rpc(&self, method: &str, params: Value) -> Value {
        self.env.anvil.rpc(method, params).unwrap()
    }

    fn number(&self, method: &str, params: Value) -> U256 {
        self.rpc(method, params).as_str().unwrap().parse().unwrap()
    }

    /// Creates a sender with this balance, and a recipient.
    async fn sender_and_recipient(&mut self, wei: u128) -> (i64, Account, Account) {
        let sender = self.people + 1;
        self.people += 2;
        let mut accounts = Vec::new();
        for id in [sender, sender + 1] {
            let body = create(id, &format!("person{id}"), WORDS);
            accounts.push(self.clients[0].create_account(&body).await.unwrap());
        }
        let to = accounts.pop().unwrap();
        let from = accounts.pop().unwrap();
        self.env.fund(&from, wei).unwrap();
        // Deeper than any reorganisation of these tests.
        self.rpc("anvil_mine", json!(["0x3"]));
        (sender, from, to)
    }

    /// Runs one seed.
    pub(crate) async fn run(&mut self, seed: u64) -> Run {
        let begun = Instant::now();
        let mut random = Random::from_seed(seed);
        let (sender, from, to) = self.sender_and_recipient(COIN).await;
        let (failpoint, passes) = FAILPOINTS[usize::try_from(random.below(8)).unwrap()];
        let armed = format!("{failpoint}@{}", random.below(passes) + 1);
        let armed_server = ServerProcess::try_start(&self.env, Some(&armed), "info");
        let mut clients = self.clients.clone();
        clients.extend(armed_server.as_ref().map(|server| server.client(&self.env, &self.token)));
        self.proxy.inject(random.fork());

        let recipient = format!("@person{}", sender + 1);
        let sends: Vec<_> = (0..SENDS)
            .map(|_| {
                let milli = 50 + random.below(200);
                // The sender has 1,000 milli-ETH, which is not enough for all of them.
                let request = quote(sender, &recipient, &format!("0.{milli:03}"));
                (request.id, send(clients.clone(), request, random.fork()))
            })
            .collect();
        let (ids, sends): (Vec<_>, Vec<_>) = sends.into_iter().unzip();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let mut chances = random.fork();
        let mine = async {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(40 + chances.below(80))).await;
                match chances.below(12) {
                    0 => drop(self.rpc("anvil_dropAllTransactions", json!([]))),
                    1 => drop(self.env.anvil.rpc("anvil_reorg", json!([1, []]))),
                    _ => drop(self.rpc("anvil_mine", json!(["0x1"]))),
                }
            }
        };
        let sent = async {
            let answers = join_all(sends).await;
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
            answers
        };
        let (answers, ()) = tokio::join!(sent, mine);

        self.proxy.stop_injecting();
        let crashed = armed_server
            .is_none_or(|server| TcpStream::connect(("127.0.0.1", server.port)).is_err());
        let context = format!("FAULT_SEED={seed}, {armed}");
        let ends = self.settle(&ids, &context).await;
        let acknowledged: Vec<_> = ids
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| matches!(answer, Answer::Acknowledged))
            .map(|(id, _)| *id)
            .collect();
        let refused = answers.iter().filter(|answer| matches!(answer, Answer::Refused)).count();
        let paid = self.check(&from, &to, &ends, &acknowledged, &context);
        let took = begun.elapsed();
        Run { armed, crashed, acknowledged: acknowledged.len(), paid, refused, took }
    }

    /// Mines until no transfer is in flight, and returns the transfers.
    async fn settle(&self, ids: &[TransferId], context: &str) -> Vec<Transfer> {
        let deadline = Instant::now() + SETTLE;
        for round in 1_u32.. {
            self.rpc("anvil_mine", json!(["0x1"]));
            if round.is_multiple_of(100) {
                // anvil never mines a transaction that it received while it mined the one before.
                // Once the node has dropped it, the server broadcasts it again.
                self.rpc("anvil_dropAllTransactions", json!([]));
            }
            let mut found = Vec::new();
            for id in ids {
                // A quote without an answer may not exist.
                found.extend(self.clients[0].transfer(*id).await.unwrap());
            }
            let moving = |transfer: &&Transfer| {
                use TransferState::{Broadcast, Mined, Signed};
                matches!(transfer.state, Signed | Broadcast | Mined)
            };
            let Some(moving) = found.iter().find(moving) else { return found };
            if Instant::now() > deadline {
                let describe = |transfer: &Transfer| {
                    let Transfer { id, state, replacements_sent, tx_hash, block, .. } = transfer;
                    let hash = tx_hash.as_deref().unwrap_or_default();
                    // A transfer that was not signed has no hash; the node reports an error then.
                    let known = self.env.anvil.rpc("eth_getTransactionByHash", json!([hash]));
                    format!(
                        "{id} {state:?} replaced {replacements_sent}x, {hash} in {block:?}, node: {known:?}"
                    )
                };
                let all: Vec<_> = found.iter().map(describe).collect();
                let address = moving.from.address.to_string();
                let count = self.number("eth_getTransactionCount", json!([address, "latest"]));
                let pool = self.rpc("txpool_content", json!([]));
                let logs: Vec<_> = self.servers.iter().map(last_lines).collect();
                panic!(
                    "{context}: a transfer stays in flight: {moving:?}\n{} transactions are mined\n\
                     {}\npool: {pool}\n{}",
                    count,
                    all.join("\n"),
                    logs.join("\n---\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Vec::new()
    }

    /// Compares the transfers with the chain, and returns how many were made.
    fn check(
        &self,
        from: &Account,
        to: &Account,
        ends: &[Transfer],
        acknowledged: &[TransferId],
        context: &str,
    ) -> u64 {
        let paid: Vec<_> =
            ends.iter().filter(|transfer| transfer.state == TransferState::Final).collect();
        for transfer in ends {
            let ended = matches!(
                transfer.state,
                TransferState::Final | TransferState::Quoted | TransferState::Expired
            );
            assert!(ended, "{context}: {transfer:?}");
        }
        for id in acknowledged {
            let made = paid.iter().any(|transfer| transfer.id == *id);
            assert!(made, "{context}: {id} was acknowledged and lost");
        }
        // Nonces are used once, from 0 on without a gap, and nothing is pending behind a gap.
        let mut nonces = BTreeMap::new();
        for transfer in &paid {
            let found = self.rpc("eth_getTransactionByHash", json!([transfer.tx_hash]));
            let nonce: U256 = found["nonce"].as_str().unwrap().parse().unwrap();
            let before = nonces.insert(nonce, transfer.id);
            assert_eq!(before, None, "{context}: two transfers have nonce {nonce}");
        }
        let count = U256::from(paid.len());
        let address = from.address.to_string();
        for block in ["latest", "pending"] {
            let mined = self.number("eth_getTransactionCount", json!([address, block]));
            assert_eq!(mined, count, "{context}: transactions, {block}");
        }
        assert_eq!(
            nonces.keys().next_back().map(|last| *last + U256::from(1)).unwrap_or_default(),
            count
        );
        // The recipient received what was sent, and the sender keeps the rest less the fees.
        let received = self.number("eth_getBalance", json!([to.address.to_string(), "latest"]));
        let sent = paid.iter().fold(U256::ZERO, |sum, transfer| sum + transfer.value.0);
        assert_eq!(received, sent, "{context}: received");
        let fees = paid.iter().fold(U256::ZERO, |sum, transfer| sum + transfer.fee.unwrap().0);
        let left = self.number("eth_getBalance", json!([address, "latest"]));
        assert_eq!(left + sent + fees, U256::from(COIN), "{context}: left");
        u64::try_from(paid.len()).unwrap()
    }

    /// Sends fifty transfers at once through four processes, without faults.
    pub(crate) async fn fifty_transfers(&mut self, random: &mut Random) {
        let (sender, from, to) = self.sender_and_recipient(COIN).await;
        self.servers.push(ServerProcess::start(&self.env, None, "info"));
        let mut clients = self.clients.clone();
        clients.push(self.servers.last().unwrap().client(&self.env, &self.token));
        let recipient = format!("@person{}", sender + 1);
        let requests: Vec<_> = (0..50).map(|_| quote(sender, &recipient, "0.01")).collect();
        let ids: Vec<_> = requests.iter().map(|request| request.id).collect();
        let sends =
            requests.into_iter().map(|request| send(clients.clone(), request, random.fork()));
        let answers = join_all(sends).await;
        assert!(
            answers.iter().all(|answer| matches!(answer, Answer::Acknowledged)),
            "a transfer was not acknowledged"
        );
        let ends = self.settle(&ids, "fifty").await;
        assert_eq!(self.check(&from, &to, &ends, &ids, "fifty"), 50);
    }
}

/// Quotes and confirms like an impatient client, which repeats each request through another server
/// until the answer is certain.
async fn send(
    clients: Vec<Client>,
    request: kms_types::wire::QuoteTransfer,
    mut random: Random,
) -> Answer {
    let mut quoted = None;
    for _ in 0..30 {
        let client =
            &clients[usize::try_from(random.below(u64::try_from(clients.len()).unwrap())).unwrap()];
        let answer = match &quoted {
            None => client.quote(&request).await,
            Some(quoted) => client.confirm(request.id, &confirm(quoted, WORDS)).await,
        };
        match answer {
            Ok(transfer) if transfer.state == TransferState::Quoted => quoted = Some(transfer),
            Ok(_) => return Answer::Acknowledged,
            Err(ClientError::Problem(problem)) if is_certain(problem.status) => {
                return Answer::Refused;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(30 + random.below(100))).await,
        }
    }
    Answer::Unclear
}

/// Whether nothing was done and a repeat would be refused too.
fn is_certain(status: u16) -> bool {
    (400..500).contains(&status) && status != 429
}
