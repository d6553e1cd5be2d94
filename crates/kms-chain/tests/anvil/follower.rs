//! External deposits: reported once, at finality, to the account that is paid.

use kms_chain::Chain;
use kms_chain::follower::{Finality, Follower};
use kms_chain::transfer::TransferState;
use kms_core::account::Account;
use serde_json::{Value, json};

use crate::chain::reverting;
use crate::stub::{self, Answer, Fate};
use crate::world::{COIN, CONFIRMATIONS, World, party, units};

/// The first account of anvil.
const RICH: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// An external transaction that pays the account.
fn payment(to: &Account, wei: u64) -> Value {
    json!({
        "from": RICH, "to": to.wallet.address.to_string(), "value": format!("{wei:#x}"),
        "gas": "0x186a0",
    })
}

impl World {
    /// Makes an external payment in its own block, and returns the hash.
    pub(crate) fn deposit(&self, to: &Account, wei: u64) -> String {
        let hash = self.rpc("eth_sendTransaction", json!([payment(to, wei)]));
        self.mine(1);
        hash.as_str().unwrap().to_owned()
    }

    /// The amounts of the deposits that were reported to the account.
    async fn values(&self, account: &Account) -> Vec<String> {
        let payments = self.deposits_of(account).await;
        payments.iter().map(|payment| payment.value.to_string()).collect()
    }

    /// Runs rounds until no finalized block is left, and returns their number.
    async fn follow(&self, follower: &Follower) -> usize {
        let mut rounds = 1;
        while follower.round(self.now()).await.unwrap() {
            rounds += 1;
        }
        rounds
    }
}

#[tokio::test]
async fn an_external_deposit_is_reported_once_at_finality() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, 0).await, world.account(2, 0).await);
    let follower = world.follower();
    world.follow(&follower).await;
    let hash = world.deposit(&ann, 7);
    world.mine(CONFIRMATIONS - 1);
    world.follow(&follower).await;
    assert!(world.values(&ann).await.is_empty(), "reported before finality");
    world.mine(1);
    world.follow(&follower).await;
    world.mine(5);
    world.follow(&follower).await;
    let deposits = world.deposits_of(&ann).await;
    assert_eq!(deposits.len(), 1);
    let deposit = deposits.first().unwrap();
    assert_eq!(
        (deposit.value, deposit.block, hex::encode_prefixed(deposit.tx_hash.unwrap())),
        (units(7), 1, hash)
    );
    assert_eq!((deposit.from.unwrap().to_string().as_str(), deposit.chain_id), (RICH, 31_337));
    assert!(world.values(&bob).await.is_empty());
}

#[tokio::test]
async fn a_new_chain_is_followed_from_its_newest_finalized_block() {
    let world = World::new().await;
    let ann = world.account(1, 0).await;
    world.deposit(&ann, 1);
    world.mine(CONFIRMATIONS);
    let follower = world.follower();
    world.follow(&follower).await;
    world.deposit(&ann, 2);
    world.mine(CONFIRMATIONS);
    world.follow(&follower).await;
    assert_eq!(world.values(&ann).await, ["2"]);
}

