//! Which messages about payments and events were sent, so that a bot that was killed sends none of
//! them a second time.
//!
//! What is about to be sent is recorded first. Should the bot be killed before it has recorded the
//! message, the message is looked for before anything else is sent in the chat.

use std::cmp::max;

use kms_types::wire::{Event, EventBody, TransferState};
use kms_types::{AccountEvent, EventCursor, EventStream, TelegramId, Timestamp, TransferId};
use serde::{Deserialize, Serialize};

use super::{Chat, Journal};

/// The most payments of one user whose messages are remembered.
pub(super) const PAYMENTS: usize = 64;

/// What a message reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The state of a payment.
    Payment(TransferId, TransferState),
    /// That a payment which had ended is pending again.
    Reopened(TransferId),
    /// The events of a stream, up to one.
    Events(EventStream, Mark),
    /// The first of what the user missed.
    Missed,
}

/// The last event of a stream that was reported in a chat, and the time of the latest: a server
/// whose database was restored counts its events from an earlier position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    cursor: EventCursor,
    at: Timestamp,
}

/// A message that is being sent, after the message `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sending {
    pub(crate) report: Report,
    pub(crate) after: i32,
    /// Whether it was looked for and not found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) missing: bool,
}

/// The message about a payment, and the state that it was last recorded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PaymentMessage {
    pub(crate) transfer: TransferId,
    /// Absent if a message about several payments reported it.
    pub(crate) message: Option<i32>,
    pub(crate) state: TransferState,
    /// Whether the message reports that a payment which had ended is pending again, so that its end
    /// is a new message: an edit would not be noticed.
    #[serde(default)]
    pub(crate) reopened: bool,
}

/// Up to which event each stream was reported in a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Reported {
    #[serde(skip_serializing_if = "Option::is_none")]
    security: Option<Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payments: Option<Mark>,
}

impl Mark {
    /// The position of an event whose notices are delivered in the order of their stream; a
    /// transfer's are not.
    pub(crate) fn of(event: &Event) -> Option<(EventStream, Self)> {
        let stream = match event.what {
            EventBody::Account { .. } | EventBody::Security { .. } | EventBody::Recovery { .. } => {
                EventStream::Security
            }
            EventBody::Deposit { .. } => EventStream::Payments,
            EventBody::Transfer { .. } | EventBody::Unknown { .. } => return None,
        };
        Some((stream, Self { cursor: event.cursor, at: event.at }))
    }

    /// The mark of both events.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { cursor: max(self.cursor, other.cursor), at: max(self.at, other.at) }
    }

    fn covers(self, other: Self) -> bool {
        other.cursor <= self.cursor && other.at <= self.at
    }
}

