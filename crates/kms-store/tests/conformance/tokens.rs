//! Transfers and deposits of tokens: two balances must cover a transfer, and each is notified once.

use kms_chain::follower::{BlockRef, Deposit, DepositStore, Payment};
use kms_chain::ports::{ChainView, Inserted, SignOutcome, TransferStore};
use kms_chain::settlement::Outcome;
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::{Missing, Transfer, TransferFailure, TransferState};
use kms_core::account::Account;
use kms_types::{Asset, EthAddress, EventCursor, Token, TokenAmount, U256, Units, Wei};

use crate::fixtures::{Subject, events, insert, on_every_database, transfer};
use crate::transfers::{CHAIN, DUE, NOW, finalize, replace_block, settle, sign};

on_every_database!(
    a_token_transfer_is_read_back,
    both_balances_must_cover_a_token_transfer,
    concurrent_transfers_stay_within_the_token_balance,
    the_received_amount_is_kept_until_a_reorg,
    a_transaction_that_moved_nothing_fails,
    each_token_of_a_transaction_is_notified_once,
);

fn token(byte: u8, symbol: &str) -> Token {
    Token { symbol: symbol.parse().unwrap(), address: [byte; 20].into(), decimals: 6 }
}

fn quote(from: &Account, to: &Account, units: u64) -> Transfer {
    let mut quote = transfer(from, to, units, NOW);
    let token = token(200, "USDC");
    quote.asked.asset = Asset::Token(token.symbol.clone());
    quote.token = Some(token);
    quote
}

fn view(wei: u64, units: u64) -> ChainView {
    let (balance, token) = (Wei(U256::from(wei)), Units(U256::from(units)));
    ChainView { block: 1, balance, token, nonce: 0, mined: 0 }
}

fn missing_units(units: u64) -> SignOutcome {
    let amount = TokenAmount { token: token(200, "USDC"), units: Units(U256::from(units)) };
    SignOutcome::Insufficient { missing: Missing::Token(amount) }
}

async fn a_token_transfer_is_read_back(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = quote(&ann, &bob, 100);
    assert_eq!(database.insert_quote(quote.clone()).await.unwrap(), Inserted::New);
    assert_eq!(database.transfer(quote.id).await.unwrap().unwrap(), quote);
}

async fn both_balances_must_cover_a_token_transfer(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let first = quote(&ann, &bob, 100);
    database.insert_quote(first.clone()).await.unwrap();
    let outcome = async |view| {
        database.sign(first.id, view, SpendingRules::default(), NOW, sign()).await.unwrap()
    };
    assert_eq!(outcome(view(1_000, 99)).await, missing_units(1));
    // The fee is ten wei, and that of the cancellation twenty.
    let missing = Missing::Native(Wei(U256::from(1)));
    assert_eq!(outcome(view(19, 100)).await, SignOutcome::Insufficient { missing });
    assert!(matches!(outcome(view(20, 100)).await, SignOutcome::Signed(_)));
    let pending = database.pending_spend(CHAIN, ann.wallet.address, 0).await.unwrap();
    assert_eq!((pending.wei, pending.of(&token(200, "X"))), (Wei(U256::from(20)), units(100)));
    assert_eq!(pending.of(&token(201, "USDC")), Units::default());
    // The native coin is another asset: only the fee of the first transfer is taken from it.
    let coins = transfer(&ann, &bob, 90, NOW);
    database.insert_quote(coins.clone()).await.unwrap();
    let signed = database
        .sign(coins.id, view(120, 100), SpendingRules::default(), NOW, sign())
        .await
        .unwrap();
    assert!(matches!(signed, SignOutcome::Signed(_)), "{signed:?}");
    let second = quote(&ann, &bob, 1);
    database.insert_quote(second.clone()).await.unwrap();
    let refused = database
        .sign(second.id, view(140, 100), SpendingRules::default(), NOW, sign())
        .await
        .unwrap();
    assert_eq!(refused, missing_units(1));
}

fn units(units: u64) -> Units {
    Units(U256::from(units))
}

