//! Transfers: sent once, to the recipient that was confirmed, within the balance.

use std::time::Duration;

use kms_client::{ClientError, Page};
use kms_server_testing::requests::{COIN, confirm, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer, on_both_stores};
use kms_types::wire::{EventBody, HistoryEntry, TransferState, WaitReason, Warning};
use kms_types::{
    AccountEvent, ErrorCode, EthAddress, EventStream, TransferEvent, TransferId, U256, Wei,
};
use serde_json::json;

on_both_stores!(
    coins_are_sent_by_username,
    the_amount_all_sends_the_whole_balance,
    transfers_that_would_fail_are_refused,
    fifty_confirmations_make_one_transfer,
    concurrent_transfers_do_not_overspend,
    sixteen_transfers_of_a_wallet_are_in_flight,
    a_quote_is_confirmed_only_as_it_was_shown,
    a_repeated_quote_is_unchanged_when_the_username_is_gone,
    a_dropped_transaction_is_broadcast_again,
    a_reorganisation_is_followed,
    a_stuck_transfer_is_replaced_without_a_password,
    the_history_is_paged_in_both_directions,
);

fn wei(amount: u128) -> Wei {
    Wei(U256::from(amount))
}

async fn coins_are_sent_by_username(test: TestServer) {
    let (ann, bob) = test.ann_and_bob().await;
    let mut request = quote(1, "@Bob", "0.5");
    request.client_ref = Some("chat 1, message 2".to_owned());
    let quoted = test.client.quote(&request).await.unwrap();
    assert_eq!(quoted.state, TransferState::Quoted);
    assert_eq!((quoted.to.address, quoted.to.account), (bob.address, Some(bob.id)));
    assert_eq!(quoted.value, wei(COIN / 2).into());
    assert_eq!(quoted.warnings, [Warning::FirstPayment]);
    assert_eq!(test.client.quote(&request).await.unwrap(), quoted);
    let wrong = test.client.confirm(quoted.id, &confirm(&quoted, "wrong")).await.unwrap_err();
    assert_eq!(wrong.code(), Some(ErrorCode::WrongPassword));
    let sent = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    assert!(sent.tx_hash.is_some());
    let mined = test.until(quoted.id, TransferState::Mined).await;
    assert!(mined.fee.unwrap() <= mined.max_fee);
    assert_eq!(test.balance(telegram(2)).await.wei, wei(COIN / 2));
    test.env.anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    let done = test.until(quoted.id, TransferState::Final).await;
    assert_eq!(done.client_ref.as_deref(), Some("chat 1, message 2"));
    let balance = test.balance(telegram(1)).await;
    let spent = Wei(done.value.0 + done.fee.unwrap().0);
    assert_eq!(balance.wei, wei(10 * COIN).checked_sub(spent).unwrap());
    // Both see it in their history, and both are notified.
    for account in [ann.id, bob.id] {
        let page = test.client.transfers(account.into(), Page::Newest, 10).await.unwrap();
        let done = HistoryEntry::Transfer { transfer: Box::new(done.clone()) };
        assert_eq!((page.entries, page.next, page.prev), (vec![done], None, None));
    }
    let events = test.events(5).await;
    let kinds = |id| {
        events.iter().filter(move |event| event.account == id).map(|event| match event.what {
            EventBody::Account { kind } => kind.as_str(),
            EventBody::Transfer { kind, .. } => kind.as_str(),
            _ => "other",
        })
    };
    let created = AccountEvent::Created.as_str();
    let (changed, received) = (TransferEvent::Changed.as_str(), TransferEvent::Received.as_str());
    assert_eq!(kinds(ann.id).collect::<Vec<_>>(), [created, changed, changed]);
    // The second notice, that it is final, may be among them.
    assert_eq!(kinds(bob.id).take(2).collect::<Vec<_>>(), [created, received]);
    // A second payment to the same recipient has no warnings.
    let second = test.client.quote(&quote(1, &bob.address.to_string(), "0.1")).await.unwrap();
    assert!(second.warnings.is_empty());
    assert_eq!((second.to.account, second.to.username), (Some(bob.id), None));
    // An address with the same ends.
    let mut lookalike = *bob.address.as_bytes();
    lookalike[9] ^= 1;
    let lookalike = EthAddress::from(lookalike).to_string();
    let third = test.client.quote(&quote(1, &lookalike, "0.1")).await.unwrap();
    assert!(third.warnings.contains(&Warning::LooksLikeAnother), "{:?}", third.warnings);
}

