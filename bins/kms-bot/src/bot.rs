//! A running bot: polls Telegram for updates and follows the server's events.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kms_client::{BearerToken, Client, ClientError, Trust};
use kms_process::{CancellationToken, Failure, Supervisor};
use kms_types::{EventStream, TelegramId, TypedRecipient};
use teloxide_core::payloads::{GetUpdates, GetUpdatesSetters};
use teloxide_core::requests::Requester;
use teloxide_core::types::{AllowedUpdate, BotCommand, CallbackQueryId, MessageId, Update};
use teloxide_core::{Bot as Api, RequestError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::chat::calls;
use crate::chat::deletions::in_private;
use crate::chat::incoming::Incoming;
use crate::chat::lanes::{Full, Lanes};
use crate::chat::shown::Place;
use crate::chat::telegram::{Telegram, TelegramError};
use crate::clock;
use crate::config::Settings;
use crate::context::Context;
use crate::delivery::{Delivery, backoff};
use crate::flow::Flow;
use crate::flows::FLOWS;
use crate::handler;
use crate::journal::Journal;
use crate::ops;
use crate::password_input::may_be_password;
use crate::router;
use crate::texts::{Text, html, text};

/// How long one request waits for updates, and when it counts as failed.
const POLL_SECONDS: u32 = 10;
const POLL_TIMEOUT: Duration = Duration::from_secs(15);
const LAST_POLL: Duration = Duration::from_secs(3);
/// How long to wait before polling again while an update is held, which Telegram returns each time.
const HELD_POLL: Duration = Duration::from_millis(250);
/// The number of later updates up to which a held update is asked for again: Telegram returns 100.
/// Above it the held one is acknowledged with them. The journal has its message, which is deleted
/// after a restart, too.
const MOST_AHEAD: i32 = 80;
/// How long what may be a password waits for its handler, before it is deleted without it.
const LANE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a stop may take: running handlers get what the poll leaves of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A bot that runs in this process.
pub struct Bot {
    username: String,
    ops_address: SocketAddr,
    supervisor: Supervisor,
    lanes: Lanes,
    delivery: Arc<Delivery>,
}

/// Omits what holds the token.
impl fmt::Debug for Bot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why a bot did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's URL, token or certificates are invalid.
    #[error("server: {0}")]
    Server(#[from] ClientError),
    /// Telegram refused the bot.
    #[error(transparent)]
    Telegram(#[from] TelegramError),
    /// The operations listener cannot listen.
    #[error("ops.listen: {0}")]
    Listen(std::io::Error),
    /// The state file cannot be read or written.
    #[error("state.path: {0}")]
    State(std::io::Error),
}

impl Bot {
    /// Registers the commands at Telegram and starts to chat. Retries while Telegram is
    /// unreachable; the server need not be reachable.
    ///
    /// # Errors
    /// When a setting is invalid, or Telegram does not know the token.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        // Before the first update, so that it is counted.
        kms_process::metrics();
        let (api, kms) = (api(&settings), client(&settings)?);
        let username = greet(&api).await?;
        let telegram = Telegram::new(api.clone(), settings.telegram.limits);
        let journal =
            Journal::open(&settings.state.path, clock::now()).map_err(StartError::State)?;
        let context = Arc::new(Context::new(telegram, kms, journal, username.clone()));
        let delivery = Arc::new(Delivery::new(Arc::clone(&context)));
        let (lanes, mut supervisor) = (Lanes::new(delivery.clone()), Supervisor::new());
        handler::resume_all(&context, &lanes);
        delivery.resume(&lanes);
        for (task, stream) in
            [("follow_security", EventStream::Security), ("follow_payments", EventStream::Payments)]
        {
            let (delivery, shutdown) = (Arc::clone(&delivery), supervisor.shutdown());
            let events = delivery.follow(stream, lanes.clone(), shutdown);
            supervisor.watch(task, never_fails(events));
        }
        let (ops, ops_address) =
            ops::server(settings.ops.listen, Arc::clone(&context), supervisor.shutdown())
                .map_err(StartError::Listen)?;
        supervisor.watch("ops_server", ops::serve(ops, supervisor.shutdown()));
        let publish = ops::publish(Arc::clone(&delivery), supervisor.shutdown());
        supervisor.watch("publish_metrics", never_fails(publish));
        let poll = Poll {
            api,
            context,
            lanes: lanes.clone(),
            held: Held::default(),
            seen: Mutex::default(),
        };
        let updates = poll.run(supervisor.shutdown());
        supervisor.watch("poll_updates", never_fails(updates));
        Ok(Self { username, ops_address, supervisor, lanes, delivery })
    }

    /// The bot's own username.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The address that health checks and metrics are served on.
    #[must_use]
    pub fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Waits until the poll or the event follower ends or panics, which neither should before a
    /// stop.
    pub async fn failed(&mut self) -> Failure {
        self.supervisor.failed().await
    }

    /// Stops polling, waits for running handlers, and ends.
    ///
    /// # Errors
    /// When a task failed meanwhile, or is still running after 20 seconds.
    pub async fn stop(self) -> Result<(), Failure> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.supervisor.stop(deadline).await?;
        if !self.lanes.finish(deadline).await {
            tracing::warn!(event = "handlers_aborted", "handlers aborted at the stop deadline");
        }
        self.delivery.acknowledge().await;
        Ok(())
    }
}

