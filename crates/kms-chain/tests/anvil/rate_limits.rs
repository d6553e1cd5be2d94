//! Endpoints that limit requests, and that want a header.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kms_chain::{Chain, ChainError, Endpoint, EndpointAddress};
use kms_testkit::Anvil;
use serde_json::json;

use crate::stub::{Answer, Fate, start_proxy, start_with_header};

const SHORT: Duration = Duration::from_secs(2);

/// A proxy that answers the first request for a block number like this. Counts all requests.
fn limited_once(
    node: &Anvil,
    answer: impl Fn() -> Answer + Send + 'static,
) -> (String, Arc<AtomicU32>) {
    let requests = Arc::new(AtomicU32::new(0));
    let (counted, mut is_first) = (Arc::clone(&requests), true);
    let url = start_proxy(&node.url(), move |method| {
        counted.fetch_add(1, Ordering::SeqCst);
        match method {
            "eth_blockNumber" if std::mem::take(&mut is_first) => Fate::Answered(answer()),
            _ => Fate::Passed,
        }
    });
    (url, requests)
}

fn limit(seconds: u32) -> Answer {
    Answer::Http(format!("429 Too Many Requests\r\nRetry-After: {seconds}"))
}

#[tokio::test]
async fn an_endpoint_rests_for_as_long_as_it_asks_and_another_one_is_used() {
    let (first, second) = (Anvil::start().unwrap(), Anvil::start().unwrap());
    second.rpc("anvil_mine", json!(["0x5"])).unwrap();
    let (url, requests) = limited_once(&first, || limit(1));
    let chain = Chain::over([url.as_str(), &second.url()], 31_337, SHORT, None).unwrap();
    let began = Instant::now();
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 5);
    let before = requests.load(Ordering::SeqCst);
    // It is asked nothing meanwhile, and then it is the first one again.
    while chain.first(Endpoint::block_number).await.unwrap() == 5 {
        if began.elapsed() < Duration::from_millis(900) {
            assert_eq!(requests.load(Ordering::SeqCst), before);
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it never was asked again");
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_single_endpoint_is_not_asked_while_it_rests() {
    let node = Anvil::start().unwrap();
    let in_the_body = || Answer::Error(429, "Your app has exceeded its compute units");
    let for_today = || {
        let rate = json!({"rate": {"backoff_seconds": 59.5}});
        Answer::ErrorWith(-32_005, "daily request count exceeded", rate)
    };
    let plain = || Answer::Http("429 Too Many Requests".to_owned());
    let answers: [fn() -> Answer; 4] = [|| limit(60), plain, in_the_body, for_today];
    for answer in answers {
        let (url, requests) = limited_once(&node, answer);
        let chain = Chain::over([url.as_str()], 31_337, SHORT, None).unwrap();
        let error = chain.first(Endpoint::block_number).await.unwrap_err();
        assert!(matches!(error, ChainError::RateLimited { seconds: 8..=10 | 50..=60 }), "{error}");
        let asked = requests.load(Ordering::SeqCst);
        let error = chain.first(Endpoint::block_number).await.unwrap_err();
        assert!(matches!(error, ChainError::RateLimited { seconds: 8..=10 | 50..=60 }), "{error}");
        let error = chain.broadcast(&[2]).await.unwrap_err();
        assert!(matches!(error, ChainError::RateLimited { .. }), "{error}");
        assert_eq!(requests.load(Ordering::SeqCst), asked);
    }
}

#[tokio::test]
async fn no_endpoint_rests_for_longer_than_five_minutes() {
    let node = Anvil::start().unwrap();
    let (url, _requests) = limited_once(&node, || limit(u32::MAX));
    let chain = Chain::over([url.as_str()], 31_337, SHORT, None).unwrap();
    let error = chain.first(Endpoint::block_number).await.unwrap_err();
    assert!(matches!(error, ChainError::RateLimited { seconds: 300 }), "{error}");
}

#[tokio::test]
async fn a_request_for_too_much_at_once_is_no_limit_of_requests() {
    let node = Anvil::start().unwrap();
    let (url, _requests) =
        limited_once(&node, || Answer::Error(-32_005, "more than 10000 results"));
    let chain = Chain::over([url.as_str()], 31_337, SHORT, None).unwrap();
    let error = chain.first(Endpoint::block_number).await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { code: -32_005, .. }), "{error}");
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 0);
}

#[tokio::test]
async fn a_provider_is_asked_with_its_header() {
    let node = Anvil::start().unwrap();
    let url = start_with_header(&node.url(), "authorization: bearer hunter2");
    let over = |header: Option<&str>| {
        let header = header.map(|header| header.parse().unwrap());
        let address = EndpointAddress { url: &url, header };
        Chain::over_addresses([address], 31_337, SHORT, None).unwrap()
    };
    let chain = over(Some("Authorization: Bearer hunter2"));
    assert_eq!(chain.first(Endpoint::block_number).await.unwrap(), 0);
    for header in [None, Some("Authorization: Bearer hunter3")] {
        let error = over(header).first(Endpoint::block_number).await.unwrap_err().to_string();
        assert!(error.contains("401") && !error.contains("hunter"), "{error}");
    }
    assert!(!format!("{chain:?}").contains("hunter2"));
}
