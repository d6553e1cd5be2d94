//! What must not grow: the signing transaction with many transfers stored, the requests to the
//! chain that one payment costs, a pass over due work, and deposits among many accounts.

use std::time::{Duration, Instant};

use kms_chain::follower::{BlockRef, DepositStore};
use kms_chain::ports::{ChainView, Sign, SignOutcome, SignedBytes, SignedLadder, TransferStore};
use kms_chain::settlement::{Outcome, Position, ReadBlocks, Settlement, SettlementStore};
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::{Asked, Fees, Ladder, Party, Quote, Transfer};
use kms_core::account::{Account, AccountState, NewAccount, Wallet};
use kms_core::ports::AccountStore;
use kms_core::{KdfParams, Salt};
use kms_server::config::Finality;
use kms_server_testing::requests::{COIN, confirm, create, quote};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::Scope;
use kms_testkit::deploy_multicall;
use kms_types::wire::TransferState;
use kms_types::{
    AccountId, Asset, AssetId, EthAddress, SckId, Timestamp, TransferId, U256, Units, Wei,
};
use serde_json::json;

use crate::counting_proxy::{Calls, CountingProxy};
use crate::measure::{cpu, postgres_cpu, since};
use crate::money::number;
use crate::reads::fill_million;
use crate::row::Row;
use crate::stage::{Stage, WORDS, variable};

/// Chains that the server does not know, so that its workers leave these transfers alone.
const STORED_CHAIN: u64 = 777;
const DUE_CHAIN: u64 = 778;
/// The wallets that sign, half of them for each side of the ratio.
const WALLETS: u8 = 20;
const SIGNED: u64 = 400;
/// Above every nonce of the stored transfers.
const NONCE: u64 = 20_000_000;
const IN_FLIGHT: u64 = 10_000;
/// What one round of a server claims.
const ROUND: u32 = 200;
const PAYERS: i64 = 10;
const CONFIRMATIONS: u64 = 12;
const IDLE_BLOCKS: u32 = 8;
/// The blocks that are followed, and the payments in each.
const PAYMENTS: u64 = 100;
const BLOCKS: u64 = 15;
const NOW: Timestamp = Timestamp(2_000_000_000_000);

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    let mut rows = vec![signing(stage).await];
    rows.extend(due_work(stage).await);
    rows.push(requests_of_a_payment().await);
    rows.extend(deposits(stage).await);
    rows
}

/// PostgreSQL's CPU time of the transaction that signs, of wallets that have sent half of all
/// stored transfers, compared with that when there are few.
async fn signing(stage: &Stage) -> Row {
    let mut wallets = Vec::new();
    for byte in 1..=WALLETS {
        let wallet = wallet(byte);
        let new = NewAccount { account: wallet.clone(), names: None };
        assert!(stage.database.create_account(new).await.unwrap().is_some());
        wallets.push(wallet);
    }
    let (first, second) = wallets.split_at(wallets.len() / 2);
    // Warm-up; and a row of each kind, to copy.
    sign_all(stage, first, NONCE).await;
    store(stage, &wallets, 1, 1_000);
    let few = sign_all(stage, first, 2 * NONCE).await;
    let stored = variable("BENCH_STORED_TRANSFERS", 1_000_000);
    let begun = Instant::now();
    store(stage, &wallets, 1_001, stored);
    println!("{stored} transfers stored in {:.0?}", begun.elapsed());
    // The pages are read once before they are measured, as those of the other side were.
    sign_all(stage, second, NONCE).await;
    let many = sign_all(stage, second, 2 * NONCE).await;
    let name = format!("sign with {stored} stored transfers / with 1,000: PostgreSQL CPU");
    Row { name, measured: many, limit: few, unit: "ms", target: 1.2 }
}