async fn never_fails(task: impl Future<Output = ()>) -> Result<(), Infallible> {
    task.await;
    Ok(())
}

fn api(settings: &Settings) -> Api {
    let api = Api::new(settings.telegram.token.expose());
    match &settings.telegram.api_url {
        Some(url) => api.set_api_url(url.as_url().clone()),
        None => api,
    }
}

pub(crate) fn client(settings: &Settings) -> Result<Client, StartError> {
    let server = &settings.server;
    let token = BearerToken::from(server.token.expose().to_owned());
    let trust = server.ca.clone().map_or(Trust::System, Trust::Pinned);
    Ok(Client::new(server.url.as_str(), token, trust)?)
}

/// Asks Telegram for the bot's username, without retries.
pub(crate) async fn whoami(settings: &Settings) -> Result<String, StartError> {
    let me = api(settings).get_me().await.map_err(TelegramError::from)?;
    Ok(format!("@{}", me.username()))
}

async fn greet(api: &Api) -> Result<String, TelegramError> {
    let mut failures = 0;
    loop {
        match introduce(api).await.map_err(TelegramError::from) {
            Ok(username) => return Ok(username),
            Err(error) if error.is_temporary() => {
                tracing::warn!(
                    %error,
                    event = "telegram_unreachable",
                    "Telegram not reachable at start, retrying"
                );
                tokio::time::sleep(backoff(failures)).await;
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn introduce(api: &Api) -> Result<String, RequestError> {
    let me = api.get_me().await?;
    // While a webhook is set, polling returns no updates.
    api.delete_webhook().await?;
    let command = |flow: &&dyn Flow| BotCommand::new(flow.word(), flow.description().into_string());
    api.set_my_commands(FLOWS.iter().map(command)).await?;
    Ok(me.username().to_owned())
}

/// Polls for updates until the bot stops.
///
/// An update is acknowledged when it was queued, and when a password in it was deleted, or when
/// [`MOST_AHEAD`] later ones have come: Telegram delivers it again to a bot that was killed before.
/// The journal has the message of a password until it is deleted, and keeps a repeated update from
/// having a second effect.
struct Poll {
    api: Api,
    context: Arc<Context>,
    lanes: Lanes,
    held: Held,
    /// The updates that were received and may come again.
    seen: Mutex<HashSet<u32>>,
}

/// The updates that must not be acknowledged yet.
#[derive(Clone, Default)]
struct Held(Arc<(Mutex<BTreeSet<u32>>, Notify)>);

/// Releases an update when it is dropped.
struct Hold(Held, u32);

impl Held {
    fn hold(&self, update: u32) -> Hold {
        self.lock().insert(update);
        Hold(self.clone(), update)
    }

    fn first(&self) -> Option<u32> {
        self.lock().first().copied()
    }

    /// Waits until an update is released, for a short time.
    async fn released(&self) {
        let _ = timeout(HELD_POLL, self.0.1.notified()).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
        self.0.0.1.notify_one();
    }
}

impl Poll {
    async fn run(self, shutdown: CancellationToken) {
        let (mut next, mut failures) = (0_i32, 0);
        while !shutdown.is_cancelled() {
            let (offset, seconds) = match self.held.first() {
                // Telegram returns it at once, and with it whatever has come: at most a page, which
                // one user's slow chat must not fill.
                Some(held) if next.saturating_sub(offset(held)) < MOST_AHEAD => (offset(held), 0),
                Some(_) => (next, POLL_SECONDS),
                None => {
                    self.seen().clear();
                    (next, POLL_SECONDS)
                }
            };
            let updates = get_updates(offset, seconds);
            let updates = tokio::select! {
                updates = calls::call(&self.api, &updates, POLL_TIMEOUT) => updates,
                () = shutdown.cancelled() => break,
            };
            match updates {
                Ok(updates) => {
                    failures = 0;
                    self.context.telegram.record_response();
                    for update in updates {
                        next = next.max(update.id.as_offset());
                        self.dispatch(update);
                    }
                    if self.held.first().is_some() {
                        self.held.released().await;
                    }
                }
                Err(error) => {
                    let error = TelegramError::from(error);
                    tracing::warn!(%error, event = "updates_failed", "update request failed");
                    let _ = timeout(backoff(failures), shutdown.cancelled()).await;
                    failures += 1;
                }
            }
        }
        // Acknowledges the last updates, so that a restart does not receive them again.
        let offset = self.held.first().map_or(next, offset);
        let _ = calls::call(&self.api, &get_updates(offset, 0).limit(1), LAST_POLL).await;
    }

    fn seen(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, update: Update) {
        let id = update.id.0;
        // Telegram returns a held update with each poll.
        if !self.seen().insert(id) {
            return;
        }
        let Some(incoming) = Incoming::parse(update) else { return };
        metrics::counter!("kms_bot_updates_total").increment(1);
        let (user, context) = (incoming.user().id, &self.context);
        match (incoming.private_message(), &incoming) {
            (Some(message), Incoming::Pressed(_)) => context.telegram.reach_message(message),
            (Some(message), _) => context.telegram.record_message(message),
            (None, _) => {}
        }
        let message = incoming.private_message();
        let secret = message.filter(|_| router::may_show_secret(context, &incoming));
        // What is deleted if the bot is killed before the message was handled: what was asked for
        // may then be forgotten.
        let unsure = secret.or_else(|| possible_password(&incoming));
        let place = unsure.map(|message| in_private(user, message));
        if !context.journal.begin(user, id, context.telegram.last_message().0, place) {
            let typed = secret.or_else(|| unsure.filter(|_| incoming.secret_text().is_some()));
            self.repeated(&incoming, id, typed.map(|message| in_private(user, message)));
            return;
        }
        // What cannot hold a password is acknowledged at once.
        let may_be_secret = incoming.may_be_secret() || secret.is_some();
        let hold = may_be_secret.then(|| self.held.hold(id));
        let hold = match secret {
            Some(message) if incoming.at().is_some_and(|at| context.awaits_password(user, at)) => {
                context.deletions.start(user, in_private(user, message), hold);
                None
            }
            Some(_) | None => hold,
        };
        let query = incoming.query();
        let (handled, lanes) = (Arc::clone(context), self.lanes.clone());
        let begun = Arc::new(AtomicBool::new(false));
        if let Some(message) = secret.filter(|_| !is_recipient(&incoming)) {
            self.delete_unless_begun(user, message, Arc::clone(&begun));
        }
        let job = async move {
            begun.store(true, Ordering::Relaxed);
            handler::handle(&handled, &lanes, incoming, id).await;
            if let Some(message) = message {
                handled.deletions.settle(user, in_private(user, message), hold);
            }
        };
        if let Err(Full { first }) = self.lanes.enqueue(user, job) {
            match (secret, place) {
                (Some(_), Some(place)) => {
                    self.context.deletions.start(user, place, self.held.hold(id));
                }
                (None, Some(place)) => self.context.deletions.settle(user, place, ()),
                (_, None) => {}
            }
            self.dropped(user, id, query, first);
        }
    }

    /// Deletes what may be a password although its handler has not begun: earlier messages of the
    /// user may keep it waiting for long.
    fn delete_unless_begun(&self, user: TelegramId, message: MessageId, begun: Arc<AtomicBool>) {
        let deletions = self.context.deletions.clone();
        tokio::spawn(async move {
            sleep(LANE_PATIENCE).await;
            if !begun.load(Ordering::Relaxed) {
                deletions.start(user, in_private(user, message), ());
            }
        });
    }

    /// An update that was handled, or interrupted by a restart, has no second effect.
    fn repeated(&self, incoming: &Incoming, id: u32, secret: Option<Place>) {
        if let Some(place) = secret {
            self.context.deletions.start(incoming.user().id, place, self.held.hold(id));
        }
        if let Some(query) = incoming.query() {
            self.answer(query, None);
        }
    }

    /// What does not fit is answered all the same.
    fn dropped(&self, user: TelegramId, id: u32, query: Option<CallbackQueryId>, first: bool) {
        if let Some(query) = query {
            self.answer(query, Some(text!("busy-notice")));
        }
        self.context.journal.end(user, id, self.context.telegram.last_message().0);
        if first {
            tracing::warn!(event = "update_dropped", "updates dropped: the user's lane is full");
            let context = Arc::clone(&self.context);
            self.lanes.enqueue_own(user, async move {
                if let Err(error) = context.send(user, html!("flood")).await {
                    tracing::warn!(%error, event = "update_failed", "flood not answered");
                }
            });
        }
    }

    fn answer(&self, query: CallbackQueryId, notice: Option<Text>) {
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            context.telegram.answer_query(query, notice).await;
        });
    }
}

/// The message, if its text could be a password, whatever was asked for.
fn possible_password(incoming: &Incoming) -> Option<MessageId> {
    let possible = incoming.own_text().is_some_and(may_be_password) && !is_recipient(incoming);
    incoming.private_message().filter(|_| possible)
}

/// Whether the text is rather a recipient that an earlier message has asked for meanwhile.
fn is_recipient(incoming: &Incoming) -> bool {
    incoming.own_text().is_some_and(TypedRecipient::is_marked)
}

fn offset(update: u32) -> i32 {
    update.try_into().unwrap_or(i32::MAX)
}

fn get_updates(offset: i32, seconds: u32) -> GetUpdates {
    GetUpdates::new().offset(offset).timeout(seconds).allowed_updates([
        AllowedUpdate::Message,
        AllowedUpdate::EditedMessage,
        AllowedUpdate::CallbackQuery,
        AllowedUpdate::MyChatMember,
    ])
}
