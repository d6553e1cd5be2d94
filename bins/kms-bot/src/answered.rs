//! What has been answered already. Security events that the answer to an act has reported to its
//! user have no message of their own, and the parts of an album share one answer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kms_types::{EventKind, TelegramId, Timestamp};

/// How long an answer stands for its event. An act that changed nothing has no event; the next
/// event of its kind, which may be an attacker's act, must have a message. In milliseconds.
const LIFETIME: i64 = 10_000;

/// Forgotten when the bot stops: then the event is reported once more.
#[derive(Default)]
pub(crate) struct AnsweredEvents(Mutex<Vec<Answered>>);

struct Answered {
    user: TelegramId,
    kind: EventKind,
    at: Timestamp,
}

impl AnsweredEvents {
    /// Records that the user was shown an answer that says what an event of this kind reports.
    pub(crate) fn record(&self, user: TelegramId, kind: EventKind, now: Timestamp) {
        self.recent(now).push(Answered { user, kind, at: now });
    }

    /// Reports whether an answer stands for an event of this kind, once for each answer.
    pub(crate) fn take(&self, user: TelegramId, kind: EventKind, now: Timestamp) -> bool {
        let mut answered = self.recent(now);
        let found = answered.iter().position(|known| known.user == user && known.kind == kind);
        found.map(|at| answered.swap_remove(at)).is_some()
    }

    fn recent(&self, now: Timestamp) -> MutexGuard<'_, Vec<Answered>> {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answered.retain(|known| (0..LIFETIME).contains(&now.0.saturating_sub(known.at.0)));
        answered
    }
}

/// The most albums that are remembered. The parts of one arrive together.
const ALBUMS: usize = 1_000;

/// The albums that were answered last.
#[derive(Default)]
pub(crate) struct AnsweredAlbums(Mutex<VecDeque<String>>);

impl AnsweredAlbums {
    /// Records that an album is answered. Returns `false` if it was answered before.
    pub(crate) fn record(&self, album: String) -> bool {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.contains(&album) {
            return false;
        }
        if answered.len() >= ALBUMS {
            answered.pop_front();
        }
        answered.push_back(album);
        true
    }
}

#[cfg(test)]
mod tests {
    use kms_types::SecurityEvent;

    use super::*;

    #[test]
    fn an_answer_stands_for_one_event_of_its_user_and_kind_for_ten_seconds() {
        let (answered, at) = (AnsweredEvents::default(), Timestamp);
        let [ann, bob] = [1, 2].map(|id| id.try_into().unwrap());
        let frozen = EventKind::Security(SecurityEvent::AccountFrozen);
        answered.record(ann, frozen, at(0));
        assert!(!answered.take(bob, frozen, at(1)));
        assert!(!answered.take(ann, EventKind::Security(SecurityEvent::PasswordChanged), at(1)));
        assert!(answered.take(ann, frozen, at(1)));
        assert!(!answered.take(ann, frozen, at(1)));
        answered.record(ann, frozen, at(1));
        assert!(!answered.take(ann, frozen, at(10_001)));
    }
}
