//! Several chains in one server: none depends on another, and one that is removed keeps its rows.

use std::time::Duration;

use kms_server_testing::commands::{fails, kms_server, output_text, succeeds};
use kms_server_testing::requests::{COIN, confirm, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer, chain_of};
use kms_testkit::{Anvil, AnvilOptions, TestToken};
use kms_types::wire::{
    Account, Balances, LimitAmount, QuoteTransfer, SetLimit, Transfer, TransferState,
};
use kms_types::{Asset, ErrorCode, Token, U256, Wei};
use serde_json::json;

const OTHER: u64 = 1_020;
const DEAD: u64 = 1_021;
const WRONG: u64 = 1_022;
const PAUSED: u64 = 1_023;
const LIMITED: u64 = 1_024;
const REMOVED: u64 = 1_025;
const SLOW: u64 = 1_027;
const LISTED: u64 = 1_029;
const LATER: u64 = 1_028;
const LEGACY: u64 = 1_050;
const KILLED: u64 = 1_051;
const STOPPED: u64 = 1_052;
const MISTAKEN: u64 = 1_053;
const TOKENS: u64 = 1_054;
/// ZKsync Era.
const REFUSED: u64 = 324;

fn wei(amount: u128) -> Wei {
    Wei(U256::from(amount))
}

/// Adds a chain to the settings of a server.
pub(crate) fn add(env: &mut TestEnv, short_name: &str, chain_id: u64) -> Anvil {
    add_with(env, short_name, AnvilOptions { chain_id, ..AnvilOptions::default() })
}

fn add_with(env: &mut TestEnv, short_name: &str, options: AnvilOptions) -> Anvil {
    let anvil = Anvil::start_with(options).unwrap();
    let mut chain = chain_of(&anvil).unwrap();
    chain.name = short_name.to_uppercase();
    env.more_chains.insert(short_name.to_owned(), chain);
    anvil
}

pub(crate) fn on(chain_id: u64, amount: &str) -> QuoteTransfer {
    QuoteTransfer { chain_id: Some(chain_id), ..quote(1, "@bob", amount) }
}

async fn pay(test: &TestServer, request: &QuoteTransfer) -> Transfer {
    let quoted = test.client.quote(request).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap()
}

async fn refused(test: &TestServer, request: &QuoteTransfer) -> Option<ErrorCode> {
    test.client.quote(request).await.err().and_then(|error| error.code())
}

