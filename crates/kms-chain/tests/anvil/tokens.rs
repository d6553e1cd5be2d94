//! ERC-20 tokens that follow the standard, and others.

use kms_chain::transfer::{Missing, Transfer, TransferFailure, TransferState, Warning};
use kms_chain::{Chain, ChainError, ConfirmError, QuoteError, QuoteRequest, Transfers};
use kms_core::account::Account;
use kms_testkit::{Anvil, TestToken, TransferBehavior, deploy_multicall};
use kms_types::{Asset, Token, U256, Units, Wei};
use serde_json::json;

use crate::chain::reverting;
use crate::world::{COIN, CONFIRMATIONS, STRANGER, World, party, request, stranger, units, wei};

/// A balance that covers every fee.
const FEES: u128 = COIN / 10;

/// A world with one token. Ann has a hundred of it.
pub(crate) struct Market {
    pub(crate) world: World,
    pub(crate) contract: TestToken,
    pub(crate) token: Token,
    pub(crate) ann: Account,
    pub(crate) bob: Account,
}

pub(crate) fn configured(contract: &TestToken, symbol: &str, decimals: u8) -> Token {
    let address = contract.address().parse().unwrap();
    Token { symbol: symbol.parse().unwrap(), address, decimals }
}

impl Market {
    pub(crate) async fn new() -> Self {
        Self::with(6).await
    }

    pub(crate) async fn with(decimals: u8) -> Self {
        let anvil = Anvil::start().unwrap();
        let contract = TestToken::deploy(&anvil, "USDC", decimals).unwrap();
        let token = configured(&contract, "USDC", decimals);
        let world = World::with(anvil, vec![token.clone()]).await;
        let (ann, bob) = (world.account(1, FEES).await, world.account(2, 0).await);
        let hundred = 100 * 10_u128.pow(decimals.into());
        contract.mint(&world.anvil, &ann.wallet.address.to_string(), hundred).unwrap();
        Self { world, contract, token, ann, bob }
    }

    pub(crate) fn request(&self, amount: &str) -> QuoteRequest {
        let mut request = request(&self.ann, party(&self.bob), amount);
        request.asked.asset = Asset::Token(self.token.symbol.clone());
        request
    }

    pub(crate) async fn quote(&self, amount: &str) -> Transfer {
        self.world.try_quote(self.request(amount)).await.unwrap()
    }

    pub(crate) async fn quote_error(&self, amount: &str) -> QuoteError {
        self.world.try_quote(self.request(amount)).await.unwrap_err()
    }

    pub(crate) fn set_behavior(&self, behavior: TransferBehavior) {
        self.contract.set_behavior(&self.world.anvil, behavior).unwrap();
    }

    pub(crate) fn has(&self, account: &Account) -> u128 {
        self.contract.balance(&self.world.anvil, &account.wallet.address.to_string()).unwrap()
    }

    /// Confirms a quote after the token changed to this behavior, and mines it.
    pub(crate) async fn mined_as(&self, amount: &str, behavior: TransferBehavior) -> Transfer {
        let quote = self.quote(amount).await;
        self.set_behavior(behavior);
        self.world.confirm(&self.ann, &quote).await.unwrap();
        self.world.mine(1);
        self.world.tick().await;
        quote
    }
}

#[tokio::test]
async fn a_ladder_that_the_balance_clips_leaves_enough_for_the_cancellation() {
    let market = Market::new().await;
    let address = market.ann.wallet.address.to_string();
    let unclipped = market.quote("1").await;
    let top = u128::try_from(unclipped.ladder.top().max_fee(unclipped.gas_limit).0).unwrap();
    for number in 0..8 {
        let balance = top + number * 7_919;
        market.world.anvil.set_balance(&address, balance).unwrap();
        let quote = market.quote("1").await;
        let cancellation = quote.ladder.cancellation().max_fee(quote.gas_limit);
        assert!(cancellation <= wei(balance), "{balance}");
        assert!(quote.ladder.top().ceiling() < unclipped.ladder.top().ceiling());
    }
}

