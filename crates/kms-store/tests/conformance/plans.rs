//! The cost of a transfer does not grow with how many there are: every statement that quote,
//! confirm, settle, history and outbox really issue is explained with 200,000 rows in each table,
//! half of them of one account.

mod explain;
mod fill;
mod recorder;

use std::time::Duration;

use kms_chain::follower::{BlockRef, DepositStore, Payment};
use kms_chain::ports::{ChainView, Progress, ReplaceOutcome, SignOutcome, TransferStore};
use kms_chain::settlement::{NonceUse, Outcome, Settlement, SettlementStore};
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::WaitReason;
use kms_core::account::Account;
use kms_core::ports::{AccountStore, AuditLog};
use kms_store::{Page, RateLimit};
use kms_types::{
    AccountRef, EventCursor, EventStream, ReplacementId, Timestamp, Token, TransferId, U256, Units,
    Wei,
};

use crate::fixtures::{Subject, insert, transfer};
use crate::ladder::sign_again;
use crate::spending_limits::{record_signature, recovered};
use crate::transfers::{
    BROADCAST, CHAIN, COIN, DUE, KEPT_UNTIL, NOW, finalize, replace_block, settle, sign, view,
};

/// Indexes without which one of the statements reads a whole table.
const NEEDED: [&str; 3] = ["events_order", "settlements_of_block", "transfer_checks_due"];

/// A block above those of the copies.
const NEWEST: u64 = 1_000_000;

