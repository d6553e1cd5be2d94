//! Settlement from blocks: what users were last notified of is what the chain has, whatever a
//! reorganisation removes and whatever an endpoint claims.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_chain::follower::{Finality, Follower};
use kms_chain::transfer::{Transfer, TransferFailure, TransferState};
use kms_chain::{Chain, Checked, Endpoint, Transfers};
use kms_core::account::Account;
use kms_types::{Timestamp, U256};
use serde_json::{Value, json};

use crate::chain::reverting;
use crate::nonce::use_externally;
use crate::stub::{self, Answer, Fate};
use crate::world::{COIN, CONFIRMATIONS, World, party, request, shown};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A payment of Ann to Bob that is in a block.
async fn mined(world: &World, amount: &str) -> (Account, Account, Transfer) {
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let quote = world.quote(&ann, party(&bob), amount).await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    (ann, bob, sent)
}

impl World {
    /// Removes this many blocks, and all pending transactions, from the chain.
    fn reorganise(&self, blocks: u64) {
        self.rpc("anvil_reorg", json!([blocks, []]));
        self.rpc("anvil_dropAllTransactions", json!([]));
    }

    /// Runs rounds of a follower; failed ones too, as a worker does.
    pub(crate) async fn rounds(&self, follower: &Follower) -> usize {
        let mut failed = 0;
        for _ in 0..4 {
            failed += usize::from(follower.round(self.now()).await.is_err());
        }
        failed
    }
}

#[tokio::test]
async fn the_recipient_is_notified_when_it_arrives_and_when_it_is_final() {
    let world = World::new().await;
    let (ann, bob, sent) = mined(&world, "0.1").await;
    let (of_ann, of_bob) = (world.event_count(&ann).await, world.event_count(&bob).await);
    assert_eq!(of_bob, 1);
    world.mine(CONFIRMATIONS - 1);
    world.tick().await;
    assert_eq!(
        (world.state(&sent).await, world.event_count(&bob).await),
        (TransferState::Mined, 1)
    );
    world.mine(1);
    world.tick().await;
    assert_eq!(
        (world.state(&sent).await, world.event_count(&bob).await),
        (TransferState::Final, 2)
    );
    assert_eq!(world.event_count(&ann).await, of_ann);
    world.mine(3);
    world.tick().await;
    assert_eq!(world.event_count(&bob).await, 2);
}

#[tokio::test]
async fn a_final_transfer_that_the_chain_removes_is_reopened_and_paid_again() {
    let world = World::new().await;
    let (ann, bob, sent) = mined(&world, "0.5").await;
    world.mine(CONFIRMATIONS + 2);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    let (of_ann, of_bob) = (world.event_count(&ann).await, world.event_count(&bob).await);

    world.reorganise(CONFIRMATIONS + 3);
    assert_eq!(world.balance(bob.wallet.address), U256::ZERO);
    world.tick().await;
    // Both were notified, and the committed bytes are sent again.
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    assert!(world.event_count(&ann).await > of_ann);
    assert_eq!(world.event_count(&bob).await, of_bob + 1);
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    assert_eq!(world.balance(bob.wallet.address), sent.value.0);
    // The wallet can pay.
    let next = world.quote(&ann, party(&bob), "0.1").await;
    let next = world.confirm(&ann, &next).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&next).await, TransferState::Mined);
    world.mine(CONFIRMATIONS);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    assert_eq!(world.state(&next).await, TransferState::Final);
}

#[tokio::test]
async fn a_nonce_whose_bytes_are_erased_is_free_after_a_deep_reorg() {
    let world = World::new().await;
    let (ann, bob, sent) = mined(&world, "0.5").await;
    world.mine(CONFIRMATIONS);
    world.tick().await;
    // A day too early, then late enough.
    let early = Timestamp(world.now().plus(WEEK).0 - 60_000);
    assert_eq!(world.database.erase_old_signed_bytes(early, 10).await.unwrap(), 0);
    let late = world.now().plus(WEEK);
    assert_eq!(world.database.erase_old_signed_bytes(late, 10).await.unwrap(), 1);

    world.reorganise(CONFIRMATIONS + 1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    // The next payment takes the nonce, and its block proves what became of the first.
    let next = world.quote(&ann, party(&bob), "0.1").await;
    let next = world.confirm(&ann, &next).await.unwrap();
    assert_eq!(next.nonce, Some(0));
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&next).await, TransferState::Mined);
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    world.mine(CONFIRMATIONS);
    world.tick().await;
    let lost = world.stored(&sent).await;
    assert_eq!(lost.failure, Some(TransferFailure::Superseded));
    assert_eq!(lost.superseded_by, next.tx_hash);
    assert_eq!(world.balance(bob.wallet.address), next.value.0);
}

