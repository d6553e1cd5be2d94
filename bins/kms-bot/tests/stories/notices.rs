//! What the bot reports on its own: which notices come first, and what a user who comes back reads.

use std::time::{Duration, Instant};

use bot_api_sim::Fault;
use kms_client::Page;
use kms_sandbox::StageOptions;
use kms_types::wire::{HistoryEntry, RequestRecovery, TransferState};
use kms_types::{EventStream, RecoveryId, TelegramId, TransferId};
use serde_json::json;

use crate::resilience::acknowledged;
use crate::texts;
use crate::waiting::rpc;
use crate::world::{ANNS, Plays, World, assert_text, assert_transcript, coins, id};

/// How many events of a stream the bot has not acknowledged.
async fn unacknowledged(world: &World, stream: EventStream) -> usize {
    let page = world.stage.client.events(stream, None, None, Duration::ZERO).await.unwrap();
    page.events.len()
}

/// Telegram wants Ann's chat left alone. Meanwhile payments arrive, and after them an export.
#[tokio::test(flavor = "multi_thread")]
async fn a_security_notice_comes_before_payments_that_were_earlier() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = world.account(&world.ann).await.address;
    world.stage.sim.break_next("SendMessage", Fault::TooManyRequests(20));
    world.ann.says("/help");
    world.faults_happen().await;
    for _ in 0..5 {
        world.stage.faucet(ann, coins("1")).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while unacknowledged(&world, EventStream::Payments).await < 5 {
        assert!(Instant::now() < deadline, "the payments were reported before the export");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.export(&world.ann, ANNS).await;
    let digest = world.ann.bot("notice-received-largest").await;
    let chat = world.ann.person().chat();
    let first = |ids: &[&str]| {
        let shows = |text: &str| ids.iter().any(|id| texts::is(id, text));
        chat.iter().rposition(|message| shows(&message.text)).unwrap()
    };
    let payments = ["notice-received-largest"];
    assert!(first(&["notice-key-exported"]) < first(&payments), "{}", world.ann.transcript());
    assert_text!("received_many", digest.text);
    world.end().await;
}

/// Waits until a payment of Ann's is in this state.
async fn becomes(world: &World, paid: TransferId, state: TransferState) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let now = world.stage.client.transfer(paid).await.unwrap().unwrap().state;
        if now == state {
            return;
        }
        assert!(Instant::now() < deadline, "{now:?}, not {state:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until an external deposit to this user is recorded.
async fn deposited(world: &World, user: TelegramId) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let page = world.stage.client.transfers(user.into(), Page::Newest, 100).await.unwrap();
        if page.entries.iter().any(|entry| matches!(entry, HistoryEntry::Deposit { .. })) {
            return;
        }
        assert!(Instant::now() < deadline, "the deposit is not recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The network drops the block of a payment, and its sender cancels it.
async fn take_back(world: &World, paid: TransferId) {
    rpc(world, "anvil_reorg", json!([1, []]));
    rpc(world, "anvil_dropAllTransactions", json!([]));
    rpc(world, "anvil_mine", json!(["0x1"]));
    becomes(world, paid, TransferState::Broadcast).await;
    world.stage.client.cancel(paid).await.unwrap();
    rpc(world, "anvil_dropAllTransactions", json!([]));
    rpc(world, "evm_setIntervalMining", json!([1]));
    becomes(world, paid, TransferState::Cancelled).await;
}

/// A payment to Bob that arrives, and no block but the first.
async fn arriving(world: &mut World) -> TransferId {
    rpc(world, "evm_setAutomine", json!([false]));
    let paid = world.pay(&world.ann, "@bob", "0.25").await.id;
    rpc(world, "anvil_mine", json!(["0x1"]));
    world.bob.bot_with("notice-arriving", &["0.25 ETH"]).await;
    paid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_taken_back_is_reported_to_its_recipient() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let paid = arriving(&mut world).await;
    take_back(&world, paid).await;
    let taken = world.bob.bot_with("notice-taken-back", &["0.25 ETH"]).await;
    let chat = world.bob.person().chat();
    assert!(!chat.iter().any(|message| texts::is("notice-arriving", &message.text)), "{chat:?}");
    assert_text!("taken_back", taken.text);
    world.stage.stop().await;
}

/// While Bob had blocked the bot, one payment to him was taken back, another one
/// arrived, and a recovery was requested.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_comes_back_is_shown_once_what_came_and_what_was_taken_back() {
    let recovery_wait = Duration::from_secs(600);
    let options = StageOptions { recovery_wait, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    let bob = world.account(&world.bob).await.address;
    let paid = arriving(&mut world).await;
    world.bob.person().blocks();
    take_back(&world, paid).await;
    world.stage.faucet(bob, coins("2")).await.unwrap();
    deposited(&world, id(&world.bob)).await;
    let (account, recovery) = (id(&world.bob).into(), RequestRecovery { id: RecoveryId::random() });
    world.stage.client.request_recovery(account, &recovery).await.unwrap();
    acknowledged(&world).await;
    world.bob.person().unblocks();
    world.bob.bot("notice-missed").await;
    world.bob.bot("notice-recovery-requested").await;
    world.bob.bot_with("notice-taken-back", &["0.25 ETH"]).await;
    world.bob.bot("notice-missed-payments").await;
    let before = world.bob.person().chat().len();
    for _ in 0..2 {
        world.bob.person().blocks();
        world.bob.person().unblocks();
    }
    world.bob.says("/help");
    world.bob.bot("help-title").await;
    assert_eq!(world.bob.person().chat().len(), before + 2, "{}", world.bob.transcript());
    assert_transcript!("came_back", world.bob);
    world.stage.stop().await;
}
