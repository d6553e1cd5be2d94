//! Several endpoints: one that is down, silent, of another chain or behind delays no request, and
//! answers of two endpoints are not mixed.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kms_chain::transfer::TransferState;
use kms_chain::{Chain, ChainError, Endpoint};
use kms_testkit::{Anvil, AnvilOptions};
use serde_json::json;

use crate::stub::{self, Answer, Fate};
use crate::world::{CHECK, COIN, CONFIRMATIONS, World, stranger};

const DOWN: &str = "http://127.0.0.1:1";
const SHORT: Duration = Duration::from_secs(2);

fn over(urls: &[&str]) -> Chain {
    Chain::over(urls.iter().copied(), 31_337, SHORT, None).unwrap()
}

/// Accepts connections, and never answers.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn an_endpoint_that_is_down_or_silent_is_passed_over() {
    let anvil = Anvil::start().unwrap();
    let (_listener, silent) = silent();
    for bad in [DOWN, silent.as_str()] {
        let chain = over(&[bad, &anvil.url()]);
        let begun = Instant::now();
        assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 0);
        assert!(begun.elapsed() < 4 * SHORT, "{:?}", begun.elapsed());
        // The timeout is not paid at every call.
        let begun = Instant::now();
        for _ in 0..10 {
            chain.first(Endpoint::block_number).await.unwrap();
        }
        assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
    }
    let unavailable = over(&[DOWN, DOWN]).first(Endpoint::block_number).await.unwrap_err();
    assert!(matches!(unavailable, ChainError::Unavailable(_)), "{unavailable}");
    let none = Chain::over([], 31_337, SHORT, None).unwrap_err();
    assert!(matches!(none, ChainError::NoEndpoint), "{none}");
}

#[tokio::test]
async fn the_second_endpoint_is_used_while_the_first_is_down_and_vice_versa() {
    let (mut first, second) = (Anvil::start().unwrap(), Anvil::start().unwrap());
    second.rpc("anvil_mine", json!(["0x5"])).unwrap();
    let chain = over(&[&first.url(), &second.url()]);
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 0);
    first.kill().unwrap();
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 5);
    second.pause().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while chain.first(Endpoint::block_number).await.is_ok() {
        assert!(Instant::now() < deadline, "the node still answers");
    }
    second.resume().unwrap();
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 5);
}

/// A proxy whose newest block always has this age.
fn stalled(node: &Anvil, age: Duration) -> String {
    aged(node, age, Arc::new(AtomicU64::new(31_337)))
}

/// The same, with a chain id that can be changed.
#[expect(clippy::disallowed_methods, reason = "the age of a block is measured by the wall clock")]
fn aged(node: &Anvil, age: Duration, id: Arc<AtomicU64>) -> String {
    let block = node.rpc("eth_getBlockByNumber", json!(["latest", false])).unwrap();
    let mut block = block.as_object().unwrap().clone();
    stub::start_proxy(&node.url(), move |method| match method {
        "eth_chainId" => {
            let id = format!("{:#x}", id.load(Ordering::SeqCst));
            Fate::Answered(Answer::Result(json!(id)))
        }
        "eth_getBlockByNumber" => {
            let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - age;
            block.insert("timestamp".to_owned(), json!(format!("{:#x}", made.as_secs())));
            Fate::Answered(Answer::Result(json!(block)))
        }
        _ => Fate::Passed,
    })
}

