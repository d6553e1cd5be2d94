//! Two chains in one database: amounts of an asset are counted on its own chain alone.

use std::time::Duration;

use kms_chain::follower::{BlockRef, Deposit, DepositStore, Payment};
use kms_chain::ports::{ChainView, SignOutcome, TransferStore};
use kms_chain::settlement::Outcome;
use kms_chain::spending::{DAY, SpendingRules};
use kms_chain::transfer::Transfer;
use kms_core::account::Account;
use kms_store::{Database, HistoryEntry, Page, Raises};
use kms_types::{AssetId, EventCursor, Timestamp, TransferId, U256, Units};

use crate::fixtures::{Subject, events, insert, ladder, on_every_database, transfer};
use crate::spending_limits::{caps, quoted_as, record_signature, recovered, signs, token, units};
use crate::transfers::{CHAIN, COIN, DUE, NOW, settle, sign, view};

on_every_database!(
    a_limit_counts_what_was_spent_on_its_chain,
    many_at_once_on_two_chains_stay_within_the_limit_of_each,
    an_owner_limits_each_chain_apart,
    an_hourly_limit_is_that_of_one_chain,
    a_wallet_uses_the_same_nonces_on_each_chain,
    after_a_recovery_an_address_is_known_on_its_chain_alone,
    the_history_shows_the_payments_of_all_chains,
    small_deposits_are_small_by_the_amounts_of_their_chain,
);

const OTHER: u64 = CHAIN + 1;
const OTHER_COIN: AssetId = AssetId { chain_id: OTHER, contract: None };

/// Quotes without a fee on a chain: coin, or a token whose contract has the same address on both.
async fn quoted_on(
    subject: &Subject,
    (from, to): (&Account, &Account),
    chain_id: u64,
    amount: u64,
    in_token: bool,
) -> TransferId {
    let change = |it: &mut Transfer| {
        (it.chain_id, it.token, it.gas_limit) = (chain_id, in_token.then(token), 0);
    };
    quoted_as(subject, from, to, amount, change).await
}

/// A limit of this size for every asset of both chains.
fn each(limit: u64) -> SpendingRules {
    let assets =
        [CHAIN, OTHER].map(|chain| [None, Some(&token())].map(|it| AssetId::of(chain, it)));
    let a_day = assets.into_iter().flatten().map(|asset| (asset, units(limit))).collect();
    SpendingRules { a_day, ..SpendingRules::default() }
}

async fn a_limit_counts_what_was_spent_on_its_chain(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    for in_token in [false, true] {
        for chain in [CHAIN, OTHER] {
            for (amount, fits) in [(7, true), (4, false), (3, true), (1, false)] {
                let id = quoted_on(&subject, (&ann, &bob), chain, amount, in_token).await;
                let outcome = signs(&subject, id, each(10), NOW).await;
                assert_eq!(matches!(outcome, SignOutcome::Signed(_)), fits, "{outcome:?}");
                let refused = |it: &SignOutcome| matches!(it, SignOutcome::OverLimit(_));
                assert_eq!(refused(&outcome), !fits, "{outcome:?}");
            }
        }
    }
    // A fee counts in the coin of its chain alone.
    let spent = async |asset| database.spending(ann.id, asset, caps(10), NOW).await.unwrap().spent;
    let paid = quoted_as(&subject, &ann, &bob, 1, |it| {
        (it.chain_id, it.token, it.ladder) = (OTHER, Some(token()), ladder(3));
    });
    let outcome = signs(&subject, paid.await, SpendingRules::default(), NOW).await;
    assert!(matches!(outcome, SignOutcome::Signed(_)), "{outcome:?}");
    assert_eq!(spent(COIN).await, units(10));
    // Four for each unit of gas: that of the cancellation.
    assert_eq!(spent(OTHER_COIN).await, units(10 + 40));
    for (chain, units_spent) in [(CHAIN, 10), (OTHER, 11)] {
        assert_eq!(spent(AssetId::of(chain, Some(&token()))).await, units(units_spent));
    }
}