async fn the_amount_all_sends_the_whole_balance(test: TestServer) {
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "all")).await.unwrap();
    assert_eq!(quoted.value.0 + quoted.max_fee.0, wei(10 * COIN).0);
    assert!(quoted.warnings.contains(&Warning::MostOfBalance));
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(test.balance(telegram(1)).await.wei, Wei::default());
    assert_eq!(test.balance(telegram(2)).await.wei, Wei(quoted.value.0));
}

async fn transfers_that_would_fail_are_refused(test: TestServer) {
    let (ann, bob) = test.ann_and_bob().await;
    let refusal = async |to: &str, amount: &str| match test
        .client
        .quote(&quote(1, to, amount))
        .await
        .unwrap_err()
    {
        ClientError::Problem(problem) => *problem,
        other => panic!("{other}"),
    };
    let poor = refusal("@bob", "11").await;
    assert_eq!(poor.code, ErrorCode::InsufficientFunds);
    assert!(poor.missing.unwrap() >= wei(COIN) && poor.missing.unwrap() < wei(COIN + COIN / 100));
    let unknown = refusal("@nobody", "1").await;
    assert_eq!((unknown.code, unknown.field.as_deref()), (ErrorCode::UnknownName, Some("to")));
    assert_eq!(refusal("@ann", "1").await.code, ErrorCode::SelfTransfer);
    assert_eq!(refusal(&ann.address.to_string(), "1").await.code, ErrorCode::SelfTransfer);
    let zero = refusal("0x0000000000000000000000000000000000000000", "1").await;
    assert_eq!((zero.code, zero.field.as_deref()), (ErrorCode::InvalidField, Some("to")));
    let fine = refusal("@bob", "0.0000000000000000001").await;
    assert_eq!((fine.code, fine.field.as_deref()), (ErrorCode::InvalidField, Some("amount")));
    // A contract that refuses every payment: PUSH1 0 PUSH1 0 REVERT.
    let contract = "0x00000000000000000000000000000000000000cc";
    test.env.anvil.rpc("anvil_setCode", json!([contract, "0x60006000fd"])).unwrap();
    assert_eq!(refusal(contract, "1").await.code, ErrorCode::WouldRevert);
    // The id of one request is refused for another.
    let first = quote(1, "@bob", "1");
    test.client.quote(&first).await.unwrap();
    let mut second = quote(1, "@bob", "2");
    second.id = first.id;
    let reused = test.client.quote(&second).await.unwrap_err();
    assert_eq!(reused.code(), Some(ErrorCode::IdReused));
    assert_eq!(test.balance(bob.id.into()).await.wei, wei(0));
}

async fn fifty_confirmations_make_one_transfer(test: TestServer) {
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let tries = (0..50).map(|_| {
        let (client, quoted) = (test.client.clone(), quoted.clone());
        async move { client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await }
    });
    let answers = futures::future::join_all(tries).await;
    let mut hashes: Vec<_> =
        answers.into_iter().filter_map(Result::ok).map(|sent| sent.tx_hash.unwrap()).collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 1);
    test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(test.balance(telegram(2)).await.wei, wei(COIN));
}