#[tokio::test]
async fn a_recipient_is_notified_of_a_payment_that_was_taken_back() {
    let world = World::new().await;
    let (ann, bob, sent) = mined(&world, "0.5").await;
    let of_bob = world.event_count(&bob).await;
    world.reorganise(1);
    // Before the bytes are sent again, the key pays elsewhere with that nonce.
    let hash = use_externally(&world, &ann);
    world.mine(1);
    world.tick().await;
    // That it is lost is not said before it is final: the first block may come back.
    assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    assert_eq!(world.event_count(&bob).await, of_bob + 1);
    world.mine(CONFIRMATIONS);
    world.tick().await;
    let lost = world.stored(&sent).await;
    assert_eq!(
        (lost.state, lost.failure),
        (TransferState::Failed, Some(TransferFailure::Superseded))
    );
    assert_eq!(lost.superseded_by.map(hex::encode_prefixed), Some(hash));
    assert_eq!(world.event_count(&bob).await, of_bob + 2);
}

#[tokio::test]
async fn a_lost_nonce_is_never_concluded_from_a_count() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.rpc("anvil_dropAllTransactions", json!([]));
    // For long, and deep in the chain, the node counts a transaction that no block contains.
    let address = ann.wallet.address.to_string();
    world.rpc("anvil_setNonce", json!([address, "0x1"]));
    for _ in 0..5 {
        world.mine(CONFIRMATIONS + 1);
        world.tick().await;
        assert_eq!(world.state(&sent).await, TransferState::Broadcast);
    }
    world.rpc("anvil_setNonce", json!([address, "0x0"]));
    world.tick().await;
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
}

/// A proxy that answers one call of a method with `lie`: the next one if `at` is 1.
fn liar(
    world: &World,
    method: &'static str,
    lies: &Arc<AtomicUsize>,
    lie: &Arc<Mutex<Value>>,
) -> String {
    let (lies, lie) = (Arc::clone(lies), Arc::clone(lie));
    stub::start_proxy(&world.anvil.url(), move |called| {
        let one_less = |at: usize| at.checked_sub(1);
        let is_it = called == method
            && lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) == Ok(1);
        if is_it {
            Fate::Answered(Answer::Result(lie.lock().unwrap().clone()))
        } else {
            Fate::Passed
        }
    })
}

fn over(urls: &[&str]) -> Chain {
    Chain::over(urls.iter().copied(), 31_337, Duration::from_secs(5), None).unwrap()
}

/// A payment that reverted, as the chain has it, and its block's receipts in which it did not.
async fn reverted(world: &World) -> (Account, Transfer, Value) {
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let address = bob.wallet.address.to_string();
    world.rpc("anvil_setCode", json!([address, "0x00"]));
    let quote = world.quote(&ann, party(&bob), "0.1").await;
    world.rpc("anvil_setCode", json!([address, reverting()]));
    let sent = world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    let mut receipts = world.rpc("eth_getBlockReceipts", json!(["0x1"]));
    let status = receipts.get_mut(0).unwrap().get_mut("status").unwrap();
    assert_eq!(*status, json!("0x0"));
    *status = json!("0x1");
    (bob, sent, receipts)
}

#[tokio::test]
async fn a_false_receipt_is_not_believed() {
    for several in [false, true] {
        let world = World::new().await;
        let (bob, sent, receipts) = reverted(&world).await;
        let lies = Arc::new(AtomicUsize::new(1));
        let url = liar(&world, "eth_getBlockReceipts", &lies, &Arc::new(Mutex::new(receipts)));
        let honest = world.anvil.url();
        let urls: &[&str] = if several { &[&url, &honest] } else { &[&url] };
        let follower = world.follower_over(over(urls));
        assert_eq!(world.rounds(&follower).await, 1);
        assert_eq!(lies.load(Ordering::SeqCst), 0);
        assert_eq!(world.state(&sent).await, TransferState::Broadcast);
        world.mine(CONFIRMATIONS);
        world.rounds(&follower).await;
        let failed = world.stored(&sent).await;
        assert_eq!(failed.failure, Some(TransferFailure::Reverted));
        assert_eq!(world.event_count(&bob).await, 0);
    }
}