async fn many_at_once_on_two_chains_stay_within_the_limit_of_each(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut signing = Vec::new();
    for turn in 0..20 {
        let chain = if turn % 2 == 0 { CHAIN } else { OTHER };
        let id = quoted_on(&subject, (&ann, &bob), chain, 10, false).await;
        let database = database.clone();
        signing.push(tokio::spawn(async move {
            let view = view(1, 1_000_000, 0);
            (chain, database.sign(id, view, each(35), NOW, sign()).await.unwrap())
        }));
    }
    let mut signed = Vec::new();
    for outcome in signing {
        match outcome.await.unwrap() {
            (chain, SignOutcome::Signed(_)) => signed.push(chain),
            (_, SignOutcome::OverLimit(over)) => assert_eq!(over.reached.left, units(5)),
            (_, outcome) => panic!("{outcome:?}"),
        }
    }
    signed.sort_unstable();
    assert_eq!(signed, [CHAIN, CHAIN, CHAIN, OTHER, OTHER, OTHER]);
}

async fn an_owner_limits_each_chain_apart(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let set = async |asset, to| {
        let may = (Duration::ZERO, Raises::Always);
        database.set_spending_limit(ann.id, asset, Some(units(to)), may, NOW).await
    };
    set(COIN, 5).await.unwrap().unwrap();
    set(OTHER_COIN, 3).await.unwrap().unwrap();
    let limit = async |asset| database.spending(ann.id, asset, caps(100), NOW).await.unwrap().limit;
    assert_eq!((limit(COIN).await, limit(OTHER_COIN).await), (Some(units(5)), Some(units(3))));
    assert_eq!(limit(AssetId::native(OTHER + 1)).await, Some(units(100)));
    for (chain, amount, fits) in [(OTHER, 5, false), (CHAIN, 5, true), (OTHER, 3, true)] {
        let id = quoted_on(&subject, (&ann, &bob), chain, amount, false).await;
        let outcome = signs(&subject, id, SpendingRules::default(), NOW).await;
        assert_eq!(matches!(outcome, SignOutcome::Signed(_)), fits, "{outcome:?}");
    }
}

async fn an_hourly_limit_is_that_of_one_chain(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let outflow = SpendingRules { outflow: each(10).a_day, ..SpendingRules::default() };
    for in_token in [false, true] {
        for (chain, fits) in [(CHAIN, true), (CHAIN, false), (OTHER, true), (OTHER, false)] {
            let id = quoted_on(&subject, (&ann, &bob), chain, 9, in_token).await;
            let outcome = signs(&subject, id, outflow.clone(), NOW).await;
            assert_eq!(matches!(outcome, SignOutcome::Signed(_)), fits, "{outcome:?}");
            assert_eq!(matches!(outcome, SignOutcome::OverOutflow { .. }), !fits);
        }
    }
}

async fn a_wallet_uses_the_same_nonces_on_each_chain(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    for nonce in 0..2 {
        for chain in [CHAIN, OTHER] {
            // Covers the payments of one chain and not those of both.
            let view = ChainView { token: units(0), ..view(1, 20, 0) };
            let id = quoted_on(&subject, (&ann, &bob), chain, 10, false).await;
            match database.sign(id, view, SpendingRules::default(), NOW, sign()).await.unwrap() {
                SignOutcome::Signed(signed) => assert_eq!(signed.nonce, Some(nonce)),
                outcome => panic!("{outcome:?}"),
            }
        }
    }
    for chain in [CHAIN, OTHER] {
        let due = database.claim_due(chain, DUE, 10).await.unwrap();
        let chains: Vec<_> = due.iter().map(|due| due.transfer.chain_id).collect();
        assert_eq!(chains, [chain, chain]);
    }
}