#[tokio::test]
async fn two_concurrent_followers_report_each_deposit_once() {
    let world = World::new().await;
    let ann = world.account(1, 0).await;
    let (one, two) = (world.follower(), world.follower());
    world.follow(&one).await;
    for value in 1..=5 {
        world.deposit(&ann, value);
        world.mine(CONFIRMATIONS);
        tokio::join!(world.follow(&one), world.follow(&two));
    }
    world.follow(&two).await;
    assert_eq!(world.values(&ann).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_follower_catches_up_many_blocks_a_round() {
    let world = World::new().await;
    let ann = world.account(1, 0).await;
    world.follow(&world.follower()).await;
    world.deposit(&ann, 1);
    world.mine(498);
    world.deposit(&ann, 2);
    world.mine(CONFIRMATIONS);
    assert_eq!(world.follow(&world.follower()).await, 2);
    assert_eq!(world.values(&ann).await, ["1", "2"]);
}

#[tokio::test]
async fn a_deposit_that_a_reorg_removes_is_not_reported() {
    let world = World::new().await;
    let ann = world.account(1, 0).await;
    let follower = world.follower();
    world.follow(&follower).await;
    world.deposit(&ann, 7);
    world.mine(1);
    world.follow(&follower).await;
    world.rpc("anvil_reorg", json!([2, []]));
    world.rpc("anvil_dropAllTransactions", json!([]));
    world.mine(CONFIRMATIONS + 2);
    world.follow(&follower).await;
    assert!(world.values(&ann).await.is_empty());
    world.deposit(&ann, 8);
    world.mine(CONFIRMATIONS);
    world.follow(&follower).await;
    assert_eq!(world.values(&ann).await, ["8"]);
}

#[tokio::test]
async fn a_reorg_of_finalized_blocks_neither_stops_nor_repeats_reports() {
    let world = World::new().await;
    let ann = world.account(1, 0).await;
    let follower = world.follower();
    world.follow(&follower).await;
    let signed = json!({
        "from": RICH, "to": ann.wallet.address.to_string(), "value": "0x7", "gas": "0x5208",
        "nonce": "0x0", "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x3b9aca00",
        "type": "0x2", "chainId": format!("{:#x}", world.anvil.chain_id()),
    });
    let signed = world.rpc("eth_signTransaction", json!([signed]));
    world.rpc("eth_sendRawTransaction", json!([signed]));
    world.mine(CONFIRMATIONS + 1);
    world.follow(&follower).await;
    assert_eq!(world.values(&ann).await, ["7"]);

    world.rpc("anvil_reorg", json!([CONFIRMATIONS + 1, []]));
    world.rpc("anvil_dropAllTransactions", json!([]));
    // The same payment is mined again in a later block, and another one follows.
    world.rpc("eth_sendRawTransaction", json!([signed]));
    world.mine(1);
    world.deposit(&ann, 8);
    world.mine(CONFIRMATIONS);
    // The first round moves the cursor back.
    world.follow(&follower).await;
    world.follow(&follower).await;
    assert_eq!(world.values(&ann).await, ["7", "8"]);
}

#[tokio::test]
async fn deposits_of_a_very_deep_reorg_are_reported() {
    let world = World::new().await;
    let ann = world.account(1, 0).await;
    let follower = world.follower();
    world.follow(&follower).await;
    world.deposit(&ann, 7);
    let before = world.rpc("evm_snapshot", json!([]));
    world.mine(4 * CONFIRMATIONS);
    world.follow(&follower).await;
    assert_eq!(world.values(&ann).await, ["7"]);

    // The other branch has a payment soon after the fork point.
    world.rpc("evm_revert", json!([before]));
    world.deposit(&ann, 8);
    world.mine(5 * CONFIRMATIONS);
    world.follow(&follower).await;
    world.follow(&follower).await;
    assert_eq!(world.values(&ann).await, ["7", "8"]);
}

#[tokio::test]
async fn failed_empty_and_own_payments_are_not_deposits() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let follower = world.follower();
    world.follow(&follower).await;
    let address = bob.wallet.address.to_string();
    world.rpc("anvil_setCode", json!([address, reverting()]));
    let failed = world.deposit(&bob, 7);
    world.rpc("anvil_setCode", json!([address, "0x"]));
    let failed = world.rpc("eth_getTransactionReceipt", json!([failed]));
    assert_eq!(failed.get("status"), Some(&json!("0x0")));
    world.deposit(&bob, 0);
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&quote).await, TransferState::Mined);
    world.mine(CONFIRMATIONS);
    world.follow(&follower).await;
    assert!(world.values(&bob).await.is_empty());
    // Two for the transfer: it arrives, and is final.
    assert_eq!(world.event_count(&bob).await, 2);
}

#[tokio::test]
async fn a_chain_without_the_finalized_tag_is_reported() {
    let world = World::new().await;
    let proxy = |fate: fn() -> Fate| {
        let url = stub::start_proxy_by_call(&world.anvil.url(), move |call| {
            let is_asked = call.pointer("/params/0") == Some(&json!("finalized"));
            if is_asked { fate() } else { Fate::Passed }
        });
        Chain::new(&url, world.anvil.chain_id()).unwrap()
    };
    let nothing = proxy(|| Fate::Answered(Answer::Result(json!(null))));
    let unknown = proxy(|| Fate::Answered(Answer::Error(-32_602, "invalid block tag")));
    let lost = proxy(|| Fate::Lost);
    // A new chain may have no final block yet.
    nothing.check_finality(Finality::Tag).await.unwrap();
    world.mine(1_024);
    for chain in [&nothing, &unknown] {
        let error = chain.check_finality(Finality::Tag).await.unwrap_err();
        assert!(error.to_string().contains("set chain.finality"), "{error}");
        chain.check_finality(Finality::Blocks(3)).await.unwrap();
        // A follower does not begin at the first block for it.
        let follower = world.follower_of(chain.clone(), Finality::Tag);
        let error = follower.round(world.now()).await.unwrap_err();
        assert!(error.to_string().contains("set chain.finality"), "{error}");
    }
    lost.check_finality(Finality::Tag).await.unwrap();
    let chain = Chain::new(&world.anvil.url(), world.anvil.chain_id()).unwrap();
    chain.check_finality(Finality::Tag).await.unwrap();
    world.follower_of(chain, Finality::Tag).round(world.now()).await.unwrap();
}
