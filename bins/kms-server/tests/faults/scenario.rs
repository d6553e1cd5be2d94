//! Three servers that stay up, one that may crash, a chain behind proxies, and one run of a seed.

use std::fmt;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::chain;
use crate::fault::{self, Fault};
use crate::proxy::{Height, Proxy, Rules};
use crate::random::Random;
use crate::sender::{Answer, WORDS, send};
use crate::told::{Message, Told};
use futures::future::join_all;
use kms_client::Client;
use kms_core::KdfParams;
use kms_server_testing::requests::{COIN, create, hash, quote};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::Scope;
use kms_testkit::{Anvil, TestToken};
use kms_types::wire::{Account, QuoteTransfer, ReplaceTransfer, Transfer, TransferState};
use kms_types::{Asset, ReplacementId, Token, TransferId, U256};
use serde_json::{Value, json};

/// How long it may take until everything is final, and all users are notified.
const SETTLE: Duration = Duration::from_secs(60);
/// After this long without an end, a sender cancels or signs again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Blocks above the funding, so that no reorganisation removes it by accident.
const SAFE: u32 = 12;
const TOKENS: u128 = 1_000_000_000;
/// Where the owner of an exported key pays.
const ELSEWHERE: &str = "0x00000000000000000000000000000000e15e0000";
/// The base fee while nothing raises it, and while it is above every signed price.
const LOW: u64 = 1_000_000_000;
const HIGH: u64 = 200_000_000_000;

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
    proxies: Vec<Proxy>,
    /// Another chain with the same id.
    other: Option<Anvil>,
    token: TestToken,
    servers: Vec<ServerProcess>,
    clients: Vec<Client>,
    bearer: String,
    told: Told,
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
struct People {
    sender: Account,
    recipients: [Account; 2],
    /// The block before their first payment.
    since: u64,
}

/// How far the sends are.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