pub(crate) async fn until_refused(
    test: &TestServer,
    request: impl Fn() -> QuoteTransfer,
    code: ErrorCode,
) {
    // Sixty quotes a minute are served.
    for _ in 0..60 {
        if refused(test, &request()).await == Some(code) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("never {code:?}");
}

async fn until_metric(test: &TestServer, line: &str) {
    let mut metrics = String::new();
    for _ in 0..1_200 {
        metrics = test.ops("/metrics").await.text().await.unwrap();
        if metrics.lines().any(|found| found.starts_with(line)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {line} in\n{metrics}");
}

fn up(chain_id: u64, is_up: u8) -> String {
    format!("kms_dependency_up{{dependency=\"chain\",chain=\"{chain_id}\"}} {is_up}")
}

fn fund(anvil: &Anvil, account: &Account) {
    anvil.set_balance(&account.address.to_string(), 10 * COIN).unwrap();
}

fn coins(balances: &Balances) -> Vec<(u64, Option<Wei>)> {
    let found = balances.chains.iter();
    found.map(|it| (it.chain_id, it.balance.as_ref().map(|balance| balance.wei))).collect()
}

/// One chain does not answer when the server starts, and the endpoint of another serves a third.
#[actix_web::test]
async fn chains_that_fail_at_the_start_leave_the_others_working() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let other = add(&mut env, "another", OTHER);
    add(&mut env, "dead", DEAD).kill().unwrap();
    let wrong = add(&mut env, "wrong", WRONG + 100);
    env.more_chains.get_mut("wrong").unwrap().chain_id = WRONG;
    let test = TestServer::start(env).await;
    let (ann, bob) = test.ann_and_bob().await;
    for anvil in [&other, &wrong] {
        fund(anvil, &ann);
    }
    // The primary chain first, and the others in the order of their short names.
    let networks = test.client.networks().await.unwrap().networks;
    let names: Vec<_> = networks.iter().map(|network| network.short_name.as_str()).collect();
    assert_eq!(names, ["test", "another", "dead", "wrong"]);
    let home = test.env.chain.chain_id;
    // A request that names no chain means the primary one.
    let primary = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    assert_eq!(primary.chain_id, home);
    assert_eq!(refused(&test, &on(7, "1")).await, Some(ErrorCode::UnknownChain));
    for chain_id in [DEAD, WRONG] {
        let code = refused(&test, &on(chain_id, "1")).await;
        assert_eq!(code, Some(ErrorCode::ChainUnavailable), "{chain_id}");
    }
    // What was shown of one chain confirms nothing on another, and no id is used on two.
    let quoted = test.client.quote(&on(OTHER, "1")).await.unwrap();
    let mut shown = confirm(&quoted, "ann's password");
    for chain_id in [home, DEAD, 7] {
        shown.chain_id = chain_id;
        let error = test.client.confirm(quoted.id, &shown).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::QuoteMismatch), "{chain_id}");
    }
    let reused = QuoteTransfer { id: quoted.id, ..on(home, "1") };
    assert_eq!(refused(&test, &reused).await, Some(ErrorCode::IdReused));
    for (chain_id, chain) in [(OTHER, &other), (home, &*test.env.anvil)] {
        let sent = pay(&test, &on(chain_id, "1.5")).await;
        test.until(sent.id, TransferState::Mined).await;
        chain.rpc("anvil_mine", json!(["0x3"])).unwrap();
        assert_eq!(test.until(sent.id, TransferState::Final).await.chain_id, chain_id);
    }
    let balances = test.client.balances(telegram(2)).await.unwrap();
    assert_eq!(balances.address, bob.address);
    let paid = Some(wei(3 * COIN / 2));
    let expected = [(home, paid), (OTHER, paid), (DEAD, None), (WRONG, None)];
    assert_eq!(coins(&balances), expected);
    assert_eq!(test.ops("/readyz").await.status(), 200);
    for (chain_id, is_up) in [(OTHER, 1), (DEAD, 0), (WRONG, 0)] {
        until_metric(&test, &up(chain_id, is_up)).await;
    }
    until_metric(&test, &format!("kms_payment_amount_count{{chain=\"{OTHER}\"")).await;
}

/// A chain stops answering while a payment on it is in flight, and comes back.
#[actix_web::test]
async fn a_chain_that_stops_answering_delays_its_own_payments_alone() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let paused = add(&mut env, "paused", PAUSED);
    let test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    fund(&paused, &ann);
    paused.rpc("evm_setAutomine", json!([false])).unwrap();
    let waits = pay(&test, &on(PAUSED, "1")).await;
    test.until(waits.id, TransferState::Broadcast).await;
    paused.pause().unwrap();
    until_metric(&test, &up(PAUSED, 0)).await;
    // The other chain, wallets and readiness do not depend on it.
    let sent = pay(&test, &quote(1, "@bob", "2")).await;
    test.until(sent.id, TransferState::Mined).await;
    test.env.anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    test.until(sent.id, TransferState::Final).await;
    test.onboard(3, "carl", "carl's password").await;
    assert_eq!(test.ops("/readyz").await.status(), 200);
    // What is reported of the chain that does not answer: nothing that it may have changed.
    let home = test.env.chain.chain_id;
    let balances = test.client.balances(telegram(2)).await.unwrap();
    assert_eq!(coins(&balances), [(home, Some(wei(2 * COIN))), (PAUSED, None)]);
    let found = test.client.transfer(waits.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.chain_id), (TransferState::Broadcast, PAUSED));
    assert_eq!(refused(&test, &on(PAUSED, "1")).await, Some(ErrorCode::ChainUnavailable));

    let test = test.restart().await;
    // The server starts without it as well, and what is in flight on it proceeds once it is back.
    let sent = pay(&test, &quote(1, "@bob", "1")).await;
    test.until(sent.id, TransferState::Mined).await;
    paused.resume().unwrap();
    until_metric(&test, &up(PAUSED, 1)).await;
    paused.rpc("anvil_mine", json!(["0x4"])).unwrap();
    assert_eq!(test.until(waits.id, TransferState::Final).await.tx_hash, waits.tx_hash);
    let balances = test.client.balances(telegram(2)).await.unwrap();
    assert_eq!(coins(&balances), [(home, Some(wei(3 * COIN))), (PAUSED, Some(wei(COIN)))]);
}

