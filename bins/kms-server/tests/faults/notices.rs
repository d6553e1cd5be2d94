//! What users were last notified of: a reader of the events, as the bot is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_client::Client;
use kms_types::wire::{EventBody, Transfer, TransferState};
use kms_types::{AccountId, EventStream, Token, TransferEvent, TransferId, U256};

/// The last message about a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Pending,
    Paid,
    NotPaid,
}

impl Message {
    /// The message that shows a transfer in this state to its sender.
    pub(crate) fn of(state: TransferState) -> Option<Self> {
        match state {
            TransferState::Signed | TransferState::Broadcast => Some(Self::Pending),
            TransferState::Mined | TransferState::Final => Some(Self::Paid),
            TransferState::Failed | TransferState::Cancelled => Some(Self::NotPaid),
            TransferState::Quoted | TransferState::Expired | TransferState::Unknown => None,
        }
    }
}

#[derive(Debug, Default)]
struct Messages {
    /// Of the senders.
    sent: HashMap<TransferId, Message>,
    /// The states that each account was notified of, without repetitions.
    states: HashMap<(AccountId, TransferId), Vec<TransferState>>,
    /// The amounts that accounts were notified of: in transfers, and in deposits by their
    /// transaction.
    transfers: HashMap<(AccountId, TransferId), (Option<Token>, U256)>,
    deposits: HashMap<(AccountId, Option<String>), (Option<Token>, U256)>,
}

impl Messages {
    fn record(&mut self, account: AccountId, what: EventBody) {
        if let EventBody::Transfer { transfer, .. } = &what {
            let states = self.states.entry((account, transfer.id)).or_default();
            if states.last() != Some(&transfer.state) {
                states.push(transfer.state);
            }
        }
        match what {
            EventBody::Transfer { kind: TransferEvent::Changed, transfer } => {
                if let Some(message) = Message::of(transfer.state) {
                    self.sent.insert(transfer.id, message);
                }
            }
            EventBody::Transfer { kind: TransferEvent::Received, transfer } => {
                self.received(account, *transfer);
            }
            EventBody::Deposit { deposit, .. } => {
                let units = (deposit.token, deposit.value.0);
                self.deposits.insert((account, deposit.tx_hash), units);
            }
            EventBody::Account { .. }
            | EventBody::Security { .. }
            | EventBody::Recovery { .. }
            | EventBody::Unknown { .. } => {}
        }
    }

    /// A message about a payment to an account, or about one that was taken back.
    fn received(&mut self, account: AccountId, transfer: Transfer) {
        let key = (account, transfer.id);
        // That it arrives is another message than that it was received.
        if transfer.state == TransferState::Final {
            let units = transfer.arrived.unwrap_or(transfer.value).0;
            self.transfers.insert(key, (transfer.token, units));
        } else {
            self.transfers.remove(&key);
        }
    }
}

/// Reads all events in the background, until it is dropped.
#[derive(Debug)]
pub(crate) struct Notices(Arc<Mutex<Messages>>);

impl Notices {
    pub(crate) fn follow(client: Client) -> Self {
        let messages: Arc<Mutex<Messages>> = Arc::default();
        let (weak, stream) = (Arc::downgrade(&messages), EventStream::Payments);
        actix_web::rt::spawn(async move {
            let mut after = None;
            loop {
                let page = client.events(stream, after, after, Duration::from_secs(2)).await;
                let Some(messages) = weak.upgrade() else { return };
                match page {
                    Ok(page) => {
                        after = Some(page.next);
                        let mut messages = messages.lock().unwrap();
                        for event in page.events {
                            messages.record(event.account, event.what);
                        }
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Self(messages)
    }

    /// What the sender of a transfer was last notified of.
    pub(crate) fn sender(&self, transfer: TransferId) -> Option<Message> {
        self.0.lock().unwrap().sent.get(&transfer).copied()
    }

    /// How often an account was notified that a transfer came into one of these states.
    pub(crate) fn times(
        &self,
        of: AccountId,
        transfer: TransferId,
        is_end: fn(TransferState) -> bool,
    ) -> usize {
        let messages = self.0.lock().unwrap();
        let states = messages.states.get(&(of, transfer)).cloned().unwrap_or_default();
        let ends: Vec<_> = states.into_iter().map(is_end).collect();
        let begins = ends.iter().enumerate().filter(|(at, is_end)| {
            **is_end && at.checked_sub(1).is_none_or(|before| !ends[before])
        });
        begins.count()
    }

    /// How much of an asset an account was notified of as received.
    pub(crate) fn received(&self, account: AccountId, token: Option<&Token>) -> U256 {
        let messages = self.0.lock().unwrap();
        let transfers = messages.transfers.iter().map(|((who, _), what)| (who, what));
        let deposits = messages.deposits.iter().map(|((who, _), what)| (who, what));
        let received = transfers.chain(deposits);
        let received = received.filter(|(who, what)| **who == account && what.0.as_ref() == token);
        received.fold(U256::ZERO, |sum, (_, what)| sum + what.1)
    }
}
