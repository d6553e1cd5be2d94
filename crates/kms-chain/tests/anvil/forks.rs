//! Endpoints on different forks: what is final is on the branch that two of them have.

use std::time::Duration;

use kms_chain::Chain;
use kms_chain::transfer::{Transfer, TransferState};
use kms_core::account::Account;
use serde_json::{Value, json};

use crate::stub::{self, Answer, Fate};
use crate::world::{COIN, CONFIRMATIONS, World, party};

/// A proxy whose blocks from a number on are others, without transactions.
fn forked(world: &World, from: u64) -> String {
    let node = world.anvil.url();
    stub::start_proxy_by_call(&world.anvil.url(), move |call| {
        let method = stub::method_of(call);
        if method != "eth_getBlockByNumber" {
            return Fate::Passed;
        }
        let mut block = stub::ask(&node, method, call.get("params").unwrap());
        let number = block.get("number").and_then(Value::as_str).unwrap_or("0x0");
        let number = u64::from_str_radix(number.trim_start_matches("0x"), 16).unwrap();
        let mut falsify = |member: &str| {
            let hash = block.get_mut(member).unwrap();
            *hash = json!(format!("0xff{}", hash.as_str().unwrap().get(4..).unwrap()));
        };
        if number > from {
            falsify("parentHash");
        }
        if number >= from {
            falsify("hash");
            *block.get_mut("transactions").unwrap() = json!([]);
        }
        Fate::Answered(Answer::Result(block))
    })
}

fn over(urls: &[&str]) -> Chain {
    Chain::over(urls.iter().copied(), 31_337, Duration::from_secs(5), None).unwrap()
}

/// A payment that is in the newest block, whose number is returned.
async fn paid(world: &World) -> (Account, Transfer, u64) {
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    world.mine(2);
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    (bob, sent, 3)
}

#[tokio::test]
async fn two_servers_on_different_forks_finalize_only_what_they_read_themselves() {
    let world = World::new().await;
    let (bob, sent, block) = paid(&world).await;
    let honest = world.follower();
    let other = world.follower_over(over(&[&forked(&world, block)]));
    honest.round(world.now()).await.unwrap();
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    // The lease expired, and the other server takes over.
    other.round(world.now()).await.unwrap();
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    world.mine(CONFIRMATIONS);
    // This one has the block in its memory, but what it recorded was replaced.
    honest.round(world.now()).await.unwrap();
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    honest.round(world.now()).await.unwrap();
    assert_eq!(world.state(&sent).await, TransferState::Final);
    other.round(world.now()).await.unwrap();
    assert_eq!(world.state(&sent).await, TransferState::Final);
    // Mined, taken back, mined again, final.
    assert_eq!(world.event_count(&bob).await, 4);
}

#[tokio::test]
async fn the_follower_leaves_an_endpoint_that_two_others_contradict() {
    let world = World::new().await;
    let (_, sent, block) = paid(&world).await;
    let honest = world.anvil.url();
    let liar = forked(&world, block);
    world.mine(CONFIRMATIONS);
    // Of two that disagree neither is believed.
    let two = world.follower_over(over(&[&liar, &honest]));
    world.rounds(&two).await;
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);

    let three = world.follower_over(over(&[&liar, &honest, &honest]));
    world.rounds(&three).await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    // It goes on with the others, without a round of the liar in between.
    for _ in 0..3 {
        world.mine(1);
        assert_eq!(world.rounds(&three).await, 0);
        assert_eq!(world.state(&sent).await, TransferState::Final);
    }
    // Also if the fork begins below what is final.
    let deep = forked(&world, 1);
    let three = world.follower_over(over(&[&deep, &honest, &honest]));
    world.mine(1);
    world.rounds(&three).await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    let last = world.database_cursor().await;
    world.mine(2);
    world.rounds(&three).await;
    assert_eq!(world.database_cursor().await, last + 2);
}

#[tokio::test]
async fn a_payment_is_mined_when_a_second_endpoint_has_its_block() {
    let world = World::new().await;
    let (bob, sent, block) = paid(&world).await;
    // This endpoint has another block in its place, or not yet.
    let (other, honest) = (forked(&world, block), world.anvil.url());
    let two = world.follower_over(over(&[&honest, &other]));
    for _ in 0..2 {
        world.rounds(&two).await;
        assert_eq!(world.state(&sent).await, TransferState::Broadcast);
        assert_eq!(world.event_count(&bob).await, 0);
        world.mine(1);
    }
    let three = world.follower_over(over(&[&honest, &other, &honest]));
    world.rounds(&three).await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    assert_eq!(world.event_count(&bob).await, 1);
}
