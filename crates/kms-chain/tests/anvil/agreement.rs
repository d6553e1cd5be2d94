//! Several endpoints of which one is false or behind: it sets no price, and one that is only behind
//! has not failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kms_chain::transfer::Fees;
use kms_chain::{Chain, ChainError, Endpoint, Market, QuoteError};
use kms_testkit::Anvil;
use serde_json::json;

use crate::stub::{self, Answer, Fate};
use crate::world::{COIN, World, request, stranger};

const GWEI: u128 = 1_000_000_000;
const SHORT: Duration = Duration::from_secs(2);
const DOWN: &str = "http://127.0.0.1:1";

fn over(urls: &[&str]) -> Chain {
    Chain::over(urls.iter().copied(), 31_337, SHORT, None).unwrap()
}

/// A proxy that reports this base fee, and loses every call while `is_down`.
fn pricing(node: &str, base_fee: u128, is_down: &Arc<AtomicBool>) -> String {
    let base_fee = u64::try_from(base_fee).unwrap();
    repricing(node, &Arc::new(AtomicU64::new(base_fee)), is_down)
}

/// Like [`pricing`], with a base fee that can be changed.
fn repricing(node: &str, base_fee: &Arc<AtomicU64>, is_down: &Arc<AtomicBool>) -> String {
    let (node_url, is_down) = (node.to_owned(), Arc::clone(is_down));
    let base_fee = Arc::clone(base_fee);
    stub::start_proxy(node, move |method| match method {
        _ if is_down.load(Ordering::SeqCst) => Fate::Lost,
        "eth_getBlockByNumber" => {
            let mut block = stub::ask(&node_url, method, &json!(["latest", false]));
            let base_fee = base_fee.load(Ordering::SeqCst);
            *block.get_mut("baseFeePerGas").unwrap() = json!(format!("{base_fee:#x}"));
            Fate::Answered(Answer::Result(block))
        }
        _ => Fate::Passed,
    })
}

fn base_fee(market: Result<Market, ChainError>) -> Result<u128, ChainError> {
    market.map(|market| match market {
        Market::Dynamic { base_fee, .. } => base_fee / GWEI,
        Market::Legacy { .. } => panic!("legacy"),
    })
}

#[tokio::test]
async fn the_price_is_not_that_of_one_endpoint_while_the_other_one_cools_down() {
    let anvil = Anvil::start().unwrap();
    let (up, down) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let honest = pricing(&anvil.url(), GWEI, &down);
    for (lie, agreed) in [(900 * GWEI, None), (2 * GWEI, Some(1)), (GWEI / 100, None)] {
        let liar = pricing(&anvil.url(), lie, &up);
        let chain = over(&[&honest, &liar]);
        down.store(true, Ordering::SeqCst);
        chain.first(Endpoint::block_number).await.unwrap();
        // It cools down, and neither answers nor is waited for without end.
        let begun = Instant::now();
        let error = chain.market().await.unwrap_err();
        assert!(matches!(error, ChainError::UnconfirmedPrices), "{error}");
        assert!(begun.elapsed() < 10 * SHORT, "{:?}", begun.elapsed());
        // It still cools down, but answers.
        down.store(false, Ordering::SeqCst);
        let market = base_fee(chain.market().await);
        assert_eq!(market.ok(), agreed, "{lie}");
    }
}

#[tokio::test]
async fn one_endpoint_suffices_while_its_price_is_like_the_last_one_of_two() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let (up, down) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let gwei = u64::try_from(GWEI).unwrap();
    let price = Arc::new(AtomicU64::new(gwei));
    let node = world.anvil.url();
    let chain = over(&[&pricing(&node, GWEI, &down), &repricing(&node, &price, &up)]);
    let server = world.over(chain.clone());
    let quote = async || server.quote(request(&ann, stranger(), "0.1"), world.now()).await;
    quote().await.unwrap();
    down.store(true, Ordering::SeqCst);
    for (gwei_now, accepted) in [(1, true), (7, true), (900, false), (1, true)] {
        price.store(gwei_now * gwei, Ordering::SeqCst);
        assert_eq!(base_fee(chain.market().await).ok(), accepted.then_some(gwei_now.into()));
        assert_eq!(quote().await.is_ok(), accepted);
    }
}

#[tokio::test]
async fn two_of_three_endpoints_agree_on_the_price() {
    let anvil = Anvil::start().unwrap();
    let up = Arc::new(AtomicBool::new(false));
    let [one, two] = [GWEI, 2 * GWEI].map(|fee| pricing(&anvil.url(), fee, &up));
    for (lie, agreed) in [(900 * GWEI, 2), (0, 1)] {
        let liar = pricing(&anvil.url(), lie, &up);
        for urls in [[&liar, &one, &two], [&one, &two, &liar]] {
            let chain = over(&urls.map(String::as_str));
            assert_eq!(base_fee(chain.market().await).unwrap(), agreed);
        }
    }
    assert_eq!(base_fee(over(&[DOWN, &one, &two]).market().await).unwrap(), 1);
    assert_eq!(base_fee(over(&[&two]).market().await).unwrap(), 2);
}