async fn concurrent_transfers_do_not_overspend(test: TestServer) {
    let (ann, _) = test.ann_and_bob().await;
    // Only eleven fit into the balance. Every accepted one must be mined.
    let send = async |amount: &str| {
        let quoted = test.client.quote(&quote(1, "@bob", amount)).await.ok()?;
        match test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await {
            Ok(sent) => Some(sent),
            Err(error) => {
                // Correct passwords wait for each other, and lock nothing.
                assert_ne!(error.code(), Some(ErrorCode::PasswordLocked));
                None
            }
        }
    };
    let sends = (0..50).map(|_| send("0.85"));
    let sent: Vec<_> = futures::future::join_all(sends).await.into_iter().flatten().collect();
    assert!((1..=11).contains(&sent.len()), "{}", sent.len());
    for transfer in &sent {
        test.until(transfer.id, TransferState::Mined).await;
    }
    let count = test
        .env
        .anvil
        .rpc("eth_getTransactionCount", json!([ann.address.to_string(), "latest"]))
        .unwrap();
    assert_eq!(count, json!(format!("{:#x}", sent.len())));
    let got = 85 * COIN / 100 * u128::try_from(sent.len()).unwrap();
    assert_eq!(test.balance(telegram(2)).await.wei, wei(got));
}

async fn sixteen_transfers_of_a_wallet_are_in_flight(test: TestServer) {
    test.ann_and_bob().await;
    test.env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let quoted = async || test.client.quote(&quote(1, "@bob", "0.1")).await;
    let mut quotes = Vec::new();
    for _ in 0..18 {
        quotes.push(quoted().await.unwrap());
    }
    // At once: each was quoted before any was signed. One that waits for long is asked to repeat.
    let confirmed = quotes.iter().map(async |quoted| {
        loop {
            let answer = test.client.confirm(quoted.id, &confirm(quoted, "ann's password")).await;
            if answer.as_ref().err().and_then(ClientError::code) != Some(ErrorCode::Busy) {
                break answer;
            }
        }
    });
    let answers = futures::future::join_all(confirmed).await;
    let (sent, refused): (Vec<_>, Vec<_>) =
        quotes.iter().zip(answers).partition(|(_, answer)| answer.is_ok());
    assert_eq!((sent.len(), refused.len()), (16, 2));
    for (_, answer) in &refused {
        let code = answer.as_ref().unwrap_err().code();
        assert_eq!(code, Some(ErrorCode::TooManyInFlight), "{answer:?}");
    }
    let code = quoted().await.unwrap_err().code();
    assert_eq!(code, Some(ErrorCode::TooManyInFlight));
    // One that is mined makes place for the quote that was refused.
    test.env.anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
    test.until(sent[0].0.id, TransferState::Mined).await;
    let (again, _) = &refused[0];
    test.client.confirm(again.id, &confirm(again, "ann's password")).await.unwrap();
    quoted().await.unwrap();
}

async fn a_quote_is_confirmed_only_as_it_was_shown(test: TestServer) {
    let (ann, _) = test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    for change in 0..4 {
        let mut body = confirm(&quoted, "ann's password");
        match change {
            0 => body.chain_id += 1,
            1 => body.to_address = ann.address,
            2 => body.value = wei(COIN + 1).into(),
            _ => body.max_fee = wei(1),
        }
        let refused = test.client.confirm(quoted.id, &body).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::QuoteMismatch));
    }
    // The username is reassigned between quote and confirmation.
    test.onboard(3, "carl", "carl's password").await;
    let seen_at = kms_types::Timestamp(2_000_000);
    let usernames = ["bob".parse().unwrap()].into_iter().collect();
    let seen = kms_types::wire::SeenUsernames { usernames, seen_at };
    test.client.seen_usernames(telegram(3), &seen).await.unwrap();
    let body = confirm(&quoted, "ann's password");
    let refused = test.client.confirm(quoted.id, &body).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::QuoteMismatch));
    // By name it is paid once Telegram signed whose it is; else after a day.
    let unproved = test.client.quote(&quote(1, "@bob", "1")).await.unwrap_err();
    assert_eq!(unproved.code(), Some(ErrorCode::NameUnproved));
    test.proves_name(3, "bob").await;
    let moved = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    assert!(moved.to.since.is_some() && moved.id != quoted.id);
    // A cancelled transfer cannot be confirmed.
    let cancelled = test.client.cancel(moved.id).await.unwrap();
    assert_eq!(cancelled.state, TransferState::Cancelled);
    let refused = test.client.confirm(moved.id, &confirm(&moved, "ann's password")).await;
    assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::WrongState));
    let nothing = test.client.cancel(TransferId::random()).await.unwrap_err();
    assert_eq!(nothing.code(), Some(ErrorCode::NoSuchTransfer));
}