#[tokio::test]
async fn without_receipts_of_blocks_two_endpoints_have_to_agree() {
    let world = World::new().await;
    let (bob, sent, receipts) = reverted(&world).await;
    let lie = Arc::new(Mutex::new(receipts.get(0).unwrap().clone()));
    let lies = Arc::new(AtomicUsize::new(1));
    let url = liar(&world, "eth_getTransactionReceipt", &lies, &lie);
    let lacking = |node: &str| {
        stub::start_proxy(node, |called| match called {
            "eth_getBlockReceipts" => Fate::Answered(Answer::Error(-32_601, "unknown method")),
            _ => Fate::Passed,
        })
    };
    let (one, two) = (lacking(&url), lacking(&world.anvil.url()));
    let follower = world.follower_over(over(&[&one, &two]));
    assert_eq!(world.rounds(&follower).await, 1);
    world.mine(CONFIRMATIONS);
    world.rounds(&follower).await;
    assert_eq!(world.stored(&sent).await.failure, Some(TransferFailure::Reverted));
    assert_eq!(world.event_count(&bob).await, 0);
}

#[tokio::test]
async fn nothing_is_final_that_a_second_endpoint_does_not_confirm() {
    let world = World::new().await;
    let (_, bob, sent) = mined(&world, "0.1").await;
    world.deposit(&bob, 7);
    let has_blocks = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&has_blocks);
    let second = stub::start_proxy(&world.anvil.url(), move |called| match called {
        "eth_getBlockByNumber" if !shown.load(Ordering::SeqCst) => {
            Fate::Answered(Answer::Result(Value::Null))
        }
        _ => Fate::Passed,
    });
    let follower = world.follower_over(over(&[&world.anvil.url(), &second]));
    world.mine(CONFIRMATIONS + 1);
    world.rounds(&follower).await;
    assert_eq!(world.state(&sent).await, TransferState::Mined);
    assert!(world.deposits_of(&bob).await.is_empty());
    has_blocks.store(true, Ordering::SeqCst);
    world.rounds(&follower).await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    assert_eq!(world.deposits_of(&bob).await.len(), 1);
}

#[tokio::test]
async fn a_stale_block_changes_nothing() {
    for several in [false, true] {
        let world = World::new().await;
        let (ann, bob, sent) = mined(&world, "0.1").await;
        let events = (world.event_count(&ann).await, world.event_count(&bob).await);
        // In the place of one block after the other: one of another branch.
        let mut stale = world.rpc("eth_getBlockByNumber", json!(["0x1", true]));
        *stale.get_mut("hash").unwrap() = json!(format!("0x{}", "77".repeat(32)));
        *stale.get_mut("transactions").unwrap() = json!([]);
        let lies = Arc::new(AtomicUsize::new(0));
        let url = liar(&world, "eth_getBlockByNumber", &lies, &Arc::new(Mutex::new(stale)));
        let honest = world.anvil.url();
        let urls: &[&str] = if several { &[&url, &honest] } else { &[&url] };
        let follower = world.follower_over(over(urls));
        world.rounds(&follower).await;
        for call in 1..=6 {
            lies.store(call, Ordering::SeqCst);
            world.mine(1);
            let _ = follower.round(world.now()).await;
            assert_ne!(world.state(&sent).await, TransferState::Broadcast);
        }
        world.rounds(&follower).await;
        assert_eq!(world.state(&sent).await, TransferState::Final);
        let (of_ann, of_bob) = events;
        assert_eq!(
            (world.event_count(&ann).await, world.event_count(&bob).await),
            (of_ann, of_bob + 1)
        );
    }
}

