//! Coin that arrives inside a contract call: found by comparing balances, and reported once.

use std::time::Duration;

use kms_chain::Chain;
use kms_chain::follower::Follower;
use kms_chain::transfer::TransferState;
use kms_core::account::Account;
use kms_testkit::deploy_multicall;
use serde_json::json;

use crate::stub::{self, Answer, Fate};
use crate::world::{COIN, CONFIRMATIONS, World, party};

/// The first account of anvil.
const RICH: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// A contract that sends the coin it gets to the address in its input.
const FORWARDER: &str = "0x00000000000000000000000000000000000000f0";
const CODE: &str = "0x6000600060006000346000355af100";

impl World {
    /// Sends coin through a contract, in its own block.
    fn send_inside(&self, to: &Account, wei: u64) {
        self.rpc("anvil_setCode", json!([FORWARDER, CODE]));
        let to = to.wallet.address.to_string();
        let call = json!({
            "from": RICH, "to": FORWARDER, "value": format!("{wei:#x}"), "gas": "0x30d40",
            "data": format!("0x{:0>64}", to.trim_start_matches("0x")),
        });
        self.rpc("eth_sendTransaction", json!([call]));
        self.mine(1);
    }

    /// Makes an external payment, in its own block.
    fn pay(&self, to: &Account, wei: u64) {
        let to = to.wallet.address.to_string();
        let payment = json!({"from": RICH, "to": to, "value": format!("{wei:#x}")});
        self.rpc("eth_sendTransaction", json!([payment]));
        self.mine(1);
    }

    /// Makes all blocks so far final, and reads them.
    async fn finalize(&self, follower: &Follower) {
        self.mine(CONFIRMATIONS);
        self.read(follower).await;
    }

    async fn read(&self, follower: &Follower) {
        for _ in 0..3 {
            while follower.round(self.now()).await.unwrap() {}
        }
    }

    /// The amounts that the account received, and whether their sender is known.
    async fn received(&self, account: &Account) -> Vec<(u64, bool)> {
        let deposits = self.deposits_of(account).await;
        let shown = deposits.iter().map(|deposit| {
            assert_eq!((deposit.from.is_some(), deposit.count), (deposit.tx_hash.is_some(), 1));
            (deposit.value.0.to(), deposit.from.is_some())
        });
        shown.collect()
    }
}

#[tokio::test]
async fn coin_inside_a_call_is_reported_once_at_finality() {
    let world = World::new().await;
    let (one, two) = (world.comparing_follower(), world.comparing_follower());
    world.read(&one).await;
    let ann = world.account(1, 0).await;
    world.send_inside(&ann, 7);
    world.mine(CONFIRMATIONS - 1);
    world.read(&one).await;
    assert_eq!(world.received(&ann).await, []);
    world.mine(1);
    tokio::join!(world.read(&one), world.read(&two));
    assert_eq!(world.received(&ann).await, [(7, false)]);
    // A server that starts, with nothing in its memory.
    world.finalize(&world.comparing_follower()).await;
    assert_eq!(world.received(&ann).await, [(7, false)]);
    world.send_inside(&ann, 8);
    world.mine(CONFIRMATIONS);
    tokio::join!(world.read(&one), world.read(&two));
    assert_eq!(world.received(&ann).await, [(7, false), (8, false)]);
}

#[tokio::test]
async fn it_is_told_from_payments_and_fees_to_the_last_wei() {
    let world = World::new().await;
    // What they have before the chain is followed was not received.
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, COIN).await);
    let follower = world.comparing_follower();
    world.read(&follower).await;
    world.finalize(&follower).await;
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.send_inside(&ann, 7);
    // Not settled yet: neither the payment nor the fee counts as received.
    world.finalize(&follower).await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    assert_eq!(world.received(&ann).await, [(7, false)]);
    // All of it between two comparisons: a payment, a cancelled one, and an external one.
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    world.confirm(&ann, &quote).await.unwrap();
    world.send_inside(&bob, 9);
    world.pay(&bob, 5);
    let cancelled = world.quote(&bob, party(&ann), "0.2").await;
    let cancelled = world.confirm(&bob, &cancelled).await.unwrap();
    world.rpc("anvil_dropAllTransactions", json!([]));
    world.transfers.cancel(cancelled.id, world.now()).await.unwrap();
    world.tick().await;
    world.mine(1);
    world.finalize(&follower).await;
    assert_eq!(world.state(&cancelled).await, TransferState::Cancelled);
    assert_eq!(world.received(&ann).await, [(7, false)]);
    let mut received = world.received(&bob).await;
    received.sort_unstable();
    assert_eq!(received, [(5, true), (9, false)]);
}