#[tokio::test]
async fn an_endpoint_that_becomes_another_chain_without_a_failure_is_refused() {
    let anvil = Anvil::start().unwrap();
    let id = Arc::new(AtomicU64::new(31_337));
    let url = aged(&anvil, Duration::ZERO, Arc::clone(&id));
    let soon = Some(Duration::from_secs(6));
    let chain = Chain::over([url.as_str()], 31_337, SHORT, soon).unwrap();
    chain.first(Endpoint::block_number).await.unwrap();
    id.store(6, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(60);
    let error = loop {
        assert!(Instant::now() < deadline, "the other chain is still used");
        if let Err(error) = chain.first(Endpoint::block_number).await {
            break error;
        }
    };
    assert!(matches!(error, ChainError::WrongChain { found: 6, .. }), "{error}");
}

#[tokio::test]
async fn a_stalled_endpoint_is_not_used() {
    let (old, new) = (Anvil::start().unwrap(), Anvil::start().unwrap());
    new.rpc("anvil_mine", json!(["0x5"])).unwrap();
    let minute = Duration::from_secs(60);
    let over = |urls: &[&str]| {
        Chain::over(urls.iter().copied(), 31_337, SHORT, Some(10 * minute)).unwrap()
    };
    let stale = stalled(&old, 11 * minute);
    let chain = over(&[&stale, &new.url()]);
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 5);
    // Not even if it is the only one, neither for balances nor for a nonce.
    let alone = over(&[&stale, DOWN]);
    let error = alone.view([7; 20].into(), None).await.unwrap_err();
    assert!(matches!(error, ChainError::Stalled { seconds: 660.. }), "{error}");
    assert!(alone.broadcast(&[2]).await.is_err());
    assert_eq!(over(&[&stalled(&old, 9 * minute)]).first(Endpoint::block_number).await.unwrap(), 0);
}

#[tokio::test]
async fn an_endpoint_that_is_behind_is_asked_last() {
    let (old, new) = (Anvil::start().unwrap(), Anvil::start().unwrap());
    new.rpc("anvil_mine", json!(["0x5"])).unwrap();
    let behind = stalled(&old, Duration::from_secs(180));
    let bound = Some(Duration::from_secs(600));
    let chain = Chain::over([behind.as_str(), &new.url()], 31_337, SHORT, bound).unwrap();
    // Until the health of both is checked.
    let deadline = Instant::now() + Duration::from_secs(60);
    while chain.first(Endpoint::block_number).await.unwrap() != 5 {
        assert!(Instant::now() < deadline, "the first is still asked first");
    }
    let alone = Chain::over([behind.as_str(), DOWN], 31_337, SHORT, bound).unwrap();
    assert_eq!(alone.first(Endpoint::block_number).await.unwrap(), 0);
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_never_used() {
    let wrong = AnvilOptions { chain_id: 5, ..AnvilOptions::default() };
    let (wrong, right) = (Anvil::start_with(wrong).unwrap(), Anvil::start().unwrap());
    right.rpc("anvil_mine", json!(["0x5"])).unwrap();
    for urls in [[wrong.url(), right.url()], [right.url(), wrong.url()]] {
        let chain = over(&[&urls[0], &urls[1]]);
        chain.check().await.unwrap();
        assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 5);
    }
    for urls in [vec![wrong.url()], vec![wrong.url(), DOWN.to_owned()]] {
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let error = over(&urls).check().await.unwrap_err();
        assert!(matches!(error, ChainError::WrongChain { found: 5, .. }), "{error}");
        let error = over(&urls).first(Endpoint::block_number).await.unwrap_err();
        assert!(matches!(error, ChainError::WrongChain { found: 5, .. }), "{error}");
    }
    // Endpoints that do not answer are not an error.
    over(&[DOWN]).check().await.unwrap();
}

/// An endpoint with a chain id that can be changed, a fault that can be switched on, and a count of
/// the broadcasts.
fn changeable(block: &'static str) -> (String, Arc<AtomicU64>, Arc<AtomicBool>, Arc<AtomicU64>) {
    let id = Arc::new(AtomicU64::new(31_337));
    let (broken, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (its_id, its_broken, its_sent) = (id.clone(), broken.clone(), sent.clone());
    let url = stub::start(move |method| {
        if its_broken.load(Ordering::SeqCst) {
            return Answer::Http("502 Bad Gateway".to_owned());
        }
        match method {
            "eth_chainId" => Answer::Result(json!(format!("{:#x}", its_id.load(Ordering::SeqCst)))),
            "eth_sendRawTransaction" => {
                its_sent.fetch_add(1, Ordering::SeqCst);
                Answer::Result(json!(format!("0x{}", "ab".repeat(32))))
            }
            _ => Answer::Result(json!(block)),
        }
    });
    (url, id, broken, sent)
}

#[tokio::test]
async fn an_endpoint_that_comes_back_as_another_chain_is_refused() {
    let (first, id, broken, sent) = changeable("0x1");
    let (second, _, _, others) = changeable("0x2");
    let chain = over(&[&first, &second]);
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 1);
    broken.store(true, Ordering::SeqCst);
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 2);
    broken.store(false, Ordering::SeqCst);
    id.store(6, Ordering::SeqCst);
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 2);
    chain.broadcast(&[2]).await.unwrap();
    assert_eq!((sent.load(Ordering::SeqCst), others.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test]
async fn the_nonce_is_one_that_two_endpoints_report() {
    let anvil = Anvil::start().unwrap();
    let counting = |count: &'static str| {
        stub::start_proxy(&anvil.url(), move |method| match method {
            "eth_getTransactionCount" => Fate::Answered(Answer::Result(json!(count))),
            _ => Fate::Passed,
        })
    };
    // Slow, so that the others have answered before.
    let slow = stub::start_proxy(&anvil.url(), move |method| {
        if method == "eth_getBalance" {
            std::thread::sleep(SHORT / 2);
        }
        Fate::Passed
    });
    for (count, other, nonce) in [("0x9", "0x0", 0), ("0x9", "0x2", 2), ("0x2", "0x2", 2)] {
        let chain = over(&[&slow, &counting(count), &counting(other), DOWN]);
        let view = chain.view([7; 20].into(), None).await.unwrap();
        // The mined count is that of the endpoint that reported the balance.
        assert_eq!((view.nonce, view.mined), (nonce, 0), "{count}");
    }
}