/// A proxy that counts the calls that it forwards, by their methods.
fn counting(world: &World) -> (String, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let counted = Arc::clone(&calls);
    let url = stub::start_proxy(&world.anvil.url(), move |called| {
        // Health checks go by the real clock.
        if called != "eth_chainId" {
            counted.lock().unwrap().push(called.to_owned());
        }
        Fate::Passed
    });
    (url, calls)
}

/// What a payment cost one endpoint.
struct Calls {
    /// Those for the payment alone.
    own: Vec<String>,
    /// Those for blocks, beyond what as many blocks cost without a payment.
    of_blocks: usize,
}

/// Counts the calls of a payment at each endpoint: twelve seconds a block, twelve confirmations, a
/// server that polls every second. What the shared reading of blocks costs is counted apart: with
/// the payment, and in as many blocks without one.
async fn calls_of_a_payment(endpoints: usize) -> Vec<Calls> {
    const BLOCK: u64 = 12;
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let counting = || (0..endpoints).map(|_| counting(&world)).collect::<Vec<_>>();
    let (payments, blocks) = (counting(), counting());
    let chain = |proxies: &[(String, _)]| {
        over(&proxies.iter().map(|(url, _)| url.as_str()).collect::<Vec<_>>())
    };
    let take = |proxies: &[(String, Arc<Mutex<Vec<String>>>)]| {
        let calls = proxies.iter().map(|(_, calls)| std::mem::take(&mut *calls.lock().unwrap()));
        calls.collect::<Vec<_>>()
    };
    let server = world.over(chain(&payments));
    let follower = world.follower_of(chain(&blocks), Finality::Blocks(BLOCK));
    world.rounds(&follower).await;
    // From now on each block makes another one final.
    world.mine(BLOCK + 1);
    world.rounds(&follower).await;
    // Its health check, which all requests of half a minute share.
    server.chain().first(Endpoint::block_number).await.unwrap();
    take(&payments);
    take(&blocks);
    world.seconds(&server, &follower, 13 * BLOCK, BLOCK).await;
    let idle = take(&blocks);
    // An idle server sends nothing of its own.
    assert!(take(&payments).into_iter().all(|calls| calls.is_empty()));
    let quote = server.quote(request(&ann, party(&bob), "0.1"), world.now()).await.unwrap();
    let Checked::Ready(ready) = server.check(quote.id, shown(&quote)).await.unwrap() else {
        panic!("confirmed before")
    };
    let wallet = world.open(&ann).await;
    let sent = server.sign_and_send(ready, wallet, world.now()).await.unwrap();
    world.seconds(&server, &follower, 14 * BLOCK, BLOCK).await;
    assert_eq!(world.state(&sent).await, TransferState::Final);
    let counted = take(&payments).into_iter().zip(idle.iter().zip(take(&blocks)));
    // One block more than before.
    let calls = counted.map(|(own, (idle, busy))| Calls {
        own,
        of_blocks: busy.len().saturating_sub(idle.len() * 14 / 13),
    });
    calls.collect()
}

#[tokio::test]
async fn a_payment_costs_at_most_twenty_calls_from_quote_to_finality() {
    for endpoints in [1, 2] {
        for Calls { own, of_blocks } in calls_of_a_payment(endpoints).await {
            println!("{endpoints} endpoints: {} and {of_blocks}: {own:?}", own.len());
            assert!(own.len() + of_blocks <= 20, "{own:?}, {of_blocks}");
        }
    }
}

impl World {
    /// Lets seconds pass, with a block in every `block` of them, and with a round of both workers
    /// in each.
    async fn seconds(&self, server: &Transfers, follower: &Follower, seconds: u64, block: u64) {
        for second in 1..=seconds {
            self.pass(Duration::from_secs(1));
            if second % block == 0 {
                self.mine(1);
            }
            while follower.round(self.now()).await.unwrap() {}
            server.tick(self.now()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_follower_reads_hundreds_of_blocks_a_second() {
    let world = World::new().await;
    let (_, _, sent) = mined(&world, "0.1").await;
    let blocks = 1_000;
    world.mine(blocks);
    let (follower, begun) = (world.follower(), std::time::Instant::now());
    while follower.round(world.now()).await.unwrap() {}
    println!("{blocks} blocks in {:?}", begun.elapsed());
    assert_eq!(world.state(&sent).await, TransferState::Final);
}
