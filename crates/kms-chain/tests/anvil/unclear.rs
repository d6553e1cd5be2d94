//! Answers that leave open whether a node accepted a transaction: nothing new is signed, and the
//! same bytes are broadcast until the chain itself shows the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kms_chain::transfer::TransferState;
use kms_chain::{Checked, ConfirmError, QuoteError};
use serde_json::{Value, json};

use crate::stub::{Answer, Fate, start_proxy, start_proxy_by_call};
use crate::world::{CHECK, COIN, CONFIRMATIONS, World, request, shown, stranger};

const SEND: &str = "eth_sendRawTransaction";

/// Lost calls and answers, and the errors for a repeat, a used nonce and a fee that is too low.
const UNCLEAR: [fn() -> Fate; 6] = [
    || Fate::AnswerLost,
    || Fate::Lost,
    || Fate::Answered(Answer::Http("504 Gateway Timeout".to_owned())),
    || Fate::Answered(Answer::Error(-32_000, "already known")),
    || Fate::Answered(Answer::Error(-32_000, "nonce too low")),
    || Fate::Answered(Answer::Error(-32_000, "replacement transaction underpriced")),
];

#[tokio::test]
async fn the_first_transaction_is_broadcast_again_after_every_unclear_answer() {
    for (number, unclear) in UNCLEAR.into_iter().enumerate() {
        let world = World::new().await;
        let ann = world.account(1, COIN).await;
        let url = start_proxy(&world.anvil.url(), move |method| match method {
            SEND => unclear(),
            _ => Fate::Passed,
        });
        let quote = world.quote(&ann, stranger(), "0.1").await;
        let signed = world.confirm_at(&world.through(&url), &ann, &quote).await.unwrap();
        assert_eq!(signed.state, TransferState::Signed, "{number}");
        // Confirming again signs nothing.
        match world.check(&quote).await.unwrap() {
            Checked::Done(done) => assert_eq!(done.tx_hash, signed.tx_hash),
            Checked::Ready(ready) => panic!("{ready:?}"),
        }

        world.tick().await;
        let sent = world.stored(&signed).await;
        assert_eq!((sent.state, sent.tx_hash), (TransferState::Broadcast, signed.tx_hash));
        world.mine(1);
        world.tick().await;
        let mined = world.stored(&signed).await;
        assert_eq!((mined.state, mined.tx_hash), (TransferState::Mined, signed.tx_hash));
        assert_eq!((world.sent(&ann), world.balance(quote.to.address)), (1, quote.value.0));
    }
}

#[tokio::test]
async fn a_replacement_is_broadcast_again_after_every_unclear_answer() {
    for (number, unclear) in UNCLEAR.into_iter().enumerate() {
        let world = World::new().await;
        let ann = world.account(1, COIN).await;
        let url = start_proxy(&world.anvil.url(), move |method| match method {
            SEND => unclear(),
            _ => Fate::Passed,
        });
        let quote = world.quote(&ann, stranger(), "0.1").await;
        let sent = world.confirm(&ann, &quote).await.unwrap();
        world.pass_over();
        world.pass(CHECK);
        world.through(&url).tick(world.now()).await.unwrap();
        // Recorded before the broadcast; the next round broadcasts the same bytes.
        let replaced = world.stored(&sent).await;
        assert_ne!(replaced.tx_hash, sent.tx_hash, "{number}");
        world.tick().await;
        assert_eq!(world.stored(&sent).await.tx_hash, replaced.tx_hash);
        assert!(
            world
                .transfers
                .chain()
                .first(|it| it.has_transaction(replaced.tx_hash.unwrap()))
                .await
                .unwrap()
        );
        world.mine(1);
        world.tick().await;
        let mined = world.stored(&sent).await;
        assert_eq!((mined.state, mined.tx_hash), (TransferState::Mined, replaced.tx_hash));
        assert_eq!((world.sent(&ann), world.balance(quote.to.address)), (1, quote.value.0));
    }
}

#[tokio::test]
async fn a_transaction_that_was_mined_after_a_lost_answer_is_found() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let url = start_proxy(&world.anvil.url(), |method| match method {
        SEND => Fate::AnswerLost,
        _ => Fate::Passed,
    });
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let signed = world.confirm_at(&world.through(&url), &ann, &quote).await.unwrap();
    assert_eq!(signed.state, TransferState::Signed);
    world.mine(1);
    world.tick().await;
    let mined = world.stored(&signed).await;
    assert_eq!((mined.state, mined.tx_hash), (TransferState::Mined, signed.tx_hash));
    assert_eq!(world.sent(&ann), 1);
}

