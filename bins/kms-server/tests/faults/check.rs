//! What must hold when nothing is in flight any more.

use crate::chain::{self, Mined};
use crate::fault::Fault;
use crate::notices::Message;
use crate::scenario::{ELSEWHERE, People, Scenario, address};
use crate::settle::Sent;
use kms_server_testing::ServerProcess;
use kms_types::wire::{Transfer, TransferState};
use kms_types::{Token, TransferId, U256};

impl Scenario {
    /// Compares the transfers with the chain and with the notices to users, and returns how many
    /// payments were made.
    pub(crate) fn check(
        &self,
        fault: Fault,
        people: &People,
        sent: &Sent,
        found: &[Transfer],
    ) -> Result<u64, String> {
        let paid: Vec<_> = found.iter().filter(|it| it.state == TransferState::Final).collect();
        for id in sent.acknowledged() {
            let ended = found.iter().find(|transfer| transfer.id == id).map(|it| it.state);
            let kept = match ended {
                Some(TransferState::Final) => true,
                Some(TransferState::Failed) => fault == Fault::KeyElsewhere,
                Some(TransferState::Cancelled) => sent.cancelled.contains(&id),
                _ => false,
            };
            ensure(kept, || format!("{id} was acknowledged and is {ended:?}"))?;
        }
        let (anvil, sender) = (&self.env.anvil, address(&people.sender));
        let mined = chain::mined(anvil, &sender, people.since);
        for (transaction, nonce) in mined.iter().zip(0..) {
            let pays = paid.iter().any(|it| it.tx_hash.as_deref() == Some(&transaction.hash));
            let is_external = transaction.to == ELSEWHERE;
            let explained = pays || is_external || self.cancels(transaction, sent, found);
            ensure(explained, || format!("no transfer explains {transaction:?}"))?;
            ensure(transaction.nonce == nonce, || format!("{transaction:?} follows a gap"))?;
        }
        for transfer in &paid {
            let hash = transfer.tx_hash.as_deref().unwrap_or_default();
            let made = mined.iter().find(|transaction| transaction.hash == hash);
            let made = made.filter(|made| made.succeeded && Some(made.fee) == fee(transfer));
            ensure(made.is_some(), || format!("the chain does not have {transfer:?}"))?;
        }
        // A nonce is lost to a transaction that the chain has.
        for transfer in found.iter().filter(|it| it.state == TransferState::Failed) {
            let by = transfer.superseded_by.as_deref();
            let proof = mined.iter().find(|made| Some(&*made.hash) == by);
            let proof = proof.filter(|made| made.to == ELSEWHERE);
            ensure(proof.is_some(), || format!("the chain does not have the proof {transfer:?}"))?;
        }
        let count = u64::try_from(mined.len()).unwrap();
        for block in ["latest", "pending"] {
            let counted = chain::count(anvil, &sender, block);
            ensure(counted == count, || format!("{count} transactions, {counted} are {block}"))?;
        }
        self.check_notices(fault, people, found)?;
        if fault == Fault::Ahead {
            for event in ["final_transfer_reopened", "finalized_block_removed"] {
                let is_early = |server: &ServerProcess| server.log.lock().unwrap().contains(event);
                let is_early = self.servers.iter().any(is_early);
                ensure(!is_early, || format!("a block was final too early: {event}"))?;
            }
        }
        Ok(u64::try_from(paid.len()).unwrap())
    }

    /// Whether this is the presigned cancellation of a transfer that its sender cancelled, and not
    /// any other payment of the wallet to itself.
    fn cancels(&self, transaction: &Mined, sent: &Sent, found: &[Transfer]) -> bool {
        let cancelled = found.iter().find(|transfer| {
            transfer.state == TransferState::Cancelled
                && transfer.tx_hash.as_deref() == Some(&transaction.hash)
        });
        let cancelled = cancelled.filter(|transfer| sent.cancelled.contains(&transfer.id));
        cancelled.is_some_and(|it| self.signed_as(it.id, &transaction.hash) == "cancellation")
    }

    /// What the transaction of a transfer with this hash does; empty if it is not one of those that
    /// were signed.
    pub(crate) fn signed_as(&self, transfer: TransferId, hash: &str) -> String {
        let kind = self.env.sql(&format!(
            "select kind from signed_transactions where transfer_id = '{transfer}' \
             and tx_hash = '\\x{}'",
            hash.trim_start_matches("0x")
        ));
        kind.unwrap().trim().to_owned()
    }

    fn check_notices(
        &self,
        fault: Fault,
        people: &People,
        found: &[Transfer],
    ) -> Result<(), String> {
        for transfer in found {
            let (notified, is) = (self.notices.sender(transfer.id), Message::of(transfer.state));
            // A cancelled quote was never signed.
            let is = is.filter(|_| transfer.tx_hash.is_some());
            ensure(notified == is, || {
                format!("{}: the sender was notified of {notified:?}: {is:?}", transfer.id)
            })?;
        }
        for recipient in &people.recipients {
            let coins = chain::balance(&self.env.anvil, None, &address(recipient));
            let notified = self.notices.received(recipient.id, None);
            ensure(notified == coins, || format!("notified of {notified} of {coins}"))?;
            if fault == Fault::Tokens {
                let tokens =
                    chain::balance(&self.env.anvil, Some(&self.token), &address(recipient));
                let notified = self.notices.received(recipient.id, Some(&self.configured_token()));
                ensure(notified == tokens, || format!("notified of {notified} of {tokens}"))?;
            }
        }
        Ok(())
    }

    fn configured_token(&self) -> Token {
        let (symbol, address) = ("TST".parse().unwrap(), self.token.address().parse().unwrap());
        Token { symbol, address, decimals: 6 }
    }
}

fn fee(transfer: &Transfer) -> Option<U256> {
    transfer.fee.map(|fee| fee.0)
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}
