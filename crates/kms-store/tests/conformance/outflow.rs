//! What all accounts together may send in an hour: taken with the signature, and by it alone.

use std::time::Duration;

use kms_chain::ports::{SignOutcome, TransferStore};
use kms_chain::spending::{HOUR, SpendingRules};

use crate::fixtures::{Subject, insert, on_every_database};
use crate::spending_limits::{quoted, quoted_as, signs, token, token_asset, units};
use crate::transfers::{COIN, NOW, sign, view};

on_every_database!(
    many_at_once_stay_within_what_all_may_send,
    what_is_not_signed_takes_nothing,
    each_asset_has_its_own_bucket,
);

fn outflow(limit: u64) -> SpendingRules {
    SpendingRules { outflow: [(COIN, units(limit))].into(), ..SpendingRules::default() }
}

async fn many_at_once_stay_within_what_all_may_send(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let mut signing = Vec::new();
    for turn in 0..20 {
        let (from, to) = if turn % 2 == 0 { (&ann, &bob) } else { (&bob, &ann) };
        let id = quoted(&subject, from, to, 10).await;
        let database = database.clone();
        signing.push(tokio::spawn(async move {
            database.sign(id, view(1, 1_000_000, 0), outflow(75), NOW, sign()).await.unwrap()
        }));
    }
    let mut signed = 0;
    for outcome in signing {
        match outcome.await.unwrap() {
            SignOutcome::Signed(_) => signed += 1,
            // Half of the amount is left, and the other half is refilled in four minutes.
            SignOutcome::OverOutflow { after } => {
                assert!((Duration::from_secs(180)..=Duration::from_secs(241)).contains(&after));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(signed, 7);
}

/// Else an account could use up what all may send without sending anything.
async fn what_is_not_signed_takes_nothing(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let rules = SpendingRules { a_day: [(COIN, units(5))].into(), ..outflow(10) };
    let above_her_limit = quoted(&subject, &ann, &bob, 6).await;
    for _ in 0..3 {
        let outcome = signs(&subject, above_her_limit, rules.clone(), NOW).await;
        assert!(matches!(outcome, SignOutcome::OverLimit(_)), "{outcome:?}");
    }
    let above_all = quoted(&subject, &ann, &bob, 11).await;
    match signs(&subject, above_all, outflow(10), NOW).await {
        SignOutcome::OverOutflow { after } => assert_eq!(after, HOUR),
        outcome => panic!("{outcome:?}"),
    }
    let all = quoted(&subject, &ann, &bob, 10).await;
    assert!(matches!(signs(&subject, all, outflow(10), NOW).await, SignOutcome::Signed(_)));
    // A repeat of what is signed takes nothing, either.
    assert!(matches!(signs(&subject, all, outflow(10), NOW).await, SignOutcome::NotQuoted(_)));
}

async fn each_asset_has_its_own_bucket(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let limits = [(COIN, units(5)), (token_asset(), units(7))];
    let rules = SpendingRules { outflow: limits.into(), ..SpendingRules::default() };
    for (in_token, amount, fits) in
        [(true, 7, true), (true, 1, false), (false, 5, true), (false, 1, false)]
    {
        let change = |it: &mut kms_chain::transfer::Transfer| {
            it.token = in_token.then(token);
        };
        let id = quoted_as(&subject, &ann, &bob, amount, change).await;
        let outcome = signs(&subject, id, rules.clone(), NOW).await;
        assert_eq!(matches!(outcome, SignOutcome::Signed(_)), fits, "{outcome:?}");
        assert_eq!(matches!(outcome, SignOutcome::OverOutflow { .. }), !fits);
    }
}
