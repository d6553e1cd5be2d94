//! Daily spending limits: reserved with the signature, released if nothing moved.

use std::time::Duration;

use kms_chain::ports::{ChainView, Sign, SignOutcome, TransferStore};
use kms_chain::settlement::Outcome;
use kms_chain::spending::{Allowance, Caps, DAY, OverLimit, OwnLimit, RAISE_AFTER, SpendingRules};
use kms_chain::transfer::Transfer;
use kms_core::account::{Account, SwapReason, Wallet, WalletSwap};
use kms_core::audit::{Action, AuditRecord, Caller, Details, Phase};
use kms_core::page_only::PageChange;
use kms_core::ports::{AccountStore, AuditLog, RecoveryStore, StoreError};
use kms_store::{Database, LimitRefused, Raises};
use kms_types::{
    AccountEvent, AssetId, EventCursor, EventKind, SckId, SecurityEvent, Timestamp, Token,
    TransferId, U256, Units,
};

use crate::fixtures::{
    Subject, events, insert, ladder, on_every_database, on_every_shared_database, transfer,
};
use crate::recoveries;
use crate::transfers::{CHAIN, COIN, NOW, finalize, replace_block, settle, sign, view};

on_every_database!(
    many_at_once_stay_within_the_limit,
    a_failed_transfer_is_released,
    spends_expire_after_a_day,
    an_owners_limit_applies_and_rises_after_a_day,
    a_raise_is_notified_once_and_a_lower_limit_is_not,
    a_raise_needs_a_caller_who_may,
    raises_are_rate_limited_and_lower_limits_are_not,
    each_asset_has_its_own_limit,
    the_maximum_fee_is_reserved_and_the_paid_fee_counts,
    after_a_recovery_nothing_leaves_but_to_recipients_paid_before,
);

on_every_shared_database!(
    a_tampered_limit_is_refused,
    a_spend_that_was_deleted_or_changed_is_refused,
    a_forged_settlement_releases_nothing,
    a_forged_earlier_payment_leaves_the_hold,
);

pub(crate) fn units(units: u64) -> Units {
    Units(U256::from(units))
}

pub(crate) fn caps(a_day: u64) -> Caps {
    Caps { a_day: Some(units(a_day)), ..Caps::default() }
}

pub(crate) fn rules(a_day: u64) -> SpendingRules {
    SpendingRules { a_day: [(COIN, units(a_day))].into(), ..SpendingRules::default() }
}

pub(crate) fn token() -> Token {
    Token { symbol: "USDC".parse().unwrap(), address: [200; 20].into(), decimals: 6 }
}

pub(crate) fn token_asset() -> AssetId {
    AssetId::of(CHAIN, Some(&token()))
}

/// Quotes a transfer without a fee, which `change` may modify.
pub(crate) async fn quoted_as(
    subject: &Subject,
    from: &Account,
    to: &Account,
    wei: u64,
    change: impl FnOnce(&mut Transfer),
) -> TransferId {
    let mut quote = transfer(from, to, wei, NOW);
    quote.ladder = ladder(0);
    change(&mut quote);
    subject.database.insert_quote(quote.clone()).await.unwrap();
    quote.id
}

pub(crate) async fn quoted(
    subject: &Subject,
    from: &Account,
    to: &Account,
    wei: u64,
) -> TransferId {
    quoted_as(subject, from, to, wei, |_| {}).await
}

/// Signs with the current wallet, on a chain that counts the nonces of transfers that have ended.
pub(crate) async fn signs(
    subject: &Subject,
    id: TransferId,
    rules: SpendingRules,
    now: Timestamp,
) -> SignOutcome {
    let (mut nonce, mut wallet_version) = (0, 1);
    loop {
        let view = ChainView { token: units(1_000_000), ..view(1, 1_000_000, nonce) };
        let sign = Sign { wallet_version, ..sign() };
        match subject.database.sign(id, view, rules.clone(), now, sign).await.unwrap() {
            SignOutcome::Contradicted { nonce: ended } => nonce = ended + 1,
            SignOutcome::WalletChanged if wallet_version == 1 => wallet_version = 2,
            outcome => return outcome,
        }
    }
}

