//! Requests about one payment that race each other over two servers. Whichever transaction of its
//! nonce is mined decides, and both people are notified of the end once.

use std::process::Output;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::chain;
use crate::fault::{Fault, HIGH, LOW};
use crate::random::Random;
use crate::scenario::{People, Scenario, address, set_base_fee};
use crate::sender::{WORDS, send};
use kms_client::ClientError;
use kms_server_testing::commands::kms_server;
use kms_server_testing::requests::{hash, quote};
use kms_types::wire::{Account, ReplaceTransfer, Transfer, TransferState, WaitReason};
use kms_types::{ErrorCode, ReplacementId, TransferId, U256, Wei};
use serde_json::json;

/// How often each race is run, each time with another start.
const ROUNDS: u32 = 3;
const STEP: Duration = Duration::from_millis(12);
/// Until a command's process has started.
const STARTED: Duration = Duration::from_millis(150);
/// Longer than anything takes here.
const DEADLINE: Duration = Duration::from_secs(60);

#[actix_web::test]
async fn two_servers_sign_a_payment_again_at_once() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let max_fee = scenario.clients[0].replacement(waiting.id).await.unwrap().max_fee;
        let (one, other) = (ReplacementId::random(), ReplacementId::random());
        let (first, second, repeated) = tokio::join!(
            scenario.replace(0, &waiting, one, max_fee, Duration::ZERO),
            scenario.replace(1, &waiting, other, max_fee, round * STEP),
            scenario.replace(1, &waiting, one, max_fee, 2 * round * STEP),
        );
        let answers = [&first, &second, &repeated];
        assert!(answers.iter().any(|answer| answer.is_ok()), "{answers:?}");
        // The second one has to be above the first one, which the agreed fee may not allow.
        for error in answers.into_iter().filter_map(|answer| answer.as_ref().err()) {
            assert_eq!(error.code(), Some(ErrorCode::QuoteMismatch), "{error}");
        }
        let end = scenario.until_ended(&people, &waiting).await;
        assert_eq!(end.state, TransferState::Final);
    }
}

#[actix_web::test]
async fn a_replacement_races_a_cancellation_over_another_server() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let max_fee = scenario.clients[0].replacement(waiting.id).await.unwrap().max_fee;
        let (_, cancelled) = tokio::join!(
            scenario.replace(0, &waiting, ReplacementId::random(), max_fee, 2 * STEP),
            scenario.cancel_through(1, &waiting, round * STEP),
        );
        assert!(cancelled.cancel_requested_at.is_some(), "{cancelled:?}");
        scenario.until_cancellation_is_sent(&waiting).await;
        let end = scenario.until_ended(&people, &waiting).await;
        assert_eq!(end.state, TransferState::Cancelled);
    }
}

#[actix_web::test]
async fn a_replacement_races_the_miner() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let max_fee = scenario.clients[0].replacement(waiting.id).await.unwrap().max_fee;
        let (replaced, ()) = tokio::join!(
            scenario.replace(0, &waiting, ReplacementId::random(), max_fee, Duration::ZERO),
            scenario.mine_after(2 * round * STEP),
        );
        if let Err(error) = &replaced {
            assert_eq!(error.code(), Some(ErrorCode::WrongState), "{error}");
        }
        let end = scenario.until_ended(&people, &waiting).await;
        assert_eq!(end.state, TransferState::Final);
        // The one whose answer came second lost.
        let is_replacement = end.tx_hash != waiting.tx_hash;
        assert!(replaced.is_ok() || !is_replacement, "{waiting:?} became {end:?}");
        let won = if is_replacement { "replacement" } else { "miner" };
        println!("round {round}: the {won} won");
    }
}

/// The operator freezes the account of a payment that a block takes at this moment.
#[actix_web::test]
async fn a_freeze_races_the_miner() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let freezing = scenario.freeze(&people);
        scenario.mine_after(STARTED + 4 * round * STEP).await;
        assert!(freezing.join().unwrap().status.success());
        let from = address(&people.sender);
        let is_mined = || chain::count(&scenario.env.anvil, &from, "latest") == 1;
        scenario.until_cancellation_is_sent_unless(&waiting, is_mined).await;
        // Either one, and the account is frozen.
        scenario.until_ended(&people, &waiting).await;
        let again =
            scenario.replace(0, &waiting, ReplacementId::random(), Wei(U256::MAX), Duration::ZERO);
        let refused = again.await.unwrap_err().code();
        let codes = [Some(ErrorCode::AccountFrozen), Some(ErrorCode::WrongState)];
        assert!(codes.contains(&refused), "{refused:?}");
    }
}

