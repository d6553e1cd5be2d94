//! External deposits: found by address, and notified once, by the server that advances the cursor.

use kms_chain::follower::{BlockRef, Deposit, DepositStore, Payment};
use kms_core::account::Account;
use kms_store::{HistoryEntry, Page};
use kms_types::{AssetId, DepositEvent, EthAddress, EventCursor, EventKind, Token, U256, Units};

use crate::fixtures::{Subject, events, insert, on_every_database};
use crate::transfers::{CHAIN, COIN, NOW};

on_every_database!(
    a_cursor_starts_once_and_advances_from_its_position,
    a_deposit_is_notified_once_with_the_cursor,
    small_deposits_are_summed_up_once_a_day,
    each_asset_has_its_own_amount_below_which_deposits_are_summed_up,
    payments_to_others_are_left_out,
    many_addresses_are_looked_up_together,
);

fn block(number: u64) -> BlockRef {
    BlockRef { number, hash: [u8::try_from(number).unwrap(); 32] }
}

fn payment(to: EthAddress, hash: u8) -> Payment {
    let (tx_hash, from) = ([hash; 32], EthAddress::from([99; 20]));
    Payment { tx_hash, from, to, token: None, value: Units(U256::MAX), block: 7 }
}

fn incoming(to: &Account, hash: u8) -> Deposit {
    Deposit { account: to.id, payment: payment(to.wallet.address, hash) }
}

async fn a_cursor_starts_once_and_advances_from_its_position(subject: Subject) {
    let database = &subject.database;
    assert_eq!(database.cursor(CHAIN).await.unwrap(), None);
    assert!(!database.record_deposits(CHAIN, block(1), block(2), Vec::new(), NOW).await.unwrap());
    database.start_at(CHAIN, block(1)).await.unwrap();
    database.start_at(CHAIN, block(5)).await.unwrap();
    assert_eq!(database.cursor(CHAIN).await.unwrap(), Some(block(1)));
    assert_eq!(database.cursor(CHAIN + 1).await.unwrap(), None);

    let other = BlockRef { hash: [9; 32], ..block(1) };
    assert!(!database.record_deposits(CHAIN, other, block(2), Vec::new(), NOW).await.unwrap());
    assert!(database.record_deposits(CHAIN, block(1), block(3), Vec::new(), NOW).await.unwrap());
    assert!(!database.record_deposits(CHAIN, block(1), block(3), Vec::new(), NOW).await.unwrap());
    assert_eq!(database.cursor(CHAIN).await.unwrap(), Some(block(3)));
}

async fn a_deposit_is_notified_once_with_the_cursor(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    database.start_at(CHAIN, block(1)).await.unwrap();
    let found = vec![incoming(&ann, 1), incoming(&ann, 2)];
    let follow = async |from, to| {
        database.record_deposits(CHAIN, block(from), block(to), found.clone(), NOW).await.unwrap()
    };
    let (one, two) = tokio::join!(follow(1, 2), follow(1, 2));
    assert!(one ^ two, "one of them moved it");
    // The same block again, after a reorg.
    assert!(follow(2, 1).await && follow(1, 3).await);
    let notified = events(database, EventCursor::default(), 3).await;
    let notified: Vec<_> = notified.into_iter().skip(1).collect();
    assert_eq!(notified.len(), 2);
    for (event, found) in notified.iter().zip(&found) {
        let received = EventKind::Deposit(DepositEvent::Received);
        assert_eq!((event.kind, event.account), (received, ann.id));
        assert_eq!((event.at, event.transfer), (NOW, None));
        let noted = database.external_deposit(event.deposit.unwrap()).await.unwrap().unwrap();
        assert_eq!(noted.tx_hash, Some(found.payment.tx_hash));
        assert_eq!((noted.chain_id, noted.block), (CHAIN, 7));
        assert_eq!((noted.from, noted.value), (Some(found.payment.from), found.payment.value));
    }
}