/// A proxy whose blocks paid these tips, by their percentiles.
fn tipping(node: &str, tip: u128) -> String {
    let node_url = node.to_owned();
    stub::start_proxy_by_call(node, move |call| {
        let method = stub::method_of(call);
        if method != "eth_feeHistory" {
            return Fate::Passed;
        }
        let mut history = stub::ask(&node_url, method, call.get("params").unwrap());
        let blocks = history.get("gasUsedRatio").unwrap().as_array().unwrap().len();
        *history.get_mut("gasUsedRatio").unwrap() = json!(vec![1.0; blocks]);
        let tips = vec![vec![format!("{tip:#x}"); 3]; blocks];
        *history.get_mut("reward").unwrap() = json!(tips);
        Fate::Answered(Answer::Result(history))
    })
}

#[tokio::test]
async fn one_false_fee_history_of_several_sets_no_tip() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    world.mine(3);
    let (honest, high) = (world.anvil.url(), tipping(&world.anvil.url(), 900 * GWEI));
    let first_tip = async |urls: &[&str]| {
        let server = world.over(over(urls));
        let quote = server.quote(request(&ann, stranger(), "0.1"), world.now()).await.unwrap();
        let Fees::Dynamic { tip, .. } = quote.ladder.first() else { panic!("legacy") };
        tip
    };
    // Alone it would be believed.
    assert_eq!(first_tip(&[&high]).await, 900 * GWEI);
    for urls in [
        &[high.as_str(), &honest] as &[&str],
        &[&honest, &high],
        &[&high, &honest, &honest],
        // One that is too low meets the floor.
        &[&honest, &tipping(&honest, 0)],
    ] {
        assert_eq!(first_tip(urls).await, 1_000_000, "{urls:?}");
    }
}

#[tokio::test]
async fn without_an_agreed_price_nothing_is_quoted() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let up = Arc::new(AtomicBool::new(false));
    let liar = pricing(&world.anvil.url(), 900 * GWEI, &up);
    let server = world.over(over(&[&liar, &world.anvil.url()]));
    let refused = server.quote(request(&ann, stranger(), "0.1"), world.now()).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, QuoteError::Chain(ChainError::UnconfirmedPrices)), "{error}");
}

/// A proxy that does not have the newest block in so many of its next answers about balances.
fn lagging(node: &Anvil, answers: u32, words: (i64, &'static str)) -> String {
    let left = AtomicU32::new(answers);
    stub::start_proxy(&node.url(), move |method| {
        let one_less = |left: u32| left.checked_sub(1);
        let lags = method == "eth_getBalance"
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        if lags { Fate::Answered(Answer::Error(words.0, words.1)) } else { Fate::Passed }
    })
}

#[tokio::test]
async fn an_endpoint_without_the_block_has_not_failed() {
    let (first, second) = (Anvil::start().unwrap(), Anvil::start().unwrap());
    first.rpc("anvil_mine", json!(["0x2"])).unwrap();
    second.rpc("anvil_mine", json!(["0x7"])).unwrap();
    for words in [
        (-32_000, "header not found"),
        (-32_000, "unknown block"),
        (-32_001, "resource not found"),
        (-32_000, "hash 0x12 is not currently canonical"),
    ] {
        // Twice: the newer block is asked for. Always: the other endpoint is.
        for (answers, block) in [(2, 2), (100, 7)] {
            let chain = over(&[&lagging(&first, answers, words), &second.url()]);
            let view = chain.view([7; 20].into(), None).await.unwrap();
            assert_eq!(view.block, block, "{words:?}");
            // The first endpoint is still the first.
            assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 2, "{words:?}");
        }
        let alone = over(&[&lagging(&first, 100, words)]);
        let error = alone.view([7; 20].into(), None).await.unwrap_err();
        assert!(matches!(error, ChainError::NoBlock { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_batches_is_asked_call_by_call() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quoted = world.quote(&ann, stranger(), "0.1").await;
    for (refuse, retries) in [
        (|| Answer::Http("400 Bad Request".to_owned())) as fn() -> Answer,
        || Answer::Http("413 Payload Too Large".to_owned()),
        || Answer::Error(-32_600, "batch requests are not supported"),
    ]
    .map(|refuse| (refuse, Arc::new(AtomicU32::new(0))))
    {
        let refused = Arc::clone(&retries);
        let url = stub::start_without_batches(&world.anvil.url(), move || {
            refused.fetch_add(1, Ordering::SeqCst);
            refuse()
        });
        let server = world.through(&url);
        for _ in 0..2 {
            let request = request(&ann, stranger(), "0.1");
            let quote = server.quote(request, world.now()).await.unwrap();
            assert_eq!((quote.ladder, quote.gas_limit), (quoted.ladder.clone(), 21_000));
        }
        // Found out once.
        assert_eq!(retries.load(Ordering::SeqCst), 1);
    }
}