#[actix_web::test]
async fn a_replacement_races_a_freeze() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let max_fee = scenario.clients[0].replacement(waiting.id).await.unwrap().max_fee;
        let freezing = scenario.freeze(&people);
        let replaced = scenario.replace(
            1,
            &waiting,
            ReplacementId::random(),
            max_fee,
            STARTED + 4 * round * STEP,
        );
        if let Err(error) = replaced.await {
            assert_eq!(error.code(), Some(ErrorCode::AccountFrozen), "{error}");
        }
        assert!(freezing.join().unwrap().status.success());
        let again =
            scenario.replace(0, &waiting, ReplacementId::random(), Wei(U256::MAX), Duration::ZERO);
        assert_eq!(again.await.unwrap_err().code(), Some(ErrorCode::AccountFrozen));
        // The operator stopped the payment, without the key.
        scenario.until_cancellation_is_sent(&waiting).await;
        let end = scenario.until_ended(&people, &waiting).await;
        assert_eq!(end.state, TransferState::Cancelled);
    }
}

#[actix_web::test]
async fn two_servers_cancel_a_payment_at_once() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let (one, other) = tokio::join!(
            scenario.cancel_through(0, &waiting, Duration::ZERO),
            scenario.cancel_through(1, &waiting, round * STEP),
        );
        for asked in [one, other] {
            assert!(asked.cancel_requested_at.is_some(), "{asked:?}");
        }
        scenario.until_cancellation_is_sent(&waiting).await;
        let end = scenario.until_ended(&people, &waiting).await;
        assert_eq!(end.state, TransferState::Cancelled);
    }
}

#[actix_web::test]
async fn a_cancellation_races_the_miner() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let (_, ()) = tokio::join!(
            scenario.cancel_through(0, &waiting, round * STEP),
            scenario.mine_after(STEP)
        );
        // Either one: whichever is mined decides.
        scenario.until_ended(&people, &waiting).await;
    }
}

#[actix_web::test]
async fn a_cancellation_races_a_freeze() {
    let mut scenario = Scenario::start(false).await;
    for round in 0..ROUNDS {
        let (people, waiting) = scenario.waiting_payment().await;
        let freezing = scenario.freeze(&people);
        scenario.cancel_through(1, &waiting, STARTED + 4 * round * STEP).await;
        assert!(freezing.join().unwrap().status.success());
        scenario.until_cancellation_is_sent(&waiting).await;
        let end = scenario.until_ended(&people, &waiting).await;
        assert_eq!(end.state, TransferState::Cancelled);
    }
}