/// Of five chains in one server, one is killed, one is served by an endpoint of another chain, one
/// is paused by the operator, and one has no base fee: that one and the first work, and what is
/// said of the others is right.
#[actix_web::test]
async fn chains_that_fail_in_different_ways_leave_two_of_five_working() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let before_london = Some("berlin");
    let options = AnvilOptions { chain_id: LEGACY, hardfork: before_london, ..Default::default() };
    let legacy = add_with(&mut env, "legacy", options);
    let mut killed = add(&mut env, "killed", KILLED);
    let _stopped = add(&mut env, "stopped", STOPPED);
    let _mistaken = add(&mut env, "mistaken", MISTAKEN + 100);
    env.more_chains.get_mut("mistaken").unwrap().chain_id = MISTAKEN;
    let test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    fund(&legacy, &ann);
    fund(&killed, &ann);
    let home = test.env.chain.chain_id;
    let quoted = test.client.quote(&on(KILLED, "1")).await.unwrap();
    killed.rpc("evm_setAutomine", json!([false])).unwrap();
    let waits = pay(&test, &on(KILLED, "2")).await;
    test.until(waits.id, TransferState::Broadcast).await;
    killed.kill().unwrap();
    succeeds(&test.env, "payments pause --chain stopped");
    until_metric(&test, &up(KILLED, 0)).await;
    until_refused(&test, || on(STOPPED, "1"), ErrorCode::PaymentsPaused).await;

    for chain_id in [KILLED, MISTAKEN] {
        let code = refused(&test, &on(chain_id, "1")).await;
        assert_eq!(code, Some(ErrorCode::ChainUnavailable), "{chain_id}");
    }
    // Neither a payment nor a balance of a chain that does not answer is said to be over.
    let error = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await;
    assert_eq!(error.unwrap_err().code(), Some(ErrorCode::ChainUnavailable));
    let found = test.client.transfer(waits.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.chain_id), (TransferState::Broadcast, KILLED));
    for (chain_id, chain) in [(LEGACY, &legacy), (home, &*test.env.anvil)] {
        let sent = pay(&test, &on(chain_id, "1.5")).await;
        let mined = test.until(sent.id, TransferState::Mined).await;
        chain.rpc("anvil_mine", json!(["0x3"])).unwrap();
        assert_eq!(test.until(sent.id, TransferState::Final).await.chain_id, chain_id);
        let hash = mined.tx_hash.unwrap();
        let transaction = chain.rpc("eth_getTransactionByHash", json!([hash])).unwrap();
        let kind = if chain_id == LEGACY { "0x0" } else { "0x2" };
        assert_eq!(transaction.get("type"), Some(&json!(kind)), "{transaction}");
    }
    let paid = Some(wei(3 * COIN / 2));
    let expected =
        [(home, paid), (KILLED, None), (LEGACY, paid), (MISTAKEN, None), (STOPPED, Some(wei(0)))];
    let balances = test.client.balances(telegram(2)).await.unwrap();
    assert_eq!(coins(&balances), expected);
    // What was spent is counted on its own chain.
    let limits = test.client.limits(telegram(1)).await.unwrap().limits;
    let spent = limits.iter().map(|limit| (limit.chain_id, limit.spent.0 / wei(COIN).0));
    let spent: Vec<_> = spent.map(|(chain_id, coins)| (chain_id, coins.to::<u64>())).collect();
    assert_eq!(spent, [(home, 1), (KILLED, 2), (LEGACY, 1), (MISTAKEN, 0), (STOPPED, 0)]);
    assert_eq!(test.ops("/readyz").await.status(), 200);
}

/// The contract of a token is pasted in place of a recipient's address, and has no code elsewhere.
#[actix_web::test]
async fn no_contract_of_a_token_of_any_chain_is_paid() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let other = add(&mut env, "other", TOKENS);
    let token = TestToken::deploy(&other, "USDC", 6).unwrap();
    let (symbol, address) = ("USDC".parse().unwrap(), token.address().parse().unwrap());
    let configured = Token { symbol, address, decimals: 6 };
    env.more_chains.get_mut("other").unwrap().tokens = vec![configured];
    let test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    fund(&other, &ann);
    let home = test.env.chain.chain_id;
    for chain_id in [home, TOKENS] {
        let request = QuoteTransfer { chain_id: Some(chain_id), ..quote(1, token.address(), "1") };
        let error = test.client.quote(&request).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidField), "{chain_id}: {error}");
    }
}