async fn many_at_once_stay_within_the_limit(subject: Subject) {
    let (ann, bob) =
        (insert(&subject.database, 1, "ann").await, insert(&subject.database, 2, "bob").await);
    let mut signing = Vec::new();
    for _ in 0..20 {
        let id = quoted(&subject, &ann, &bob, 10).await;
        let database = subject.database.clone();
        signing.push(tokio::spawn(async move {
            database.sign(id, view(1, 1_000_000, 0), rules(75), NOW, sign()).await.unwrap()
        }));
    }
    let mut signed = 0;
    for outcome in signing {
        match outcome.await.unwrap() {
            SignOutcome::Signed(_) => signed += 1,
            SignOutcome::OverLimit(OverLimit { token: None, reached }) => {
                assert_eq!((reached.limit, reached.left), (units(75), units(5)));
                assert_eq!(reached.possible_at, Some(NOW.plus(DAY)));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(signed, 7);
    let spending = subject.database.spending(ann.id, COIN, caps(75), NOW).await.unwrap();
    assert_eq!((spending.limit, spending.spent), (Some(units(75)), units(70)));
    // The limit of another account is unaffected.
    let id = quoted(&subject, &bob, &ann, 75).await;
    assert!(matches!(signs(&subject, id, rules(75), NOW).await, SignOutcome::Signed(_)));
}

async fn a_failed_transfer_is_released(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let failures = [Outcome::Reverted, Outcome::NothingMoved, Outcome::Superseded];
    for (block, failure) in (1_u8..).zip(failures) {
        let id = quoted(&subject, &ann, &bob, 10).await;
        assert!(matches!(signs(&subject, id, rules(10), NOW).await, SignOutcome::Signed(_)));
        let next = quoted(&subject, &ann, &bob, 1).await;
        assert!(matches!(signs(&subject, next, rules(10), NOW).await, SignOutcome::OverLimit(_)));
        settle(database, id, block.into(), block, failure, 0).await;
        finalize(database, block.into()).await;
        let spending = database.spending(ann.id, COIN, caps(10), NOW).await.unwrap();
        assert_eq!(spending.spent, units(0));
    }
}

async fn spends_expire_after_a_day(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let id = quoted(&subject, &ann, &bob, 10).await;
    assert!(matches!(signs(&subject, id, rules(10), NOW).await, SignOutcome::Signed(_)));
    let next = quoted(&subject, &ann, &bob, 10).await;
    let almost = Timestamp(NOW.plus(DAY).0 - 1);
    assert!(matches!(signs(&subject, next, rules(10), almost).await, SignOutcome::OverLimit(_)));
    let quote = database.transfer(next).await.unwrap().unwrap();
    let own = OwnLimit::default();
    let over = async |now| database.over_limit(quote.clone(), None, own, rules(10), now).await;
    assert!(over(almost).await.unwrap().is_some());
    assert!(over(NOW.plus(DAY)).await.unwrap().is_none());
    assert!(matches!(
        signs(&subject, next, rules(10), NOW.plus(DAY)).await,
        SignOutcome::Signed(_)
    ));
}

async fn an_owners_limit_applies_and_rises_after_a_day(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    database
        .set_spending_limit(ann.id, COIN, Some(units(5)), (Duration::ZERO, Raises::Always), NOW)
        .await
        .unwrap()
        .unwrap();
    let id = quoted(&subject, &ann, &bob, 6).await;
    let refused = signs(&subject, id, rules(10), NOW).await;
    assert!(matches!(refused, SignOutcome::OverLimit(over) if over.reached.limit == units(5)));
    database
        .set_spending_limit(ann.id, COIN, Some(units(100)), (Duration::ZERO, Raises::Always), NOW)
        .await
        .unwrap()
        .unwrap();
    let soon = NOW.plus(Duration::from_secs(60));
    match signs(&subject, id, rules(10), soon).await {
        SignOutcome::OverLimit(OverLimit { reached, .. }) => {
            assert_eq!(reached.possible_at, Some(NOW.plus(RAISE_AFTER)));
        }
        outcome => panic!("{outcome:?}"),
    }
    let later = NOW.plus(RAISE_AFTER);
    let spending = database.spending(ann.id, COIN, caps(10), later).await.unwrap();
    assert_eq!((spending.limit, spending.own.at(later)), (Some(units(10)), Some(units(100))));
    assert!(matches!(signs(&subject, id, rules(10), later).await, SignOutcome::Signed(_)));
    database
        .set_spending_limit(ann.id, COIN, None, (Duration::ZERO, Raises::Always), later)
        .await
        .unwrap()
        .unwrap();
    let spending = database.spending(ann.id, COIN, Caps::default(), later).await.unwrap();
    assert_eq!(spending.limit, Some(units(100)));
}

async fn a_raise_is_notified_once_and_a_lower_limit_is_not(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let set = async |wanted: Option<u64>| {
        let wanted = wanted.map(units);
        database
            .set_spending_limit(ann.id, COIN, wanted, (Duration::ZERO, Raises::Always), NOW)
            .await
            .unwrap()
            .unwrap();
    };
    for wanted in [Some(5), Some(4), Some(9), Some(9), None, Some(4)] {
        set(wanted).await;
    }
    let notified = events(database, EventCursor::default(), 3).await;
    let kinds: Vec<_> = notified.iter().map(|event| event.kind).collect();
    let raised = EventKind::Security(SecurityEvent::LimitRaiseRequested);
    assert_eq!(kinds, [EventKind::Account(AccountEvent::Created), raised, raised]);
}

async fn each_asset_has_its_own_limit(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let asset = token_asset();
    database
        .set_spending_limit(ann.id, asset, Some(units(1)), (Duration::ZERO, Raises::Always), NOW)
        .await
        .unwrap()
        .unwrap();
    let id = quoted(&subject, &ann, &bob, 6).await;
    assert!(matches!(
        signs(&subject, id, SpendingRules::default(), NOW).await,
        SignOutcome::Signed(_)
    ));
    for (units, passes) in [(2, false), (1, true)] {
        let id = quoted_as(&subject, &ann, &bob, units, |it| it.token = Some(token())).await;
        match signs(&subject, id, SpendingRules::default(), NOW).await {
            SignOutcome::Signed(_) => assert!(passes),
            SignOutcome::OverLimit(over) => assert!(!passes && over.token == Some(token())),
            outcome => panic!("{outcome:?}"),
        }
    }
}

async fn the_maximum_fee_is_reserved_and_the_paid_fee_counts(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let spent = async || database.spending(ann.id, COIN, caps(0), NOW).await.unwrap().spent;
    let signed = async |change: fn(&mut Transfer)| {
        let id = quoted_as(&subject, &ann, &bob, 10, change).await;
        assert!(matches!(signs(&subject, id, rules(57), NOW).await, SignOutcome::Signed(_)));
        id
    };
    let paid = signed(|it| it.ladder = ladder(3)).await;
    assert_eq!(spent().await, units(40));
    // Ten and a fee of ten exceed the limit, for the native coin or a token.
    for in_token in [false, true] {
        let id = quoted_as(&subject, &ann, &bob, 10, |it| {
            it.ladder = if in_token { ladder(2) } else { ladder(1) };
            it.token = in_token.then(token);
        });
        match signs(&subject, id.await, rules(50), NOW).await {
            SignOutcome::OverLimit(OverLimit { token: None, reached }) => {
                assert_eq!((reached.limit, reached.left), (units(50), units(10)));
                assert_eq!(reached.possible_at, Some(NOW.plus(DAY)));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    settle(database, paid, 1, 1, Outcome::Paid { arrived: None }, 7).await;
    assert_eq!(spent().await, units(40));
    finalize(database, 1).await;
    assert_eq!(spent().await, units(17));
    // The chain removes it: what it may cost is reserved again.
    assert_eq!(replace_block(database, 1).await, [paid]);
    assert_eq!(spent().await, units(40));
    settle(database, paid, 1, 1, Outcome::Paid { arrived: None }, 7).await;
    finalize(database, 1).await;
    assert_eq!(spent().await, units(17));
    // A transfer that moved nothing cost only its fee.
    let in_token: fn(&mut Transfer) = |it| (it.ladder, it.token) = (ladder(3), Some(token()));
    let nothing = signed(in_token).await;
    // The cancellation of a token payment costs more than the payment: four for each of ten units.
    assert_eq!(spent().await, units(17 + 40));
    settle(database, nothing, 2, 2, Outcome::NothingMoved, 5).await;
    finalize(database, 2).await;
    let reverted = signed(|it| it.ladder = ladder(1)).await;
    settle(database, reverted, 3, 3, Outcome::Reverted, 2).await;
    finalize(database, 3).await;
    assert_eq!(spent().await, units(24));
    let lost = signed(|it| it.ladder = ladder(1)).await;
    settle(database, lost, 4, 4, Outcome::Superseded, 0).await;
    finalize(database, 4).await;
    assert_eq!(spent().await, units(24));
    let asset = token_asset();
    let in_tokens = database.spending(ann.id, asset, caps(0), NOW).await.unwrap();
    assert_eq!(in_tokens.spent, units(0));
}

async fn a_raise_needs_a_caller_who_may(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let set = async |to, raises| {
        let set = database.set_spending_limit(ann.id, COIN, to, (Duration::ZERO, raises), NOW);
        set.await.unwrap()
    };
    let refused = Err(LimitRefused::Raise);
    assert_eq!(set(Some(units(9)), Raises::Never).await, Ok(()));
    assert_eq!(set(Some(units(5)), Raises::Never).await, Ok(()));
    for wanted in [Some(units(6)), None] {
        assert_eq!(set(wanted, Raises::Never).await, refused);
    }
    assert_eq!(set(Some(units(6)), Raises::UnlessPageOnly).await, Ok(()));
    database.change_page(ann.id, PageChange::Enter { now: NOW }, NOW).await.unwrap();
    assert_eq!(set(Some(units(7)), Raises::UnlessPageOnly).await, refused);
    assert_eq!(set(Some(units(4)), Raises::UnlessPageOnly).await, Ok(()));
    assert_eq!(set(Some(units(7)), Raises::Always).await, Ok(()));
    let own = database.spending(ann.id, COIN, caps(100), NOW).await.unwrap().own;
    assert_eq!((own.units, own.later.map(|(to, _)| to)), (Some(units(4)), Some(Some(units(7)))));
}

async fn raises_are_rate_limited_and_lower_limits_are_not(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let set = async |to| {
        database
            .set_spending_limit(
                ann.id,
                COIN,
                Some(units(to)),
                (Duration::ZERO, Raises::Always),
                NOW,
            )
            .await
    };
    set(5).await.unwrap().unwrap();
    for to in 6..16 {
        set(to).await.unwrap().unwrap();
    }
    // A repeated request is not a new one.
    set(15).await.unwrap().unwrap();
    let refused = set(16).await.unwrap();
    let hour = Duration::from_secs(3_600);
    assert!(matches!(refused, Err(LimitRefused::TooMany(wait)) if wait > hour), "{refused:?}");
    let own = database.spending(ann.id, COIN, caps(100), NOW).await.unwrap().own;
    assert_eq!(own.later.map(|(limit, _)| limit), Some(Some(units(15))));
    set(4).await.unwrap().unwrap();
    assert!(set(5).await.unwrap().is_err());
    let own = database.spending(ann.id, COIN, caps(100), NOW).await.unwrap().own;
    assert_eq!((own.units, own.later), (Some(units(4)), None));
}

async fn a_tampered_limit_is_refused(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    database
        .set_spending_limit(ann.id, COIN, Some(units(5)), (Duration::ZERO, Raises::Always), NOW)
        .await
        .unwrap()
        .unwrap();
    database
        .set_spending_limit(ann.id, COIN, Some(units(50)), (Duration::ZERO, Raises::Always), NOW)
        .await
        .unwrap()
        .unwrap();
    let id = quoted(&subject, &ann, &bob, 6).await;
    for change in ["units = '500'", "later_at = 0", "later = 'none'"] {
        subject.tamper(&format!("update spending_limits set {change}"));
        let signed = database.sign(id, view(1, 1_000_000, 0), rules(10), NOW, sign()).await;
        assert!(signed.is_err(), "{change}");
    }
}

/// Completes a recovery of the account.
pub(crate) async fn recovered(database: &Database, account: &Account, at: Timestamp) {
    let recovery = recoveries::ready(account.id);
    assert!(database.insert_recovery(recovery).await.unwrap());
    let done = recovery.completed(Timestamp(1_200)).unwrap();
    let wallet = Wallet { version: 2, sck_id: SckId::random(), ..account.wallet.clone() };
    let reason = SwapReason::Recovery(done);
    let swap = WalletSwap { account: account.id, replaces: 1, wallet, reason, at };
    assert!(database.swap_wallet(swap).await.unwrap());
}

async fn after_a_recovery_nothing_leaves_but_to_recipients_paid_before(subject: Subject) {
    let database = &subject.database;
    let (bob, carl) = (insert(database, 2, "bob").await, insert(database, 3, "carl").await);
    let ann = insert(database, 1, "ann").await;
    let recovered_at = NOW.plus(Duration::from_secs(60));
    let after = recovered_at.plus(Duration::from_secs(60));
    let hold = DAY * 3;
    let held = || SpendingRules { hold, ..SpendingRules::default() };
    // Only the coin's allowance is written out; the token was configured later.
    let up_to_5 =
        || SpendingRules { after_recovery: [(COIN, Allowance::UpTo(units(5)))].into(), ..held() };
    let quote = async |to: &Account, wei, in_token: bool, at| {
        let change = |it: &mut Transfer| {
            (it.created_at, it.token) = (at, in_token.then(token));
            // Without fees, also of the cancellation.
            it.gas_limit = 0;
        };
        quoted_as(&subject, &ann, to, wei, change).await
    };
    let refused = async |id, rules, now| match signs(&subject, id, rules, now).await {
        SignOutcome::OverLimit(over) => over.reached,
        outcome => panic!("{outcome:?}"),
    };
    let signed = async |id, rules, now| {
        let outcome = signs(&subject, id, rules, now).await;
        assert!(matches!(outcome, SignOutcome::Signed(_)), "{outcome:?}");
    };
    // Bob was paid before the recovery, Carl was not.
    let earlier = quote(&bob, 1, false, NOW).await;
    signed(earlier, held(), NOW).await;
    settle(database, earlier, 1, 1, Outcome::Paid { arrived: None }, 0).await;
    // Without the record of its signature it would be no earlier recipient.
    record_signature(database, &ann, earlier, &bob, NOW).await;
    recovered(database, &ann, recovered_at).await;
    signed(quote(&bob, 7, false, after).await, held(), after).await;
    signed(quote(&bob, 7, true, after).await, held(), after).await;
    for in_token in [false, true] {
        let reached = refused(quote(&carl, 1, in_token, after).await, held(), after).await;
        assert!(reached.is_held);
        assert_eq!(reached.possible_at, Some(recovered_at.plus(hold)));
    }
    assert!(refused(quote(&carl, 1, true, after).await, up_to_5(), after).await.is_held);
    // A quote from before the recovery is held, too.
    assert!(refused(quote(&carl, 1, false, NOW).await, held(), after).await.is_held);
    // What was sent to Bob since counts towards the allowance.
    let reached = refused(quote(&carl, 1, false, after).await, up_to_5(), after).await;
    assert_eq!((reached.limit, reached.left, reached.is_held), (units(5), units(0), false));
    // A payment that was quoted before the recovery and signed after it makes no earlier recipient.
    let dora = insert(database, 4, "dora").await;
    let since = after.plus(DAY);
    let small = quote(&dora, 1, false, NOW).await;
    signed(small, up_to_5(), since).await;
    settle(database, small, 2, 2, Outcome::Paid { arrived: None }, 0).await;
    assert!(refused(quote(&dora, 1, false, since).await, held(), since).await.is_held);
    let unlimited =
        SpendingRules { after_recovery: [(token_asset(), Allowance::Unlimited)].into(), ..held() };
    signed(quote(&carl, 9, true, after).await, unlimited, after).await;
    let end = recovered_at.plus(hold);
    signed(quote(&carl, 9, false, end).await, held(), end).await;
}

/// What the server appends once a payment is signed.
pub(crate) async fn record_signature(
    database: &Database,
    from: &Account,
    transfer: TransferId,
    to: &Account,
    at: Timestamp,
) {
    let record = AuditRecord {
        at,
        caller: Caller::new("bot", "r-1"),
        action: Action::Send(transfer),
        phase: Phase::Outcome("ok"),
        account: Some(from.id),
        telegram_id: Some(from.telegram_id),
        details: Details::default().with("chain", CHAIN).with("to", to.wallet.address),
    };
    database.append(record).await.unwrap();
}

async fn a_spend_that_was_deleted_or_changed_is_refused(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let id = quoted(&subject, &ann, &bob, 6).await;
    assert!(matches!(signs(&subject, id, rules(10), NOW).await, SignOutcome::Signed(_)));
    record_signature(database, &ann, id, &bob, NOW).await;
    let next = quoted(&subject, &ann, &bob, 6).await;
    subject.tamper("create table kept as select * from spends");
    let others = format!("account_id = '{}'", bob.id);
    for change in [
        "update spends set units = '0'",
        "update spends set fee = '1'",
        "update spends set unpaid_fee = '0'",
        "update spends set asset = '0x00'",
        "update spends set at = 0",
        &format!("update spends set {others}"),
        "update spends set mac_key = 2",
        "delete from spends",
    ] {
        subject.tamper(change);
        let refused = database.sign(next, view(1, 1_000_000, 0), rules(10), NOW, sign()).await;
        let is_named = |error: &StoreError| {
            matches!(
                error,
                StoreError::Tampered { table: "spends", .. }
                    | StoreError::NoRowKey { table: "spends", .. }
            )
        };
        assert!(refused.as_ref().is_err_and(is_named), "{change}: {refused:?}");
        subject.tamper("delete from spends");
        subject.tamper("insert into spends select * from kept");
    }
    assert!(matches!(signs(&subject, next, rules(10), NOW).await, SignOutcome::OverLimit(_)));
    // A day later the row is not needed.
    let tomorrow = NOW.plus(DAY);
    assert_eq!(database.delete_old_spends(Timestamp(NOW.0 + 1), 10).await.unwrap(), 1);
    assert!(matches!(signs(&subject, next, rules(10), tomorrow).await, SignOutcome::Signed(_)));
}

/// A transfer that no block ended is not released by a row that says so.
async fn a_forged_settlement_releases_nothing(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    let id = quoted(&subject, &ann, &bob, 10).await;
    assert!(matches!(signs(&subject, id, rules(10), NOW).await, SignOutcome::Signed(_)));
    // The chain is followed from here.
    let other = quoted(&subject, &bob, &ann, 1).await;
    assert!(matches!(signs(&subject, other, rules(10), NOW).await, SignOutcome::Signed(_)));
    settle(database, other, 1, 1, Outcome::Superseded, 0).await;
    subject.tamper("create table forged as select * from settlements");
    subject.tamper(&format!("update forged set transfer_id = '{id}'"));
    subject.tamper("insert into settlements select * from forged");
    subject.tamper(&format!("update transfers set state = 'broadcast' where id = '{id}'"));
    finalize(database, 1).await;
    let spent =
        async |who: &Account| database.spending(who.id, COIN, caps(10), NOW).await.unwrap().spent;
    assert_eq!(spent(&bob).await, units(0));
    assert_eq!(spent(&ann).await, units(10));
}

/// An attacker writes what an earlier payment leaves behind: a mined transfer, a spend, a record.
async fn a_forged_earlier_payment_leaves_the_hold(subject: Subject) {
    let database = &subject.database;
    let (bob, eve) = (insert(database, 2, "bob").await, insert(database, 3, "eve").await);
    let ann = insert(database, 1, "ann").await;
    let held = || SpendingRules { hold: DAY * 3, ..SpendingRules::default() };
    let without_fee = |it: &mut Transfer| it.gas_limit = 0;
    let earlier = quoted_as(&subject, &ann, &bob, 1, without_fee).await;
    assert!(matches!(signs(&subject, earlier, held(), NOW).await, SignOutcome::Signed(_)));
    record_signature(database, &ann, earlier, &bob, NOW).await;
    settle(database, earlier, 1, 1, Outcome::Paid { arrived: None }, 0).await;
    let recovered_at = NOW.plus(Duration::from_secs(60));
    recovered(database, &ann, recovered_at).await;
    // The forged spend is too old to be looked at for the limit of a day.
    let after = recovered_at.plus(DAY);
    let to_eve = quoted_as(&subject, &ann, &eve, 1, without_fee).await;
    let forged = quoted_as(&subject, &ann, &eve, 1, without_fee).await;
    let (of_bob, of_eve) = (bob.wallet.address, eve.wallet.address);
    for change in [
        format!("update transfers set state = 'mined', created_at = 1 where id = '{forged}'"),
        "create table forged as select * from spends".to_owned(),
        format!("update forged set transfer_id = '{forged}'"),
        "insert into spends select * from forged".to_owned(),
        "create table record as select * from audit where action = 'send'".to_owned(),
        format!(
            "update record set seq = 1000, chain_seq = 1000, subject = '{forged}', \
             details = 'chain={CHAIN}\nto={of_eve}'"
        ),
        "insert into audit (at, actor, request_id, action, subject, account_id, telegram_id, \
         phase, outcome, details, chain_seq, prev_hash, hash, key_id, keyed_hash) \
         select at, actor, request_id, action, subject, account_id, telegram_id, \
         phase, outcome, details, chain_seq, prev_hash, hash, key_id, keyed_hash from record"
            .to_owned(),
        // The payment to Bob, as if it had been to Eve.
        format!(
            "update transfers set to_address = '{}' where id = '{earlier}'",
            of_eve.to_lower_hex()
        ),
    ] {
        subject.tamper(&change);
        match signs(&subject, to_eve, held(), after).await {
            SignOutcome::OverLimit(over) => assert!(over.reached.is_held, "{change}"),
            outcome => panic!("{change}: {outcome:?}"),
        }
    }
    let back = format!(
        "update transfers set to_address = '{}' where id = '{earlier}'",
        of_bob.to_lower_hex()
    );
    subject.tamper(&back);
    let to_bob = quoted_as(&subject, &ann, &bob, 1, without_fee).await;
    assert!(matches!(signs(&subject, to_bob, held(), after).await, SignOutcome::Signed(_)));
}