/// Signs for each wallet in turn, settles that, and returns PostgreSQL's CPU milliseconds for one
/// signature.
async fn sign_all(stage: &Stage, wallets: &[Account], nonce: u64) -> f64 {
    let database = &stage.database;
    let mut quotes = Vec::new();
    for (index, wallet) in (0..SIGNED).zip(wallets.iter().cycle()) {
        let quote = transfer(wallet, &wallets[0]);
        database.insert_quote(quote.clone()).await.unwrap();
        quotes.push((quote.id, nonce + index));
    }
    let limit = Units(U256::from(u64::MAX));
    let a_day = [(AssetId::native(STORED_CHAIN), limit)].into();
    let rules = SpendingRules { a_day, ..SpendingRules::default() };
    let before = postgres_cpu();
    for (id, nonce) in &quotes {
        let (balance, token) = (Wei(U256::from(u64::MAX)), Units::default());
        let view = ChainView { block: 1, balance, token, nonce: *nonce, mined: *nonce };
        let signed = database.sign(*id, view, rules.clone(), NOW, sign()).await.unwrap();
        assert!(matches!(signed, SignOutcome::Signed(_)), "{signed:?}");
    }
    let each = (postgres_cpu() - before) / SIGNED as f64;
    let block = BlockRef { number: 1, hash: [1; 32] };
    let settlement = |(transfer, _): &(TransferId, u64)| {
        let mut tx_hash = [0; 32];
        tx_hash[..16].copy_from_slice(transfer.as_bytes());
        let outcome = Outcome::Paid { arrived: None };
        Settlement { transfer: *transfer, block, tx_hash, outcome, fee: Wei::default() }
    };
    let settlements = quotes.iter().map(settlement).collect();
    let read = ReadBlocks { blocks: vec![block], settlements, is_fork: false };
    let start = BlockRef { number: 0, hash: [0; 32] };
    database.start_at(STORED_CHAIN, start).await.unwrap();
    let at = Position { cursor: start, tip: None };
    database.settle(STORED_CHAIN, at, read, NOW).await.unwrap().unwrap();
    database.finalize(STORED_CHAIN, at, 1, NOW, NOW).await.unwrap().unwrap();
    each
}

fn wallet(byte: u8) -> Account {
    Account {
        id: AccountId::random(),
        telegram_id: (30_000 + i64::from(byte)).try_into().unwrap(),
        username: None,
        state: AccountState::Active,
        mobile: None,
        email: None,
        email_verified_at: None,
        recovered_at: None,
        page_only_since: None,
        page_only_until: None,
        created_by: None,
        unfreezes_at: None,
        former_email: None,
        created_at: NOW,
        revision: 1,
        wallet: Wallet {
            address: EthAddress::from([byte; 20]),
            public_key: [byte; 33],
            sealed_key: vec![byte; 61],
            kdf: KdfParams::ARGON2ID,
            salt: Salt([byte; 16]),
            password_version: 1,
            pepper_id: 1.try_into().unwrap(),
            commitment: [byte; 32],
            sck_id: SckId::random(),
            wrapped_hash: [byte; 32],
            version: 1,
        },
    }
}

fn transfer(from: &Account, to: &Account) -> Transfer {
    let party = |account: &Account| Party {
        account: Some(account.id),
        username: None,
        address: account.wallet.address,
        since: Some(account.created_at),
    };
    let price = Fees::Legacy { price: 1 };
    Transfer::from(Quote {
        id: TransferId::random(),
        chain_id: STORED_CHAIN,
        from: party(from),
        to: party(to),
        asked: Asked { to: String::new(), amount: String::new(), asset: Asset::Native },
        token: None,
        value: Units(U256::from(1)),
        gas_limit: 21_000,
        ladder: Ladder::new(1, price, Vec::new()).unwrap(),
        warnings: Vec::new(),
        client_ref: None,
        created_at: NOW,
        // By the database's clock.
        expires_at: Timestamp(i64::MAX),
    })
}

/// Signs a ladder of the usual size.
fn sign() -> Sign {
    let ladder = |_nonce| {
        let unique = *TransferId::random().as_bytes();
        let signed = |step: u8| {
            let mut tx_hash = [step; 32];
            tx_hash[..16].copy_from_slice(&unique);
            let fees = Fees::Legacy { price: 1 };
            SignedBytes { tx_hash, fees, sealed: vec![step; 150] }
        };
        SignedLadder {
            first: signed(0),
            replacements: vec![signed(1), signed(2)],
            cancellation: signed(3),
        }
    };
    Sign { wallet_version: 1, ladder: Box::new(ladder) }
}