#[tokio::test]
async fn a_token_is_paid_and_the_fee_in_native_coin() {
    let market = Market::new().await;
    let Market { world, ann, bob, token, .. } = &market;
    let quote = market.quote("2.5").await;
    assert_eq!((quote.value, quote.token.as_ref()), (units(2_500_000), Some(token)));
    assert!(quote.gas_limit > 21_000, "{}", quote.gas_limit);
    assert_eq!(quote.warnings, [Warning::FirstPayment]);
    assert_eq!(world.stored(&quote).await, quote);

    let sent = world.confirm(ann, &quote).await.unwrap();
    assert_eq!(sent.state, TransferState::Broadcast);
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&quote).await;
    assert_eq!((mined.state, mined.arrived), (TransferState::Mined, None));
    assert_eq!((market.has(ann), market.has(bob)), (97_500_000, 2_500_000));
    let fee = mined.fee.unwrap();
    assert!(fee > Wei::default() && fee <= quote.max_fee());
    assert_eq!(world.balance(ann.wallet.address), U256::from(FEES) - fee.0);
    assert_eq!(world.balance(bob.wallet.address), U256::ZERO);
    world.mine(CONFIRMATIONS);
    world.tick().await;
    assert_eq!(world.state(&quote).await, TransferState::Final);
    assert_eq!(market.quote("1").await.warnings, []);
}

#[tokio::test]
async fn the_missing_amount_is_of_the_right_asset() {
    let market = Market::new().await;
    let Market { world, ann, .. } = &market;
    let missing = |error| match error {
        QuoteError::Insufficient { missing } => missing,
        error => panic!("{error}"),
    };
    let Missing::Token(short) = missing(market.quote_error("100.5").await) else {
        panic!("native coin")
    };
    assert_eq!((short.units, &short.token), (units(500_000), &market.token));
    // Pending transfers count.
    let first = market.quote("60").await;
    world.confirm(ann, &first).await.unwrap();
    let Missing::Token(short) = missing(market.quote_error("50").await) else {
        panic!("native coin")
    };
    assert_eq!(short.units, units(10_000_000));
    assert_eq!(market.quote("all").await.value, units(40_000_000));
    // Enough of the token, and too little for the fee.
    world.anvil.set_balance(&ann.wallet.address.to_string(), 7).unwrap();
    let Missing::Native(short) = missing(market.quote_error("1").await) else { panic!("a token") };
    assert!(short > wei(0));
}

#[tokio::test]
async fn two_confirmations_do_not_spend_the_same_tokens() {
    let market = Market::new().await;
    let Market { world, ann, .. } = &market;
    let (one, two) = (market.quote("60").await, market.quote("60").await);
    let (first, second) = (world.ready(&one).await, world.ready(&two).await);
    let wallet = world.open(ann).await;
    world.transfers.sign_and_send(first, wallet, world.now()).await.unwrap();
    let wallet = world.open(ann).await;
    let refused = world.transfers.sign_and_send(second, wallet, world.now()).await;
    match refused.unwrap_err() {
        ConfirmError::Insufficient { missing: Missing::Token(short) } => {
            assert_eq!(short.units, units(20_000_000));
        }
        error => panic!("{error}"),
    }
    // Pending token transfers do not reduce the native balance by more than their fees.
    let coins = world.quote(ann, stranger(), "0.01").await;
    world.confirm(ann, &coins).await.unwrap();
}

#[tokio::test]
async fn a_quote_that_was_shown_with_another_asset_is_not_signed() {
    let market = Market::new().await;
    let Market { world, .. } = &market;
    let quote = market.quote("1").await;
    let mut shown = crate::world::shown(&quote);
    shown.token = None;
    let refused = world.transfers.check(quote.id, shown.clone()).await;
    assert!(matches!(refused.unwrap_err(), ConfirmError::Mismatch));
    shown.token = Some(Token { decimals: 18, ..market.token.clone() });
    let refused = world.transfers.check(quote.id, shown).await;
    assert!(matches!(refused.unwrap_err(), ConfirmError::Mismatch));
    // The quote's id with the native coin is another request.
    let mut again = market.request("1");
    again.id = quote.id;
    again.asked.asset = Asset::Native;
    assert!(matches!(world.try_quote(again).await.unwrap_err(), QuoteError::IdReused));
}

#[tokio::test]
async fn a_token_without_a_return_value_is_paid() {
    let market = Market::new().await;
    market.set_behavior(TransferBehavior::NoReturnValue);
    let quote = market.mined_as("1", TransferBehavior::NoReturnValue).await;
    assert_eq!(market.world.state(&quote).await, TransferState::Mined);
    assert_eq!(market.has(&market.bob), 1_000_000);
}