#[tokio::test]
async fn signed_bytes_go_to_every_endpoint_that_works() {
    let (first, _, _, to_first) = changeable("0x1");
    let (second, _, _, to_second) = changeable("0x1");
    let (_listener, silent) = silent();
    let chain = over(&[&silent, &first, &second]);
    let begun = Instant::now();
    chain.broadcast(&[2]).await.unwrap();
    // The confirmation does not wait for the silent endpoint.
    assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
    let both = || (to_first.load(Ordering::SeqCst), to_second.load(Ordering::SeqCst));
    let deadline = Instant::now() + Duration::from_secs(60);
    while both() != (1, 1) {
        assert!(Instant::now() < deadline, "{:?}", both());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refusing = stub::start(|method| match method {
        "eth_chainId" => Answer::Result(json!("0x7a69")),
        _ => Answer::Error(-32_000, "nonce too low"),
    });
    let error = over(&[DOWN, &refusing]).broadcast(&[2]).await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn after_a_lost_answer_the_same_bytes_go_to_another_endpoint() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.5").await;
    let sent = Arc::new(Mutex::new(0));
    let its_sent = Arc::clone(&sent);
    let lossy = stub::start_proxy(&world.anvil.url(), move |method| match method {
        "eth_sendRawTransaction" => {
            *its_sent.lock().unwrap() += 1;
            Fate::AnswerLost
        }
        _ => Fate::Passed,
    });
    let server = world.over(over(&[&lossy, &world.anvil.url()]));
    world.confirm_at(&server, &ann, &quote).await.unwrap();
    world.mine(1);
    world.pass(CHECK);
    server.tick(world.now()).await.unwrap();
    world.read_blocks().await;
    assert_eq!(world.state(&quote).await, TransferState::Mined);
    assert_eq!(world.sent(&ann), 1);
    assert!(*sent.lock().unwrap() >= 1);
}

#[tokio::test]
async fn a_lagging_node_does_not_make_a_paid_transfer_fail() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.5").await;
    world.confirm(&ann, &quote).await.unwrap();
    world.mine(CONFIRMATIONS + 2);
    // The first endpoint has the nonce in a finalized block, and fails before the transaction is
    // requested; the second does not have the transaction.
    let nothing = || Fate::Answered(Answer::Result(json!(null)));
    let dying = stub::start_proxy(&world.anvil.url(), move |method| match method {
        "eth_getTransactionReceipt" => nothing(),
        "eth_getTransactionByHash" => Fate::Lost,
        _ => Fate::Passed,
    });
    let behind = stub::start_proxy(&world.anvil.url(), move |method| match method {
        "eth_getTransactionReceipt" | "eth_getTransactionByHash" => nothing(),
        _ => Fate::Passed,
    });
    let server = world.over(over(&[&dying, &behind]));
    world.pass(CHECK);
    server.tick(world.now()).await.unwrap();
    assert_eq!(world.state(&quote).await, TransferState::Broadcast);
    // The block that has the transaction settles it.
    world.read_blocks().await;
    assert_eq!(world.state(&quote).await, TransferState::Final);
}