async fn small_deposits_are_summed_up_once_a_day(subject: Subject) {
    let ann = insert(&subject.database, 1, "ann").await;
    let least = Units(U256::from(100));
    let database = subject.database.clone().with_notice_from([(COIN, least)].into());
    database.start_at(CHAIN, block(1)).await.unwrap();
    let small = |hash, units| Deposit {
        account: ann.id,
        payment: Payment { value: Units(U256::from(units)), ..payment(ann.wallet.address, hash) },
    };
    let record = async |from, to, found| {
        database.record_deposits(CHAIN, block(from), block(to), found, NOW).await.unwrap()
    };
    assert!(record(1, 2, vec![small(1, 99_u64), small(2, 100), small(3, 1)]).await);
    // The same block again, after a reorg, with a new one.
    assert!(record(2, 3, vec![small(1, 99), small(4, 5)]).await);
    // Only the one that is not small is notified by itself.
    let notified = events(&database, EventCursor::default(), 2).await;
    assert_eq!(notified.len(), 2);
    let history = database.history(ann.id, Page::Newest, 10).await.unwrap();
    let mut shown: Vec<_> = history
        .iter()
        .map(|entry| match entry {
            HistoryEntry::Deposit { deposit, .. } => (deposit.count, deposit.value.0.to::<u64>()),
            HistoryEntry::Transfer(_) => panic!("{entry:?}"),
        })
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, [(1, 100), (3, 105)]);

    assert_eq!(database.notify_digests(NOW, 10).await.unwrap(), 0);
    let tomorrow = NOW.plus(std::time::Duration::from_secs(24 * 60 * 60));
    assert_eq!(database.notify_digests(tomorrow, 10).await.unwrap(), 1);
    assert_eq!(database.notify_digests(tomorrow, 10).await.unwrap(), 0);
    let notified = events(&database, EventCursor::default(), 3).await;
    let digest = notified[2].deposit.unwrap();
    let digest = database.external_deposit(digest).await.unwrap().unwrap();
    assert_eq!((digest.count, digest.from, digest.tx_hash), (3, None, None));
    // One more of the same day, by a clock that is behind, is notified too.
    assert!(record(3, 4, vec![small(5, 1)]).await);
    assert_eq!(database.notify_digests(tomorrow, 10).await.unwrap(), 1);
}

async fn each_asset_has_its_own_amount_below_which_deposits_are_summed_up(subject: Subject) {
    let ann = insert(&subject.database, 1, "ann").await;
    let token = |byte: u8, symbol: &str| {
        Some(Token { symbol: symbol.parse().unwrap(), address: [byte; 20].into(), decimals: 6 })
    };
    let (usdc, dai) = (token(0x33, "USDC"), token(0x44, "DAI"));
    let units = |units| Units(U256::from(units));
    let least = [(COIN, units(100_u64)), (AssetId::of(CHAIN, usdc.as_ref()), units(50))].into();
    let database = subject.database.clone().with_notice_from(least);
    database.start_at(CHAIN, block(1)).await.unwrap();
    let deposit = |hash, token: &Option<Token>, value| Deposit {
        account: ann.id,
        payment: Payment {
            token: token.clone(),
            value: units(value),
            ..payment(ann.wallet.address, hash)
        },
    };
    let found = vec![
        deposit(1, &None, 60),
        deposit(2, &usdc, 60),
        deposit(3, &usdc, 40),
        deposit(4, &usdc, 3),
        // Without an amount of its own each one is notified.
        deposit(5, &dai, 1),
    ];
    assert!(database.record_deposits(CHAIN, block(1), block(2), found, NOW).await.unwrap());
    let tomorrow = NOW.plus(std::time::Duration::from_secs(24 * 60 * 60));
    assert_eq!(database.notify_digests(tomorrow, 10).await.unwrap(), 2);
    let mut notified = Vec::new();
    for event in events(&database, EventCursor::default(), 5).await {
        let Some(id) = event.deposit else { continue };
        let found = database.external_deposit(id).await.unwrap().unwrap();
        let symbol = found.token.map(|token| token.symbol.to_string()).unwrap_or_default();
        notified.push((symbol, found.value.0.to::<u64>(), found.count));
    }
    notified.sort();
    let expected = [("", 60, 1), ("DAI", 1, 1), ("USDC", 43, 2), ("USDC", 60, 1)];
    assert_eq!(notified, expected.map(|(symbol, value, count)| (symbol.to_owned(), value, count)));
}

async fn payments_to_others_are_left_out(subject: Subject) {
    let database = &subject.database;
    let bob = insert(database, 2, "bob").await;
    let to_bob = payment(bob.wallet.address, 1);
    let to_stranger = payment(EthAddress::from([98; 20]), 2);
    let found = database.payments_to_wallets(vec![to_stranger, to_bob]).await.unwrap();
    assert_eq!(found, [incoming(&bob, 1)]);
    assert!(database.payments_to_wallets(Vec::new()).await.unwrap().is_empty());
}

async fn many_addresses_are_looked_up_together(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await;
    let strangers = (0..25_000_u32).map(|number| {
        let mut address = [255; 20];
        address[..4].copy_from_slice(&number.to_be_bytes());
        payment(EthAddress::from(address), 3)
    });
    let payments = strangers.chain([payment(ann.wallet.address, 4)]).collect();
    assert_eq!(database.payments_to_wallets(payments).await.unwrap(), [incoming(&ann, 4)]);
}