/// An endpoint that may take longer than a client waits.
#[actix_web::test]
async fn a_chain_that_answers_late_hides_no_balance_of_another_one() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let slow = add(&mut env, "slow", SLOW);
    env.more_chains.get_mut("slow").unwrap().rpc_timeout = Duration::from_secs(120);
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let home = test.env.chain.chain_id;
    let balances = test.client.balances(telegram(2)).await.unwrap();
    assert_eq!(coins(&balances), [(home, Some(wei(0))), (SLOW, Some(wei(0)))]);
    slow.pause().unwrap();
    let balances = test.client.balances(telegram(2)).await.unwrap();
    assert_eq!(coins(&balances), [(home, Some(wei(0))), (SLOW, None)]);
    slow.resume().unwrap();
}

#[actix_web::test]
async fn pauses_and_limits_are_those_of_one_chain() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let other = add(&mut env, "other", LIMITED);
    let only_there = |amount: &str| [("other/ETH".to_owned(), amount.parse().unwrap())].into();
    env.limits.spend_a_day = only_there("3");
    env.limits.outflow_an_hour = only_there("4");
    let test = TestServer::start(env).await;
    let (ann, bob) = test.ann_and_bob().await;
    fund(&other, &ann);
    fund(&other, &bob);
    let home = test.env.chain.chain_id;
    // The operator's limit of one chain, which what is spent on the other does not use up.
    assert_eq!(refused(&test, &on(LIMITED, "3")).await, Some(ErrorCode::LimitReached));
    pay(&test, &on(home, "3")).await;
    // The owner's limit of one chain.
    let amount = LimitAmount::try_from("4".to_owned()).unwrap();
    let limit = SetLimit { asset: Asset::Native, chain_id: Some(home), amount };
    let limits = test.client.set_limit(telegram(1), &limit).await.unwrap().limits;
    let shown: Vec<_> = limits.iter().map(|it| (it.chain_id, it.limit.map(|it| it.0))).collect();
    assert_eq!(shown, [(home, Some(wei(4 * COIN).0)), (LIMITED, Some(wei(3 * COIN).0))]);
    assert!(limits[0].spent.0 >= wei(3 * COIN).0 && limits[1].spent.0 == U256::ZERO);
    assert_eq!(refused(&test, &on(home, "1")).await, Some(ErrorCode::LimitReached));
    // The hourly limit of all accounts together.
    pay(&test, &on(LIMITED, "2")).await;
    let of_bob = QuoteTransfer { chain_id: Some(LIMITED), ..quote(2, "@ann", "2.5") };
    let quoted = test.client.quote(&of_bob).await.unwrap();
    let error = test.client.confirm(quoted.id, &confirm(&quoted, "bob's password")).await;
    assert_eq!(error.unwrap_err().code(), Some(ErrorCode::PaymentsPaused));
    pay(&test, &on(home, "0.5")).await;

    assert!(fails(&test.env, "payments pause --chain nowhere").contains("short name"));
    succeeds(&test.env, "payments pause --chain other");
    let status = succeeds(&test.env, "payments status");
    assert!(status.contains(&format!("chain {home}: not paused")), "{status}");
    assert!(status.contains(&format!("chain {LIMITED}: paused since")), "{status}");
    until_refused(&test, || on(LIMITED, "0.1"), ErrorCode::PaymentsPaused).await;
    pay(&test, &on(home, "0.1")).await;
    // Each pause is ended by name, or all of them are.
    let unnamed = kms_server(&test.env, "payments resume --reason ticket-1").output().unwrap();
    assert_eq!(unnamed.status.code(), Some(2), "{}", output_text(&unnamed));
    succeeds(&test.env, "payments pause --chain test");
    succeeds(&test.env, "payments resume --chain test --reason ticket-1");
    let status = succeeds(&test.env, "payments status");
    assert!(status.contains(&format!("chain {home}: not paused")), "{status}");
    assert!(status.contains(&format!("chain {LIMITED}: paused since")), "{status}");
    let again = fails(&test.env, "payments resume --chain test --reason ticket-1");
    assert!(again.contains("were not paused"), "{again}");
    succeeds(&test.env, "payments resume --all --reason ticket-1");
    let status = succeeds(&test.env, "payments status");
    assert!(!status.contains("paused since"), "{status}");
}

