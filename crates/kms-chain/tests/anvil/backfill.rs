//! Blocks that the follower is past and did not settle.

use kms_chain::follower::{BlockRef, DepositStore};
use kms_chain::transfer::{Transfer, TransferFailure, TransferState};
use serde_json::{Value, json};

use crate::nonce::use_externally;
use crate::stub::{self, Answer, Fate};
use crate::world::{COIN, CONFIRMATIONS, World, party};

impl World {
    /// Moves the cursor to the newest final block without reading what is below it.
    async fn skip_blocks(&self) {
        let chain_id = self.anvil.chain_id();
        let from = self.database.cursor(chain_id).await.unwrap().unwrap();
        let head = self.rpc("eth_blockNumber", json!([]));
        let head = u64::from_str_radix(head.as_str().unwrap().trim_start_matches("0x"), 16);
        let number = head.unwrap() - CONFIRMATIONS;
        let block = self.rpc("eth_getBlockByNumber", json!([format!("{number:#x}"), false]));
        let hash = block.get("hash").and_then(Value::as_str).unwrap();
        let hash = hex::decode(hash).unwrap().try_into().unwrap();
        let to = BlockRef { number, hash };
        let moved = self.database.record_deposits(chain_id, from, to, Vec::new(), self.now());
        assert!(moved.await.unwrap());
    }

    /// What a server does with nonces that are found used. Returns how many were settled.
    async fn settle_missed(&self, follower: &kms_chain::follower::Follower) -> usize {
        self.tick().await;
        let mut settled = 0;
        for used in self.transfers.take_used_nonces() {
            let is_settled = follower.settle_missed(&used, self.now()).await.unwrap();
            settled += usize::from(is_settled);
        }
        settled
    }
}

async fn missed(world: &World, is_external: bool) -> (Transfer, Option<String>) {
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    let (server, mut hash) = (world.cut_off(), None);
    let sent = match is_external {
        true => world.confirm_at(&server, &ann, &quote).await.unwrap(),
        false => world.confirm(&ann, &quote).await.unwrap(),
    };
    world.mine(4);
    if is_external {
        hash = Some(use_externally(world, &ann));
    }
    world.mine(CONFIRMATIONS + 4);
    world.skip_blocks().await;
    world.tick().await;
    assert!(matches!(world.state(&sent).await, TransferState::Signed | TransferState::Broadcast));
    (sent, hash)
}

#[tokio::test]
async fn a_payment_in_a_missed_block_is_settled_by_its_proof() {
    let world = World::new().await;
    let (sent, _) = missed(&world, false).await;
    // No second endpoint has the block.
    let without = stub::start_proxy(&world.anvil.url(), |called| match called {
        "eth_getBlockByNumber" => Fate::Answered(Answer::Result(Value::Null)),
        _ => Fate::Passed,
    });
    let two = kms_chain::Chain::over(
        [world.anvil.url().as_str(), without.as_str()],
        31_337,
        std::time::Duration::from_secs(5),
        None,
    );
    assert_eq!(world.settle_missed(&world.follower_over(two.unwrap())).await, 0);
    assert_eq!(world.settle_missed(&world.follower()).await, 1);
    let found = world.stored(&sent).await;
    assert_eq!((found.state, found.block), (TransferState::Final, Some(1)));
    assert_eq!(world.settle_missed(&world.follower()).await, 0);
}

#[tokio::test]
async fn an_external_transaction_in_a_missed_block_is_found_by_the_counts() {
    let world = World::new().await;
    let (sent, hash) = missed(&world, true).await;
    assert_eq!(world.settle_missed(&world.follower()).await, 1);
    let found = world.stored(&sent).await;
    assert_eq!(
        (found.state, found.failure),
        (TransferState::Failed, Some(TransferFailure::Superseded))
    );
    assert_eq!(found.superseded_by.map(hex::encode_prefixed), hash);
}

#[tokio::test]
async fn without_old_states_nothing_is_concluded_from_the_counts() {
    let world = World::new().await;
    let (sent, _) = missed(&world, true).await;
    let pruned = stub::start_proxy_by_call(&world.anvil.url(), |call| {
        let is_old = stub::method_of(call) == "eth_getTransactionCount"
            && call.pointer("/params/1").and_then(Value::as_str).is_some_and(|at| at.len() < 6);
        if is_old {
            Fate::Answered(Answer::Error(-32_000, "missing trie node"))
        } else {
            Fate::Passed
        }
    });
    assert_eq!(world.settle_missed(&world.follower_through(&pruned)).await, 0);
    assert_eq!(world.state(&sent).await, TransferState::Signed);
}
