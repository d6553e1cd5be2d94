//! How a run ends: what its sender does about payments that wait, until nothing is in flight.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::chain;
use crate::fault::Fault;
use crate::random::Random;
use crate::scenario::{People, Scenario, address};
use crate::sender::{Answer, WORDS, send};
use kms_client::ClientError;
use kms_server_testing::ServerProcess;
use kms_server_testing::requests::{COIN, hash, quote};
use kms_types::wire::{ReplaceTransfer, Transfer, TransferState};
use kms_types::{ErrorCode, ReplacementId, TransferId};
use serde_json::json;

/// How long it may take until everything is final, and all users are notified; and how many blocks
/// it may take, because on a machine at its limit no time is long enough.
const SETTLE: Duration = Duration::from_secs(60);
const SETTLE_BLOCKS: u32 = 600;
/// After this long without an end, and again, a sender cancels or signs again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the sender asked for, and how it was answered.
pub(crate) struct Sent {
    pub(crate) ids: Vec<TransferId>,
    pub(crate) answers: Vec<Answer>,
    /// What the sender cancelled.
    pub(crate) cancelled: HashSet<TransferId>,
}

impl Sent {
    pub(crate) fn new(ids: Vec<TransferId>, answers: Vec<Answer>) -> Self {
        Self { ids, answers, cancelled: HashSet::new() }
    }

    pub(crate) fn acknowledged(&self) -> Vec<TransferId> {
        let answers = self.ids.iter().zip(&self.answers);
        let acknowledged = answers.filter(|(_, answer)| matches!(answer, Answer::Acknowledged));
        acknowledged.map(|(id, _)| *id).collect()
    }
}

impl Scenario {
    /// Mines until nothing is in flight, the chain has what was acknowledged, and everybody was
    /// notified of what it has. Returns the number of payments that were made.
    pub(crate) async fn settle(
        &self,
        fault: Fault,
        people: &People,
        sent: &mut Sent,
        context: &str,
    ) -> u64 {
        let begun = Instant::now();
        let (mut rounds, mut acted, mut mined) = (0_u32, begun, None);
        loop {
            rounds += 1;
            self.mine(fault.last_base_fee());
            if rounds.is_multiple_of(50) {
                let now = Some(chain::count(&self.env.anvil, &address(&people.sender), "latest"));
                // anvil never mines a transaction that it received while it mined the one before.
                // Once the node has dropped it, the server broadcasts it again.
                if mined == now {
                    self.rpc("anvil_dropAllTransactions", json!([]));
                }
                mined = now;
            }
            let mut found = Vec::new();
            for id in &sent.ids {
                // A quote without an answer may not exist.
                found.extend(self.clients[0].transfer(*id).await.unwrap());
            }
            let in_flight: Vec<_> =
                found.iter().filter(|transfer| is_in_flight(transfer)).collect();
            let problem = match in_flight.as_slice() {
                [] => match self.check(fault, people, sent, &found) {
                    Ok(paid) => return paid,
                    Err(problem) => problem,
                },
                in_flight => format!("{} payments are in flight", in_flight.len()),
            };
            if acted.elapsed() > PATIENCE {
                acted = Instant::now();
                self.act(fault, people, &in_flight, &mut sent.cancelled).await;
            }
            let is_late = begun.elapsed() > SETTLE && rounds > SETTLE_BLOCKS;
            assert!(!is_late, "{context}: {problem}\n{}", self.describe(&found));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// What the sender does about payments that are still pending.
    async fn act(
        &self,
        fault: Fault,
        people: &People,
        pending: &[&Transfer],
        cancelled: &mut HashSet<TransferId>,
    ) {
        if fault.needs_new_prices() {
            for transfer in pending {
                // A cancellation costs less than the payment that the balance does not cover.
                if self.sign_again(transfer).await == Some(ErrorCode::InsufficientFunds) {
                    self.cancel(transfer, cancelled).await;
                }
            }
        }
        if fault.needs_the_sender() {
            if fault != Fault::Refused {
                // For the fees of the cancellations.
                self.env.fund(&people.sender, COIN / 100).unwrap();
            }
            for transfer in pending {
                self.cancel(transfer, cancelled).await;
            }
        }
    }

    async fn cancel(&self, transfer: &Transfer, cancelled: &mut HashSet<TransferId>) {
        // Without an answer, too.
        cancelled.insert(transfer.id);
        let _ = self.clients[1].cancel(transfer.id).await;
    }

    /// The sender signs a payment again, or its cancellation, at the prices of now. Returns why
    /// that was refused.
    async fn sign_again(&self, transfer: &Transfer) -> Option<ErrorCode> {
        let signed = async {
            let fee = self.clients[1].replacement(transfer.id).await?;
            let (id, password_hash) = (ReplacementId::random(), hash(WORDS));
            let body = ReplaceTransfer { id, password_hash, max_fee: fee.max_fee };
            self.clients[1].replace(transfer.id, &body).await
        };
        signed.await.err().as_ref().and_then(ClientError::code)
    }

    /// The wallet can still pay.
    pub(crate) async fn pay_once_more(
        &self,
        fault: Fault,
        people: &People,
        sent: &mut Sent,
        context: &str,
    ) {
        self.env.fund(&people.sender, COIN).unwrap();
        // Above the block that may count as the newest.
        self.mine_many(8, fault.last_base_fee());
        let to = people.recipients[0].username.as_ref().unwrap();
        let from = people.sender.telegram_id;
        let request = quote(from.into(), &to.to_string(), "0.002");
        let id = request.id;
        let answer = send(self.clients.clone(), request, Random::from_seed(0)).await;
        let is_acknowledged = matches!(answer, Answer::Acknowledged);
        let found: Vec<_> = self.clients[0].transfer(id).await.unwrap().into_iter().collect();
        let found = self.describe(&found);
        assert!(is_acknowledged, "{context}: the wallet cannot pay any more\n{found}");
        sent.ids.push(id);
        sent.answers.push(answer);
    }

    fn describe(&self, found: &[Transfer]) -> String {
        let describe = |transfer: &Transfer| {
            let Transfer { id, state, wait, replacements_sent, tx_hash, block, .. } = transfer;
            let hash = tx_hash.as_deref().unwrap_or_default();
            // A transfer that was not signed has no hash; the node reports an error then.
            let known = self.env.anvil.rpc("eth_getTransactionByHash", json!([hash]));
            let known = known.map(|transaction| transaction["blockNumber"].clone());
            let (notified, wait) = (self.notices.sender(*id), wait.map(|wait| wait.reason));
            format!(
                "{id} {state:?}, notified of {notified:?}, waits {wait:?}, replaced \
                 {replacements_sent}x, {hash} in {block:?}, node: {known:?}"
            )
        };
        let all: Vec<_> = found.iter().map(describe).collect();
        let pool = self.rpc("txpool_content", json!([]));
        let head = chain::head(&self.env.anvil);
        let logs: Vec<_> = self.servers.iter().map(last_lines).collect();
        format!("{}\nhead: {head}, pool: {pool}\n{}", all.join("\n"), logs.join("\n---\n"))
    }
}

/// The last lines of a server's log.
fn last_lines(server: &ServerProcess) -> String {
    let log = server.log.lock().unwrap();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn is_in_flight(transfer: &Transfer) -> bool {
    use TransferState::{Broadcast, Mined, Signed};
    matches!(transfer.state, Signed | Broadcast | Mined)
}
