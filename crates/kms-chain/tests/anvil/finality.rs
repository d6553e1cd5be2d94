//! Endpoints of which one claims too high a head or a false final block: what is final is what two
//! of them report, and money moves meanwhile.

use std::time::Duration;

use kms_chain::Chain;
use kms_chain::follower::Finality;
use kms_chain::transfer::TransferState;
use serde_json::{Value, json};

use crate::stub::{self, Answer, Fate};
use crate::world::{COIN, CONFIRMATIONS, World, party, request};

/// How many blocks below its head anvil calls final.
const FINALIZED_BELOW: u64 = 64;
const AHEAD: u64 = 1_000;
const DOWN: &str = "http://127.0.0.1:1";

fn over(urls: &[&str]) -> Chain {
    Chain::over(urls.iter().copied(), 31_337, Duration::from_secs(2), None).unwrap()
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// A proxy whose newest block has too high a number, or is final.
fn false_endpoint(world: &World, finality: Finality) -> String {
    let node = world.anvil.url();
    stub::start_proxy_by_call(&world.anvil.url(), move |call| {
        let method = stub::method_of(call);
        let asked = call.pointer("/params/0").and_then(Value::as_str).unwrap_or_default();
        let newest = || stub::ask(&node, "eth_getBlockByNumber", &json!(["latest", false]));
        let raised = |at: &Value| json!(format!("{:#x}", number(at) + AHEAD));
        match (finality, method, asked) {
            (Finality::Tag, "eth_getBlockByNumber", "finalized") => {
                Fate::Answered(Answer::Result(newest()))
            }
            (Finality::Blocks(_), "eth_blockNumber", _) => {
                Fate::Answered(Answer::Result(raised(newest().get("number").unwrap())))
            }
            (Finality::Blocks(_), "eth_getBlockByNumber", "latest") => {
                let mut block = newest();
                let at = block.get_mut("number").unwrap();
                *at = raised(at);
                Fate::Answered(Answer::Result(block))
            }
            _ => Fate::Passed,
        }
    })
}

/// How a chain is final, and how many blocks above a block make it so.
const WAYS: [(Finality, u64); 2] =
    [(Finality::Blocks(CONFIRMATIONS), CONFIRMATIONS), (Finality::Tag, FINALIZED_BELOW)];

#[tokio::test]
async fn one_false_endpoint_makes_nothing_final_early() {
    for ((finality, above), is_first) in WAYS.into_iter().flat_map(|it| [(it, true), (it, false)]) {
        let world = World::new().await;
        let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
        world.mine(2 * FINALIZED_BELOW);
        let (liar, honest) = (false_endpoint(&world, finality), world.anvil.url());
        let urls = if is_first { [liar.as_str(), &honest] } else { [honest.as_str(), &liar] };
        // Its first block is not above what is final.
        let follower = world.follower_of(over(&urls), finality);
        world.rounds(&follower).await;
        assert_eq!(world.database_cursor().await, 2 * FINALIZED_BELOW - above);

        // Money moves.
        let server = world.over(over(&urls));
        let quote = server.quote(request(&ann, party(&bob), "0.1"), world.now()).await;
        let quote = quote.unwrap();
        world.confirm_at(&server, &ann, &quote).await.unwrap();
        world.mine(1);
        world.deposit(&bob, 7);
        assert_eq!(world.rounds(&follower).await, 0);
        assert_eq!(world.state(&quote).await, TransferState::Mined, "{finality} {is_first}");
        // The last block of the payment that is not final.
        world.mine(above - 2);
        assert_eq!(world.rounds(&follower).await, 0);
        assert_eq!(world.state(&quote).await, TransferState::Mined, "{finality} {is_first}");
        world.mine(1);
        world.rounds(&follower).await;
        assert_eq!(world.state(&quote).await, TransferState::Final, "{finality} {is_first}");
        assert!(world.deposits_of(&bob).await.is_empty());
        world.mine(1);
        world.rounds(&follower).await;
        assert_eq!(world.deposits_of(&bob).await.len(), 1);
    }
}

#[tokio::test]
async fn a_false_endpoint_makes_nothing_final_while_the_other_one_is_down() {
    for (finality, above) in WAYS {
        let world = World::new().await;
        let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
        world.mine(FINALIZED_BELOW);
        world.rounds(&world.follower_of(over(&[&world.anvil.url()]), finality)).await;
        let quote = world.quote(&ann, party(&bob), "0.1").await;
        world.confirm(&ann, &quote).await.unwrap();
        let cursor = world.database_cursor().await;
        world.deposit(&bob, 7);
        world.mine(above + 1);
        let liar = false_endpoint(&world, finality);
        for urls in [[liar.as_str(), DOWN], [DOWN, &liar]] {
            world.rounds(&world.follower_of(over(&urls), finality)).await;
            assert_eq!(world.database_cursor().await, cursor);
        }
        // What one endpoint alone has is not even shown as confirmed.
        assert_eq!(world.state(&quote).await, TransferState::Broadcast);
        assert!(world.deposits_of(&bob).await.is_empty());
        // With a third one two agree again.
        let honest = world.anvil.url();
        for urls in [[liar.as_str(), &honest, DOWN], [DOWN, &liar, &honest]] {
            world.rounds(&world.follower_of(over(&urls), finality)).await;
            assert_eq!(world.state(&quote).await, TransferState::Final);
            let head = number(&world.rpc("eth_blockNumber", json!([])));
            assert_eq!(world.database_cursor().await, head - above);
        }
    }
}

#[tokio::test]
async fn two_of_three_endpoints_decide_what_is_final() {
    for (finality, above) in WAYS {
        let world = World::new().await;
        world.mine(2 * FINALIZED_BELOW);
        let (liar, honest) = (false_endpoint(&world, finality), world.anvil.url());
        for urls in [[&liar, &honest, &honest], [&honest, &liar, &honest]] {
            world.mine(1);
            let follower = world.follower_of(over(&urls.map(String::as_str)), finality);
            world.rounds(&follower).await;
            let head = number(&world.rpc("eth_blockNumber", json!([])));
            assert_eq!(world.database_cursor().await, head - above);
        }
    }
}