#[tokio::test]
async fn a_transaction_count_that_is_too_high_once_is_ignored() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let asked = AtomicU32::new(0);
    let url = start_proxy(&world.anvil.url(), move |method| match method {
        "eth_getTransactionCount" if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            Fate::Answered(Answer::Result(json!("0x3e8")))
        }
        _ => Fate::Passed,
    });
    let view = world.through(&url).chain().view(ann.wallet.address, None).await.unwrap();
    assert_eq!(view.nonce, 0);
}

/// The count of mined transactions, which is of a block, and not that of pending ones.
#[tokio::test]
async fn a_count_of_mined_transactions_that_is_too_high_releases_no_reservation() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let first = world.quote(&ann, stranger(), "0.6").await;
    let quote = world.quote(&ann, stranger(), "0.6").await;
    let first = world.confirm(&ann, &first).await.unwrap();
    let url = start_proxy_by_call(&world.anvil.url(), |call| {
        let is_mined = call.get("method") == Some(&json!("eth_getTransactionCount"))
            && call.pointer("/params/1").is_some_and(Value::is_object);
        if is_mined { Fate::Answered(Answer::Result(json!("0x1"))) } else { Fate::Passed }
    });
    let server = world.through(&url);
    let quoted = server.quote(request(&ann, stranger(), "0.6"), world.now()).await;
    assert!(matches!(quoted, Err(QuoteError::Insufficient { .. })), "{quoted:?}");
    // Before the first payment was signed, it was covered.
    let Checked::Ready(ready) = server.check(quote.id, shown(&quote)).await.unwrap() else {
        panic!("confirmed before")
    };
    let wallet = world.open(&ann).await;
    let refused = server.sign_and_send(ready, wallet, world.now()).await.unwrap_err();
    assert!(matches!(refused, ConfirmError::Insufficient { .. }), "{refused}");
    // Once a block that was read has it, the payment is in the balance alone.
    world.mine(CONFIRMATIONS + 1);
    world.tick().await;
    assert_eq!(world.state(&first).await, TransferState::Final);
    let next = server.quote(request(&ann, stranger(), "0.3"), world.now()).await.unwrap();
    assert_eq!(world.confirm_at(&server, &ann, &next).await.unwrap().nonce, Some(1));
}

#[tokio::test]
async fn an_outage_of_the_endpoint_loses_no_transfer() {
    let world = World::new().await;
    let ann = world.account(1, COIN).await;
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let url = start_proxy(&world.anvil.url(), move |_| {
        if is_up.load(Ordering::SeqCst) { Fate::Passed } else { Fate::Lost }
    });
    let quote = world.quote(&ann, stranger(), "0.1").await;
    let server = world.through(&url);
    let signed = world.confirm_at(&server, &ann, &quote).await.unwrap();
    for _ in 0..3 {
        world.pass(CHECK);
        assert_eq!(server.tick(world.now()).await.unwrap(), 0);
    }
    assert_eq!(world.state(&signed).await, TransferState::Signed);
    up.store(true, Ordering::SeqCst);
    world.pass(CHECK);
    server.tick(world.now()).await.unwrap();
    // The first transaction: time alone spends no step.
    let sent = world.stored(&signed).await;
    assert_eq!((sent.state, sent.tx_hash), (TransferState::Broadcast, signed.tx_hash));
    world.mine(1);
    world.tick().await;
    assert_eq!((world.state(&signed).await, world.sent(&ann)), (TransferState::Mined, 1));
}

#[tokio::test]
async fn a_node_that_has_the_transaction_does_not_refuse_it() {
    for words in ["already known", "nonce too low: next nonce 1, tx nonce 0"] {
        let world = World::new().await;
        let ann = world.account(1, COIN).await;
        // Several nodes behind one URL: one looks for it, another one is sent it.
        let url = start_proxy(&world.anvil.url(), move |method| match method {
            "eth_getTransactionByHash" => Fate::Answered(Answer::Result(json!(null))),
            SEND => Fate::Answered(Answer::Error(-32_000, words)),
            _ => Fate::Passed,
        });
        let quote = world.quote(&ann, stranger(), "0.1").await;
        let sent = world.confirm(&ann, &quote).await.unwrap();
        let events = world.event_count(&ann).await;
        let server = world.through(&url);
        for _ in 0..2 {
            world.pass(CHECK);
            assert_eq!(server.tick(world.now()).await.unwrap(), 1);
            let now = world.stored(&sent).await;
            assert_eq!((now.state, now.wait), (TransferState::Broadcast, None), "{words}");
        }
        assert_eq!(world.event_count(&ann).await, events);
    }
}