#[tokio::test]
async fn a_token_that_would_revert_is_refused_at_the_quote() {
    let market = Market::new().await;
    for (behavior, words) in [
        (TransferBehavior::Reverts, "the token is closed"),
        (TransferBehavior::ReturnsFalse, "returned false"),
        (TransferBehavior::UsesAllGas, ""),
    ] {
        market.set_behavior(behavior);
        let error = market.quote_error("1").await;
        let QuoteError::TokenRefuses(reason) = &error else { panic!("{behavior:?}: {error}") };
        assert!(reason.contains(words), "{behavior:?}: {reason}");
    }
    // The token calls the recipient, which reverts.
    market.set_behavior(TransferBehavior::CallsRecipient);
    let address = market.bob.wallet.address.to_string();
    market.world.rpc("anvil_setCode", json!([address, reverting()]));
    let error = market.quote_error("1").await;
    assert!(matches!(error, QuoteError::TokenRefuses(_)), "{error}");
}

#[tokio::test]
async fn a_token_transfer_that_moves_nothing_fails() {
    for behavior in [
        TransferBehavior::ReturnsFalse,
        TransferBehavior::MovesNothing,
        TransferBehavior::ForgesLog,
    ] {
        let market = Market::new().await;
        let quote = market.mined_as("1", behavior).await;
        // A failure is reported only at finality.
        assert_eq!(market.world.state(&quote).await, TransferState::Broadcast, "{behavior:?}");
        market.world.mine(CONFIRMATIONS);
        market.world.tick().await;
        let failed = market.world.stored(&quote).await;
        assert_eq!(failed.state, TransferState::Failed, "{behavior:?}");
        assert_eq!(failed.failure, Some(TransferFailure::NothingMoved));
        assert!(failed.fee.unwrap() > Wei::default());
        assert_eq!((market.has(&market.ann), market.has(&market.bob)), (100_000_000, 0));
        // The recipient was notified of no payment.
        assert_eq!(market.world.event_count(&market.bob).await, 0);
    }
}

#[tokio::test]
async fn a_reverted_token_transfer_fails_and_costs_its_fee() {
    let market = Market::new().await;
    let quote = market.mined_as("1", TransferBehavior::Reverts).await;
    market.world.mine(CONFIRMATIONS);
    market.world.tick().await;
    let failed = market.world.stored(&quote).await;
    assert_eq!(failed.failure, Some(TransferFailure::Reverted));
    assert!(failed.fee.unwrap() > Wei::default());
    // The same if the token uses all gas: at most the maximum fee that was shown.
    market.set_behavior(TransferBehavior::Standard);
    let quote = market.mined_as("1", TransferBehavior::UsesAllGas).await;
    market.world.mine(CONFIRMATIONS);
    market.world.tick().await;
    let failed = market.world.stored(&quote).await;
    assert_eq!(failed.failure, Some(TransferFailure::Reverted));
    assert!(failed.fee.unwrap() <= quote.max_fee());
    assert_eq!(market.has(&market.ann), 100_000_000);
}

#[tokio::test]
async fn a_fee_on_transfer_is_deducted_from_the_reported_amount() {
    let market = Market::new().await;
    let Market { world, bob, .. } = &market;
    let quote = market.mined_as("10", TransferBehavior::TakesFee).await;
    let mined = world.stored(&quote).await;
    assert_eq!((mined.state, mined.arrived), (TransferState::Mined, Some(units(9_000_000))));
    assert_eq!(market.has(bob), 9_000_000);
    world.mine(CONFIRMATIONS);
    world.tick().await;
    assert_eq!(world.state(&quote).await, TransferState::Final);
}

#[tokio::test]
async fn a_reorg_that_changes_the_received_amount_is_recorded() {
    let market = Market::new().await;
    let Market { world, ann, bob, .. } = &market;
    let quote = market.mined_as("10", TransferBehavior::Standard).await;
    assert_eq!(world.stored(&quote).await.arrived, None);
    world.rpc("anvil_reorg", json!([1, []]));
    world.rpc("anvil_dropAllTransactions", json!([]));
    // The same bytes are mined in a block in which the token takes a fee.
    market.set_behavior(TransferBehavior::TakesFee);
    world.tick().await;
    world.mine(1);
    world.tick().await;
    world.tick().await;
    let again = world.stored(&quote).await;
    assert_eq!((again.state, again.arrived), (TransferState::Mined, Some(units(9_000_000))));
    assert_eq!((market.has(ann), market.has(bob)), (90_000_000, 9_000_000));
}