impl Scenario {
    /// A payment of a new wallet for which the base fee is too high.
    async fn waiting_payment(&mut self) -> (People, Transfer) {
        let people = self.people(Fault::Losses).await;
        let from = people.sender.telegram_id;
        let to = people.recipients[0].username.as_ref().unwrap().to_string();
        let request = quote(from.into(), &to, "0.1");
        let id = request.id;
        send(self.clients.clone(), request, Random::from_seed(0)).await;
        let begun = Instant::now();
        loop {
            self.mine(HIGH);
            let transfer = self.clients[0].transfer(id).await.unwrap().unwrap();
            if transfer.wait.is_some_and(|wait| wait.reason == WaitReason::Fee) {
                return (people, transfer);
            }
            assert!(begun.elapsed() < DEADLINE, "does not wait: {transfer:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn replace(
        &self,
        server: usize,
        transfer: &Transfer,
        id: ReplacementId,
        max_fee: Wei,
        after: Duration,
    ) -> Result<Transfer, ClientError> {
        tokio::time::sleep(after).await;
        let body = ReplaceTransfer { id, password_hash: hash(WORDS), max_fee };
        self.clients[server].replace(transfer.id, &body).await
    }

    async fn cancel_through(
        &self,
        server: usize,
        transfer: &Transfer,
        after: Duration,
    ) -> Transfer {
        tokio::time::sleep(after).await;
        self.clients[server].cancel(transfer.id).await.unwrap()
    }

    async fn mine_after(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.mine(LOW);
    }

    /// The operator freezes the sender's account, by a command.
    fn freeze(&self, people: &People) -> JoinHandle<Output> {
        let freeze = format!("account freeze telegram:{} --reason race", people.sender.telegram_id);
        let mut freeze = kms_server(&self.env, &freeze);
        thread::spawn(move || freeze.output().unwrap())
    }

    /// Waits until the node has the cancellation, which the next block will include.
    async fn until_cancellation_is_sent(&self, of: &Transfer) {
        self.until_cancellation_is_sent_unless(of, || false).await;
    }

    /// The same, unless a block has the payment.
    async fn until_cancellation_is_sent_unless(&self, of: &Transfer, is_mined: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_mined() {
            set_base_fee(&self.env.anvil, LOW);
            let transfer = self.clients[0].transfer(of.id).await.unwrap().unwrap();
            let hash = transfer.tx_hash.unwrap();
            if self.signed_as(of.id, &hash) == "cancellation" && self.is_known(&hash) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "no cancellation of {}", of.id);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets the network include the payment or its cancellation, and compares the end with the
    /// chain and with the notices.
    async fn until_ended(&self, people: &People, of: &Transfer) -> Transfer {
        let sender_before = self.until_no_more_notices(of.id, people).await.0;
        let is_mined = chain::count(&self.env.anvil, &address(&people.sender), "latest") == 1;
        let begun = Instant::now();
        let end = loop {
            self.mine(LOW);
            let transfer = self.clients[0].transfer(of.id).await.unwrap().unwrap();
            if matches!(transfer.state, TransferState::Final | TransferState::Cancelled) {
                break transfer;
            }
            assert!(begun.elapsed() < DEADLINE, "not ended: {transfer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let mined = chain::mined(&self.env.anvil, &address(&people.sender), people.since);
        assert_eq!(mined.len(), 1, "{mined:?}");
        assert_eq!(end.tx_hash.as_deref(), Some(&*mined[0].hash));
        let is_paid = end.state == TransferState::Final;
        let signed_as = if is_paid { "payment" } else { "cancellation" };
        assert_eq!(self.signed_as(of.id, &mined[0].hash), signed_as);
        let arrived = chain::balance(&self.env.anvil, None, &address(&people.recipients[0]));
        assert_eq!(arrived, if is_paid { of.value.0 } else { U256::ZERO });
        let (sender, recipient) = self.until_no_more_notices(of.id, people).await;
        // The recipient of a payment is notified that it arrives, and that it is final.
        assert_eq!(recipient, if is_paid { 2 } else { 0 });
        // The sender of one that raced the miner was perhaps notified before the count began.
        assert!(is_mined || sender - sender_before == 1, "{sender_before}, then {sender}");
        self.until_notified_once(people, &end).await;
        end
    }

    /// Both people were notified of the end, each once: the sender of a payment when it is mined,
    /// and the recipient of one when it is final.
    async fn until_notified_once(&self, people: &People, end: &Transfer) {
        use TransferState::{Cancelled, Final, Mined};
        let times = |of: &Account, is_end| self.notices.times(of.id, end.id, is_end);
        let notified = || {
            let sender = times(&people.sender, |it| matches!(it, Mined | Final | Cancelled));
            let recipient = &people.recipients[0];
            (sender, times(recipient, |it| it == Final), times(recipient, |it| it == Cancelled))
        };
        let expected = (1, usize::from(end.state == Final), 0);
        let begun = Instant::now();
        while notified() != expected {
            let last = notified();
            assert!(begun.elapsed() < DEADLINE, "{last:?} in place of {expected:?}: {end:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until no notices are added, and returns how many the sender and the recipient have.
    async fn until_no_more_notices(&self, of: TransferId, people: &People) -> (u64, u64) {
        let count = |account: &Account| -> u64 {
            let counted = self.env.sql(&format!(
                "select count(*) from events where transfer_id = '{of}' and account_id = '{}'",
                account.id
            ));
            counted.unwrap().trim().parse().unwrap()
        };
        let both = || (count(&people.sender), count(&people.recipients[0]));
        let (mut counted, mut since) = (both(), Instant::now());
        // Longer than the time between two checks of a transfer that was just replaced.
        while since.elapsed() < Duration::from_millis(4_000) {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = both();
            if now != counted {
                (counted, since) = (now, Instant::now());
            }
        }
        counted
    }

    fn is_known(&self, hash: &str) -> bool {
        !self.rpc("eth_getTransactionByHash", json!([hash])).is_null()
    }
}
