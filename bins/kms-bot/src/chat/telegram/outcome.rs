//! Repeats a call until its outcome is known.
//!
//! Calls that may be repeated are: a second deletion or edit finds that the first was done. A
//! message whose response was lost is looked for before it is sent again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kms_types::TelegramId;
use teloxide_core::ApiError;
use teloxide_core::payloads::{DeleteMessage, StopMessageLiveLocation};
use teloxide_core::types::{ChatId, Message, MessageId};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Telegram, TelegramError, late};
use crate::chat::calls::{Call, CallError};
use crate::chat::shown::Place;

/// How long a call is repeated, and waited for, before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(8);
/// The attempts of a call whose outcome stays unknown.
const ATTEMPTS: u32 = 4;
/// How long the deletion of a secret is repeated, and waited for.
const PERSISTENCE: Duration = Duration::from_secs(600);
/// How many messages after the last known one may be a message whose response was lost.
const CANDIDATES: i32 = 12;
/// The same for one that was being sent when the bot was killed, with what it sent in other chats
/// at the same time: Telegram accepts 30 messages a second.
const CANDIDATES_AT_KILL: i32 = 40;
/// The most ids that are looked through.
const SEARCH: usize = 400;
/// How long after a kill Telegram may still do what the bot asked for.
const IN_FLIGHT: Duration = Duration::from_secs(3);
/// The number of messages that are known at most.
const KNOWN: usize = 2_000;
/// Telegram's answer to [`Telegram::find`] about a message of the bot.
const NO_LIVE_LOCATION: &str = "no live location in the message";

/// The messages that are known, of all private chats: their ids are one sequence.
#[derive(Default)]
pub(super) struct KnownMessages(Mutex<Known>);

#[derive(Default)]
struct Known {
    ids: BTreeSet<i32>,
    /// The highest id that was seen, also of a message of which nothing else is known.
    highest: i32,
}

impl KnownMessages {
    pub(super) fn add(&self, MessageId(message): MessageId) {
        let mut known = self.lock();
        known.highest = known.highest.max(message);
        known.ids.insert(message);
        if known.ids.len() > KNOWN {
            known.ids.pop_first();
        }
    }

    /// Records that a message exists, which may still be looked for.
    pub(super) fn reach(&self, MessageId(message): MessageId) {
        let mut known = self.lock();
        known.highest = known.highest.max(message);
    }

    /// The highest id, or zero.
    pub(super) fn highest(&self) -> MessageId {
        MessageId(self.lock().highest)
    }