#[tokio::test]
async fn replacements_pay_the_same_token_once() {
    let market = Market::new().await;
    let Market { world, ann, bob, .. } = &market;
    let quote = market.quote("10").await;
    world.confirm(ann, &quote).await.unwrap();
    let first = world.stored(&quote).await.tx_hash;
    world.pass_over();
    world.tick().await;
    assert_ne!(world.stored(&quote).await.tx_hash, first);
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&quote).await, TransferState::Mined);
    assert_eq!((market.has(ann), market.has(bob), world.sent(ann)), (90_000_000, 10_000_000, 1));
}

/// An engine over the same chain with other tokens.
fn over(world: &World, tokens: Vec<Token>) -> Transfers {
    world.with_tokens(tokens)
}

#[tokio::test]
async fn a_token_that_was_removed_from_the_configuration_is_not_signed() {
    let market = Market::new().await;
    let Market { world, .. } = &market;
    let quote = market.quote("1").await;
    let shown = crate::world::shown(&quote);
    for tokens in [Vec::new(), vec![Token { decimals: 2, ..market.token.clone() }]] {
        let refused = over(world, tokens).check(quote.id, shown.clone()).await;
        assert!(matches!(refused.unwrap_err(), ConfirmError::Mismatch));
    }
    let mut unknown = market.request("1");
    unknown.asked.asset = "DAI".parse().unwrap();
    let error = world.try_quote(unknown).await.unwrap_err();
    assert!(matches!(error, QuoteError::UnknownToken(_)), "{error}");
}

#[tokio::test]
async fn a_transfer_to_a_token_contract_is_refused() {
    let market = Market::new().await;
    let mut to_itself = market.request("1");
    to_itself.to.account = None;
    to_itself.to.address = market.token.address;
    let error = market.world.try_quote(to_itself.clone()).await.unwrap_err();
    assert!(matches!(error, QuoteError::TokenContract), "{error}");
    to_itself.asked.asset = Asset::Native;
    let error = market.world.try_quote(to_itself).await.unwrap_err();
    assert!(matches!(error, QuoteError::TokenContract), "{error}");
}

#[tokio::test]
async fn multicall_and_batch_return_the_same_balances() {
    let market = Market::new().await;
    let Market { world, ann, token, .. } = &market;
    let all_gas = TestToken::deploy(&world.anvil, "DAI", 18).unwrap();
    let tokens = [
        token.clone(),
        configured(&all_gas, "DAI", 18),
        Token { symbol: "NONE".parse().unwrap(), address: STRANGER.parse().unwrap(), decimals: 6 },
    ];
    let owner = ann.wallet.address;
    all_gas.mint(&world.anvil, &owner.to_string(), 7).unwrap();
    let expected = [Some(units(100_000_000)), Some(units(7)), None];
    let chain = || Chain::new(&world.anvil.url(), world.anvil.chain_id()).unwrap();
    let batched = chain().first(|it| it.balances(owner, &tokens)).await.unwrap();
    assert_eq!((batched.wei, batched.tokens.as_slice()), (wei(FEES), expected.as_slice()));
    deploy_multicall(&world.anvil).unwrap();
    let at_once = chain().first(|it| it.balances(owner, &tokens)).await.unwrap();
    assert_eq!((at_once.wei, at_once.tokens.as_slice()), (wei(FEES), expected.as_slice()));
    // A token that uses all gas has no balance; the others do.
    let loops = "0x5b5f56";
    world.rpc("anvil_setCode", json!([all_gas.address(), loops]));
    let found = chain().first(|it| it.balances(owner, &tokens)).await.unwrap();
    assert_eq!(found.tokens.first(), Some(&Some(units(100_000_000))));
    assert_eq!(found.tokens.get(1), Some(&None));
    let alone = chain().first(|it| it.balances(owner, &[])).await.unwrap();
    assert_eq!((alone.wei, alone.tokens.len()), (wei(FEES), 0));
    let error = chain().view(owner, tokens.get(2)).await.unwrap_err();
    assert!(matches!(error, ChainError::NotAToken), "{error}");
}

