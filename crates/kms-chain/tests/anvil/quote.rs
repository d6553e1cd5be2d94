//! Quotes: prices, refusals and warnings.

use kms_chain::transfer::{Missing, TransferState, Warning};
use kms_chain::{ConfirmError, PricePolicy, QuoteError, QuoteRequest};
use kms_types::{EthAddress, TransferId, U256, Wei};
use serde_json::json;

use crate::chain::reverting;
use crate::world::{COIN, QUOTE_LIFETIME, STRANGER, World, party, request, stranger, units};

/// JUMPI to 7 if the call has value, else REVERT; 7: JUMPDEST, STOP.
const ONLY_WITH_VALUE: &str = "0x346007575f5ffd5b00";

#[tokio::test]
async fn a_quote_freezes_recipient_amount_and_maximum_fee() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let quote = world.quote(&ann, party(&bob), "0.25").await;
    assert_eq!(quote.value, units(COIN / 4));
    assert_eq!((quote.gas_limit, quote.chain_id), (21_000, 31_337));
    assert_eq!(quote.max_fee().0, U256::from(quote.ladder.top().ceiling()) * U256::from(21_000));
    assert_eq!((quote.from.clone(), quote.to.clone()), (party(&ann), party(&bob)));
    assert_eq!(quote.expires_at, quote.created_at.plus(QUOTE_LIFETIME));
    assert_eq!(world.stored(&quote).await, quote);
    assert_eq!(world.sent(&ann), 0);
}

#[tokio::test]
async fn a_repeated_request_is_the_same_quote_and_another_request_is_refused() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, COIN).await);
    let first = request(&ann, stranger(), "0.1");
    let quote = world.try_quote(first.clone()).await.unwrap();
    world.pass(std::time::Duration::from_secs(1));
    assert_eq!(world.try_quote(first.clone()).await.unwrap(), quote);
    let with = |change: fn(&mut QuoteRequest)| {
        let mut other = first.clone();
        change(&mut other);
        other
    };
    for other in [
        with(|other| other.asked.amount = "0.10".to_owned()),
        with(|other| other.asked.to = "@stranger".to_owned()),
        with(|other| other.client_ref = Some("message 7".to_owned())),
        QuoteRequest { from: party(&bob), ..first.clone() },
    ] {
        let error = world.try_quote(other).await.unwrap_err();
        assert!(matches!(error, QuoteError::IdReused), "{error}");
    }
    // After the confirmation, a repeat returns the same transfer in its current state.
    world.confirm(&ann, &quote).await.unwrap();
    let now = world.try_quote(first).await.unwrap();
    assert_eq!((now.id, now.state), (quote.id, TransferState::Broadcast));
}

#[tokio::test]
async fn two_concurrent_requests_with_one_id_are_one_quote() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let first = request(&ann, stranger(), "0.1");
    let (one, two) = tokio::join!(world.try_quote(first.clone()), world.try_quote(first.clone()));
    assert_eq!(one.unwrap(), two.unwrap());
}

#[tokio::test]
async fn a_transfer_to_oneself_or_to_the_zero_address_is_refused() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let mut other_address = party(&ann);
    other_address.address = STRANGER.parse().unwrap();
    let mut zero = stranger();
    zero.address = EthAddress::ZERO;
    for to in [party(&ann), other_address] {
        let error = world.try_quote(request(&ann, to, "0.1")).await.unwrap_err();
        assert!(matches!(error, QuoteError::SelfTransfer), "{error}");
    }
    let error = world.try_quote(request(&ann, zero, "0.1")).await;
    assert!(matches!(error.unwrap_err(), QuoteError::ZeroAddress));
    let mut without_account = request(&ann, stranger(), "0.1");
    without_account.from.account = None;
    let error = world.try_quote(without_account).await.unwrap_err();
    assert!(matches!(error, QuoteError::NoSender), "{error}");
}

#[tokio::test]
async fn the_missing_amount_includes_the_fee_and_pending_transfers() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let missing = async |amount| {
        let refused = world.try_quote(request(&ann, stranger(), amount)).await;
        match refused.unwrap_err() {
            QuoteError::Insufficient { missing: Missing::Native(missing) } => missing,
            error => panic!("{error}"),
        }
    };
    let quote = world.quote(&ann, stranger(), "0.75").await;
    // The first step must be covered; later ones are signed as far as the balance goes.
    let fee = quote.ladder.first().max_fee(21_000);
    assert_eq!(missing("1").await, fee);
    assert_eq!(missing("1.5").await.0, U256::from(COIN / 2) + fee.0);

    world.confirm(&ann, &quote).await.unwrap();
    let needed = U256::from(COIN / 4 * 3) + quote.max_fee().0 + U256::from(COIN / 2) + fee.0;
    assert_eq!(missing("0.5").await.0, needed - U256::from(COIN));
}

#[tokio::test]
async fn steps_end_at_a_share_of_the_amount_and_at_the_operators_maximum() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quoted = async |prices, amount| {
        let server = world.with_prices(prices);
        server.quote(request(&ann, stranger(), amount), world.now()).await
    };
    let prices = PricePolicy { max_fee: None, max_share: 100, min_tip: 1_000_000 };
    let usual = quoted(prices, "0.01").await.unwrap();
    assert_eq!(usual.ladder.replacements().count(), 2);
    // A hundredth of it covers the first step, and not the last.
    let (first, top) = (usual.ladder.first().max_fee(21_000), usual.max_fee());
    let share = Wei(U256::from(COIN / 100 / 100));
    assert!(first < share && share < top, "{first} {share} {top}");
    let shared = quoted(PricePolicy { max_share: 1, ..prices }, "0.01").await.unwrap();
    assert_eq!(shared.ladder.first(), usual.ladder.first());
    assert!(shared.max_fee() <= share, "{}", shared.max_fee());
    // Of a larger amount it is more than the last one.
    let larger = quoted(PricePolicy { max_share: 1, ..prices }, "0.5").await.unwrap();
    assert_eq!(larger.max_fee(), top);
    let limited = quoted(PricePolicy { max_fee: Some(share), ..prices }, "0.5").await.unwrap();
    assert!(limited.max_fee() <= share, "{}", limited.max_fee());
    let less = PricePolicy { max_fee: Some(Wei(first.0 / U256::from(8))), ..prices };
    let refused = quoted(less, "0.5").await.unwrap_err();
    assert!(matches!(refused, QuoteError::FeeTooHigh(_)), "{refused}");
}

