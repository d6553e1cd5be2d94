//! Three servers that stay up, one that may crash, a chain behind proxies, and one run of a seed.

use std::fmt;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::chain;
use crate::fault::{self, Fault, HIGH, LOW};
use crate::notices::Notices;
use crate::proxy::{Height, Proxy, Rules};
use crate::random::Random;
use crate::sender::{Answer, WORDS, send};
use crate::settle::Sent;
use futures::future::join_all;
use kms_client::Client;
use kms_core::KdfParams;
use kms_server_testing::requests::{COIN, create, quote};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::Scope;
use kms_testkit::{Anvil, TestToken};
use kms_types::Asset;
use kms_types::wire::{Account, QuoteTransfer};
use serde_json::{Value, json};

/// Blocks above the funding, so that no reorganisation removes it by accident.
const SAFE: u32 = 12;
const TOKENS: u128 = 1_000_000_000;
/// Where the owner of an exported key pays.
pub(crate) const ELSEWHERE: &str = "0x00000000000000000000000000000000e15e0000";

/// The gas of a payment that no block includes while they have less, and what they have else.
const TOO_MUCH_GAS: u64 = 5_000_000;
const BLOCK_GAS: u64 = 4_000_000;
const USUAL_GAS: u64 = 30_000_000;

/// What a node's pool takes of one wallet.
const POOL: u64 = 16;

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
    pub(crate) env: TestEnv,
    proxies: Vec<Proxy>,
    /// Another chain with the same id.
    other: Option<Anvil>,
    pub(crate) token: TestToken,
    pub(crate) servers: Vec<ServerProcess>,
    pub(crate) clients: Vec<Client>,
    bearer: String,
    pub(crate) notices: Notices,
    people: i64,
}

/// The result of one seed.
pub(crate) struct Run {
    fault: Fault,
    armed: String,
    pub(crate) crashed: bool,
    acknowledged: usize,
    pub(crate) paid: u64,
    refused: usize,
    took: Duration,
}

/// The accounts of a run.
pub(crate) struct People {
    pub(crate) sender: Account,
    pub(crate) recipients: [Account; 2],
    /// The block before their first payment.
    pub(crate) since: u64,
}

/// How far the sends are.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, armed, crashed, acknowledged, paid, refused, took } = self;
        let fate = if *crashed { "crashed" } else { "not reached" };
        let seconds = took.as_secs_f64();
        write!(
            f,
            "{fault}, {armed} {fate}; {acknowledged} acknowledged, {paid} paid, {refused} refused, \
             {seconds:.1} s"
        )
    }
}

pub(crate) fn address(account: &Account) -> String {
    account.address.to_string().to_lowercase()
}

impl Scenario {
    pub(crate) async fn start(two_endpoints: bool) -> Self {
        let mut env = TestEnv::new(Stores::Servers).unwrap();
        let proxies: Vec<_> =
            (0..=u8::from(two_endpoints)).map(|_| Proxy::before(&env.anvil.url())).collect();
        env.rpc_urls = proxies.iter().map(Proxy::url).collect::<Vec<_>>().join(" ");
        env.chain.replace_after = 1;
        // Blocks come every tenth of a second.
        env.chain.check_after = Duration::from_millis(500);
        let token = TestToken::deploy(&env.anvil, "TST", 6).unwrap();
        // The cheapest KDF that is accepted: these tests are about transfers.
        let kdf = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };
        let tokens =
            format!(r#"[{{ symbol = "TST", address = "{}", decimals = 6 }}]"#, token.address());
        let variables = [
            ("PASSWORD__KDF", kdf.to_string()),
            // Many runs are one caller.
            ("LIMITS__QUOTES", "100000/minute".to_owned()),
            ("LIMITS__ONBOARDINGS", "100000/minute".to_owned()),
            ("LIMITS__READS", "100000/minute".to_owned()),
            ("LIMITS__ACCOUNT_READS", "100000/minute".to_owned()),
            // Many servers share one PostgreSQL.
            ("DATABASE__POOL", "4".to_owned()),
            ("CHAINS__TEST__TOKENS", tokens),
        ];
        let variables = variables.map(|(name, value)| (format!("KMS_SERVER__{name}"), value));
        env.variables.extend(variables);
        chain::call(&env.anvil, "evm_setAutomine", json!([false]));
        let other = two_endpoints.then(|| Anvil::start().unwrap());
        let database = env.migrate().await.unwrap();
        let bearer = env.issue_token(&database, Scope::Bot).await.unwrap();
        let servers: Vec<_> = (0..3).map(|_| ServerProcess::start(&env, None, "info")).collect();
        let clients: Vec<_> = servers.iter().map(|server| server.client(&env, &bearer)).collect();
        let notices = Notices::follow(clients[0].clone());
        Self { env, proxies, other, token, servers, clients, bearer, notices, people: 0 }
    }

