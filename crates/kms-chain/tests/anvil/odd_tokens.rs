//! Tokens that are not as they were configured, or not as most are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kms_chain::transfer::TransferState;
use kms_chain::{Chain, QuoteError, TokenError, TokenFault, Transfers};
use kms_testkit::TransferBehavior;
use kms_types::{Token, U256, Units};
use serde_json::json;

use crate::stub::{Answer, Fate, ask, method_of, start_proxy_by_call};
use crate::tokens::{Market, configured};
use crate::world::{CONFIRMATIONS, STRANGER, World, units};

/// How long an endpoint is waited for.
const SHORT: Duration = Duration::from_secs(5);

async fn fault_of(transfers: &Transfers, token: &Token) -> Option<TokenFault> {
    transfers.tokens().check(transfers.chain()).await;
    transfers.tokens().fault(token)
}

#[tokio::test]
async fn a_token_is_disabled_until_its_contract_is_as_configured() {
    let market = Market::new().await;
    let Market { world, contract, token, .. } = &market;
    let transfers = &world.transfers;
    assert_eq!(fault_of(transfers, token).await, None);
    contract.set_decimals(&world.anvil, 2).unwrap();
    // Before the next check, too.
    assert!(matches!(market.quote_error("1").await, QuoteError::WrongToken(_)));
    assert!(transfers.tokens().is_readable(token));
    let decimals = TokenFault::Decimals { expected: 6, found: 2 };
    assert_eq!(fault_of(transfers, token).await, Some(decimals));
    assert!(!transfers.tokens().is_readable(token));
    // What cannot be asked stays as it was found.
    assert_eq!(fault_of(&world.cut_off(), token).await, None);
    contract.set_decimals(&world.anvil, 6).unwrap();
    assert_eq!(fault_of(transfers, token).await, None);
    market.quote("1").await;
}

#[tokio::test]
async fn a_token_without_a_contract_is_disabled_alone() {
    let market = Market::new().await;
    let Market { world, token, .. } = &market;
    let plain = Token { symbol: "GONE".parse().unwrap(), ..token.clone() };
    let plain = Token { address: STRANGER.parse().unwrap(), ..plain };
    let engine = world.with_tokens(vec![plain.clone(), token.clone()]);
    assert_eq!(fault_of(&engine, &plain).await, Some(TokenFault::NoToken));
    assert_eq!(engine.tokens().fault(token), None);
    // The contract does not exist on another chain.
    let other = World::new().await;
    let error = other.transfers.chain().check_token(token, false).await.unwrap_err();
    assert!(matches!(error, TokenError::Fault(TokenFault::NoToken)), "{error}");
}

#[tokio::test]
async fn the_symbol_is_the_operators() {
    let market = Market::new().await;
    let Market { world, contract, ann, bob, .. } = &market;
    let token = configured(contract, "USD\u{20ae}0", 6);
    let engine = world.with_tokens(vec![token.clone()]);
    assert_eq!(fault_of(&engine, &token).await, None);
    let checked = engine.chain().check_token(&token, false).await.unwrap();
    assert_eq!((checked.other_symbol.as_deref(), checked.has_logged), (Some("USDC"), true));
    // A symbol is untrusted text.
    contract.set_symbol(&world.anvil, "<b>\u{1b}[2JUSDC").unwrap();
    let checked = engine.chain().check_token(&token, false).await.unwrap();
    assert_eq!(checked.other_symbol.as_deref(), Some("<b>[2JUSDC"));
    // Quoted under one symbol, and confirmed under another one.
    let mut request = market.request("1");
    request.asked.asset = "usd\u{20ae}0".parse().unwrap();
    let quote = engine.quote(request, world.now()).await.unwrap();
    assert_eq!(quote.token, Some(token));
    assert_eq!(world.stored(&quote).await, quote);
    world.confirm(ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&quote).await, TransferState::Mined);
    assert_eq!(market.has(bob), 1_000_000);
}

#[tokio::test]
async fn a_paused_token_is_disabled_and_is_not_sent() {
    let market = Market::new().await;
    let Market { world, token, .. } = &market;
    market.set_behavior(TransferBehavior::Paused);
    assert_eq!(fault_of(&world.transfers, token).await, Some(TokenFault::Paused));
    assert!(world.transfers.tokens().is_readable(token));
    let error = market.quote_error("1").await;
    let QuoteError::TokenRefuses(reason) = &error else { panic!("{error}") };
    assert!(reason.contains("paused"), "{reason}");
    market.set_behavior(TransferBehavior::Standard);
    assert_eq!(fault_of(&world.transfers, token).await, None);
}

#[tokio::test]
async fn a_blocked_recipient_is_refused_at_the_quote() {
    let market = Market::new().await;
    let Market { world, contract, token, bob, .. } = &market;
    contract.block_user(&world.anvil, &bob.wallet.address.to_string()).unwrap();
    let error = market.quote_error("1").await;
    let QuoteError::TokenRefuses(reason) = &error else { panic!("{error}") };
    assert!(reason.contains("blacklisted"), "{reason}");
    // It is no fault of the token.
    assert_eq!(fault_of(&world.transfers, token).await, None);
}

