//! Telegram's rate limits, and what the bot does while one of them makes it wait.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::refusal::Refusal;

/// How many messages the bot may send or edit. Telegram publishes the averages; the length of a
/// burst in one chat is not published, and this one is a cautious guess.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One message in a chat per this time, on average.
    pub chat_interval: Duration,
    /// So many at once in a private chat.
    pub chat_burst: u32,
    /// So many in a group within sixty seconds.
    pub group: usize,
    /// So many in all chats within one second.
    pub all: usize,
    /// How many times faster than Telegram's time runs here.
    speed: u32,
}

/// Telegram's own limits.
impl Default for Limits {
    fn default() -> Self {
        Self { chat_interval: SECOND, chat_burst: 5, group: 20, all: 30, speed: 1 }
    }
}

impl Limits {
    /// The same limits in a time that runs so many times faster, for tests that are not about them.
    #[must_use]
    pub fn times_faster(speed: u32) -> Self {
        let limits = Self::default();
        Self { chat_interval: limits.chat_interval / speed, speed, ..limits }
    }

    fn window(&self, length: Duration) -> Duration {
        length / self.speed
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What the limits count.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) limits: Limits,
    all: VecDeque<Instant>,
    groups: HashMap<i64, VecDeque<Instant>>,
    /// When each private chat has its full burst again.
    chats: HashMap<i64, Instant>,
    /// Until when the bot was asked to leave each chat alone.
    waits: HashMap<i64, Instant>,
    /// Calls that the bot made although it was asked to wait.
    pub(crate) ignored: Vec<String>,
}

impl Traffic {
    /// Counts a message that is sent or edited, or refuses it.
    pub(crate) fn message(&mut self, chat: i64, what: &str, now: Instant) -> Result<(), Refusal> {
        self.action(chat, what, now)?;
        let limits = self.limits;
        let over = if chat < 0 {
            let sent = self.groups.entry(chat).or_default();
            count(sent, limits.group, limits.window(MINUTE), now)
        } else {
            let full = self.chats.entry(chat).or_insert(now);
            let next = (*full).max(now) + limits.chat_interval;
            let over = next.checked_duration_since(now + limits.chat_interval * limits.chat_burst);
            let over = over.filter(|over| !over.is_zero());
            if over.is_none() {
                *full = next;
            }
            over
        };
        let over = over.or_else(|| count(&mut self.all, limits.all, limits.window(SECOND), now));
        over.map_or(Ok(()), |over| Err(self.refuse(chat, over, now)))
    }

    /// Accepts a chat action unless the bot has been asked to wait. It has no limit of its own.
    pub(crate) fn action(&mut self, chat: i64, what: &str, now: Instant) -> Result<(), Refusal> {
        let left = self.waits.get(&chat).and_then(|until| until.checked_duration_since(now));
        // A call that was already on its way.
        let Some(left) = left.filter(|left| *left > TOLERANCE) else { return Ok(()) };
        self.ignored.push(format!("{what} in chat {chat}, {left:?} too early"));
        Err(self.refuse(chat, left, now))
    }

    /// Asks the bot to wait for this long.
    pub(crate) fn refuse(&mut self, chat: i64, wait: Duration, now: Instant) -> Refusal {
        // Whole seconds, rounded up.
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        if let Some(until) = now.checked_add(Duration::from_secs(seconds)) {
            self.waits.insert(chat, until);
        }
        Refusal::too_many(seconds)
    }
}

/// The clocks of the bot and of the simulation are read at different points of a call.
const TOLERANCE: Duration = Duration::from_millis(20);

/// Counts one more within a sliding window, or returns how long until there is room for it.
fn count(
    sent: &mut VecDeque<Instant>,
    most: usize,
    window: Duration,
    now: Instant,
) -> Option<Duration> {
    while sent.front().is_some_and(|first| now.duration_since(*first) >= window) {
        sent.pop_front();
    }
    if sent.len() >= most {
        return sent.front().map(|first| window.saturating_sub(now.duration_since(*first)));
    }
    sent.push_back(now);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_takes_a_short_burst_and_then_one_message_a_second() {
        let (mut traffic, now) = (Traffic::default(), Instant::now());
        let burst = (0..10).filter(|_| traffic.message(1, "a message", now).is_ok()).count();
        assert_eq!(burst, 5);
        traffic.message(2, "a message", now).unwrap();
        assert_eq!(traffic.ignored.len(), 4, "it was asked to wait and did not");
        let later = now + 2 * SECOND;
        assert!(traffic.message(1, "a message", later).is_ok());
        assert!(traffic.message(1, "a message", later).is_ok());
        let refused = traffic.message(1, "a message", later).unwrap_err();
        assert_eq!(refused.retry_after, Some(1));
        assert!(traffic.action(1, "a chat action", later).is_err(), "a chat action waits, too");
        assert_eq!(traffic.ignored.len(), 5);
    }

    #[test]
    fn all_chats_take_thirty_messages_a_second_and_a_group_twenty_a_minute() {
        let (mut traffic, now) = (Traffic::default(), Instant::now());
        let sent = (1..=40).filter(|chat| traffic.message(*chat, "a message", now).is_ok());
        assert_eq!(sent.count(), 30);
        let later = now + SECOND;
        let sent = (0..40).filter(|_| traffic.message(-1, "a message", later).is_ok());
        assert_eq!(sent.count(), 20);
        let refused = traffic.message(-1, "a message", later).unwrap_err();
        assert!(refused.retry_after > Some(50));
    }
}