#[tokio::test]
async fn all_leaves_nothing_of_a_plain_transfer() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "all").await;
    assert_eq!(quote.value.0 + quote.max_fee().0, U256::from(COIN));
    assert!(quote.warnings.contains(&Warning::MostOfBalance));
    world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    let paid = world.stored(&quote).await.fee.unwrap();
    assert_eq!(paid, quote.max_fee());
    assert_eq!(world.balance(ann.wallet.address), U256::ZERO);
    let again = world.try_quote(request(&ann, stranger(), "all")).await;
    assert!(matches!(
        again.unwrap_err(),
        QuoteError::Insufficient { missing: Missing::Native(missing) } if missing > Wei::default()
    ));
}

#[tokio::test]
async fn all_is_sent_to_a_contract_that_requires_value() {
    let world = World::new().await;
    world.rpc("anvil_setCode", json!([STRANGER, ONLY_WITH_VALUE]));
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "all").await;
    assert!(quote.gas_limit > 21_000);
    assert_eq!(quote.value.0 + quote.max_fee().0, U256::from(COIN));
    world.confirm(&ann, &quote).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.state(&quote).await, TransferState::Mined);
    assert_eq!(world.balance(quote.to.address), quote.value.0);
}

#[tokio::test]
async fn a_revert_is_detected_before_the_payment() {
    let world = World::new().await;
    world.rpc("anvil_setCode", json!([STRANGER, reverting()]));
    let ann = world.account(1, COIN).await;
    for amount in ["0.1", "all"] {
        let refused = world.try_quote(request(&ann, stranger(), amount)).await;
        match refused.unwrap_err() {
            QuoteError::WouldRevert(reason) => {
                assert!(reason.contains("closed on Sundays"), "{reason}");
                assert!(!reason.contains(char::is_control), "{reason:?}");
            }
            error => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_quote_has_the_warnings_for_its_sender() {
    let world = World::new().await;
    let (ann, bob) = (world.account(1, COIN).await, world.account(2, 0).await);
    let first = world.quote(&ann, party(&bob), "0.1").await;
    assert_eq!(first.warnings, [Warning::FirstPayment]);
    world.confirm(&ann, &first).await.unwrap();
    world.mine(1);
    world.tick().await;
    assert_eq!(world.quote(&ann, party(&bob), "0.1").await.warnings, []);

    let mut reassigned = request(&ann, party(&bob), "0.1");
    reassigned.name_reassigned = true;
    let reassigned = world.try_quote(reassigned).await.unwrap();
    assert_eq!(reassigned.warnings, [Warning::NameReassigned]);

    // An account that delegates to a contract (EIP-7702) is an account.
    let delegation = format!("0xef0100{}", "11".repeat(20));
    world.rpc("anvil_setCode", json!([STRANGER, delegation]));
    let delegated = world.quote(&ann, stranger(), "0.1").await;
    assert_eq!(delegated.warnings, [Warning::FirstPayment]);

    world.rpc("anvil_setCode", json!([STRANGER, "0x00"]));
    let contract = world.quote(&ann, stranger(), "0.85").await;
    assert_eq!(
        contract.warnings,
        [Warning::FirstPayment, Warning::Contract, Warning::MostOfBalance]
    );
}

#[tokio::test]
async fn a_fee_that_is_high_for_the_amount_is_a_warning() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    // The usual fee is 21,000 gas at about 10 gwei: 0.00021 coins.
    world.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x2540be400"]));
    world.mine(1);
    for (amount, warning) in [
        ("0.0002", Some(Warning::FeeAboveAmount)),
        ("0.0003", Some(Warning::FeeHigh)),
        ("0.002", Some(Warning::FeeHigh)),
        ("0.0023", None),
    ] {
        let quote = world.quote(&ann, stranger(), amount).await;
        let of_fee = |it: &&Warning| matches!(it, Warning::FeeAboveAmount | Warning::FeeHigh);
        let found: Vec<_> = quote.warnings.iter().filter(of_fee).copied().collect();
        assert_eq!(found, Vec::from_iter(warning), "{amount}");
    }
}

#[tokio::test]
async fn a_chain_that_is_down_stores_no_quote() {
    let mut world = World::new().await;
    let ann = world.account(1, COIN).await;
    let quote = world.quote(&ann, stranger(), "0.1").await;
    world.anvil.kill().unwrap();
    let late = request(&ann, stranger(), "0.1");
    let error = world.try_quote(late.clone()).await.unwrap_err();
    assert!(matches!(error, QuoteError::Chain(_)), "{error}");
    let stored = world.transfers.transfer(late.id).await;
    assert_eq!(stored.unwrap(), None);
    // No transfer is signed either.
    let error = world.check(&quote).await.unwrap_err();
    assert!(matches!(error, ConfirmError::Chain(_)), "{error}");
    assert_eq!(world.state(&quote).await, TransferState::Quoted);
    assert_eq!(world.transfers.cancel(TransferId::random(), world.now()).await.unwrap(), None);
}