/// Copies a settled transfer, with its settlement, signed transaction and spend, so that the
/// numbers `from` to `to` are stored. Every second one was sent by one of the wallets.
fn store(stage: &Stage, wallets: &[Account], from: u64, to: u64) {
    let list = |of: fn(&Account) -> String| {
        let all: Vec<_> = wallets.iter().map(|wallet| format!("'{}'", of(wallet))).collect();
        format!("(array[{}])[1 + n % {WALLETS}]", all.join(", "))
    };
    let other = "'0x' || lpad(to_hex(n), 40, '0')";
    let address = list(|wallet| wallet.wallet.address.to_lower_hex());
    let account = list(|wallet| wallet.id.to_string());
    let address = format!("case when n % 2 = 0 then {address} else {other} end");
    let final_one = "state = 'final'";
    stage.copy(
        "transfers",
        final_one,
        (from, to),
        &[
            ("id", ID),
            ("from_account", &account),
            ("from_address", &address),
            ("to_address", other),
            ("nonce", "n"),
            ("tx_hash", HASH),
            ("block", "n"),
            ("created_at", "n"),
        ],
    );
    let settled = "final_at is not null";
    let done = [("transfer_id", ID), ("tx_hash", HASH), ("block", "n"), ("bytes_until", "null")];
    stage.copy("settlements", settled, (from, to), &done);
    let signed = [("transfer_id", ID), ("tx_hash", HASH), ("sealed", "null")];
    stage.copy("signed_transactions", "step = 0", (from, to), &signed);
    let spent = [("transfer_id", ID), ("account_id", account.as_str()), ("at", "n")];
    stage.copy("spends", "true", (from, to), &spent);
    // Autovacuum would do this some time later.
    stage.sql("vacuum analyze");
}

/// The id of the copy number `n`, made at `n` milliseconds (UUID version 7), and its hash.
const ID: &str = "overlay(md5('transfer' || n) placing lpad(to_hex(n), 12, '0') || '7' \
                  from 1 for 13)::uuid::text";
const HASH: &str = "decode(md5('hash' || n) || md5(n::text), 'hex')";

/// How long a server needs to claim all of the transfers in flight, if the check of each is due,
/// and how many rows it writes for that.
async fn due_work(stage: &Stage) -> Vec<Row> {
    let (chain, numbers) = (DUE_CHAIN.to_string(), (NONCE, NONCE + IN_FLIGHT - 1));
    stage.copy(
        "transfers",
        "state = 'final'",
        numbers,
        &[
            ("id", ID),
            ("chain_id", &chain),
            ("nonce", "n"),
            ("tx_hash", HASH),
            ("block", "null"),
            ("state", "'broadcast'"),
        ],
    );
    let signed = [("transfer_id", ID), ("tx_hash", HASH), ("sealed", "t.tx_hash")];
    stage.copy("signed_transactions", "step = 0", numbers, &signed);
    stage.sql(&format!(
        "insert into transfer_checks (transfer_id, chain_id, next_at, done) \
         select id, chain_id, 0, 0 from transfers where chain_id = {DUE_CHAIN}"
    ));
    stage.sql("vacuum analyze");
    let updates = async || {
        // A backend that becomes idle may report its statistics ten seconds later.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let tables = "('transfers', 'transfer_checks', 'transfer_waits', 'signed_transactions')";
        let sum = "select sum(n_tup_upd + n_tup_ins + n_tup_del) from pg_stat_user_tables";
        stage.sql(&format!("{sum} where relname in {tables}")).parse::<f64>().unwrap()
    };
    let before = updates().await;
    let (begun, mut claimed) = (Instant::now(), 0);
    loop {
        let due = stage.database.claim_due(DUE_CHAIN, NOW, ROUND).await.unwrap();
        if due.is_empty() {
            break;
        }
        claimed += due.len() as u64;
    }
    let took = since(begun);
    assert_eq!(claimed, IN_FLIGHT);
    let each = (updates().await - before) / IN_FLIGHT as f64;
    let row = |name: &str, measured, limit, unit| Row {
        name: format!("{IN_FLIGHT} transfers in flight, all due: {name}"),
        measured,
        limit,
        unit,
        target: 1.0,
    };
    vec![row("a pass over them", took, 1_000.0, "ms"), row("rows written for each", each, 1.0, "")]
}

/// What was called since.
fn since_then(since: &Calls, mut now: Calls) -> Calls {
    for (method, calls) in &mut now {
        *calls -= since.get(method).unwrap_or(&0);
    }
    now
}

