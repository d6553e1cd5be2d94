//! Notices that a user did not receive, and how they are reported later.

use std::collections::BTreeSet;

use kms_types::TransferId;
use kms_types::wire::Event;
use serde::{Deserialize, Serialize};

/// The most notices that are kept for a user who blocked the bot, besides those of payments.
const MISSED: usize = 20;

/// Notices that were not delivered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Missed {
    /// Whether the user was notified that this follows.
    pub(crate) greeted: bool,
    /// The number of deposits that were received.
    pub(crate) deposits: u64,
    /// The transfers that arrive or were received.
    pub(crate) transfers: BTreeSet<TransferId>,
    /// The transfers that had arrived and were taken back.
    pub(crate) taken_back: BTreeSet<TransferId>,
    /// The payments of this user that did not end as the message about them says.
    pub(crate) contradicted: BTreeSet<TransferId>,
    /// The other notices, none of which is of a payment; the oldest first.
    pub(crate) events: Vec<Event>,
    /// How many older ones of these were not kept.
    pub(crate) more: u64,
    /// Whether the user has not blocked the bot: Telegram did not take the notices.
    pub(crate) given_up: bool,
}

impl Missed {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Keeps the newest.
    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() >= MISSED {
            self.events.remove(0);
            self.more = self.more.saturating_add(1);
        }
        self.events.push(event);
    }

    /// What is reported next.
    pub(crate) fn first(&self) -> Option<MissedPart> {
        let transfers = u64::try_from(self.transfers.len()).unwrap_or(u64::MAX);
        let payments = self.deposits.saturating_add(transfers);
        let event = self.events.first().cloned().map(Box::new).map(MissedPart::Event);
        let taken_back = self.taken_back.first().copied().map(MissedPart::TakenBack);
        let contradicted = self.contradicted.first().copied().map(MissedPart::Contradicted);
        let received = (payments > 0).then_some(MissedPart::Received(payments));
        let more = (self.more > 0).then_some(MissedPart::More(self.more));
        let first = more.or(event).or(contradicted).or(taken_back).or(received)?;
        Some(if self.greeted { first } else { MissedPart::Greeting })
    }

    /// Forgets what is reported next. Returns the transfers that it summed up.
    pub(crate) fn remove_first(&mut self) -> BTreeSet<TransferId> {
        let mut summed_up = BTreeSet::new();
        match self.first() {
            Some(MissedPart::Greeting) => self.greeted = true,
            Some(MissedPart::More(_)) => self.more = 0,
            Some(MissedPart::Event(_)) => drop(self.events.remove(0)),
            Some(MissedPart::Contradicted(_)) => drop(self.contradicted.pop_first()),
            Some(MissedPart::TakenBack(_)) => drop(self.taken_back.pop_first()),
            Some(MissedPart::Received(_)) | None => {
                self.deposits = 0;
                summed_up = std::mem::take(&mut self.transfers);
            }
        }
        if self.first().is_none() {
            *self = Self::default();
        }
        summed_up
    }
}

/// A part of what was not delivered, which one message reports.
pub(crate) enum MissedPart {
    /// That something follows.
    Greeting,
    /// The number of notices that were not kept.
    More(u64),
    Event(Box<Event>),
    /// A payment of this user that did not end as the message about it says.
    Contradicted(TransferId),
    /// A transfer that had arrived and was taken back.
    TakenBack(TransferId),
    /// The number of payments that were received.
    Received(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_reported_in_parts() {
        let mut missed = Missed { deposits: 2, ..Missed::default() };
        missed.transfers.insert(TransferId::random());
        assert!(matches!(missed.first(), Some(MissedPart::Greeting)));
        missed.remove_first();
        assert!(matches!(missed.first(), Some(MissedPart::Received(3))));
        missed.remove_first();
        assert!(missed.first().is_none() && missed == Missed::default());
    }

    #[test]
    fn what_is_not_kept_of_the_missed_notices_is_counted() {
        let mut missed = Missed { greeted: true, ..Missed::default() };
        for number in 0..MISSED + 3 {
            let event = serde_json::json!({
                "cursor": format!("1-{}", number + 1), "telegram_id": 1, "at": number,
                "account": "0b5ae8e2-1f0b-4c3d-9a57-0f9f7a3c2b11", "kind": "key_exported",
            });
            missed.push(serde_json::from_value(event).unwrap());
        }
        assert!(matches!(missed.first(), Some(MissedPart::More(3))));
        missed.remove_first();
        assert!(matches!(missed.first(), Some(MissedPart::Event(event)) if event.at.0 == 3));
    }
}