#[tokio::test]
async fn an_external_token_deposit_is_reported_once_at_finality() {
    let market = Market::new().await;
    let Market { world, contract, ann, bob, token } = &market;
    let other = TestToken::deploy(&world.anvil, "FAKE", 6).unwrap();
    let follower = world.follower();
    let follow = async || while follower.round(world.now()).await.unwrap() {};
    follow().await;
    let address = bob.wallet.address.to_string();
    let hash = contract.mint(&world.anvil, &address, 5_000_000).unwrap();
    // No deposits: zero, to oneself, of an unknown token, a transfer of this system.
    contract.mint(&world.anvil, &address, 0).unwrap();
    contract.log(&world.anvil, &address, &address, 7).unwrap();
    other.mint(&world.anvil, &address, 9).unwrap();
    let quote = market.quote("1").await;
    world.confirm(ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&quote).await, TransferState::Mined);
    world.mine(CONFIRMATIONS - 1);
    follow().await;
    world.mine(1);
    follow().await;
    let deposits = world.deposits_of(bob).await;
    assert_eq!(deposits.len(), 1, "{deposits:?}");
    let deposit = deposits.first().unwrap();
    assert_eq!((deposit.value, deposit.token.as_ref()), (units(5_000_000), Some(token)));
    assert_eq!(hex::encode_prefixed(deposit.tx_hash.unwrap()), hash);

    // A reorg removes a finalized block, and the same payment is mined again.
    let depth = CONFIRMATIONS + 2;
    contract.log(&world.anvil, STRANGER, &address, u128::MAX).unwrap();
    world.mine(CONFIRMATIONS + 1);
    follow().await;
    assert_eq!(world.deposits_of(bob).await.len(), 2);
    world.rpc("anvil_reorg", json!([depth, []]));
    world.mine(CONFIRMATIONS + 2);
    follow().await;
    follow().await;
    assert_eq!(world.deposits_of(bob).await.len(), 2);
}

#[tokio::test]
async fn logs_that_were_not_requested_are_ignored() {
    use crate::stub::{Answer, Fate, start_proxy};
    let market = Market::new().await;
    let Market { world, bob, token, .. } = &market;
    let forged = |address: &str, block: &str, removed: bool| {
        let word = |address: &str| format!("0x{:0>64}", address.trim_start_matches("0x"));
        json!({
            "address": address, "blockHash": block, "blockNumber": "0x1", "logIndex": "0x0",
            "transactionIndex": "0x0", "removed": removed,
            "transactionHash": format!("0x{}", "ab".repeat(32)),
            "data": format!("0x{:064x}", 7),
            "topics": [
                "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
                word(STRANGER), word(&bob.wallet.address.to_lower_hex()),
            ],
        })
    };
    let nowhere = format!("0x{}", "cd".repeat(32));
    let logs = vec![
        forged(&token.address.to_lower_hex(), &nowhere, false),
        forged(STRANGER, &nowhere, false),
        forged(&token.address.to_lower_hex(), &nowhere, true),
    ];
    let url = start_proxy(&world.anvil.url(), move |method| match method {
        "eth_getLogs" => Fate::Answered(Answer::Result(json!(logs))),
        _ => Fate::Passed,
    });
    let follower = world.follower_through(&url);
    follower.round(world.now()).await.unwrap();
    world.mine(CONFIRMATIONS + 2);
    while follower.round(world.now()).await.unwrap() {}
    assert!(world.deposits_of(bob).await.is_empty());
}

#[tokio::test]
async fn without_the_logs_of_a_block_the_cursor_does_not_move() {
    use crate::stub::{Answer, Fate, start_proxy};
    let market = Market::new().await;
    let Market { world, contract, bob, .. } = &market;
    let follower = world.follower();
    follower.round(world.now()).await.unwrap();
    contract.mint(&world.anvil, &bob.wallet.address.to_string(), 5).unwrap();
    world.mine(CONFIRMATIONS + 1);
    let url = start_proxy(&world.anvil.url(), |method| match method {
        "eth_getLogs" => Fate::Answered(Answer::Error(-32_000, "unknown block")),
        _ => Fate::Passed,
    });
    world.follower_through(&url).round(world.now()).await.unwrap_err();
    assert!(world.deposits_of(bob).await.is_empty());
    follower.round(world.now()).await.unwrap();
    assert_eq!(world.deposits_of(bob).await.len(), 1);
}

#[test]
fn a_sum_of_units_does_not_overflow() {
    assert_eq!(Units(U256::MAX).checked_add(units(1)), None);
}