    pub(crate) fn has_two_endpoints(&self) -> bool {
        self.proxies.len() == 2
    }

    pub(crate) fn rpc(&self, method: &str, params: Value) -> Value {
        chain::call(&self.env.anvil, method, params)
    }

    pub(crate) fn mine(&self, base_fee: u64) {
        set_base_fee(&self.env.anvil, base_fee);
        self.rpc("anvil_mine", json!(["0x1"]));
        if let Some(other) = &self.other {
            let behind = chain::head(&self.env.anvil).saturating_sub(chain::head(other));
            let before = behind.saturating_sub(1);
            chain::call(other, "anvil_mine", json!([format!("{before:#x}")]));
            set_base_fee(other, base_fee);
            chain::call(other, "anvil_mine", json!([format!("{:#x}", behind - before)]));
        }
    }

    pub(crate) fn mine_many(&self, blocks: u32, base_fee: u64) {
        for _ in 0..blocks {
            self.mine(base_fee);
        }
    }

    /// Creates a sender, with coins and tokens as the fault determines, and two recipients.
    pub(crate) async fn people(&mut self, fault: Fault) -> People {
        let first = self.people + 1;
        self.people += 3;
        let mut accounts = Vec::new();
        for id in first..first + 3 {
            let body = create(id, &format!("person{id}"), WORDS);
            accounts.push(self.clients[0].create_account(&body).await.unwrap());
        }
        let recipients = [accounts.remove(1), accounts.remove(1)];
        let sender = accounts.remove(0);
        self.mine_many(SAFE, LOW);
        match fault {
            Fault::Unfunded => {}
            Fault::DepositGone => self.deposit(&sender),
            _ => self.env.fund(&sender, COIN).unwrap(),
        }
        if fault == Fault::Tokens {
            self.token.mint(&self.env.anvil, &address(&sender), TOKENS).unwrap();
        }
        if fault != Fault::DepositGone {
            self.mine_many(SAFE, LOW);
        }
        People { sender, recipients, since: chain::head(&self.env.anvil) }
    }

    /// Pays the sender by a transaction, in a block of its own.
    fn deposit(&self, to: &Account) {
        let rich = self.rpc("eth_accounts", json!([]))[0].clone();
        let payment = json!({"from": rich, "to": address(to), "value": format!("{COIN:#x}")});
        self.rpc("eth_sendTransaction", json!([payment]));
        self.mine(LOW);
    }