    /// The ids after a message that a message can have that is not known. A new bot, whose first
    /// message this is, knows none.
    fn unknown_after(&self, after: MessageId, candidates: i32) -> Vec<MessageId> {
        if after.0 == 0 {
            return Vec::new();
        }
        let known = self.lock();
        // Of what is older, some was known and is forgotten.
        let oldest = known.ids.first().copied().filter(|_| known.ids.len() >= KNOWN);
        let after = MessageId(oldest.map_or(after.0, |oldest| oldest.max(after.0)));
        let highest = known.highest.max(after.0);
        let ids = after.0.saturating_add(1)..=highest.saturating_add(candidates);
        ids.filter(|id| !known.ids.contains(id)).map(MessageId).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telegram {
    /// Deletes a message that may show a secret, and tries that for minutes.
    pub(in crate::chat) async fn delete_persistently(
        &self,
        (chat, message): Place,
    ) -> Result<(), TelegramError> {
        deleted(self.persist(&DeleteMessage::new(chat, message)).await)
    }

    /// Makes a call that may be repeated, and tries that for minutes.
    pub(super) async fn persist<C: Call>(&self, call: &C) -> Result<C::Output, CallError> {
        let deadline = Instant::now() + PERSISTENCE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(None, deadline, call).await {
                Err(CallError::Unknown(_) | CallError::Timeout) if Instant::now() < deadline => {
                    sleep(delay(attempts)).await;
                }
                result => return result,
            }
        }
    }

    /// Waits until Telegram has done what the bot asked for before it was killed.
    pub(crate) async fn earlier_calls(&self) {
        sleep_until(self.started + IN_FLIGHT).await;
    }

    /// Looks for the first message that was sent to a user after a message, perhaps before the bot
    /// was killed, and is not known. It is known from then on: no double of a later message.
    pub(crate) async fn find_sent(
        &self,
        to: TelegramId,
        after: MessageId,
    ) -> Result<Option<MessageId>, TelegramError> {
        let to = ChatId(to.into());
        let _turn = self.late.turn(to).await;
        let ids = self.known.unknown_after(after, CANDIDATES_AT_KILL);
        let found = self.find(to, ids).await?;
        found.into_iter().for_each(|message| self.record_message(message));
        Ok(found)
    }

    /// Records what was sent to a user after a message, before the bot was killed: none of it is
    /// taken for what is sent from now on.
    pub(crate) async fn learn(
        &self,
        to: TelegramId,
        after: MessageId,
    ) -> Result<(), TelegramError> {
        while self.find_sent(to, after).await?.is_some() {}
        Ok(())
    }

    /// Repeats a call that may be repeated, until its outcome is known. `paced` is the chat whose
    /// messages it counts as one of.
    pub(super) async fn repeat<C: Call>(
        &self,
        paced: Option<ChatId>,
        call: &C,
    ) -> Result<C::Output, CallError> {
        self.repeat_noting(paced, call, || {}).await
    }

    /// Repeats an edit until its outcome is known. If Telegram may make one of the attempts later,
    /// the message is edited once more after that.
    pub(super) async fn repeat_edit<C: Call>(
        &self,
        message: Place,
        edit: &C,
    ) -> Result<C::Output, CallError> {
        let note = || self.repair_edit(message, late::until());
        self.repeat_noting(Some(message.0), edit, note).await
    }

    /// Repeats a call, and notes each attempt that timed out or was cancelled.
    async fn repeat_noting<C: Call>(
        &self,
        paced: Option<ChatId>,
        call: &C,
        timed_out: impl Fn() + Sync,
    ) -> Result<C::Output, CallError> {
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut attempt = Attempt { timed_out: &timed_out, is_answered: false };
            let result = self.attempt(paced, deadline, call).await;
            attempt.is_answered = !matches!(result, Err(CallError::Timeout));
            drop(attempt);
            match result {
                Err(CallError::Unknown(_) | CallError::Timeout)
                    if attempts < ATTEMPTS && Instant::now() < deadline =>
                {
                    sleep(delay(attempts)).await;
                }
                result => return result,
            }
        }
    }

