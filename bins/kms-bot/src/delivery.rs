//! Follows the server's events and delivers a notice of each.
//!
//! Events are read ahead of their delivery, so that a slow chat or a flood holds up no other chat.
//! What waits for one user is bounded: received payments become one message when there are several,
//! and only the newest state of a transfer is shown. An event is acknowledged when its notice was
//! delivered; a bot that stops before receives it again, and delivers it unless the journal says
//! that its notice was sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use kms_process::CancellationToken;
use kms_types::wire::{Event, EventBody};
use kms_types::{EventCursor, EventStream, TelegramId, TransferEvent, TransferId};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chat::lanes::{Lanes, Notices};
use crate::chat::telegram::TelegramError;
use crate::context::{Context, HandlerError, HandlerResult};
use crate::journal::reports::Mark;
use crate::notices::{self, Received};

/// How long one request waits for events, and how long while events wait for acknowledgement.
const POLL: Duration = Duration::from_secs(25);
const BUSY_POLL: Duration = Duration::from_secs(1);
/// An undelivered notice holds up the acknowledgement of later events for this long.
const HELD_UP: Duration = Duration::from_secs(60);
/// The attempts to deliver one notice while Telegram is reachable. Waits that Telegram asks for do
/// not count.
const ATTEMPTS: u32 = 6;
/// How long after that a security notice is tried again.
const PAUSE: Duration = Duration::from_secs(300);
/// A security notice waits for this long while the user keeps the bot busy.
const URGENT: Duration = Duration::from_secs(3);
/// From this many received payments on, those that wait become one message.
const DIGEST_FROM: usize = 3;
/// The most security notices that wait for one user.
const ALERTS: usize = 100;
/// How long after a start an interrupted notice is looked for, before it counts as not sent.
const LOOK: Duration = Duration::from_secs(30);

/// The notices that wait.
pub(crate) struct Delivery {
    context: Arc<Context>,
    queues: Mutex<HashMap<TelegramId, Queue>>,
    security: Progress,
    payments: Progress,
}

/// What waits for one user.
#[derive(Default)]
struct Queue {
    alerts: VecDeque<Waiting>,
    payments: VecDeque<Waiting>,
    /// Received payments whose message may have arrived: they are tried again as they were.
    retry: Option<Digest>,
    digest: Digest,
    /// When the notices in the journal that were given up are tried again, if there are any.
    given_up: Option<Instant>,
    failures: u32,
    /// After a failure, nothing is delivered until then.
    not_before: Option<Instant>,
}

/// An event whose notice is not delivered. It counts as delivered when this is dropped.
struct Waiting {
    event: Event,
    since: Instant,
    undelivered: Arc<()>,
}

/// Received payments that become one message.
#[derive(Default)]
struct Digest {
    /// One for each asset.
    received: Vec<Received>,
    /// The last of their events.
    mark: Option<Mark>,
    undelivered: Vec<Arc<()>>,
}

/// How far a stream has been delivered.
#[derive(Default)]
struct Progress(Mutex<VecDeque<Unacknowledged>>);

struct Unacknowledged {
    cursor: EventCursor,
    undelivered: Weak<()>,
    since: Instant,
}

impl Progress {
    fn begin(&self, cursor: EventCursor) -> Arc<()> {
        let undelivered = Arc::new(());
        let entry = Unacknowledged {
            cursor,
            undelivered: Arc::downgrade(&undelivered),
            since: Instant::now(),
        };
        self.lock().push_back(entry);
        undelivered
    }

    /// The last event before which all were delivered. In the stream of payments one chat does not
    /// hold up the rest for longer than [`HELD_UP`]; while Telegram is unreachable, nothing counts
    /// as delivered.
    fn delivered(&self, stream: EventStream, is_reachable: bool) -> Option<EventCursor> {
        let (mut entries, mut delivered) = (self.lock(), None);
        while let Some(first) = entries.front() {
            let is_held_up = match stream {
                // None is lost if the bot ends meanwhile.
                EventStream::Security => true,
                EventStream::Payments => !is_reachable || first.since.elapsed() < HELD_UP,
            };
            if first.undelivered.strong_count() > 0 && is_held_up {
                break;
            }
            delivered = Some(first.cursor);
            entries.pop_front();
        }
        delivered
    }

    fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Unacknowledged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let (queues, security, payments) =
            (Mutex::default(), Progress::default(), Progress::default());
        Self { context, queues, security, payments }
    }

    /// Queues the notices that were given up before the bot started.
    pub(crate) fn resume(&self, lanes: &Lanes) {
        for user in self.context.journal.given_up() {
            self.lock().entry(user).or_default().given_up = Some(Instant::now());
            lanes.notify(user);
        }
    }

    /// Follows a stream of events until the bot stops.
    pub(crate) async fn follow(
        self: Arc<Self>,
        stream: EventStream,
        lanes: Lanes,
        shutdown: CancellationToken,
    ) {
        shutdown.run_until_cancelled(self.follow_forever(stream, &lanes)).await;
    }

    async fn follow_forever(&self, stream: EventStream, lanes: &Lanes) {
        self.settle_reports(lanes).await;
        let (progress, mut after, mut failures) = (self.progress(stream), None, 0);
        let mut delivered = None;
        loop {
            let is_reachable = self.context.telegram.is_reachable();
            delivered = progress.delivered(stream, is_reachable).or(delivered);
            let wait = if progress.is_idle() && delivered.is_none() { POLL } else { BUSY_POLL };
            match self.context.kms.events(stream, after, delivered, wait).await {
                Ok(page) => {
                    failures = 0;
                    if let Some(acknowledged) = delivered.take() {
                        self.context.journal.forget_reported(stream, acknowledged);
                    }
                    let moved = after.replace(page.next) != Some(page.next);
                    for event in page.events {
                        let (user, cursor) = (event.telegram_id, event.cursor);
                        self.enqueue(stream, event, progress.begin(cursor));
                        lanes.notify(user);
                    }
                    // Also past events that have no notice, or cannot be read.
                    if moved {
                        drop(progress.begin(page.next));
                    }
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, event = "events_failed", "event request failed");
                    }
                    sleep(backoff(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Finds out which notices arrived whose sending the bot's end interrupted, before their events
    /// come again.
    async fn settle_reports(&self, lanes: &Lanes) {
        let open = self.context.journal.unsettled();
        join_all(open.into_iter().map(|user| self.settle_report(user, lanes))).await;
    }

    async fn settle_report(&self, user: TelegramId, lanes: &Lanes) {
        let deadline = Instant::now() + LOOK;
        for failures in 0.. {
            let (done, is_done) = oneshot::channel();
            let context = Arc::clone(&self.context);
            lanes.enqueue_own(user, async move {
                // The receiver waits, unless the bot stops.
                let _ = done.send(context.settle_report(user).await);
            });
            if let Ok(Ok(())) = is_done.await {
                return;
            }
            if Instant::now() > deadline {
                break;
            }
            sleep(backoff(failures)).await;
        }
        tracing::info!("interrupted notice not found: it counts as not sent");
        self.context.journal.miss_report(user);
    }

    /// Acknowledges what was delivered, before the bot stops.
    pub(crate) async fn acknowledge(&self) {
        let is_reachable = self.context.telegram.is_reachable();
        for stream in [EventStream::Security, EventStream::Payments] {
            if let Some(cursor) = self.progress(stream).delivered(stream, is_reachable) {
                let after = Some(cursor);
                let _ = self.context.kms.events(stream, after, after, Duration::ZERO).await;
            }
        }
    }

    fn progress(&self, stream: EventStream) -> &Progress {
        match stream {
            EventStream::Security => &self.security,
            EventStream::Payments => &self.payments,
        }
    }

    fn enqueue(&self, stream: EventStream, event: Event, undelivered: Arc<()>) {
        if self.context.journal.chat(event.telegram_id).is_done_with(&event) {
            return;
        }
        let mut queues = self.lock();
        let queue = queues.entry(event.telegram_id).or_default();
        let waiting = Waiting { event, since: Instant::now(), undelivered };
        match stream {
            EventStream::Security => {
                queue.alerts.push_back(waiting);
                if queue.alerts.len() > ALERTS
                    && let Some(oldest) = queue.alerts.pop_front()
                {
                    self.give_up(queue, oldest.event);
                }
            }
            EventStream::Payments => queue.add_payment(waiting),
        }
    }

    /// How long the oldest notice has been waiting; zero if none is.
    pub(crate) fn oldest(&self) -> Duration {
        let queues = self.lock();
        let first = |queue: &Queue| {
            let waiting = [queue.alerts.front(), queue.payments.front()];
            waiting.into_iter().flatten().map(|waiting| waiting.since).min()
        };
        let oldest = queues.values().filter_map(first).min();
        oldest.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Delivers a notice, unless an earlier attempt did.
    async fn deliver_once(&self, user: TelegramId, next: &Next) -> HandlerResult {
        self.context.settle_report(user).await?;
        match next {
            Next::Alert(Waiting { event, .. }) | Next::Payment(Waiting { event, .. }) => {
                notices::deliver(&self.context, event).await
            }
            Next::Digest(Digest { received, mark: Some(mark), .. }) => {
                notices::deliver_digest(&self.context, user, received, *mark).await
            }
            Next::Digest(Digest { mark: None, .. }) => Ok(()),
            Next::GivenUp => notices::deliver_missed(&self.context, user).await,
        }
    }

    async fn deliver_next(&self, user: TelegramId) {
        let Some(next) = self.lock().get_mut(&user).and_then(Queue::next) else { return };
        match self.deliver_once(user, &next).await {
            Ok(()) => self.delivered(user),
            Err(HandlerError::Telegram(TelegramError::Gone)) => self.missed(user, next),
            Err(HandlerError::Telegram(TelegramError::RateLimit(wait))) => {
                self.lock().entry(user).or_default().wait(next, wait);
            }
            // An operator revoked the token, or runs a second bot: nothing is lost meanwhile.
            Err(HandlerError::Telegram(TelegramError::Token | TelegramError::Conflict)) => {
                self.lock().entry(user).or_default().wait(next, PAUSE);
            }
            Err(HandlerError::Kms(_) | HandlerError::Unfinished) => self.failed(user, next),
            Err(HandlerError::Telegram(error)) if error.is_temporary() => self.failed(user, next),
            Err(error) => {
                tracing::warn!(%error, event = "notice_dropped", "notice dropped");
                self.delivered(user);
            }
        }
    }

    fn delivered(&self, user: TelegramId) {
        self.context.journal.record_message(self.context.telegram.last_message().0);
        let mut queues = self.lock();
        let Some(queue) = queues.get_mut(&user) else { return };
        (queue.failures, queue.not_before) = (0, None);
        if queue.is_empty() {
            queues.remove(&user);
        }
    }

    /// Puts a notice back, or gives it up after some attempts.
    fn failed(&self, user: TelegramId, next: Next) {
        let mut queues = self.lock();
        let queue = queues.entry(user).or_default();
        if queue.failures < ATTEMPTS || !self.context.telegram.is_reachable() {
            let failures = queue.failures.saturating_add(1);
            queue.wait(next, backoff(queue.failures));
            queue.failures = failures;
            return;
        }
        tracing::warn!(attempts = ATTEMPTS, event = "notice_dropped", "notice given up");
        (queue.failures, queue.not_before) = (0, None);
        match next {
            Next::Alert(alert) => self.give_up(queue, alert.event),
            Next::Payment(payment) => self.give_up(queue, payment.event),
            Next::GivenUp => queue.given_up = Some(Instant::now() + PAUSE),
            Next::Digest(_) => {}
        }
    }

    /// Keeps a notice in the journal, to be tried again later and after a restart.
    fn give_up(&self, queue: &mut Queue, event: Event) {
        self.context.journal.change(event.telegram_id, |chat| {
            // A user who has blocked the bot is greeted first.
            chat.missed.greeted |= chat.missed.is_empty();
            chat.missed.given_up = true;
            notices::keep_missed(chat, event);
        });
        queue.given_up = Some(Instant::now() + PAUSE);
    }

    /// Keeps what a user could not receive, who blocked the bot or has not started it.
    fn missed(&self, user: TelegramId, next: Next) {
        let queue = self.lock().remove(&user).unwrap_or_default();
        let Queue { alerts, payments, retry, digest, .. } = queue;
        let waiting = alerts.into_iter().chain(payments).map(Next::Payment);
        let digests = [retry.unwrap_or_default(), digest].map(Next::Digest);
        let all = [next].into_iter().chain(digests).chain(waiting);
        self.context.journal.change(user, |chat| {
            for next in all {
                match next {
                    Next::Alert(Waiting { event, .. }) | Next::Payment(Waiting { event, .. }) => {
                        notices::keep_missed(chat, event);
                    }
                    Next::Digest(Digest { received, .. }) => {
                        chat.missed.deposits += received.iter().map(Received::count).sum::<u64>();
                    }
                    // It is there already, and waits for the user to come back now.
                    Next::GivenUp => {}
                }
            }
            if std::mem::take(&mut chat.missed.given_up) {
                chat.missed.greeted = false;
            }
        });
        tracing::info!("notice not delivered: the user cannot receive messages");
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TelegramId, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A notice that is being delivered.
enum Next {
    Alert(Waiting),
    Payment(Waiting),
    Digest(Digest),
    /// What the journal has of notices that were given up.
    GivenUp,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.has_only_given_up() && self.given_up.is_none()
    }

    /// Reports whether nothing waits but, perhaps, notices that were given up.
    fn has_only_given_up(&self) -> bool {
        self.alerts.is_empty()
            && self.payments.is_empty()
            && self.retry.is_none()
            && self.digest.received.is_empty()
    }

    /// Takes the next notice: those of security come first.
    fn next(&mut self) -> Option<Next> {
        if let Some(alert) = self.alerts.pop_front() {
            return Some(Next::Alert(alert));
        }
        if self.payments.front().is_some_and(|next| !is_receipt(&next.event)) {
            return self.payments.pop_front().map(Next::Payment);
        }
        if let Some(retry) = self.retry.take() {
            return Some(Next::Digest(retry));
        }
        if !self.digest.received.is_empty() {
            return Some(Next::Digest(std::mem::take(&mut self.digest)));
        }
        let payment = self.payments.pop_front().map(Next::Payment);
        payment.or_else(|| self.given_up.take().map(|_now| Next::GivenUp))
    }

    /// Puts a notice back, and delivers nothing for some time.
    fn wait(&mut self, next: Next, time: Duration) {
        self.not_before = Some(Instant::now() + time);
        match next {
            Next::Alert(alert) => self.alerts.push_front(alert),
            Next::Payment(payment) if is_receipt(&payment.event) => {
                self.retry = Some(Digest::of(payment));
            }
            Next::Payment(payment) => self.payments.push_front(payment),
            Next::Digest(digest) => self.retry = Some(digest),
            Next::GivenUp => self.given_up = self.not_before,
        }
    }

    fn add_payment(&mut self, waiting: Waiting) {
        if let Some(shown) = shown_transfer(&waiting.event) {
            // A later event has the newer state.
            self.payments.retain(|earlier| shown_transfer(&earlier.event) != Some(shown));
        }
        self.payments.push_back(waiting);
        let received = self.payments.iter().filter(|waiting| is_receipt(&waiting.event)).count();
        if received >= DIGEST_FROM || !self.digest.received.is_empty() {
            let (received, others): (VecDeque<_>, _) = std::mem::take(&mut self.payments)
                .into_iter()
                .partition(|waiting| is_receipt(&waiting.event));
            self.payments = others;
            received.into_iter().for_each(|waiting| self.digest.merge(Digest::of(waiting)));
        }
    }
}

impl Digest {
    fn of(Waiting { event, undelivered, .. }: Waiting) -> Self {
        Self {
            received: Received::of(&event).into_iter().collect(),
            mark: Mark::of(&event).map(|(_, mark)| mark),
            undelivered: vec![undelivered],
        }
    }

    fn merge(&mut self, other: Self) {
        self.mark = match (self.mark, other.mark) {
            (Some(own), Some(other)) => Some(own.and(other)),
            (own, other) => own.or(other),
        };
        for received in other.received {
            match self.received.iter_mut().find(|known| known.is_alike(&received)) {
                Some(known) => known.add(received),
                None => self.received.push(received),
            }
        }
        self.undelivered.extend(other.undelivered);
    }
}

/// The transfer whose message to its sender or to its recipient shows the event.
fn shown_transfer(event: &Event) -> Option<(TransferEvent, TransferId)> {
    match &event.what {
        EventBody::Transfer { kind, transfer } => Some((*kind, transfer.id)),
        EventBody::Account { .. }
        | EventBody::Security { .. }
        | EventBody::Recovery { .. }
        | EventBody::Deposit { .. }
        | EventBody::Unknown { .. } => None,
    }
}

/// Reports whether the event is a deposit, which several others can join in one message.
fn is_receipt(event: &Event) -> bool {
    Received::of(event).is_some()
}

/// One second, doubled with each failure, up to half a minute.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(failures).min(30))
}

#[async_trait]
impl Notices for Delivery {
    fn wait(&self, user: TelegramId) -> bool {
        self.lock().get(&user).is_some_and(|queue| !queue.is_empty())
    }

    fn is_urgent(&self, user: TelegramId) -> bool {
        let queues = self.lock();
        let Some(queue) = queues.get(&user) else { return false };
        let held = queue.not_before.is_some_and(|at| at > Instant::now());
        !held && queue.alerts.front().is_some_and(|alert| alert.since.elapsed() > URGENT)
    }

    async fn ready(&self, user: TelegramId) {
        let (not_before, answers) = {
            let queues = self.lock();
            let Some(queue) = queues.get(&user) else { return };
            let next = queue.payments.front();
            let is_update = next.is_some_and(|next| !is_receipt(&next.event));
            let only_given_up = queue.has_only_given_up();
            let given_up = queue.given_up.filter(|_| only_given_up);
            let answers = is_update || only_given_up || !queue.alerts.is_empty();
            (queue.not_before.max(given_up), answers)
        };
        if let Some(at) = not_before {
            sleep_until(at).await;
        }
        if !answers {
            self.context.telegram.quiet(user).await;
        }
    }

    async fn deliver(&self, user: TelegramId) {
        self.deliver_next(user).await;
    }
}

#[cfg(test)]
mod tests;