#[tokio::test]
async fn a_token_that_logs_in_another_form_is_disabled_before_it_is_sent() {
    let market = Market::new().await;
    let Market { world, contract, token, ann, .. } = &market;
    // Only its newest blocks are searched: the standard transfers are older.
    market.set_behavior(TransferBehavior::OldLog);
    world.mine(200);
    let address = ann.wallet.address.to_string();
    contract.mint(&world.anvil, &address, 5).unwrap();
    assert_eq!(fault_of(&world.transfers, token).await, Some(TokenFault::ForeignLogs));
    assert!(matches!(market.quote_error("1").await, QuoteError::WrongToken(_)));
    // A transfer that is decoded enables it for good.
    market.set_behavior(TransferBehavior::Standard);
    contract.mint(&world.anvil, &address, 5).unwrap();
    assert_eq!(fault_of(&world.transfers, token).await, None);
    market.quote("1").await;
}

#[tokio::test]
async fn a_token_that_was_never_moved_is_enabled() {
    let market = Market::new().await;
    let unused = kms_testkit::TestToken::deploy(&market.world.anvil, "NEW", 6).unwrap();
    let token = configured(&unused, "NEW", 6);
    let engine = market.world.with_tokens(vec![token.clone()]);
    assert_eq!(fault_of(&engine, &token).await, None);
    let checked = engine.chain().check_token(&token, false).await.unwrap();
    assert!(!checked.has_logged);
}

#[tokio::test]
async fn a_deposit_of_a_token_with_other_decimals_is_not_reported() {
    let market = Market::new().await;
    let Market { world, contract, token, bob, .. } = &market;
    let engine = &world.transfers;
    let follower = world.follower_with(engine.tokens().clone());
    let follow = async || while follower.round(world.now()).await.unwrap() {};
    follow().await;
    let address = bob.wallet.address.to_string();
    contract.set_decimals(&world.anvil, 18).unwrap();
    assert!(fault_of(engine, token).await.is_some());
    contract.mint(&world.anvil, &address, 5_000_000).unwrap();
    world.mine(CONFIRMATIONS + 1);
    follow().await;
    assert!(world.deposits_of(bob).await.is_empty());
    contract.set_decimals(&world.anvil, 6).unwrap();
    assert_eq!(fault_of(engine, token).await, None);
    contract.mint(&world.anvil, &address, 7).unwrap();
    world.mine(CONFIRMATIONS + 1);
    follow().await;
    let deposits = world.deposits_of(bob).await;
    assert_eq!(deposits.iter().map(|it| it.value).collect::<Vec<_>>(), [units(7)]);
}

/// The transaction, its block and the token are real; that it pays Bob is not.
#[tokio::test]
async fn a_false_log_of_a_deposit_is_not_believed() {
    for several in [false, true] {
        let market = Market::new().await;
        let Market { world, contract, bob, .. } = &market;
        let (node, told) = (world.anvil.url(), Arc::new(AtomicUsize::new(0)));
        let (honest, lies) = (node.clone(), Arc::clone(&told));
        let topic = json!(format!("0x{:0>64}", bob.wallet.address.to_lower_hex().split_off(2)));
        let url = start_proxy_by_call(&node.clone(), move |call| {
            let method = method_of(call);
            if method != "eth_getLogs" {
                return Fate::Passed;
            }
            let mut logs = ask(&node, method, call.get("params").unwrap());
            for log in logs.as_array_mut().unwrap() {
                *log.pointer_mut("/topics/2").unwrap() = topic.clone();
                lies.fetch_add(1, Ordering::SeqCst);
            }
            Fate::Answered(Answer::Result(logs))
        });
        let urls: &[&str] = if several { &[&url, &honest] } else { &[&url] };
        let chain = Chain::over(urls.iter().copied(), 31_337, SHORT, None).unwrap();
        let follower = world.follower_over(chain);
        world.rounds(&follower).await;
        contract.mint(&world.anvil, STRANGER, 5_000_000).unwrap();
        world.deposit(bob, 7);
        world.mine(CONFIRMATIONS + 1);
        world.rounds(&follower).await;
        assert!(told.load(Ordering::SeqCst) > 0);
        // What is true is reported meanwhile.
        let deposits = world.deposits_of(bob).await;
        let found: Vec<_> = deposits.iter().map(|it| (it.token.clone(), it.value)).collect();
        assert_eq!(found, [(None, units(7))], "{several}");
    }
}

#[tokio::test]
async fn tokens_of_0_and_of_24_decimals_are_paid_exactly() {
    for (decimals, too_fine, amount, value) in [
        (0, "0.5", "7", U256::from(7)),
        (24, "0.0000000000000000000000001", "0.000000000000000000000007", U256::from(7)),
        (
            24,
            "1.0000000000000000000000001",
            "1.5",
            U256::from(15) * U256::from(10).pow(U256::from(23)),
        ),
    ] {
        let market = Market::with(decimals).await;
        let error = market.quote_error(too_fine).await;
        assert!(matches!(error, QuoteError::Amount(_)), "{error}");
        let quote = market.quote(amount).await;
        assert_eq!(quote.value, Units(value));
        assert_eq!(market.token.to_decimal(quote.value), amount);
        market.world.confirm(&market.ann, &quote).await.unwrap();
        market.world.mine(1);
        market.world.tick().await;
        assert_eq!(Units(U256::from(market.has(&market.bob))), quote.value);
        let rest = market.quote("all").await;
        assert_eq!(rest.value, Units(U256::from(market.has(&market.ann))));
    }
}
