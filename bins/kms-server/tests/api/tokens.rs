//! ERC-20 tokens: compared with their contracts, quoted, sent and notified.

use kms_client::ClientError;
use kms_server_testing::requests::{COIN, confirm, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_testkit::{TestToken, TransferBehavior};
use kms_types::wire::{EventBody, QuoteTransfer, TransferFailure, TransferState};
use kms_types::{ErrorCode, Token, TransferEvent, U256, Units, Wei};
use serde_json::json;

/// Two users, of whom Ann has ten coins and ten tokens.
struct Market {
    test: TestServer,
    contract: TestToken,
    token: Token,
}

fn env_with_token(stores: Stores) -> (TestEnv, TestToken, Token) {
    with_token(TestEnv::new(stores).unwrap())
}

fn with_token(mut env: TestEnv) -> (TestEnv, TestToken, Token) {
    let contract = TestToken::deploy(&env.anvil, "USDC", 6).unwrap();
    let address = contract.address().parse().unwrap();
    let token = Token { symbol: "USDC".parse().unwrap(), address, decimals: 6 };
    env.chain.tokens = vec![token.clone()];
    (env, contract, token)
}

impl Market {
    async fn open(stores: Stores) -> Self {
        let (env, contract, token) = env_with_token(stores);
        let test = TestServer::start(env).await;
        let (ann, _bob) = test.ann_and_bob().await;
        contract.mint(&test.env.anvil, &ann.address.to_string(), 10_000_000).unwrap();
        Self { test, contract, token }
    }
}

fn in_usdc(amount: &str) -> QuoteTransfer {
    let mut request = quote(1, "@bob", amount);
    request.asset = "usdc".parse().unwrap();
    request
}

fn units(units: u64) -> Units {
    Units(U256::from(units))
}

async fn a_token_is_sent_by_username(stores: Stores) {
    let Market { test, token, .. } = Market::open(stores).await;
    let networks = test.client.networks().await.unwrap().networks;
    assert_eq!(networks[0].tokens, std::slice::from_ref(&token));
    let quoted = test.client.quote(&in_usdc("2.5")).await.unwrap();
    assert_eq!((quoted.value, quoted.token.as_ref()), (units(2_500_000), Some(&token)));
    assert_eq!(test.client.quote(&in_usdc("2.5")).await.unwrap().value, quoted.value);
    // A confirmation of coins does not confirm a quote in tokens.
    let mut wrong = confirm(&quoted, "ann's password");
    wrong.token = None;
    let refused = test.client.confirm(quoted.id, &wrong).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::QuoteMismatch));
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    let balance = test.balance(telegram(2)).await;
    assert_eq!(balance.wei, Wei::default());
    let usdc = balance.tokens.first().unwrap();
    assert_eq!((&usdc.token, usdc.units, usdc.pending), (&token, Some(units(2_500_000)), units(0)));
    let events = test.events(5).await;
    let received = events.iter().find_map(|event| match &event.what {
        EventBody::Transfer { kind: TransferEvent::Received, transfer } => Some(transfer),
        _ => None,
    });
    assert_eq!(received.unwrap().token.as_ref(), Some(&token));
}

#[actix_web::test]
async fn a_token_is_sent_by_username_on_embedded_stores() {
    a_token_is_sent_by_username(Stores::Embedded).await;
}

#[actix_web::test]
async fn a_token_is_sent_by_username_on_servers() {
    a_token_is_sent_by_username(Stores::Servers).await;
}

#[actix_web::test]
async fn token_transfers_that_would_fail_are_refused() {
    let Market { test, contract, token } = Market::open(Stores::Embedded).await;
    let refusal = async |request: &QuoteTransfer| match test.client.quote(request).await {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("{other:?}"),
    };
    let poor = refusal(&in_usdc("11")).await;
    let missing = poor.missing_token.unwrap();
    assert_eq!((poor.code, poor.missing), (ErrorCode::InsufficientFunds, None));
    assert_eq!(missing.to_string(), "1 USDC");
    let fine = refusal(&in_usdc("0.0000001")).await;
    assert_eq!((fine.code, fine.field.as_deref()), (ErrorCode::InvalidField, Some("amount")));
    let mut unknown = in_usdc("1");
    unknown.asset = "DAI".parse().unwrap();
    let unknown = refusal(&unknown).await;
    assert_eq!((unknown.code, unknown.field.as_deref()), (ErrorCode::UnknownToken, Some("asset")));
    let mut lost = in_usdc("1");
    lost.to = token.address.to_string().parse().unwrap();
    assert_eq!(refusal(&lost).await.field.as_deref(), Some("to"));
    contract.set_behavior(&test.env.anvil, TransferBehavior::ReturnsFalse).unwrap();
    assert_eq!(refusal(&in_usdc("1")).await.code, ErrorCode::TokenRefuses);
    contract.set_behavior(&test.env.anvil, TransferBehavior::Standard).unwrap();
    contract.set_decimals(&test.env.anvil, 18).unwrap();
    assert_eq!(refusal(&in_usdc("1")).await.code, ErrorCode::TokenMismatch);
    // Coins can still be sent.
    test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let before = test.client.account(telegram(1)).await.unwrap().unwrap();
    test.env.anvil.set_balance(&before.address.to_string(), 0).unwrap();
    contract.set_decimals(&test.env.anvil, 6).unwrap();
    let fee = refusal(&in_usdc("1")).await;
    assert!(fee.missing.unwrap() > Wei::default() && fee.missing_token.is_none());
}