/// What the sender asked for, and how it was answered.
struct Sent {
    ids: Vec<TransferId>,
    answers: Vec<Answer>,
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

/// The last lines of a server's log.
fn last_lines(server: &ServerProcess) -> String {
    let log = server.log.lock().unwrap();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn address(account: &Account) -> String {
    account.address.to_string().to_lowercase()
}

impl Scenario {
    pub(crate) async fn start(two_endpoints: bool) -> Self {
        let mut env = TestEnv::new(Stores::Servers).unwrap();
        let proxies: Vec<_> =
            (0..=u8::from(two_endpoints)).map(|_| Proxy::before(&env.anvil.url())).collect();
        env.rpc_urls = proxies.iter().map(Proxy::url).collect::<Vec<_>>().join(" ");
        env.chain.replace_after = 1;
        let token = TestToken::deploy(&env.anvil, "TST", 6).unwrap();
        // The cheapest KDF that is accepted: these tests are about transfers.
        let kdf = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };
        let tokens =
            format!(r#"[{{ symbol = "TST", address = "{}", decimals = 6 }}]"#, token.address());
        let variables = [
            ("PASSWORD__KDF", kdf.to_string()),
            ("LIMITS__QUOTES", "100000/minute".to_owned()),
            ("CHAIN__TOKENS", tokens),
        ];
        let variables = variables.map(|(name, value)| (format!("KMS_SERVER__{name}"), value));
        env.variables.extend(variables);
        chain::call(&env.anvil, "evm_setAutomine", json!([false]));
        let other = two_endpoints.then(|| Anvil::start().unwrap());
        let database = env.migrate().await.unwrap();
        let bearer = env.issue_token(&database, Scope::Bot).await.unwrap();
        let servers: Vec<_> = (0..3).map(|_| ServerProcess::start(&env, None, "info")).collect();
        let clients: Vec<_> = servers.iter().map(|server| server.client(&env, &bearer)).collect();
        let told = Told::follow(clients[0].clone());
        Self { env, proxies, other, token, servers, clients, bearer, told, people: 0 }
    }

    fn rpc(&self, method: &str, params: Value) -> Value {
        chain::call(&self.env.anvil, method, params)
    }

    fn mine(&self, base_fee: u64) {
        self.rpc("anvil_setNextBlockBaseFeePerGas", json!([format!("{base_fee:#x}")]));
        self.rpc("anvil_mine", json!(["0x1"]));
        if let Some(other) = &self.other {
            let behind = chain::head(&self.env.anvil).saturating_sub(chain::head(other));
            chain::call(other, "anvil_mine", json!([format!("{behind:#x}")]));
        }
    }

    fn mine_many(&self, blocks: u32, base_fee: u64) {
        for _ in 0..blocks {
            self.mine(base_fee);
        }
    }

    fn token_of(&self, fault: Fault) -> Option<&TestToken> {
        (fault == Fault::Tokens).then_some(&self.token)
    }

    /// Creates a sender, with coins and tokens as the fault determines, and two recipients.
    async fn people(&mut self, fault: Fault) -> People {
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
        let armed_server = ServerProcess::try_start(&self.env, Some(&armed), "info");
        let mut clients = self.clients.clone();
        clients.extend(armed_server.as_ref().map(|server| server.client(&self.env, &self.bearer)));
        self.follow_rules(fault, &people, &mut random);

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
        let mut sent = Sent { ids, answers };
        let acknowledged = sent.acknowledged().len();
        let refused = sent.answers.iter().filter(|it| matches!(it, Answer::Refused)).count();
        self.settle(fault, &people, &sent, &context).await;
        if fault == Fault::DeepReorg {
            self.rpc("anvil_reorg", json!([5 + chances.below(4), []]));
            self.settle(fault, &people, &sent, &context).await;
        }
        self.pay_once_more(fault, &people, &mut sent, &context).await;
        let paid = self.settle(fault, &people, &sent, &context).await;
        for proxy in &self.proxies {
            proxy.follow(Rules::default());
        }
        self.mine(LOW);
        Run { fault, armed, crashed, acknowledged, paid, refused, took: begun.elapsed() }
    }

    fn follow_rules(&self, fault: Fault, people: &People, random: &mut Random) {
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
                Fault::Many => rules.pool = Some(64),
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
                    Fault::KeyElsewhere => self.pay_elsewhere(&sender),
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
                _ => self.mine(base_fee),
            }
        }
    }

    /// The owner of an exported key pays elsewhere, with the next nonce.
    fn pay_elsewhere(&self, sender: &str) {
        self.rpc("anvil_impersonateAccount", json!([sender]));
        let nonce = chain::count(&self.env.anvil, sender, "latest");
        let payment = json!({
            "from": sender, "to": ELSEWHERE, "value": "0x1", "gas": "0x5208",
            "gasPrice": format!("{HIGH:#x}"), "nonce": format!("{nonce:#x}"),
        });
        self.rpc("eth_sendTransaction", json!([payment]));
        self.rpc("anvil_stopImpersonatingAccount", json!([sender]));
        self.mine(LOW);
    }

    fn end_passing_faults(&self, fault: Fault) {
        for proxy in &self.proxies {
            proxy.stop_losses();
            if fault == Fault::WrongFork {
                proxy.follow(Rules::default());
            }
        }
    }