/// JSON-RPC calls for a payment from quote to finality, beyond those that the blocks cost without
/// payments. Takes some minutes, as real blocks do.
async fn requests_of_a_payment() -> Row {
    let block_time = Duration::from_secs(variable("BENCH_BLOCK_SECONDS", 12));
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    // The chains that people use have it.
    deploy_multicall(&env.anvil).unwrap();
    let proxy = CountingProxy::before(&env.anvil.url());
    env.rpc_urls = proxy.url.clone();
    env.chain.finality = Finality::Blocks(CONFIRMATIONS);
    env.chain.poll_interval = Duration::from_secs(1);
    env.chain.compare_balances = true;
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    for id in 1..=PAYERS {
        let wallet = client.create_account(&create(id, &format!("person{id}"), WORDS)).await;
        env.fund(&wallet.unwrap(), COIN).unwrap();
    }
    let interval = json!([block_time.as_secs()]);
    env.anvil.rpc("evm_setIntervalMining", interval).unwrap();
    tokio::time::sleep(2 * block_time).await;
    let since = proxy.calls();
    tokio::time::sleep(IDLE_BLOCKS * block_time).await;
    let idle = since_then(&since, proxy.calls());
    let (begun, before) = (Instant::now(), proxy.calls());
    let mut sent = Vec::new();
    for id in 1..=PAYERS {
        let request = quote(id, &format!("@person{}", 1 + id % PAYERS), "0.001");
        let shown = client.quote(&request).await.unwrap();
        sent.push(client.confirm(request.id, &confirm(&shown, WORDS)).await.unwrap().id);
    }
    for id in &sent {
        while client.transfer(*id).await.unwrap().unwrap().state != TransferState::Final {
            assert!(begun.elapsed() < 30 * block_time, "a payment is not final");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let busy = since_then(&before, proxy.calls());
    let blocks = begun.elapsed().as_secs_f64() / block_time.as_secs_f64();
    let mut of_a_payment = 0.0;
    for (method, calls) in busy {
        let a_block = *idle.get(&method).unwrap_or(&0) as f64 / f64::from(IDLE_BLOCKS);
        let own = (calls as f64 - a_block * blocks) / PAYERS as f64;
        println!("{method}: {own:.1} for a payment, and {a_block:.1} for each block");
        of_a_payment += own;
    }
    Row {
        name: format!(
            "RPC calls of a payment, {block_time:?} blocks, {CONFIRMATIONS} confirmations, beyond \
             what {blocks:.0} blocks cost"
        ),
        measured: of_a_payment,
        limit: 20.0,
        unit: "",
        target: 1.0,
    }
}

/// Mines one block a second, each with payments to known addresses.
async fn deposits(stage: &Stage) -> Vec<Row> {
    fill_million(stage).await;
    // Their balances are due as well.
    stage.sql(
        "insert into wallet_balances (chain_id, account_id, block, rewinds, active_at, next_at) \
         select c.chain_id, w.account_id, c.block, 0, 0, 0 from wallets w, chain_cursors c \
         on conflict do nothing",
    );
    stage.sql("vacuum analyze");
    let anvil = &stage.env.anvil;
    let chain = anvil.chain_id();
    let rich = anvil.rpc("eth_accounts", json!([])).unwrap()[0].clone();
    let at = async || stage.database.cursor(chain).await.unwrap().map_or(0, |at| at.number);
    anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let (server, mut worst, mut paid) = (stage.server.id(), 0.0_f64, 200_000_000_u64);
    let before = cpu(server);
    for _ in 0..BLOCKS {
        let begun = Instant::now();
        for _ in 0..PAYMENTS {
            paid += 1;
            let to = format!("0x{paid:040x}");
            let payment = json!({"from": rich, "to": to, "value": "0x1", "gas": "0x5208"});
            anvil.rpc("eth_sendTransaction", json!([payment])).unwrap();
        }
        anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
        let finalized = number(stage, "eth_blockNumber", json!([])).saturating_sub(2);
        let mined = Instant::now();
        while at().await < finalized {
            assert!(mined.elapsed() < Duration::from_secs(60), "the follower is too slow");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        worst = worst.max(since(mined));
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed())).await;
    }
    let each = (cpu(server) - before) / BLOCKS as f64;
    let accounts = variable("BENCH_ACCOUNTS", 1_000_000);
    let about = format!("blocks of {PAYMENTS} deposits among {accounts} accounts: ");
    let row = |name: &str, measured, limit| Row {
        name: format!("{about}{name}"),
        measured,
        limit,
        unit: "ms",
        target: 1.0,
    };
    vec![
        // The follower polls once a second.
        row("from finality to report, at most", worst, 2_000.0),
        row("server CPU for a block", each, 1_000.0),
    ]
}