async fn a_repeated_quote_is_unchanged_when_the_username_is_gone(test: TestServer) {
    test.ann_and_bob().await;
    let request = quote(1, "@bob", "1");
    let quoted = test.client.quote(&request).await.unwrap();
    let seen_at = kms_types::Timestamp(2_000_000);
    let usernames = ["rob".parse().unwrap()].into_iter().collect();
    let seen = kms_types::wire::SeenUsernames { usernames, seen_at };
    test.client.seen_usernames(telegram(2), &seen).await.unwrap();
    assert_eq!(test.client.quote(&request).await.unwrap(), quoted);
    // The same id with another recipient or amount is refused.
    for (to, amount) in [("@bob", "2"), ("@rob", "1"), ("@ann", "1")] {
        let mut other = quote(1, to, amount);
        other.id = request.id;
        let reused = test.client.quote(&other).await.unwrap_err();
        assert_eq!(reused.code(), Some(ErrorCode::IdReused), "{to} {amount}");
    }
    let new = test.client.quote(&quote(1, "@bob", "1")).await.unwrap_err();
    assert_eq!(new.code(), Some(ErrorCode::UnknownName));
}

async fn a_dropped_transaction_is_broadcast_again(test: TestServer) {
    test.ann_and_bob().await;
    test.env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let sent = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Broadcast).await;
    let hash = sent.tx_hash.unwrap();
    test.env.anvil.rpc("anvil_dropTransaction", json!([hash])).unwrap();
    test.until_known(&hash).await;
    test.env.anvil.rpc("evm_mine", json!([])).unwrap();
    let mined = test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(mined.tx_hash, Some(hash));
}

async fn a_reorganisation_is_followed(test: TestServer) {
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    let first = test.until(quoted.id, TransferState::Mined).await;
    // The block is replaced by an empty one, and the transaction is mined later.
    test.env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    test.env.anvil.rpc("anvil_reorg", json!([1, []])).unwrap();
    test.until(quoted.id, TransferState::Broadcast).await;
    // The state changes before the same bytes are broadcast again.
    test.until_known(first.tx_hash.as_deref().unwrap()).await;
    test.env.anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
    let second = test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(second.tx_hash, first.tx_hash);
    assert_eq!(test.balance(telegram(2)).await.wei, wei(COIN));
}

async fn the_history_is_paged_in_both_directions(test: TestServer) {
    test.ann_and_bob().await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        let quoted = test.client.quote(&quote(1, "@bob", "0.1")).await.unwrap();
        test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
        sent.insert(0, quoted.id);
    }
    let page = async |turn: Page<'_>| {
        let page = test.client.transfers(telegram(1), turn, 2).await.unwrap();
        let id = |entry: &HistoryEntry| match entry {
            HistoryEntry::Transfer { transfer } => transfer.id,
            other => panic!("{other:?}"),
        };
        let ids: Vec<_> = page.entries.iter().map(id).collect();
        (ids, page.next, page.prev)
    };
    let (newest, next, prev) = page(Page::Newest).await;
    assert_eq!((newest.as_slice(), prev), (&sent[..2], None));
    let (middle, next, prev) = page(Page::Older(&next.unwrap())).await;
    assert_eq!(middle, sent[2..4]);
    let (again, _, nothing) = page(Page::Newer(&prev.unwrap())).await;
    assert_eq!((again.as_slice(), nothing), (&sent[..2], None));
    let (oldest, nothing, prev) = page(Page::Older(&next.unwrap())).await;
    assert_eq!((oldest.as_slice(), nothing), (&sent[4..], None));
    let (middle, next, prev) = page(Page::Newer(&prev.unwrap())).await;
    assert_eq!(middle, sent[2..4]);
    assert!(next.is_some() && prev.is_some());
    for query in ["direction=both", "cursor=x", "cursor=1.2"] {
        let url = test.url(&format!("/v1/accounts/telegram:1/transfers?{query}"));
        let answer = test.raw().get(url).bearer_auth(&test.token).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
    }
}