    /// Sends a message at most once, as far as that can be known: after a lost response, the
    /// message is looked for. One that is given up, and that Telegram sends later, is deleted.
    pub(super) async fn send_once(
        &self,
        to: ChatId,
        send: &impl Call<Output = Message>,
    ) -> Result<Sent, TelegramError> {
        let _turn = self.late.turn(to).await;
        let (deadline, after) = (Instant::now() + PATIENCE, self.last_message());
        let (mut attempts, mut late) = (0, None);
        let mut unsent = Unsent { telegram: self, to, after, may_arrive: true };
        let sent = loop {
            attempts += 1;
            let error = match self.attempt(Some(to), deadline, send).await {
                Ok(message) => break Sent { id: message.id, is_certain: true },
                Err(CallError::Timeout) if attempts < ATTEMPTS => {
                    late = Some(late::until());
                    CallError::Timeout
                }
                Err(error @ CallError::Unknown(_)) if attempts < ATTEMPTS => error,
                // An earlier attempt may have arrived.
                Err(CallError::Wait(_)) if attempts > 1 => CallError::Unknown("rate limit"),
                Err(error) => {
                    unsent.may_arrive = attempts > 1;
                    return Err(error.into());
                }
            };
            sleep(delay(attempts)).await;
            match self.find_last(to, after, CANDIDATES).await {
                Ok(Some(id)) => break Sent { id, is_certain: !self.late.has_given_up(to) },
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) | Err(_) => return Err(error.into()),
            }
        };
        self.record_message(sent.id);
        unsent.may_arrive = false;
        if attempts > 1 {
            self.delete_double(to, after).await;
        }
        if let Some(late) = late {
            self.delete_double_later(to, sent.id, late);
        }
        Ok(sent)
    }

    /// Deletes the message of a report that was interrupted before `sent` was sent: one that has
    /// arrived after `after`, and one that Telegram sends late.
    pub(crate) async fn delete_interrupted(
        &self,
        to: TelegramId,
        after: MessageId,
        sent: MessageId,
    ) {
        self.delete_double(ChatId(to.into()), after).await;
        self.delete_double_later(ChatId(to.into()), sent, late::until());
    }

    /// Deletes what was sent to a chat after a message and is not known: messages of attempts that
    /// Telegram made late. What else the bot sent since is known.
    pub(super) async fn delete_doubles(
        &self,
        chat: ChatId,
        after: MessageId,
    ) -> Result<(), TelegramError> {
        while let Some(double) = self.find_last(chat, after, CANDIDATES).await? {
            deleted(self.repeat(None, &DeleteMessage::new(chat, double)).await)?;
        }
        Ok(())
    }

    /// Deletes the message of an attempt before the last one, if the search missed it. Its id is
    /// below the last one's, so that it is found now.
    async fn delete_double(&self, chat: ChatId, after: MessageId) {
        if let Ok(Some(double)) = self.find_last(chat, after, 0).await
            && let Err(error) = deleted(self.repeat(None, &DeleteMessage::new(chat, double)).await)
        {
            tracing::info!(%error, "message sent twice");
        }
    }

    /// Looks for the last message of the bot in a chat that is not known: what the bot sent before
    /// it was killed has a lower id.
    async fn find_last(
        &self,
        chat: ChatId,
        after: MessageId,
        candidates: i32,
    ) -> Result<Option<MessageId>, CallError> {
        let ids = self.known.unknown_after(after, candidates);
        self.find(chat, ids.into_iter().rev()).await
    }

    /// Finds the first of these messages that is one of the bot in a chat. The bot sends no live
    /// locations: of its own messages Telegram reports that they are none, of those of users and of
    /// other chats that they cannot be edited or found. So the search changes no message.
    async fn find(
        &self,
        chat: ChatId,
        ids: impl IntoIterator<Item = MessageId>,
    ) -> Result<Option<MessageId>, CallError> {
        for id in ids.into_iter().take(SEARCH) {
            match self.repeat(None, &StopMessageLiveLocation::new(chat, id)).await {
                Err(CallError::Refused(ApiError::Unknown(text)))
                    if text.contains(NO_LIVE_LOCATION) =>
                {
                    return Ok(Some(id));
                }
                Ok(_) | Err(CallError::Refused(_)) => {}
                Err(error @ (CallError::Wait(_) | CallError::Unknown(_) | CallError::Timeout)) => {
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Makes a call once, and again whenever Telegram asks to wait, until the deadline.
    pub(super) async fn attempt<C: Call>(
        &self,
        paced: Option<ChatId>,
        deadline: Instant,
        call: &C,
    ) -> Result<C::Output, CallError> {
        loop {
            if let Some(chat) = paced {
                let wait = self.pace.waits(chat);
                let turn = timeout_at(deadline, self.pace.message(chat)).await;
                if turn.is_err() {
                    return Err(CallError::Wait(wait.unwrap_or_default()));
                }
            }
            match call.attempt(&self.api).await {
                Err(CallError::Wait(time)) => {
                    if let Some(chat) = paced {
                        self.pace.wait(chat, time);
                    }
                    if Instant::now() + time > deadline {
                        return Err(CallError::Wait(time));
                    }
                    if paced.is_none() {
                        sleep(time).await;
                    }
                }
                Ok(output) => {
                    self.record_response();
                    return Ok(output);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Notes that an attempt has no answer, when it is dropped: its handler may be at its deadline.
struct Attempt<'a, F: Fn()> {
    timed_out: &'a F,
    is_answered: bool,
}

impl<F: Fn()> Drop for Attempt<'_, F> {
    fn drop(&mut self) {
        if !self.is_answered {
            (self.timed_out)();
        }
    }
}

/// A message that was sent.
pub(super) struct Sent {
    pub(super) id: MessageId,
    /// Otherwise it was looked for, and may be an earlier one that was given up and arrived late.
    pub(super) is_certain: bool,
}

/// A message that is not known to have arrived. When this is dropped, the message was given up, or
/// its handler is at its deadline.
struct Unsent<'a> {
    telegram: &'a Telegram,
    to: ChatId,
    after: MessageId,
    may_arrive: bool,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if self.may_arrive {
            self.telegram.give_up(self.to, self.after);
        }
    }
}

pub(super) fn deleted<T>(result: Result<T, CallError>) -> Result<(), TelegramError> {
    use ApiError::{MessageIdInvalid, MessageToDeleteNotFound};
    match result {
        Ok(_) | Err(CallError::Refused(MessageToDeleteNotFound | MessageIdInvalid)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A tenth of a second, doubled with each attempt.
fn delay(attempts: u32) -> Duration {
    Duration::from_millis(100 << attempts.min(6))
}
