//! The pace of messages: slow enough that Telegram refuses none of them.
//!
//! Telegram accepts about one message per second in a chat, with short bursts, twenty per minute in
//! a group, and thirty per second in all chats. Edits count like messages. What users wait for
//! comes first: a notice of a payment leaves most of a chat's burst, and of the bot's whole rate,
//! to answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use teloxide_core::types::ChatId;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

/// From this many chats on, those that are idle are removed when one is added.
const CLEANUP_FROM: usize = 10_000;

/// The rate limits that the bot keeps, a little below those of Telegram.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// One message in a chat per this time, on average.
    chat_interval: Duration,
    /// So many at once in a private chat.
    chat_burst: u32,
    /// So many in a group per minute.
    group: usize,
    /// So many in all chats per second.
    all: usize,
    /// So many of them may be notices of payments.
    payments: usize,
    second: Duration,
}

impl Default for RateLimits {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        let chat_interval = Duration::from_millis(1_050);
        Self { chat_interval, chat_burst: 4, group: 18, all: 26, payments: 13, second }
    }
}

impl RateLimits {
    /// The same limits in a time that runs so many times faster, for a simulated Telegram.
    #[must_use]
    pub fn times_faster(speed: u32) -> Self {
        let limits = Self::default();
        let (chat_interval, second) = (limits.chat_interval / speed, limits.second / speed);
        Self { chat_interval, second, ..limits }
    }
}

/// Delays messages as the limits ask.
pub(crate) struct Pace {
    limits: RateLimits,
    /// A permit is returned one second after it was taken.
    all: Arc<Semaphore>,
    payments: Arc<Semaphore>,
    chats: Mutex<HashMap<ChatId, ChatPace>>,
}

struct ChatPace {
    /// When the chat has its whole burst again.
    full_at: Instant,
    /// Telegram asked to leave the chat alone until then.
    waits_until: Option<Instant>,
    /// When messages were sent to a group.
    sent: VecDeque<Instant>,
}

impl Pace {
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            all: Arc::new(Semaphore::new(limits.all)),
            payments: Arc::new(Semaphore::new(limits.payments)),
            chats: Mutex::default(),
        }
    }

    /// Waits until a message may be sent to a private chat or edited there, and counts it.
    pub(crate) async fn message(&self, chat: ChatId) {
        let slot = {
            let (mut chats, now) = (self.lock(), Instant::now());
            let pace = entry(&mut chats, chat, now);
            let full_at = pace.full_at.max(now) + self.limits.chat_interval;
            pace.full_at = full_at;
            let burst = self.limits.chat_interval * self.limits.chat_burst;
            let allowed = full_at.checked_sub(burst).unwrap_or(now);
            let slot = allowed.max(pace.waits_until.unwrap_or(now));
            (slot > now).then_some(slot)
        };
        if let Some(slot) = slot {
            sleep_until(slot).await;
        }
        take(&self.all, self.limits.second).await;
    }

    /// Waits until a notice of a payment would leave the chat all but one message of its burst.
    /// Cancelling the wait has no effect.
    pub(crate) async fn quiet(&self, chat: ChatId) {
        loop {
            let full_at = {
                let (mut chats, now) = (self.lock(), Instant::now());
                let pace = entry(&mut chats, chat, now);
                let full_at = pace.full_at.max(pace.waits_until.unwrap_or(now));
                (full_at > now).then_some(full_at)
            };
            match full_at {
                Some(full_at) => sleep_until(full_at).await,
                None => break,
            }
        }
        take(&self.payments, self.limits.second).await;
    }

    /// Counts a message to a group, if it may be sent now.
    pub(crate) fn try_group(&self, group: ChatId) -> bool {
        let (mut chats, now) = (self.lock(), Instant::now());
        let minute = self.limits.second * 60;
        let pace = entry(&mut chats, group, now);
        if pace.waits_until.is_some_and(|until| until > now) {
            return false;
        }
        while pace.sent.front().is_some_and(|first| now.duration_since(*first) >= minute) {
            pace.sent.pop_front();
        }
        let free = pace.sent.len() < self.limits.group;
        if free {
            pace.sent.push_back(now);
            pace.full_at = now + minute;
        }
        free
    }

    /// Leaves a chat alone for as long as Telegram asks.
    pub(crate) fn wait(&self, chat: ChatId, time: Duration) {
        let (mut chats, now) = (self.lock(), Instant::now());
        let until = now + time;
        let pace = entry(&mut chats, chat, now);
        pace.waits_until = pace.waits_until.max(Some(until));
    }

    /// How long Telegram asks to leave the chat alone.
    pub(crate) fn waits(&self, chat: ChatId) -> Option<Duration> {
        let until = self.lock().get(&chat)?.waits_until?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChatId, ChatPace>> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(chats: &mut HashMap<ChatId, ChatPace>, chat: ChatId, now: Instant) -> &mut ChatPace {
    if chats.len() >= CLEANUP_FROM && !chats.contains_key(&chat) {
        chats.retain(|_, pace| pace.full_at > now || pace.waits_until.is_some_and(|at| at > now));
    }
    chats.entry(chat).or_insert_with(|| ChatPace {
        full_at: now,
        waits_until: None,
        sent: VecDeque::new(),
    })
}

/// Takes a permit that returns by itself after some time.
async fn take(permits: &Arc<Semaphore>, time: Duration) {
    // The semaphores are never closed.
    if let Ok(permit) = Arc::clone(permits).acquire_owned().await {
        tokio::spawn(async move {
            sleep(time).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ANN: ChatId = ChatId(1);

    fn slow() -> Pace {
        Pace::new(RateLimits { second: Duration::from_secs(600), ..RateLimits::default() })
    }

    /// How many are sent at once.
    fn at_once(pace: &Pace, chat: impl Fn(i64) -> ChatId) -> usize {
        (0..100).filter(|number| pace.message(chat(*number)).now_or_never().is_some()).count()
    }

    #[tokio::test]
    async fn a_chat_has_a_burst_of_its_own() {
        let pace = slow();
        assert_eq!(at_once(&pace, |_| ANN), 4);
        assert!(pace.message(ChatId(2)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn notices_of_payments_leave_the_burst_and_half_of_the_rate_to_answers() {
        let pace = slow();
        assert!(pace.quiet(ANN).now_or_never().is_some());
        pace.message(ANN).await;
        assert!(pace.quiet(ANN).now_or_never().is_none());
        let quiet = (100..200).filter(|chat| pace.quiet(ChatId(*chat)).now_or_never().is_some());
        assert_eq!(quiet.count(), 12, "with Ann's");
        assert_eq!(at_once(&pace, |number| ChatId(1_000 + number)), 25, "with Ann's");
    }

    #[tokio::test]
    async fn a_wait_that_telegram_asks_for_holds_the_chat_and_no_other() {
        let pace = slow();
        pace.wait(ANN, Duration::from_secs(60));
        assert!(pace.waits(ANN).is_some() && pace.waits(ChatId(2)).is_none());
        assert!(pace.message(ANN).now_or_never().is_none());
        assert!(pace.quiet(ANN).now_or_never().is_none());
        assert!(pace.message(ChatId(2)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_group_takes_a_limited_number_of_messages_a_minute() {
        let pace = slow();
        assert_eq!((0..100).filter(|_| pace.try_group(ChatId(-1))).count(), 18);
        assert!(pace.try_group(ChatId(-2)));
    }
}