async fn a_stuck_transfer_is_replaced_without_a_password(test: TestServer) {
    let (ann, _) = test.ann_and_bob().await;
    let rpc = |method: &str, params| test.env.anvil.rpc(method, params).unwrap();
    rpc("evm_setAutomine", json!([false]));
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let sent = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.env.price_out(sent.tx_hash.as_deref().unwrap()).unwrap();
    let replaced = test.until_replaced(&sent).await;
    test.until_known(replaced.tx_hash.as_deref().unwrap()).await;
    assert_eq!((replaced.max_fee, replaced.replacements_sent), (quoted.max_fee, 1));
    rpc("anvil_mine", json!(["0x1"]));
    let mined = test.until(quoted.id, TransferState::Mined).await;
    assert_ne!(mined.tx_hash, sent.tx_hash);
    assert!(mined.fee.unwrap() <= quoted.max_fee);
    let count = rpc("eth_getTransactionCount", json!([ann.address.to_string(), "latest"]));
    assert_eq!(count, json!("0x1"));
    assert_eq!(test.balance(telegram(2)).await.wei, wei(COIN));
}

#[actix_web::test]
async fn a_transfer_pending_at_its_maximum_fee_is_notified_once() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    // Which the configuration refuses: every round spends a step, without a block.
    env.chain.replace_after = 0;
    let test = TestServer::start(env).await;
    let (ann, _) = test.ann_and_bob().await;
    test.env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    // Two accounts, the signature, two replacements, and that it is pending at its maximum fee.
    let events = test.events(6).await;
    assert_eq!(events.iter().filter(|event| event.account == ann.id).count(), 5);
    let waits = test.client.transfer(quoted.id).await.unwrap().unwrap();
    assert_eq!((waits.state, waits.replacements_sent), (TransferState::Broadcast, 2));
    assert_eq!(waits.wait.unwrap().reason, WaitReason::Fee);
    test.until_known(waits.tx_hash.as_deref().unwrap()).await;
    test.env.anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
    let mined = test.until(quoted.id, TransferState::Mined).await;
    assert_eq!(mined.tx_hash, waits.tx_hash);
    assert_eq!((mined.replacements_sent, mined.wait), (0, None));
    // Mined, and received: there are no other new events.
    assert_eq!(test.events(8).await.len(), 8);
}

#[actix_web::test]
async fn an_unreadable_transfer_does_not_delay_the_events_of_others() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    let before = test.events(5).await;
    test.env.sql("update transfers set value = 'much'").unwrap();
    let carl = test.onboard(3, "carl", "c").await;
    let whose: Vec<_> = test.events(3).await.into_iter().map(|event| event.account).collect();
    assert_eq!(whose, [before[0].account, before[1].account, carl.id]);
    let page = test.client.events(EventStream::Payments, None, None, Duration::ZERO).await.unwrap();
    assert_eq!((page.events.len(), page.next), (0, before[4].cursor), "later ones are delivered");
}

#[actix_web::test]
async fn a_quote_expires() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.chain.quote_lifetime = Duration::ZERO;
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let refused = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await;
    assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::QuoteExpired));
    let read = test.client.transfer(quoted.id).await.unwrap().unwrap();
    assert_eq!(read.state, TransferState::Expired);
}
