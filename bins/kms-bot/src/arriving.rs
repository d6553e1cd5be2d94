//! The messages about payments that arrive, which are edited when the payment is final. In memory
//! only: after a restart a new message reports it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kms_types::{TelegramId, TransferId};
use teloxide_core::types::MessageId;

/// The number of payments that are remembered.
const CAPACITY: usize = 20_000;

type Payment = (TelegramId, TransferId);

/// The last message that each recipient got about a payment.
#[derive(Default)]
pub(crate) struct Arriving(Mutex<Messages>);

#[derive(Default)]
struct Messages {
    by_payment: HashMap<Payment, MessageId>,
    /// Oldest first.
    order: VecDeque<Payment>,
}

impl Arriving {
    /// Returns the message about a payment.
    pub(crate) fn message(&self, payment: Payment) -> Option<MessageId> {
        self.lock().by_payment.get(&payment).copied()
    }

    /// Remembers the message about a payment, instead of an earlier one.
    pub(crate) fn remember(&self, payment: Payment, message: MessageId) {
        let mut messages = self.lock();
        if messages.by_payment.insert(payment, message).is_some() {
            return;
        }
        messages.order.push_back(payment);
        if messages.order.len() > CAPACITY
            && let Some(oldest) = messages.order.pop_front()
        {
            messages.by_payment.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