async fn concurrent_transfers_stay_within_the_token_balance(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut signing = Vec::new();
    for _ in 0..20 {
        let quote = quote(&ann, &bob, 10);
        database.insert_quote(quote.clone()).await.unwrap();
        let database = database.clone();
        signing.push(tokio::spawn(async move {
            database
                .sign(quote.id, view(10_000, 75), SpendingRules::default(), NOW, sign())
                .await
                .unwrap()
        }));
    }
    let mut signed = 0;
    for outcome in signing {
        match outcome.await.unwrap() {
            SignOutcome::Signed(_) => signed += 1,
            outcome => assert_eq!(outcome, missing_units(5)),
        }
    }
    assert_eq!(signed, 7);
}

async fn the_received_amount_is_kept_until_a_reorg(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = quote(&ann, &bob, 100);
    database.insert_quote(quote.clone()).await.unwrap();
    database.sign(quote.id, view(1_000, 100), SpendingRules::default(), NOW, sign()).await.unwrap();
    let arrived = Some(units(90));
    settle(database, quote.id, 5, 1, Outcome::Paid { arrived }, 0).await;
    let stored = async || database.transfer(quote.id).await.unwrap().unwrap();
    assert_eq!(stored().await.arrived, arrived);
    replace_block(database, 5).await;
    assert_eq!(stored().await.arrived, None);
}

async fn a_transaction_that_moved_nothing_fails(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let quote = quote(&ann, &bob, 100);
    database.insert_quote(quote.clone()).await.unwrap();
    database.sign(quote.id, view(1_000, 100), SpendingRules::default(), NOW, sign()).await.unwrap();
    settle(database, quote.id, 5, 1, Outcome::NothingMoved, 0).await;
    finalize(database, 5).await;
    let stored = database.transfer(quote.id).await.unwrap().unwrap();
    assert_eq!(stored.state, TransferState::Failed);
    assert_eq!(stored.failure, Some(TransferFailure::NothingMoved));
    assert_eq!(subject_pending(&subject, &ann).await, Units::default());
    let due = database.claim_due(CHAIN, DUE, 10).await.unwrap();
    assert!(due.is_empty());
}

async fn subject_pending(subject: &Subject, account: &Account) -> Units {
    let pending = subject.database.pending_spend(CHAIN, account.wallet.address, 1).await.unwrap();
    pending.of(&token(200, "USDC"))
}

async fn each_token_of_a_transaction_is_notified_once(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let block = |number: u8| BlockRef { number: number.into(), hash: [number; 32] };
    database.start_at(CHAIN, block(1)).await.unwrap();
    let incoming = |to: &Account, token| {
        let (tx_hash, from, to_address) = ([7; 32], EthAddress::from([99; 20]), to.wallet.address);
        let payment =
            Payment { tx_hash, from, to: to_address, token, value: Units(U256::MAX), block: 7 };
        Deposit { account: to.id, payment }
    };
    let (one, two) = (token(200, "USDC"), token(201, "DAI"));
    let found = vec![
        incoming(&ann, None),
        incoming(&ann, Some(one.clone())),
        incoming(&ann, Some(two.clone())),
        incoming(&bob, Some(one.clone())),
    ];
    for (from, to) in [(1, 2), (2, 1), (1, 3)] {
        let moved =
            database.record_deposits(CHAIN, block(from), block(to), found.clone(), NOW).await;
        assert!(moved.unwrap());
    }
    let notified = events(database, EventCursor::default(), 6).await;
    let mut tokens = Vec::new();
    for event in notified.iter().filter(|event| event.deposit.is_some()) {
        let noted = database.external_deposit(event.deposit.unwrap()).await.unwrap().unwrap();
        assert_eq!(noted.value, Units(U256::MAX));
        tokens.push((event.account, noted.token));
    }
    let expected =
        [(ann.id, None), (ann.id, Some(one.clone())), (ann.id, Some(two)), (bob.id, Some(one))];
    assert_eq!(tokens, expected);
}