/// The operator pauses all payments with settings that lack a chain.
#[actix_web::test]
async fn a_pause_of_all_chains_holds_for_one_that_is_added_later() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let _later = add(&mut env, "later", LATER);
    let mut test = TestServer::start(env).await;
    test.ann_and_bob().await;
    succeeds(&test.env, "payments pause --chain later");
    let chains = std::mem::take(&mut test.env.more_chains);
    succeeds(&test.env, "payments pause");
    let status = succeeds(&test.env, "payments status");
    for paused in ["all chains".to_owned(), format!("chain {LATER}")] {
        assert!(status.contains(&format!("{paused}: paused since")), "{status}");
    }
    test.env.more_chains = chains;
    succeeds(&test.env, "payments status --chain later");
    let still = fails(&test.env, "payments resume --chain later --reason ticket-1");
    assert!(still.contains("--all"), "{still}");
    let test = test.restart().await;
    for chain_id in [test.env.chain.chain_id, LATER] {
        assert_eq!(refused(&test, &on(chain_id, "1")).await, Some(ErrorCode::PaymentsPaused));
    }
    succeeds(&test.env, "payments resume --all --reason ticket-1");
    let status = succeeds(&test.env, "payments status");
    assert!(!status.contains("paused since"), "{status}");
}

#[actix_web::test]
async fn an_external_address_is_listed_for_one_chain() {
    let listed = |digits: &str| format!("0x{}", digits.repeat(20));
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let other = add(&mut env, "other", LISTED);
    let entries = [listed("d1"), format!("other/{}", listed("d2"))];
    let entries = entries.map(|entry| entry.parse().unwrap());
    env.limits.external_addresses = Some(entries.into());
    let test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    fund(&other, &ann);
    let home = test.env.chain.chain_id;
    for (chain_id, allowed, not_allowed) in [(home, "d1", "d2"), (LISTED, "d2", "d1")] {
        let to =
            |digits| QuoteTransfer { chain_id: Some(chain_id), ..quote(1, &listed(digits), "1") };
        test.client.quote(&to(allowed)).await.unwrap();
        assert_eq!(refused(&test, &to(not_allowed)).await, Some(ErrorCode::PaymentRefused));
    }
}

#[actix_web::test]
async fn a_chain_that_is_removed_leaves_the_others_working() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let removed = add(&mut env, "removed", REMOVED);
    let mut test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    fund(&removed, &ann);
    removed.rpc("evm_setAutomine", json!([false])).unwrap();
    let quoted = test.client.quote(&on(REMOVED, "1")).await.unwrap();
    let sent = pay(&test, &on(REMOVED, "1")).await;
    test.until(sent.id, TransferState::Broadcast).await;

    let chains = std::mem::take(&mut test.env.more_chains);
    let mut test = test.restart().await;
    let again = confirm(&sent, "ann's password");
    assert_eq!(test.client.confirm(sent.id, &again).await.unwrap().tx_hash, sent.tx_hash);
    let error = test.client.replacement(sent.id).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ChainUnavailable));
    let error = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await;
    assert_eq!(error.unwrap_err().code(), Some(ErrorCode::ChainUnavailable));
    assert_eq!(refused(&test, &on(REMOVED, "1")).await, Some(ErrorCode::UnknownChain));
    // No server follows it, which the operator sees.
    until_metric(&test, &format!("kms_transfers{{chain=\"{REMOVED}\",state=\"broadcast\"}} 1"))
        .await;
    let elsewhere = pay(&test, &quote(1, "@bob", "1")).await;
    test.until(elsewhere.id, TransferState::Mined).await;

    test.env.more_chains = chains;
    let test = test.restart().await;
    removed.rpc("anvil_mine", json!(["0x4"])).unwrap();
    test.until(sent.id, TransferState::Final).await;
}

#[actix_web::test]
async fn a_chain_of_a_family_that_is_refused_is_named_and_stops_nothing() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let _refused = add(&mut env, "era", REFUSED);
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let report = fails(&test.env, "check-config");
    let named = "chain 324 is of the family ZK stack (ZKsync), which is not supported";
    assert!(report.contains(named), "{report}");
    assert_eq!(refused(&test, &on(REFUSED, "1")).await, Some(ErrorCode::ChainUnavailable));
    let paid = pay(&test, &quote(1, "@bob", "1")).await;
    test.until(paid.id, TransferState::Mined).await;
}