#[actix_web::test]
async fn a_transaction_that_moved_no_tokens_is_a_failed_transfer() {
    let Market { test, contract, .. } = Market::open(Stores::Embedded).await;
    let quoted = test.client.quote(&in_usdc("1")).await.unwrap();
    contract.set_behavior(&test.env.anvil, TransferBehavior::MovesNothing).unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.env.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    let failed = test.until(quoted.id, TransferState::Failed).await;
    assert_eq!(failed.failure, Some(TransferFailure::NothingMoved));
    assert!(failed.fee.unwrap() > Wei::default() && failed.fee.unwrap() < Wei(U256::from(COIN)));
}

#[actix_web::test]
async fn external_token_deposits_are_notified() {
    let Market { test, contract, token } = Market::open(Stores::Servers).await;
    let bob = test.client.account(telegram(2)).await.unwrap().unwrap();
    // The follower begins at a finalized block.
    test.env.anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    for _ in 0..1_200 {
        let chain = test.env.anvil.chain_id();
        use kms_chain::follower::DepositStore;
        if test.database.cursor(chain).await.unwrap().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    contract.mint(&test.env.anvil, &bob.address.to_string(), 7).unwrap();
    test.env.anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    let received = |event: &kms_types::wire::Event| match &event.what {
        EventBody::Deposit { deposit, .. } if event.account == bob.id => {
            Some((deposit.value, deposit.token.clone()))
        }
        _ => None,
    };
    for _ in 0..1_200 {
        let events = test.events(0).await;
        if let Some(found) = events.iter().find_map(received) {
            assert_eq!(found, (units(7), Some(token)));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the deposit was not notified");
}

#[actix_web::test]
async fn a_token_that_differs_from_its_contract_is_disabled_alone() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.use_chain_id(1_003).unwrap();
    let (mut env, usdc, good) = with_token(env);
    let dai = TestToken::deploy(&env.anvil, "DAI", 6).unwrap();
    let address = dai.address().parse().unwrap();
    let wrong = Token { symbol: "DAI".parse().unwrap(), address, decimals: 18 };
    let gone = Token { symbol: "GONE".parse().unwrap(), address: [9; 20].into(), decimals: 6 };
    env.chain.tokens.extend([wrong, gone]);
    let test = TestServer::start(env).await;
    let (ann, _bob) = test.ann_and_bob().await;
    usdc.mint(&test.env.anvil, &ann.address.to_string(), 10_000_000).unwrap();
    for symbol in ["DAI", "GONE"] {
        let mut request = quote(1, "@bob", "1");
        request.asset = symbol.parse().unwrap();
        let refused = test.client.quote(&request).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::TokenMismatch), "{symbol}");
    }
    test.client.quote(&in_usdc("1")).await.unwrap();
    // No amount is shown that is wrong by powers of ten.
    let balance = test.balance(telegram(1)).await;
    let shown: Vec<_> = balance.tokens.into_iter().map(|it| it.units).collect();
    assert_eq!(shown, [Some(units(10_000_000)), None, None]);
    let chain = test.env.anvil.chain_id();
    let gauge = |symbol: &dyn std::fmt::Display, value: u8| {
        format!("kms_token_enabled{{chain=\"{chain}\",token=\"{symbol}\"}} {value}\n")
    };
    let gauges = [gauge(&good.symbol, 1), gauge(&"DAI", 0), gauge(&"GONE", 0)];
    for _ in 0..1_200 {
        let metrics = test.ops("/metrics").await.text().await.unwrap();
        if gauges.iter().all(|line| metrics.contains(line)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the gauges of tokens are missing");
}

#[actix_web::test]
async fn a_token_is_sent_under_the_operators_symbol() {
    let (mut env, contract, token) = env_with_token(Stores::Embedded);
    env.chain.tokens = vec![Token { symbol: "USD\u{20ae}0".parse().unwrap(), ..token }];
    let test = TestServer::start(env).await;
    let (ann, bob) = test.ann_and_bob().await;
    contract.mint(&test.env.anvil, &ann.address.to_string(), 10_000_000).unwrap();
    let mut request = quote(1, "@bob", "2.5");
    request.asset = "usd\u{20ae}0".parse().unwrap();
    let quoted = test.client.quote(&request).await.unwrap();
    // The issuer renames it meanwhile.
    contract.set_symbol(&test.env.anvil, "USDT0").unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    let bob = bob.address.to_string();
    assert_eq!(contract.balance(&test.env.anvil, &bob).unwrap(), 2_500_000);
    let sent = test.client.transfer(quoted.id).await.unwrap().unwrap();
    assert_eq!(sent.token.unwrap().symbol.as_str(), "USD\u{20ae}0");
}