async fn after_a_recovery_an_address_is_known_on_its_chain_alone(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let hold = DAY * 3;
    let held = || SpendingRules { hold, ..SpendingRules::default() };
    let earlier = quoted_as(&subject, &ann, &bob, 1, |it| it.gas_limit = 0).await;
    assert!(matches!(signs(&subject, earlier, held(), NOW).await, SignOutcome::Signed(_)));
    settle(database, earlier, 1, 1, Outcome::Paid { arrived: None }, 0).await;
    record_signature(database, &ann, earlier, &bob, NOW).await;
    let recovered_at = NOW.plus(Duration::from_secs(60));
    recovered(database, &ann, recovered_at).await;
    for (chain_id, is_known) in [(OTHER, false), (CHAIN, true)] {
        let change = |it: &mut Transfer| (it.chain_id, it.gas_limit) = (chain_id, 0);
        let id = quoted_as(&subject, &ann, &bob, 1, change).await;
        match signs(&subject, id, held(), recovered_at).await {
            SignOutcome::Signed(_) => assert!(is_known),
            SignOutcome::OverLimit(over) => assert!(!is_known && over.reached.is_held),
            outcome => panic!("{outcome:?}"),
        }
    }
}

/// Records a deposit of coin in the next block of a chain.
async fn receive(database: &Database, to: &Account, chain: u64, value: u64, at: Timestamp) {
    let block = |number: u64| BlockRef { number, hash: [u8::try_from(number).unwrap(); 32] };
    database.start_at(chain, block(0)).await.unwrap();
    let from = database.cursor(chain).await.unwrap().unwrap();
    let (next, hash) = (block(from.number + 1), u8::try_from(from.number + 1).unwrap());
    let payment = Payment {
        // The same hash on both chains: a transaction without a chain id can be sent on both.
        tx_hash: [hash; 32],
        from: [99; 20].into(),
        to: to.wallet.address,
        token: None,
        value: units(value),
        block: next.number,
    };
    let found = vec![Deposit { account: to.id, payment }];
    assert!(database.record_deposits(chain, from, next, found, at).await.unwrap());
}

async fn the_history_shows_the_payments_of_all_chains(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut expected = Vec::new();
    for (turn, chain) in [CHAIN, OTHER, OTHER, CHAIN].into_iter().enumerate() {
        let at = |part: i64| Timestamp(NOW.0 + 2 * i64::try_from(turn).unwrap() + part);
        receive(database, &ann, chain, 5, at(0)).await;
        let sent = Transfer { chain_id: chain, ..transfer(&ann, &bob, 1, at(1)) };
        database.insert_quote(sent.clone()).await.unwrap();
        let outcome = signs(&subject, sent.id, SpendingRules::default(), NOW).await;
        assert!(matches!(outcome, SignOutcome::Signed(_)), "{outcome:?}");
        expected.extend([("received", chain), ("sent", chain)]);
    }
    expected.reverse();
    let found = database.history(ann.id, Page::Newest, 100).await.unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|entry| match entry {
            HistoryEntry::Transfer(sent) => ("sent", sent.chain_id),
            HistoryEntry::Deposit { deposit, .. } => ("received", deposit.chain_id),
        })
        .collect();
    assert_eq!(shown, expected);
}

async fn small_deposits_are_small_by_the_amounts_of_their_chain(subject: Subject) {
    let least = [(COIN, units(10))].into();
    let database = subject.database.clone().with_notice_from(least);
    let ann = insert(&database, 1, "ann").await;
    for value in [5, 6] {
        for chain in [CHAIN, OTHER] {
            receive(&database, &ann, chain, value, NOW).await;
        }
    }
    // The account's own event, and one for each deposit on the chain without an amount.
    let notified = events(&database, EventCursor::default(), 3).await;
    let deposits: Vec<_> = notified.iter().filter_map(|event| event.deposit).collect();
    assert_eq!(deposits.len(), 2);
    let found = database.history(ann.id, Page::Newest, 10).await.unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|entry| match entry {
            HistoryEntry::Deposit { deposit, .. } => (deposit.chain_id, deposit.value),
            HistoryEntry::Transfer(sent) => panic!("{sent:?}"),
        })
        .collect();
    let sums = |chain| shown.iter().filter(move |(it, _)| *it == chain).map(|(_, it)| *it);
    assert_eq!(sums(CHAIN).collect::<Vec<_>>(), [units(11)]);
    assert_eq!(sums(OTHER).map(|Units(value)| value).sum::<U256>(), units(11).0);
    assert_eq!(sums(OTHER).count(), 2);
}