impl Reported {
    fn of(&mut self, stream: EventStream) -> &mut Option<Mark> {
        match stream {
            EventStream::Security => &mut self.security,
            EventStream::Payments => &mut self.payments,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Chat {
    /// Reports whether the events up to this one were reported.
    pub(crate) fn has_reported(&self, stream: EventStream, mark: Mark) -> bool {
        let mut reported = self.reported;
        reported.of(stream).is_some_and(|reported| reported.covers(mark))
    }

    /// Reports whether nothing is left to do about an event: it was reported, and the owner of a
    /// new wallet was offered contacts.
    pub(crate) fn is_done_with(&self, event: &Event) -> bool {
        let is_new = matches!(event.what, EventBody::Account { kind: AccountEvent::Created });
        Mark::of(event).is_some_and(|(stream, mark)| self.has_reported(stream, mark))
            && !(is_new && self.owes_offer)
    }

    /// The message about a payment.
    pub(crate) fn payment(&self, transfer: TransferId) -> Option<PaymentMessage> {
        self.payments.iter().find(|known| known.transfer == transfer).copied()
    }

    /// Remembers the message about a payment, in place of an earlier one.
    pub(crate) fn remember_payment(&mut self, payment: PaymentMessage) {
        self.payments.retain(|known| known.transfer != payment.transfer);
        self.payments.push(payment);
        if self.payments.len() > PAYMENTS {
            self.payments.remove(0);
        }
    }

    /// Records that what is being sent arrived as this message, or did not.
    fn settle(&mut self, message: Option<i32>) {
        let Some(Sending { report, .. }) = self.sending.take() else { return };
        if message.is_none() {
            return;
        }
        match report {
            Report::Payment(transfer, state) => {
                let reopened = false;
                self.remember_payment(PaymentMessage { transfer, message, state, reopened });
            }
            Report::Reopened(transfer) => {
                let (state, reopened) = (TransferState::Broadcast, true);
                self.remember_payment(PaymentMessage { transfer, message, state, reopened });
            }
            Report::Events(stream, mark) => {
                let reported = self.reported.of(stream);
                *reported = Some(reported.map_or(mark, |earlier| earlier.and(mark)));
            }
            Report::Missed => {
                for transfer in self.missed.remove_first() {
                    let (message, state, reopened) = (None, TransferState::Mined, false);
                    self.remember_payment(PaymentMessage { transfer, message, state, reopened });
                }
            }
        }
    }
}

impl Journal {
    /// Records a message that is about to be sent, after the message `after`. Returns after which
    /// one an earlier attempt at the same report may have arrived.
    pub(crate) fn begin_report(&self, user: TelegramId, report: Report, after: i32) -> Option<i32> {
        self.change(user, |chat| {
            let earlier = chat.sending.filter(|sending| sending.report == report);
            let earlier = earlier.map(|sending| sending.after);
            let after = earlier.unwrap_or(after);
            chat.sending = Some(Sending { report, after, missing: false });
            earlier
        })
    }

    /// Records that what was being sent was looked for and not found: it counts as not sent, and
    /// the next attempt shows whether it was.
    pub(crate) fn miss_report(&self, user: TelegramId) {
        self.change(user, |chat| {
            if let Some(sending) = &mut chat.sending {
                sending.missing = true;
            }
        });
    }

    /// Records that what is being sent arrived as this message, or did not.
    pub(crate) fn end_report(&self, user: TelegramId, message: Option<i32>) {
        let mut inner = self.lock();
        inner.last_message = inner.last_message.max(message.unwrap_or_default());
        inner.change(user, |chat| chat.settle(message));
    }

    /// The chats in which a message may have arrived whose sending was interrupted.
    pub(crate) fn unsettled(&self) -> Vec<TelegramId> {
        let inner = self.lock();
        let is_open = |chat: &Chat| chat.sending.is_some_and(|sending| !sending.missing);
        let open = inner.chats.iter().filter(|(_, chat)| is_open(chat));
        open.map(|(user, _)| *user).collect()
    }

    /// Forgets what the server does not deliver again. The file has it until it is rewritten.
    pub(crate) fn forget_reported(&self, stream: EventStream, acknowledged: EventCursor) {
        let mut inner = self.lock();
        inner.chats.retain(|_, chat| {
            let mark = chat.reported.of(stream);
            if mark.is_some_and(|mark| mark.cursor <= acknowledged) {
                *mark = None;
            }
            *chat != Chat::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(cursor: &str, at: i64) -> Mark {
        Mark { cursor: cursor.parse().unwrap(), at: Timestamp(at) }
    }

    #[test]
    fn what_arrived_is_reported_up_to_its_last_event() {
        let mut chat = Chat::default();
        let report = Report::Events(EventStream::Payments, mark("5-5", 50));
        chat.sending = Some(Sending { report, after: 7, missing: false });
        chat.settle(None);
        assert!(chat == Chat::default(), "it did not arrive");
        chat.sending = Some(Sending { report, after: 7, missing: false });
        chat.settle(Some(8));
        for (cursor, at, reported) in
            [("5-5", 50, true), ("4-9", 40, true), ("5-6", 51, false), ("4-9", 60, false)]
        {
            assert_eq!(chat.has_reported(EventStream::Payments, mark(cursor, at)), reported);
        }
        assert!(!chat.has_reported(EventStream::Security, mark("1-1", 1)));
    }

    #[test]
    fn the_newest_messages_about_payments_are_remembered() {
        let (mut chat, transfers) = (Chat::default(), [(); 70].map(|()| TransferId::random()));
        let payment = |transfer, message| {
            let (message, state) = (Some(message), TransferState::Mined);
            PaymentMessage { transfer, message, state, reopened: false }
        };
        for (transfer, message) in transfers.iter().zip(1..) {
            chat.remember_payment(payment(*transfer, message));
        }
        chat.remember_payment(payment(transfers[68], 71));
        assert_eq!(chat.payments.len(), PAYMENTS);
        assert_eq!(chat.payments[PAYMENTS - 1], payment(transfers[68], 71));
        assert_eq!(chat.payments[PAYMENTS - 2], payment(transfers[69], 70));
        assert_eq!(chat.payment(transfers[0]), None);
    }
}