    /// Mines until nothing is in flight, the chain has what was acknowledged, and everybody was
    /// told what it has. Returns the number of payments that were made.
    async fn settle(&self, fault: Fault, people: &People, sent: &Sent, context: &str) -> u64 {
        let begun = Instant::now();
        let base_fee = if fault == Fault::BaseFee { HIGH } else { LOW };
        let mut rounds = 0_u32;
        loop {
            rounds += 1;
            self.mine(base_fee);
            if rounds.is_multiple_of(100) {
                // anvil never mines a transaction that it received while it mined the one before.
                // Once the node has dropped it, the server broadcasts it again.
                self.rpc("anvil_dropAllTransactions", json!([]));
            }
            let mut found = Vec::new();
            for id in &sent.ids {
                // A quote without an answer may not exist.
                found.extend(self.clients[0].transfer(*id).await.unwrap());
            }
            let in_flight: Vec<_> =
                found.iter().filter(|transfer| is_in_flight(transfer)).collect();
            let problem = match in_flight.as_slice() {
                [] => match self.check(fault, people, sent, &found) {
                    Ok(paid) => return paid,
                    Err(problem) => problem,
                },
                in_flight => format!("{} payments are in flight", in_flight.len()),
            };
            let is_time = begun.elapsed() > PATIENCE && rounds.is_multiple_of(20);
            if fault.needs_new_prices() && is_time {
                self.sign_again(&in_flight).await;
            }
            if fault.needs_the_sender() && is_time {
                if fault != Fault::Refused {
                    // For the fees of the cancellations.
                    self.env.fund(&people.sender, COIN / 100).unwrap();
                }
                for transfer in in_flight {
                    let _ = self.clients[1].cancel(transfer.id).await;
                }
            }
            assert!(begun.elapsed() < SETTLE, "{context}: {problem}\n{}", self.describe(&found));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The sender signs what is still pending again, at the prices of now.
    async fn sign_again(&self, pending: &[&Transfer]) {
        for transfer in pending {
            let Ok(fee) = self.clients[1].replacement(transfer.id).await else { continue };
            let (id, password_hash) = (ReplacementId::random(), hash(WORDS));
            let body = ReplaceTransfer { id, password_hash, max_fee: fee.max_fee };
            let _ = self.clients[1].replace(transfer.id, &body).await;
        }
    }

    fn describe(&self, found: &[Transfer]) -> String {
        let describe = |transfer: &Transfer| {
            let Transfer { id, state, replacements_sent, tx_hash, block, .. } = transfer;
            let hash = tx_hash.as_deref().unwrap_or_default();
            // A transfer that was not signed has no hash; the node reports an error then.
            let known = self.env.anvil.rpc("eth_getTransactionByHash", json!([hash]));
            let known = known.map(|transaction| transaction["blockNumber"].clone());
            let told = self.told.sender(*id);
            format!(
                "{id} {state:?}, told {told:?}, replaced {replacements_sent}x, {hash} in {block:?}, \
                 node: {known:?}"
            )
        };
        let all: Vec<_> = found.iter().map(describe).collect();
        let pool = self.rpc("txpool_content", json!([]));
        let logs: Vec<_> = self.servers.iter().map(last_lines).collect();
        format!("{}\npool: {pool}\n{}", all.join("\n"), logs.join("\n---\n"))
    }

    /// Compares the transfers with the chain and with the notices to users, and returns how many
    /// payments were made.
    fn check(
        &self,
        fault: Fault,
        people: &People,
        sent: &Sent,
        found: &[Transfer],
    ) -> Result<u64, String> {
        let paid: Vec<_> = found.iter().filter(|it| it.state == TransferState::Final).collect();
        for id in sent.acknowledged() {
            let ended = found.iter().find(|transfer| transfer.id == id).map(|it| it.state);
            let kept = match ended {
                Some(TransferState::Final) => true,
                Some(TransferState::Failed | TransferState::Cancelled) => fault.may_fail(),
                _ => false,
            };
            ensure(kept, || format!("{id} was acknowledged and is {ended:?}"))?;
        }
        let (anvil, sender) = (&self.env.anvil, address(&people.sender));
        let mined = chain::mined(anvil, &sender, people.since);
        for (transaction, nonce) in mined.iter().zip(0..) {
            let pays = paid.iter().any(|it| it.tx_hash.as_deref() == Some(&transaction.hash));
            let cancels = transaction.to == sender && fault.may_fail();
            let is_external = transaction.to == ELSEWHERE;
            let explained = pays || cancels || is_external;
            ensure(explained, || format!("no transfer explains {transaction:?}"))?;
            ensure(transaction.nonce == nonce, || format!("{transaction:?} follows a gap"))?;
        }
        for transfer in &paid {
            let hash = transfer.tx_hash.as_deref().unwrap_or_default();
            let made = mined.iter().find(|transaction| transaction.hash == hash);
            let made = made.filter(|made| made.succeeded && Some(made.fee) == fee(transfer));
            ensure(made.is_some(), || format!("the chain does not have {transfer:?}"))?;
        }
        let count = u64::try_from(mined.len()).unwrap();
        for block in ["latest", "pending"] {
            let counted = chain::count(anvil, &sender, block);
            ensure(counted == count, || format!("{count} transactions, {counted} are {block}"))?;
        }
        self.check_messages(fault, people, found)?;
        Ok(u64::try_from(paid.len()).unwrap())
    }

    fn check_messages(
        &self,
        fault: Fault,
        people: &People,
        found: &[Transfer],
    ) -> Result<(), String> {
        for transfer in found {
            let (told, is) = (self.told.sender(transfer.id), Message::of(transfer.state));
            // A cancelled quote was never signed.
            let is = is.filter(|_| transfer.tx_hash.is_some());
            ensure(told == is, || {
                format!("{}: the sender was told {told:?}: {is:?}", transfer.id)
            })?;
        }
        for recipient in &people.recipients {
            let coins = chain::balance(&self.env.anvil, None, &address(recipient));
            let told = self.told.received(recipient.id, None);
            ensure(told == coins, || format!("told to have received {told} of {coins}"))?;
            if self.token_of(fault).is_some() {
                let tokens =
                    chain::balance(&self.env.anvil, Some(&self.token), &address(recipient));
                let told = self.told.received(recipient.id, Some(&self.configured_token()));
                ensure(told == tokens, || format!("told to have received {told} of {tokens}"))?;
            }
        }
        Ok(())
    }

    fn configured_token(&self) -> Token {
        let (symbol, address) = ("TST".parse().unwrap(), self.token.address().parse().unwrap());
        Token { symbol, address, decimals: 6 }
    }

    /// The wallet can still pay.
    async fn pay_once_more(&self, fault: Fault, people: &People, sent: &mut Sent, context: &str) {
        self.env.fund(&people.sender, COIN).unwrap();
        // Above the block that may count as the newest.
        let base_fee = if fault == Fault::BaseFee { HIGH } else { LOW };
        self.mine_many(8, base_fee);
        let to = people.recipients[0].username.as_ref().unwrap();
        let from = people.sender.telegram_id;
        let request = quote(from.into(), &to.to_string(), "0.002");
        let id = request.id;
        let answer = send(self.clients.clone(), request, Random::from_seed(0)).await;
        let is_acknowledged = matches!(answer, Answer::Acknowledged);
        let found: Vec<_> = self.clients[0].transfer(id).await.unwrap().into_iter().collect();
        let found = self.describe(&found);
        assert!(is_acknowledged, "{context}: the wallet cannot pay any more\n{found}");
        sent.ids.push(id);
        sent.answers.push(answer);
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
        let answers = join_all(sends).await;
        assert!(
            answers.iter().all(|answer| matches!(answer, Answer::Acknowledged)),
            "a transfer was not acknowledged"
        );
        let sent = Sent { ids, answers };
        assert_eq!(self.settle(Fault::Losses, &people, &sent, "fifty").await, 50);
    }
}

impl Sent {
    fn acknowledged(&self) -> Vec<TransferId> {
        let answers = self.ids.iter().zip(&self.answers);
        let acknowledged = answers.filter(|(_, answer)| matches!(answer, Answer::Acknowledged));
        acknowledged.map(|(id, _)| *id).collect()
    }
}

fn request(fault: Fault, people: &People, random: &mut Random) -> QuoteTransfer {
    let second = usize::try_from(random.below(2)).unwrap();
    let recipient = people.recipients[second].username.as_ref().unwrap();
    let amount = match fault {
        Fault::Many => "0.001".to_owned(),
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

fn is_in_flight(transfer: &Transfer) -> bool {
    use TransferState::{Broadcast, Mined, Signed};
    matches!(transfer.state, Signed | Broadcast | Mined)
}

fn fee(transfer: &Transfer) -> Option<U256> {
    transfer.fee.map(|fee| fee.0)
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}