#[tokio::test]
async fn a_reorganisation_takes_nothing_for_received() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let follower = world.comparing_follower();
    world.read(&follower).await;
    world.finalize(&follower).await;
    // Removed before it is final.
    world.send_inside(&ann, 7);
    world.read(&follower).await;
    world.rpc("anvil_reorg", json!([1, []]));
    world.rpc("anvil_dropAllTransactions", json!([]));
    world.finalize(&follower).await;
    assert_eq!(world.received(&ann).await, []);
    // A final payment is mined again in a later block: in between, the wallet has what it paid.
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.finalize(&follower).await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    world.rpc("anvil_reorg", json!([CONFIRMATIONS + 1, []]));
    world.rpc("anvil_dropAllTransactions", json!([]));
    world.mine(CONFIRMATIONS + 2);
    world.read(&follower).await;
    world.tick().await;
    world.mine(1);
    world.finalize(&follower).await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    assert_eq!((world.received(&ann).await, world.received(&bob).await), (vec![], vec![]));
    world.send_inside(&ann, 8);
    world.finalize(&follower).await;
    assert_eq!(world.received(&ann).await, [(8, false)]);
}

fn over(urls: &[&str]) -> Chain {
    Chain::over(urls.iter().copied(), 31_337, Duration::from_secs(5), None).unwrap()
}

/// The answer of Multicall3 for one wallet with this balance.
fn balance(wei: u64) -> Answer {
    let words = [32, 1, 32, 1, 64, 32, wei];
    let words: String = words.iter().map(|word| format!("{word:064x}")).collect();
    Answer::Result(json!(format!("0x{words}")))
}

#[tokio::test]
async fn one_false_balance_of_two_reports_nothing() {
    let world = World::new().await;
    deploy_multicall(&world.anvil).unwrap();
    let url = world.anvil.url();
    for lie in [9_000, 0] {
        let liar = stub::start_proxy(&url, move |called| match called {
            "eth_call" => Fate::Answered(balance(lie)),
            _ => Fate::Passed,
        });
        let honest = world.comparing_follower_over(over(&[&url, &liar]));
        world.read(&honest).await;
        let ann = world.account(i64::try_from(lie).unwrap() + 1, 0).await;
        world.pay(&ann, 5);
        world.finalize(&honest).await;
        let false_one = world.comparing_follower_over(over(&[&liar, &url]));
        for follower in [&false_one, &honest, &false_one] {
            world.pass(Duration::from_secs(120));
            world.finalize(follower).await;
        }
        assert_eq!(world.received(&ann).await, [(5, true)], "{lie}");
    }
}

#[tokio::test]
async fn an_endpoint_without_old_state_costs_no_other_report() {
    let world = World::new().await;
    deploy_multicall(&world.anvil).unwrap();
    let pruned = stub::start_proxy(&world.anvil.url(), |called| match called {
        "eth_call" => Fate::Answered(Answer::Error(-32_000, "missing trie node")),
        _ => Fate::Passed,
    });
    let follower = world.comparing_follower_over(over(&[&pruned]));
    world.read(&follower).await;
    let ann = world.account(1, 0).await;
    world.send_inside(&ann, 7);
    world.pay(&ann, 5);
    world.finalize(&follower).await;
    assert_eq!(world.received(&ann).await, [(5, true)]);
    // Found when the balance can be read.
    world.finalize(&world.comparing_follower()).await;
    assert_eq!(world.received(&ann).await, [(5, true), (7, false)]);
}