    /// Runs one seed.
    pub(crate) async fn run(&mut self, seed: u64, fault: Fault) -> Run {
        let begun = Instant::now();
        let mut random = Random::from_seed(seed);
        let people = self.people(fault).await;
        let (failpoint, passes) = FAILPOINTS[usize::try_from(random.below(8)).unwrap()];
        let armed = format!("{failpoint}@{}", random.below(passes) + 1);
        let armed_server = ServerProcess::try_start(&self.env, Some(&armed), "info").ok();
        let mut clients = self.clients.clone();
        clients.extend(armed_server.as_ref().map(|server| server.client(&self.env, &self.bearer)));
        self.follow_rules(fault, &people, &mut random);
        if fault == Fault::KeyPending {
            self.pay_elsewhere(&address(&people.sender), LOW, TOO_MUCH_GAS);
            self.limit_blocks(BLOCK_GAS);
        }

        let requests: Vec<_> =
            (0..fault.sends()).map(|_| request(fault, &people, &mut random)).collect();
        let ids = requests.iter().map(|request| request.id).collect();
        let progress = Progress::default();
        let sends = requests.into_iter().map(|request| {
            let sent = send(clients.clone(), request, random.fork());
            async {
                let answer = sent.await;
                if matches!(answer, Answer::Acknowledged) {
                    progress.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                answer
            }
        });
        let sends: Vec<_> = sends.collect();
        let mut chances = random.fork();
        let sent = async {
            let answers = join_all(sends).await;
            progress.is_over.store(true, Ordering::SeqCst);
            answers
        };
        let misfortune = self.misfortune(fault, &people, &mut chances, &progress);
        let (answers, ()) = tokio::join!(sent, misfortune);

        self.end_passing_faults(fault);
        let crashed = armed_server
            .is_none_or(|server| TcpStream::connect(("127.0.0.1", server.port)).is_err());
        let context = format!("FAULT={fault} FAULT_SEED={seed} ({armed})");
        let mut sent = Sent::new(ids, answers);
        let acknowledged = sent.acknowledged().len();
        let refused = sent.answers.iter().filter(|it| matches!(it, Answer::Refused)).count();
        self.settle(fault, &people, &mut sent, &context).await;
        if fault == Fault::DeepReorg {
            self.rpc("anvil_reorg", json!([5 + chances.below(4), []]));
            self.settle(fault, &people, &mut sent, &context).await;
        }
        self.pay_once_more(fault, &people, &mut sent, &context).await;
        let paid = self.settle(fault, &people, &mut sent, &context).await;
        for proxy in &self.proxies {
            proxy.follow(Rules::default());
        }
        self.limit_blocks(USUAL_GAS);
        self.mine(LOW);
        Run { fault, armed, crashed, acknowledged, paid, refused, took: begun.elapsed() }
    }

    fn follow_rules(&self, fault: Fault, people: &People, random: &mut Random) {
        let (false_one, blocks) = (random.below(2), 3 + random.below(1_000));
        for (index, proxy) in self.proxies.iter().enumerate() {
            let is_second = index == 1;
            let mut rules = Rules { losses: Some(random.fork()), ..Rules::default() };
            match fault {
                Fault::Refused => {
                    let digits = address(&people.recipients[1]).trim_start_matches("0x").to_owned();
                    rules.refused = Some((digits, fault::refusal(random)));
                }
                Fault::Heights => rules.height = Height::Mixed(random.fork()),
                Fault::Lagging if is_second => rules.height = Height::Behind(2 + random.below(6)),
                Fault::WrongFork if is_second => {
                    rules.other_node = self.other.as_ref().map(Anvil::url);
                }
                Fault::Ahead if is_second == (false_one == 1) => {
                    rules.height = Height::Ahead(blocks);
                }
                Fault::Many => rules.pool = Some(POOL),
                _ => {}
            }
            proxy.follow(rules);
        }
    }

    /// Mines, empties the pool, reorganises, and lets the fault happen, until the senders are
    /// answered.
    async fn misfortune(
        &self,
        fault: Fault,
        people: &People,
        chances: &mut Random,
        progress: &Progress,
    ) {
        let (mut base_fee, after) = (LOW, 1 + chances.below(4));
        let (sender, mut has_happened) = (address(&people.sender), false);
        loop {
            let is_over = progress.is_over.load(Ordering::SeqCst);
            if is_over && has_happened {
                break;
            }
            tokio::time::sleep(Duration::from_millis(40 + chances.below(80))).await;
            if !has_happened && (is_over || progress.acknowledged.load(Ordering::SeqCst) >= after) {
                has_happened = true;
                match fault {
                    Fault::BaseFee => base_fee = HIGH,
                    Fault::FundsGone => {
                        self.rpc("anvil_setBalance", json!([sender, "0x0"]));
                    }
                    Fault::DepositGone => {
                        let depth = chain::head(&self.env.anvil) - people.since + 1;
                        self.rpc("anvil_reorg", json!([depth, []]));
                        self.rpc("anvil_dropAllTransactions", json!([]));
                    }
                    Fault::DeepReorg => {
                        self.rpc("anvil_reorg", json!([4 + chances.below(4), []]));
                    }
                    Fault::KeyElsewhere => {
                        self.pay_elsewhere(&sender, HIGH, 21_000);
                        self.mine(LOW);
                    }
                    _ => {}
                }
            }
            match chances.below(12) {
                // What the fault is about must still be pending.
                _ if fault.needs_pending() && !has_happened => {}
                0 => drop(self.rpc("anvil_dropAllTransactions", json!([]))),
                // It would bring the removed deposit back, or the removed coins.
                1 if !fault.needs_the_sender() => drop(self.rpc("anvil_reorg", json!([1, []]))),
                2..8 if fault == Fault::Many => {}
                // Blocks that only the false endpoint calls final.
                2..6 if fault == Fault::Ahead => drop(self.rpc("anvil_reorg", json!([2, []]))),
                _ => self.mine(base_fee),
            }
        }
    }

    /// Sets the gas of the blocks that follow.
    fn limit_blocks(&self, gas: u64) {
        self.rpc("evm_setBlockGasLimit", json!([format!("{gas:#x}")]));
    }

    /// The owner of an exported key pays elsewhere, with the next nonce, at this price and with
    /// this gas limit.
    fn pay_elsewhere(&self, sender: &str, price: u64, gas: u64) {
        self.rpc("anvil_impersonateAccount", json!([sender]));
        let nonce = chain::count(&self.env.anvil, sender, "latest");
        let payment = json!({
            "from": sender, "to": ELSEWHERE, "value": "0x1", "gas": format!("{gas:#x}"),
            "gasPrice": format!("{price:#x}"), "nonce": format!("{nonce:#x}"),
        });
        self.rpc("eth_sendTransaction", json!([payment]));
        self.rpc("anvil_stopImpersonatingAccount", json!([sender]));
    }

    fn end_passing_faults(&self, fault: Fault) {
        for proxy in &self.proxies {
            proxy.stop_losses();
            if fault == Fault::WrongFork {
                proxy.follow(Rules::default());
            }
        }
    }

    /// Sends fifty transfers at once through four processes, without faults.
    pub(crate) async fn fifty_transfers(&mut self, random: &mut Random) {
        let people = self.people(Fault::Losses).await;
        self.servers.push(ServerProcess::start(&self.env, None, "info"));
        let mut clients = self.clients.clone();
        clients.push(self.servers.last().unwrap().client(&self.env, &self.bearer));
        let (from, to) = (people.sender.telegram_id, people.recipients[0].username.clone());
        let recipient = to.unwrap().to_string();
        let requests: Vec<_> = (0..50).map(|_| quote(from.into(), &recipient, "0.01")).collect();
        let ids: Vec<_> = requests.iter().map(|request| request.id).collect();
        let sends = requests.into_iter().map(|it| send(clients.clone(), it, random.fork()));
        // Sixteen are in flight; the others wait until blocks contain some of them.
        let blocks = async {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                self.mine(LOW);
            }
        };
        let answers = tokio::select! {
            answers = join_all(sends) => answers,
            () = blocks => Vec::new(),
        };
        assert!(
            answers.iter().all(|answer| matches!(answer, Answer::Acknowledged)),
            "a transfer was not acknowledged"
        );
        let mut sent = Sent::new(ids, answers);
        assert_eq!(self.settle(Fault::Losses, &people, &mut sent, "fifty").await, 50);
    }
}

pub(crate) fn set_base_fee(anvil: &Anvil, base_fee: u64) {
    let params = json!([format!("{base_fee:#x}")]);
    chain::call(anvil, "anvil_setNextBlockBaseFeePerGas", params);
}

fn request(fault: Fault, people: &People, random: &mut Random) -> QuoteTransfer {
    let second = usize::try_from(random.below(2)).unwrap();
    let recipient = people.recipients[second].username.as_ref().unwrap();
    let amount = match fault {
        Fault::Many | Fault::KeyPending => "0.001".to_owned(),
        // The sender has 1,000 milli-ETH, which is not enough for all of them.
        _ => format!("0.{:03}", 50 + random.below(200)),
    };
    let from = people.sender.telegram_id;
    let mut request = quote(from.into(), &recipient.to_string(), &amount);
    if fault == Fault::Tokens {
        request.asset = Asset::Token("TST".parse().unwrap());
    }
    request
}