#[tokio::test]
async fn no_statement_reads_a_whole_table_in_a_file() {
    recorder::install();
    no_statement_reads_a_whole_table(Subject::file().await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn no_statement_reads_a_whole_table_in_postgresql() {
    recorder::install();
    no_statement_reads_a_whole_table(Subject::postgres().await).await;
}

async fn no_statement_reads_a_whole_table(subject: Subject) {
    let database = &subject.database;
    let (ann, bob) = (insert(database, 1, "ann").await, insert(database, 2, "bob").await);
    // A row of each table, which is copied.
    flow(&subject, &ann, &bob, 0, EventCursor::default()).await;
    let tables = fill::fill(&subject, &ann);
    // The bot has read nearly everything.
    let near_the_end = subject.texts(
        "select cast(tx as text) || '-' || cast(seq as text) as text from events \
         where stream = 'payments' order by tx desc, seq desc limit 1 offset 5",
    );
    let near_the_end: EventCursor = near_the_end[0].parse().unwrap();
    recorder::record(&subject.url);
    flow(&subject, &ann, &bob, 1, near_the_end).await;
    let mut statements = recorder::recorded(&subject.url);
    // After a recovery it is looked up whether the recipient was paid before.
    recovered(database, &ann, NOW.plus(Duration::from_secs(60))).await;
    recorder::record(&subject.url);
    quote(&subject, &ann, &bob).await;
    statements.extend(recorder::recorded(&subject.url));
    assert!(statements.len() > 30, "{} statements", statements.len());
    let issued = |part: &str| statements.iter().any(|statement| statement.contains(part));
    assert!(issued("and state in ('mined', 'final')"), "no earlier payment was looked up");
    assert!(issued("audit_head"), "nothing was appended to the audit");
    let mut slow = Vec::new();
    for statement in &statements {
        let plan = explain::explain(&subject, statement);
        let generic = explain::generic(&subject, statement, &plan);
        for plan in [plan].into_iter().chain(generic) {
            if let Some(why) = explain::problem(&plan, &tables) {
                slow.push(format!("{why}\n{statement}\n{plan}"));
            }
        }
    }
    // What has no index is found.
    let plan = explain::explain(&subject, "select id from transfers where client_ref = 'none'");
    assert!(explain::problem(&plan, &tables).is_some(), "{plan}");
    assert!(slow.is_empty(), "{} of {}:\n{}", slow.len(), statements.len(), slow.join("\n\n"));
    // Payments of a day are found by an index of them alone.
    let of_a_day = |it: &&String| it.starts_with("select subject as transfer from audit");
    let plan = explain::explain(&subject, statements.iter().find(of_a_day).unwrap());
    assert!(plan.contains("audit_sends"), "{plan}");
    counts_of_what_is_in_flight_read_nothing_else(&subject, &tables).await;
    // The test would find an index that is missing.
    for index in NEEDED {
        subject.run(&[format!("drop index {index}")]);
        let is_found = |statement: &String| {
            explain::problem(&explain::explain(&subject, statement), &tables).is_some()
        };
        assert!(statements.iter().any(is_found), "{index}");
    }
}

/// They grow with what is in flight, which is little.
async fn counts_of_what_is_in_flight_read_nothing_else(subject: &Subject, tables: &[String]) {
    let settled = [
        "delete from transfer_checks",
        "delete from transfer_waits where since > 0 and transfer_id > '00000009'",
        "update settlements set final_at = 1",
        "analyze",
    ];
    subject.run(&settled.map(str::to_owned));
    recorder::record(&subject.url);
    subject.database.transfers_in_flight().await.unwrap();
    subject.database.waits_by_reason().await.unwrap();
    let counts = recorder::recorded(&subject.url);
    assert_eq!(counts.len(), 2, "{counts:?}");
    let of_others =
        |table: &&String| !matches!(table.as_str(), "transfer_checks" | "transfer_waits");
    let tables: Vec<_> = tables.iter().filter(of_others).cloned().collect();
    for statement in counts {
        let plan = explain::explain(subject, &statement);
        // By an index of what is not final.
        let plan: Vec<_> = plan.lines().filter(|line| !line.contains("_not_final")).collect();
        assert_eq!(explain::problem(&plan.join("\n"), &tables), None, "{statement}\n{plan:?}");
    }
}

/// The rules of a server with every kind of limit.
fn rules() -> SpendingRules {
    let enough = [(COIN, Units(U256::from(1_000_000)))];
    SpendingRules {
        a_day: enough.into(),
        outflow: enough.into(),
        hold: Duration::from_secs(3 * 24 * 3_600),
        ..SpendingRules::default()
    }
}

/// Everything that happens to transfers and deposits, and is read of them. The bot has read the
/// events up to `read`.
async fn flow(subject: &Subject, ann: &Account, bob: &Account, round: u8, read: EventCursor) {
    let database = &subject.database;
    let again = quote(subject, ann, bob).await;
    database.cancel(again, NOW).await.unwrap();
    let paid = Outcome::Paid { arrived: None };
    let outcomes = [Some(paid), Some(Outcome::Superseded), Some(Outcome::Cancelled), None];
    for (index, outcome) in (1..).zip(outcomes) {
        let id = quote(subject, ann, bob).await;
        let nonce = u64::from(round) * 1_000_000 + u64::from(index);
        let chain = view(1, 1_000_000, nonce);
        let signed = database.sign(id, chain, rules(), NOW, sign()).await.unwrap();
        assert!(matches!(signed, SignOutcome::Signed(_)), "{signed:?}");
        record_signature(database, ann, id, bob, NOW).await;
        database.advance(id, BROADCAST, NOW).await.unwrap();
        let (block, hash) = (NEWEST + u64::from(round), 16 * round + index);
        let Some(outcome) = outcome else { continue };
        if outcome == Outcome::Cancelled {
            replace(subject, id, chain, (block, hash)).await;
            continue;
        }
        let used = NonceUse { from: ann.wallet.address, nonce, tx_hash: [hash; 32] };
        database.match_nonces(CHAIN, vec![used]).await.unwrap();
        settle(database, id, block, hash, outcome, 3).await;
        replace_block(database, block).await;
        settle(database, id, block, hash, outcome, 3).await;
        finalize(database, block).await;
    }
    database.erase_old_signed_bytes(KEPT_UNTIL, 10).await.unwrap();
    database.claim_due(CHAIN, DUE, 200).await.unwrap();
    deposit(subject, ann, round).await;
    let found = database.history(ann.id, Page::Newest, 20).await.unwrap();
    let middle = found[found.len() / 2].place();
    for page in [Page::Before(middle.clone()), Page::After(middle)] {
        database.history(ann.id, page, 20).await.unwrap();
    }
    let payments = EventStream::Payments;
    let events = database.events_after(payments, read, 100).await.unwrap();
    database.acknowledge_events("bot", payments, events.end).await.unwrap();
    database.acknowledged_events("bot").await.unwrap();
    let long_ago = Timestamp(0);
    database.delete_unsigned_quotes(long_ago, 100).await.unwrap();
    database.delete_old_spends(long_ago, 100).await.unwrap();
    database.delete_events(long_ago, 100).await.unwrap();
    let since_then = NOW.plus(Duration::from_millis(1));
    assert_ne!(database.delete_old_attempts(since_then, 2).await.unwrap(), 0);
    database.notify_digests(long_ago, 100).await.unwrap();
}

/// Signs again, waits, and is found in a block that the follower has passed.
async fn replace(subject: &Subject, id: TransferId, view: ChainView, (block, hash): (u64, u8)) {
    let database = &subject.database;
    let (replacement, again) = (ReplacementId::random(), sign_again(hash, 2, 1));
    database.last_sent(id).await.unwrap();
    let replaced = database.replace(id, replacement, view, rules(), NOW, again).await.unwrap();
    assert!(matches!(replaced, ReplaceOutcome::Replaced(_)), "{replaced:?}");
    assert_eq!(database.replaced_by(replacement).await.unwrap(), Some(id));
    database.advance(id, Progress::Waiting(WaitReason::Fee), NOW).await.unwrap();
    database.advance(id, Progress::Resumed, NOW).await.unwrap();
    database.cancel(id, NOW).await.unwrap();
    let block = BlockRef { number: block, hash: [1; 32] };
    let (tx_hash, outcome, fee) = ([hash; 32], Outcome::Cancelled, Wei(U256::from(3)));
    let settlement = Settlement { transfer: id, block, tx_hash, outcome, fee };
    database.settle_final(CHAIN, block, vec![settlement], NOW, KEPT_UNTIL).await.unwrap();
}

/// Quotes as the server does.
async fn quote(subject: &Subject, ann: &Account, bob: &Account) -> TransferId {
    let database = &subject.database;
    let limit = RateLimit { burst: 100, period: Duration::from_secs(1) };
    database.take("reads", limit).await.unwrap().unwrap();
    let limits = [("quotes", limit), ("quotes a day", limit)];
    database.take_in_turn(&limits).await.unwrap().unwrap();
    database.take_once(TransferId::random(), &limits).await.unwrap().unwrap();
    let telegram = AccountRef::Telegram(ann.telegram_id);
    database.account(telegram).await.unwrap();
    database.resolve(&"bob".parse().unwrap(), NOW).await.unwrap();
    database.account_by_address(bob.wallet.address).await.unwrap();
    database.pending_spend(CHAIN, ann.wallet.address, 1_000_000).await.unwrap();
    database.reserved_spend(CHAIN, ann.wallet.address, 1_000_000).await.unwrap();
    let (sender, from) = ((ann.id, COIN), (ann.wallet.address, 1_000_000));
    let before = database.before_quote(sender, from, bob.wallet.address).await.unwrap();
    database.audited_account(ann.id, NOW, 10).await.unwrap();
    let quote = transfer(ann, bob, 1, NOW);
    database.over_limit(quote.clone(), None, before.own, rules(), NOW).await.unwrap();
    database.transfer(quote.id).await.unwrap();
    database.insert_quote(quote.clone()).await.unwrap();
    quote.id
}

async fn deposit(subject: &Subject, to: &Account, round: u8) {
    let database = &subject.database;
    let block = |number: u8| BlockRef { number: number.into(), hash: [number; 32] };
    database.start_at(CHAIN, block(0)).await.unwrap();
    let from = database.cursor(CHAIN).await.unwrap().unwrap();
    let token = Token { symbol: "USDC".parse().unwrap(), address: [0x33; 20].into(), decimals: 6 };
    let payment = Payment {
        tx_hash: [0xf0 + round; 32],
        from: [99; 20].into(),
        to: to.wallet.address,
        token: Some(token),
        value: Units(U256::from(5)),
        block: 7,
    };
    let found = database.payments_to_wallets(vec![payment]).await.unwrap();
    let next = block(round + 1);
    assert!(database.record_deposits(CHAIN, from, next, found, NOW).await.unwrap());
    database.compare_balance_soon(CHAIN, to.id, NOW).await.unwrap();
    database.due_balances(CHAIN, next, NOW, 128).await.unwrap();
    let more = Some(Wei(U256::from(round)));
    assert_eq!(
        database.record_balances(CHAIN, next, vec![(to.id, more)], NOW).await.unwrap(),
        u32::from(round)
    );
}
